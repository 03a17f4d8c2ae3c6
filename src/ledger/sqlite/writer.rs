//! The writer: one thread that owns the database, takes whatever is queued, and commits it as one
//! group.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::Instant;

use super::checkpoint::Checkpointer;
use super::checksum::is_damage;
use super::command::Command;
use super::group::Group;
use super::reserve::{Reserve, is_full};
use super::schema::{self, OpenError};
use super::state::State;
use super::upkeep::Upkeep;
use super::{Settings, Shared, meta};
use crate::ledger::LedgerError;
use crate::membership::Timestamp;

/// While the disk has no space, it is looked at so often: whoever asks whether to send events here
/// must not have to send some to find out.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What is read is not what was written.
const DAMAGED: &str = "reading: it is damaged, restore a backup";

/// Why the writer ended by itself. The daemon must end too: what the disk holds is unknown now.
#[derive(Debug, thiserror::Error)]
#[error("the ledger failed while {doing}")]
pub struct WriterFailure {
    doing: &'static str,
    #[source]
    source: rusqlite::Error,
}

/// Owns the database until it is closed. Blocking: give [`Writer::run`] a thread of its own.
#[derive(Debug)]
pub struct Writer {
    database: Connection,
    commands: Receiver<Command>,
    state: State,
    shared: Arc<Shared>,
    checkpointer: Checkpointer,
    reserve: Reserve,
    /// Said once, and once more when it is over: a full disk would be filled with complaints.
    is_full: bool,
    /// Freed last, after the database is closed.
    lock: schema::Lock,
}

impl Writer {
    pub(super) fn new(
        settings: Settings,
        lock: schema::Lock,
        mut database: Connection,
        commands: Receiver<Command>,
        shared: Arc<Shared>,
    ) -> Result<Self, OpenError> {
        let checkpointer = Checkpointer::watch(&mut database, &settings.path)?;
        let reserve = Reserve::new(settings.path.clone(), settings.disk_reserve_bytes);
        let state = State::open(&database, settings, Arc::clone(&shared))?;
        Ok(Self { database, commands, state, shared, checkpointer, reserve, is_full: false, lock })
    }

    /// Commits groups until the ledger is closed or every handle is gone.
    ///
    /// An error means that a write failed for another reason than a full disk.
    pub fn run(mut self) -> Result<(), WriterFailure> {
        loop {
            let mut group = Group::default();
            let had_no_space = self.has_no_space();
            let idle_for = self.state.upkeep.idle_for(Instant::now());
            let idle_for = if had_no_space { idle_for.min(LOOK_AGAIN) } else { idle_for };
            match self.commands.recv_timeout(idle_for) {
                Ok(command) => group.push(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.shut(),
            }
            while !group.is_full() {
                let Ok(command) = self.commands.try_recv() else { break };
                group.push(command);
            }
            if let Some(source) = group.damage.take() {
                group.fail(|| LedgerError::Closed);
                return Err(failed(DAMAGED)(source));
            }
            let closed = group.close.take();
            if (had_no_space || group.has_intakes()) && self.reserve.is_reached() {
                self.show_space();
                group.refuse_intakes();
            }
            self.commit(group)?;
            self.checkpointer.after_commit(&self.database).map_err(failed("checkpointing"))?;
            if let Some(closed) = closed {
                self.shut()?;
                let _ = closed.send(()); // whoever asked may have given up waiting
                return Ok(());
            }
        }
    }

    fn has_no_space(&self) -> bool {
        self.is_full || self.reserve.was_reached()
    }

    /// To be called before anybody is answered, so that nobody sees the one without the other.
    fn show_space(&self) {
        self.shared.has_no_space.store(self.has_no_space(), Ordering::Relaxed);
    }

    fn commit(&mut self, mut group: Group) -> Result<(), WriterFailure> {
        match self.transact(&mut group) {
            Ok(has_written) => {
                // A group that had nothing to write shows nothing about the space there is.
                if has_written && std::mem::take(&mut self.is_full) {
                    tracing::info!("there is space for the ledger again");
                }
                self.state.count(&group, has_written);
                group.committed(&mut self.state);
                self.state.publish();
                self.show_space();
                group.answer();
                Ok(())
            }
            Err(error) => {
                // A transaction that never began, or that SQLite has ended itself, has nothing to roll back.
                let _ = self.database.execute_batch("ROLLBACK");
                if !is_full(&error) {
                    group.fail(|| LedgerError::Closed);
                    let doing = if is_damage(&error) { DAMAGED } else { "writing" };
                    return Err(failed(doing)(error));
                }
                if !std::mem::replace(&mut self.is_full, true) {
                    tracing::error!(%error, "no space for the ledger: nothing is accepted until there is");
                }
                group.rolled_back(&mut self.state);
                self.state.reload(&self.database).map_err(failed("reading"))?;
                self.state.publish();
                self.show_space();
                group.fail(|| LedgerError::Unavailable(error.to_string()));
                Ok(())
            }
        }
    }

    /// `true`: something was written.
    fn transact(&mut self, group: &mut Group) -> rusqlite::Result<bool> {
        let Self { database: db, state, shared, is_full, .. } = self;
        let began = state.stamp();
        state.waits.note(began, Instant::now());
        db.execute_batch("BEGIN")?;
        let before = db.total_changes();
        if !group.is_empty() {
            group.apply(state, db)?;
        }
        Upkeep::step(state, db)?;
        state.save(db)?;
        // On a full disk something is written in any case: it alone shows that there is space again.
        let has_written = *is_full || db.total_changes() != before;
        if has_written {
            meta::keep_arrival(db, state.latest().0)?;
        }
        let began = Instant::now();
        db.execute_batch("COMMIT")?;
        if has_written {
            shared.counters.sync.took(began.elapsed());
        }
        Ok(has_written)
    }

    /// Closes the database; what is not in a call now is known not to be.
    fn shut(mut self) -> Result<(), WriterFailure> {
        let audiences = &mut self.state.audiences;
        for index in 0..audiences.list.len() {
            if audiences.list[index].claimed.is_empty() {
                audiences.list[index].claimed_through = Timestamp::EPOCH;
                audiences.save(&self.database, index).map_err(failed("closing"))?;
            }
        }
        self.checkpointer.stop();
        self.database.close().map_err(|(_, error)| failed("closing")(error))?;
        drop(self.lock);
        Ok(())
    }
}

fn failed(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> WriterFailure {
    move |source| WriterFailure { doing, source }
}
