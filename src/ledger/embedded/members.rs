//! One member, wherever it is: dirty in the memtable, or only in its row. Callers get and put members without
//! knowing which.
//!
//! # What always holds
//! * If a member is in both, the memtable has the current state.
//! * Whoever reads rows directly has the memtable flushed first.

pub(crate) mod bloom;
pub(crate) mod flush;
pub(crate) mod in_flight;

use std::hint::black_box;

use crate::ledger::embedded::ids::AudienceRowId;
use crate::ledger::embedded::members::bloom::Bloom;
use crate::ledger::embedded::memtable::{Memtable, Place};
use crate::ledger::embedded::tables::database::Database;
use crate::ledger::embedded::tables::members as rows;
use crate::ledger::member::{Member, Next};
use crate::membership::{ContextKey, Timestamp};

/// Most rows that are examined to find out since when the oldest member has been pending.
const MOST_LOOKED_AT: usize = 1000;

/// The members of all audiences.
#[derive(Debug)]
pub(crate) struct Members {
    pub memtable: Memtable,
    /// Filter of the members of audiences that were created since the ledger was opened.
    newcomers: Bloom,
    is_buffering: bool,
}

/// An audience, as far as finding its members needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whose {
    pub row: AudienceRowId,
    /// Created since the ledger was opened, so that all its members are in the filter.
    pub is_new: bool,
}

impl Members {
    /// `most`: capacity of the memtable.
    pub fn new(most: usize) -> Self {
        Self { memtable: Memtable::new(most), newcomers: Bloom::default(), is_buffering: false }
    }

    /// Whether changes stay in the memtable; otherwise rows are written at once.
    pub fn is_buffering(&self) -> bool {
        self.is_buffering
    }

    /// From here on changes stay in the memtable, or are written at once. The latter requires an empty
    /// memtable.
    pub fn buffer(&mut self, is_buffering: bool) {
        self.is_buffering = is_buffering;
    }

    /// Touches the memory that look-ups of these members will read, for all of them together; see
    /// [`AT_ONCE`](crate::ledger::embedded::memtable::AT_ONCE).
    pub fn prefetch<'a>(&self, members: impl Iterator<Item = (Whose, &'a str)>) {
        let hash = |(whose, key): (Whose, &str)| (whose, self.memtable.hash(key));
        let members: Vec<_> = members.map(hash).collect();
        let new = members.iter().filter(|(whose, _)| whose.is_new);
        let noted = new.map(|(whose, hash)| self.newcomers.first_word(whose.row, *hash));
        black_box(noted.fold(0, |all, one| all | one));
        let look = |(whose, hash): &(Whose, u64)| self.memtable.first_slot(whose.row, *hash);
        black_box(members.iter().filter_map(look).count());
    }

    /// Where a member is; valid until the next flush.
    pub fn place(&self, audience: AudienceRowId, key: &str) -> Place {
        self.memtable.place(audience, key)
    }

    /// The member, if the ledger knows it.
    pub fn get(
        &self,
        db: &Database,
        whose: Whose,
        (key, place): (&str, Place),
    ) -> rusqlite::Result<Option<Member>> {
        match self.memtable.get(whose.row, place) {
            Next::Same => {}
            Next::Delete => return Ok(None),
            Next::Write(now) => return Ok(Some(now)),
        }
        if whose.is_new && !self.newcomers.may_know(whose.row, place.hash) {
            return Ok(None);
        }
        rows::load(db.connection()?, whose.row, key)
    }

    /// Stores what the rules decided, in the memtable or in the row; returns where the member is now.
    pub fn put(
        &mut self,
        db: &Database,
        audience: AudienceRowId,
        (key, place): (&ContextKey, Place),
        before: Option<&Member>,
        next: &Next,
    ) -> rusqlite::Result<Place> {
        let now = match next {
            Next::Same => return Ok(place),
            Next::Write(after) => Some(after),
            Next::Delete => None,
        };
        if !self.is_buffering {
            rows::store(db.connection()?, audience, key.as_str(), before, now)?;
            return Ok(place);
        }
        Ok(self.memtable.put(audience, (key, place), before, now))
    }

    /// Adds the first appearance of a member to the filter; its audience is new.
    pub fn note_newcomer(&mut self, audience: AudienceRowId, hash: u64) {
        self.newcomers.note(audience, hash);
    }

    /// Whether the rows of an audience may hold pending members; `rows_wait`: they do, as far as the counts
    /// say.
    fn looks_at_rows(&self, rows_wait: bool) -> bool {
        rows_wait || !self.is_buffering
    }

    /// A lower bound of the time since when the oldest pending member of an audience has waited; `rows_wait`:
    /// some row says that its member is pending.
    pub fn pending_since(
        &self,
        db: &Database,
        audience: AudienceRowId,
        rows_wait: bool,
    ) -> rusqlite::Result<Option<Timestamp>> {
        let mut longest = self.memtable.pending_since(audience);
        if self.looks_at_rows(rows_wait) {
            let mut looked_at = 0;
            rows::visit_pending(db.connection()?, audience, Timestamp::EPOCH, |key, row| {
                looked_at += 1;
                // A row whose member is dirty is out of date.
                let is_found = looked_at == MOST_LOOKED_AT || self.place(audience, key).is_row();
                if is_found {
                    longest = longest.into_iter().chain(row.pending_since).min();
                }
                !is_found
            })?;
        }
        Ok(longest)
    }

    /// Shows the members of an audience that are pending since later than `after` to `visit`, the longest
    /// pending first, each with whether it is only in its row, until it returns `false`; `rows_wait`: some row
    /// says that its member is pending.
    pub fn visit_pending(
        &self,
        db: &Database,
        audience: AudienceRowId,
        after: Timestamp,
        rows_wait: bool,
        mut visit: impl FnMut(&ContextKey, &Member, bool) -> bool,
    ) -> rusqlite::Result<()> {
        let mut dirty = self.memtable.pending_behind(audience, after).peekable();
        let mut has_enough = false;
        if self.looks_at_rows(rows_wait) {
            rows::visit_pending(db.connection()?, audience, after, |key, row| {
                let Some(key) = ContextKey::new(key) else { return true };
                let since = row.pending_since.unwrap_or(after);
                while let Some((_, key, now)) = dirty.next_if(|(earlier, ..)| *earlier < since) {
                    if !visit(&key, &now, false) {
                        has_enough = true;
                        return false;
                    }
                }
                // A row whose member is dirty is out of date.
                let is_row = self.place(audience, key.as_str()).is_row();
                has_enough = is_row && !visit(&key, row, true);
                !has_enough
            })?;
        }
        if !has_enough {
            for (_, key, now) in dirty {
                if !visit(&key, &now, false) {
                    break;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
