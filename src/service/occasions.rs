//! When the configuration is read again: on SIGHUP, when an operator asks, and when one of its files
//! has changed and come to rest.
//!
//! Files are looked at every second rather than watched: that works on every file system, through
//! Kubernetes' links, and across renames. One that is being written is not read until two looks agree.

use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::config::{Config, Faults, Files, Reading, Source};
use crate::operate::api::AskedToReload;
use crate::operate::logging::Levels;

/// A change is read after one to two of these.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where the configuration of the daemon has come from, so that it can be read again.
#[derive(Debug)]
pub struct Origin {
    /// The file and the environment.
    pub source: Source,
    /// The files that were read.
    pub files: Files,
    /// Takes a new `log.level`.
    pub levels: Levels,
}

/// A reason to read the configuration again.
#[derive(Debug)]
pub(super) enum Occasion {
    Hangup,
    FilesChanged,
    Asked(AskedToReload),
}

/// Waits for the next one.
#[derive(Debug)]
pub(super) struct Occasions {
    source: Source,
    pub levels: Levels,
    hangups: Signal,
    asked: mpsc::Receiver<AskedToReload>,
    looks: Interval,
    /// The files as they were read last.
    read: Files,
    /// The same files as they were at the last look.
    seen: Files,
}

impl Occasions {
    pub fn new(
        Origin { source, files, levels }: Origin,
        hangups: Signal,
        asked: mpsc::Receiver<AskedToReload>,
    ) -> Self {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { source, levels, hangups, asked, looks, seen: files.clone(), read: files }
    }

    /// A cancel loses at most a look.
    pub async fn next(&mut self) -> Occasion {
        loop {
            tokio::select! { // a signal or a question that is not waited for is kept
                Some(()) = self.hangups.recv() => return Occasion::Hangup,
                Some(asked) = self.asked.recv() => return Occasion::Asked(asked),
                _ = self.looks.tick() => {}
            }
            let read = self.read.clone();
            let Ok(now) = tokio::task::spawn_blocking(move || read.now()).await else { continue };
            let is_at_rest = now == self.seen;
            self.seen = now;
            if is_at_rest && self.seen != self.read {
                return Occasion::FilesChanged;
            }
        }
    }

    /// Reads the configuration.
    pub async fn read(&mut self) -> Result<Config, Faults> {
        let source = self.source.clone();
        let reading = tokio::task::spawn_blocking(move || source.read()).await;
        let Reading { config, files } = reading.expect("reading a configuration does not panic");
        (self.read, self.seen) = (files.clone(), files);
        config
    }
}
