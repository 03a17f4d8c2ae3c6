//! The promises, held against the running daemon: one file each.

mod config;
mod conformance;
mod harness;
mod receive;
mod sandbox;
