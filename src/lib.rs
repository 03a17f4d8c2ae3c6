//! `cohortd` stands between Twilio Segment and LaunchDarkly: it takes audience events, makes them
//! durable as membership deltas, and brings LaunchDarkly's synced segments up to date.
//!
//! Modules are named after the steps an event takes; a step imports only what stands to its right:
//!
//! ```text
//! receive -> map -> ledger -> deliver -> launchdarkly      below all: certificate, membership, clock, counting, current, json, manual, nearest, panics, regular_file
//! ```
//!
//! `ledger` knows neither neighbour. `operate` may look at any step and no step looks at it;
//! `service` is the only place that wires and spawns; `cli` chooses; `main` starts.
//!
//! What is promised, what both neighbours send and take, and why things are as they are: [`design`].

#![cfg_attr(
    test,
    expect(clippy::disallowed_methods, reason = "a test may read its own JSON without `json`")
)]

pub mod certificate;
pub mod cli;
pub mod clock;
pub mod config;
pub mod counting;
pub mod current;
pub mod deliver;
pub mod design;
pub mod json;
pub mod launchdarkly;
pub mod ledger;
pub mod manual;
pub mod map;
pub mod membership;
pub mod nearest;
pub mod operate;
pub mod panics;
pub mod receive;
pub mod regular_file;
pub mod sandbox;
pub mod secret;
#[cfg(test)]
mod seeds;
pub mod service;
