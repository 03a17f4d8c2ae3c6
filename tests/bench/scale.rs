//! Ten million members: what a ledger of them does beside one of a million, and what it takes in memory
//! and at a start.
//!
//! # What always holds
//! * User ids are spread like hashes, so that neighbours in time are none in the ledger: the case that
//!   costs most.
//! * Every run begins with a copy of the same ledger, of which LaunchDarkly was told everything.
//! * Its backlog is drained in a control group with 256 MiB, the page cache included, where the system
//!   lets us make one; the report says whether it did.
//! # What does not
//! The machine's memory holds the ledger in its page cache: a disk that must be read is not measured.

use std::time::{Duration, Instant};

use cohortd::sandbox::{Sample, StandIn};

use crate::control_group::ControlGroup;
use crate::daemon::{self, Installation};
use crate::fill::fill;
use crate::load::Requests;
use crate::report::{Report, Unit};
use crate::workbench::{
    BATCH_CONNECTIONS, SINGLE_CONNECTIONS, Until, Workbench, batches, count, millis, singles,
};

/// The audience of everybody.
const AUDIENCE: Sample = Sample::HIGH_VALUE_CUSTOMERS;
/// How long memory is watched.
const WATCHED: Duration = Duration::from_secs(10);

/// How many.
pub struct Sizes {
    /// Members of the smaller ledger, and new ones that are posted.
    pub people: u64,
    /// Members of the larger ledger.
    pub large: u64,
    /// Events that are posted alone.
    pub singles: u64,
    pub rounds: usize,
}

/// Compares the two ledgers.
pub fn measure(bench: &Workbench, sizes: &Sizes, report: &mut Report) {
    let group = ControlGroup::make();
    let limit = count(group.limit_bytes()) / 1e6;
    report.add("10 M: memory limit of the drain (0: none could be set)", Unit::Megabytes, limit);
    let stand_in = bench.stand_in(1);
    let small = told(&stand_in, sizes.people, "1 M", &group, report);
    let large = told(&stand_in, sizes.large, "10 M", &group, report);
    let launchdarkly = stand_in.url();
    bench.stop(stand_in);

    let newcomers = sizes.large..sizes.large + sizes.people;
    let posts = [
        ("another audience", batches(Sample::CART_ABANDONERS, newcomers.clone())),
        ("the same audience", batches(AUDIENCE, newcomers.clone())),
    ];
    for round in 1..=sizes.rounds {
        for (what, requests) in &posts {
            for (ledger, of) in [(&small, "1 M"), (&large, "10 M")] {
                eprintln!("batches onto {of}, {what}, round {round} of {}", sizes.rounds);
                let daemon = ledger.copy(&launchdarkly);
                let daemon = daemon.start();
                let name = format!("onto {of}, {what}");
                let report = (&*name, &mut *report);
                bench.post(&daemon, requests, BATCH_CONNECTIONS, Until::Merged, report);
            }
        }
        eprintln!("single events onto 1 M, round {round} of {}", sizes.rounds);
        let daemon = small.copy(&launchdarkly);
        let daemon = daemon.start();
        let alone = singles(AUDIENCE, newcomers.start..newcomers.start + sizes.singles);
        let report = ("onto 1 M, single events", &mut *report);
        bench.post(&daemon, &alone, SINGLE_CONNECTIONS, Until::Merged, report);
    }
    let [_, (_, requests)] = posts;
    killed(bench, &large.copy(&launchdarkly), &requests, report);
}

/// A ledger of so many members, all of which LaunchDarkly was told.
fn told(
    stand_in: &StandIn,
    people: u64,
    name: &str,
    group: &ControlGroup,
    report: &mut Report,
) -> Installation {
    eprintln!("recording {people} members");
    let installation = Installation::new(&stand_in.url());
    let began = Instant::now();
    let environment = daemon::environment(&stand_in.url());
    fill(&installation.ledger(), &environment, AUDIENCE, people);
    let rate = |began: Instant| count(people) / began.elapsed().as_secs_f64();
    report.add(&format!("{name}: recorded by the ledger alone"), Unit::PerSecond, rate(began));

    eprintln!("draining {people} members");
    let began = Instant::now();
    let daemon = installation.start_in(group.tasks().as_deref());
    let ready = millis(daemon.ready_after);
    report.add(&format!("{name}: start, all pending"), Unit::Milliseconds, ready);
    daemon.until_settled();
    report.add(&format!("{name}: drained"), Unit::PerSecond, rate(began));
    let peak = daemon.memory().peak_mb;
    report.add(&format!("{name}: memory, peak of the drain"), Unit::Megabytes, peak);
    daemon.stop();
    let files = std::fs::read_dir(installation.ledger()).expect("it is there");
    let size: u64 =
        files.map(|file| file.and_then(|file| file.metadata()).map_or(0, |of| of.len())).sum();
    report.add(&format!("{name}: size of the ledger"), Unit::Megabytes, count(size) / 1e6);
    installation
}

/// The worst end, right behind the last answer, and what comes after it.
fn killed(bench: &Workbench, large: &Installation, requests: &Requests, report: &mut Report) {
    eprintln!("killing the daemon behind the last answer");
    let daemon = large.start();
    let expected = daemon.counts().included + crate::load::events(requests);
    bench.load(daemon.public, requests, BATCH_CONNECTIONS);
    let before = daemon.memory().peak_mb;
    daemon.kill();
    let daemon = large.start();
    let ready = millis(daemon.ready_after);
    report.add("start: 10 M members, after SIGKILL", Unit::Milliseconds, ready);
    daemon.until(|counts| counts.included == expected);
    std::thread::sleep(WATCHED);
    let memory = daemon.memory();
    report.add("10 M, 1 M pending: memory, at rest", Unit::Megabytes, memory.resident_mb);
    let peak = memory.peak_mb.max(before);
    report.add("10 M, 1 M pending: memory, peak", Unit::Megabytes, peak);
}
