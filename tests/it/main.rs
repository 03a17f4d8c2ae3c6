//! The promises, held against the running daemon: one file each.

mod config;
mod conformance;
mod crash_recovery;
mod durability;
mod exclusive;
mod harness;
mod outage;
mod receive;
mod shutdown;
