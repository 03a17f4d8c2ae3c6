//! Flushing: when dirty members are written, how many of them at once, and beside what else is done.
//!
//! They are written by transactions of their own, on a thread beside the writer, which goes on meanwhile with what
//! changes nothing but memory. It waits for that thread when it must look into the database: for a member whose row
//! alone says what it is, or to mark who is claimed.

use std::time::Duration;

use tokio::time::Instant;

use crate::ledger::LedgerError;
use crate::ledger::embedded::commit::command::Reply;
use crate::ledger::embedded::engine::rows::Marks;
use crate::ledger::embedded::engine::state::State;
use crate::ledger::embedded::members::flush;
use crate::ledger::embedded::memtable::Memtable;
use crate::ledger::embedded::tables::audiences::AudienceRow;
use crate::ledger::embedded::tables::database::Database;
use crate::ledger::embedded::tables::meta;
use crate::ledger::embedded::watermarks::LogMarks;

/// Until so long after a courier has asked for something, so small a part of [`Pace::most_written`] is
/// written at once: it may have to wait for that.
///
/// [`Pace::most_written`]: crate::ledger::embedded::engine::pace::Pace::most_written
const ARE_CALLING: Duration = Duration::from_millis(20);
const AMONG_CALLS: usize = 4;
/// Dirty members are flushed when nothing was asked for so long …
const WRITE_AFTER: Duration = Duration::from_millis(100);
/// … and for those who read rows, but not more often than that: whoever looks all the time would undo
/// what it spares.
const WRITE_TO_READ: Duration = Duration::from_millis(400);

/// Which of the rows that wait are written with a group.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    /// As many as it takes for there to be room.
    Due,
    /// More of them, until all are: there is nothing else to do.
    Soon,
    /// All of them.
    All,
}

/// What is so once a transaction beside the writer is committed.
#[derive(Debug)]
pub(crate) struct Flushed {
    /// The last block of the journal that is in the tables.
    pub merged: u64,
    pub marks: Marks,
}

/// What is being flushed, and who waits for it.
#[derive(Debug)]
pub(crate) struct Flusher {
    /// Dirty members that are written in one transaction, at most.
    most_written: usize,
    /// What is being written beside.
    beside: Option<Flushed>,
    /// Who waits until all rows are written, by the next flush and by this one, and when that was so last.
    readers: Vec<Reply<()>>,
    served: Vec<Reply<()>>,
    wrote_at: Instant,
    /// When a courier has asked for something last.
    called_at: Instant,
    /// When what was left to be written later is written, if nothing is asked until then.
    write_at: Instant,
}

impl Flusher {
    /// `most_written`: dirty members that are written in one transaction, at most.
    pub fn new(most_written: usize) -> Self {
        let now = Instant::now();
        Self {
            most_written,
            beside: None,
            readers: Vec::new(),
            served: Vec::new(),
            wrote_at: now,
            called_at: now,
            write_at: now,
        }
    }

    /// Whether something is being written beside the writer.
    pub fn is_writing(&self) -> bool {
        self.beside.is_some()
    }

    /// Whether the rows of some members do not say yet what they are.
    pub fn has_unwritten(&self, memtable: &Memtable) -> bool {
        !memtable.is_empty() || self.is_writing()
    }

    /// Somebody waits for the flush that is under way.
    pub fn serves(&self) -> bool {
        !self.served.is_empty()
    }

    /// When something is to be written although there is room: for those who read rows, or because nothing
    /// else is asked for.
    pub fn next(&self) -> Instant {
        if self.readers.is_empty() {
            self.write_at
        } else {
            self.write_at.min(self.wrote_at + WRITE_TO_READ)
        }
    }

    /// A courier asks for something.
    pub fn called(&mut self, now: Instant) {
        self.called_at = now;
    }

    /// Something was asked for: what is written for want of anything else waits.
    pub fn put_off(&mut self) {
        self.write_at = Instant::now() + WRITE_AFTER;
    }

    /// These read rows once all that was changed before is written.
    pub fn add_readers(&mut self, readers: Vec<Reply<()>>) {
        self.readers.extend(readers);
    }

    /// Whoever reads rows finds all that was changed before they asked.
    pub fn answer_readers(&mut self, memtable: &Memtable) {
        if self.is_writing() {
            return;
        }
        if !memtable.is_in_pass() {
            self.served.drain(..).for_each(found);
        }
        if memtable.is_empty() {
            self.wrote_at = Instant::now();
            self.readers.drain(..).for_each(found);
        }
    }

    /// The disk has no space: nobody finds what was changed before they asked.
    pub fn fail_readers(&mut self, cause: &str) {
        for reader in self.readers.drain(..).chain(self.served.drain(..)) {
            let _ = reader.send(Err(LedgerError::Unavailable(cause.to_owned()))); // it may have given up
        }
    }

    /// Begins to write as many rows as it is time for, unless others are being written.
    pub fn begin(
        &mut self,
        state: &mut State,
        database: &mut Database,
        marks: LogMarks,
        rows: Rows,
        now: Instant,
    ) -> rusqlite::Result<()> {
        if self.is_writing() || state.members.memtable.is_empty() {
            return Ok(());
        }
        let share = self.share(&mut state.members.memtable, marks.read, rows, now);
        if share == 0 {
            return Ok(());
        }
        let taken = state.take_some(share);
        let merged = complete_through(&state.members.memtable, marks, marks.read);
        let is_news = merged > marks.merged;
        if taken.is_empty() && !is_news {
            return Ok(()); // all of them are left to the next flush
        }
        state.mark_ahead();
        let audiences = state.take_unsaved();
        let marks = audiences.iter().map(AudienceRow::mark).collect();
        let arrival = state.latest().0;
        database.write_beside(move |db| {
            flush::write(&taken, db)?;
            audiences.iter().try_for_each(|row| row.write(db))?;
            meta::keep_arrival(db, arrival)?;
            if is_news { meta::keep_merged(db, merged) } else { Ok(()) }
        })?;
        self.beside = Some(Flushed { merged, marks });
        Ok(())
    }

    /// As many as it is time for; the journal is read up to block `read`.
    fn share(&mut self, memtable: &mut Memtable, read: u64, rows: Rows, now: Instant) -> usize {
        let is_soon = rows == Rows::Soon;
        let is_read = !self.readers.is_empty() && now - self.wrote_at >= WRITE_TO_READ;
        if !memtable.is_in_pass() && (is_soon || is_read || memtable.is_due()) {
            self.served.append(&mut self.readers);
            memtable.begin_pass(read, !is_soon && self.served.is_empty());
            self.wrote_at = now;
        }
        let hurries = is_soon || !self.served.is_empty() || !self.readers.is_empty();
        // Without room for what they report there is nothing to be quick for (P6).
        let is_called = now - self.called_at < ARE_CALLING && !memtable.is_full();
        let part = if is_called { AMONG_CALLS } else { 1 };
        memtable.share((self.most_written / part).max(1), hurries)
    }

    /// Takes note that what was being written beside has ended; what is so if it was committed.
    pub fn ended(&mut self) -> Option<Flushed> {
        self.beside.take()
    }
}

/// What the blocks of the journal up to this one have changed is in the tables, if they are read
/// up to `read`.
pub(crate) fn complete_through(memtable: &Memtable, marks: LogMarks, read: u64) -> u64 {
    if memtable.is_empty() { read } else { memtable.complete_through().max(marks.merged) }
}

fn found(reader: Reply<()>) {
    let _ = reader.send(Ok(())); // whoever asked may have given up
}

#[cfg(test)]
impl Flusher {
    /// As if rows were written that say nothing new, up to the block that is merged.
    pub fn write_nothing(&mut self, merged: u64) {
        self.beside = Some(Flushed { merged, marks: Marks::new() });
    }
}
