//! The rules of a privacy deletion: pure functions of event times, which every store applies.
//!
//! # What always holds
//! * A deletion removes what happened up to its time and nothing later: one that arrives late, or again, does
//!   not undo a return.
//! * At equal times the later arrival wins, as between two events ([P2](crate::design::P2)). A repeat is not
//!   a later arrival: at equal times it changes nothing.
//! * It leaves a tombstone of the person's user id, and of each context key under which it removed a member: an older
//!   event, or a line of a snapshot, may name the person by that alone.
//! * An operator's deletion removes everything that is stored, and no older event undoes it.

use super::member::Member;
use crate::membership::Timestamp;

/// What a deletion leaves behind, to tell older events of the person from newer ones: the earliest event time
/// that counts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tombstone(pub Timestamp);

/// The resolution of a timestamp.
const TICK: i64 = 1;

/// How far a deletion reaches: the latest event time that it removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach(pub Timestamp);

impl Reach {
    /// The reach of a deletion whose event time is `at`; `is_repeat`: it was recorded before.
    pub fn until(at: Timestamp, is_repeat: bool) -> Self {
        Self(Timestamp(at.0.saturating_sub(if is_repeat { TICK } else { 0 })))
    }

    /// The reach of an operator's deletion.
    pub const EVERYTHING: Self = Self(Timestamp(i64::MAX));

    /// Whether the deletion removes this member.
    pub fn takes(self, member: &Member) -> bool {
        member.event_at <= self.0
    }
}

impl Tombstone {
    /// The tombstone of a deletion whose event time is `at`; `taken`: the latest event time that it removed.
    pub fn of(at: Timestamp, reach: Reach, taken: Option<Timestamp>) -> Self {
        match taken {
            // The event that was removed may be sent again, so the tombstone must be later than it.
            Some(taken) if reach == Reach::EVERYTHING => {
                Self(at.max(Timestamp(taken.0.saturating_add(TICK))))
            }
            _ => Self(at),
        }
    }

    /// Whether an event with this time comes too late for the person; `is_repeat`: it was recorded before.
    pub fn outlasts(self, event_at: Timestamp, is_repeat: bool) -> bool {
        event_at < self.0 || (is_repeat && event_at == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_event_stays_away_and_at_equal_times_the_later_arrival_wins() {
        let tombstone = Tombstone::of(Timestamp(10), Reach::until(Timestamp(10), false), None);
        let rows = [
            (9, false, true),
            (10, false, false),
            (11, false, false),
            (9, true, true),
            (10, true, true),
            (11, true, false),
        ];
        for (event_at, is_repeat, expected) in rows {
            assert_eq!(
                tombstone.outlasts(Timestamp(event_at), is_repeat),
                expected,
                "an event at {event_at}, again: {is_repeat}"
            );
        }
    }

    #[test]
    fn what_an_operator_deleted_does_not_come_back_with_the_event_that_was_stored() {
        let at = Timestamp(10);
        let ahead = Tombstone::of(at, Reach::EVERYTHING, Some(Timestamp(14)));
        assert!(ahead.outlasts(Timestamp(14), false) && !ahead.outlasts(Timestamp(15), false));
        assert_eq!(Tombstone::of(at, Reach::EVERYTHING, Some(Timestamp(3))), Tombstone(at));
        assert_eq!(Tombstone::of(at, Reach::EVERYTHING, None), Tombstone(at));
        let reach = Reach::until(at, false);
        assert_eq!(Tombstone::of(at, reach, Some(Timestamp(10))), Tombstone(at));
    }
}
