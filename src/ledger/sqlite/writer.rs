//! The writer: one thread that owns the database, takes whatever is queued and whatever waits in the
//! journal, and applies it as one group. It commits that, unless nothing but memory has changed while
//! rows are written beside it (`rows`).

mod emptying;
mod reading;
mod rows;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::Instant;

use super::checkpoint::Checkpointer;
use super::checksum::is_damage;
use super::command::{Command, Reply};
use super::database::Database;
use super::erasure;
use super::front::Front;
use super::group::{Group, Held};
use super::journal::{Files, Found, RecordBefore};
use super::reserve::{Reserve, is_full};
use super::schema::{self, OpenError};
use super::state::State;
use super::threads;
use super::upkeep::Upkeep;
use super::{Settings, Shared, meta};
use crate::ledger::LedgerError;

use emptying::Logs;
use reading::LOOK_BESIDE;
use rows::{Beside, Rows, WRITE_AFTER};

/// While the disk has no space, it is looked at so often: whoever asks whether to send events here
/// must not have to send some to find out.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What is read is not what was written.
const DAMAGED: &str = "reading: it is damaged, restore a backup";

/// What has come within so long shares a transaction if it is little: single events that come one after
/// the other would each write their pages again.
const MERGE_EVERY: Duration = Duration::from_millis(20);

/// Why the writer ended by itself. The daemon must end too: what the disk holds is unknown now.
#[derive(Debug, thiserror::Error)]
#[error("the ledger failed while {doing}")]
pub struct WriterFailure {
    doing: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl WriterFailure {
    /// Whether it is that the disk has no space.
    pub(super) fn is_want_of_space(&self) -> bool {
        matches!(self.source.downcast_ref(), Some(LedgerError::Unavailable(_)))
    }

    pub(super) fn new(
        doing: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { doing, source: source.into() }
    }
}

/// Owns the database until it is closed. Blocking: give [`Writer::run`] a thread of its own.
#[derive(Debug)]
pub struct Writer {
    database: Database,
    commands: Receiver<Command>,
    /// Until it is given a thread of its own.
    front: Option<Front>,
    /// To read back what is in the journal.
    journal: Files,
    record_before: RecordBefore,
    /// The last block that was read: the members that it has changed may be written later.
    read: u64,
    /// The last block that is in the tables.
    merged: u64,
    /// Bytes of the blocks between these.
    read_bytes: u64,
    /// Until this block is read nothing is claimed: what it says may have been told already, and
    /// whoever was told something newer must not be told what is older ([P3](crate::design::P3)).
    told_through: u64,
    /// When what little is in the journal is merged.
    merge_at: Instant,
    /// What is being written beside.
    beside: Option<Beside>,
    /// Who waits until all rows are written, by the next pass and by this one, and when that was so last.
    readers: Vec<Reply<()>>,
    served: Vec<Reply<()>>,
    wrote_at: Instant,
    /// When a courier has asked for something last.
    called_at: Instant,
    /// When what was left to be written later is written, if nothing is asked until then.
    write_at: Instant,
    /// What waits until the block with this number is merged.
    held: VecDeque<(u64, Held)>,
    state: State,
    shared: Arc<Shared>,
    checkpointer: Checkpointer,
    reserve: Reserve,
    directory: PathBuf,
    /// Said once, and once more when it is over: a full disk would be filled with complaints.
    is_full: bool,
    /// Erasing was put off once, for what was to be written first.
    has_put_off_erasing: bool,
    /// What is due is left to a daemon: it knows how long calls take and what is kept.
    only_merges: bool,
    /// Freed last, after the database is closed.
    lock: schema::Lock,
}

impl Writer {
    pub(super) fn new(
        settings: Settings,
        lock: schema::Lock,
        mut database: Connection,
        commands: Receiver<Command>,
        front: Front,
        found: &Found,
        shared: Arc<Shared>,
    ) -> Result<Self, OpenError> {
        let journal = Files::new(&settings.path, found);
        let merged = meta::merged(&database)?;
        let also = found.outlines.iter().map(|(_, outline)| outline.destination.clone()).collect();
        let checkpointer = Checkpointer::watch(&mut database, &settings.path)?;
        let directory = settings.path.clone();
        let reserve = Reserve::new(directory.clone(), settings.disk_reserve_bytes);
        let mut state = State::open(&database, settings, &also, Arc::clone(&shared))?;
        state.promise_kinds(found);
        if erasure::is_needed(&directory) {
            state.erasure.note(); // what a stop or a kill has left
        }
        Ok(Self {
            database: Database::new(database),
            commands,
            front: Some(front),
            journal,
            record_before: RecordBefore::default(),
            read: merged,
            merged,
            read_bytes: 0,
            told_through: found.last,
            merge_at: Instant::now(),
            beside: None,
            readers: Vec::new(),
            served: Vec::new(),
            wrote_at: Instant::now(),
            called_at: Instant::now(),
            write_at: Instant::now(),
            held: VecDeque::new(),
            state,
            shared,
            checkpointer,
            reserve,
            directory,
            is_full: false,
            has_put_off_erasing: false,
            only_merges: false,
            lock,
        })
    }

    /// Commits groups until the ledger is closed or every handle is gone.
    ///
    /// An error means that a write failed for another reason than a full disk.
    pub fn run(mut self) -> Result<(), WriterFailure> {
        self.start_front()?;
        let shared = Arc::clone(&self.shared);
        let ended = threads::caught("writer", || self.write_until_closed());
        let ended = ended.unwrap_or_else(|panicked| Err(panicked.into()));
        shared.has_failed.fetch_or(ended.is_err(), Ordering::Relaxed);
        shared.journal.close();
        ended
    }

    /// Gives those who append a thread of their own.
    pub(super) fn start_front(&mut self) -> Result<(), WriterFailure> {
        if let Some(front) = self.front.take() {
            front.start().map_err(failed("starting"))?;
        }
        Ok(())
    }

    fn write_until_closed(mut self) -> Result<(), WriterFailure> {
        // Whoever asks whether to send events here is told before the first ones are refused.
        if let Some(change) = self.reserve.look(0) {
            self.show_space();
            change.say();
        }
        loop {
            let mut group = Group::default();
            let had_no_space = self.has_no_space();
            let now = Instant::now();
            let mut idle_for = self.state.upkeep.idle_for(now);
            if let Some(due) = self.state.erasure.due() {
                idle_for = idle_for.min(due.saturating_duration_since(now));
            }
            if had_no_space {
                let look_again = if self.beside.is_some() { LOOK_BESIDE } else { LOOK_AGAIN };
                idle_for = idle_for.min(look_again);
            } else if let Some(merge_in) = self.merge_in() {
                idle_for = idle_for.min(merge_in);
            }
            if self.checkpointer.is_copying() {
                idle_for = idle_for.min(LOOK_AGAIN); // it may fail
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
                self.has_filled_up(&cause);
            }
            let closed = group.close.take();
            if closed.is_some() {
                self.merge_at = Instant::now();
            }
            self.read_journal(&mut group)?;
            if had_no_space || group.has_intakes() {
                if let Some(change) = self.reserve.look(self.checkpointer.to_copy_bytes()) {
                    self.show_space();
                    change.say();
                }
                if self.reserve.was_reached() {
                    group.refuse_intakes();
                }
            }
            let rows = match closed {
                Some(_) => Rows::All,
                None if is_quiet && self.read == self.shared.journal.last() => Rows::Soon,
                None => Rows::Due,
            };
            self.commit(group, rows)?;
            if closed.is_some() {
                self.held.drain(..).for_each(|(_, held)| held.fail());
            }
            self.checkpointer
                .after_commit(&self.database, self.reserve.spare_bytes())
                .map_err(failed("checkpointing"))?;
            self.erase_what_is_due()?;
            if let Some((by, closed)) = closed {
                self.merge_rest(by)?;
                self.shut(Logs::Emptied { by })?;
                let _ = closed.send(()); // whoever asked may have given up waiting
                return Ok(());
            }
        }
    }

    fn has_filled_up(&mut self, cause: &str) {
        if !std::mem::replace(&mut self.is_full, true) {
            self.show_space();
            tracing::error!(
                error = cause,
                "no space for the ledger: nothing is accepted until there is"
            );
        }
    }

    fn has_no_space(&self) -> bool {
        self.is_full || self.reserve.was_reached()
    }

    /// To be called before anybody is answered, so that nobody sees the one without the other.
    fn show_space(&self) {
        self.shared.has_no_space.store(self.has_no_space(), Ordering::Relaxed);
    }

    /// Commits a group, and `rows` that wait to be written.
    fn commit(&mut self, mut group: Group, rows: Rows) -> Result<(), WriterFailure> {
        let had_unwritten = !self.state.unwritten.is_empty() || self.beside.is_some();
        let now = Instant::now();
        match self.transact(&mut group, rows, now) {
            Ok(has_written) => {
                // A group that had nothing to write shows nothing about the space there is.
                if has_written && std::mem::take(&mut self.is_full) {
                    self.show_space();
                    tracing::info!("there is space for the ledger again");
                }
                self.state.count(&group);
                if let Some(block) = group.merges {
                    self.read = block;
                    self.shared.journal.has_read(block);
                    self.merge_at = Instant::now() + MERGE_EVERY;
                }
                if !group.is_empty() {
                    self.write_at = Instant::now() + WRITE_AFTER;
                }
                self.readers.extend(group.readers());
                if !self.database.is_lent() {
                    self.is_merged(self.complete_through(self.read));
                }
                group.committed(&mut self.state);
                self.shared.is_unwritten.store(self.has_unwritten(), Ordering::SeqCst);
                self.state.publish();
                self.show_space();
                group.answer();
                self.answer_readers();
                self.write_beside(rows, now);
                Ok(())
            }
            Err(error) => {
                self.database.roll_back();
                // Of two failures the worse one counts.
                let error = match self.end_beside() {
                    Err(beside) if !is_full(&beside, &self.directory) => beside,
                    _ => error,
                };
                if !is_full(&error, &self.directory) {
                    group.fail(|| LedgerError::Closed);
                    let doing = if is_damage(&error) { DAMAGED } else { "writing" };
                    return Err(failed(doing)(error));
                }
                self.has_filled_up(&error.to_string());
                self.checkpointer.cut_log();
                for reader in self.readers.drain(..).chain(self.served.drain(..)) {
                    let _ = reader.send(Err(LedgerError::Unavailable(error.to_string()))); // as above
                }
                group.rolled_back(&mut self.state);
                self.told_through = self.told_through.max(group.merges.unwrap_or(self.read));
                (self.read, self.read_bytes) = (self.merged, 0);
                self.shared.journal.has_read(self.read);
                self.state.reload(&self.database, had_unwritten).map_err(failed("reading"))?;
                self.shared.is_unwritten.store(false, Ordering::SeqCst);
                self.state.publish();
                self.show_space();
                group.fail(|| LedgerError::Unavailable(error.to_string()));
                Ok(())
            }
        }
    }

    /// `true`: something was written.
    fn transact(&mut self, group: &mut Group, rows: Rows, now: Instant) -> rusqlite::Result<bool> {
        let began = self.state.stamp();
        self.state.waits.note(began, now);
        if group.serves_couriers() {
            self.called_at = now;
        }
        self.database.begin()?;
        self.end_beside()?;
        let is_upkeep_due = !self.only_merges && self.state.upkeep.idle_for(now).is_zero();
        let writes_all = rows == Rows::All || is_upkeep_due || self.is_full || group.needs_rows();
        let is_much = group.merges.is_some() || group.reported() >= self.shared.pace.reported_from;
        self.state.unwritten.is_open = !writes_all && (is_much || self.has_unwritten());
        let Self { database: db, state, .. } = self;
        if writes_all {
            state.write_members(db)?;
        }
        if !group.is_empty() {
            group.apply(state, db)?;
        }
        if is_upkeep_due {
            Upkeep::step(state, db, now)?;
        }
        if db.is_lent() && !writes_all && !state.must_commit {
            db.give_up(); // all of it is in memory
            return Ok(false);
        }
        db.wait();
        self.end_beside()?;
        let Self { database: db, state, .. } = self;
        let marks = state.save(db)?;
        // On a full disk something is written in any case: it alone shows that there is space again.
        let has_written = self.is_full || db.has_changed();
        if has_written {
            meta::keep_arrival(db, state.latest().0)?;
        }
        let merged = self.complete_through(group.merges.unwrap_or(self.read));
        if merged > self.merged {
            meta::keep_merged(&self.database, merged)?;
        }
        let began = Instant::now();
        self.database.commit()?;
        if has_written {
            self.shared.counters.sync.took(began.elapsed());
        }
        self.state.marked(marks);
        self.state.must_commit = false;
        Ok(has_written)
    }
}

fn failed<E: std::error::Error + Send + Sync + 'static>(
    doing: &'static str,
) -> impl FnOnce(E) -> WriterFailure {
    move |source| WriterFailure::new(doing, source)
}
