//! The embedded ledger: SQLite behind a single writer thread.
//!
//! Requests that arrive together share one transaction and one sync (group commit): the writer commits
//! whatever is queued, without a fixed window, so that groups grow under load. Settles, releases and parks
//! join the transaction of the deltas that wait. Chosen for trust, for inspectability, and because it reopens
//! quickly after a kill ([`decisions`](crate::design::decisions::sqlite)).
//!
//! # What always holds
//! * A request is answered only after the commit that holds it is synced (`synchronous=FULL`), or after it
//!   was synced into the log ([`wal`]).
//! * Claims live in memory. Durable marks say which members may have been in a call at a crash, so that the
//!   outcomes that couriers report may stay in the [`memtable`] for a while.
//! * A failed write other than "no space" ends the writer, and with it the daemon: what is on the disk is
//!   then unknown until the ledger is reopened.
//! * So does a thread that panics ([`threads`]; tests/it/threads.rs).

mod at_rest;
mod commit;
mod directory;
mod engine;
mod failure;
mod ids;
mod members;
mod memtable;
mod opening;
mod operations;
mod outbox;
mod reconciling;
mod record;
mod settings;
mod tables;
mod threads;
mod wal;
mod watermarks;

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use async_trait::async_trait;
use hashbrown::HashMap;
use rand::RngExt;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use super::pieces::{self, Piece};
use super::{Intake, LedgerError, Obstacle, Outbox, Recorded, Recorder};
use crate::clock::Clock;
use crate::counting::{Histogram, PerDestination};
use crate::membership::{DestinationName, Timestamp};

pub use at_rest::backup::{BackedUp, BackupError, backup, backup_to};
pub use at_rest::check::{Sound, check};
pub(crate) use at_rest::copying::DirectoryCopy;
pub use at_rest::export::{ExportedMember, ExportedParking, export};
pub use at_rest::rename::{RenameError, Renamed, rename};
pub use at_rest::reset_clock::{ClockReset, reset_clock};
pub use at_rest::restore::{restore, restore_from};
pub use commit::writer::Writer;
pub use directory::names::database;
pub use opening::interrupted::is_there;
pub use opening::look::{Seen, look};
pub use opening::moved::still_around;
pub use opening::open::may_begin;
pub use settings::{DestinationSettings, Retention, Settings};
pub use tables::open_error::OpenError;

use commit::append::{self, Appender, Brought, Incoming, Outcome};
use commit::background_check;
use commit::command::{self, Command, Reply};
use engine::kinds::Kinds;
use engine::pace::{MOST_DIRTY, PACE, Pace};
use engine::shared::Shared;
use memtable::MEMBER_BYTES;
use opening::open;
use outbox::DestinationOutbox;
use tables::{connections, meta, reader};
use wal::{Files, Log};

/// Capacity of the queue in front of the writer, in deltas over all requests; further requests wait for room.
const QUEUE_DELTAS: u32 = 1 << 17;
/// Bytes that one place in the queue stands for; the texts of a delta are usually smaller.
const BYTES_A_DELTA: usize = 256;
/// The handle that the rest of the daemon holds; shared by many tasks.
#[derive(Debug)]
pub struct EmbeddedLedger {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    appender: mpsc::Sender<Incoming>,
    queue: Arc<Semaphore>,
    reader: Arc<reader::Reader>,
    /// The note of the previous run, as read when the ledger was opened.
    note: Option<String>,
    /// What tells this process from those that had the ledger before.
    process: i64,
    _check: background_check::BackgroundCheck,
}

impl EmbeddedLedger {
    /// Opens the ledger, creating it if it does not exist. Nothing is written until [`Writer::run`] runs.
    pub fn open(settings: Settings, clock: Arc<dyn Clock>) -> Result<(Self, Writer), OpenError> {
        let for_members = u64::from(settings.cache_kib) * 1024 * 4 / 5;
        let most = usize::try_from(for_members / MEMBER_BYTES as u64).unwrap_or(usize::MAX);
        let pace = Pace { most_dirty: most.min(MOST_DIRTY), ..PACE };
        let directory = settings.path.clone();
        Self::open_with(settings, clock, pace).map_err(|error| error.on(&directory))
    }

    fn open_with(
        settings: Settings,
        clock: Arc<dyn Clock>,
        pace: Pace,
    ) -> Result<(Self, Writer), OpenError> {
        let lock = open::lock(&settings.path)?;
        let (database, found) = open::open(&settings.path, settings.cache_kib / 5)?;
        let reader = Arc::new(reader::Reader::new(connections::open_reader(&settings.path)?));
        let outlines = found.contents.iter().flat_map(|(_, outlines)| outlines);
        let latest = outlines.map(|outline| outline.latest.0).max();
        let recorded = latest.unwrap_or(0).max(meta::arrival(&database)?);
        let note = meta::note(&database)?;
        let shared = Arc::new(Shared {
            clock,
            pace,
            arrival: AtomicI64::new(recorded),
            stamp: AtomicI64::new(recorded),
            log: Log::new(&found),
            kinds: Mutex::new(Kinds::new(settings.max_audiences, found.merged())),
            has_no_space: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
            has_dirty_members: AtomicBool::new(false),
            published: Mutex::new(HashMap::new()),
            recordings: PerDestination::default(),
            commit_rows: Histogram::of_sizes(),
            sync: Histogram::of_durations(),
        });
        for destination in &settings.destinations {
            let _ = shared.recordings.of(&destination.name); // so that zeros are exported too
        }
        let (commands, receiver) = mpsc::channel();
        let check = background_check::BackgroundCheck::start(
            &settings.path,
            settings.check_every,
            commands.clone(),
        )?;
        let (appender, incoming) = mpsc::channel();
        let appending = Appender::new(
            Files::new(&settings.path, &found),
            incoming,
            commands.clone(),
            Arc::clone(&shared),
        );
        let writer = Writer::new(
            settings,
            lock,
            database,
            receiver,
            appending,
            &found,
            Arc::clone(&shared),
        )?;
        let ledger = Self {
            shared,
            commands,
            appender,
            queue: Arc::new(Semaphore::new(QUEUE_DELTAS as usize)),
            reader,
            note,
            process: rand::rng().random(),
            _check: check,
        };
        Ok((ledger, writer))
    }

    /// Commits what is queued, empties the log and SQLite's log into the tables, and closes the database.
    /// Every later call fails with `Closed`.
    pub async fn close(&self) {
        self.close_within(None).await;
    }

    /// Like [`Self::close`], but stops emptying the logs at the deadline `by`: the next start does the rest.
    pub async fn close_by(&self, by: Instant) {
        self.close_within(Some(by)).await;
    }

    async fn close_within(&self, by: Option<Instant>) {
        let (reply, appended) = oneshot::channel();
        if self.appender.send(Incoming::Close(reply)).is_ok() {
            let _ = appended.await; // as below
        }
        let (reply, closed) = oneshot::channel();
        if self.commands.send(Command::Close { by, reply }).is_ok() {
            // An error means that the writer has ended already, which is what was asked for.
            let _ = closed.await;
        }
    }

    /// Replaces the configured destinations. A destination whose environment has changed forgets what was
    /// told, so none of its calls may be in flight. One that is no longer configured keeps its rows, and
    /// events and reports already under way to it are still applied.
    pub async fn configure(
        &self,
        destinations: Vec<DestinationSettings>,
    ) -> Result<(), LedgerError> {
        self.ask(|reply| Command::Configure(destinations, reply)).await
    }

    /// A read connection beside the writer, for status and inspection.
    #[must_use]
    pub fn reader(&self) -> Arc<reader::Reader> {
        Arc::clone(&self.reader)
    }

    /// Returns when everything accepted before this call is in the tables.
    pub(crate) async fn caught_up(&self) -> Result<(), LedgerError> {
        if self.shared.is_behind() { self.ask(Command::CatchUp).await } else { Ok(()) }
    }

    /// Whether a request that holds `own` places of the queue should go through the log: because the writer
    /// is far behind, because earlier requests are in the log and must not be overtaken, or because members
    /// are dirty, so that the writer would have to flush all of them first.
    fn is_behind(&self, own: u32) -> bool {
        let free = u32::try_from(self.queue.available_permits()).unwrap_or(QUEUE_DELTAS);
        let others = (QUEUE_DELTAS - free).saturating_sub(own);
        others >= self.shared.pace.journal_from || self.shared.is_behind()
    }

    /// Records intakes that are small enough to be held in memory at once. They take one place in the queue
    /// for each item, or for each [`BYTES_A_DELTA`] bytes if that is more.
    async fn record_at_once(&self, intakes: Vec<Intake>) -> Result<Vec<Recorded>, LedgerError> {
        let items: usize = intakes.iter().map(Intake::items).sum();
        let bytes: usize = intakes.iter().map(Intake::bytes).sum();
        let places = items.max(bytes / BYTES_A_DELTA);
        let permits = u32::try_from(places).unwrap_or(u32::MAX).clamp(1, QUEUE_DELTAS);
        let place = Arc::clone(&self.queue).acquire_many_owned(permits).await;
        let place = place.map_err(|_| LedgerError::Closed)?;
        if !self.is_behind(permits) {
            return self.ask(|reply| Command::Record { intakes, reply, place }).await;
        }
        let (reply, outcome) = oneshot::channel();
        let request = append::Request { brought: Box::new(Brought { intakes, place }), reply };
        self.appender.send(Incoming::Record(request)).map_err(|_| LedgerError::Closed)?;
        match outcome.await {
            Ok(Outcome::Appended(brought)) => Ok(vec![Recorded::default(); brought.intakes.len()]),
            Ok(Outcome::ForWriter(brought)) => {
                let Brought { intakes, place } = *brought;
                self.ask(|reply| Command::Record { intakes, reply, place }).await
            }
            Ok(Outcome::Refused(error)) => Err(error),
            Err(_) => Err(LedgerError::Closed),
        }
    }

    fn known(&self, destination: &DestinationName) -> Result<(), LedgerError> {
        let known = self.shared.published().contains_key(destination);
        known.then_some(()).ok_or_else(|| LedgerError::UnknownDestination(destination.clone()))
    }

    /// See [`Operations::outbox`](crate::ledger::Operations::outbox).
    #[must_use]
    pub fn outbox_of(&self, destination: &DestinationName) -> Arc<dyn Outbox> {
        let (shared, commands) = (Arc::clone(&self.shared), self.commands.clone());
        Arc::new(DestinationOutbox::new(shared, commands, destination.clone()))
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, LedgerError> {
        command::ask(&self.commands, command).await
    }
}

#[async_trait]
impl Recorder for EmbeddedLedger {
    fn arrival(&self) -> Timestamp {
        self.shared.arrival()
    }

    async fn record_all(&self, intakes: Vec<Intake>) -> Result<Vec<Recorded>, LedgerError> {
        intakes.iter().try_for_each(|intake| self.known(&intake.destination))?;
        if intakes.iter().map(Intake::bytes).sum::<usize>() <= pieces::MOST_BYTES {
            return self.record_at_once(intakes).await;
        }
        let mut all = vec![Recorded::default(); intakes.len()];
        for Piece { intake, of, first_delta } in pieces::pieces(intakes) {
            let recorded = Box::pin(self.record_at_once(vec![intake])).await?;
            for recorded in recorded {
                all[of].add(recorded, first_delta);
            }
        }
        Ok(all)
    }

    fn obstacle(&self) -> Option<Obstacle> {
        self.shared.has_no_space.load(Ordering::Relaxed).then_some(Obstacle::NoSpace)
    }

    fn has_failed(&self) -> bool {
        self.shared.has_failed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
