//! What the daemon does in a second, and what that costs: the real binary as a process, on a ledger
//! on a real disk, against yardsticks on the same machine in the same minutes.
//!
//! `cargo bench --bench throughput -- [--what all|throughput|batches|singles|churn|calls|scale|reconcile|idle|plots|
//! postgresql]
//! [--members N] [--members-large N] [--quick] [--json FILE]`
//!
//! # What always holds
//! * Requests are made and signed before anything is measured, and the load generator is cheap: it
//!   shares the machine with the daemon.
//! * An answer that does not accept every event of its request ends the run with a panic: nothing
//!   is quick because it was refused.
//! * Daemon and yardstick take turns, so that a ratio compares neighbours in time. Ratios travel
//!   from one machine to another; figures do not.
//! * Nothing hides in a backlog: beside what was answered stands what the ledger shows as merged.
//! * Context keys arrive in no order of their own, as UUIDs do.
//! # What does not
//! The yardstick shares its process with the load generator, which spares it nothing but a few
//! switches between processes.

mod arguments;
mod batches;
mod calls;
mod churn;
mod control_group;
mod daemon;
mod fill;
mod idle;
mod load;
mod plot;
mod plots;
#[cfg(has_postgresql)]
mod postgresql;
mod reconcile;
mod report;
mod scale;
mod singles;
mod targets;
mod workbench;
mod yardstick;

use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use arguments::{Arguments, What};
use report::{Report, Unit};
use scale::Sizes;
use workbench::{Workbench, count};

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
    if arguments.what == What::Plots {
        plots::write(&Workbench::new(), arguments.members_large);
        return ExitCode::SUCCESS;
    }
    let report = measure(&arguments);
    report.print();
    println!();
    println!(
        "\"1 M\" stands for {} members here, \"10 M\" for {}",
        arguments.members, arguments.members_large
    );
    targets::print(&report);
    if let Some(file) = &arguments.json {
        let json = json!({
            "members": arguments.members,
            "members_large": arguments.members_large,
            "targets": targets::json(&report),
            "figures": report.json(),
        });
        if let Err(error) = std::fs::write(file, format!("{json:#}\n")) {
            eprintln!("{}: {error}", file.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn measure(arguments: &Arguments) -> Report {
    let &Arguments { what, members, members_large, quick, .. } = arguments;
    let (bench, mut report) = (Workbench::new(), Report::default());
    let rounds = 3;
    let singles = if quick { 10_000 } else { 60_000 };
    let wants = |part| what == part || what == What::All;
    if wants(What::Batches) || what == What::Throughput {
        batches::measure(&bench, members, rounds, &mut report);
    }
    if wants(What::Singles) || what == What::Throughput {
        singles::measure(&bench, members, singles, rounds, &mut report);
    }
    if wants(What::Churn) || what == What::Throughput {
        churn::measure(&bench, if quick { 20_000 } else { 100_000 }, rounds, &mut report);
    }
    if wants(What::Calls) {
        calls::measure(&bench, members, if quick { 4 } else { 15 }, &mut report);
    }
    if wants(What::Scale) {
        let sizes =
            Sizes { people: members, large: members_large, singles: singles as u64, rounds };
        scale::measure(&bench, &sizes, &mut report);
    }
    if wants(What::Reconcile) {
        reconcile::measure(&bench, members_large, &mut report);
    }
    if what == What::Postgresql {
        postgresql(&bench, arguments, singles as u64, &mut report);
    }
    if wants(What::Idle) {
        idle::measure(&bench, Duration::from_secs(if quick { 10 } else { 30 }), &mut report);
        let binary = std::fs::metadata(env!("CARGO_BIN_EXE_cohortd")).expect("it was built");
        report.add("release binary", Unit::Megabytes, count(binary.len()) / 1e6);
    }
    report
}

#[cfg(has_postgresql)]
fn postgresql(bench: &Workbench, arguments: &Arguments, singles: u64, report: &mut Report) {
    let &Arguments { members: people, members_large: large, .. } = arguments;
    let sizes = Sizes { people, large, singles, rounds: 3 };
    postgresql::measure(bench, &sizes, report);
}

#[cfg(not(has_postgresql))]
fn postgresql(_: &Workbench, _: &Arguments, _: u64, _: &mut Report) {
    eprintln!("PostgreSQL is not installed here: there is nothing to measure");
}
