//! Batches: what waits to be delivered, and what one call to LaunchDarkly carries.

use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::time::Instant;

use crate::membership::{
    AudienceId, AudienceKey, ContextKey, ContextKind, DestinationName, Membership, Timestamp,
};

/// Where a batch goes: one audience of one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination whose environment holds the segment.
    pub destination: DestinationName,
    /// LaunchDarkly's `cohortId`.
    pub audience: AudienceId,
    /// Gives the segment its name.
    pub audience_key: AudienceKey,
    /// The context kind of every member of the audience.
    pub context_kind: ContextKind,
}

/// A member as it was when it was claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedMember {
    /// The member's context key.
    pub context_key: ContextKey,
    /// The membership that LaunchDarkly is to be told.
    pub membership: Membership,
    /// The version that was claimed: a member that has changed since then stays pending.
    pub version: Timestamp,
}

/// Claimed members of one audience. Each is in this batch only, until it is settled, released or parked.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The audience that the members belong to, and its destination.
    pub route: Arc<Route>,
    /// Never empty, and free of duplicates.
    pub members: Vec<ClaimedMember>,
    /// The fencing token of the lease under which it was claimed; [`SOLE_OWNER`] where one process owns everything.
    pub token: i64,
}

/// The token of batches where no other process could own the destination.
pub const SOLE_OWNER: i64 = 0;

/// Upper bounds of one batch.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Most members.
    pub members: NonZeroUsize,
    /// Most bytes of the request body. A member that exceeds this alone gets a batch of its own.
    pub bytes: usize,
    /// How bytes are counted.
    pub measure: Measure,
}

/// How a courier measures the bytes of a request: the ledger does not know the wire format.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// Bytes of a request without members.
    pub call: fn(&Route) -> usize,
    /// Bytes of a member without its context key; an upper bound.
    pub member: fn(&Route) -> usize,
    /// Bytes of a context key as sent; an upper bound.
    pub key: fn(&ContextKey) -> usize,
}

/// Members of one audience that wait to be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// The audience.
    pub audience: AudienceId,
    /// How many members wait; a lower bound while a long backlog has not been counted.
    pub waiting: u64,
    /// When the oldest waiting member began to wait; after a restart some instant in the past.
    pub waiting_since: Instant,
    /// Whether LaunchDarkly has ever accepted a member of the audience; until then its segment is still being
    /// created.
    pub acknowledged: bool,
}

/// Whether a released batch may still be applied by LaunchDarkly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unheard {
    /// No: the call was answered.
    No,
    /// No: there was no call.
    Unsent,
    /// Perhaps: the call ended without an answer. Its members are told once more later.
    Perhaps,
    /// No, the call was answered; its members go to the end of the queue.
    NoAndLast,
}

/// LaunchDarkly's answer to a refused member. May hold personal data: never log it.
#[derive(Clone, PartialEq, Eq)]
pub struct ParkReason {
    /// The HTTP status.
    pub status: u16,
    /// LaunchDarkly's `code`.
    pub code: String,
    /// LaunchDarkly's `message`.
    pub message: String,
    /// LaunchDarkly's `id` of the answer, for a request to its support.
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
    /// The destination of the audience.
    pub destination: DestinationName,
    /// The audience.
    pub audience: AudienceId,
    /// The context keys.
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
