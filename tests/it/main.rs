//! The running program, one file per promise.

mod config;
