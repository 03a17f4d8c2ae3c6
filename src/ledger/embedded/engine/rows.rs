//! Rows that are written after their contents have changed in memory: those of audiences with their marks,
//! and those of dirty members.

use std::collections::BTreeMap;

use rusqlite::Connection;

use crate::ledger::embedded::engine::state::State;
use crate::ledger::embedded::ids::AudienceRowId;
use crate::ledger::embedded::members::flush;
use crate::ledger::embedded::memtable::{FlushSlice, FlushedCounts};
use crate::ledger::embedded::tables::audiences::AudienceRow;
use crate::ledger::embedded::tables::database::Database;
use crate::membership::Timestamp;

/// Members taken out of the memtable at once when all of them are written.
const TAKEN_AT_ONCE: usize = 4096;

/// The claim marks that a transaction writes, by the row of the audience.
pub(crate) type SavedMarks = Vec<(AudienceRowId, Timestamp)>;

impl State {
    /// Writes the rows of the audiences that have changed; returns their marks.
    pub fn save(&mut self, db: &Connection) -> rusqlite::Result<SavedMarks> {
        let rows = self.take_unsaved();
        rows.iter().try_for_each(|row| row.write(db))?;
        Ok(rows.iter().map(AudienceRow::mark).collect())
    }

    /// Takes the rows of the audiences that have changed; from here on they count as written.
    pub fn take_unsaved(&mut self) -> Vec<AudienceRow> {
        let all_written = self.members.memtable.is_empty();
        let indexes = std::mem::take(&mut self.unsaved).into_iter();
        indexes.filter_map(|index| self.audiences.take_unsaved(index, all_written)).collect()
    }

    /// Advances the claim marks of the audiences that are about to be written, to cover their next claims.
    pub fn mark_ahead(&mut self) {
        for index in &self.unsaved {
            let known = &mut self.audiences[*index];
            if known.in_flight.is_empty() {
                continue;
            }
            let (row, after) = (known.row, known.marks.all_in_flight_through);
            let far = self.members.memtable.pending_far_behind(row, after, known.marks.ahead);
            known.marks.claimed_through =
                known.marks.claimed_through.max(far.unwrap_or(Timestamp::EPOCH));
        }
    }

    /// These marks are on the disk.
    pub fn marked(&mut self, marks: SavedMarks) {
        for (row, through) in marks {
            if let Some(index) = self.audiences.of_row(row) {
                self.audiences[index].marks.marked(through);
            }
        }
    }

    /// Writes all dirty members.
    pub fn write_members(&mut self, db: &Database) -> rusqlite::Result<()> {
        self.members.memtable.begin_full_flush();
        while self.members.memtable.is_flushing() {
            flush::write(&self.take_slice(TAKEN_AT_ONCE), db.connection()?)?;
        }
        Ok(())
    }

    /// Takes up to `most` members out of the memtable, to write them.
    pub fn take_slice(&mut self, most: usize) -> FlushSlice {
        let (taken, written) = self.members.memtable.take_slice(most);
        self.note_flushed(written);
        taken
    }

    fn note_flushed(&mut self, all: BTreeMap<AudienceRowId, FlushedCounts>) {
        for (row, FlushedCounts { before, now, pending_through }) in all {
            let Some(index) = self.audiences.of_row(row) else { continue };
            let audience = &mut self.audiences[index];
            audience.written.change(before, now);
            audience.marks.row_waits(pending_through.unwrap_or(Timestamp::EPOCH));
            if audience.written.pending == 0 {
                audience.marks.no_row_waits();
            }
            self.unsaved.insert(index);
        }
    }
}
