//! The promises, held against the running daemon: one file each.

#![expect(clippy::disallowed_methods, reason = "a test may read JSON without `cohortd::json`")]

mod actions;
mod attacks;
mod bounds;
mod config;
mod conformance;
mod convergence;
mod crash_recovery;
mod dashboard;
mod deployment;
mod durability;
mod erased;
mod exclusive;
mod faults;
mod full_disk;
mod hand_in;
mod harness;
mod hostile_json;
mod http2;
mod interrupted;
mod isolation;
mod ledger_commands;
mod mapping;
mod metrics;
mod npm;
mod openapi;
mod operator;
mod ordering;
mod outage;
mod progress;
mod reactions;
mod receive;
mod reload;
mod restore;
mod routes;
mod sandbox;
mod secrecy;
mod segment_sdk;
mod shutdown;
mod signatures;
mod status;
mod supervision;
mod telemetry;
mod terminal;
mod tls;
