//! The dirty members of one audience.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::hint::black_box;

use hashbrown::HashTable;

use crate::ledger::embedded::ids::SlotNumber;
use crate::ledger::embedded::memtable::arena::Arena;
use crate::ledger::embedded::memtable::key::Key;
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

    /// Reads the slot that [`DirtyMembers::find`] compares first: since when its member is pending.
    pub fn first_slot(&self, hash: u64) -> Option<Timestamp> {
        let number = self.by_key.iter_hash(hash).next()?;
        self.slots.get(*number)?.pending_since()
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

    /// Adds a member, whose key has this hash, and returns its number.
    pub fn insert(&mut self, new: Slot, hash: u64, hasher: &impl BuildHasher) -> SlotNumber {
        let since = new.pending_since();
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
    ) -> impl Iterator<Item = (Timestamp, ContextKey, Member)> {
        let first = self.waiting.partition_point(|(since, _)| *since <= after);
        let waiting = self.waiting.range(first..);
        waiting.filter(|one| is_waiting(&self.slots, **one)).filter_map(|(since, number)| {
            let slot = self.slots.of(*number);
            Some((*since, slot.key.context_key(), slot.now()?))
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

    /// The hashes of these members, whose memory is touched together: see
    /// [`AT_ONCE`](crate::ledger::embedded::memtable::AT_ONCE).
    pub fn hashes(&self, numbers: &[SlotNumber], hasher: &impl BuildHasher) -> Vec<u64> {
        let hash_of = |number: &SlotNumber| self.slots.of(*number).hash(hasher);
        let all: Vec<u64> = numbers.iter().map(hash_of).collect();
        let entry = |(hash, number)| self.by_key.find(hash, |other| other == number);
        black_box(all.iter().copied().zip(numbers).filter_map(entry).count());
        all
    }

    /// Takes a member out, unless `may_keep` allows to leave it to the next flush and that is better.
    pub fn take(&mut self, number: SlotNumber, hash: u64, may_keep: bool) -> Option<Slot> {
        if may_keep && self.slots.get_mut(number)?.is_kept() {
            return None;
        }
        let taken = self.slots.take(number)?;
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

#[cfg(test)]
mod tests {
    use hashbrown::DefaultHashBuilder;

    use super::*;
    use crate::ledger::member::{Change, Moment, record};
    use crate::membership::Membership;

    fn member(pending_since: Option<i64>) -> Member {
        let change = Change {
            membership: Membership::In,
            event_at: Timestamp(1),
            key_rule: 1,
            person: None,
            is_repeat: false,
        };
        let moment = Moment {
            stamp: Timestamp(1),
            told_counts_from: Timestamp::EPOCH,
            repeat_window: std::time::Duration::ZERO,
            unheard_through: Timestamp::EPOCH,
            expires_after: None,
            snapshot_at: Timestamp::EPOCH,
        };
        let Next::Write(member) = record(None, &change, &moment) else {
            panic!("the first delta is written")
        };
        Member { pending_since: pending_since.map(Timestamp), ..member }
    }

    /// Members that are pending since these times, in this order.
    fn pending(since: impl IntoIterator<Item = i64>) -> (DirtyMembers, Vec<SlotNumber>) {
        let (mut of, hasher) = (DirtyMembers::default(), DefaultHashBuilder::default());
        let insert = |(number, since): (usize, i64)| {
            let key = ContextKey::new(&format!("user-{number}")).expect("not empty");
            let new = Slot::new(&key, None, Some(&member(Some(since))));
            let hash = new.hash(&hasher);
            of.insert(new, hash, &hasher)
        };
        let numbers = since.into_iter().enumerate().map(insert).collect();
        (of, numbers)
    }

    #[test]
    fn the_time_far_behind_is_that_of_a_member_or_the_last_one() {
        let (of, _) = pending([30, 10, 20]);
        let rows = [
            (0, 0, Some(10)),
            (0, 1, Some(20)),
            (0, 2, Some(30)),
            (0, 9, Some(30)),
            (10, 0, Some(20)),
            (19, 9, Some(30)),
            (30, 0, None),
            (99, 9, None),
        ];
        for (after, others, expected) in rows {
            let far = of.pending_far_behind(Timestamp(after), others);
            assert_eq!(far, expected.map(Timestamp), "{others} behind {after}");
        }
    }

    /// Whoever is told, or waits anew, leaves an entry behind that no longer counts.
    #[test]
    fn stale_entries_do_not_pile_up() {
        let (mut of, numbers) = pending(0..101);
        assert_eq!(of.pending(), 101);
        let mut since = 1000;
        let mut change = |number: SlotNumber, is_pending: bool, of: &mut DirtyMembers| {
            since += 1;
            let before = of.pending();
            of.set(number, Some(&member(is_pending.then_some(since))));
            assert_eq!(of.pending(), if is_pending { before } else { before - 1 });
            let most = 2 * of.pending() + 64 + 1;
            assert!(of.waiting.len() <= most, "{} entries of {}", of.waiting.len(), of.pending());
        };
        // all but the first, whose entry keeps those behind it from leaving in front
        for number in &numbers[51..] {
            change(*number, true, &mut of);
        }
        for number in numbers[1..96].iter().rev() {
            change(*number, false, &mut of);
        }
        assert_eq!(of.pending(), 6);
        for _ in 0..1000 {
            change(numbers[100], true, &mut of);
        }
        let waiting: Vec<i64> =
            of.pending_behind(Timestamp(-1)).map(|(since, ..)| since.0).collect();
        assert!(waiting.len() == 6 && waiting.is_sorted(), "{waiting:?}");
    }
}
