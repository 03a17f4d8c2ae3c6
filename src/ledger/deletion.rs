//! The rules of a privacy deletion: pure functions of event times, which every store applies.
//!
//! # What always holds
//! * A deletion takes along what happened until then, and nothing that happened later: one that comes
//!   late, or again, does not undo a return.
//! * At equal times the later arrival wins, as between two events ([P2](crate::design::P2)). What comes again is no later
//!   arrival: at equal times it changes nothing.
//! * An operator's deletion takes along everything that is stored, and an older event does not undo it.

use super::member::Member;
use crate::membership::Timestamp;

/// What tells a person's older events from newer ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tombstone(pub Timestamp);

/// The shortest time there is.
const TICK: i64 = 1;

/// How far a deletion reaches: the latest event time that it takes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach(pub Timestamp);

impl Reach {
    /// Of a deletion that counts at `at`; `is_repeat`: it was recorded before.
    pub fn until(at: Timestamp, is_repeat: bool) -> Self {
        Self(Timestamp(at.0.saturating_sub(if is_repeat { TICK } else { 0 })))
    }

    /// Of an operator's.
    pub const EVERYTHING: Self = Self(Timestamp(i64::MAX));

    /// Whether it takes a member along.
    pub fn takes(self, member: &Member) -> bool {
        member.event_at <= self.0
    }
}

impl Tombstone {
    /// What a deletion leaves that counts at `at`; `taken`: the latest event time of what it took along.
    pub fn of(at: Timestamp, reach: Reach, taken: Option<Timestamp>) -> Self {
        match taken {
            // The entry that was taken along may be posted again.
            Some(taken) if reach == Reach::EVERYTHING => {
                Self(at.max(Timestamp(taken.0.saturating_add(TICK))))
            }
            _ => Self(at),
        }
    }

    /// Whether an event that counts at `event_at` comes too late for its person; `is_repeat`: it was
    /// recorded before.
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
