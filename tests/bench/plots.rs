//! The plots of the manual: how quick batches are on ledgers of any size, and how long single events
//! wait under a load that is offered and not awaited.
//!
//! `cargo bench --bench throughput -- --what plots [--members-large N]` writes `tests/bench/plots/*.svg`.

use std::path::Path;

use cohortd::sandbox::Sample;

use crate::daemon::{self, Installation};
use crate::fill::fill;
use crate::load;
use crate::plot::{Axis, Line, Plot};
use crate::report::Report;
use crate::workbench::{
    BATCH_CONNECTIONS, SINGLE_CONNECTIONS, Until, Workbench, batches, count, millis, singles,
};

const AUDIENCE: Sample = Sample::HIGH_VALUE_CUSTOMERS;
/// Members of the ledgers.
const SIZES: [u64; 7] = [10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000];
/// New members that are posted onto each, anywhere among those there are.
const POSTED: u64 = 200_000;
/// Single events that are offered in a second, up to the first that are more than can be answered.
const OFFERED: [u64; 10] =
    [1_000, 2_500, 5_000, 10_000, 15_000, 20_000, 25_000, 30_000, 40_000, 50_000];
/// How long each is offered.
const SECONDS: u64 = 2;
/// More connections than requests under way, so that none waits for a connection.
const CONNECTIONS: usize = 4 * SINGLE_CONNECTIONS;

/// Measures, and writes both.
pub fn write(bench: &Workbench, large: u64) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/plots");
    std::fs::create_dir_all(&folder).expect("the package can be written");
    for (file, plot) in [("latency.svg", latency(bench)), ("rate.svg", rate(bench, large))] {
        std::fs::write(folder.join(file), plot.svg()).expect("the package can be written");
    }
}

fn rate(bench: &Workbench, large: u64) -> Plot {
    let (mut answered, mut merged) = (Vec::new(), Vec::new());
    for size in SIZES.into_iter().filter(|size| *size <= large) {
        eprintln!("batches onto {size} members");
        let stand_in = bench.stand_in(1);
        let installation = Installation::new(&stand_in.url());
        let environment = daemon::environment(&stand_in.url());
        bench.stop(stand_in);
        fill(&installation.ledger(), &environment, AUDIENCE, size);
        let requests = batches(AUDIENCE, size..size + POSTED);
        let mut report = Report::default();
        let daemon = installation.start();
        let figures = ("batches", &mut report);
        bench.post(&daemon, &requests, BATCH_CONNECTIONS, Until::Merged, figures);
        let median = |name: &str| report.figure(name).expect("it was measured").median();
        answered.push((count(size), median("batches: answered")));
        merged.push((count(size), median("batches: merged")));
    }
    Plot {
        title: "Batches of 1,000 new members in no order, 16 connections",
        x: Axis { label: "members in the ledger", is_logarithmic: true },
        y: Axis { label: "events a second", is_logarithmic: false },
        lines: vec![
            Line { name: "synced and answered", points: answered },
            Line { name: "until all is merged", points: merged },
        ],
    }
}

fn latency(bench: &Workbench) -> Plot {
    let stand_in = bench.stand_in(1);
    let installation = Installation::new(&stand_in.url());
    bench.stop(stand_in);
    let daemon = installation.start();
    let (mut half, mut most) = (Vec::new(), Vec::new());
    let mut first = 0;
    for offered in OFFERED {
        eprintln!("{offered} single events a second");
        let requests = singles(AUDIENCE, first..first + offered * SECONDS);
        first += offered * SECONDS;
        let load = load::offer(daemon.public, requests, CONNECTIONS, count(offered));
        let load = bench.run(load);
        half.push((count(offered), millis(load.percentile(50))));
        most.push((count(offered), millis(load.percentile(99))));
        if load.per_second() < count(offered) * 0.9 {
            break;
        }
    }
    Plot {
        title: "Single events, offered at a steady rate up to saturation",
        x: Axis { label: "events offered a second", is_logarithmic: false },
        y: Axis { label: "milliseconds to the answer", is_logarithmic: true },
        lines: vec![Line { name: "p50", points: half }, Line { name: "p99", points: most }],
    }
}
