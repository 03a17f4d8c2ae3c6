//! The promises, held against the running daemon: one file each.

#![deny(clippy::print_stdout, clippy::print_stderr)] // `note!`
#![expect(clippy::disallowed_methods, reason = "a test may read JSON without `cohortd::json`")]

#[macro_use]
mod runner;

mod actions;
mod admin;
mod attacks;
mod booted;
mod bounds;
mod certificates;
mod check;
mod clocks;
mod config;
mod conformance;
mod containers;
mod convergence;
mod copying;
mod crash_recovery;
mod dashboard;
mod database_faults;
mod deletions;
mod deployment;
mod distant;
mod durability;
mod encrypted;
mod erased;
mod exclusive;
mod expiry;
mod faults;
mod fleet;
mod full_disk;
mod gone_on;
mod guard;
mod hand_in;
mod handed_on;
mod harness;
mod hostile_json;
mod http2;
mod interrupted;
mod isolation;
mod ledger_commands;
mod log_lines;
mod manual;
mod mapping;
mod memory;
mod metrics;
mod modes;
mod moving;
mod needs;
mod npm;
mod openapi;
mod operator;
mod ordering;
mod outage;
mod pages;
mod pooler;
mod postgresql;
mod progress;
mod proxy_protocol;
mod python;
mod reactions;
mod real_world;
mod receive;
mod reconcile;
mod refused;
mod reload;
mod replicas;
mod restore;
mod routes;
mod sandbox;
mod secrecy;
mod segment_sdk;
mod shutdown;
mod signatures;
mod standby;
mod status;
mod supervision;
mod telemetry;
mod terminal;
mod threads;
mod tls;
mod truth;
mod verdict;
mod way;
mod way_in;
mod words;

fn main() -> std::process::ExitCode {
    let files = [
        actions::tests(),
        admin::tests(),
        attacks::tests(),
        booted::tests(),
        bounds::tests(),
        certificates::tests(),
        check::tests(),
        clocks::tests(),
        config::tests(),
        conformance::mapping::tests(),
        conformance::subscription::tests(),
        conformance::sync::tests(),
        containers::tests(),
        convergence::tests(),
        copying::tests(),
        crash_recovery::tests(),
        dashboard::tests(),
        dashboard::layout::tests(),
        dashboard::manual::tests(),
        dashboard::situations::tests(),
        deletions::tests(),
        deployment::tests(),
        distant::tests(),
        durability::tests(),
        erased::tests(),
        exclusive::tests(),
        expiry::tests(),
        faults::tests(),
        full_disk::tests(),
        guard::tests(),
        hand_in::tests(),
        hostile_json::tests(),
        http2::tests(),
        interrupted::tests(),
        interrupted::moving::tests(),
        isolation::tests(),
        ledger_commands::tests(),
        log_lines::tests(),
        manual::tests(),
        mapping::tests(),
        memory::tests(),
        metrics::tests(),
        modes::tests(),
        moving::tests(),
        openapi::tests(),
        operator::tests(),
        ordering::tests(),
        outage::tests(),
        postgresql::tests(),
        progress::tests(),
        proxy_protocol::tests(),
        reactions::tests(),
        real_world::tests(),
        receive::tests(),
        reconcile::tests(),
        refused::tests(),
        reload::tests(),
        restore::tests(),
        routes::tests(),
        runner::tests(),
        sandbox::tests(),
        secrecy::tests(),
        segment_sdk::tests(),
        shutdown::tests(),
        signatures::tests(),
        status::tests(),
        supervision::tests(),
        telemetry::tests(),
        terminal::tests(),
        threads::tests(),
        tls::tests(),
        verdict::tests(),
        words::tests(),
    ];
    runner::run(files.into_iter().flatten().collect()).exit_code()
}
