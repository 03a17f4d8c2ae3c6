//! One member, wherever it is: dirty in the memtable, or only as a row. Whoever stands above asks for a member
//! and puts one, and need not know which.
//!
//! # What always holds
//! * Of a member that is in both, the memtable says what it is.
//! * Whoever reads the rows themselves has the memtable written first.

pub(crate) mod bloom;
pub(crate) mod flush;
pub(crate) mod in_flight;

use std::hint::black_box;

use crate::ledger::embedded::members::bloom::Bloom;
use crate::ledger::embedded::memtable::{Memtable, Place};
use crate::ledger::embedded::tables::database::Database;
use crate::ledger::embedded::tables::members as rows;
use crate::ledger::member::{Member, Next};
use crate::membership::{ContextKey, Timestamp};

/// Rows that are looked at to find out since when somebody waits.
const MOST_LOOKED_AT: usize = 1000;

/// The members of all audiences.
#[derive(Debug)]
pub(crate) struct Members {
    pub memtable: Memtable,
    /// Members of audiences that were made since the ledger was opened.
    newcomers: Bloom,
    is_buffering: bool,
}

/// An audience, as far as it matters for where its members are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whose {
    pub row: i64,
    /// It was made since the ledger was opened: everybody of it is a newcomer.
    pub is_new: bool,
}

impl Members {
    /// `most`: dirty members that there is room for.
    pub fn new(most: usize) -> Self {
        Self { memtable: Memtable::new(most), newcomers: Bloom::default(), is_buffering: false }
    }

    /// Whether what changes now stays in the memtable; otherwise its row is written at once.
    pub fn is_buffering(&self) -> bool {
        self.is_buffering
    }

    /// From here on changes stay in the memtable, or are written at once. These need the memtable to be empty.
    pub fn buffer(&mut self, is_buffering: bool) {
        self.is_buffering = is_buffering;
    }

    /// The hashes of the keys of some members, at most `AT_ONCE`. What is looked at to get them is
    /// looked at for all of them, one kind after the other: the processor waits for many places in
    /// memory at once then, and not for each.
    pub fn hashes<'a>(&self, members: impl Iterator<Item = (Whose, &'a str)>) -> Vec<u64> {
        let hash = |(whose, key): (Whose, &str)| (whose, self.memtable.hash(key));
        let members: Vec<_> = members.map(hash).collect();
        let new = members.iter().filter(|(whose, _)| whose.is_new);
        let noted = new.map(|(whose, hash)| self.newcomers.look_at(whose.row, *hash));
        black_box(noted.fold(0, |all, one| all | one));
        let look = |(whose, hash): &(Whose, u64)| self.memtable.look_at(whose.row, *hash);
        black_box(members.iter().filter_map(look).count());
        members.into_iter().map(|(_, hash)| hash).collect()
    }

    /// Where a member is, until rows are written.
    pub fn place(&self, audience: i64, key: &str) -> Place {
        self.memtable.place(audience, key)
    }

    /// The same, by the hash of its key.
    pub fn place_of(&self, audience: i64, key: &str, hash: u64) -> Place {
        self.memtable.place_of(audience, key, hash)
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

    /// Makes a member what the rules decided, now or later; where it is then.
    pub fn put(
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
        if !self.is_buffering {
            rows::store(db.connection()?, audience, key.as_str(), before, now)?;
            return Ok(place);
        }
        Ok(self.memtable.put(audience, (key, place), before, now))
    }

    /// A member of this audience, which is new, was not known until now.
    pub fn note_newcomer(&mut self, audience: i64, hash: u64) {
        self.newcomers.note(audience, hash);
    }

    /// Whether anybody of an audience waits of whom a row may say so; `rows_wait`: a row says so of somebody.
    fn looks_at_rows(&self, rows_wait: bool) -> bool {
        rows_wait || !self.is_buffering
    }

    /// Since when the longest pending member of an audience has been, or longer; `rows_wait`: a row may say
    /// that its member is.
    pub fn pending_since(
        &self,
        db: &Database,
        audience: i64,
        rows_wait: bool,
    ) -> rusqlite::Result<Option<Timestamp>> {
        let mut longest = self.memtable.pending_since(audience);
        if self.looks_at_rows(rows_wait) {
            let mut looked_at = 0;
            rows::visit_pending(db.connection()?, audience, Timestamp::EPOCH, |key, row| {
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

    /// Shows the members of an audience that are pending since later than `after` to `visit`, the
    /// longest pending first, until it has seen enough (`false`); `rows_wait`: a row may say that its member is.
    pub fn visit_pending(
        &self,
        db: &Database,
        audience: i64,
        after: Timestamp,
        rows_wait: bool,
        mut visit: impl FnMut(&ContextKey, Place, &Member) -> bool,
    ) -> rusqlite::Result<()> {
        let mut dirty = self.memtable.pending_behind(audience, after).peekable();
        let mut has_enough = false;
        if self.looks_at_rows(rows_wait) {
            rows::visit_pending(db.connection()?, audience, after, |key, row| {
                let Some(key) = ContextKey::new(key) else { return true };
                let since = row.pending_since.unwrap_or(after);
                while let Some((_, key, place, now)) =
                    dirty.next_if(|(earlier, ..)| *earlier < since)
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
            for (_, key, place, now) in dirty {
                if !visit(&key, place, &now) {
                    break;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
