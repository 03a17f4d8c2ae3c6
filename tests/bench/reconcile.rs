//! A snapshot of ten million lines against a ledger of ten million members: how long `cohortd reconcile` takes, what
//! the daemon needs for it, how many calls it makes, and what ordinary delivery feels of it.
//!
//! # What always holds
//! * Of a hundred members one is missing from the file, and of a hundred lines one is new: so many calls as the
//!   difference needs, and no more, are the measure.
//! * Beside it single events arrive in another audience, one after the other: the next is posted once LaunchDarkly
//!   was told of the one before. The same is measured before it, of the same daemon.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use cohortd::sandbox::{Backfill, Fault, Sample, StandIn};

use crate::daemon::{self, Daemon, Installation};
use crate::fill::fill;
use crate::report::{Report, Unit};
use crate::workbench::{Workbench, count, millis, singles};

/// The audience of everybody.
const AUDIENCE: Sample = Sample::HIGH_VALUE_CUSTOMERS;
/// The audience of those who arrive beside it.
const BESIDE: Sample = Sample::CART_ABANDONERS;
/// Of so many members one leaves, and of so many lines one is new.
const ONE_OF: u64 = 100;
/// Single events before it.
const BEFORE: u64 = 100;
/// Until LaunchDarkly is told of a single event, at the latest.
const TOLD_WITHIN: Duration = Duration::from_secs(60);

/// Reconciles a ledger of so many members with a file of as many lines.
pub fn measure(bench: &Workbench, people: u64, report: &mut Report) {
    let stand_in = bench.stand_in(1);
    let told = told_of(&stand_in);
    let installation = Installation::new(&stand_in.url());
    eprintln!("recording and draining {people} members");
    fill(&installation.ledger(), &daemon::environment(&stand_in.url()), AUDIENCE, people);
    let daemon = installation.start();
    daemon.until_settled();
    daemon.stop();

    let gone = people / ONE_OF;
    let snapshot = installation.ledger().with_file_name("snapshot.csv");
    write(&snapshot, gone..people + gone).expect("there is space");

    let daemon = installation.start();
    let mut next = people * 2;
    let mut beside = |bench: &Workbench| {
        let latency = told_after(bench, &daemon, &told, next);
        next += 1;
        latency
    };
    let alone: Vec<Duration> = (0..BEFORE).map(|_| beside(bench)).collect();
    let (calls, memory) = (stand_in.calls().total, daemon.memory().resident_mb);

    eprintln!("reconciling {people} lines");
    let began = Instant::now();
    let mut command = daemon.reconcile(AUDIENCE.id, &snapshot);
    let mut during = Vec::new();
    let ended = loop {
        if let Some(status) = command.try_wait().expect("it is our child") {
            break status;
        }
        during.push(beside(bench));
    };
    assert!(ended.success(), "cohortd reconcile ended with {ended}");
    daemon.until_settled();
    let took = began.elapsed();

    report.add("reconcile: lines", Unit::PerSecond, count(people) / took.as_secs_f64());
    report.add("reconcile: time", Unit::Milliseconds, millis(took));
    report.add("reconcile: memory, before", Unit::Megabytes, memory);
    report.add("reconcile: memory, peak", Unit::Megabytes, daemon.memory().peak_mb);
    let ours = during.len() as u64;
    let calls = (stand_in.calls().total - calls).saturating_sub(ours);
    report.add("reconcile: calls", Unit::Count, count(calls));
    for (when, latencies) in [("before", alone), ("beside", during)] {
        let percentile = |percent| millis(percentile(&latencies, percent));
        let name = |what: &str| format!("reconcile: a single event {when} is told, {what}");
        report.add(&name("p50"), Unit::Milliseconds, percentile(50));
        report.add(&name("p99"), Unit::Milliseconds, percentile(99));
    }
    bench.stop(stand_in);
}

/// One context key a line, below the name of the column.
fn write(snapshot: &Path, people: Range<u64>) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(snapshot)?);
    writeln!(file, "user_id")?;
    for person in people {
        writeln!(file, "{}", Backfill::spread_user_id(person))?;
    }
    file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
}

/// When LaunchDarkly was told of somebody who arrived beside the rest.
fn told_of(stand_in: &StandIn) -> Receiver<Instant> {
    let (told, receiver) = mpsc::channel();
    stand_in.script(move |call| {
        if call.audience == BESIDE.id {
            let _ = told.send(Instant::now()); // nobody listens any more
        }
        Fault::None
    });
    receiver
}

/// From the post of a single event until LaunchDarkly is told.
fn told_after(
    bench: &Workbench,
    daemon: &Daemon,
    told: &Receiver<Instant>,
    person: u64,
) -> Duration {
    let began = Instant::now();
    bench.load(daemon.public, &singles(BESIDE, person..person + 1), 1);
    let at = told.recv_timeout(TOLD_WITHIN).expect("LaunchDarkly is told in time");
    at.duration_since(began)
}

fn percentile(latencies: &[Duration], percent: usize) -> Duration {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * percent / 100).copied().unwrap_or_default()
}
