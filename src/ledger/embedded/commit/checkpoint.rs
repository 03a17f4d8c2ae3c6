//! Checkpoints, off the commit path: a thread of its own copies the write-ahead log into the database
//! while the writer goes on. Only when that cannot keep up does the writer help.
//!
//! # What always holds
//! * Nobody waits for whoever reads: while somebody reads from an old moment (a backup, a check, an
//!   export into a slow pipe), the log grows on the disk, and is used again when they have gone
//!   (`tests::checkpoints`).
//! * The log is copied the sooner the less space is left, so that it never takes all that the database
//!   needs to grow by it (`tests/it/full_disk.rs`).
//! * A copy or sync that failed is never taken for one that happened: it ends the writer, unless the
//!   disk is merely full (tests/it/faults.rs).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::clock::Seldom;
use crate::ledger::embedded::commit::emptying::empty_log;
use crate::ledger::embedded::directory::names;
use crate::ledger::embedded::directory::on_disk::with_suffix;
use crate::ledger::embedded::directory::reserve::is_full;
use crate::ledger::embedded::tables::connections;
use crate::ledger::embedded::tables::database::Database;
use crate::ledger::embedded::threads;

/// Pages in the log from which a checkpoint is worth its reads and writes: 16 MiB.
const WORTH_IT: i32 = 4_096;
/// Pages in the log from which the writer helps: 160 MiB.
const TOO_MANY: i32 = 40_960;
/// Where little space is left, the log is copied when it takes such a part of that, and is at least so
/// long: it could not be copied any more once it has taken all.
const PART_OF_SPARE: u64 = 4;
const LITTLE: i32 = 64;
/// Bytes of a page, and in front of each in the log, and in front of the log.
const PAGE: u64 = 4096;
const FRAME_HEADER: u64 = 24;
const LOG_HEADER: u64 = 32;
/// After a copy that found no space, the next one is tried so much later.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Watches the length of the log and has it copied.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    shared: Arc<Shared>,
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
    directory: PathBuf,
    /// Pages from which the writer helps next.
    help_from: i32,
    /// Nothing is copied before then: there was no space.
    not_before: Instant,
}

#[derive(Debug)]
struct Shared {
    /// In the log, after the last commit.
    pages: AtomicI32,
    /// How many of these the database had after the last copy.
    copied: AtomicI32,
    /// Pages from which the thread is woken next, if somebody reads from an old moment.
    stuck_until: AtomicI32,
    /// The last copy found no space.
    had_no_space: AtomicBool,
    /// The thread was woken, and has not come to the end of it.
    is_copying: AtomicBool,
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
            copied: AtomicI32::new(0),
            stuck_until: AtomicI32::new(0),
            had_no_space: AtomicBool::new(false),
            is_copying: AtomicBool::new(false),
            copying: Mutex::new(None),
        });
        let reported = Arc::clone(&shared);
        writer.wal_hook(Some(move |_: &mut _, length: i32| {
            if length < reported.pages.swap(length, Ordering::Relaxed) {
                reported.copied.store(0, Ordering::Relaxed); // the log was begun again
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

    /// A thread whose panic is a failure like any other.
    fn start(
        shared: &Arc<Shared>,
        copies: impl FnOnce() + Send + 'static,
    ) -> rusqlite::Result<JoinHandle<()>> {
        let failing = Arc::clone(shared);
        let failed = move |panicked: threads::Panicked| *failing.lock() = Some(panicked.into());
        threads::start("checkpoint", copies, failed)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
    }

    /// Whether the log is being copied, or was when the thread ended.
    pub fn is_copying(&self) -> bool {
        self.shared.is_copying.load(Ordering::Relaxed)
    }

    /// What stands in the log and not in the database, in bytes.
    pub fn to_copy_bytes(&self) -> u64 {
        let [pages, copied] =
            [&self.shared.pages, &self.shared.copied].map(|of| of.load(Ordering::Relaxed));
        u64::try_from(pages - copied).unwrap_or(0) * PAGE
    }

    /// Called by the writer between two groups; so much is free beyond the reserve, if that is known.
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
            // Nothing is added while it is copied, so that the next commit may begin the log again.
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

    /// Copies what there is beside the writer, however little it is.
    pub fn copy_soon(&self) {
        match self.wake.try_send(()) {
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }

    /// Copies the rest of the log and empties it. `false`: not yet.
    pub fn empty(&self, writer: &Database) -> rusqlite::Result<bool> {
        match self.shared.copying.try_lock() {
            Err(TryLockError::WouldBlock) => Ok(false),
            Ok(_copying) => empty_log(writer.connection()?, &self.directory, None),
            Err(TryLockError::Poisoned(_)) => {
                empty_log(writer.connection()?, &self.directory, None)
            }
        }
    }

    /// Cuts off what a transaction has left behind the end of the log that there was no space for: the
    /// database needs it to grow. Nothing is being written.
    pub fn cut_log(&self) {
        let pages = self.shared.pages.load(Ordering::Relaxed);
        let Ok(pages @ 1..) = u64::try_from(pages) else { return }; // it is not known where it ends
        let end = LOG_HEADER + pages * (FRAME_HEADER + PAGE);
        let path = with_suffix(&names::database(&self.directory), "-wal");
        let cut = File::options()
            .write(true)
            .open(path)
            .and_then(|log| if log.metadata()?.len() > end { log.set_len(end) } else { Ok(()) });
        if let Err(error) = cut {
            tracing::warn!(%error, "the end of the write-ahead log, which is not used, cannot be freed");
        }
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
                    // Tried at every commit it would be read and sorted for nothing.
                    let next = if stuck { log.saturating_add(WORTH_IT) } else { 0 };
                    self.stuck_until.store(next, Ordering::Relaxed);
                }
                Err(error) if is_full(&error, directory) => {
                    if no_space.is_due() {
                        tracing::warn!(%error, "the write-ahead log cannot be copied for want of space");
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

/// Pages in the log from which it is copied, where so much space is left.
fn worth_it(spare_bytes: Option<u64>) -> i32 {
    let of_spare = spare_bytes.map(|spare| spare / PART_OF_SPARE / PAGE);
    let of_spare = of_spare.and_then(|pages| i32::try_from(pages).ok());
    of_spare.unwrap_or(WORTH_IT).clamp(LITTLE, WORTH_IT)
}

/// Copies as much of the log as nobody reads from, and waits for nobody.
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
