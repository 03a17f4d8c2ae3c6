//! A process: its clock, its way to the database, and whether it stands still. A process that stands still does nothing:
//! whatever it would do next waits until it goes on, while its clock goes on all the time.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::database::Database;
use crate::deliver::simulation::model::{Excuse, Model};
use crate::deliver::simulation::production;
use crate::launchdarkly::{Answer, Api};
use crate::ledger::lease::{self, Lease, Question};
use crate::ledger::{Backlog, Batch, Claim, LedgerError, Outbox, Report, Unheard};
use crate::membership::{AudienceId, Timestamp};

/// How long a request to the database that is lost is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// The way to the database.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    /// How many of all messages are lost, there and back.
    pub loss: f64,
    /// The longest time on the way, each way.
    pub slowness: Duration,
    pub cut_until: Option<Instant>,
}

impl Link {
    pub fn good() -> Self {
        Self { loss: 0.0, slowness: Duration::ZERO, cut_until: None }
    }
}

#[derive(Debug)]
pub(super) struct Process {
    number: usize,
    database: Arc<Database>,
    began: Instant,
    pace: f64,
    ttl: Duration,
    stands_still: watch::Sender<bool>,
    /// Held by each request to the database that is under way.
    requests: Arc<()>,
    inside: Mutex<Inside>,
}

#[derive(Debug)]
struct Inside {
    lease: Lease,
    link: Link,
    chance: StdRng,
    is_gone: bool,
    /// Calls that are out, or about to be made.
    calls: Vec<Excuse>,
    /// The last look whether a call may be made, for the call behind it.
    looked: Option<(i64, Excuse)>,
    /// How long it will stand still in the next call, or right behind the look before it.
    in_a_call: Option<Duration>,
    behind_the_look: Option<Duration>,
}

impl Process {
    pub fn new(database: Arc<Database>, pace: f64, ttl: Duration, chance: StdRng) -> Arc<Self> {
        Arc::new_cyclic(|own| Self {
            number: database.register(own),
            database,
            began: Instant::now(),
            pace,
            ttl,
            stands_still: watch::Sender::new(false),
            requests: Arc::default(),
            inside: Mutex::new(Inside {
                lease: Lease::new(ttl),
                link: Link::good(),
                chance,
                is_gone: false,
                calls: Vec::new(),
                looked: None,
                in_a_call: None,
                behind_the_look: None,
            }),
        })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().expect("no run panics with it")
    }

    /// Every machine was started at another time.
    fn since_boot(&self) -> Duration {
        Duration::from_secs(1000) + self.began.elapsed().mul_f64(self.pace)
    }

    pub fn link(&self, link: Link) {
        self.inside().link = link;
    }

    /// Nothing befalls it any more.
    pub fn be_well(&self) {
        let mut inside = self.inside();
        inside.link = Link::good();
        (inside.in_a_call, inside.behind_the_look) = (None, None);
    }

    /// It does not stand still, and neither a call nor a request to the database is out.
    pub fn is_quiet(&self) -> bool {
        let inside = self.inside();
        let is_out = |excuse: &Excuse| Arc::strong_count(excuse) > 1;
        let waits = *self.stands_still.borrow() || Arc::strong_count(&self.requests) > 1;
        let rests = !waits && !inside.calls.iter().any(is_out);
        rests || inside.is_gone
    }

    /// It has ended, however.
    pub fn is_gone(&self) {
        self.inside().is_gone = true;
    }

    /// Stands still from now on.
    pub fn freeze(self: &Arc<Self>, how_long: Duration) {
        self.stands_still.send_replace(true);
        self.inside().calls.iter().for_each(|excuse| excuse.store(true, Ordering::SeqCst));
        let process = Arc::clone(self);
        tokio::spawn(async move {
            sleep(how_long).await;
            process.stands_still.send_replace(false);
        });
    }

    pub fn freeze_in_a_call(&self, how_long: Duration) {
        self.inside().in_a_call = Some(how_long);
    }

    pub fn freeze_behind_the_look(&self, how_long: Duration) {
        self.inside().behind_the_look = Some(how_long);
    }

    async fn goes_on(&self) {
        if !*self.stands_still.borrow() {
            return;
        }
        let mut stands_still = self.stands_still.subscribe();
        stands_still.wait_for(|stands_still| !stands_still).await.expect("it is there");
    }

    /// A message to the database, or back.
    async fn passes(&self) -> Result<(), LedgerError> {
        let (delay, is_lost) = {
            let mut inside = self.inside();
            let Link { loss, slowness, cut_until } = inside.link;
            let is_cut = cut_until.is_some_and(|until| Instant::now() < until);
            let delay = slowness.mul_f64(inside.chance.random_range(0.0..1.0));
            (delay, is_cut || inside.chance.random_bool(loss))
        };
        if !delay.is_zero() {
            sleep(delay).await;
        }
        if is_lost {
            sleep(PATIENCE).await;
            return Err(LedgerError::Unavailable("no answer".to_owned()));
        }
        Ok(())
    }

    /// Does something in the database, and hears what became of it.
    async fn request<T>(&self, work: impl AsyncFnOnce(&Database) -> T) -> Result<T, LedgerError> {
        let _under_way = Arc::clone(&self.requests);
        self.goes_on().await;
        let done = async {
            self.passes().await?;
            let done = work(&self.database).await;
            self.passes().await?;
            Ok(done)
        };
        let done = done.await;
        self.goes_on().await;
        done
    }

    /// Looks after the lease until it is told no more.
    pub async fn keep(self: Arc<Self>) {
        loop {
            self.goes_on().await;
            let question = self.inside().lease.question();
            let asked_at = self.since_boot();
            let ask = self.request(async |database| match question {
                Question::Take => database.take(self.number, self.ttl),
                Question::Renew { token } => database.renew(token, self.ttl),
            });
            let limit = if question == Question::Take { PATIENCE * 2 } else { self.ttl / 2 };
            if let Ok(Ok(answer)) = timeout(limit, ask).await {
                self.inside().lease.answered(question, asked_at, answer);
                self.is_the_only_one();
            }
            // A look that finds nothing costs nothing here.
            let is_any_late = self.database.is_any_late();
            if let Some(token) = self.current().filter(|_| is_any_late) {
                let _ = self.request(async |database| database.take_in_late(token)).await; // or later
            }
            sleep(lease::interval(self.ttl)).await;
        }
    }

    pub async fn hand_over(&self) {
        let given_up = self.inside().lease.hand_over();
        if let Some(token) = given_up {
            let _ = self.request(async |database| database.hand_over(token)).await; // or it runs out
        }
    }

    fn current(&self) -> Option<i64> {
        let inside = self.inside();
        inside.lease.current(self.since_boot()).filter(|_| !inside.is_gone)
    }

    /// If this one believes that it owns the destination, nobody else does, and it does.
    fn is_the_only_one(&self) {
        let Some(token) = self.current() else { return };
        assert!(self.database.is_latest(token), "the database has another owner");
        let others = self.database.processes();
        let mut others = others.iter().filter(|other| other.number != self.number);
        assert!(others.all(|other| other.current().is_none()), "two believe that they own it");
    }
}

/// The outbox of a process.
#[derive(Debug)]
pub(super) struct SharedOutbox {
    process: Arc<Process>,
    outbox: Arc<dyn Outbox>,
}

impl SharedOutbox {
    pub fn new(process: Arc<Process>) -> Self {
        let outbox = process.database.ledger.outbox_of(&production());
        Self { process, outbox }
    }

    fn is_stale(&self, token: i64) {
        self.process.inside().lease.is_stale(token);
    }
}

#[async_trait]
impl Outbox for SharedOutbox {
    async fn backlog(&self) -> Result<Vec<Backlog>, LedgerError> {
        if self.process.current().is_none() {
            return Ok(Vec::new());
        }
        self.process.request(async |_| self.outbox.backlog().await).await?
    }

    fn news(&self) -> watch::Receiver<()> {
        self.outbox.news()
    }

    fn paused_since(&self) -> Option<Timestamp> {
        None
    }

    async fn claim(&self, claim: Claim) -> Result<Option<Batch>, LedgerError> {
        let Some(token) = self.process.current() else { return Ok(None) };
        let made = Mutex::new(None);
        let work = async |database: &Database| {
            if !database.is_latest(token) {
                return None;
            }
            let claimed = self.outbox.claim(claim).await.expect("it is there");
            let claimed = claimed.map(|batch| Batch { token, ..batch });
            made.lock().expect("nobody panics with it").clone_from(&claimed);
            Some(claimed)
        };
        match self.process.request(work).await {
            Ok(Some(claimed)) => {
                let is_of_now = self.process.inside().lease.token() == Some(token);
                Ok(claimed.filter(|_| is_of_now)) // or else the next owner has found it
            }
            Ok(None) => {
                self.is_stale(token);
                Ok(None)
            }
            Err(error) => {
                // The process does not know of it, and claims them once more.
                let made = made.lock().expect("nobody panics with it").take();
                if let Some(batch) = made.filter(|_| self.process.database.is_latest(token)) {
                    self.outbox.report(Report::Release(batch, Unheard::Unsent)).await?;
                }
                Err(error)
            }
        }
    }

    async fn report(&self, report: Report) -> Result<(), LedgerError> {
        let Some(token) = report.batches().first().map(|batch| batch.token) else { return Ok(()) };
        if matches!(report, Report::Release(_, Unheard::Unsent)) {
            self.process.database.count(|of| of.unsent += 1);
        }
        let work = async |database: &Database| {
            let is_latest = database.is_latest(token);
            if is_latest {
                self.outbox.report(report.clone()).await.expect("it is there");
            }
            is_latest
        };
        if self.process.request(work).await? {
            return Ok(());
        }
        self.is_stale(token);
        let Some(batch) = report.called() else { return Ok(()) };
        self.process.request(async |database| database.ended_late(batch)).await
    }

    fn may_call(&self, batch: &Batch) -> bool {
        if self.process.current() != Some(batch.token) {
            return false;
        }
        self.process.is_the_only_one();
        // It may have stopped in this very instant.
        let excuse = Excuse::new((*self.process.stands_still.borrow()).into());
        let stop = {
            let mut inside = self.process.inside();
            inside.looked = Some((batch.token, Arc::clone(&excuse)));
            inside.calls.retain(|other| Arc::strong_count(other) > 1);
            inside.calls.push(excuse);
            inside.behind_the_look.take()
        };
        if let Some(how_long) = stop {
            self.process.freeze(how_long);
        }
        true
    }

    async fn until_over(&self, batch: &Batch) {
        loop {
            self.process.goes_on().await;
            let left = self.process.inside().lease.left(batch.token, self.process.since_boot());
            if left.is_zero() {
                self.process.database.count(|of| of.given_up += 1);
                return;
            }
            sleep(left + Duration::from_millis(1)).await;
        }
    }
}

/// Calls of a process.
#[derive(Debug)]
pub(super) struct Calls {
    process: Arc<Process>,
    model: Arc<Model>,
}

impl Calls {
    pub fn new(process: Arc<Process>, model: Arc<Model>) -> Self {
        Self { process, model }
    }
}

#[async_trait]
impl Api for Calls {
    async fn send(&self, _: &AudienceId, body: Bytes) -> Answer {
        let looked = self.process.inside().looked.take();
        let (token, excuse) = looked.expect("the courier calls only where it may");
        self.process.goes_on().await;
        let is_excused = excuse.load(Ordering::SeqCst);
        assert!(
            is_excused || self.process.current() == Some(token),
            "a call of one who does not own the destination"
        );
        let stop = self.process.inside().in_a_call.take();
        let call = self.model.call(body, Arc::clone(&excuse));
        if let Some(how_long) = stop {
            self.process.freeze(how_long);
        }
        let answer = call.await;
        self.process.goes_on().await;
        answer
    }
}
