//! Logging to standard error, so that standard output contains only the answer of a command.
//!
//! A JSON line has `timestamp`, `level`, `target` and `message`, and beside them the event's fields
//! under fixed dotted names (`audience.id`, `destination.name`).
//!
//! A line that cannot be written neither stops nor delays the daemon (`lines`). Panics are logged as
//! lines too: nothing else writes to standard error while the daemon runs.

mod lines;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};

use tracing::Subscriber;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, reload};

use crate::config::{Log, LogFormat};
use crate::panics;

pub use lines::{FlushAtEnd, Lines};

/// The running log.
#[derive(Debug)]
pub struct Logging {
    /// Changes the level.
    pub levels: Levels,
    /// The queue of its lines.
    pub lines: Lines,
}

/// Changes the level of the log.
pub struct Levels(Box<dyn Fn(&str) + Send + Sync>);

impl fmt::Debug for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Levels")
    }
}

impl Levels {
    /// Sets the level, or levels per module; the configuration has checked them.
    pub fn set(&self, level: &str) {
        (self.0)(level);
    }
}

/// Starts logging as `log` says, panics included. If the process already has a subscriber, that one
/// stays. Errors: the thread cannot be started.
pub fn init(log: &Log) -> io::Result<Logging> {
    let lines = Lines::to_stderr()?;
    let (subscriber, levels) = subscriber(log, lines.clone());
    // Fails only if there is a subscriber already, set by a test or an embedder: that one stays.
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        let before_the_end = lines.clone();
        panic::set_hook(Box::new(move |panic| {
            log_panic(panic);
            before_the_end.flush(); // a panic may abort the process next
        }));
    }
    Ok(Logging { levels, lines })
}

/// Logs a panic. The standard library's hook would write to standard error itself, and block if its
/// reader has stopped reading.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let backtrace = Backtrace::capture();
    let is_captured = backtrace.status() == BacktraceStatus::Captured;
    tracing::error!(
        thread = thread.name().unwrap_or("unnamed"),
        location = panic.location().map(tracing::field::display),
        reason = panics::message(panic.payload()),
        backtrace = is_captured.then(|| tracing::field::display(&backtrace)),
        "panicked"
    );
}

fn subscriber<W>(log: &Log, writer: W) -> (Box<dyn Subscriber + Send + Sync>, Levels)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(&log.level));
    // Fails only if the subscriber is gone; then nothing is logged anyway.
    let levels = Levels(Box::new(move |level| drop(handle.reload(self::filter(level)))));
    let filtered = Registry::default().with(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .log_internal_errors(false) // else it writes to standard error, and panics if that fails
        .with_ansi(log.format == LogFormat::Pretty && takes_colours(&std::io::stderr()));
    let subscriber: Box<dyn Subscriber + Send + Sync> = match log.format {
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true);
            Box::new(filtered.with(lines.with_current_span(false).with_span_list(false)))
        }
        LogFormat::Pretty => Box::new(filtered.with(lines.compact())),
    };
    (subscriber, levels)
}

/// The configured levels, which have been checked, after `h2=error`: the `h2` crate logs whatever a
/// peer does wrong, which could fill a disk ([P6](crate::design::P6)). `info,h2=debug` in the
/// configuration overrides it.
fn filter(level: &str) -> Targets {
    format!("h2=error,{level}").parse().expect("the configuration has checked it")
}

/// Whether `stream` is a terminal and `NO_COLOR` is not set.
#[must_use]
pub fn takes_colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// An error and its causes on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no writer panics").write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_peers_of_http_2_do_wrong_is_logged_for_whoever_names_it() {
        for (level, is_logged) in [("info", false), ("trace", false), ("info,h2=debug", true)] {
            let lines = Lines::default();
            let writer = lines.clone();
            let log = Log { format: LogFormat::Json, level: level.to_owned() };
            let (subscriber, _) = subscriber(&log, move || writer.clone());
            tracing::subscriber::with_default(subscriber, || {
                tracing::warn!(target: "h2::proto", "locally-reset streams reached limit");
            });
            assert_eq!(!lines.0.lock().expect("no writer panics").is_empty(), is_logged, "{level}");
        }
    }

    fn logged(format: LogFormat, level: &str) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = Log { format, level: level.to_owned() };
        let (subscriber, levels) = subscriber(&log, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(destination.name = "eu", "held");
            tracing::info!("sent");
            levels.set("off");
            tracing::error!("never seen");
        });
        let bytes = lines.0.lock().expect("no writer panics").clone();
        String::from_utf8(bytes).expect("log lines are text")
    }

    #[test]
    fn a_json_line_has_its_fields_beside_its_message() {
        let text = logged(LogFormat::Json, "warn");
        let [line] = text.lines().collect::<Vec<_>>()[..] else { panic!("one line: {text}") };
        let line: serde_json::Value = serde_json::from_str(line).expect("a line is JSON");
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["target"], module_path!());
        assert_eq!(line["message"], "held");
        assert_eq!(line["destination.name"], "eu");
        assert!(line["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
    }

    #[test]
    fn a_pretty_line_is_for_people_and_levels_go_by_module() {
        let text = logged(LogFormat::Pretty, "warn,cohortd::operate=info");
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("held") && text.contains("eu"), "{text}");
        assert_eq!(logged(LogFormat::Json, "off"), "");
    }
}
