//! What the daemon does in a second, and what that costs: the real binary as a process, on a ledger
//! on a real disk, against yardsticks on the same machine in the same minutes.
//!
//! `cargo bench --bench throughput -- [--what throughput|calls|scale] [--members N] [--quick] [--json FILE]`
//!
//! # What always holds
//! * Requests are made and signed before anything is measured, and the load generator is cheap: it
//!   shares the machine with the daemon.
//! * An answer that does not accept every event of its request ends the run with a panic: nothing
//!   is quick because it was refused.
//! * Daemon and yardstick take turns, so that a ratio compares neighbours in time. Ratios travel
//!   from one machine to another; figures do not.
//! # What does not
//! The yardstick shares its process with the load generator, which spares it nothing but a few
//! switches between processes.

mod arguments;
mod calls;
mod daemon;
mod load;
mod report;
mod scale;
mod yardstick;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use cohortd::membership::Timestamp;
use cohortd::sandbox::{Backfill, Keep, Sample, StandIn, Traffic};
use tokio::runtime::{Builder, Runtime};

use arguments::{Arguments, What};
use daemon::{Daemon, Installation};
use load::{Load, Requests};
use report::{Report, Unit};
use yardstick::Yardstick;

/// Pairs of daemon and yardstick.
const ROUNDS: usize = 3;
/// What Segment opens at once during a backfill, and for single events.
const BATCH_CONNECTIONS: usize = 16;
const SINGLE_CONNECTIONS: usize = 64;
/// Of the first event.
const FROM: Timestamp = Timestamp(1_750_000_000_000_000);
/// Nothing here takes so long unless it is broken.
const DEADLINE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        // `cargo test --all-targets` builds and starts benchmarks too, and wants no figures
        Ok(None) => return ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("{fault}");
            return ExitCode::from(2);
        }
    };
    let mut report = Report::default();
    match arguments.what {
        What::Throughput => {
            let bench = Bench::new(&arguments);
            bench.batches(&mut report);
            bench.singles(&mut report);
        }
        What::Calls => calls::measure(arguments.members, arguments.quick, &mut report),
        What::Scale => scale::measure(arguments.members, &mut report),
    }
    report.print();
    if let Some(file) = &arguments.json
        && let Err(error) = std::fs::write(file, report.json(arguments.members))
    {
        eprintln!("{}: {error}", file.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Whether LaunchDarkly answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LaunchDarkly {
    Up,
    Down,
}

struct Bench {
    members: u32,
    singles: usize,
    /// The load generator has a thread of its own, and so has the stand-in.
    generator: Runtime,
    elsewhere: Runtime,
}

impl Bench {
    fn new(arguments: &Arguments) -> Self {
        let generator = Builder::new_current_thread().enable_all().build();
        let elsewhere = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self {
            members: arguments.members,
            singles: if arguments.quick { 10_000 } else { 60_000 },
            generator: generator.expect("a runtime can be built"),
            elsewhere: elsewhere.expect("a runtime can be built"),
        }
    }

    /// The first sync of an audience, in batches of 1,000.
    fn batches(&self, report: &mut Report) {
        let batches = Backfill::new(Sample::HIGH_VALUE_CUSTOMERS, self.members.into(), FROM);
        let secret = daemon::shared_secret();
        let requests = batches
            .map(|batch| {
                let accepted = u32::try_from(batch.events).expect("1,000 at most");
                load::request(&batch.signature(&secret), &batch.body, accepted)
            })
            .collect::<Requests>();
        for round in 1..=ROUNDS {
            eprintln!("batches, round {round} of {ROUNDS}");
            let yardstick = self.load(
                &Yardstick::that_reads_and_parses(daemon::shared_secret()),
                &requests,
                BATCH_CONNECTIONS,
            );
            let yardstick = yardstick.per_second(self.members);
            report.add("batches: yardstick (reads, checks, parses)", Unit::PerSecond, yardstick);
            for (launchdarkly, name) in
                [(LaunchDarkly::Up, "delivery on"), (LaunchDarkly::Down, "LaunchDarkly down")]
            {
                let durable = self.backfill(&requests, launchdarkly, name, report);
                report.add(&format!("batches: durable, {name}"), Unit::PerSecond, durable);
                let ratio = durable / yardstick;
                report.add(&format!("batches: ratio to yardstick, {name}"), Unit::Ratio, ratio);
            }
        }
    }

    /// Durable events in a second, and beside it the rest of what a backfill shows.
    fn backfill(
        &self,
        requests: &Requests,
        launchdarkly: LaunchDarkly,
        name: &str,
        report: &mut Report,
    ) -> f64 {
        let mut add = |what: &str, unit, value| report.add(&format!("{what}, {name}"), unit, value);
        let stand_in = self.stand_in();
        let installation = Installation::new(&stand_in.url());
        let kept = match launchdarkly {
            LaunchDarkly::Up => Some(stand_in),
            LaunchDarkly::Down => {
                self.generator.block_on(stand_in.stop());
                None
            }
        };
        let daemon = installation.start();
        add("start-up: empty ledger", Unit::Milliseconds, millis(daemon.ready_after));
        add("memory: idle, empty ledger", Unit::Mebibytes, daemon.memory().resident_mib);
        let written = daemon.written_mib();
        let began = Instant::now();
        let load = self.load(&daemon, requests, BATCH_CONNECTIONS);
        let durable = load.per_second(self.members);
        add("batches: p50", Unit::Milliseconds, millis(load.percentile(50)));
        add("batches: p99", Unit::Milliseconds, millis(load.percentile(99)));
        if let Some(stand_in) = &kept {
            let all = u64::from(self.members);
            let delivered = stand_in.until(DEADLINE, |view| view.calls().members >= all);
            self.generator.block_on(delivered).expect("every member is delivered");
            let delivered = f64::from(self.members) / began.elapsed().as_secs_f64();
            add("delivered: first post to last member taken", Unit::PerSecond, delivered);
            let calls = u32::try_from(stand_in.calls().total).expect("few calls");
            let a_call = f64::from(self.members) / f64::from(calls);
            add("delivered: members a call", Unit::Count, a_call);
        }
        let bytes = (daemon.written_mib() - written) * 1024.0 * 1024.0 / f64::from(self.members);
        add("storage: bytes written an event", Unit::Count, bytes);
        add("memory: peak during the backfill", Unit::Mebibytes, daemon.memory().peak_mib);
        daemon.kill();
        let again = installation.start();
        add("start-up: after SIGKILL", Unit::Milliseconds, millis(again.ready_after));
        again.kill();
        durable
    }

    /// People entering and leaving audiences, an event a request.
    fn singles(&self, report: &mut Report) {
        let secret = daemon::shared_secret();
        let requests = Traffic::new(7, self.members, FROM)
            .take(self.singles)
            .map(|event| {
                let body = event.body.as_bytes();
                load::request(&cohortd::sandbox::sign(&secret, body), body, 1)
            })
            .collect::<Requests>();
        let events = u32::try_from(self.singles).expect("few enough");
        for round in 1..=ROUNDS {
            eprintln!("single events, round {round} of {ROUNDS}");
            let stand_in = self.stand_in();
            let installation = Installation::new(&stand_in.url());
            let daemon = installation.start();
            let written = daemon.written_mib();
            let load = self.load(&daemon, &requests, SINGLE_CONNECTIONS);
            let bytes = (daemon.written_mib() - written) * 1024.0 * 1024.0 / f64::from(events);
            daemon.kill();
            let durable = load.per_second(events);
            report.add("single events: durable", Unit::PerSecond, durable);
            report.add("single events: p50", Unit::Milliseconds, millis(load.percentile(50)));
            report.add("single events: p99", Unit::Milliseconds, millis(load.percentile(99)));
            report.add("single events: bytes written an event", Unit::Count, bytes);
            let load = self.load(&Yardstick::that_does_nothing(), &requests, SINGLE_CONNECTIONS);
            let yardstick = load.per_second(events);
            report.add("single events: yardstick (empty handler)", Unit::PerSecond, yardstick);
            let p99 = millis(load.percentile(99));
            report.add("single events: yardstick p99", Unit::Milliseconds, p99);
            report.add("single events: ratio to yardstick", Unit::Ratio, durable / yardstick);
        }
    }

    fn stand_in(&self) -> StandIn {
        let stand_in = self.elsewhere.block_on(StandIn::start(vec![daemon::account()]));
        let stand_in = stand_in.expect("a port on loopback is free");
        stand_in.set_keep(Keep::Counts);
        stand_in
    }

    fn load(&self, server: &impl Server, requests: &Requests, connections: usize) -> Load {
        let run = load::run(server.address(), Requests::clone(requests), connections);
        let run = async { tokio::time::timeout(DEADLINE, run).await };
        self.generator.block_on(run).expect("every request is answered in time")
    }
}

/// What load can be put on.
trait Server {
    fn address(&self) -> std::net::SocketAddr;
}

impl Server for Daemon {
    fn address(&self) -> std::net::SocketAddr {
        self.public
    }
}

impl Server for Yardstick {
    fn address(&self) -> std::net::SocketAddr {
        self.address
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
