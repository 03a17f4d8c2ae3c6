//! Emptying the journal and SQLite's log into the tables: at the end, and a while after a deletion.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use tokio::time::Instant;

use crate::ledger::embedded::directory::reserve::is_full;
use crate::ledger::embedded::wal::{FILES, Log};

/// Copies all of SQLite's log into the tables and empties it, until `by`. `false`: somebody reads from it,
/// or there is not enough time, or no space on the disk of `directory`; nothing is lost by that.
pub(crate) fn empty_log(
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
pub(crate) fn is_needed(directory: &Path) -> bool {
    let length = |name: &str| std::fs::metadata(directory.join(name)).map_or(0, |file| file.len());
    FILES.iter().chain(&["ledger.db-wal"]).any(|name| length(name) > 0)
}

/// Empties the files of the journal that hold nothing that is still needed; which of `left` are not.
pub(crate) fn empty_journal(
    journal: &Log,
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
