//! `cohortd` stands between Twilio Segment and LaunchDarkly: it takes audience events, makes them
//! durable as membership deltas, and brings LaunchDarkly's synced segments up to date.
//!
//! Modules are named after the steps an event takes. A step imports only steps to its right and the modules
//! below all of them:
//!
//! ```text
//! receive -> map -> ledger -> deliver -> launchdarkly      below all: certificate, membership, clock, counting, current, json, manual, nearest, panics, regular_file
//! ```
//!
//! The exception is `ledger`, which imports no other step: `receive` records in it, and `deliver` imports
//! it to claim from it. `operate` may import any step, and no step imports it. `service` alone wires the
//! steps together and spawns the tasks that live as long as the daemon; `cli` chooses what runs; `main`
//! starts it.
//!
//! The promises, what Segment sends and LaunchDarkly takes, and the reasons for the design: [`design`].

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
