//! Threads of the ledger. If one panics, the others must not go on without it and leave callers unanswered:
//! its panic is a failure of the ledger, which ends the writer and with it the daemon.

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

/// Starts a thread; `failed` is called if it panics. An error means that no thread could be started.
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

/// Runs the body of the thread `name`; a panic becomes an error. The caller uses nothing that the body has
/// touched after that.
pub(crate) fn caught<T>(name: &'static str, run: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let reason = panics::message(&*panic).to_owned();
        Panicked { thread: name, reason }
    })
}

/// For a transaction or a checkpoint on another thread.
impl From<Panicked> for rusqlite::Error {
    fn from(panicked: Panicked) -> Self {
        Self::ToSqlConversionFailure(Box::new(panicked))
    }
}
