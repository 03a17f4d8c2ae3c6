//! Checkpoints, off the commit path: a thread of its own copies the write-ahead log into the database
//! while the writer goes on. Only when that cannot keep up does the writer wait for one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::schema;

/// Pages in the log from which a checkpoint is worth its reads and writes: 16 MiB.
const WORTH_IT: i32 = 4_096;
/// Pages in the log from which the writer waits for a checkpoint: 160 MiB.
const TOO_MANY: i32 = 40_960;

/// Watches the length of the log and has it copied.
#[derive(Debug)]
pub(super) struct Checkpointer {
    pages: Arc<AtomicI32>,
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Checkpointer {
    /// Starts the thread and lets `writer` report how long its log is after each commit.
    pub fn watch(writer: &mut Connection, directory: &Path) -> rusqlite::Result<Self> {
        let pages = Arc::new(AtomicI32::new(0));
        let reported = Arc::clone(&pages);
        writer.wal_hook(Some(move |_: &mut _, length: i32| {
            reported.store(length, Ordering::Relaxed);
            Ok(())
        }))?;
        let (wake, woken) = sync_channel::<()>(1);
        let beside = schema::open_checkpointer(directory)?;
        let thread = std::thread::Builder::new()
            .name("checkpoint".into())
            .spawn(move || {
                while woken.recv().is_ok() {
                    if let Err(error) = checkpoint(&beside, "PASSIVE") {
                        // The writer will try itself when the log grows too long, and fails loudly.
                        tracing::warn!(%error, "the write-ahead log could not be checkpointed");
                    }
                }
            })
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        Ok(Self { pages, wake, thread })
    }

    /// Called by the writer between two groups.
    pub fn after_commit(&self, writer: &Connection) -> rusqlite::Result<()> {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages >= TOO_MANY {
            checkpoint(writer, "RESTART")?;
            self.pages.store(0, Ordering::Relaxed);
        } else if pages >= WORTH_IT {
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

fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<()> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
}
