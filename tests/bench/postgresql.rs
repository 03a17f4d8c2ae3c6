//! The shared ledger: the daemon on PostgreSQL, beside what PostgreSQL does of the same without a ledger, on the same
//! machine, over a Unix socket, with everything synced.
//!
//! # What always holds
//! * The server is this benchmark's own, in a directory beside the build, with settings for this load.
//! * Each round has databases that were empty before it, and a checkpoint just before it.
//! * WAL and CPU are those of everything that the database does meanwhile, and of nothing after the last answer.
//! # What does not
//! The server, the daemons, the load generator and LaunchDarkly share the machine, and the yardstick has no HTTP to
//! speak.

mod bare;
mod database;
#[path = "../postgresql/server.rs"]
mod server;
mod takeover;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use cohortd::sandbox::Sample;
use url::Url;

use crate::daemon::{Daemon, Installation};
use crate::load::Requests;
use crate::report::{Report, Unit};
use crate::scale::Sizes;
use crate::workbench::{
    BATCH_CONNECTIONS, SINGLE_CONNECTIONS, Workbench, batches, count, millis, singles,
};
use bare::Bare;
use database::Bench;

/// The audience of everybody.
const AUDIENCE: Sample = Sample::HIGH_VALUE_CUSTOMERS;
/// What is advised for the load of a ledger.
const SETTINGS: [&str; 4] =
    ["shared_buffers=1GB", "max_wal_size=16GB", "checkpoint_timeout=30min", "max_connections=100"];

/// Measures the daemon and PostgreSQL in turns.
pub fn measure(bench: &Workbench, sizes: &Sizes, report: &mut Report) {
    let server = server::Server::start(Path::new(env!("CARGO_TARGET_TMPDIR")), &SETTINGS);
    let database = Bench::new(server);
    let stand_in = bench.stand_in(1);
    let launchdarkly = stand_in.url();
    let requests = batches(AUDIENCE, 0..sizes.people);
    let alone = singles(AUDIENCE, 0..sizes.singles);
    let some = batches(AUDIENCE, 0..sizes.people / 20);
    let middle = sizes.people / 2;
    let halves = [batches(AUDIENCE, 0..middle), batches(AUDIENCE, middle..sizes.people)];
    for round in 0..=sizes.rounds {
        eprintln!("PostgreSQL, round {round} of {}; the first one does not count", sizes.rounds);
        let mut discarded = Report::default();
        let is_first = round == 0;
        let report = if is_first { &mut discarded } else { &mut *report };
        let requests = if is_first { &some } else { &requests };
        bare_batches(bench, &database, crate::load::events(requests), report);
        paused(bench, &database, &launchdarkly, requests, 1, report);
        bare_singles(bench, &database, sizes.singles, report);
        one_by_one(bench, &database, &launchdarkly, &alone, report);
        paused(bench, &database, &launchdarkly, requests, 2, report);
        backfill(bench, &database, &launchdarkly, &halves, report);
    }
    growth(bench, &database, &launchdarkly, sizes, report);
    bench.stop(stand_in);
    takeover::measure(bench, &database, report);
}

fn bare_batches(bench: &Workbench, database: &Bench, people: u64, report: &mut Report) {
    let config = database.empty().config();
    let written = bench.block_on(async { Bare::new(config).await.batches(people).await });
    report.add("PostgreSQL, yardstick: batches", Unit::PerSecond, written.per_second);
}

fn bare_singles(bench: &Workbench, database: &Bench, people: u64, report: &mut Report) {
    let config = database.empty().config();
    let waiting = SINGLE_CONNECTIONS;
    let written = bench.block_on(async { Bare::new(config).await.singles(people, waiting).await });
    report.add("PostgreSQL, yardstick: single events", Unit::PerSecond, written.per_second);
    let p99 = millis(written.percentile(99));
    report.add("PostgreSQL, yardstick: single events, p99", Unit::Milliseconds, p99);
}

/// Replicas of one ledger, which deliver nothing.
struct Replicas {
    installations: Vec<Installation>,
    daemons: Vec<Daemon>,
}

impl Replicas {
    fn start(url: &str, launchdarkly: &Url, replicas: usize) -> Self {
        let installations: Vec<Installation> =
            (0..replicas).map(|_| Installation::on_database(url, launchdarkly)).collect();
        let daemons: Vec<Daemon> = installations.iter().map(Installation::start).collect();
        daemons[0].pause();
        Self { installations, daemons }
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.daemons.iter().map(|daemon| daemon.public).collect()
    }

    fn stop(self) {
        self.daemons.into_iter().for_each(Daemon::stop);
        drop(self.installations);
    }
}

/// Batches to so many replicas while delivery is paused.
fn paused(
    bench: &Workbench,
    database: &Bench,
    launchdarkly: &Url,
    requests: &Requests,
    replicas: usize,
    report: &mut Report,
) {
    let url = database.empty().url();
    let all = Replicas::start(&url, launchdarkly, replicas);
    let name = if replicas == 1 { "PostgreSQL, batches" } else { "PostgreSQL, two replicas" };
    let meter = database.meter();
    let load = bench.load_among(&all.addresses(), requests, BATCH_CONNECTIONS);
    let used = meter.read();
    let events = crate::load::events(requests);
    report.add(&format!("{name}: answered"), Unit::PerSecond, load.per_second());
    report.add(&format!("{name}: p99"), Unit::Milliseconds, millis(load.percentile(99)));
    report.add(&format!("{name}: WAL an event"), Unit::Bytes, used.wal_bytes / count(events));
    report.add(&format!("{name}: CPU of the database"), Unit::Percent, used.cpu_percent);
    all.stop();
}

fn one_by_one(
    bench: &Workbench,
    database: &Bench,
    launchdarkly: &Url,
    requests: &Requests,
    report: &mut Report,
) {
    let url = database.empty().url();
    let all = Replicas::start(&url, launchdarkly, 1);
    let meter = database.meter();
    let load = bench.load(all.daemons[0].public, requests, SINGLE_CONNECTIONS);
    let used = meter.read();
    let name = "PostgreSQL, single events";
    report.add(&format!("{name}: answered"), Unit::PerSecond, load.per_second());
    report.add(&format!("{name}: p50"), Unit::Milliseconds, millis(load.percentile(50)));
    report.add(&format!("{name}: p99"), Unit::Milliseconds, millis(load.percentile(99)));
    let wal = used.wal_bytes / count(crate::load::events(requests));
    report.add(&format!("{name}: WAL an event"), Unit::Bytes, wal);
    all.stop();
}

/// Everything, from the first post to the last settle. A plan that gets worse with what is written shows in the second
/// half.
fn backfill(
    bench: &Workbench,
    database: &Bench,
    launchdarkly: &Url,
    halves: &[Requests; 2],
    report: &mut Report,
) {
    let installation = Installation::on_database(&database.empty().url(), launchdarkly);
    let daemon = installation.start();
    let [first, second] = halves;
    let events = crate::load::events(first) + crate::load::events(second);
    let name = "PostgreSQL, backfill";
    let began = Instant::now();
    for (half, requests) in [("first half", first), ("second half", second)] {
        let load = bench.load(daemon.public, requests, BATCH_CONNECTIONS);
        report.add(&format!("{name}: {half} answered"), Unit::PerSecond, load.per_second());
    }
    let answered = began.elapsed();
    daemon.until(|counts| counts.included == events && counts.pending == 0);
    let rate = |took: Duration| count(events) / took.as_secs_f64();
    report.add(&format!("{name}: answered"), Unit::PerSecond, rate(answered));
    report.add(&format!("{name}: settled"), Unit::PerSecond, rate(began.elapsed()));
    daemon.stop();
}

/// The same onto a ledger of ten million members as onto one of a million.
fn growth(
    bench: &Workbench,
    database: &Bench,
    launchdarkly: &Url,
    sizes: &Sizes,
    report: &mut Report,
) {
    let newcomers = batches(AUDIENCE, sizes.large..sizes.large + sizes.people);
    for (members, of) in [(sizes.people, "1 M"), (sizes.large, "10 M")] {
        let place = database.empty();
        // The audience comes to be as it always does.
        let all = Replicas::start(&place.url(), launchdarkly, 1);
        bench.load(all.daemons[0].public, &batches(AUDIENCE, 0..1), 1);
        all.stop();
        eprintln!("filling a ledger with {members} members");
        database::fill(&place, members);
        eprintln!("batches onto {of}");
        let all = Replicas::start(&place.url(), launchdarkly, 1);
        let meter = database.meter();
        let load = bench.load(all.daemons[0].public, &newcomers, BATCH_CONNECTIONS);
        let used = meter.read();
        let name = format!("PostgreSQL, onto {of}");
        report.add(&format!("{name}: answered"), Unit::PerSecond, load.per_second());
        let wal = used.wal_bytes / count(crate::load::events(&newcomers));
        report.add(&format!("{name}: WAL an event"), Unit::Bytes, wal);
        all.stop();
        database::remove(&place);
    }
}
