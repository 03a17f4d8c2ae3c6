//! The dirty members of all audiences, and when they are flushed.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::time::Duration;

use hashbrown::DefaultHashBuilder;
use tokio::time::Instant;

use crate::ledger::counts::Counts;
use crate::ledger::embedded::memtable::audience::DirtyMembers;
use crate::ledger::embedded::memtable::flush::{Pass, Taken, in_order};
use crate::ledger::embedded::memtable::place::Place;
use crate::ledger::embedded::memtable::slot::Slot;
use crate::ledger::embedded::watermarks::FlushMarks;
use crate::ledger::member::{Member, Next};
use crate::membership::{ContextKey, Timestamp};

/// What a dirty member takes, with what is there to find it and to write it, beside the memory of a
/// long key.
pub(crate) const MEMBER_BYTES: usize = 128;

/// A pass begins so long after the one before: until its end nothing leaves the journal.
const AT_THE_LATEST: Duration = Duration::from_secs(1);

/// So many wait to be told that couriers are busy without any more, or so small a part of those there
/// is room for, …
const ENOUGH_TO_TELL: usize = 1 << 14;
const PART_TO_TELL: usize = 8;
/// … if so many are told within so long.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// Members that are looked at together.
pub(crate) const AT_ONCE: usize = 64;

/// What is not written yet.
#[derive(Debug)]
pub(crate) struct Memtable {
    /// When there are so many, there is no room for more.
    most: usize,
    /// By the row of their audience.
    audiences: BTreeMap<i64, DirtyMembers>,
    hasher: DefaultHashBuilder,
    count: usize,
    /// What those of their keys take that have memory of their own.
    text_bytes: usize,
    /// Since the last slice.
    added: usize,
    /// Since the first of them has changed.
    since: Option<Instant>,
    pass: Option<Pass>,
    marks: FlushMarks,
}

/// Members of an audience whose rows were written.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// What the rows counted as, and count as now.
    pub before: Counts,
    pub now: Counts,
    /// The latest of the times since when one of them is pending.
    pub pending_through: Option<Timestamp>,
}

impl Memtable {
    pub fn new(most: usize) -> Self {
        Self {
            most,
            audiences: BTreeMap::new(),
            hasher: DefaultHashBuilder::default(),
            count: 0,
            text_bytes: 0,
            added: 0,
            since: None,
            pass: None,
            marks: FlushMarks::default(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether there is no room for more.
    pub fn is_full(&self) -> bool {
        self.room_taken() >= self.most
    }

    /// Whether it is time to write them.
    pub fn is_due(&self) -> bool {
        self.is_filling() || self.since.is_some_and(|since| since.elapsed() >= AT_THE_LATEST)
    }

    fn is_filling(&self) -> bool {
        self.room_taken() >= self.most - self.most / 4
    }

    /// By all that there are, as members whose keys take no memory of their own.
    fn room_taken(&self) -> usize {
        self.count + self.text_bytes / MEMBER_BYTES
    }

    /// Whether the couriers have enough to tell, and tell it so quickly that others do not wait for
    /// long if nothing more is read: who is told before the row is written is written once.
    pub fn is_ahead(&self, now: Instant) -> bool {
        let being_told = |of| self.being_told(of, now);
        self.audiences.values().map(being_told).sum::<usize>() >= self.enough()
    }

    /// Whether the couriers have something of this audience to tell, and tell it quickly.
    pub fn is_being_told(&self, audience: i64, now: Instant) -> bool {
        self.audiences.get(&audience).is_some_and(|of| self.being_told(of, now) > 0)
    }

    fn enough(&self) -> usize {
        ENOUGH_TO_TELL.min(self.most / PART_TO_TELL).max(1)
    }

    /// Members that wait and will be told soon.
    fn being_told(&self, of: &DirtyMembers, now: Instant) -> usize {
        let pending = of.pending();
        let is_quick = of.told.within(TOLD_WITHIN, now) >= pending.min(self.enough());
        if is_quick { pending } else { 0 }
    }

    /// So many members of an audience were told.
    pub fn told(&mut self, audience: i64, members: usize, now: Instant) {
        if let Some(of) = self.audiences.get_mut(&audience) {
            of.told.add(members, now);
        }
    }

    /// Whether any member of an audience has changed.
    pub fn any(&self, audience: i64) -> bool {
        self.audiences.contains_key(&audience)
    }

    /// Where a member is.
    pub fn place(&self, audience: i64, key: &str) -> Place {
        self.place_of(audience, key, self.hash(key))
    }

    /// Of a key.
    pub fn hash(&self, key: &str) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Where a member is, by the hash of its key.
    pub fn place_of(&self, audience: i64, key: &str, hash: u64) -> Place {
        let of = self.audiences.get(&audience);
        Place::new(hash, of.and_then(|of| of.find(hash, key)))
    }

    /// The beginning of what [`Memtable::place_of`] looks at.
    pub fn look_at(&self, audience: i64, hash: u64) -> Option<Timestamp> {
        self.audiences.get(&audience)?.look_at(hash)
    }

    /// What is to become of the row of a member.
    pub fn get(&self, audience: i64, place: Place) -> Next {
        let of = self.audiences.get(&audience);
        of.zip(place.number()).map_or(Next::Same, |(of, number)| of.get(number))
    }

    /// Since when the one has been pending who is behind so many others that are pending since later
    /// than `after`, or is the last of them; roughly.
    pub fn pending_far_behind(
        &self,
        audience: i64,
        after: Timestamp,
        others: usize,
    ) -> Option<Timestamp> {
        self.audiences.get(&audience)?.pending_far_behind(after, others)
    }

    /// Makes a member what the rules decided; where it is then.
    pub fn put(
        &mut self,
        audience: i64,
        (key, place): (&ContextKey, Place),
        before: Option<&Member>,
        now: Option<&Member>,
    ) -> Place {
        let of = self.audiences.entry(audience).or_default();
        if let Some(number) = place.number() {
            of.set(number, now);
            return place;
        }
        let new = Slot::new(key, before, now);
        self.text_bytes += new.key.bytes_elsewhere();
        let number = of.insert(new, &self.hasher);
        self.count += 1;
        self.added += 1;
        self.since.get_or_insert_with(Instant::now);
        Place::new(place.hash, Some(number))
    }

    /// Since when the longest pending member of an audience that is here has been.
    pub fn pending_since(&self, audience: i64) -> Option<Timestamp> {
        let of = self.audiences.get(&audience)?;
        of.pending_behind(Timestamp::EPOCH, &self.hasher).next().map(|(since, ..)| since)
    }

    /// The members of an audience that are here and pending since later than `after`, the longest pending first.
    pub fn pending_behind(
        &self,
        audience: i64,
        after: Timestamp,
    ) -> impl Iterator<Item = (Timestamp, ContextKey, Place, Member)> {
        let of = self.audiences.get(&audience).into_iter();
        of.flat_map(move |of| of.pending_behind(after, &self.hasher))
    }

    pub fn is_in_pass(&self) -> bool {
        self.pass.is_some()
    }

    /// Begins a pass. The blocks of the journal up to `through` are read; `keeps`: those who wait to
    /// be told will soon change again.
    pub fn begin_pass(&mut self, through: u64, keeps: bool) {
        let in_order = |(audience, of): (&i64, &DirtyMembers)| (*audience, in_order(of));
        let left: Vec<_> = self.audiences.iter().rev().map(in_order).collect();
        let members = left.iter().map(|(_, numbers)| numbers.len()).sum();
        self.added = 0;
        self.pass =
            Some(Pass { left, members, done: 0, began: Instant::now(), through, keeps, kept: 0 });
    }

    /// How many are to be written now so that there is room in time.
    pub fn share(&self, most: usize, hurries: bool) -> usize {
        let Some(pass) = &self.pass else { return 0 };
        if hurries || self.is_full() {
            return most;
        }
        pass.share(most, if self.is_filling() { 2 * self.added } else { 0 })
    }

    /// Takes so many out, to write them.
    pub fn take_some(&mut self, most: usize) -> (Taken, BTreeMap<i64, Written>) {
        let (mut all_taken, mut all_written) = (Taken::default(), BTreeMap::new());
        let Some(mut pass) = self.pass.take() else { return (all_taken, all_written) };
        self.added = 0;
        let mut share = most;
        while share > 0 {
            let Some((audience, numbers)) = pass.left.last_mut() else { break };
            let written: &mut Written = all_written.entry(*audience).or_default();
            let Some(of) = self.audiences.get_mut(audience) else { break };
            if all_taken.0.last().is_none_or(|(last, _)| last != audience) {
                all_taken.0.push((*audience, Vec::with_capacity(share.min(numbers.len()))));
            }
            let slots = &mut all_taken.0.last_mut().expect("one is there").1;
            let taken = numbers.split_off(numbers.len().saturating_sub(share.min(AT_ONCE)));
            (share, pass.done) = (share - taken.len(), pass.done + taken.len());
            let hashes = of.hashes(&taken, &self.hasher);
            for (number, hash) in taken.into_iter().zip(hashes).rev() {
                let Some(slot) = of.take(number, hash, pass.keeps) else {
                    pass.kept += 1;
                    continue;
                };
                self.count -= 1;
                self.text_bytes -= slot.key.bytes_elsewhere();
                written.before += slot.row_counts();
                written.now += slot.counts();
                written.pending_through = written.pending_through.max(slot.pending_since());
                slots.push(slot);
            }
            if numbers.is_empty() {
                let (audience, _) = (*audience, pass.left.pop());
                if of.is_empty() {
                    self.audiences.remove(&audience);
                }
            }
        }
        if pass.left.is_empty() {
            self.end(&pass);
        } else {
            self.pass = Some(pass);
        }
        (all_taken, all_written)
    }

    /// Whoever was left to this pass by the one before is written now.
    fn end(&mut self, pass: &Pass) {
        self.marks.flushed(pass.through, pass.kept > 0);
        self.since = (self.count > 0).then_some(pass.began);
    }

    /// Begins a pass that leaves nobody.
    pub fn begin_last_pass(&mut self) {
        self.begin_pass(self.marks.begun, false);
    }

    /// What the blocks of the journal up to this one have changed is written.
    pub fn complete_through(&self) -> u64 {
        self.marks.complete
    }

    /// Nothing of it counts: the journal is read again. Hashes of keys stay what they are.
    pub fn forget(&mut self) {
        let hasher = self.hasher.clone();
        *self = Self { hasher, ..Self::new(self.most) };
    }
}
