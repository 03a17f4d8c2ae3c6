//! The ledger: for every member of every audience, what it should be and what LaunchDarkly was told.
//!
//! A member is (destination, audience, context key). `receive` hands deltas in, `deliver` takes
//! batches out; the ledger knows neither. It is state and not a log: ten changes of a member before
//! the next call are one.
//!
//! # What always holds
//! * A delta is on stable storage when [`Ledger::record`] returns (P1).
//! * The latest event time wins, whatever the order of arrival; a tie goes to the later arrival (P2).
//! * A member is in at most one claimed batch (P3).
//! * Pending is sticky: only [`Ledger::settle`] or [`Ledger::park`] of the claimed version clears it.
//!
//! # What does not
//! A crash between LaunchDarkly's answer and `settle` sends a batch twice. Harmless: a delta says
//! "in" or "out", it does not count.

use async_trait::async_trait;

use crate::membership::{DestinationName, MembershipDelta, Timestamp, UserId};

/// What one webhook request asks to be made durable, all of it or none.
#[derive(Clone, Debug)]
pub struct Intake {
    /// The destination the request was posted to.
    pub destination: DestinationName,
    /// When it arrived, as told by [`Ledger::arrival`].
    pub arrival: Timestamp,
    /// In the order of the request: of two for one member with equal event times the later wins.
    pub deltas: Vec<MembershipDelta>,
    /// Privacy deletions; they count at the time of arrival, after the deltas.
    pub deletions: Vec<UserId>,
    /// Events that could not be mapped, kept so that they can be replayed.
    pub rejected: Vec<RejectedEvent>,
}

/// An event that could not be applied, with the reason a person can act on (P7).
#[derive(Clone)]
pub struct RejectedEvent {
    /// The stable word of the reason.
    pub reason: &'static str,
    /// One sentence, without personal data.
    pub detail: String,
    /// The event as it came.
    pub body: Vec<u8>,
    /// The person, if known, so that a deletion finds the body.
    pub user_id: Option<UserId>,
}

impl std::fmt::Debug for RejectedEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RejectedEvent").field("reason", &self.reason).finish_non_exhaustive()
    }
}

/// What [`Ledger::record`] made of an [`Intake`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Positions in [`Intake::deltas`] that were not recorded, because their audience already has
    /// another context kind.
    pub kind_conflicts: Vec<usize>,
}

/// The durable desired and delivered state of every member. The verbs are batch-wise, so that a
/// database shared by several daemons can stand behind them as well as an embedded one.
#[async_trait]
pub trait Ledger: Send + Sync + std::fmt::Debug {
    /// The time of arrival for a request that is being read now: the wall clock, but never less
    /// than the largest arrival recorded or told so far (P2).
    fn arrival(&self) -> Timestamp;

    /// Makes an intake durable; everything of it is synced when this returns.
    ///
    /// Waits while the queue in front of the ledger is full: bound it with a timeout.
    async fn record(&self, intake: Intake) -> Result<Recorded, LedgerError>;
}

/// Why a verb did not happen. Variants follow what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The store cannot take writes now (out of space); nothing of the call was kept. The caller
    /// says "try again later".
    #[error("the ledger cannot take writes now: {0}")]
    Unavailable(String),
    /// The ledger is closed or closing.
    #[error("the ledger is closed")]
    Closed,
}
