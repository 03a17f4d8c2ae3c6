//! What the writer is asked, and where it answers.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::counted::Counted;
use super::operated::Operation;
use super::writer::WriterFailure;
use crate::ledger::{
    Batch, DestinationSettings, Intake, LedgerError, ParkReason, Recorded, Room, Route, Unheard,
};
use crate::membership::{AudienceId, ContextKey, DestinationName};

pub(super) type Reply<T> = oneshot::Sender<Result<T, LedgerError>>;

/// A verb on its way to the writer.
#[derive(Debug)]
pub(super) enum Command {
    Record {
        intakes: Vec<Intake>,
        reply: Reply<Vec<Recorded>>,
        place: OwnedSemaphorePermit,
    },
    Claim {
        destination: DestinationName,
        audience: AudienceId,
        room: Room,
        reply: Reply<Option<Batch>>,
    },
    ClaimAgain {
        route: Arc<Route>,
        context_key: ContextKey,
        reply: Reply<Option<Batch>>,
    },
    ClaimTold {
        destination: DestinationName,
        after: Option<(AudienceId, ContextKey)>,
        reply: Reply<Option<Batch>>,
    },
    Settle {
        batch: Batch,
        reply: Reply<()>,
    },
    Release {
        batch: Batch,
        unheard: Unheard,
        reply: Reply<()>,
    },
    Park {
        batch: Batch,
        reason: ParkReason,
        reply: Reply<()>,
    },
    Split {
        parts: Vec<Batch>,
        reply: Reply<()>,
    },
    Operate {
        operation: Operation,
        reply: Reply<u64>,
    },
    Configure {
        destinations: Vec<DestinationSettings>,
        reply: Reply<()>,
    },
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
