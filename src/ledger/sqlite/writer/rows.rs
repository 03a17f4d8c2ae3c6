//! Writing rows later: when, how many of them at once, and beside what else is done.
//!
//! What is written later is written by transactions of its own, on a thread beside the writer, which goes
//! on meanwhile with what changes nothing but memory. It waits for that thread when it must look into
//! the database: for a member whose row alone says what it is, or to mark who is claimed.

use std::time::Duration;

use tokio::time::Instant;

use super::super::audience::AudienceRow;
use super::super::command::Reply;
#[cfg(test)]
use super::super::group::Group;
use super::super::meta;
use super::super::state::Marks;
use super::Writer;

/// Until so long after a courier has asked for something, so small a part of [`Pace::most_written`] is
/// written at once: it may have to wait for that.
///
/// [`Pace::most_written`]: super::super::Pace
const ARE_CALLING: Duration = Duration::from_millis(20);
const AMONG_CALLS: usize = 4;
/// Rows that are to be written later are written when nothing was asked for so long …
pub(super) const WRITE_AFTER: Duration = Duration::from_millis(100);
/// … and for those who read them, but not more often than that: whoever looks all the time would undo
/// what it spares.
pub(super) const WRITE_TO_READ: Duration = Duration::from_millis(400);

/// Which of the rows that wait are written with a group.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// As many as it takes for there to be room.
    Due,
    /// More of them, until all are: there is nothing else to do.
    Soon,
    /// All of them.
    All,
}

/// What is so once a transaction beside the writer is committed.
#[derive(Debug)]
pub(super) struct Beside {
    /// The last block of the journal that is in the tables.
    merged: u64,
    marks: Marks,
}

impl Writer {
    /// Whether the rows of some members do not say yet what they are.
    pub(super) fn has_unwritten(&self) -> bool {
        !self.state.unwritten.is_empty() || self.beside.is_some()
    }

    /// What the blocks of the journal up to this one have changed is in the tables, if they are read
    /// up to `read`.
    pub(super) fn complete_through(&self, read: u64) -> u64 {
        let unwritten = &self.state.unwritten;
        if unwritten.is_empty() { read } else { unwritten.complete_through().max(self.merged) }
    }

    /// The blocks of the journal up to this one are in the tables, and that is synced.
    pub(super) fn is_merged(&mut self, through: u64) {
        if self.merged < through {
            self.merged = through;
            self.read_bytes -= self.shared.journal.merged(through);
        }
    }

    /// Whoever reads rows finds all that was changed before they asked.
    pub(super) fn answer_readers(&mut self) {
        if self.beside.is_some() {
            return;
        }
        if !self.state.unwritten.is_in_pass() {
            self.served.drain(..).for_each(found);
        }
        if self.state.unwritten.is_empty() {
            self.wrote_at = Instant::now();
            self.readers.drain(..).for_each(found);
        }
    }

    /// Begins to write as many rows as it is time for, unless others are being written.
    pub(super) fn write_beside(&mut self, rows: Rows, now: Instant) {
        if self.beside.is_some() || self.is_full || self.state.unwritten.is_empty() {
            return;
        }
        let share = self.share(rows, now);
        if share == 0 {
            return;
        }
        let taken = self.state.take_some(share);
        let merged = self.complete_through(self.read);
        let is_news = merged > self.merged;
        if taken.is_empty() && !is_news {
            return; // all of them are left to the next pass
        }
        self.state.mark_ahead();
        let audiences = self.state.take_unsaved();
        let marks = audiences.iter().map(AudienceRow::mark).collect();
        let arrival = self.state.latest().0;
        self.database.write_beside(move |db| {
            taken.write(db)?;
            audiences.iter().try_for_each(|row| row.write(db))?;
            meta::keep_arrival(db, arrival)?;
            if is_news { meta::keep_merged(db, merged) } else { Ok(()) }
        });
        self.beside = Some(Beside { merged, marks });
    }

    /// As many as it is time for.
    fn share(&mut self, rows: Rows, now: Instant) -> usize {
        let is_soon = rows == Rows::Soon;
        let unwritten = &mut self.state.unwritten;
        let is_read = !self.readers.is_empty() && now - self.wrote_at >= WRITE_TO_READ;
        if !unwritten.is_in_pass() && (is_soon || is_read || unwritten.is_due()) {
            self.served.append(&mut self.readers);
            unwritten.begin_pass(self.read, !is_soon && self.served.is_empty());
            self.wrote_at = now;
        }
        let hurries = is_soon || !self.served.is_empty() || !self.readers.is_empty();
        // Without room for what they report there is nothing to be quick for (P6).
        let is_called = now - self.called_at < ARE_CALLING && !unwritten.is_full();
        let part = if is_called { AMONG_CALLS } else { 1 };
        let most = (self.shared.pace.most_written / part).max(1);
        unwritten.share(most, hurries)
    }

    /// Takes note of what became of the rows that were written beside, as soon as that is known.
    ///
    /// An error is how it failed: they are as they were.
    pub(super) fn end_beside(&mut self) -> rusqlite::Result<()> {
        let Some(outcome) = self.database.outcome() else { return Ok(()) };
        let beside = self.beside.take();
        self.shared.counters.sync.took(outcome?);
        if let Some(Beside { merged, marks }) = beside {
            self.is_merged(merged);
            self.state.marked(marks);
        }
        Ok(())
    }
}

#[cfg(test)]
impl Writer {
    /// One turn: what is asked is done, and what waits in the journal is merged.
    pub(in super::super) fn turn(&mut self) {
        let mut group = Group::default();
        self.commands.try_iter().for_each(|command| group.push(command));
        self.read_journal(&mut group).expect("it can be read");
        self.commit(group, Rows::Due).expect("it can be written");
    }

    /// Does this beside what comes next, as if rows were written.
    pub(in super::super) fn do_beside(
        &mut self,
        work: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<()> + Send + 'static,
    ) {
        self.database.write_beside(work);
        self.beside = Some(Beside { merged: self.merged, marks: Marks::new() });
    }

    pub(in super::super) fn wait(&self) {
        self.database.wait();
    }
}

fn found(reader: Reply<()>) {
    let _ = reader.send(Ok(())); // whoever asked may have given up
}
