//! The ledger: for every member of every audience, what it should be and what LaunchDarkly was told.
//!
//! A member is (destination, audience, context key). `receive` hands deltas in, `deliver` takes
//! batches out; the ledger knows neither. It is state and not a log: ten changes of a member before
//! the next call are one.
//!
//! # What always holds
//! * A delta is on stable storage when [`Ledger::record`] returns ([P1](crate::design::P1)).
//! * The latest event time wins, whatever the order of arrival; a tie goes to the later arrival ([P2](crate::design::P2)).
//! * A member is in at most one claimed batch ([P3](crate::design::P3)).
//! * Pending is sticky: only [`Ledger::settle`] or [`Ledger::park`] of the claimed version clears it.
//!
//! # What does not
//! A crash between LaunchDarkly's answer and `settle` sends a batch twice. Harmless: a delta says
//! "in" or "out", it does not count.

mod counters;
mod deletion;
mod member;
#[cfg(test)]
pub(crate) mod memory;
mod operations;
mod picking;
mod pieces;
mod sqlite;

use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::membership::{
    AudienceId, AudienceKey, ContextKey, ContextKind, Deletion, DestinationName, Membership,
    MembershipDelta, Timestamp, UserId,
};

pub use counters::{Counters, Recordings};
pub use operations::{
    AudienceView, DestinationView, Disk, MemberView, Operations, ParkedAfter, ParkedView,
    RejectedView, Turnover, WalkView,
};
pub use sqlite::{
    BackedUp, BackupError, ClockReset, DestinationSettings, ExportedMember, ExportedParking,
    OpenError, RenameError, Renamed, Retention, Seen, Settings, Sound, SqliteLedger, Writer,
    WriterFailure, backup, backup_to, check, database, export, is_there, look, may_begin, rename,
    reset_clock, restore, restore_from, still_around,
};

/// What one request asks to be made durable of one destination: all of it, or some of it and an error, after
/// which it comes again.
#[derive(Clone, Debug)]
pub struct Intake {
    /// The destination whose members it is about.
    pub destination: DestinationName,
    /// When it arrived, as told by [`Ledger::arrival`].
    pub arrival: Timestamp,
    /// In the order of the request: of two for one member with equal event times the later wins.
    pub deltas: Vec<MembershipDelta>,
    /// Privacy deletions, in the order of the request.
    pub deletions: Vec<OrderedDeletion>,
    /// Events that could not be mapped, kept so that they can be replayed.
    pub rejected: Vec<RejectedEvent>,
}

/// A privacy deletion, and its place among the other items of its request.
#[derive(Clone, Debug)]
pub struct OrderedDeletion {
    /// Whose, and as of when.
    pub deletion: Deletion,
    /// An operator asks for it: it takes along whatever is stored, whenever that happened.
    pub is_unconditional: bool,
    /// How many of [`Intake::deltas`] come before it.
    pub after_deltas: usize,
    /// How many of [`Intake::rejected`] come before it.
    pub after_rejected: usize,
}

impl Intake {
    /// What an operator asks for: a person is forgotten, whatever event times are stored.
    fn to_forget(destination: &DestinationName, arrival: Timestamp, user_id: UserId) -> Self {
        let destination = destination.clone();
        let deletion = OrderedDeletion {
            deletion: Deletion { user_id, event_at: arrival, message: None },
            is_unconditional: true,
            after_deltas: 0,
            after_rejected: 0,
        };
        let deletions = vec![deletion];
        Self { destination, arrival, deltas: Vec::new(), deletions, rejected: Vec::new() }
    }

    /// Rows it may touch.
    fn items(&self) -> usize {
        self.deltas.len() + self.deletions.len() + self.rejected.len()
    }
}

/// An event that could not be applied, with the reason a person can act on ([P7](crate::design::P7)).
#[derive(Clone)]
pub struct RejectedEvent {
    /// The stable word of the reason.
    pub reason: Cow<'static, str>,
    /// One sentence, without personal data.
    pub detail: String,
    /// The event as it came.
    pub body: Vec<u8>,
    /// The person, if known, so that a deletion finds the body.
    pub user_id: Option<UserId>,
    /// When it happened, as far as that can be believed: a later deletion finds the body.
    pub event_at: Timestamp,
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
    /// another context kind. They ascend.
    pub kind_conflicts: Vec<usize>,
    /// The same because their audience is new and the destination has as many as it may have.
    pub without_place: Vec<usize>,
}

/// Why a delta is not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unrecorded {
    /// Its audience already has another context kind.
    OtherKind,
    /// Its audience is new, and the destination has as many as it may have.
    TooManyAudiences,
}

impl Recorded {
    /// The positions of the deltas that were not recorded, ascending, and why not.
    #[must_use]
    pub fn unrecorded(&self) -> Vec<(usize, Unrecorded)> {
        let kinds = self.kind_conflicts.iter().map(|at| (*at, Unrecorded::OtherKind));
        let places = self.without_place.iter().map(|at| (*at, Unrecorded::TooManyAudiences));
        let mut all: Vec<_> = kinds.chain(places).collect();
        all.sort_unstable_by_key(|(at, _)| *at);
        all
    }
}

/// Where a batch goes: one audience of one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination whose environment holds the segment.
    pub destination: DestinationName,
    /// LaunchDarkly's `cohortId`.
    pub audience: AudienceId,
    /// Gives the segment its name.
    pub audience_key: AudienceKey,
    /// The kind of all members.
    pub context_kind: ContextKind,
}

/// A member as it was when it was claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedMember {
    /// Who.
    pub context_key: ContextKey,
    /// What LaunchDarkly is to be told.
    pub membership: Membership,
    /// Which state of the member this is: one that changed since stays pending.
    pub version: Timestamp,
}

/// Claimed members of one audience: in no other batch until they are settled, released or parked.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Where they go.
    pub route: Arc<Route>,
    /// Never empty; no member twice.
    pub members: Vec<ClaimedMember>,
}

/// The most that one batch may hold.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Members.
    pub members: NonZeroUsize,
    /// Bytes of the call. One member that takes more travels alone.
    pub bytes: usize,
    /// How they are counted.
    pub measure: Measure,
}

/// How whoever claims counts the bytes of its calls: the ledger knows no wire.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Of a call without members.
    pub call: fn(&Route) -> usize,
    /// Of a member beside its context key, which may be less.
    pub member: fn(&Route) -> usize,
    /// Of a context key, which may be less.
    pub key: fn(&ContextKey) -> usize,
}

/// Members of one audience that wait to be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Whose members.
    pub audience: AudienceId,
    /// How many wait; a lower bound while a long backlog has not been counted.
    pub waiting: u64,
    /// When the longest waiting one began to wait; in the past after a restart.
    pub waiting_since: Instant,
    /// Whether LaunchDarkly has ever taken a member of it; before that the segment is being created.
    pub acknowledged: bool,
}

/// What is known about a call that is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unheard {
    /// It was answered, or never sent.
    No,
    /// It ended without an answer and may still be applied: its members are told once more later.
    Perhaps,
    /// It was answered, and its members go behind all others that wait.
    NoAndLast,
}

/// LaunchDarkly's words about a refused member. May hold personal data: not for logs.
#[derive(Clone, PartialEq, Eq)]
pub struct ParkReason {
    /// The HTTP status.
    pub status: u16,
    /// LaunchDarkly's `code`.
    pub code: String,
    /// LaunchDarkly's `message`.
    pub message: String,
    /// LaunchDarkly's `id` of the answer, for its support.
    pub id: String,
}

impl std::fmt::Debug for ParkReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParkReason").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Members of one audience, by their context keys.
#[derive(Clone, Debug)]
pub struct Members {
    /// Whose audience.
    pub destination: DestinationName,
    /// Which audience.
    pub audience: AudienceId,
    /// Who.
    pub context_keys: Vec<ContextKey>,
}

impl From<&Batch> for Members {
    fn from(batch: &Batch) -> Self {
        let context_keys = batch.members.iter().map(|member| member.context_key.clone());
        Self {
            destination: batch.route.destination.clone(),
            audience: batch.route.audience.clone(),
            context_keys: context_keys.collect(),
        }
    }
}

/// The durable desired and delivered state of every member. The verbs are batch-wise, so that a
/// database shared by several daemons can stand behind them as well as an embedded one.
#[async_trait]
pub trait Ledger: Send + Sync + std::fmt::Debug {
    /// The time of arrival for a request that is being read now: the wall clock, but never less
    /// than the largest arrival recorded or told so far ([P2](crate::design::P2)).
    fn arrival(&self) -> Timestamp;

    /// Makes the intakes of one request durable, one for each destination: all of them or none, in one
    /// transaction with one sync. Everything is synced when this returns; the answers are in their order.
    ///
    /// Waits while the queue in front of the ledger is full: bound it with a timeout.
    async fn record_all(&self, intakes: Vec<Intake>) -> Result<Vec<Recorded>, LedgerError>;

    /// The same for a request that concerns one destination.
    async fn record(&self, intake: Intake) -> Result<Recorded, LedgerError> {
        Ok(self.record_all(vec![intake]).await?.pop().unwrap_or_default())
    }

    /// The audiences of a destination that have members to claim.
    async fn backlog(&self, destination: &DestinationName) -> Result<Vec<Backlog>, LedgerError>;

    /// Sees a new value whenever the destination may have members to claim that it had not before.
    fn news(&self, destination: &DestinationName) -> watch::Receiver<()>;

    /// Claims as many members of an audience as there is `room` for, the longest pending first; one that
    /// was parked before comes alone. `None`: there is nothing to claim.
    ///
    /// That they were claimed is durable when this returns, so that a crash is known to have
    /// happened in the middle of a call. Wait for it to the end: a claim whose answer is not
    /// received stays out until the ledger is opened again.
    async fn claim(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
        room: Room,
    ) -> Result<Option<Batch>, LedgerError>;

    /// Claims one member although it may not be pending: LaunchDarkly took it before, and is asked
    /// whether it still would. `None`: it is in a batch, parked, or gone.
    async fn claim_again(
        &self,
        route: &Arc<Route>,
        context_key: &ContextKey,
    ) -> Result<Option<Batch>, LedgerError>;

    /// Claims one member that LaunchDarkly took before and that waits for nothing, behind `after` in
    /// the order of the ledger: it is asked whether it still would. `None`: there is none near.
    async fn claim_told(
        &self,
        destination: &DestinationName,
        after: Option<&(AudienceId, ContextKey)>,
    ) -> Result<Option<Batch>, LedgerError>;

    /// LaunchDarkly took the batch.
    async fn settle(&self, batch: Batch) -> Result<(), LedgerError>;

    /// The batch was not taken: try later.
    async fn release(&self, batch: Batch, unheard: Unheard) -> Result<(), LedgerError>;

    /// LaunchDarkly refused these members, each alone.
    async fn park(&self, batch: Batch, reason: ParkReason) -> Result<(), LedgerError>;

    /// A batch was refused as a whole: these are its halves, still claimed. From now on each travels
    /// by itself, so that what was learnt is not asked again after a restart.
    async fn split(&self, parts: Vec<Batch>) -> Result<(), LedgerError>;

    /// Parked members are pending again, each to travel alone until it is taken; how many were
    /// parked.
    async fn requeue(&self, members: Members) -> Result<u64, LedgerError>;

    /// Since when an operator has stopped the delivery of the destination; its [`Ledger::news`]
    /// sees every change.
    fn paused_since(&self, destination: &DestinationName) -> Option<Timestamp>;

    /// Whether [`Ledger::record`] may succeed: not while the disk has no space to give. It is found
    /// out again without anybody calling.
    fn takes_writes(&self) -> bool;

    /// Whether a part of the ledger has failed: nothing is recorded any more, and the daemon is about to
    /// end.
    fn has_failed(&self) -> bool {
        false
    }
}

/// Why a verb did not happen. Variants follow what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The store cannot take writes now (out of space); nothing of the call was kept. The caller
    /// says "try again later".
    #[error("the ledger cannot take writes now: {0}")]
    Unavailable(String),
    /// The destination is not one of those that are configured.
    #[error("there is no destination {0}")]
    UnknownDestination(DestinationName),
    /// The destination has no such audience.
    #[error("there is no audience {}", .0.as_str())]
    UnknownAudience(AudienceId),
    /// Its members are being retracted, which comes before anything else.
    #[error("the members of {} are being retracted", .0.as_str())]
    Retracting(AudienceId),
    /// The ledger is closed, closing, or has failed.
    #[error("the ledger is closed")]
    Closed,
}
