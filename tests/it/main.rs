//! The promises, held against the running daemon: one file each.

mod config;
mod conformance;
mod convergence;
mod harness;
mod isolation;
mod ordering;
mod reactions;
mod receive;
mod secrecy;
