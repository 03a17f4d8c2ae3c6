//! Who is in a batch: one that is not written yet says so itself, the others are in a table of their
//! audience.

use hashbrown::HashTable;
use hashbrown::hash_table::OccupiedEntry;

use super::group::Unclaimed;
use super::state::State;
use super::unwritten::Place;
use crate::ledger::member::Member;
use crate::ledger::{Batch, ClaimedMember};
use crate::membership::ContextKey;

/// Members in a batch, and the rows of those of whom nothing has changed since: the answer to a call is
/// then written without a look.
#[derive(Debug, Default)]
pub(super) struct Claimed {
    table: HashTable<OneClaimed>,
    /// Others, who are not written yet: what is known of them says so (`super::unwritten`).
    pub unwritten: usize,
}

#[derive(Debug)]
struct OneClaimed {
    /// Of the key.
    hash: u64,
    key: ContextKey,
    row: Option<Box<Member>>,
}

impl Claimed {
    pub fn len(&self) -> usize {
        self.table.len() + self.unwritten
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn contains(&self, hash: u64, key: &ContextKey) -> bool {
        self.table.find(hash, |one| one.key == *key).is_some()
    }

    pub fn insert(&mut self, hash: u64, key: ContextKey, row: Option<Member>) {
        self.remove(hash, &key);
        let one = OneClaimed { hash, key, row: row.map(Box::new) };
        self.table.insert_unique(hash, one, |one| one.hash);
    }

    /// `false`: it was not there.
    pub fn remove(&mut self, hash: u64, key: &ContextKey) -> bool {
        self.table.find_entry(hash, |one| one.key == *key).map(OccupiedEntry::remove).is_ok()
    }

    /// The row as it was claimed, once, unless it may be another one now.
    pub fn take_row(&mut self, hash: u64, key: &ContextKey) -> Option<Member> {
        let one = self.table.find_mut(hash, |one| one.key == *key)?;
        one.row.take().map(|row| *row)
    }

    /// The row is another one now.
    pub fn changed(&mut self, hash: u64, key: &ContextKey) {
        if let Some(one) = self.table.find_mut(hash, |one| one.key == *key) {
            one.row = None;
        }
    }

    /// The same members, of whose rows nothing is known.
    pub fn without_rows(mut self) -> Self {
        self.table.iter_mut().for_each(|one| one.row = None);
        self
    }
}

impl State {
    /// Whether a member is in a batch.
    pub fn is_claimed(&self, audience: usize, key: &ContextKey) -> bool {
        self.is_claimed_at(audience, key, self.place(audience, key.as_str()))
    }

    /// The same, if it is known where it is.
    pub fn is_claimed_at(&self, audience: usize, key: &ContextKey, place: Place) -> bool {
        let known = &self.audiences.list[audience];
        if place.is_row() {
            known.claimed.contains(place.hash, key)
        } else {
            self.unwritten.is_claimed(known.row, place)
        }
    }

    /// A member is in a batch from now on; `row` is its row, if that is known.
    pub fn claim(&mut self, audience: usize, key: &ContextKey, place: Place, row: Option<Member>) {
        let known = &mut self.audiences.list[audience];
        if place.is_row() {
            known.claimed.insert(place.hash, key.clone(), row);
        } else if self.unwritten.claim(known.row, place, true) {
            known.claimed.unwritten += 1;
        }
    }

    /// Ends the claims of these members.
    pub fn unclaim(&mut self, Unclaimed { audience, members, longest }: &Unclaimed) {
        let known = &mut self.audiences.list[*audience];
        if let Some(longest) = longest {
            known.look_again_from(*longest); // a claim of the same group has not seen them
        }
        for (key, place) in members {
            let place = self.unwritten.place_again(known.row, key, *place);
            if place.is_row() {
                known.claimed.remove(place.hash, key);
            } else if self.unwritten.claim(known.row, place, false) {
                known.claimed.unwritten -= 1;
            }
        }
        if known.is_dropped && known.claimed.is_empty() {
            self.dropped.insert(known.row);
            self.upkeep.wake();
        }
        if let Some(since) = longest.map(|longest| self.waits.instant_of(longest)) {
            let other = known.waiting_since;
            known.waiting_since = Some(other.map_or(since, |other| other.min(since)));
        }
        self.touch(*audience);
    }

    /// Ends the claims of a batch that nobody will send.
    pub fn unclaim_batch(&mut self, batch: &Batch) {
        if let Some(audience) = self.audiences.of_route(&batch.route) {
            let place = |member: &ClaimedMember| {
                let key = member.context_key.clone();
                let place = self.place(audience, key.as_str());
                (key, place)
            };
            let members = batch.members.iter().map(place).collect();
            self.unclaim(&Unclaimed { audience, members, longest: None });
        }
    }
}
