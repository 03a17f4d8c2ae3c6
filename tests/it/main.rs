//! The promises, held against the running daemon: one file each.

mod attacks;
mod config;
mod conformance;
mod convergence;
mod crash_recovery;
mod deployment;
mod durability;
mod exclusive;
mod faults;
mod harness;
mod isolation;
mod ledger_commands;
mod mapping;
mod metrics;
mod operator;
mod ordering;
mod outage;
mod reactions;
mod receive;
mod sandbox;
mod secrecy;
mod segment_sdk;
mod shutdown;
mod status;
mod supervision;
mod telemetry;
