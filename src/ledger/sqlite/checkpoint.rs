//! Checkpoints, off the commit path: a thread of its own copies the write-ahead log into the database
//! while the writer goes on. Only when that cannot keep up does the writer help.
//!
//! # What always holds
//! * Nobody waits for whoever reads: while somebody reads from an old moment (a backup, a check, an
//!   export into a slow pipe), the log grows on the disk, and is used again when they have gone
//!   (`tests::checkpoints`).
//! * A copy or sync that failed is never taken for one that happened: it ends the writer, unless the
//!   disk is merely full (tests/it/faults.rs).

use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::database::Database;
use super::reserve::is_full;
use super::schema;

/// Pages in the log from which a checkpoint is worth its reads and writes: 16 MiB.
const WORTH_IT: i32 = 4_096;
/// Pages in the log from which the writer helps: 160 MiB.
const TOO_MANY: i32 = 40_960;

/// Watches the length of the log and has it copied.
#[derive(Debug)]
pub(super) struct Checkpointer {
    shared: Arc<Shared>,
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
    /// Pages from which the writer helps next.
    help_from: i32,
}

#[derive(Debug)]
struct Shared {
    /// In the log, after the last commit.
    pages: AtomicI32,
    /// Pages from which the thread is woken next.
    wake_from: AtomicI32,
    /// Held while the log is copied; how the thread failed.
    copying: Mutex<Option<rusqlite::Error>>,
}

/// Pages in the log, and how many of them the database has.
struct Copied {
    log: i32,
    copied: i32,
}

impl Checkpointer {
    /// Starts the thread and lets `writer` report how long its log is after each commit.
    pub fn watch(writer: &mut Connection, directory: &Path) -> rusqlite::Result<Self> {
        let shared = Arc::new(Shared {
            pages: AtomicI32::new(0),
            wake_from: AtomicI32::new(WORTH_IT),
            copying: Mutex::new(None),
        });
        let reported = Arc::clone(&shared);
        writer.wal_hook(Some(move |_: &mut _, length: i32| {
            reported.pages.store(length, Ordering::Relaxed);
            Ok(())
        }))?;
        let (wake, woken) = sync_channel::<()>(1);
        let beside = schema::open_checkpointer(directory)?;
        let seen = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("checkpoint".into())
            .spawn(move || seen.copy_when_woken(&woken, &beside))
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        Ok(Self { shared, wake, thread, help_from: TOO_MANY })
    }

    /// Called by the writer between two groups.
    pub fn after_commit(&mut self, writer: &Database) -> rusqlite::Result<()> {
        if self.thread.is_finished()
            && let Some(error) = self.shared.lock().take()
        {
            return Err(error);
        }
        let pages = self.shared.pages.load(Ordering::Relaxed);
        if pages < TOO_MANY {
            self.help_from = TOO_MANY;
        }
        if pages >= self.help_from {
            // Nothing is added while it is copied, so that the next commit may begin the log again.
            let _copying = self.shared.lock();
            self.help_from = pages.saturating_add(WORTH_IT);
            return match copy(writer) {
                Err(error) if !is_full(&error) => Err(error),
                _ => Ok(()),
            };
        }
        if pages >= self.shared.wake_from.load(Ordering::Relaxed) {
            match self.wake.try_send(()) {
                Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
            }
        }
        Ok(())
    }

    /// Ends the thread.
    pub fn stop(self) {
        drop(self.wake);
        let _ = self.thread.join(); // a panic there has nothing left to spoil
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<rusqlite::Error>> {
        self.copying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends with the first failure: what it means is the writer's to decide.
    fn copy_when_woken(&self, woken: &Receiver<()>, db: &Connection) {
        let mut before = 0;
        while woken.recv().is_ok() {
            let mut failure = self.lock();
            let (log, stuck) = match copy(db) {
                Ok(Copied { log, copied }) => {
                    let stuck = copied < log && copied == before;
                    before = copied;
                    (log, stuck)
                }
                Err(error) if is_full(&error) => {
                    tracing::warn!(%error, "the write-ahead log cannot be copied for want of space");
                    (self.pages.load(Ordering::Relaxed), true)
                }
                Err(error) => {
                    *failure = Some(error);
                    return;
                }
            };
            // Tried at every commit it would be read and sorted for nothing.
            let next = if stuck { log.saturating_add(WORTH_IT) } else { WORTH_IT };
            self.wake_from.store(next, Ordering::Relaxed);
        }
    }
}

/// Copies as much of the log as nobody reads from, and waits for nobody.
fn copy(db: &Connection) -> rusqlite::Result<Copied> {
    db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        Ok(Copied { log: row.get(1)?, copied: row.get(2)? })
    })
}
