//! The dirty members of all audiences, and when they are flushed.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::time::Duration;

use hashbrown::DefaultHashBuilder;
use tokio::time::Instant;

use crate::ledger::counts::Counts;
use crate::ledger::embedded::ids::AudienceRowId;
use crate::ledger::embedded::memtable::audience::DirtyMembers;
use crate::ledger::embedded::memtable::flush::{Flush, FlushSlice, in_order};
use crate::ledger::embedded::memtable::place::Place;
use crate::ledger::embedded::memtable::slot::Slot;
use crate::ledger::embedded::watermarks::FlushMarks;
use crate::ledger::member::{Member, Next};
use crate::membership::{ContextKey, Timestamp};

/// Memory for a dirty member with its index entries, beside a long key.
pub(crate) const MEMBER_BYTES: usize = 128;

/// A flush begins at the latest this long after the one before: until it ends, no block leaves the log.
const AT_THE_LATEST: Duration = Duration::from_secs(1);

/// Couriers are busy if this many members wait to be told, or one part in [`PART_TO_TELL`] of the capacity if
/// that is less, …
const ENOUGH_TO_TELL: usize = 1 << 14;
const PART_TO_TELL: usize = 8;
/// … and as many are told within this time.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// Members whose memory is touched together before they are looked up or taken out, so that their cache misses
/// overlap instead of adding up. This saves about a tenth of the CPU time that recording an event takes.
pub(crate) const AT_ONCE: usize = 64;

/// The memtable.
#[derive(Debug)]
pub(crate) struct Memtable {
    /// Capacity, in members with short keys.
    most: usize,
    /// By the row of the audience.
    audiences: BTreeMap<AudienceRowId, DirtyMembers>,
    hasher: DefaultHashBuilder,
    count: usize,
    /// Heap memory of the long keys.
    text_bytes: usize,
    /// Members added since the last slice was taken.
    added: usize,
    /// Since when the oldest change has been waiting for a flush.
    since: Option<Instant>,
    flush: Option<Flush>,
    marks: FlushMarks,
}

/// How a slice of a flush changes what the rows of an audience count as.
#[derive(Debug, Default)]
pub(crate) struct FlushedCounts {
    /// Counts of these rows before and after the slice is written.
    pub before: Counts,
    pub now: Counts,
    /// The latest `pending_since` among them.
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
            flush: None,
            marks: FlushMarks::default(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether there is no room for more members.
    pub fn is_full(&self) -> bool {
        self.room_taken() >= self.most
    }

    /// Whether a flush is due.
    pub fn is_due(&self) -> bool {
        self.is_filling() || self.since.is_some_and(|since| since.elapsed() >= AT_THE_LATEST)
    }

    fn is_filling(&self) -> bool {
        self.room_taken() >= self.most - self.most / 4
    }

    /// Room taken, in members with short keys.
    fn room_taken(&self) -> usize {
        self.count + self.text_bytes / MEMBER_BYTES
    }

    /// Whether couriers have enough to tell, and tell it so fast that others need not wait long if nothing
    /// more is read: a member that is told before its row is written is written only once.
    pub fn is_ahead(&self, now: Instant) -> bool {
        let being_told = |of| self.being_told(of, now);
        self.audiences.values().map(being_told).sum::<usize>() >= self.enough()
    }

    /// Whether couriers have members of this audience to tell, and tell them fast.
    pub fn is_being_told(&self, audience: AudienceRowId, now: Instant) -> bool {
        self.audiences.get(&audience).is_some_and(|of| self.being_told(of, now) > 0)
    }

    fn enough(&self) -> usize {
        ENOUGH_TO_TELL.min(self.most / PART_TO_TELL).max(1)
    }

    /// Pending members that will be told soon.
    fn being_told(&self, of: &DirtyMembers, now: Instant) -> usize {
        let pending = of.pending();
        let is_quick = of.told.within(TOLD_WITHIN, now) >= pending.min(self.enough());
        if is_quick { pending } else { 0 }
    }

    /// Notes that members of an audience were told.
    pub fn told(&mut self, audience: AudienceRowId, members: usize, now: Instant) {
        if let Some(of) = self.audiences.get_mut(&audience) {
            of.told.add(members, now);
        }
    }

    /// Whether any member of an audience is dirty.
    pub fn any(&self, audience: AudienceRowId) -> bool {
        self.audiences.contains_key(&audience)
    }

    /// Where a member is.
    pub fn place(&self, audience: AudienceRowId, key: &str) -> Place {
        let hash = self.hash(key);
        let of = self.audiences.get(&audience);
        Place { hash, slot: of.and_then(|of| of.find(hash, key)) }
    }

    /// The hash of a key.
    pub fn hash(&self, key: &str) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Reads the slot that [`Memtable::place`] compares first: since when its member is pending.
    pub fn first_slot(&self, audience: AudienceRowId, hash: u64) -> Option<Timestamp> {
        self.audiences.get(&audience)?.first_slot(hash)
    }

    /// What a flush is to do with the row of a member.
    pub fn get(&self, audience: AudienceRowId, place: Place) -> Next {
        let of = self.audiences.get(&audience);
        of.zip(place.slot).map_or(Next::Same, |(of, number)| of.get(number))
    }

    /// See [`DirtyMembers::pending_far_behind`].
    pub fn pending_far_behind(
        &self,
        audience: AudienceRowId,
        after: Timestamp,
        others: usize,
    ) -> Option<Timestamp> {
        self.audiences.get(&audience)?.pending_far_behind(after, others)
    }

    /// Stores what the rules decided; returns where the member is now.
    pub fn put(
        &mut self,
        audience: AudienceRowId,
        (key, place): (&ContextKey, Place),
        before: Option<&Member>,
        now: Option<&Member>,
    ) -> Place {
        let of = self.audiences.entry(audience).or_default();
        if let Some(number) = place.slot {
            of.set(number, now);
            return place;
        }
        let new = Slot::new(key, before, now);
        self.text_bytes += new.key.bytes_elsewhere();
        let number = of.insert(new, place.hash, &self.hasher);
        self.count += 1;
        self.added += 1;
        self.since.get_or_insert_with(Instant::now);
        Place { slot: Some(number), ..place }
    }

    /// Since when the oldest pending member among the dirty ones has waited.
    pub fn pending_since(&self, audience: AudienceRowId) -> Option<Timestamp> {
        let of = self.audiences.get(&audience)?;
        of.pending_behind(Timestamp::EPOCH).next().map(|(since, ..)| since)
    }

    /// The dirty members of an audience that are pending since later than `after`, the longest pending first.
    pub fn pending_behind(
        &self,
        audience: AudienceRowId,
        after: Timestamp,
    ) -> impl Iterator<Item = (Timestamp, ContextKey, Member)> {
        let of = self.audiences.get(&audience).into_iter();
        of.flat_map(move |of| of.pending_behind(after))
    }

    pub fn is_flushing(&self) -> bool {
        self.flush.is_some()
    }

    /// Begins a flush. The log is read up to block `through`; `keeps`: leave pending members to the next
    /// flush once, because they will change again soon.
    pub fn begin_flush(&mut self, through: u64, keeps: bool) {
        let in_order = |(audience, of): (&AudienceRowId, &DirtyMembers)| (*audience, in_order(of));
        let left: Vec<_> = self.audiences.iter().rev().map(in_order).collect();
        let members = left.iter().map(|(_, numbers)| numbers.len()).sum();
        self.added = 0;
        self.flush =
            Some(Flush { left, members, done: 0, began: Instant::now(), through, keeps, kept: 0 });
    }

    /// How many members to write now so that there is room in time.
    pub fn share(&self, most: usize, hurries: bool) -> usize {
        let Some(flush) = &self.flush else { return 0 };
        if hurries || self.is_full() {
            return most;
        }
        flush.share(most, if self.is_filling() { 2 * self.added } else { 0 })
    }

    /// Takes up to `most` members out, to be written.
    pub fn take_slice(
        &mut self,
        most: usize,
    ) -> (FlushSlice, BTreeMap<AudienceRowId, FlushedCounts>) {
        let (mut all_taken, mut all_written) = (FlushSlice::default(), BTreeMap::new());
        let Some(mut flush) = self.flush.take() else { return (all_taken, all_written) };
        self.added = 0;
        let mut share = most;
        while share > 0 {
            let Some((audience, numbers)) = flush.left.last_mut() else { break };
            let written: &mut FlushedCounts = all_written.entry(*audience).or_default();
            let Some(of) = self.audiences.get_mut(audience) else { break };
            if all_taken.0.last().is_none_or(|(last, _)| last != audience) {
                all_taken.0.push((*audience, Vec::with_capacity(share.min(numbers.len()))));
            }
            let slots = &mut all_taken.0.last_mut().expect("one is there").1;
            let taken = numbers.split_off(numbers.len().saturating_sub(share.min(AT_ONCE)));
            (share, flush.done) = (share - taken.len(), flush.done + taken.len());
            let hashes = of.hashes(&taken, &self.hasher);
            for (number, hash) in taken.into_iter().zip(hashes).rev() {
                let Some(slot) = of.take(number, hash, flush.keeps) else {
                    flush.kept += 1;
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
                let (audience, _) = (*audience, flush.left.pop());
                if of.is_empty() {
                    self.audiences.remove(&audience);
                }
            }
        }
        if flush.left.is_empty() {
            self.end(&flush);
        } else {
            self.flush = Some(flush);
        }
        (all_taken, all_written)
    }

    /// Ends a flush: it has written every member that the one before had left to it.
    fn end(&mut self, flush: &Flush) {
        self.marks.flushed(flush.through, flush.kept > 0);
        self.since = (self.count > 0).then_some(flush.began);
    }

    /// Begins a flush that leaves no member behind.
    pub fn begin_full_flush(&mut self) {
        self.begin_flush(self.marks.begun, false);
    }

    /// The last block of the log whose changes are all written.
    pub fn complete_through(&self) -> u64 {
        self.marks.complete
    }

    /// Empties the memtable after a rollback; the log is read again. Key hashes stay valid.
    pub fn forget(&mut self) {
        let hasher = self.hasher.clone();
        *self = Self { hasher, ..Self::new(self.most) };
    }
}
