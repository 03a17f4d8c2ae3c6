//! What the daemon does when there is nothing to do.

use std::time::Duration;

use cohortd::sandbox::{Backfill, Sample};

use crate::daemon::{self, Installation};
use crate::load;
use crate::report::{Report, Unit};
use crate::workbench::{FROM, Workbench, count};

const DESTINATIONS: u32 = 10;
/// After the last settle, so that what is due soon after it is done.
const AFTERWARDS: Duration = Duration::from_secs(5);

/// Watches a daemon of ten destinations, each of which has told LaunchDarkly something, for so long.
pub fn measure(bench: &Workbench, watched: Duration, report: &mut Report) {
    eprintln!("idle with {DESTINATIONS} destinations for {watched:?}");
    let stand_in = bench.stand_in(DESTINATIONS);
    let daemon = Installation::with_destinations(DESTINATIONS, &stand_in.url());
    let daemon = daemon.start();
    let batch = Backfill::spread(Sample::HIGH_VALUE_CUSTOMERS, 0..1, FROM).next();
    let batch = batch.expect("one person");
    let signature = batch.signature(&daemon::shared_secret());
    let requests = (0..DESTINATIONS)
        .map(|number| load::request(&daemon::name(number), &signature, &batch.body, 1))
        .collect();
    bench.load(daemon.public, &requests, 1);
    daemon.until_settled();
    std::thread::sleep(AFTERWARDS);
    let before = daemon.effort();
    std::thread::sleep(watched);
    let after = daemon.effort();
    let seconds = watched.as_secs_f64();
    let wake_ups = count(after.wake_ups - before.wake_ups) / seconds;
    report.add("idle, ten destinations: wake-ups", Unit::PerSecond, wake_ups);
    // a tick is a hundredth of a second
    let busy = count(after.ticks - before.ticks) / seconds;
    report.add("idle, ten destinations: CPU", Unit::Percent, busy);
    report.add("idle, ten destinations: memory", Unit::Megabytes, daemon.memory().resident_mb);
}
