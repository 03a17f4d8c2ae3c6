//! Checkpoints off the commit path: a thread of its own copies SQLite's log into the database while the
//! writer goes on. Only when that thread cannot keep up does the writer help.
//!
//! # What always holds
//! * Nobody waits for readers: while a reader holds an old snapshot (a backup, a check, an export into a slow
//!   pipe), SQLite's log grows on the disk, and is reused once the reader has gone (`tests::checkpoints`).
//! * The less space is left, the sooner SQLite's log is copied, so that it never takes the space that the
//!   database needs to grow by it (`tests/it/full_disk.rs`).
//! * A failed copy or sync is never taken for a completed one: it ends the writer, unless the disk is merely
//!   full (tests/it/faults.rs).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::clock::Seldom;
use crate::ledger::embedded::commit::emptying::empty_sqlite_log;
use crate::ledger::embedded::directory::names;
use crate::ledger::embedded::directory::on_disk::with_suffix;
use crate::ledger::embedded::directory::reserve::is_full;
use crate::ledger::embedded::tables::connections;
use crate::ledger::embedded::tables::database::Database;
use crate::ledger::embedded::threads;

/// Pages in SQLite's log from which a checkpoint is worth its I/O: 16 MiB.
const WORTH_IT: i32 = 4_096;
/// Pages in SQLite's log from which the writer helps: 160 MiB.
const TOO_MANY: i32 = 40_960;
/// Where little space is left, SQLite's log is copied once it takes one part in this many of the spare space,
/// and is at least [`LITTLE`] pages long: once the disk is full it could not be copied any more.
const PART_OF_SPARE: u64 = 4;
const LITTLE: i32 = 64;
/// Sizes in SQLite's log: a page, the header of each frame, and the header of the file.
const PAGE: u64 = 4096;
const FRAME_HEADER: u64 = 24;
const LOG_HEADER: u64 = 32;
/// Delay before the next attempt after a copy that found no space.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Watches the length of SQLite's log and has it copied.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    shared: Arc<Shared>,
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
    directory: PathBuf,
    /// Pages from which the writer helps next.
    help_from: i32,
    /// Nothing is copied before this: the last copy found no space.
    not_before: Instant,
}

#[derive(Debug)]
struct Shared {
    /// Pages in SQLite's log after the last commit.
    pages: AtomicI32,
    /// How many of these the last checkpoint had copied.
    copied: AtomicI32,
    /// Pages from which the thread is woken next; raised while a reader of an old snapshot blocks progress.
    stuck_until: AtomicI32,
    /// The last copy found no space.
    had_no_space: AtomicBool,
    /// The thread was woken and has not finished.
    is_copying: AtomicBool,
    /// Locked during a copy; holds the error that ended the thread.
    copying: Mutex<Option<rusqlite::Error>>,
}

/// Pages in SQLite's log, and how many of them are in the database.
struct Copied {
    log: i32,
    copied: i32,
}

impl Checkpointer {
    /// Starts the thread, and makes `writer` report the length of SQLite's log after each commit.
    pub fn watch(writer: &mut Connection, directory: &Path) -> rusqlite::Result<Self> {
        let shared = Arc::new(Shared {
            pages: AtomicI32::new(0),
            copied: AtomicI32::new(0),
            stuck_until: AtomicI32::new(0),
            had_no_space: AtomicBool::new(false),
            is_copying: AtomicBool::new(false),
            copying: Mutex::new(None),
        });
        let reported = Arc::clone(&shared);
        writer.wal_hook(Some(move |_: &mut _, length: i32| {
            if length < reported.pages.swap(length, Ordering::Relaxed) {
                reported.copied.store(0, Ordering::Relaxed); // SQLite has restarted its log
            }
            Ok(())
        }))?;
        let (wake, woken) = sync_channel::<()>(1);
        let beside = connections::open_checkpointer(directory)?;
        let (seen, of) = (Arc::clone(&shared), directory.to_owned());
        let copies = move || seen.copy_when_woken(&woken, &beside, &of);
        let thread = Self::start(&shared, copies)?;
        let (directory, not_before) = (directory.to_owned(), Instant::now());
        Ok(Self { shared, wake, thread, directory, help_from: 0, not_before })
    }

    /// Starts the thread; its panic is a failure like any other.
    fn start(
        shared: &Arc<Shared>,
        copies: impl FnOnce() + Send + 'static,
    ) -> rusqlite::Result<JoinHandle<()>> {
        let failing = Arc::clone(shared);
        let failed = move |panicked: threads::Panicked| *failing.lock() = Some(panicked.into());
        threads::start("checkpoint", copies, failed)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
    }

    /// Whether a copy is under way, or was when the thread ended.
    pub fn is_copying(&self) -> bool {
        self.shared.is_copying.load(Ordering::Relaxed)
    }

    /// Bytes in SQLite's log that are not in the database yet.
    pub fn to_copy_bytes(&self) -> u64 {
        let [pages, copied] =
            [&self.shared.pages, &self.shared.copied].map(|of| of.load(Ordering::Relaxed));
        u64::try_from(pages - copied).unwrap_or(0) * PAGE
    }

    /// Called by the writer between two groups; `spare_bytes`: what is free beyond the reserve, if known.
    pub fn after_commit(
        &mut self,
        writer: &Database,
        spare_bytes: Option<u64>,
    ) -> rusqlite::Result<()> {
        if self.thread.is_finished()
            && let Some(error) = self.shared.lock().take()
        {
            return Err(error);
        }
        let pages = self.shared.pages.load(Ordering::Relaxed);
        let worth_it = worth_it(spare_bytes);
        let too_many = if worth_it < WORTH_IT { worth_it * 2 } else { TOO_MANY };
        if pages < too_many {
            self.help_from = 0;
        }
        if self.shared.had_no_space.swap(false, Ordering::Relaxed) {
            self.not_before = Instant::now() + TRY_AGAIN;
        }
        if pages < worth_it || Instant::now() < self.not_before {
            return Ok(());
        }
        if pages >= self.help_from.max(too_many) {
            // Nothing is appended during the copy, so the next commit can restart the log.
            let _copying = self.shared.lock();
            self.help_from = pages.saturating_add(worth_it);
            return match copy(writer.connection()?) {
                Ok(Copied { copied, .. }) => {
                    self.shared.copied.store(copied, Ordering::Relaxed);
                    Ok(())
                }
                Err(error) if is_full(&error, &self.directory) => {
                    self.help_from = 0;
                    self.shared.had_no_space.store(true, Ordering::Relaxed);
                    Ok(())
                }
                Err(error) => Err(error),
            };
        }
        if pages >= self.shared.stuck_until.load(Ordering::Relaxed) {
            self.shared.is_copying.store(true, Ordering::Relaxed);
            match self.wake.try_send(()) {
                Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
            }
        }
        Ok(())
    }

    /// Wakes the thread to copy whatever there is.
    pub fn copy_soon(&self) {
        match self.wake.try_send(()) {
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }

    /// Copies the rest of SQLite's log and truncates it. `false`: not possible yet.
    pub fn empty(&self, writer: &Database) -> rusqlite::Result<bool> {
        match self.shared.copying.try_lock() {
            Err(TryLockError::WouldBlock) => Ok(false),
            Ok(_copying) => empty_sqlite_log(writer.connection()?, &self.directory, None),
            Err(TryLockError::Poisoned(_)) => {
                empty_sqlite_log(writer.connection()?, &self.directory, None)
            }
        }
    }

    /// Cuts off what a failed transaction has left behind the end of SQLite's log: the database needs that
    /// space to grow. The caller makes sure that nothing is being written.
    pub fn cut_log(&self) {
        let pages = self.shared.pages.load(Ordering::Relaxed);
        let Ok(pages @ 1..) = u64::try_from(pages) else { return }; // the end is not known
        let end = LOG_HEADER + pages * (FRAME_HEADER + PAGE);
        let path = with_suffix(&names::database(&self.directory), "-wal");
        let cut = File::options()
            .write(true)
            .open(path)
            .and_then(|log| if log.metadata()?.len() > end { log.set_len(end) } else { Ok(()) });
        if let Err(error) = cut {
            tracing::warn!(%error, "the unused end of SQLite's log cannot be truncated");
        }
    }

    /// Ends the thread.
    pub fn stop(self) {
        drop(self.wake);
        let _ = self.thread.join(); // a panic there can spoil nothing any more
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<rusqlite::Error>> {
        self.copying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies whenever it is woken. Ends with the first failure, which the writer reacts to.
    fn copy_when_woken(&self, woken: &Receiver<()>, db: &Connection, directory: &Path) {
        let mut before = 0;
        let mut no_space = Seldom::default();
        while woken.recv().is_ok() {
            let mut failure = self.lock();
            match copy(db) {
                Ok(Copied { log, copied }) => {
                    let stuck = copied < log && copied == before;
                    before = copied;
                    self.copied.store(copied, Ordering::Relaxed);
                    // A reader blocks the copy: trying at every commit would read and sort the log for
                    // nothing.
                    let next = if stuck { log.saturating_add(WORTH_IT) } else { 0 };
                    self.stuck_until.store(next, Ordering::Relaxed);
                }
                Err(error) if is_full(&error, directory) => {
                    if no_space.is_due() {
                        tracing::warn!(%error, "SQLite's log cannot be checkpointed: the disk has no space");
                    }
                    self.stuck_until.store(0, Ordering::Relaxed);
                    self.had_no_space.store(true, Ordering::Relaxed);
                }
                Err(error) => {
                    *failure = Some(error);
                    return;
                }
            }
            self.is_copying.store(false, Ordering::Relaxed);
        }
    }
}

/// Pages in SQLite's log from which it is copied, given the spare space.
fn worth_it(spare_bytes: Option<u64>) -> i32 {
    let of_spare = spare_bytes.map(|spare| spare / PART_OF_SPARE / PAGE);
    let of_spare = of_spare.and_then(|pages| i32::try_from(pages).ok());
    of_spare.unwrap_or(WORTH_IT).clamp(LITTLE, WORTH_IT)
}

/// Copies as much of SQLite's log as no reader needs, without waiting for anybody.
fn copy(db: &Connection) -> rusqlite::Result<Copied> {
    db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        Ok(Copied { log: row.get(1)?, copied: row.get(2)? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::embedded::opening::open;

    #[test]
    fn a_thread_that_panics_ends_the_writer() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let (mut db, _) = open::open(folder.path(), 1024).expect("a new ledger");
        let mut checkpointer = Checkpointer::watch(&mut db, folder.path()).expect("it is there");
        let database = Database::new(db);
        checkpointer.after_commit(&database, None).expect("nothing has happened");
        let panicking = || panic!("planted");
        checkpointer.thread =
            Checkpointer::start(&checkpointer.shared, panicking).expect("a thread");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !checkpointer.thread.is_finished() {
            assert!(std::time::Instant::now() < deadline, "it does not end");
            std::thread::yield_now();
        }
        let failure = checkpointer.after_commit(&database, None).expect_err("it has ended");
        let words = failure.to_string();
        assert!(words.contains("checkpoint") && words.contains("planted"), "{words}");
    }
}
