//! Members on their way to LaunchDarkly: what waits, and what a call takes along.

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
