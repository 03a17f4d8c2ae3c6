//! What the tasks and handles of one replica share.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::RngExt;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, Interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::clock::{Seldom, since_boot};
use crate::counting::{Histogram, PerDestination};
use crate::ledger::hashes::HashKey;
use crate::ledger::lease::{self, Lease};
use crate::ledger::postgres::claims::Claims;
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::fronts::{Fronts, Reading};
use crate::ledger::postgres::guesses::Guesses;
use crate::ledger::postgres::members::{Changes, MemberKey};
use crate::ledger::postgres::pool::Pool;
use crate::ledger::postgres::settings::SharedSettings;
use crate::ledger::postgres::stamps::Stamps;
use crate::ledger::{DestinationSettings, HeldAudience, LedgerError, Recordings, Turnover};
use crate::membership::{AudienceId, DestinationName, Timestamp};

/// How long after events could not be recorded it is doubted that they can be.
const DOUBTED_FOR: Duration = Duration::from_secs(5);
/// How often couriers are told of what is being recorded, at most.
const TELL_EVERY: Duration = Duration::from_millis(50);

/// What the tasks and handles of one replica share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub settings: SharedSettings,
    /// What tells this process from all others, also from those of the same name.
    pub process: i64,
    /// Held by whoever looks at what others have done, and by whoever does something of the kind: no look shows what was
    /// before it.
    pub looking: tokio::sync::Mutex<()>,
    /// Held by whoever asks for leases: not even this process takes one from itself unawares.
    pub taking: tokio::sync::Mutex<()>,
    pub pool: Pool,
    /// Its connections, for what is recorded.
    pub recording: Pool,
    /// Its connections, for what people look at: locks of others are not waited for.
    pub looks: Pool,
    pub stamps: Stamps,
    pub hashes: HashKey,
    /// Nobody who arrives is known.
    pub newcomers: Guesses,
    /// Whoever was in a call is what they were when it was made.
    pub untouched: Guesses,
    pub recordings: PerDestination<Recordings>,
    pub commit_rows: Histogram,
    pub commit_duration: Histogram,
    /// Why the database cannot be used, as far as is known, and when it did not record something.
    obstacle: Mutex<Option<(String, Option<Instant>)>>,
    /// Somebody's lock kept something from being recorded, and nothing was recorded since.
    is_locked_out: AtomicBool,
    /// It is being closed: nothing new begins.
    pub closing: CancellationToken,
    /// It is closed: nothing goes on.
    pub closed: CancellationToken,
    /// Limits how often it is logged that events cannot be recorded.
    pub unrecorded: Mutex<Seldom>,
    /// A task has failed.
    pub has_failed: AtomicBool,
    /// Every task has ended.
    pub is_stopped: Notify,
    /// Couriers are to be told of something new.
    stirred: Notify,
    known: Mutex<HashMap<DestinationName, Known>>,
    pub fronts: Fronts,
}

/// A destination that is configured, or was since the start.
#[derive(Debug)]
pub(crate) struct Known {
    pub no: i32,
    pub settings: DestinationSettings,
    pub is_configured: bool,
    pub paused_since: Option<Timestamp>,
    pub lease: Lease,
    /// Of the present reign.
    pub claims: Claims,
    pub news: watch::Sender<()>,
    /// Its courier is to be told that there is something new.
    is_stirred: bool,
    /// Since it was last taken.
    pub turnover: HashMap<AudienceId, Turnover>,
    /// Who is to be told once more, and when.
    pub reassertions: Vec<(Instant, MemberKey)>,
    /// Audiences that are held, when somebody last looked.
    pub held: Vec<HeldAudience>,
    /// The numbers of audiences, as they were when something last arrived for them.
    numbers: HashMap<AudienceId, i32>,
    /// A claim was made of which it is not known whether it was committed: nobody reports it.
    pub is_claim_in_doubt: bool,
    /// Limits how often it is logged that calls came back too late; counts their members in between.
    pub late: Seldom,
}

impl Known {
    /// A destination that was not known before.
    pub fn new(no: i32, settings: DestinationSettings, paused: Option<i64>, ttl: Duration) -> Self {
        Self {
            no,
            settings,
            is_configured: true,
            paused_since: paused.map(Timestamp),
            lease: Lease::new(ttl),
            claims: Claims::default(),
            news: watch::Sender::new(()),
            is_stirred: false,
            turnover: HashMap::new(),
            reassertions: Vec::new(),
            held: Vec::new(),
            numbers: HashMap::new(),
            is_claim_in_doubt: false,
            late: Seldom::default(),
        }
    }

    /// Its number in the database; whether that is another one than before, because it was dropped and begins anew.
    pub fn has_number(&mut self, no: i32, ttl: Duration) -> bool {
        let is_another = self.no != no;
        if is_another {
            self.no = no;
            self.lease = Lease::new(ttl);
            self.claims.clear();
            self.reassertions.clear();
            self.numbers.clear();
            self.news.send_replace(());
        }
        is_another
    }
}

impl Shared {
    pub fn new(settings: SharedSettings, pool: Pool, stamps: Stamps, hashes: HashKey) -> Self {
        Self {
            settings,
            process: rand::rng().random(),
            looking: tokio::sync::Mutex::default(),
            taking: tokio::sync::Mutex::default(),
            recording: pool.for_small(),
            looks: pool.for_looks(),
            pool,
            stamps,
            hashes,
            newcomers: Guesses::default(),
            untouched: Guesses::default(),
            recordings: PerDestination::default(),
            commit_rows: Histogram::of_sizes(),
            commit_duration: Histogram::of_durations(),
            obstacle: Mutex::default(),
            is_locked_out: AtomicBool::new(false),
            closing: CancellationToken::new(),
            closed: CancellationToken::new(),
            unrecorded: Mutex::default(),
            has_failed: AtomicBool::new(false),
            is_stopped: Notify::new(),
            stirred: Notify::new(),
            known: Mutex::default(),
            fronts: Fronts::default(),
        }
    }

    pub fn known(&self) -> MutexGuard<'_, HashMap<DestinationName, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number and settings of a destination that is configured, or was since the start.
    pub fn destination(
        &self,
        name: &DestinationName,
    ) -> Result<(i32, DestinationSettings), LedgerError> {
        let known = self.known();
        let of = known.get(name).ok_or_else(|| LedgerError::UnknownDestination(name.clone()))?;
        Ok((of.no, of.settings.clone()))
    }

    /// The same, if it is configured.
    pub fn configured(
        &self,
        name: &DestinationName,
    ) -> Result<(i32, DestinationSettings), LedgerError> {
        let known = self.known();
        let of = known.get(name).filter(|of| of.is_configured);
        let of = of.ok_or_else(|| LedgerError::UnknownDestination(name.clone()))?;
        Ok((of.no, of.settings.clone()))
    }

    /// The token of a lease that lasts.
    pub fn token(&self, name: &DestinationName) -> Option<i64> {
        self.known().get(name)?.lease.current(since_boot())
    }

    /// Takes in what the database says of a lease. What was known of claims is of the reign that has ended, and couriers
    /// look again.
    pub fn learn(
        &self,
        name: &DestinationName,
        learn: impl FnOnce(&mut Lease) -> lease::Change,
    ) -> lease::Change {
        let mut known = self.known();
        let Some(of) = known.get_mut(name) else { return lease::Change::Nothing };
        let change = learn(&mut of.lease);
        if change != lease::Change::Nothing {
            of.claims.clear();
            of.reassertions.clear();
            of.news.send_replace(());
        }
        if change == lease::Change::Lost {
            warn!(destination = %name, "another replica has taken over: this one was silent for too long");
        }
        change
    }

    /// The database says that another has taken over since this token was given out.
    pub fn is_stale(&self, name: &DestinationName, token: i64) {
        self.learn(name, |lease| lease.is_stale(token));
    }

    /// In the reign of this token, these are told once more when it is time, and not before.
    pub fn tell_once_more(&self, name: &DestinationName, token: i64, keys: Vec<MemberKey>) {
        if keys.is_empty() {
            return;
        }
        let mut known = self.known();
        let of = known.get_mut(name).filter(|of| of.lease.token() == Some(token));
        let Some(of) = of else { return }; // the next owner reads them
        let due = Instant::now() + of.settings.reassert_after;
        let keys: HashSet<MemberKey> = keys.into_iter().collect();
        of.reassertions.retain(|(_, key)| !keys.contains(key));
        of.reassertions.extend(keys.into_iter().map(|key| (due, key)));
    }

    /// The numbers that these audiences had when something last arrived for them: they may be erased since.
    pub fn numbers(&self, name: &DestinationName, ids: &[&AudienceId]) -> HashMap<AudienceId, i32> {
        let known = self.known();
        let Some(of) = known.get(name) else { return HashMap::new() };
        let numbers = ids.iter().filter_map(|id| of.numbers.get_key_value(*id));
        numbers.map(|(id, no)| (id.clone(), *no)).collect()
    }

    /// These audiences have these numbers.
    pub fn note_numbers<'a>(
        &self,
        name: &DestinationName,
        numbers: impl Iterator<Item = (&'a AudienceId, i32)>,
    ) {
        let mut known = self.known();
        let Some(of) = known.get_mut(name) else { return };
        for (id, no) in numbers {
            if of.numbers.get(id) == Some(&no) {
                continue;
            }
            if of.numbers.len() >= self.settings.max_audiences {
                of.numbers.clear(); // most of them are erased
            }
            of.numbers.insert(id.clone(), no);
        }
    }

    /// How the queue of an audience is read next, of which the database has kept a front or not.
    pub fn reading(&self, audience_no: i32, kept: Option<i64>) -> Reading {
        self.fronts.reading((audience_no, kept), self.stamps.arrival(), self.most_fronts())
    }

    /// The queue of an audience was read, and its first row was this one.
    pub fn found(&self, audience_no: i32, reading: Reading, first: Option<i64>) {
        self.fronts.found(audience_no, reading, first, self.most_fronts());
    }

    fn most_fronts(&self) -> usize {
        self.settings.max_audiences * self.known().len().max(1)
    }

    /// Couriers of a destination are told that there may be something new.
    pub fn wake(&self, name: &DestinationName) {
        if let Some(of) = self.known().get(name) {
            of.news.send_replace(());
        }
    }

    /// The same, a little later if they were only just told: they look in a transaction of their own, and much may be
    /// recorded meanwhile.
    pub fn stir(&self, name: &DestinationName) {
        if let Some(of) = self.known().get_mut(name) {
            of.is_stirred = true;
        }
        self.stirred.notify_one();
    }

    /// Tells couriers what [`Self::stir`] was called for, until the ledger is being closed.
    pub async fn keep_telling(&self) {
        while !self.is_closing() {
            tokio::select! {
                () = self.closing.cancelled() => return,
                () = self.stirred.notified() => {}
            }
            for of in self.known().values_mut().filter(|of| of.is_stirred) {
                of.is_stirred = false;
                of.news.send_replace(());
            }
            tokio::select! {
                () = self.closing.cancelled() => return,
                () = tokio::time::sleep(TELL_EVERY) => {}
            }
        }
    }

    /// Counts what a committed transaction has changed.
    pub fn count(
        &self,
        name: &DestinationName,
        changes: &Changes,
        audiences: &HashMap<i32, AudienceId>,
    ) {
        let mut expired = 0;
        if let Some(of) = self.known().get_mut(name) {
            for (no, change) in changes {
                let (Some(id), turnover) = (audiences.get(no), change.turnover) else { continue };
                expired += turnover.expired;
                if turnover != Turnover::default() {
                    let sum = of.turnover.entry(id.clone()).or_default();
                    sum.joined += turnover.joined;
                    sum.left += turnover.left;
                    sum.expired += turnover.expired;
                }
            }
        }
        self.recordings.of(name).expired.add(expired);
    }

    /// Waits for the next tick; `false`: the ledger is being closed.
    pub async fn comes(&self, ticks: &mut Interval) -> bool {
        tokio::select! {
            () = self.closing.cancelled() => false,
            _ = ticks.tick() => true,
        }
    }

    pub fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// Notes whether the database records what it is asked to.
    pub fn note<T>(&self, done: &Result<T, Failure>) {
        let mut obstacle = self.obstacle_now();
        self.is_locked_out.store(matches!(done, Err(Failure::Locked(_))), Ordering::SeqCst);
        *obstacle = obstacle_of(done).map(|why| (why, Some(Instant::now())));
    }

    /// Whether somebody's lock kept what was last to be recorded from it: whoever says that it is recorded again has to
    /// get the same locks.
    pub fn is_locked_out(&self) -> bool {
        self.is_locked_out.load(Ordering::SeqCst)
    }

    /// Notes whether the database is there and takes small writes: that is not enough to say that it records again.
    /// `got_locks`: those that are needed for it were to be had.
    pub fn is_there<T>(&self, done: &Result<T, Failure>, got_locks: bool) {
        let mut obstacle = self.obstacle_now();
        let failed_at = obstacle.as_ref().and_then(|(_, failed_at)| *failed_at);
        let is_doubted = || failed_at.is_some_and(|at| at.elapsed() < DOUBTED_FOR);
        let is_locked_out = self.is_locked_out();
        match (obstacle_of(done), done) {
            (None, _) if is_locked_out && !got_locks => {}
            (None, _) if !is_locked_out && is_doubted() => {}
            (None, _) => {
                self.is_locked_out.store(false, Ordering::SeqCst);
                *obstacle = None;
            }
            // It is known already, and better.
            (Some(_), Err(Failure::Locked(_) | Failure::Unavailable(_)))
                if is_locked_out && obstacle.is_some() => {}
            (Some(why), _) => *obstacle = Some((why, None)),
        }
    }

    fn obstacle_now(&self) -> MutexGuard<'_, Option<(String, Option<Instant>)>> {
        self.obstacle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the database cannot be used, as far as is known.
    pub fn obstacle(&self) -> Option<String> {
        self.obstacle_now().as_ref().map(|(why, _)| why.clone())
    }

    /// Since when a destination is paused: couriers are told if that has changed.
    pub fn is_paused(&self, name: &DestinationName, since: Option<i64>) {
        let mut known = self.known();
        let Some(of) = known.get_mut(name) else { return };
        let since = since.map(Timestamp);
        if of.paused_since != since {
            of.paused_since = since;
            of.news.send_replace(());
        }
    }
}

fn obstacle_of<T>(done: &Result<T, Failure>) -> Option<String> {
    match done {
        // Others that are in the way for so long that it was given up are an obstacle too.
        Err(
            failure @ (Failure::Unavailable(_)
            | Failure::Lost(_)
            | Failure::Again(_)
            | Failure::Locked(_)),
        ) => Some(failure.to_string()),
        Ok(_) | Err(Failure::Stale | Failure::Refused(_)) => None,
    }
}

/// A handle of what is shared.
pub(crate) type Handle = Arc<Shared>;
