//! The first sync of an audience in batches of 1,000: with LaunchDarkly down, and end to end.

use cohortd::sandbox::Sample;

use crate::daemon::{self, Installation};
use crate::load::Requests;
use crate::report::{Report, Unit};
use crate::workbench::{BATCH_CONNECTIONS, Until, Workbench, batches, count, millis};
use crate::yardstick::Yardstick;

/// Events of the warm-up, which is not reported.
const WARM_UP: u64 = 50_000;

/// Daemon and yardstick take turns, with so many people.
pub fn measure(bench: &Workbench, people: u64, rounds: usize, report: &mut Report) {
    eprintln!("batches, warm-up");
    let some = batches(Sample::HIGH_VALUE_CUSTOMERS, 0..people.min(WARM_UP));
    yardstick(bench, &some, &mut Report::default());
    down(bench, &some, &mut Report::default());
    let requests = batches(Sample::HIGH_VALUE_CUSTOMERS, 0..people);
    for round in 1..=rounds {
        eprintln!("batches, round {round} of {rounds}");
        yardstick(bench, &requests, report);
        down(bench, &requests, report);
        up(bench, &requests, people, report);
    }
}

fn yardstick(bench: &Workbench, requests: &Requests, report: &mut Report) {
    let yardstick = Yardstick::that_reads_and_parses(daemon::shared_secret());
    let load = bench.load(yardstick.address, requests, BATCH_CONNECTIONS);
    report.add("batches, yardstick: answered", Unit::PerSecond, load.per_second());
}

/// Nothing but receiving.
fn down(bench: &Workbench, requests: &Requests, report: &mut Report) {
    let stand_in = bench.stand_in(1);
    let installation = Installation::new(&stand_in.url());
    bench.stop(stand_in);
    let daemon = installation.start();
    let name = "batches, LaunchDarkly down";
    bench.post(&daemon, requests, BATCH_CONNECTIONS, Until::Merged, (name, report));
}

/// Everything, from the first post to the last settle.
fn up(bench: &Workbench, requests: &Requests, people: u64, report: &mut Report) {
    let stand_in = bench.stand_in(1);
    let daemon = Installation::new(&stand_in.url());
    let daemon = daemon.start();
    report.add("start: empty ledger", Unit::Milliseconds, millis(daemon.ready_after));
    report.add("idle, one destination: memory", Unit::Megabytes, daemon.memory().resident_mb);
    let name = "batches, delivery on";
    let (began, taken_at) = std::thread::scope(|scope| {
        let taken_at = scope.spawn(|| bench.taken_at(&stand_in, people));
        let began =
            bench.post(&daemon, requests, BATCH_CONNECTIONS, Until::Settled, (name, report));
        (began, taken_at.join().expect("it does not panic"))
    });
    let taken = count(people) / (taken_at - began).as_secs_f64();
    report.add(&format!("{name}: taken by LaunchDarkly"), Unit::PerSecond, taken);
    let calls = count(people) / count(stand_in.calls().total);
    report.add(&format!("{name}: members a call"), Unit::Count, calls);
}
