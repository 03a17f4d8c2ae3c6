//! Threads of the ledger. One that panics must not leave the others behind: they would go on without it, and
//! answer nobody. So its panic is a failure of the ledger, which ends the writer and with it the daemon.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, JoinHandle};

use crate::panics;

/// A panic, as the cause of a failure.
#[derive(Debug, thiserror::Error)]
#[error("the thread {thread:?} panicked: {reason}")]
pub(crate) struct Panicked {
    thread: &'static str,
    reason: String,
}

/// Starts a thread; `failed` is told of its panic. An error: there is no thread to be had.
pub(crate) fn start(
    name: &'static str,
    run: impl FnOnce() + Send + 'static,
    failed: impl FnOnce(Panicked) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(move || {
        if let Err(panicked) = caught(name, run) {
            failed(panicked);
        }
    })
}

/// What the thread `name` does; an error is its panic. Nothing that it had in hand is used after that.
pub(crate) fn caught<T>(name: &'static str, run: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let reason = panics::message(&*panic).to_owned();
        Panicked { thread: name, reason }
    })
}

/// Where a transaction or a checkpoint is done beside the writer.
impl From<Panicked> for rusqlite::Error {
    fn from(panicked: Panicked) -> Self {
        Self::ToSqlConversionFailure(Box::new(panicked))
    }
}
