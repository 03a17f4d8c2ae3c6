//! What an operator sees and controls of the daemon. It may look at any step; no step looks at it.

pub mod access;
pub mod actions;
pub mod admin;
pub mod api;
pub mod clocks;
pub mod configuration;
pub mod dashboard;
pub mod entries;
pub mod explain;
pub mod history;
pub mod logging;
pub mod manual;
pub mod metrics;
pub mod note;
pub mod problem;
mod reconcile;
pub mod refusals;
pub mod sources;
pub mod status;
pub mod telemetry;
pub mod verdict;
pub mod whole;
