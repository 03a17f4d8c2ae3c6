//! The ledger as the courier of one destination sees it.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::batch::{Backlog, Batch, ParkReason, Room, Route, Unheard};
use super::error::LedgerError;
use crate::membership::{AudienceId, ContextKey, Timestamp};

/// What a courier asks for.
#[derive(Clone, Debug)]
pub enum Claim {
    /// As many members of an audience as there is room for, the longest pending first; one that was parked before
    /// comes alone.
    Longest {
        /// Whose members.
        audience: AudienceId,
        /// How many may travel together.
        room: Room,
    },
    /// One member although it may not be pending: LaunchDarkly took it before, and is asked whether it still
    /// would. None if it is in flight, parked, or gone.
    Again {
        /// Where it goes.
        route: Arc<Route>,
        /// Who.
        context_key: ContextKey,
    },
    /// One member that LaunchDarkly took before and that waits for nothing, behind `after` in the order of the
    /// ledger: LaunchDarkly is asked whether it still would. None if there is none near.
    Told {
        /// The one before.
        after: Option<(AudienceId, ContextKey)>,
    },
}

impl Claim {
    /// Members that it is about, at most.
    pub(crate) fn members(&self) -> usize {
        match self {
            Self::Longest { room, .. } => room.members.get(),
            Self::Again { .. } | Self::Told { .. } => 1,
        }
    }
}

/// What a courier reports of members that it has claimed.
#[derive(Clone, Debug)]
pub enum Report {
    /// LaunchDarkly took the batch.
    Settle(Batch),
    /// The batch was not taken: try later.
    Release(Batch, Unheard),
    /// LaunchDarkly refused these members, each alone.
    Park(Batch, ParkReason),
    /// A batch was refused as a whole: these are its halves, still claimed. From now on each travels
    /// by itself, so that what was learnt is not asked again after a restart.
    Split(Vec<Batch>),
    /// These were parked, and the refusal was not theirs: they are pending again, each to travel alone until it is
    /// taken.
    Unpark(Batch),
}

impl Report {
    /// Members that it is about.
    pub(crate) fn members(&self) -> usize {
        match self {
            Self::Settle(batch)
            | Self::Release(batch, _)
            | Self::Park(batch, _)
            | Self::Unpark(batch) => batch.members.len(),
            Self::Split(parts) => parts.iter().map(|part| part.members.len()).sum(),
        }
    }
}

/// The members of one destination that wait to be told. Implemented by every store, and by the model that delivery
/// is simulated on.
#[async_trait]
pub trait Outbox: Send + Sync + std::fmt::Debug {
    /// The audiences that have members to claim.
    async fn backlog(&self) -> Result<Vec<Backlog>, LedgerError>;

    /// Sees a new value whenever there may be members to claim that there were not before, and whenever
    /// [`Outbox::paused_since`] changes.
    fn news(&self) -> watch::Receiver<()>;

    /// Since when an operator has stopped the delivery.
    fn paused_since(&self) -> Option<Timestamp>;

    /// Claims members for one call: they are in no other batch until they are reported. `None`: there is nothing to
    /// claim.
    ///
    /// That they were claimed is durable when this returns, so that a crash is known to have
    /// happened in the middle of a call. Wait for it to the end: a claim whose answer is not
    /// received stays out until the ledger is opened again.
    async fn claim(&self, claim: Claim) -> Result<Option<Batch>, LedgerError>;

    /// Reports what became of members that were claimed.
    async fn report(&self, report: Report) -> Result<(), LedgerError>;
}
