//! Erasure: deleted data has to leave the logs in front of the tables too.
//!
//! In the tables, `secure_delete` overwrites what is freed. But what was written before the deletion is still
//! in SQLite's log, and what was accepted before it in the ledger's own log. Both are emptied at a clean stop
//! and, while the daemon runs, a minute after a deletion ([`ERASE_AFTER`]).
//!
//! # What always holds
//! * Nobody waits for it. While a reader holds an old snapshot (a backup, an export), SQLite's log cannot be
//!   emptied; it is tried again every second until the reader is gone.
//! * The log loses only what is in the tables and synced ([P1](crate::design::P1)).

use std::time::Duration;

use tokio::time::Instant;

use crate::ledger::embedded::wal::FILES;

/// Time from a deletion until the logs are emptied, unless a reader still needs them.
pub(crate) const ERASE_AFTER: Duration = Duration::from_secs(60);
/// Delay between two attempts.
const AGAIN: Duration = Duration::from_secs(1);

/// What is still to be emptied, and when.
#[derive(Debug)]
pub(crate) struct Erasure {
    after: Duration,
    /// The next attempt; `None` if nothing was deleted since the logs were last emptied.
    due: Option<Instant>,
    /// Set by the first attempt.
    left: Option<Left>,
    /// Something was deleted since the first attempt.
    once_more: bool,
}

/// What earlier attempts have not emptied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    pub log: bool,
    pub files: [bool; FILES.len()],
}

impl Erasure {
    /// No deletion yet; `after`: how long after a deletion the logs are emptied.
    pub fn new(after: Duration) -> Self {
        Self { after, due: None, left: None, once_more: false }
    }

    /// Something was deleted from the tables, or is dirty and will be within a second or two.
    pub fn note(&mut self) {
        if self.left.is_some() {
            self.once_more = true;
        } else if self.due.is_none() {
            self.due = Some(Instant::now() + self.after);
        }
    }

    /// When the next attempt is due, if there is anything to empty.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Begins unless an attempt was made before. `true`: this is the first one, and SQLite's log should be
    /// copied first.
    pub fn begin(&mut self) -> bool {
        let is_first = self.left.is_none();
        if is_first {
            self.left = Some(Left { log: true, files: [true; FILES.len()] });
            self.again();
        }
        is_first
    }

    /// What is left to be emptied.
    pub fn left(&self) -> Option<Left> {
        self.left
    }

    /// Records what an attempt has left.
    pub fn attempted(&mut self, left: Left) {
        if left.log || left.files.contains(&true) {
            self.left = Some(left);
            self.again();
            return;
        }
        (self.left, self.due) = (None, None);
        if std::mem::take(&mut self.once_more) {
            self.note();
        }
    }

    /// Schedules another attempt.
    pub fn again(&mut self) {
        self.due = Some(Instant::now() + AGAIN.min(self.after));
    }
}
