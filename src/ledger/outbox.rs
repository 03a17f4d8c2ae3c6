//! The ledger as the courier of one destination sees it.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::batch::{Backlog, Batch, ParkReason, Room, Route, Unheard};
use super::error::LedgerError;
use crate::membership::{AudienceId, ContextKey, Timestamp};

/// What a courier wants to claim.
#[derive(Clone, Debug)]
pub enum Claim {
    /// As many members of an audience as there is room for, the longest pending first; one that was parked
    /// before gets a batch of its own.
    Longest {
        /// The audience.
        audience: AudienceId,
        /// Upper bounds of the batch.
        room: Room,
    },
    /// This one member although it may not be pending: LaunchDarkly accepted it before, and is asked whether
    /// it still does. `None` if it is in flight, parked, or gone.
    Again {
        /// Its audience and destination.
        route: Arc<Route>,
        /// The member.
        context_key: ContextKey,
    },
    /// One member that LaunchDarkly accepted before and that is not pending, behind `after` in the order of
    /// the ledger: LaunchDarkly is asked whether it still does. `None` if there is none nearby.
    Told {
        /// The member claimed before.
        after: Option<(AudienceId, ContextKey)>,
    },
}

impl Claim {
    /// Most members that it claims.
    pub(crate) fn members(&self) -> usize {
        match self {
            Self::Longest { room, .. } => room.members.get(),
            Self::Again { .. } | Self::Told { .. } => 1,
        }
    }
}

/// What a courier reports of claimed members.
#[derive(Clone, Debug)]
pub enum Report {
    /// LaunchDarkly accepted the batch.
    Settle(Batch),
    /// The batch was not accepted: try later.
    Release(Batch, Unheard),
    /// LaunchDarkly refused these members, each on its own.
    Park(Batch, ParkReason),
    /// A batch was refused as a whole: these are its halves, still claimed. From now on each is sent by
    /// itself, so that a restart need not repeat the search for the refused member.
    Split(Vec<Batch>),
    /// These were parked, but the cause of the refusal was general: they are pending again, each in a batch
    /// of its own until it is accepted.
    Unpark(Batch),
}

impl Report {
    /// What it is about.
    pub(crate) fn batches(&self) -> &[Batch] {
        match self {
            Self::Settle(batch)
            | Self::Release(batch, _)
            | Self::Park(batch, _)
            | Self::Unpark(batch) => std::slice::from_ref(batch),
            Self::Split(parts) => parts,
        }
    }

    /// The batch of a call that LaunchDarkly may have applied: not one that it refused, or that was not made.
    pub(crate) fn called(&self) -> Option<&Batch> {
        match self {
            Self::Release(_, Unheard::Unsent)
            | Self::Park(..)
            | Self::Split(_)
            | Self::Unpark(_) => None,
            Self::Settle(batch) | Self::Release(batch, _) => Some(batch),
        }
    }

    /// How many members it is about.
    pub(crate) fn members(&self) -> usize {
        self.batches().iter().map(|batch| batch.members.len()).sum()
    }
}

/// The members of one destination that wait to be told. Implemented by every store, and by the model that
/// delivery is simulated on.
#[async_trait]
pub trait Outbox: Send + Sync + std::fmt::Debug {
    /// The audiences that have members to claim.
    async fn backlog(&self) -> Result<Vec<Backlog>, LedgerError>;

    /// Signals whenever there may be new members to claim, and whenever [`Outbox::paused_since`] changes.
    fn news(&self) -> watch::Receiver<()>;

    /// Since when an operator has paused the delivery.
    fn paused_since(&self) -> Option<Timestamp>;

    /// Claims members for one call: they are in no other batch until they are reported. `None` if there is
    /// nothing to claim.
    ///
    /// The claim is durable when this returns, so that after a crash the members are known to have possibly
    /// been in a call. Not cancel-safe: a claim whose answer is dropped stays in flight until the ledger is
    /// opened again.
    async fn claim(&self, claim: Claim) -> Result<Option<Batch>, LedgerError>;

    /// Reports the outcome for claimed members.
    async fn report(&self, report: Report) -> Result<(), LedgerError>;

    /// Whether a call with this batch may be made now: to be asked directly before the call is written. `false`:
    /// another process may own the destination by now, and the batch is to be released as [`Unheard::Unsent`].
    fn may_call(&self, _batch: &Batch) -> bool {
        true // unless a store says otherwise, one process owns everything
    }

    /// Returns when a call with this batch has to be given up, because another process may own the destination from
    /// then on: like a call that timed out, it has ended without an answer. Dropping it loses nothing.
    async fn until_over(&self, _batch: &Batch) {
        std::future::pending::<()>().await;
    }
}
