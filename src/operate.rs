//! What an operator sees of the daemon. May look at any step; no step looks at it.

pub mod actions;
pub mod admin;
pub mod api;
pub mod explain;
pub mod logging;
pub mod problem;
pub mod status;
