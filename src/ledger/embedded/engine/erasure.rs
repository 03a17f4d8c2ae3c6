//! Erased is erased: what was deleted from the tables leaves the logs in front of them too.
//!
//! In the tables, `secure_delete` overwrites what is freed. But what was written before the deletion still
//! stands in SQLite's write-ahead log, and what was accepted before it in the journal. Both are emptied at
//! a clean stop; while the daemon runs, a minute after a deletion ([`ERASE_AFTER`]).
//!
//! # What always holds
//! * Nobody waits for it. While somebody reads from an old moment (a backup, an export), the log cannot
//!   be emptied; it is tried again every second until they have gone.
//! * The journal loses only what is in the tables and synced ([P1](crate::design::P1)).

use std::time::Duration;

use tokio::time::Instant;

use crate::ledger::embedded::wal::FILES;

/// From a deletion until the logs are emptied, unless somebody still reads from them.
pub(crate) const ERASE_AFTER: Duration = Duration::from_secs(60);
/// Between two attempts while something is still needed.
const AGAIN: Duration = Duration::from_secs(1);

/// What is still to be emptied, and when.
#[derive(Debug)]
pub(crate) struct Erasure {
    after: Duration,
    /// The next attempt; `None`: nothing was deleted since the logs were emptied.
    due: Option<Instant>,
    /// Since the first attempt.
    left: Option<Left>,
    /// Something was deleted since the first attempt.
    once_more: bool,
}

/// What the attempts so far have not emptied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    pub log: bool,
    pub files: [bool; FILES.len()],
}

impl Erasure {
    /// Nothing was deleted yet; a deletion waits for so long.
    pub fn new(after: Duration) -> Self {
        Self { after, due: None, left: None, once_more: false }
    }

    /// Something was deleted from the tables, or will be within a second or two.
    pub fn note(&mut self) {
        if self.left.is_some() {
            self.once_more = true;
        } else if self.due.is_none() {
            self.due = Some(Instant::now() + self.after);
        }
    }

    /// When the next attempt is due, if anything is left.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Begins, if this is the first attempt. `true`: it is, and the log should be copied first.
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

    /// Takes note of an attempt.
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

    /// Tries again in a moment.
    pub fn again(&mut self) {
        self.due = Some(Instant::now() + AGAIN.min(self.after));
    }
}
