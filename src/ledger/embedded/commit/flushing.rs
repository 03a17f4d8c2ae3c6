//! Flushing: when dirty members are written, how many at once, and what the writer does meanwhile.
//!
//! A flush writes transactions of its own on the flush thread, while the writer goes on with what changes
//! only memory. The writer waits for that thread when it needs the connection: to read a member that is not
//! dirty, or to persist a claim mark.

use std::time::Duration;

use tokio::time::Instant;

use crate::ledger::LedgerError;
use crate::ledger::embedded::commit::command::Reply;
use crate::ledger::embedded::engine::rows::SavedMarks;
use crate::ledger::embedded::engine::state::State;
use crate::ledger::embedded::members::flush;
use crate::ledger::embedded::memtable::Memtable;
use crate::ledger::embedded::tables::audiences::AudienceRow;
use crate::ledger::embedded::tables::database::Database;
use crate::ledger::embedded::tables::meta;
use crate::ledger::embedded::watermarks::LogMarks;

/// For this long after a command from a courier, only one part in [`AMONG_CALLS`] of [`Pace::most_written`]
/// is written at once: the next command may have to wait for it.
///
/// [`Pace::most_written`]: crate::ledger::embedded::engine::pace::Pace::most_written
const ARE_CALLING: Duration = Duration::from_millis(20);
const AMONG_CALLS: usize = 4;
/// A flush begins when no command has come for this long …
const WRITE_AFTER: Duration = Duration::from_millis(100);
/// … and when a reader waits for the rows, but at most once in this time: frequent readers would undo what
/// the memtable saves.
const WRITE_TO_READ: Duration = Duration::from_millis(400);

/// Which dirty members are flushed with a group.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    /// As many as it takes to keep room in the memtable.
    Due,
    /// More, until all are flushed: the writer has nothing else to do.
    Soon,
    /// All of them, before the group commits.
    All,
}

/// What holds once the transaction of a flush is committed.
#[derive(Debug)]
pub(crate) struct Flushed {
    /// The last block of the log that is in the tables.
    pub merged: u64,
    pub marks: SavedMarks,
}

/// The flush that is under way, and the readers that wait for it.
#[derive(Debug)]
pub(crate) struct Flusher {
    /// Most dirty members written in one transaction.
    most_written: usize,
    /// The transaction that the flush thread is writing.
    writing: Option<Flushed>,
    /// Readers that wait for the next flush (`readers`) and for the one under way (`served`), and when the
    /// memtable was last empty or a flush last began.
    readers: Vec<Reply<()>>,
    served: Vec<Reply<()>>,
    wrote_at: Instant,
    /// When a courier last sent a command.
    called_at: Instant,
    /// When the rest is flushed if no command comes before.
    write_at: Instant,
}

impl Flusher {
    /// `most_written`: most dirty members written in one transaction.
    pub fn new(most_written: usize) -> Self {
        let now = Instant::now();
        Self {
            most_written,
            writing: None,
            readers: Vec::new(),
            served: Vec::new(),
            wrote_at: now,
            called_at: now,
            write_at: now,
        }
    }

    /// Whether the flush thread is writing.
    pub fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Whether the rows of some members are not up to date.
    pub fn has_dirty_members(&self, memtable: &Memtable) -> bool {
        !memtable.is_empty() || self.is_writing()
    }

    /// Whether a reader waits for the flush that is under way.
    pub fn serves(&self) -> bool {
        !self.served.is_empty()
    }

    /// When to flush although there is room: for a reader, or because the writer is idle.
    pub fn next(&self) -> Instant {
        if self.readers.is_empty() {
            self.write_at
        } else {
            self.write_at.min(self.wrote_at + WRITE_TO_READ)
        }
    }

    /// A courier has sent a command.
    pub fn called(&mut self, now: Instant) {
        self.called_at = now;
    }

    /// A command has come: the idle flush is put off.
    pub fn put_off(&mut self) {
        self.write_at = Instant::now() + WRITE_AFTER;
    }

    /// Adds readers, to be answered once everything changed so far is in the tables.
    pub fn add_readers(&mut self, readers: Vec<Reply<()>>) {
        self.readers.extend(readers);
    }

    /// Answers the readers whose members are all flushed.
    pub fn answer_readers(&mut self, memtable: &Memtable) {
        if self.is_writing() {
            return;
        }
        if !memtable.is_flushing() {
            self.served.drain(..).for_each(found);
        }
        if memtable.is_empty() {
            self.wrote_at = Instant::now();
            self.readers.drain(..).for_each(found);
        }
    }

    /// The disk has no space: fails every reader that waits.
    pub fn fail_readers(&mut self, cause: &str) {
        for reader in self.readers.drain(..).chain(self.served.drain(..)) {
            let _ = reader.send(Err(LedgerError::Unavailable(cause.to_owned()))); // it may have given up
        }
    }

    /// Begins to flush as many members as are due, unless a flush transaction is under way.
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
        let taken = state.take_slice(share);
        let merged = complete_through(&state.members.memtable, marks, marks.read);
        let is_news = merged > marks.merged;
        if taken.is_empty() && !is_news {
            return Ok(()); // the flush leaves all of them to the next one
        }
        state.mark_ahead();
        let audiences = state.take_unsaved();
        let marks = audiences.iter().map(AudienceRow::mark).collect();
        let arrival = state.latest().0;
        database.lend(move |db| {
            flush::write(&taken, db)?;
            audiences.iter().try_for_each(|row| row.write(db))?;
            meta::keep_arrival(db, arrival)?;
            if is_news { meta::keep_merged(db, merged) } else { Ok(()) }
        })?;
        self.writing = Some(Flushed { merged, marks });
        Ok(())
    }

    /// How many members are due; the log is read up to block `read`.
    fn share(&mut self, memtable: &mut Memtable, read: u64, rows: Rows, now: Instant) -> usize {
        let is_soon = rows == Rows::Soon;
        let is_read = !self.readers.is_empty() && now - self.wrote_at >= WRITE_TO_READ;
        if !memtable.is_flushing() && (is_soon || is_read || memtable.is_due()) {
            self.served.append(&mut self.readers);
            memtable.begin_flush(read, !is_soon && self.served.is_empty());
            self.wrote_at = now;
        }
        let hurries = is_soon || !self.served.is_empty() || !self.readers.is_empty();
        // A full memtable leaves couriers no room for their reports, so there is no reason to hurry for them
        // (P6).
        let is_called = now - self.called_at < ARE_CALLING && !memtable.is_full();
        let part = if is_called { AMONG_CALLS } else { 1 };
        memtable.share((self.most_written / part).max(1), hurries)
    }

    /// The flush thread has finished: returns what holds now if it committed.
    pub fn ended(&mut self) -> Option<Flushed> {
        self.writing.take()
    }
}

/// The last block whose changes are all in the tables, given that the log is read up to block `read`.
pub(crate) fn complete_through(memtable: &Memtable, marks: LogMarks, read: u64) -> u64 {
    if memtable.is_empty() { read } else { memtable.complete_through().max(marks.merged) }
}

fn found(reader: Reply<()>) {
    let _ = reader.send(Ok(())); // the caller may have given up
}

#[cfg(test)]
impl Flusher {
    /// Pretends that a flush is under way that writes nothing new, up to the merged block.
    pub fn write_nothing(&mut self, merged: u64) {
        self.writing = Some(Flushed { merged, marks: SavedMarks::new() });
    }
}
