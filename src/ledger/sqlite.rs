//! The embedded ledger: SQLite behind one writer.
//!
//! Requests that arrive together share one transaction and one sync: the writer commits whatever is
//! queued, with no fixed window, so that groups grow by themselves under load. Settles, releases and
//! parks are folded into the same transaction as the deltas that wait. Chosen for trust,
//! inspectability and a reopen that is quick after a kill
//! ([`decisions`](crate::design::decisions::sqlite)).
//!
//! # What always holds
//! * What is recorded is answered after the commit that holds it, which is synced (`synchronous=FULL`),
//!   or after it was synced into the `journal`.
//! * Claims live in memory; what may have been in a call at a crash is known from durable marks, so
//!   that what couriers report may be written a little later (`unwritten`).
//! * A failed write other than "no space" ends the writer, and with it the daemon: what the disk
//!   holds is then unknown, and only a reopen can tell.
//! * So does a thread that panics ([`threads`]; tests/it/threads.rs).

mod at_rest;
mod audience;
mod audiences;
mod background_check;
mod backup;
mod bloom;
mod checkpoint;
mod checksum;
mod claimed;
mod claims;
mod command;
mod counted;
mod database;
mod destinations;
mod dropped;
mod erasure;
mod export;
mod front;
mod group;
mod integrity;
mod journal;
mod log;
mod look;
mod members;
mod messages;
mod meta;
mod migration;
mod modes;
mod moved;
mod on_disk;
mod operated;
mod operations;
mod owner;
mod parked;
mod persons;
mod reader;
mod rejected;
mod rename;
mod reserve;
mod reset_clock;
mod restore;
mod schema;
mod state;
mod threads;
mod unwritten;
mod upkeep;
mod waits;
mod walks;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use hashbrown::HashMap;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::Instant;

use super::pieces::{self, Piece};
use super::{
    Backlog, Batch, Counters, Intake, Ledger, LedgerError, Members, ParkReason, Recorded, Room,
    Route, Turnover, Unheard,
};
use crate::clock::Clock;
use crate::membership::{AudienceId, ContextKey, DestinationName, Timestamp};

pub use backup::{BackedUp, BackupError, backup, backup_to};
pub use export::{ExportedMember, ExportedParking, export};
pub use integrity::{Sound, check};
pub use look::{Seen, look};
pub use moved::still_around;
pub use rename::{RenameError, Renamed, rename};
pub use reset_clock::{ClockReset, reset_clock};
pub use restore::{restore, restore_from};
pub use schema::{OpenError, database, is_there, may_begin};
pub use writer::{Writer, WriterFailure};

use command::Command;
use front::{Brought, Front, Incoming, Outcome};
use journal::{Files, Journal};
use operated::Operation;

/// What the embedded ledger is opened with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A directory: database, lock, nothing else.
    pub path: PathBuf,
    /// While less is free on the disk, nothing is recorded; 0 uses all of it.
    pub disk_reserve_bytes: u64,
    /// Most memory for what is cached, in KiB: pages of the writer, and members whose rows are written
    /// later.
    pub cache_kib: u32,
    /// How long a member that left, and was told so, is remembered.
    pub tombstone_ttl: Duration,
    /// Which rejected events are kept; the oldest go first.
    pub rejected: Retention,
    /// Which parked members are kept; the oldest go first.
    pub parked: Retention,
    /// Audiences that a destination may have; one that has more keeps those it has.
    pub max_audiences: usize,
    /// Between two readings of every row in the background.
    pub check_every: Duration,
    /// Every destination that may record or claim, until [`SqliteLedger::configure`].
    pub destinations: Vec<DestinationSettings>,
}

/// How long, how many and how much of something is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Longest time.
    pub max_age: Duration,
    /// Most of them.
    pub max_count: u64,
    /// Most bytes of their texts.
    pub max_bytes: u64,
}

/// What the ledger needs to know of a destination.
#[derive(Clone, Debug)]
pub struct DestinationSettings {
    /// Its name.
    pub name: DestinationName,
    /// Where its tellings go (base URL and client-side ID); when that changes, what was told is forgotten.
    pub environment: String,
    /// An equal value told less than this ago is not sent again.
    pub repeat_window: Duration,
    /// How long after a settle the members of an earlier, unanswered call are told once more.
    pub reassert_after: Duration,
}

/// Deltas that may wait in front of the writer, over all requests; more wait for their turn.
const QUEUE_DELTAS: u32 = 1 << 17;
/// The texts of a delta are smaller, as a rule.
const BYTES_A_DELTA: usize = 256;
/// How much is done at once.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Deltas in front of the writer from which more go through the journal instead. A request alone,
    /// and a few at once, are quickest with one sync and no merge.
    journal_from: u32,
    /// Bytes of the journal that are read at once: couriers wait for their claims as long.
    most_read: u64,
    /// Members of which couriers report together from which their rows are written later.
    reported_from: usize,
    /// Changed members whose rows are written later: the more, the fewer pages are written for each.
    most_unwritten: usize,
    /// Of these, rows that are written in one transaction.
    most_written: usize,
    /// From a deletion until nothing of it is left in the logs.
    erase_after: Duration,
}

/// What a changed member takes, with what is there to find it and to write it, beside the memory of a
/// long key.
const MEMBER_BYTES: usize = 128;
/// So many rows can be written at once in a second or two, when somebody must see all of them.
const MOST_UNWRITTEN: usize = 3 << 17;

const PACE: Pace = Pace {
    journal_from: 32,
    most_read: 64 << 10,
    reported_from: 500,
    most_unwritten: 1 << 17,
    most_written: 1 << 15,
    erase_after: erasure::ERASE_AFTER,
};

/// The handle that the rest of the daemon holds; cheap to use from many tasks.
#[derive(Debug)]
pub struct SqliteLedger {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    front: mpsc::Sender<Incoming>,
    queue: Arc<Semaphore>,
    reader: Arc<reader::Reader>,
    /// As it was when the ledger was opened.
    note: Option<String>,
    _check: background_check::BackgroundCheck,
}

/// What the writer and the handles both see.
#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    pace: Pace,
    /// The largest arrival told or recorded.
    arrival: AtomicI64,
    /// The last stamp given out.
    stamp: AtomicI64,
    journal: Journal,
    /// What the writer last found of the disk.
    has_no_space: AtomicBool,
    /// A thread has ended that should not have: the writer will, and the daemon.
    has_failed: AtomicBool,
    /// Rows of members are not written yet.
    is_unwritten: AtomicBool,
    published: Mutex<HashMap<DestinationName, Published>>,
    counters: Counters,
}

/// What the writer lets everybody see of a destination that is configured, or was since the start.
#[derive(Debug)]
struct Published {
    configured: bool,
    backlog: audiences::BacklogByAudience,
    paused_since: Option<Timestamp>,
    news: watch::Receiver<()>,
    /// Since it was last taken.
    turnover: HashMap<AudienceId, Turnover>,
}

impl Shared {
    fn published(&self) -> MutexGuard<'_, HashMap<DestinationName, Published>> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrival(&self) -> Timestamp {
        let now = self.clock.now().0;
        Timestamp(self.arrival.fetch_max(now, Ordering::SeqCst).max(now))
    }

    /// Whether what was answered may not be in the tables yet.
    fn is_behind(&self) -> bool {
        let is_unwritten = || self.is_unwritten.load(Ordering::SeqCst);
        // Asked first it spares the lock of the journal; asked last it counts, for what is in neither is
        // in the tables.
        is_unwritten() || self.journal.is_used() || is_unwritten()
    }

    /// The clock must never show less than an arrival that was recorded.
    fn note_arrival(&self, arrival: Timestamp) {
        self.arrival.fetch_max(arrival.0, Ordering::SeqCst);
    }

    /// The first of so many fresh stamps, of at least one: now, and larger than every stamp before.
    fn stamps(&self, count: usize) -> Timestamp {
        let now = self.arrival().0;
        let more = i64::try_from(count).unwrap_or(i64::MAX).max(1) - 1;
        let next = |last: i64| now.max(last + 1);
        let taken = self
            .stamp
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(next(last) + more));
        Timestamp(next(taken.unwrap_or_else(|last| last)))
    }

    /// The largest stamp given out, or arrival told or recorded.
    fn latest(&self) -> Timestamp {
        self.arrival().max(Timestamp(self.stamp.load(Ordering::SeqCst)))
    }
}

impl SqliteLedger {
    /// Opens the ledger, made if it is not there. Nothing is written until [`Writer::run`] runs.
    pub fn open(settings: Settings, clock: Arc<dyn Clock>) -> Result<(Self, Writer), OpenError> {
        let for_members = u64::from(settings.cache_kib) * 1024 * 4 / 5;
        let most = usize::try_from(for_members / MEMBER_BYTES as u64).unwrap_or(usize::MAX);
        let pace = Pace { most_unwritten: most.min(MOST_UNWRITTEN), ..PACE };
        let directory = settings.path.clone();
        Self::open_with(settings, clock, pace).map_err(|error| error.on(&directory))
    }

    fn open_with(
        settings: Settings,
        clock: Arc<dyn Clock>,
        pace: Pace,
    ) -> Result<(Self, Writer), OpenError> {
        let lock = schema::lock(&settings.path)?;
        let (database, found) = schema::open(&settings.path, settings.cache_kib / 5)?;
        let reader = Arc::new(reader::Reader::new(schema::open_reader(&settings.path)?));
        let appended = found.outlines.iter().map(|(_, outline)| outline.latest.0).max();
        let recorded = appended.unwrap_or(0).max(meta::arrival(&database)?);
        let note = meta::note(&database)?;
        let shared = Arc::new(Shared {
            clock,
            pace,
            arrival: AtomicI64::new(recorded),
            stamp: AtomicI64::new(recorded),
            journal: Journal::new(&found, settings.max_audiences),
            has_no_space: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
            is_unwritten: AtomicBool::new(false),
            published: Mutex::new(HashMap::new()),
            counters: Counters::default(),
        });
        for destination in &settings.destinations {
            let _ = shared.counters.destinations.of(&destination.name); // zeros are shown too
        }
        let (commands, receiver) = mpsc::channel();
        let check = background_check::BackgroundCheck::start(
            &settings.path,
            settings.check_every,
            commands.clone(),
        )?;
        let (front, incoming) = mpsc::channel();
        let appending = Front::new(
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
            front,
            queue: Arc::new(Semaphore::new(QUEUE_DELTAS as usize)),
            reader,
            note,
            _check: check,
        };
        Ok((ledger, writer))
    }

    /// Commits what is queued, empties the logs into the tables, and closes the database. Every later
    /// verb is answered `Closed`.
    pub async fn close(&self) {
        self.close_within(None).await;
    }

    /// The same, but the logs are emptied only as far as they can be until `by`: the rest is left to
    /// the next start.
    pub async fn close_by(&self, by: Instant) {
        self.close_within(Some(by)).await;
    }

    async fn close_within(&self, by: Option<Instant>) {
        let (reply, appended) = oneshot::channel();
        if self.front.send(Incoming::Close(reply)).is_ok() {
            let _ = appended.await; // as below
        }
        let (reply, closed) = oneshot::channel();
        if self.commands.send(Command::Close { by, reply }).is_ok() {
            // An error means that the writer has ended already, which is what was asked for.
            let _ = closed.await;
        }
    }

    /// From here on these are the destinations that are configured, and this is what is known of them.
    /// One whose environment has changed forgets what was told: no call to it may be out. One that is
    /// not among them any more keeps its rows, and what was on its way to them still arrives.
    pub async fn configure(
        &self,
        destinations: Vec<DestinationSettings>,
    ) -> Result<(), LedgerError> {
        self.ask(|reply| Command::Configure { destinations, reply }).await
    }

    /// Reads beside the writer, for status and inspection.
    #[must_use]
    pub fn reader(&self) -> Arc<reader::Reader> {
        Arc::clone(&self.reader)
    }

    /// Returns when everything that was accepted before is in the tables.
    async fn caught_up(&self) -> Result<(), LedgerError> {
        if self.shared.is_behind() { self.ask(Command::CatchUp).await } else { Ok(()) }
    }

    /// Whether the writer is so far behind that a request which takes `own` places of the queue goes
    /// through the journal; or others do, which it must not overtake; or rows are written later, so that
    /// it would have to wait for all of them.
    fn is_behind(&self, own: u32) -> bool {
        let free = u32::try_from(self.queue.available_permits()).unwrap_or(QUEUE_DELTAS);
        let others = (QUEUE_DELTAS - free).saturating_sub(own);
        others >= self.shared.pace.journal_from || self.shared.is_behind()
    }

    /// Records what is small enough to be held beside everything else. Its places in the queue are those of
    /// its items, or of its bytes if these are more.
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
        let request = front::Request { brought: Box::new(Brought { intakes, place }), reply };
        self.front.send(Incoming::Record(request)).map_err(|_| LedgerError::Closed)?;
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

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, LedgerError>>) -> Command,
    ) -> Result<T, LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).map_err(|_| LedgerError::Closed)?;
        answer.await.unwrap_or(Err(LedgerError::Closed))
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
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

    async fn backlog(&self, destination: &DestinationName) -> Result<Vec<Backlog>, LedgerError> {
        let published = self.shared.published();
        let of = published.get(destination);
        let of = of.ok_or_else(|| LedgerError::UnknownDestination(destination.clone()))?;
        Ok(of.backlog.values().cloned().collect())
    }

    fn news(&self, destination: &DestinationName) -> watch::Receiver<()> {
        let published = self.shared.published();
        published.get(destination).map_or_else(|| watch::channel(()).1, |of| of.news.clone())
    }

    async fn claim(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
        room: Room,
    ) -> Result<Option<Batch>, LedgerError> {
        self.known(destination)?;
        let (destination, audience) = (destination.clone(), audience.clone());
        self.ask(|reply| Command::Claim { destination, audience, room, reply }).await
    }

    async fn claim_again(
        &self,
        route: &Arc<Route>,
        context_key: &ContextKey,
    ) -> Result<Option<Batch>, LedgerError> {
        let (route, context_key) = (Arc::clone(route), context_key.clone());
        self.ask(|reply| Command::ClaimAgain { route, context_key, reply }).await
    }

    async fn claim_told(
        &self,
        destination: &DestinationName,
        after: Option<&(AudienceId, ContextKey)>,
    ) -> Result<Option<Batch>, LedgerError> {
        self.known(destination)?;
        let (destination, after) = (destination.clone(), after.cloned());
        self.ask(|reply| Command::ClaimTold { destination, after, reply }).await
    }

    async fn settle(&self, batch: Batch) -> Result<(), LedgerError> {
        self.ask(|reply| Command::Settle { batch, reply }).await
    }

    async fn release(&self, batch: Batch, unheard: Unheard) -> Result<(), LedgerError> {
        self.ask(|reply| Command::Release { batch, unheard, reply }).await
    }

    async fn park(&self, batch: Batch, reason: ParkReason) -> Result<(), LedgerError> {
        self.ask(|reply| Command::Park { batch, reason, reply }).await
    }

    async fn split(&self, parts: Vec<Batch>) -> Result<(), LedgerError> {
        self.ask(|reply| Command::Split { parts, reply }).await
    }

    async fn requeue(&self, members: Members) -> Result<u64, LedgerError> {
        self.operate(Operation::Requeue(members)).await
    }

    fn paused_since(&self, destination: &DestinationName) -> Option<Timestamp> {
        self.shared.published().get(destination)?.paused_since
    }

    fn takes_writes(&self) -> bool {
        !self.shared.has_no_space.load(Ordering::Relaxed)
    }

    fn has_failed(&self) -> bool {
        self.shared.has_failed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
