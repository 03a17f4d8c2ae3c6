//! `[log]` and `[stop]`: what the process logs and how it stops.

use std::time::Duration;

use tracing_subscriber::filter::Targets;

use super::listeners::A_YEAR_MS;
use super::section::Section;

/// What is logged and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The format of lines.
    pub format: LogFormat,
    /// A level, or levels for modules as in `info,cohortd::deliver=debug`; valid.
    pub level: String,
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For a person at a terminal.
    Pretty,
}

/// How the daemon stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The time from SIGTERM to the end of the process ([P10](crate::design::P10)). Container platforms
    /// usually kill after 10 s.
    pub grace_period: Duration,
    /// The part of it between reporting not ready and no longer accepting, so that load balancers notice.
    pub drain_delay: Duration,
}

impl Log {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let formats = [("json", LogFormat::Json), ("pretty", LogFormat::Pretty)];
        let log = Self {
            format: section.choice("format", &formats).unwrap_or(LogFormat::Json),
            level: section.parsed("level", level).unwrap_or_default(),
        };
        section.finish();
        log
    }
}

/// Parses a level, or levels for modules, in the syntax of `tracing_subscriber`. A lone module name is
/// rejected: it would be a misspelt level, and would silence everything else.
fn level(text: &str) -> Result<String, String> {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let problem = "must be off, error, warn, info, debug or trace, or such a level per module, \
                   as in info,cohortd::deliver=debug";
    let is_level = |text: &str| levels.contains(&text.to_lowercase().as_str());
    let usable = |directive: &str| match directive.rsplit_once('=') {
        Some((_, level)) => is_level(level),
        None => is_level(directive),
    };
    // The library treats spaces as part of a name.
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    let text = parts.join(",");
    if parts.into_iter().all(usable) && text.parse::<Targets>().is_ok() {
        Ok(text)
    } else {
        Err(problem.to_owned())
    }
}

impl Stop {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let grace_period_ms = section.needed_whole("grace_period_ms", 0..=A_YEAR_MS);
        let drain_delay_ms = section.needed_whole("drain_delay_ms", 0..=A_YEAR_MS);
        if section.is_clean() && drain_delay_ms > 0 && drain_delay_ms >= grace_period_ms {
            let problem = format!("leaves nothing of grace_period_ms ({grace_period_ms})");
            section.fault("drain_delay_ms", Some(drain_delay_ms.to_string()), problem);
        }
        section.finish();
        Self {
            grace_period: Duration::from_millis(grace_period_ms),
            drain_delay: Duration::from_millis(drain_delay_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::level;

    #[test]
    fn a_misspelt_level_is_a_fault_and_not_a_module_name() {
        let cases = [
            ("info", true),
            ("WARN", true),
            ("info,cohortd::deliver=debug", true),
            ("inof", false),
            ("info,cohortd", false),
            ("cohortd=loud", false),
            ("info,", false),
        ];
        for (text, expected) in cases {
            assert_eq!(level(text).is_ok(), expected, "{text}");
        }
    }

    #[test]
    fn blanks_are_no_part_of_a_level() {
        for text in ["info", " info", "info\n", "info , cohortd::deliver=debug "] {
            let read = level(text).expect("a level");
            assert!(read.starts_with("info") && !read.contains([' ', '\n']), "{read:?}");
        }
    }
}
