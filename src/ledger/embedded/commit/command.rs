//! What the writer is asked, and where it answers.

use std::sync::mpsc;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::ledger::embedded::engine::claims::Wanted;
use crate::ledger::embedded::engine::operated::Operation;
use crate::ledger::embedded::failure::WriterFailure;
use crate::ledger::embedded::settings::DestinationSettings;
use crate::ledger::embedded::tables::counted::Counted;
use crate::ledger::{Batch, Intake, LedgerError, Recorded, Report};

/// Where something that was asked is answered.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, LedgerError>>;

/// Something that was asked, where it is answered, and with what.
#[derive(Debug)]
pub(crate) struct Asked<Q, A> {
    pub what: Q,
    reply: Reply<A>,
    /// Once it is known.
    pub answer: Option<Result<A, LedgerError>>,
}

impl<Q, A> Asked<Q, A> {
    pub fn new(what: Q, reply: Reply<A>) -> Self {
        Self { what, reply, answer: None }
    }

    /// Gives the answer. Whoever asked may have given up.
    pub fn answer(self) {
        let _ = self.reply.send(self.answer.unwrap_or(Err(LedgerError::Closed)));
    }

    /// Answers with an error whatever was found.
    pub fn fail(self, error: LedgerError) {
        let _ = self.reply.send(Err(error)); // as above
    }
}

/// A verb on its way to the writer, or word of something that it has to know.
#[derive(Debug)]
pub(crate) enum Command {
    Record {
        intakes: Vec<Intake>,
        reply: Reply<Vec<Recorded>>,
        /// In the queue, until it is answered.
        place: OwnedSemaphorePermit,
    },
    Claim(Asked<Wanted, Option<Batch>>),
    Report(Report, Reply<()>),
    Operate(Asked<Operation, u64>),
    Configure(Vec<DestinationSettings>, Reply<()>),
    /// Something was appended to the journal.
    Journaled,
    /// The journal has no space; what the system said.
    Full(String),
    /// The journal failed for another reason.
    Failed(WriterFailure),
    /// Answered when everything that was accepted before is in the tables.
    CatchUp(Reply<()>),
    /// What there is of each destination: of everything that was accepted before, or as far as it is
    /// known.
    Count {
        all: bool,
        reply: Reply<Vec<Counted>>,
    },
    /// Somebody who reads beside the writer has found that the file is not as it was written.
    Damaged(rusqlite::Error),
    /// The logs are emptied as far as they can be until then.
    Close {
        by: Option<Instant>,
        reply: oneshot::Sender<()>,
    },
}

/// Asks the writer something and waits for its answer.
pub(crate) async fn ask<T>(
    writer: &mpsc::Sender<Command>,
    command: impl FnOnce(Reply<T>) -> Command,
) -> Result<T, LedgerError> {
    let (reply, answer) = oneshot::channel();
    writer.send(command(reply)).map_err(|_| LedgerError::Closed)?;
    answer.await.unwrap_or(Err(LedgerError::Closed))
}
