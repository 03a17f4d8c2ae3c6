//! Who is told although the guard holds their audience: members that a deletion or a retraction removes.

use std::collections::BTreeSet;

use crate::ledger::embedded::members::in_flight::InFlight;
use crate::ledger::member::Member;
use crate::membership::ContextKey;

/// Most keys that are remembered at once of those who are not in a call: the others are found in the tables when these
/// are told ([P6](crate::design::P6)).
const MOST: usize = 1000;

/// The members of a held audience that are told all the same; of another audience it is empty.
#[derive(Debug, Default)]
pub(crate) struct Passing {
    keys: BTreeSet<ContextKey>,
    /// How many keys there is room for.
    room: usize,
    /// There were more than there was room for.
    has_more: bool,
}

impl Passing {
    /// Remembers nobody but who is in a call; whoever else is to be told is offered from here on.
    pub fn start_over(&mut self, in_flight: &InFlight) {
        self.keys.retain(|key| in_flight.contains(key));
        self.room = self.keys.len() + MOST;
        self.has_more = false;
    }

    /// Remembers a member if it is to be told. `false`: there is no room for more.
    pub fn offer(&mut self, key: &ContextKey, member: &Member) -> bool {
        if member.erase && member.pending_since.is_some() {
            if self.keys.len() >= self.room && !self.keys.contains(key) {
                self.has_more = true;
                return false;
            }
            self.keys.insert(key.clone());
        }
        true
    }

    /// This member is not to be told, or not any more.
    pub fn remove(&mut self, key: &ContextKey) {
        self.keys.remove(key);
    }

    /// Those who can be claimed.
    pub fn waiting<'a>(
        &'a self,
        in_flight: &'a InFlight,
    ) -> impl Iterator<Item = &'a ContextKey> + use<'a> {
        self.keys.iter().filter(|key| !in_flight.contains(key))
    }

    /// Whether there may be others than those who are remembered.
    pub fn has_more(&self) -> bool {
        self.has_more
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Timestamp;

    fn key(number: usize) -> ContextKey {
        ContextKey::new(&format!("p{number:05}")).expect("not empty")
    }

    fn member(erase: bool, is_pending: bool) -> Member {
        let pending_since = is_pending.then_some(Timestamp(7));
        Member { pending_since, erase, ..Member::at_rest(5) }
    }

    #[test]
    fn only_whoever_is_to_be_removed_and_waits_passes() {
        let mut passing = Passing::default();
        passing.start_over(&InFlight::default());
        for (number, (erase, is_pending)) in
            [(false, false), (false, true), (true, false), (true, true)].into_iter().enumerate()
        {
            assert!(passing.offer(&key(number), &member(erase, is_pending)));
        }
        let all: Vec<_> = passing.waiting(&InFlight::default()).cloned().collect();
        assert_eq!(all, [key(3)]);
        passing.remove(&key(3));
        assert_eq!(passing.waiting(&InFlight::default()).count(), 0);
    }

    #[test]
    fn a_bounded_number_is_remembered_beside_those_in_a_call() {
        let (mut passing, mut in_flight) = (Passing::default(), InFlight::default());
        passing.start_over(&in_flight);
        let gone = member(true, true);
        assert!((0..MOST).all(|number| passing.offer(&key(number), &gone)) && !passing.has_more());
        assert!(passing.offer(&key(5), &gone) && !passing.has_more(), "it is known");
        assert!(!passing.offer(&key(MOST), &gone) && passing.has_more());
        in_flight.insert(key(5), None);
        assert_eq!(passing.waiting(&in_flight).count(), MOST - 1);
        passing.start_over(&in_flight);
        assert!(!passing.has_more() && passing.waiting(&in_flight).count() == 0);
        assert!((0..=MOST).all(|number| passing.offer(&key(number), &gone)), "beside the fifth");
        assert!(!passing.offer(&key(MOST + 1), &gone));
        assert_eq!(passing.waiting(&in_flight).count(), MOST);
    }
}
