//! What requests bring, and the outcome.

use std::borrow::Cow;
use std::time::Duration;

use crate::membership::{Deletion, DestinationName, MembershipDelta, Timestamp, UserId};

/// How long a message is remembered whose event time depends on its arrival: Segment tries for four hours, and the last
/// try may take its time.
pub(crate) const MESSAGE_KEPT: Duration = Duration::from_secs(5 * 3600);

/// What one request asks to be made durable for one destination: either all of it, or part of it together
/// with an error, after which the sender repeats the request.
#[derive(Clone, Debug)]
pub struct Intake {
    /// The destination of its members.
    pub destination: DestinationName,
    /// Time of arrival, from [`Recorder::arrival`](super::Recorder::arrival).
    pub arrival: Timestamp,
    /// In the order of the request: of two deltas for one member with equal event times the later one wins.
    pub deltas: Vec<MembershipDelta>,
    /// Privacy deletions, in the order of the request.
    pub deletions: Vec<OrderedDeletion>,
    /// Events that could not be mapped, kept so that they can be replayed.
    pub rejected: Vec<RejectedEvent>,
    /// Who asks for it.
    pub origin: Origin,
}

/// Who asks for the changes of an [`Intake`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Segment, event by event.
    #[default]
    Events,
    /// An operator, by a snapshot of the whole audience, whose exits were counted and confirmed. From the first
    /// delta on, what is older than it and arrives later changes nobody in its audience.
    Snapshot,
}

/// A privacy deletion and its position among the other items of its request.
#[derive(Clone, Debug)]
pub struct OrderedDeletion {
    /// The person, and the time of the deletion.
    pub deletion: Deletion,
    /// An operator's deletion: it removes everything that is stored, whatever its event time.
    pub is_unconditional: bool,
    /// How many of [`Intake::deltas`] come before it.
    pub after_deltas: usize,
    /// How many of [`Intake::rejected`] come before it.
    pub after_rejected: usize,
}

impl Intake {
    /// An operator's deletion of a person, whatever event times are stored.
    pub(crate) fn to_forget(
        destination: &DestinationName,
        arrival: Timestamp,
        user_id: UserId,
    ) -> Self {
        let destination = destination.clone();
        let deletion = OrderedDeletion {
            deletion: Deletion { user_id, event_at: arrival, message: None },
            is_unconditional: true,
            after_deltas: 0,
            after_rejected: 0,
        };
        let deletions = vec![deletion];
        let (deltas, rejected) = (Vec::new(), Vec::new());
        Self { destination, arrival, deltas, deletions, rejected, origin: Origin::Events }
    }

    /// Rows that it may touch.
    pub(crate) fn items(&self) -> usize {
        self.deltas.len() + self.deletions.len() + self.rejected.len()
    }
}

/// An event that could not be applied, with a reason that a person can act on ([P7](crate::design::P7)).
#[derive(Clone)]
pub struct RejectedEvent {
    /// The stable identifier of the reason.
    pub reason: Cow<'static, str>,
    /// One sentence, without personal data.
    pub detail: String,
    /// The event as received.
    pub body: Vec<u8>,
    /// The person, if known, so that a deletion finds this event.
    pub user_id: Option<UserId>,
    /// When it happened, as far as that can be believed, so that a later deletion finds this event.
    pub event_at: Timestamp,
}

impl std::fmt::Debug for RejectedEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RejectedEvent").field("reason", &self.reason).finish_non_exhaustive()
    }
}

/// The outcome of [`Recorder::record_all`](super::Recorder::record_all) for an [`Intake`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Positions in [`Intake::deltas`] that were not recorded because their audience already has another
    /// context kind; ascending.
    pub kind_conflicts: Vec<usize>,
    /// Positions that were not recorded because their audience is new and the destination has as many as it
    /// may have; ascending.
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
    /// The positions of the deltas that were not recorded, ascending, each with the reason.
    #[must_use]
    pub fn unrecorded(&self) -> Vec<(usize, Unrecorded)> {
        let kinds = self.kind_conflicts.iter().map(|at| (*at, Unrecorded::OtherKind));
        let places = self.without_place.iter().map(|at| (*at, Unrecorded::TooManyAudiences));
        let mut all: Vec<_> = kinds.chain(places).collect();
        all.sort_unstable_by_key(|(at, _)| *at);
        all
    }
}
