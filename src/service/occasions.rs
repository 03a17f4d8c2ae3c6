//! When the configuration is read again: on SIGHUP, on an operator's request, and when one of its files has
//! changed and is no longer being written.
//!
//! Files are polled every second rather than watched: polling works on every file system, through
//! Kubernetes' symlinks, and across renames. A changed file is read only once two polls in a row see the
//! same state.

use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::config::{Config, Faults, Files, Reading, Source};
use crate::operate::api::AskedToReload;
use crate::operate::logging::{Levels, Logging};

/// Time between two polls: a change is read one to two of these later.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where the daemon's configuration came from, so that it can be read again.
#[derive(Debug)]
pub struct Origin {
    /// The file and the environment.
    pub source: Source,
    /// The files that were read.
    pub files: Files,
    /// Takes a new `log.level`.
    pub logging: Logging,
}

/// A reason to read the configuration again.
#[derive(Debug)]
pub(super) enum Occasion {
    Hangup,
    FilesChanged,
    Asked(AskedToReload),
}

/// Why a new configuration was rejected; never contains a secret.
#[derive(Debug)]
pub(super) struct NotTaken {
    /// The text as printed.
    pub text: String,
    /// One line for each fault.
    pub faults: Vec<String>,
}

impl NotTaken {
    /// A single cause that no key of the configuration is responsible for.
    pub fn for_cause(cause: impl Into<String>) -> Self {
        let text = cause.into();
        Self { faults: vec![text.clone()], text }
    }
}

impl From<Faults> for NotTaken {
    fn from(faults: Faults) -> Self {
        let lines = faults.iter().map(ToString::to_string).collect();
        Self { text: faults.to_string(), faults: lines }
    }
}

/// Waits for the next occasion.
#[derive(Debug)]
pub(super) struct Occasions {
    source: Source,
    pub levels: Levels,
    hangups: Signal,
    asked: mpsc::Receiver<AskedToReload>,
    looks: Interval,
    watched: Watched,
}

/// The state of the configuration's files.
#[derive(Debug)]
struct Watched {
    /// When they were last read.
    read: Files,
    /// At the last poll.
    seen: Files,
}

impl Watched {
    fn since(read: Files) -> Self {
        Self { seen: read.clone(), read }
    }

    /// Whether they have changed since they were read and are the same as at the last poll.
    fn look(&mut self, now: Files) -> bool {
        let is_at_rest = now == self.seen;
        self.seen = now;
        is_at_rest && self.seen != self.read
    }
}

impl Occasions {
    pub fn new(
        Origin { source, files, logging }: Origin,
        hangups: Signal,
        asked: mpsc::Receiver<AskedToReload>,
    ) -> Self {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let levels = logging.levels;
        Self { source, levels, hangups, asked, looks, watched: Watched::since(files) }
    }

    /// Cancel safe: at most one poll is lost.
    pub async fn next(&mut self) -> Occasion {
        loop {
            tokio::select! { // the channels keep a signal or request that arrives between two waits
                Some(()) = self.hangups.recv() => return Occasion::Hangup,
                Some(asked) = self.asked.recv() => return Occasion::Asked(asked),
                _ = self.looks.tick() => {}
            }
            let read = self.watched.read.clone();
            let now = tokio::task::spawn_blocking(move || read.now()).await;
            if now.is_ok_and(|now| self.watched.look(now)) {
                return Occasion::FilesChanged;
            }
        }
    }

    /// The configuration file, if there is one.
    pub fn file(&self) -> Option<String> {
        self.source.file().map(|file| file.display().to_string())
    }

    /// Reads the configuration; the error lists every fault.
    pub async fn read(&mut self) -> Result<Config, NotTaken> {
        let source = self.source.clone();
        let reading = tokio::task::spawn_blocking(move || source.read()).await;
        let Ok(Reading { config, files, .. }) = reading else {
            return Err(NotTaken::for_cause("reading the configuration panicked"));
        };
        self.watched = Watched::since(files);
        config.map_err(NotTaken::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    #[test]
    fn files_are_read_again_once_they_have_changed_and_come_to_rest() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("cohortd.toml");
        let write = |text: &str| std::fs::write(&file, text).expect("it is ours");
        let read = || Source::locate(Some(&file)).read().files;
        write("a");
        let mut watched = Watched::since(read());
        let look = |watched: &mut Watched| watched.look(watched.read.now());
        assert!(!look(&mut watched), "nothing has changed");
        write("half");
        assert!(!look(&mut watched), "it may go on");
        write("half and half");
        assert!(!look(&mut watched), "it went on");
        assert!(look(&mut watched) && look(&mut watched), "until it is read");
        let mut watched = Watched::since(read());
        assert!(!look(&mut watched), "it is");
    }
}
