//! The promises, held against the running daemon: one file each.

mod config;
mod conformance;
mod convergence;
mod harness;
mod ordering;
mod reactions;
mod receive;
