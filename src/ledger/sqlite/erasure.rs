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

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use tokio::time::Instant;

use super::journal::{FILES, Journal};
use super::reserve::is_full;

/// From a deletion until the logs are emptied, unless somebody still reads from them.
pub(super) const ERASE_AFTER: Duration = Duration::from_secs(60);
/// Between two attempts while something is still needed.
const AGAIN: Duration = Duration::from_secs(1);

/// What is still to be emptied, and when.
#[derive(Debug)]
pub(super) struct Erasure {
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
pub(super) struct Left {
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

/// Copies all of SQLite's log into the tables and empties it, until `by`. `false`: somebody reads from it,
/// or there is not enough time, or no space on the disk of `directory`; nothing is lost by that.
pub(super) fn empty_log(
    db: &Connection,
    directory: &Path,
    by: Option<Instant>,
) -> rusqlite::Result<bool> {
    if by.is_some_and(|by| by <= Instant::now()) {
        return Ok(false);
    }
    let interrupt = db.get_interrupt_handle();
    let (done, waits) = channel::<()>();
    let timer = by.map(|by| {
        std::thread::spawn(move || {
            let left = by.saturating_duration_since(Instant::now());
            if waits.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
                interrupt.interrupt();
            }
        })
    });
    db.busy_timeout(Duration::ZERO)?; // for readers; there is no other writer
    let emptied = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i32>(0));
    drop(done);
    if let Some(timer) = timer {
        let _ = timer.join(); // it has nothing to panic about
    }
    db.busy_timeout(BUSY)?;
    match emptied {
        Ok(busy) => Ok(busy == 0),
        Err(error) if is_for_now(&error) || is_full(&error, directory) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether it may work in a moment: somebody reads, or the time was up.
fn is_for_now(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::OperationInterrupted | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// How long a statement waits for another process.
const BUSY: Duration = Duration::from_secs(5);

/// Whether the logs of the ledger in `directory` hold anything.
pub(super) fn is_needed(directory: &Path) -> bool {
    let length = |name: &str| std::fs::metadata(directory.join(name)).map_or(0, |file| file.len());
    FILES.iter().chain(&["ledger.db-wal"]).any(|name| length(name) > 0)
}

/// Empties the files of the journal that hold nothing that is still needed; which of `left` are not.
pub(super) fn empty_journal(
    journal: &Journal,
    directory: &Path,
    left: [bool; FILES.len()],
) -> [bool; FILES.len()] {
    let mut still = left;
    for (which, left) in still.iter_mut().enumerate().filter(|(_, left)| **left) {
        match journal.empty(directory, which) {
            Ok(emptied) => *left = !emptied,
            // It is tried again; whoever appends to it meets the same.
            Err(error) => tracing::warn!(%error, "the journal cannot be emptied yet"),
        }
    }
    still
}
