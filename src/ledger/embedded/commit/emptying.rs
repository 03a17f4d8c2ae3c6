//! Emptying the log and SQLite's log into the tables: on closing, and a while after a deletion.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use tokio::time::Instant;

use crate::ledger::embedded::directory::reserve::is_full;
use crate::ledger::embedded::wal::{FILES, Log};

/// Copies all of SQLite's log into the database and truncates it, until the deadline `by`. `false`: a reader
/// needs it, the time is up, or the disk of `directory` has no space; nothing is lost then.
pub(crate) fn empty_sqlite_log(
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
        let _ = timer.join(); // it cannot panic
    }
    db.busy_timeout(BUSY)?;
    match emptied {
        Ok(busy) => Ok(busy == 0),
        Err(error) if is_for_now(&error) || is_full(&error, directory) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a retry may succeed: a reader was in the way, or the time was up.
fn is_for_now(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::OperationInterrupted | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// How long a statement waits for a lock that another connection holds.
const BUSY: Duration = Duration::from_secs(5);

/// Whether the logs of the ledger in `directory` hold anything.
pub(crate) fn is_needed(directory: &Path) -> bool {
    let length = |name: &str| std::fs::metadata(directory.join(name)).map_or(0, |file| file.len());
    FILES.iter().chain(&["ledger.db-wal"]).any(|name| length(name) > 0)
}

/// Truncates the log files of `left` that hold nothing unmerged; returns those that are still left.
pub(crate) fn empty_log(
    journal: &Log,
    directory: &Path,
    left: [bool; FILES.len()],
) -> [bool; FILES.len()] {
    let mut still = left;
    for (which, left) in still.iter_mut().enumerate().filter(|(_, left)| **left) {
        match journal.empty(directory, which) {
            Ok(emptied) => *left = !emptied,
            // A retry follows; the append thread meets the same error.
            Err(error) => tracing::warn!(%error, "the journal cannot be emptied yet: will retry"),
        }
    }
    still
}
