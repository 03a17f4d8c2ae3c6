//! The writer: the thread that owns the connection. It takes whatever is queued and whatever waits in the
//! log, and applies it as one group. The group is committed, unless it has changed only memory while the
//! flush thread holds the connection.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::Instant;

use crate::ledger::LedgerError;
use crate::ledger::embedded::commit::append::Appender;
use crate::ledger::embedded::commit::checkpoint::Checkpointer;
use crate::ledger::embedded::commit::command::Command;
use crate::ledger::embedded::commit::emptying::{empty_log, empty_sqlite_log, is_needed};
use crate::ledger::embedded::commit::flushing::{Flushed, Flusher, Rows, complete_through};
use crate::ledger::embedded::commit::group::Group;
use crate::ledger::embedded::commit::reading::{LogReader, POLL_FLUSH};
use crate::ledger::embedded::commit::space::Space;
use crate::ledger::embedded::directory::reserve::is_full;
use crate::ledger::embedded::engine::shared::Shared;
use crate::ledger::embedded::engine::state::State;
use crate::ledger::embedded::engine::upkeep;
use crate::ledger::embedded::failure::failed;
use crate::ledger::embedded::opening::lock::Lock;
use crate::ledger::embedded::opening::open::Found;
use crate::ledger::embedded::settings::Settings;
use crate::ledger::embedded::tables::checksum::is_damage;
use crate::ledger::embedded::tables::database::Database;
use crate::ledger::embedded::tables::meta;
use crate::ledger::embedded::tables::open_error::OpenError;
use crate::ledger::embedded::threads;
use crate::ledger::embedded::wal::FILES;
use crate::ledger::error::WriterFailure;
use crate::membership::Timestamp;

/// Interval at which a disk without space is checked again: readiness must recover without anybody sending an
/// event to probe it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What the log line says when a row or block is not what was written.
const DAMAGED: &str = "reading: it is damaged, restore a backup";

/// What happens to the logs when the writer ends.
#[derive(Clone, Copy)]
pub(crate) enum Logs {
    /// They are left to the next start: no caller waits for a clean end.
    Left,
    /// They are emptied into the tables, until the deadline `by`.
    Emptied { by: Option<Instant> },
}

/// Owns the database until it is closed. Blocking: [`Writer::run`] needs a thread of its own.
#[derive(Debug)]
pub struct Writer {
    database: Database,
    commands: Receiver<Command>,
    /// Taken when its thread is started.
    appender: Option<Appender>,
    log: LogReader,
    flusher: Flusher,
    state: State,
    shared: Arc<Shared>,
    checkpointer: Checkpointer,
    space: Space,
    directory: PathBuf,
    /// Erasing was already put off once, to let dirty members be flushed first.
    has_put_off_erasing: bool,
    /// Only merge the log: upkeep is left to a daemon, which knows the configured timings and retention.
    only_merges: bool,
    /// Declared last, so that the lock is released after the database is closed.
    lock: Lock,
}

impl Writer {
    pub(crate) fn new(
        settings: Settings,
        lock: Lock,
        mut database: Connection,
        commands: Receiver<Command>,
        appender: Appender,
        found: &Found,
        shared: Arc<Shared>,
    ) -> Result<Self, OpenError> {
        let merged = meta::merged(&database)?;
        let log = LogReader::new(&settings.path, found, merged, Arc::clone(&shared));
        let flusher = Flusher::new(shared.pace.most_written);
        let also = found.contents.iter().flat_map(|(_, outlines)| outlines);
        let also = also.map(|outline| outline.destination.clone()).collect();
        let checkpointer = Checkpointer::watch(&mut database, &settings.path)?;
        let directory = settings.path.clone();
        let reserve_bytes = settings.disk_reserve_bytes;
        let space = Space::new(directory.clone(), reserve_bytes, Arc::clone(&shared));
        let mut state = State::open(&database, settings, &also, Arc::clone(&shared))?;
        state.promise_kinds(found);
        if is_needed(&directory) {
            state.erasure.note(); // left by a kill, or a stop short of time
        }
        Ok(Self {
            database: Database::new(database),
            commands,
            appender: Some(appender),
            log,
            flusher,
            state,
            shared,
            checkpointer,
            space,
            directory,
            has_put_off_erasing: false,
            only_merges: false,
            lock,
        })
    }

    /// Commits groups until the ledger is closed or every handle is dropped.
    ///
    /// An error means that a write failed for a reason other than a full disk.
    pub fn run(mut self) -> Result<(), WriterFailure> {
        self.start_appender()?;
        let shared = Arc::clone(&self.shared);
        let ended = threads::caught("writer", || self.write_until_closed());
        let ended = ended.unwrap_or_else(|panicked| Err(panicked.into()));
        shared.has_failed.fetch_or(ended.is_err(), Ordering::Relaxed);
        shared.log.close();
        ended
    }

    /// Starts the append thread.
    pub(crate) fn start_appender(&mut self) -> Result<(), WriterFailure> {
        if let Some(appender) = self.appender.take() {
            appender.start().map_err(failed("starting"))?;
        }
        Ok(())
    }

    fn write_until_closed(mut self) -> Result<(), WriterFailure> {
        // Before the first request, so that readiness is right before one is refused.
        self.space.look(0);
        loop {
            let mut group = Group::default();
            let had_no_space = self.space.is_wanting();
            let now = Instant::now();
            let mut idle_for = self.state.idle_for(now);
            if let Some(due) = self.state.erasure.due() {
                idle_for = idle_for.min(due.saturating_duration_since(now));
            }
            if had_no_space {
                let is_writing = self.flusher.is_writing();
                let look_again = if is_writing { POLL_FLUSH } else { LOOK_AGAIN };
                idle_for = idle_for.min(look_again);
            } else if let Some(merge_in) = self.log.merge_in(&self.state, &self.flusher) {
                idle_for = idle_for.min(merge_in);
            }
            if self.checkpointer.is_copying() {
                idle_for = idle_for.min(LOOK_AGAIN); // the copy may fail
            }
            let mut is_quiet = false;
            match self.commands.recv_timeout(idle_for) {
                Ok(command) => group.push(command),
                Err(RecvTimeoutError::Timeout) => is_quiet = !self.database.is_lent(),
                Err(RecvTimeoutError::Disconnected) => return self.shut(Logs::Left),
            }
            while !group.is_full() {
                let Ok(command) = self.commands.try_recv() else { break };
                group.push(command);
            }
            if let Some(source) = group.damage.take() {
                group.fail(|| LedgerError::Closed);
                return Err(failed(DAMAGED)(source));
            }
            if let Some(failure) = group.failed.take() {
                group.fail(|| LedgerError::Closed);
                return Err(failure);
            }
            if let Some(cause) = group.full.take() {
                self.space.has_filled_up(&cause);
            }
            let closed = group.close.take();
            if closed.is_some() {
                self.log.merge_now();
            }
            self.log.read_into(&mut group, &mut self.state, &self.flusher)?;
            if had_no_space || group.has_intakes() {
                self.space.look(self.checkpointer.to_copy_bytes());
                if self.space.is_reserve_reached() {
                    group.refuse_intakes();
                }
            }
            let rows = match closed {
                Some(_) => Rows::All,
                None if is_quiet && self.log.marks.read == self.shared.log.last() => Rows::Soon,
                None => Rows::Due,
            };
            self.commit(group, rows)?;
            if closed.is_some() {
                self.log.fail_waiting();
            }
            self.checkpointer
                .after_commit(&self.database, self.space.spare_bytes())
                .map_err(failed("checkpointing"))?;
            self.erase_what_is_due()?;
            if let Some((by, closed)) = closed {
                self.merge_rest(by)?;
                self.shut(Logs::Emptied { by })?;
                let _ = closed.send(()); // the caller may have given up waiting
                return Ok(());
            }
        }
    }

    /// Applies and commits a group, and begins to flush `rows`.
    fn commit(&mut self, mut group: Group, rows: Rows) -> Result<(), WriterFailure> {
        let had_dirty_members = self.has_dirty_members();
        let now = Instant::now();
        match self.transact(&mut group, rows, now) {
            Ok(has_written) => {
                // A group that wrote nothing proves nothing about the disk space.
                if has_written {
                    self.space.has_written();
                }
                self.state.count(group.rows(), &group.tallies);
                if let Some(block) = group.merges {
                    self.log.has_read(block);
                }
                if !group.is_empty() {
                    self.flusher.put_off();
                }
                self.flusher.add_readers(group.readers());
                if !self.database.is_lent() {
                    self.log.is_merged(self.complete_through(self.log.marks.read));
                }
                group.committed(&mut self.state);
                self.shared.has_dirty_members.store(self.has_dirty_members(), Ordering::SeqCst);
                self.state.publish();
                self.space.show();
                group.answer();
                self.flusher.answer_readers(&self.state.members.memtable);
                self.flush(rows, now)
            }
            Err(error) => {
                self.database.roll_back();
                // Of two failures, report the one that is not merely a full disk.
                let error = match self.end_flush() {
                    Err(flush_error) if !is_full(&flush_error, &self.directory) => flush_error,
                    _ => error,
                };
                if !is_full(&error, &self.directory) {
                    group.fail(|| LedgerError::Closed);
                    let doing = if is_damage(&error) { DAMAGED } else { "writing" };
                    return Err(failed(doing)(error));
                }
                self.space.has_filled_up(&error.to_string());
                self.checkpointer.cut_log();
                self.flusher.fail_readers(&error.to_string());
                group.rolled_back(&mut self.state);
                self.log.start_over(group.merges);
                let db = self.database.connection().map_err(failed("reading"))?;
                self.state.reload(db, had_dirty_members).map_err(failed("reading"))?;
                self.shared.has_dirty_members.store(false, Ordering::SeqCst);
                self.state.publish();
                self.space.show();
                group.fail(|| LedgerError::Unavailable(error.to_string()));
                Ok(())
            }
        }
    }

    /// `true`: something was written to the database.
    fn transact(&mut self, group: &mut Group, rows: Rows, now: Instant) -> rusqlite::Result<bool> {
        let began = self.state.stamp();
        self.state.stamps.note(began, now);
        if group.serves_couriers() {
            self.flusher.called(now);
        }
        self.database.begin()?;
        self.end_flush()?;
        let is_upkeep_due = !self.only_merges && self.state.idle_for(now).is_zero();
        let writes_all =
            rows == Rows::All || is_upkeep_due || self.space.is_full || group.needs_rows();
        let is_much = group.merges.is_some() || group.reported() >= self.shared.pace.reported_from;
        let is_buffering = !writes_all && (is_much || self.has_dirty_members());
        self.state.members.buffer(is_buffering);
        let Self { database: db, state, .. } = self;
        if writes_all {
            state.write_members(db)?;
        }
        if !group.is_empty() {
            group.apply(state, db)?;
        }
        if is_upkeep_due {
            upkeep::step(state, db, now)?;
        }
        if db.is_lent() && !writes_all && !state.must_commit {
            db.give_up(); // everything is in memory
            return Ok(false);
        }
        db.wait()?;
        self.end_flush()?;
        let Self { database: db, state, .. } = self;
        let marks = state.save(db.connection()?)?;
        // On a full disk something is always written: only a successful write shows that there is space
        // again.
        let has_written = self.space.is_full || db.has_changed();
        if has_written {
            meta::keep_arrival(db.connection()?, state.latest().0)?;
        }
        let merged = self.complete_through(group.merges.unwrap_or(self.log.marks.read));
        if merged > self.log.marks.merged {
            meta::keep_merged(self.database.connection()?, merged)?;
        }
        let began = Instant::now();
        self.database.commit()?;
        if has_written {
            self.shared.sync.took(began.elapsed());
        }
        self.state.marked(marks);
        self.state.must_commit = false;
        Ok(has_written)
    }

    /// Whether the rows of some members are not up to date.
    fn has_dirty_members(&self) -> bool {
        self.flusher.has_dirty_members(&self.state.members.memtable)
    }

    /// See [`complete_through`].
    fn complete_through(&self, read: u64) -> u64 {
        complete_through(&self.state.members.memtable, self.log.marks, read)
    }

    /// Begins to flush dirty members on the flush thread, as many as are due.
    fn flush(&mut self, rows: Rows, now: Instant) -> Result<(), WriterFailure> {
        if self.space.is_full {
            return Ok(());
        }
        let Self { state, database, flusher, log, .. } = self;
        flusher.begin(state, database, log.marks, rows, now).map_err(failed("writing"))
    }

    /// Takes the outcome of the flush transaction, once it is known.
    ///
    /// Errors: the flush failed and was rolled back; memory is unchanged.
    fn end_flush(&mut self) -> rusqlite::Result<()> {
        let Some(outcome) = self.database.outcome() else { return Ok(()) };
        let flushed = self.flusher.ended();
        self.shared.sync.took(outcome?);
        if let Some(Flushed { merged, marks }) = flushed {
            self.log.is_merged(merged);
            self.state.marked(marks);
        }
        Ok(())
    }

    /// Merges the log and closes the ledger.
    pub(crate) fn merge_all(mut self) -> Result<(), WriterFailure> {
        self.merge_rest(None)?;
        if self.space.is_full {
            let full = LedgerError::Unavailable("its disk has no space".to_owned());
            return Err(WriterFailure::new("merging its journal", full));
        }
        self.shut(Logs::Emptied { by: None })
    }

    /// Merges the rest of the log, until the deadline `by` or until the disk is full.
    pub(crate) fn merge_rest(&mut self, by: Option<Instant>) -> Result<(), WriterFailure> {
        self.only_merges = true;
        let last = self.shared.log.last();
        while self.log.marks.merged < last
            && !self.space.is_full
            && by.is_none_or(|by| Instant::now() < by)
        {
            let mut group = Group::default();
            self.log.merge_now();
            self.log.read_into(&mut group, &mut self.state, &self.flusher)?;
            let is_last = group.merges.unwrap_or(self.log.marks.read) == last;
            self.commit(group, if is_last { Rows::All } else { Rows::Due })?;
            self.database.wait().map_err(failed("writing"))?; // there is nothing else to do meanwhile
        }
        Ok(())
    }

    /// Empties the logs once a deletion is long enough ago.
    fn erase_what_is_due(&mut self) -> Result<(), WriterFailure> {
        let has_dirty_members = self.has_dirty_members();
        let State { erasure, rejected, .. } = &mut self.state;
        if rejected.take_erased() {
            erasure.note();
        }
        if erasure.due().is_none_or(|due| due > Instant::now()) {
            return Ok(());
        }
        if erasure.left().is_none() && has_dirty_members && !self.has_put_off_erasing {
            // The deleted members may still be dirty; a flush takes a second or two.
            self.has_put_off_erasing = true;
            erasure.again();
            return Ok(());
        }
        self.has_put_off_erasing = false;
        if erasure.begin() {
            self.checkpointer.copy_soon(); // so that little is left to copy here
            return Ok(());
        }
        let Some(mut left) = erasure.left() else { return Ok(()) };
        left.files = empty_log(&self.shared.log, &self.directory, left.files);
        if left.log {
            let emptied = self.checkpointer.empty(&self.database);
            left.log = !emptied.map_err(failed("emptying SQLite's log"))?;
        }
        self.state.erasure.attempted(left);
        Ok(())
    }

    /// Closes the database. Audiences with nothing in flight lose their claim mark: none of their members can
    /// be in a call.
    pub(crate) fn shut(mut self, logs: Logs) -> Result<(), WriterFailure> {
        self.database.wait().map_err(failed("closing"))?;
        match self.end_flush() {
            Err(error) if !is_full(&error, &self.directory) => {
                return Err(failed("writing")(error));
            }
            _ => {} // what there was no space for is still in the log
        }
        let db = self.database.connection().map_err(failed("closing"))?;
        let audiences = &mut self.state.audiences;
        let all_written = self.state.members.memtable.is_empty();
        for index in audiences.indices().filter(|_| all_written) {
            if audiences[index].in_flight.is_empty() {
                audiences[index].marks.claimed_through = Timestamp::EPOCH;
                match audiences.save(db, index, true) {
                    // Without this, the next start tells some members once more, which is harmless.
                    Err(error) if is_full(&error, &self.directory) => break,
                    saved => saved.map_err(failed("closing"))?,
                }
            }
        }
        self.checkpointer.stop();
        if let Logs::Emptied { by } = logs {
            empty_sqlite_log(db, &self.directory, by).map_err(failed("emptying SQLite's log"))?;
            empty_log(&self.shared.log, &self.directory, [true; FILES.len()]);
        }
        self.database.close().map_err(failed("closing"))?;
        drop(self.lock);
        Ok(())
    }
}

#[cfg(test)]
impl Writer {
    /// One iteration: applies the queued commands, and merges what waits in the log.
    pub(crate) fn turn(&mut self) {
        let mut group = Group::default();
        self.commands.try_iter().for_each(|command| group.push(command));
        self.log.read_into(&mut group, &mut self.state, &self.flusher).expect("it can be read");
        self.commit(group, Rows::Due).expect("it can be written");
    }

    /// Runs `work` on the flush thread, as if dirty members were being flushed.
    pub(crate) fn run_on_flush_thread(
        &mut self,
        work: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<()> + Send + 'static,
    ) {
        self.database.lend(work).expect("it comes back");
        self.flusher.write_nothing(self.log.marks.merged);
    }

    pub(crate) fn wait(&self) {
        self.database.wait().expect("it comes back");
    }
}
