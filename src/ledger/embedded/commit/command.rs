//! Commands to the writer, and where it answers.

use std::sync::mpsc;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::ledger::embedded::engine::claims::Wanted;
use crate::ledger::embedded::engine::operated::Operation;
use crate::ledger::embedded::settings::DestinationSettings;
use crate::ledger::embedded::tables::counted::Counted;
use crate::ledger::error::WriterFailure;
use crate::ledger::{Batch, Intake, LedgerError, Recorded, Report};

/// Where a caller receives its answer.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, LedgerError>>;

/// A question, its answer, and where the answer is sent.
#[derive(Debug)]
pub(crate) struct Asked<Q, A> {
    pub what: Q,
    reply: Reply<A>,
    /// Set once it is known.
    pub answer: Option<Result<A, LedgerError>>,
}

impl<Q, A> Asked<Q, A> {
    pub fn new(what: Q, reply: Reply<A>) -> Self {
        Self { what, reply, answer: None }
    }

    /// Sends the answer. The caller may have given up.
    pub fn answer(self) {
        let _ = self.reply.send(self.answer.unwrap_or(Err(LedgerError::Closed)));
    }

    /// Sends an error, whatever the answer was.
    pub fn fail(self, error: LedgerError) {
        let _ = self.reply.send(Err(error)); // as above
    }
}

/// A verb for the writer, or a notification from another thread.
#[derive(Debug)]
pub(crate) enum Command {
    Record {
        intakes: Vec<Intake>,
        reply: Reply<Vec<Recorded>>,
        /// Places in the queue, held until the request is answered.
        place: OwnedSemaphorePermit,
    },
    Claim(Asked<Wanted, Option<Batch>>),
    Report(Report, Reply<()>),
    Operate(Asked<Operation, u64>),
    Configure(Vec<DestinationSettings>, Reply<()>),
    /// A block was appended to the log.
    Appended,
    /// The log has no space; the message of the operating system.
    Full(String),
    /// The log failed for another reason.
    Failed(WriterFailure),
    /// Answered when everything accepted before is in the tables.
    CatchUp(Reply<()>),
    /// Counts of each destination: after everything accepted before is merged (`all`), or as of now.
    Count {
        all: bool,
        reply: Reply<Vec<Counted>>,
    },
    /// A reader beside the writer has found damage.
    Damaged(rusqlite::Error),
    /// Closes the ledger; the logs are emptied until the deadline `by`.
    Close {
        by: Option<Instant>,
        reply: oneshot::Sender<()>,
    },
}

/// Sends a command to the writer and waits for its answer.
pub(crate) async fn ask<T>(
    writer: &mpsc::Sender<Command>,
    command: impl FnOnce(Reply<T>) -> Command,
) -> Result<T, LedgerError> {
    let (reply, answer) = oneshot::channel();
    writer.send(command(reply)).map_err(|_| LedgerError::Closed)?;
    answer.await.unwrap_or(Err(LedgerError::Closed))
}
