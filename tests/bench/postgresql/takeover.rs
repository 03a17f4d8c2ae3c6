//! How long nobody delivers when the owner of a destination dies without a word.

use std::time::{Duration, Instant};

use crate::daemon::Installation;
use crate::postgresql::AUDIENCE;
use crate::postgresql::database::Bench;
use crate::report::{Report, Unit};
use crate::workbench::{Workbench, count, millis, singles};

/// What `ledger.lease_ttl_s` is here, in seconds: a tenth of the default, so that many owners can die.
const TTL: u64 = 2;
/// How many die.
const OWNERS: u64 = 32;

/// Kills one owner after the other, each just before an event reaches the other replica, and measures the time until it is told.
/// Then the dead one is started again, and waits to take over from that one.
pub fn measure(bench: &Workbench, database: &Bench, report: &mut Report) {
    eprintln!("PostgreSQL, {OWNERS} owners die");
    let stand_in = bench.stand_in(1);
    let (url, launchdarkly) = (database.empty().url(), stand_in.url());
    let [first, second] = [(); 2]
        .map(|()| Installation::on_database(&url, &launchdarkly).with("LEDGER__LEASE_TTL_S", &TTL));
    let (mut owner, mut other) = (first.start(), second.start());
    let (mut owners_place, mut others_place) = (&first, &second);
    bench.load(owner.public, &singles(AUDIENCE, 0..1), 1);
    bench.taken_at(&stand_in, 1);
    owner.until_settled();
    let mut took: Vec<Duration> = Vec::new();
    for turn in 1..=OWNERS {
        owner.kill();
        let died = Instant::now();
        bench.load(other.public, &singles(AUDIENCE, turn..turn + 1), 1);
        took.push(bench.taken_at(&stand_in, turn + 1) - died);
        other.until_settled();
        (owner, other) = (other, owners_place.start());
        std::mem::swap(&mut owners_place, &mut others_place);
    }
    owner.stop();
    other.stop();
    bench.stop(stand_in);
    took.sort_unstable();
    let percentile = |percent: usize| millis(took[((took.len() - 1) * percent).div_ceil(100)]);
    let name = "PostgreSQL, take-over";
    report.add(&format!("{name}: ttl"), Unit::Milliseconds, count(TTL * 1000));
    report.add(&format!("{name}: p50"), Unit::Milliseconds, percentile(50));
    report.add(&format!("{name}: p99"), Unit::Milliseconds, percentile(99));
}
