//! Replicas of the daemon that share one ledger through a lease, in simulated time. Clocks differ in pace, wall clocks
//! jump, processes stand still, die or stop in order, and the way to the database is slow, lossy or cut. Two replicas
//! never believe at once that they own the destination, and no member is in two calls at once unless the process of one
//! of them stood still behind its last look. Whatever happens, the segments end as the latest events say.

mod database;
mod process;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{REQUEST_TIMEOUT, Run, on_all_cores, production, simulated};
use crate::clock::{Clock, ManualClock};
use crate::deliver::Courier;
use crate::launchdarkly::Api;
use crate::ledger::Outbox;
use crate::membership::Timestamp;
use database::Database;
use process::{Calls, Link, Process, SharedOutbox};

const RUNS: u64 = 10_000;
/// Once the faults are over, the ledger must be drained within this much simulated time.
const RECOVERY: Duration = Duration::from_secs(900);
/// How long a process pauses at most before it asks the database again.
const REPORTED: Duration = Duration::from_secs(8);
/// Longer than anything that an orderly stop waits for.
const STOP: Duration = Duration::from_secs(120);

/// What happened, over all runs: a simulation in which it does not happen shows nothing.
#[derive(Debug, Default)]
struct Seen {
    takeovers: AtomicUsize,
    overlaps: AtomicUsize,
    late: AtomicUsize,
    unsent: AtomicUsize,
    given_up: AtomicUsize,
    slowest_recovery_s: AtomicUsize,
}

/// A wall clock that is wrong.
#[derive(Debug)]
struct Wall {
    right: ManualClock,
    /// Microseconds.
    ahead: AtomicI64,
}

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        Timestamp(self.right.now().0 + self.ahead.load(Ordering::SeqCst))
    }
}

/// A machine, and the process that runs on it, if one does.
struct Replica {
    wall: Arc<Wall>,
    /// Seconds of its clock since boot in a second.
    pace: f64,
    alive: Option<Alive>,
}

struct Alive {
    process: Arc<Process>,
    stop: CancellationToken,
    courier: JoinHandle<()>,
    keeper: JoinHandle<()>,
}

struct Cluster {
    run: Run,
    database: Arc<Database>,
    replicas: Vec<Replica>,
    ttl: Duration,
}

impl Cluster {
    fn start(seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let (faulty, limited) = (chance.random_range(0.0..0.4), chance.random_bool(0.3));
        let mut run = Run::silent(StdRng::seed_from_u64(chance.random()), faulty, limited);
        // Calls may take longer than any of these leases.
        let ttl = Duration::from_millis(chance.random_range(1_000..8_000));
        let pace = |chance: &mut StdRng| chance.random_range(0.999..1.001);
        let database = Arc::new(Database::new(run.ledger.clone(), pace(&mut chance)));
        let count = if chance.random_bool(0.3) { 3 } else { 2 };
        let replicas = (0..count).map(|_| Replica {
            wall: Arc::new(Wall { right: run.clock.clone(), ahead: AtomicI64::new(0) }),
            pace: pace(&mut chance),
            alive: None,
        });
        let replicas = replicas.collect();
        run.chance = chance;
        let mut cluster = Self { run, database, replicas, ttl };
        for number in 0..count {
            cluster.begin(number);
        }
        cluster
    }

    /// A process begins on a machine.
    fn begin(&mut self, number: usize) {
        let chance = &mut self.run.chance;
        let replica = &mut self.replicas[number];
        let process = Process::new(
            Arc::clone(&self.database),
            replica.pace,
            self.ttl,
            StdRng::seed_from_u64(chance.random()),
        );
        let calls = Calls::new(Arc::clone(&process), Arc::clone(&self.run.model));
        let outbox: Arc<dyn Outbox> = Arc::new(SharedOutbox::new(Arc::clone(&process)));
        let courier = Courier::new(
            production(),
            "client-side-id".to_owned(),
            Arc::new(calls) as Arc<dyn Api>,
            self.run.policy.clone(),
            outbox,
            Arc::clone(&replica.wall) as Arc<dyn Clock>,
            StdRng::seed_from_u64(chance.random()),
            Arc::default(),
        );
        let stop = CancellationToken::new();
        let token = stop.clone();
        let courier = tokio::spawn(async move {
            courier.run(token).await.expect("the ledger answers, sooner or later");
        });
        let keeper = tokio::spawn(Arc::clone(&process).keep());
        replica.alive = Some(Alive { process, stop, courier, keeper });
    }

    /// Something befalls a replica.
    async fn befall(&mut self, number: usize) {
        let chance = &mut self.run.chance;
        let what = chance.random_range(0..15);
        let how_long = self.ttl.mul_f64(chance.random_range(0.1..4.0));
        let day = 86_400_000_000_i64;
        let replica = &mut self.replicas[number];
        let Some(alive) = &replica.alive else { return self.begin(number) };
        match what {
            0 | 1 => self.kill(number),
            2 => self.stop(number).await,
            3 | 4 => alive.process.freeze(how_long),
            5 | 6 => alive.process.freeze_in_a_call(how_long),
            7 | 8 => alive.process.freeze_behind_the_look(how_long),
            9 => alive
                .process
                .link(Link { cut_until: Some(Instant::now() + how_long), ..Link::good() }),
            10 => {
                let loss = chance.random_range(0.1..0.9);
                alive.process.link(Link { loss, ..Link::good() });
            }
            11 => {
                let slowness = self.ttl.mul_f64(chance.random_range(0.001..0.8));
                alive.process.link(Link { slowness, ..Link::good() });
            }
            12 => replica.wall.ahead.store(chance.random_range(-day..day), Ordering::SeqCst),
            _ => alive.process.link(Link::good()),
        }
    }

    /// Ends a process at whatever point it is.
    fn kill(&mut self, number: usize) {
        let Some(alive) = self.replicas[number].alive.take() else { return };
        alive.process.is_gone();
        alive.courier.abort();
        alive.keeper.abort();
    }

    /// Ends a process in order.
    async fn stop(&mut self, number: usize) {
        let Some(alive) = self.replicas[number].alive.take() else { return };
        let Alive { process, stop, courier, keeper } = alive;
        stop.cancel();
        if timeout(STOP, courier).await.is_ok() {
            process.hand_over().await;
        }
        process.is_gone();
        keeper.abort();
    }

    async fn wait(&self, how_long: Duration) {
        let until = Instant::now() + how_long;
        while Instant::now() < until {
            let step = Duration::from_secs(3).min(until - Instant::now());
            self.run.wait(step.max(Duration::from_millis(1))).await;
        }
    }

    async fn until_drained(&self, seed: u64, tally: &Seen) {
        let began = Instant::now();
        let is_drained = || self.run.ledger.is_drained() && self.database.is_quiet();
        let mut drained_since = None;
        // A call that has ended is reported within a few seconds.
        while drained_since.is_none_or(|since: Instant| since.elapsed() < REPORTED) {
            assert!(began.elapsed() < RECOVERY, "seed {seed}: it does not recover");
            self.run.wait(Duration::from_secs(3)).await;
            drained_since = is_drained().then(|| drained_since.unwrap_or_else(Instant::now));
        }
        let took = usize::try_from(began.elapsed().as_secs()).unwrap_or(usize::MAX);
        tally.slowest_recovery_s.fetch_max(took, Ordering::Relaxed);
        // By now any call that is applied late has been applied.
        self.run.wait(REQUEST_TIMEOUT * 5 / 2).await;
        // A probe of a destination that is held may be out at this very moment.
        for _ in 0..5 {
            if is_drained() {
                return;
            }
            self.run.wait(Duration::from_secs(1)).await;
        }
        let (pending, is_quiet) =
            (self.run.ledger.pending(&production()), self.database.is_quiet());
        panic!("seed {seed}: it does not rest: {} wait, {is_quiet}", pending.len());
    }
}

async fn reigns(seed: u64, tally: &Seen) {
    let mut cluster = Cluster::start(seed);
    let (audiences, people) =
        (cluster.run.chance.random_range(1..3), cluster.run.chance.random_range(2..12));
    for _ in 0..cluster.run.chance.random_range(3..8) {
        let count = cluster.run.chance.random_range(1..people * 2);
        cluster.run.events(audiences, people, count).await;
        let pause = cluster.ttl.mul_f64(cluster.run.chance.random_range(0.0..3.0));
        cluster.wait(pause).await;
        let number = cluster.run.chance.random_range(0..cluster.replicas.len());
        cluster.befall(number).await;
    }
    cluster.run.model.be_well();
    for number in 0..cluster.replicas.len() {
        match &cluster.replicas[number].alive {
            Some(alive) => alive.process.be_well(),
            None => cluster.begin(number),
        }
    }
    cluster.until_drained(seed, tally).await;
    // Members that were parked while a spell refused everybody.
    if !cluster.run.ledger.everybody_parked(&production()).is_empty() {
        cluster.run.requeue_all().await;
        cluster.until_drained(seed, tally).await;
    }
    cluster.run.check(seed);
    for number in 0..cluster.replicas.len() {
        cluster.stop(number).await;
    }
    sleep(Duration::from_millis(1)).await; // what was aborted is dropped
    let add = |to: &AtomicUsize, count| _ = to.fetch_add(count, Ordering::Relaxed);
    let counted = cluster.database.counted();
    add(&tally.takeovers, counted.takeovers);
    add(&tally.late, counted.late);
    add(&tally.unsent, counted.unsent);
    add(&tally.given_up, counted.given_up);
    let state = cluster.run.model.state.lock().expect("no run panics with it");
    add(&tally.overlaps, state.overlaps);
}

#[test]
fn ten_thousand_shared_ledgers_end_as_the_latest_events_say() {
    let tally = Seen::default();
    on_all_cores(RUNS, |seed| simulated(reigns(seed, &tally)));
    println!("{tally:?}");
    for (what, count) in [
        ("takeovers", &tally.takeovers),
        ("members in two calls, of which one stood still", &tally.overlaps),
        ("calls that ended late", &tally.late),
        ("batches that were not sent", &tally.unsent),
        ("calls that were given up", &tally.given_up),
    ] {
        assert!(count.load(Ordering::Relaxed) > 50, "it shows nothing without {what}");
    }
}
