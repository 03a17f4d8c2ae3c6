//! Members that have changed and whose rows are written later, together.
//!
//! While the writer is behind, a member changes several times within a moment: it arrives, is claimed
//! and is told. What was merged from the journal need not be written before it leaves the journal, and
//! what was told need not be written at once: whoever is told twice is told the same. So the rows of
//! many changes are written once, in the order of the table: the more there are, the more of them
//! share a page. They are written in a *pass* over all, a slice with each transaction, beside what the
//! writer does (`super::writer`); a pass leaves those who wait to be told to the next one.
//!
//! # What always holds
//! * Whoever reads the rows themselves has them written first: only what looks up one member, or asks
//!   who waits, finds them here.
//! * A block leaves the journal with the transaction that writes the last member it has changed ([P1](crate::design::P1),
//!   tests/it/faults.rs). After a crash it is merged again, and ends the same.
//! * Members of which a call was made are known by the mark of their audience, which is on the disk before
//!   a batch is handed out: what was heard of the call since may be lost.
//! * They are bounded: when there are so many, nothing more is read from the journal ([P6](crate::design::P6)).

mod changed;
mod key;
mod pass;
mod slot;
mod slots;
mod vacant;

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::num::NonZeroU32;
use std::time::Duration;

use hashbrown::DefaultHashBuilder;
use tokio::time::Instant;

use super::MEMBER_BYTES;
use super::audience::Counts;
use super::database::Database;
use super::members;
use crate::ledger::member::{Member, Next};
use crate::membership::{ContextKey, Timestamp};

use changed::Changed;
use pass::Pass;
pub(super) use pass::Taken;
use slot::Slot;

/// A pass begins so long after the one before: until its end nothing leaves the journal.
const AT_THE_LATEST: Duration = Duration::from_secs(1);

/// So many wait to be told that couriers are busy without any more, or so small a part of those there
/// is room for, …
const ENOUGH_TO_TELL: usize = 1 << 14;
const PART_TO_TELL: usize = 8;
/// … if so many are told within so long.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// Members that are looked at together.
pub(super) const AT_ONCE: usize = 64;

/// Rows that are looked at to find out since when somebody waits.
const MOST_LOOKED_AT: usize = 1000;

/// What is not written yet.
#[derive(Debug)]
pub(super) struct Unwritten {
    /// When there are so many, there is no room for more.
    most: usize,
    /// By the row of their audience.
    audiences: BTreeMap<i64, Changed>,
    hasher: DefaultHashBuilder,
    count: usize,
    /// What those of their keys take that have memory of their own.
    text_bytes: usize,
    /// Since the last slice.
    added: usize,
    /// Since the first of them has changed.
    since: Option<Instant>,
    pass: Option<Pass>,
    /// Of the journal: what the blocks up to these have changed is written, or was when the last pass
    /// began.
    complete_through: u64,
    begun_through: u64,
    /// What changes now is written later.
    pub is_open: bool,
}

/// Where a member is found, until rows are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Of its key.
    pub hash: u64,
    /// One more than its number among those of its audience that are not written yet: two words in all,
    /// which stay in registers.
    behind: Option<NonZeroU32>,
}

impl Place {
    fn new(hash: u64, number: Option<u32>) -> Self {
        Self { hash, behind: number.and_then(|number| NonZeroU32::MIN.checked_add(number)) }
    }

    fn number(self) -> Option<u32> {
        self.behind.map(|behind| behind.get() - 1)
    }

    /// Whether its row says what it is.
    pub fn is_row(self) -> bool {
        self.behind.is_none()
    }
}

/// Members of an audience whose rows were written.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// What the rows counted as, and count as now.
    pub before: Counts,
    pub now: Counts,
    /// The latest of the times since when one of them is pending.
    pub waits_through: Option<Timestamp>,
    /// Who of them is in a batch.
    pub claimed: Vec<(u64, ContextKey)>,
}

impl Unwritten {
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
            complete_through: 0,
            begun_through: 0,
            is_open: false,
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
    fn being_told(&self, of: &Changed, now: Instant) -> usize {
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

    /// Since when the longest pending member of an audience has been, or longer; of those who have only
    /// a row if there can be such.
    pub fn pending_since(
        &self,
        db: &Database,
        audience: i64,
        has_rows: bool,
    ) -> rusqlite::Result<Option<Timestamp>> {
        let of = self.audiences.get(&audience);
        let here = of.and_then(|of| of.pending_behind(Timestamp::EPOCH, &self.hasher).next());
        let mut longest = here.map(|(since, ..)| since);
        if has_rows {
            let mut looked_at = 0;
            members::visit_pending(db, audience, Timestamp::EPOCH, |key, row| {
                looked_at += 1;
                // The row is not the truth of whom both is known.
                let is_found = looked_at == MOST_LOOKED_AT || self.place(audience, key).is_row();
                if is_found {
                    longest = longest.into_iter().chain(row.pending_since).min();
                }
                !is_found
            })?;
        }
        Ok(longest)
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

    /// The beginning of what [`Unwritten::place_of`] looks at.
    pub fn look_at(&self, audience: i64, hash: u64) -> Option<Timestamp> {
        self.audiences.get(&audience)?.look_at(hash)
    }

    /// What is to become of the row of a member.
    pub fn get(&self, audience: i64, place: Place) -> Next {
        let of = self.audiences.get(&audience);
        of.zip(place.number()).map_or(Next::Same, |(of, number)| of.get(number))
    }

    /// Makes a member what the rules decided, now or later; where it is then.
    pub fn store(
        &mut self,
        db: &Database,
        audience: i64,
        (key, place): (&ContextKey, Place),
        before: Option<&Member>,
        next: &Next,
    ) -> rusqlite::Result<Place> {
        let now = match next {
            Next::Same => return Ok(place),
            Next::Write(after) => Some(after),
            Next::Delete => None,
        };
        if !self.is_open {
            members::store(db, audience, key.as_str(), before, now)?;
            return Ok(place);
        }
        let of = self.audiences.entry(audience).or_default();
        if let Some(number) = place.number() {
            of.set(number, now);
            return Ok(place);
        }
        let new = Slot::new(key, before, now);
        self.text_bytes += new.key.bytes_elsewhere();
        let number = of.insert(new, &self.hasher);
        self.count += 1;
        self.added += 1;
        self.since.get_or_insert_with(Instant::now);
        Ok(Place::new(place.hash, Some(number)))
    }

    /// Whether a member that is not written yet is in a batch.
    pub fn is_claimed(&self, audience: i64, place: Place) -> bool {
        let of = self.audiences.get(&audience);
        of.zip(place.number()).is_some_and(|(of, number)| of.is_claimed(number))
    }

    /// Notes whether a member that is not written yet is in a batch, from now on; `true`: that is
    /// another answer than before.
    pub fn claim(&mut self, audience: i64, place: Place, is_claimed: bool) -> bool {
        let of = self.audiences.get_mut(&audience);
        of.zip(place.number()).is_some_and(|(of, number)| of.claim(number, is_claimed))
    }

    /// Where a member is that was there before rows may have been written.
    pub fn place_again(&self, audience: i64, key: &ContextKey, place: Place) -> Place {
        let of = self.audiences.get(&audience);
        let stays = of.zip(place.number()).is_some_and(|(of, number)| of.is(number, key));
        if stays { place } else { self.place(audience, key.as_str()) }
    }

    /// Those of an audience who are in a batch and are not written yet.
    pub fn claimed(&self, audience: i64) -> Vec<(u64, ContextKey)> {
        let of = self.audiences.get(&audience).into_iter().flat_map(Changed::claimed);
        of.map(|slot| (slot.hash(&self.hasher), slot.key.context_key())).collect()
    }

    /// Shows the members of an audience that are pending since later than `after` to `visit`, the
    /// longest pending first, until it has seen enough (`false`); of those who have only a row if there
    /// can be such.
    pub fn visit_pending(
        &self,
        db: &Database,
        audience: i64,
        after: Timestamp,
        has_rows: bool,
        mut visit: impl FnMut(&ContextKey, Place, &Member) -> bool,
    ) -> rusqlite::Result<()> {
        let of = self.audiences.get(&audience);
        let mut here =
            of.into_iter().flat_map(|of| of.pending_behind(after, &self.hasher)).peekable();
        let mut has_enough = false;
        if has_rows {
            members::visit_pending(db, audience, after, |key, row| {
                let Some(key) = ContextKey::new(key) else { return true };
                let since = row.pending_since.unwrap_or(after);
                while let Some((_, key, place, now)) =
                    here.next_if(|(earlier, ..)| *earlier < since)
                {
                    if !visit(&key, place, &now) {
                        has_enough = true;
                        return false;
                    }
                }
                // Of whom both is known the row is not the truth any more.
                let place = self.place(audience, key.as_str());
                has_enough = place.is_row() && !visit(&key, place, row);
                !has_enough
            })?;
        }
        if !has_enough {
            for (_, key, place, now) in here {
                if !visit(&key, place, &now) {
                    break;
                }
            }
        }
        Ok(())
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

    /// Nothing of it counts: the journal is read again. Hashes of keys stay what they are.
    pub fn forget(&mut self) {
        let hasher = self.hasher.clone();
        *self = Self { hasher, is_open: self.is_open, ..Self::new(self.most) };
    }
}

#[cfg(test)]
mod tests;
