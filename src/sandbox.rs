//! The sandbox: a LaunchDarkly stand-in and sample traffic, for a first look without any account,
//! for tests and for benchmarks.

mod signing;
mod standin;
mod traffic;

pub use signing::sign;
pub use standin::{
    Account, Apply, Call, CallCounts, DeadlinePassed, Fault, Incoming, Keep, SegmentState, StandIn,
    View,
};
pub use traffic::{Backfill, Batch, Event, Sample, Traffic};

/// Runs the daemon against a stand-in for LaunchDarkly, with sample traffic.
#[expect(clippy::unused_async, reason = "wip")]
pub async fn run(_: Option<u64>) -> Result<(), crate::service::ServiceError> {
    Ok(())
}
