//! Couriers against a model of LaunchDarkly, in simulated time. Each of thousands of runs draws random
//! faults, rate limits, kills, configuration changes and clock jumps from one seed. Whatever happens,
//! the segments must end as the latest events say ([P4](crate::design::P4)), no member may be in two
//! requests at once ([P3](crate::design::P3)), and exactly the members that LaunchDarkly refuses are
//! parked.

mod model;
mod replicas;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Change, Courier, Policy};
use crate::clock::{Clock, ManualClock};
use crate::launchdarkly::Api;
use crate::ledger::memory::{Bounds, MemoryLedger};
use crate::ledger::{
    DestinationSettings, GuardLimits, Intake, Members, Operations, Recorder, Retention,
};
use crate::membership::{
    AudienceId, AudienceKey, ContextKey, ContextKind, DestinationName, Membership, MembershipDelta,
    Timestamp,
};
use model::{Inside, Model};

const RUNS: u64 = 10_000;
const CALM_RUNS: u64 = 200;
pub(super) const START: Timestamp = Timestamp(1_750_000_000_000_000);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Once the faults are over, the ledger must be drained within this much simulated time.
const RECOVERY: Duration = Duration::from_secs(4 * 3600);

/// Whoever is remembered is so for good, whatever the clock says.
const FOR_GOOD: Retention =
    Retention { max_age: Duration::MAX, max_count: u64::MAX, max_bytes: u64::MAX };
pub(super) const BOUNDS: Bounds = Bounds {
    tombstone_ttl: Duration::MAX,
    rejected: FOR_GOOD,
    parked: FOR_GOOD,
    max_audiences: usize::MAX,
};

/// Audience and context key.
type Who = (String, String);

/// The parts of one run.
struct Run {
    model: Arc<Model>,
    ledger: MemoryLedger,
    clock: ManualClock,
    policy: Policy,
    chance: StdRng,
    /// The latest event of each member.
    truth: BTreeMap<Who, (i64, bool)>,
    stop: CancellationToken,
    courier: tokio::task::JoinHandle<()>,
    changes: mpsc::UnboundedSender<Change>,
}

impl Run {
    fn start(chance: StdRng, faulty: f64, limited: bool) -> Self {
        let mut run = Self::silent(chance, faulty, limited);
        run.deliver();
        run
    }

    /// One that nobody delivers in yet.
    fn silent(mut chance: StdRng, faulty: f64, limited: bool) -> Self {
        let clock = ManualClock::at(START);
        let max_batch = chance.random_range(1..=20);
        let policy = Policy {
            max_body_bytes: 1 << 20,
            max_batch: NonZeroUsize::new(max_batch).expect("not zero"),
            linger: Duration::from_millis(chance.random_range(0..800)),
            concurrency: NonZeroUsize::new(chance.random_range(1..=6)).expect("not zero"),
            min_concurrency: NonZeroUsize::MIN,
            retry_floor: Duration::from_millis(500),
            retry_ceiling: Duration::from_secs(30),
        };
        let inside = Inside {
            faulty,
            segments: BTreeMap::new(),
            refused: BTreeSet::new(),
            spell: None,
            in_flight: BTreeMap::new(),
            overlaps: 0,
            limit: limited.then(|| chance.random_range(5..60)),
            window: 0,
            used: 0,
            calls: 0,
            rate_limited: 0,
            chance: StdRng::seed_from_u64(chance.random()),
        };
        let model = Arc::new(Model {
            clock: clock.clone(),
            began: Instant::now(),
            max_batch,
            state: Arc::new(Mutex::new(inside)),
        });
        let ledger = MemoryLedger::new(Arc::new(clock.clone()), BOUNDS, destinations());
        Self {
            model,
            ledger,
            clock,
            policy,
            chance,
            truth: BTreeMap::new(),
            stop: CancellationToken::new(),
            courier: tokio::spawn(async {}),
            changes: mpsc::unbounded_channel().0,
        }
    }

    /// Starts a new courier, as after a restart of the process.
    fn deliver(&mut self) {
        self.stop = CancellationToken::new();
        let courier = Courier::new(
            production(),
            "client-side-id".to_owned(),
            Arc::clone(&self.model) as Arc<dyn Api>,
            self.policy.clone(),
            self.ledger.outbox(&production()),
            Arc::new(self.clock.clone()),
            StdRng::seed_from_u64(self.chance.random()),
            Arc::default(),
        );
        self.changes = courier.changes();
        let stop = self.stop.clone();
        self.courier = tokio::spawn(async move {
            courier.run(stop).await.expect("the ledger is there");
        });
    }

    /// Sends the running courier a changed configuration.
    fn change(&mut self) {
        self.policy.linger = Duration::from_millis(self.chance.random_range(0..800));
        let launchdarkly: Arc<dyn Api> = Arc::new(Model::clone(&self.model));
        let policy = self.policy.clone();
        self.changes.send(Change { launchdarkly, policy }).expect("the courier runs");
    }

    /// Random people enter or leave random audiences, some of them with event times out of order.
    async fn events(&mut self, audiences: usize, people: usize, count: usize) {
        let mut deltas = Vec::new();
        for _ in 0..count {
            let audience = format!("aud{}", self.chance.random_range(0..audiences));
            let person = format!("p{}", self.chance.random_range(0..people));
            let event_at = START.0 - self.chance.random_range(0..1000);
            let enters = self.chance.random_bool(0.6);
            deltas.push(delta(&audience, &person, enters, event_at));
            let known = self.truth.entry((audience, person)).or_insert((event_at, enters));
            if event_at >= known.0 {
                *known = (event_at, enters);
            }
        }
        self.record(deltas).await;
    }

    async fn record(&self, deltas: Vec<MembershipDelta>) {
        let intake = Intake {
            destination: production(),
            arrival: self.ledger.arrival(),
            deltas,
            deletions: Vec::new(),
            rejected: Vec::new(),
            origin: crate::ledger::Origin::Events,
        };
        self.ledger.record(intake).await.expect("it takes everything");
    }

    /// What an operator does once LaunchDarkly has recovered.
    async fn requeue_all(&self) {
        for (audience, key) in self.ledger.everybody_parked(&production()) {
            let members = Members { destination: production(), audience, context_keys: vec![key] };
            self.ledger.requeue(members).await.expect("it takes everything");
        }
    }

    async fn wait(&self, how_long: Duration) {
        sleep(how_long).await;
        self.clock.advance(how_long);
        self.ledger.tick();
    }

    /// Kills the process at whatever point it is.
    fn kill(&mut self) {
        self.courier.abort();
        let mut state = self.model.state.lock().expect("no run panics with it");
        state.in_flight.clear();
        drop(state);
        self.ledger = self.ledger.restarted(BOUNDS, destinations());
        self.deliver();
    }

    async fn until_drained(&self, seed: u64) {
        let began = Instant::now();
        while !self.ledger.is_drained() {
            assert!(began.elapsed() < RECOVERY, "seed {seed}: it does not recover");
            self.wait(Duration::from_secs(1)).await;
        }
        // By now any call that is applied late has been applied.
        self.wait(REQUEST_TIMEOUT * 4).await;
        assert!(self.ledger.is_drained(), "seed {seed}: it does not rest");
    }

    /// Every member that LaunchDarkly refuses must be parked; every other must be in its segment as its
    /// latest event says.
    fn check(&self, seed: u64) {
        let state = self.model.state.lock().expect("no run panics with it");
        let parked: BTreeSet<Who> = self
            .ledger
            .everybody_parked(&production())
            .into_iter()
            .map(|(audience, key)| (audience.as_str().to_owned(), key.as_str().to_owned()))
            .collect();
        let known = |who: &&Who| self.truth.contains_key(*who);
        let refused: BTreeSet<Who> = state.refused.iter().filter(known).cloned().collect();
        assert_eq!(parked, refused, "seed {seed}: exactly the refused are parked");
        for (who, (_, included)) in &self.truth {
            let told = state.segments.get(who);
            let expected = (!refused.contains(who)).then_some(included);
            assert_eq!(told, expected, "seed {seed}: {who:?}");
        }
    }
}

async fn storm(seed: u64) {
    let mut chance = StdRng::seed_from_u64(seed);
    let (audiences, people) = (chance.random_range(1..4), chance.random_range(3..40));
    let (faulty, limited) = (chance.random_range(0.0..0.5), chance.random_bool(0.5));
    let poison = if chance.random_bool(0.5) { chance.random_range(1..30) } else { 0 };
    let mut run = Run::start(chance, faulty, limited);
    for _ in 0..poison {
        let audience = format!("aud{}", run.chance.random_range(0..audiences));
        // `p0` is never refused: if every member were, the destination would be held and none parked.
        let person = format!("p{}", run.chance.random_range(1..people));
        let mut state = run.model.state.lock().expect("no run panics with it");
        state.refused.insert((audience, person));
    }
    run.record(vec![delta("aud0", "p0", true, START.0)]).await;
    run.truth.insert(("aud0".to_owned(), "p0".to_owned()), (START.0, true));
    for _ in 0..run.chance.random_range(2..8) {
        let count = run.chance.random_range(1..people * 2);
        run.events(audiences, people, count).await;
        let pause = Duration::from_millis(run.chance.random_range(0..60_000));
        run.wait(pause).await;
        match run.chance.random_range(0..10) {
            0 => run.kill(),
            1 => run.clock.set(run.clock.now().after(Duration::from_secs(86_400))),
            2 => run.clock.set(run.clock.now().before(Duration::from_secs(86_400))),
            3 | 4 => run.change(),
            _ => {}
        }
    }
    run.model.be_well();
    run.until_drained(seed).await;
    // While a spell refused everybody, a few members may have been parked: too few to raise the alarm.
    run.requeue_all().await;
    run.until_drained(seed).await;
    run.check(seed);
    run.stop.cancel();
    run.courier.await.expect("it stops when it is told");
}

/// A run without faults; returns the number of calls made and the fewest possible.
async fn calm(seed: u64, limited: bool) -> (usize, usize) {
    let mut chance = StdRng::seed_from_u64(seed);
    let audiences: Vec<usize> =
        (0..chance.random_range(1..5)).map(|_| chance.random_range(1..400)).collect();
    let mut run = Run::start(chance, 0.0, limited);
    let mut deltas = Vec::new();
    for (audience, people) in audiences.iter().enumerate() {
        for person in 0..*people {
            let who = (format!("aud{audience}"), format!("p{person}"));
            deltas.push(delta(&who.0, &who.1, true, START.0));
            run.truth.insert(who, (START.0, true));
        }
    }
    run.record(deltas).await;
    run.until_drained(seed).await;
    run.check(seed);
    let state = run.model.state.lock().expect("no run panics with it");
    if limited {
        assert_eq!(state.rate_limited, 0, "seed {seed}: it slows down before the limit");
    }
    let fewest = audiences.iter().map(|people| people.div_ceil(run.model.max_batch)).sum();
    (state.calls, fewest)
}

fn simulated<T>(run: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a small runtime").block_on(run)
}

pub(super) fn delta(audience: &str, person: &str, enters: bool, event_at: i64) -> MembershipDelta {
    MembershipDelta {
        audience: AudienceId::new(audience).expect("not empty"),
        audience_key: AudienceKey::new(audience).expect("not empty"),
        context_kind: ContextKind::new("user").expect("a kind"),
        context_key: ContextKey::new(person).expect("not empty"),
        membership: Membership::from_bool(enters),
        event_at: Timestamp(event_at),
        user_id: None,
        key_rule: 1,
        message: None,
    }
}

pub(super) fn production() -> DestinationName {
    DestinationName::new("production").expect("not empty")
}

pub(super) fn destinations() -> Vec<DestinationSettings> {
    vec![DestinationSettings {
        name: production(),
        environment: "https://launchdarkly.test".to_owned(),
        repeat_window: Duration::from_secs(3600),
        reassert_after: REQUEST_TIMEOUT * 2,
        expires_after: BTreeMap::new(),
        guard: GuardLimits::default(),
    }]
}

/// Spreads the seeds over one thread per core: runs share neither a clock nor a random generator.
fn on_all_cores(seeds: u64, run: impl Fn(u64) + Sync) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for core in 0..cores {
            let run = &run;
            scope.spawn(move || (0..seeds).skip(core).step_by(cores).for_each(run));
        }
    });
}

#[test]
fn ten_thousand_storms_end_as_the_latest_events_say() {
    on_all_cores(RUNS, |seed| simulated(storm(seed)));
}

/// Six hours of nothing but 503, while events keep arriving.
async fn outage(seed: u64) {
    const HOURS: u32 = 6;
    let mut run = Run::start(StdRng::seed_from_u64(seed), 0.0, false);
    let until = Instant::now() + Duration::from_secs(3600) * HOURS;
    run.model.state.lock().expect("no run panics with it").spell = Some((until, 503));
    while Instant::now() < until {
        run.events(3, 200, 20).await;
        run.wait(Duration::from_secs(300)).await;
    }
    let calls = run.model.state.lock().expect("no run panics with it").calls;
    // Per audience at most one call in half a retry ceiling, on average.
    assert!(calls < 3 * 6 * 3600 / 10, "seed {seed}: {calls} calls into an outage");
    run.until_drained(seed).await;
    run.check(seed);
}

#[test]
fn six_hours_of_outage_are_waited_out_without_hammering() {
    on_all_cores(20, |seed| simulated(outage(seed)));
}

#[test]
fn in_calm_weather_calls_are_within_a_tenth_of_the_fewest_possible() {
    let counted = Mutex::new((0, 0));
    on_all_cores(CALM_RUNS, |seed| {
        let (calls, fewest) = simulated(calm(seed, false));
        assert!(calls * 10 <= fewest * 11, "seed {seed}: {calls} calls instead of {fewest}");
        let mut counted = counted.lock().expect("no run panics with it");
        *counted = (counted.0 + calls, counted.1 + fewest);
    });
    let (calls, fewest) = counted.into_inner().expect("no run panicked");
    println!("{calls} calls, and {fewest} are the fewest possible");
}

#[test]
fn a_limit_that_is_ours_alone_is_never_exceeded() {
    on_all_cores(CALM_RUNS, |seed| _ = simulated(calm(seed, true)));
}
