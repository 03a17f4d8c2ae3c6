//! The sandbox: a LaunchDarkly stand-in and sample traffic, for a first look without any account,
//! for tests and for benchmarks.

mod acts;
mod comparison;
mod sender;
mod session;
mod show;
mod signing;
mod standin;
mod traffic;

pub use comparison::{Difference, differences};
pub use sender::PostError;
pub use session::{Program, SandboxError, run};
pub use signing::sign;
pub use standin::{
    Account, Apply, Call, CallCounts, DeadlinePassed, Fault, Incoming, Keep, SegmentState, StandIn,
    View,
};
pub use traffic::{Backfill, Batch, Event, Sample, Traffic};
