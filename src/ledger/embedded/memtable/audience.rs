//! The dirty members of one audience.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::hash::BuildHasher;

use hashbrown::HashTable;

use crate::ledger::embedded::ids::SlotNumber;
use crate::ledger::embedded::memtable::arena::Arena;
use crate::ledger::embedded::memtable::key::Key;
use crate::ledger::embedded::memtable::place::Place;
use crate::ledger::embedded::memtable::rate::TellingRate;
use crate::ledger::embedded::memtable::slot::Slot;
use crate::ledger::member::{Member, Next};
use crate::membership::{ContextKey, Timestamp};

/// Found by key, and by the time since when they are pending.
#[derive(Debug, Default)]
pub(super) struct DirtyMembers {
    slots: Arena,
    by_key: HashTable<SlotNumber>,
    /// Pending members in the order in which they began to wait. May hold stale entries: one counts only if
    /// its slot has the same time.
    waiting: VecDeque<(Timestamp, SlotNumber)>,
    pending: usize,
    pub told: TellingRate,
}

impl DirtyMembers {
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// How many are pending.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// The numbers and keys of all members.
    pub fn numbers(&self) -> impl Iterator<Item = (SlotNumber, &Key)> {
        self.slots.all().map(|(number, slot)| (number, &slot.key))
    }

    /// The number of a member, if it is dirty.
    pub fn find(&self, hash: u64, key: &str) -> Option<SlotNumber> {
        let is_it = |number: &SlotNumber| self.slots.of(*number).key.is(key);
        self.by_key.find(hash, is_it).copied()
    }

    /// The order of two keys in the table.
    pub fn compare(&self, number: SlotNumber, other: SlotNumber) -> Ordering {
        let key = |number| &self.slots.of(number).key;
        key(number).show(|one| key(other).show(|other| one.cmp(other)))
    }

    /// What a flush is to do with the row of a member.
    pub fn get(&self, number: SlotNumber) -> Next {
        self.slots.of(number).now().map_or(Next::Delete, Next::Write)
    }

    /// Changes a member that is already dirty.
    pub fn set(&mut self, number: SlotNumber, now: Option<&Member>) {
        let slot = self.slots.get_mut(number).expect("it was found");
        let (was, since) = (slot.pending_since(), now.and_then(|now| now.pending_since));
        slot.set(now);
        if was == since {
            return;
        }
        if was.is_some() {
            self.remove_pending();
        }
        if let Some(since) = since {
            self.add_pending(since, number);
        }
    }

    /// Adds a member and returns its number.
    pub fn insert(&mut self, new: Slot, hasher: &impl BuildHasher) -> SlotNumber {
        let (hash, since) = (new.hash(hasher), new.pending_since());
        let number = self.slots.add(new);
        let hash_of = |number: &SlotNumber| self.slots.of(*number).hash(hasher);
        self.by_key.insert_unique(hash, number, hash_of);
        if let Some(since) = since {
            self.add_pending(since, number);
        }
        number
    }

    fn add_pending(&mut self, since: Timestamp, number: SlotNumber) {
        self.pending += 1;
        let one = (since, number);
        // Usually the latest, unless its stamp is from the log and other members have got theirs since.
        if self.waiting.back().is_none_or(|last| *last < one) {
            self.waiting.push_back(one);
        } else if let Err(position) = self.waiting.binary_search(&one) {
            self.waiting.insert(position, one);
        }
    }

    fn remove_pending(&mut self) {
        self.pending -= 1;
        let Self { slots, waiting, pending, .. } = self;
        while waiting.front().is_some_and(|one| !is_waiting(slots, *one)) {
            waiting.pop_front();
        }
        if waiting.len() > 2 * *pending + 64 {
            waiting.retain(|one| is_waiting(slots, *one));
        }
    }

    /// The members pending since later than `after`, the longest pending first.
    pub fn pending_behind(
        &self,
        after: Timestamp,
        hasher: &impl BuildHasher,
    ) -> impl Iterator<Item = (Timestamp, ContextKey, Place, Member)> {
        let first = self.waiting.partition_point(|(since, _)| *since <= after);
        let waiting = self.waiting.range(first..);
        waiting.filter(|one| is_waiting(&self.slots, **one)).filter_map(|(since, number)| {
            let slot = self.slots.of(*number);
            let place = Place { hash: slot.hash(hasher), slot: Some(*number) };
            Some((*since, slot.key.context_key(), place, slot.now()?))
        })
    }

    /// Roughly, the time since when the member is pending that follows `others` members pending since later
    /// than `after`, or the last of those.
    pub fn pending_far_behind(&self, after: Timestamp, others: usize) -> Option<Timestamp> {
        let first = self.waiting.partition_point(|(since, _)| *since <= after);
        let mut behind = self.waiting.range(first..);
        behind
            .nth(others)
            .or(self.waiting.back().filter(|_| first < self.waiting.len()))
            .map(|(since, _)| *since)
    }

    /// Takes a member out, unless `may_keep` allows to leave it to the next flush and that is better.
    pub fn take(
        &mut self,
        number: SlotNumber,
        hasher: &impl BuildHasher,
        may_keep: bool,
    ) -> Option<Slot> {
        if may_keep && self.slots.get_mut(number)?.is_kept() {
            return None;
        }
        let taken = self.slots.take(number)?;
        let hash = taken.hash(hasher);
        if let Ok(entry) = self.by_key.find_entry(hash, |other| *other == number) {
            entry.remove();
        }
        if taken.pending_since().is_some() {
            self.remove_pending();
        }
        Some(taken)
    }
}

fn is_waiting(slots: &Arena, (since, number): (Timestamp, SlotNumber)) -> bool {
    slots.get(number).is_some_and(|slot| slot.pending_since() == Some(since))
}
