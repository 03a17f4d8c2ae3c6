//! Delivery: one courier per destination brings LaunchDarkly's segments up to date.
//!
//! # What always holds
//! * A member is in at most one request in flight ([P3](crate::design::P3)): the ledger claims it for
//!   one batch at a time.
//! * A call is made only where the destination is this process's, as seen directly before, and given up when it may no more be
//!   ([`Outbox::may_call`](crate::ledger::Outbox::may_call)).
//! * A batch is settled, released or parked, never dropped: a member that was not taken stays pending
//!   ([P4](crate::design::P4)).
//! * One bad member, audience or destination delays no other ([P5](crate::design::P5)): audiences take
//!   turns; a refused batch is halved until the offending member is sent alone; and a backoff applies
//!   to one audience, until several audiences have failed.
//!
//! Pure code decides what to do next and how to react to an answer (`dispatch`, `pace`, `concurrency`,
//! `batch_size`, `linger`, `backoff`); the courier only carries the decisions out.

mod backoff;
mod batch_size;
mod concurrency;
mod counters;
mod courier;
mod dispatch;
mod failing;
mod guard;
mod linger;
mod pace;
mod reasons;
#[cfg(test)]
mod simulation;
mod words;

use std::num::NonZeroUsize;
use std::time::Duration;

pub use counters::{Counters, Delivered, Latest, Trouble};
pub use courier::{Change, Courier, CourierError};
pub use dispatch::{Held, Standing};
pub use failing::FailingAudience;

/// The delivery settings of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Most members in one request.
    pub max_batch: NonZeroUsize,
    /// Most bytes in the body of one request; a member that alone exceeds it is sent in a request of
    /// its own.
    pub max_body_bytes: usize,
    /// How long a member may wait so that others share its request; a lone change waits less.
    pub linger: Duration,
    /// Most requests in flight.
    pub concurrency: NonZeroUsize,
    /// Failures never lower the bound on requests in flight below this; `concurrency` if that is less.
    pub min_concurrency: NonZeroUsize,
    /// Longest pause after a first failure; doubles with each further failure, up to `retry_ceiling`.
    pub retry_floor: Duration,
    /// Longest pause between two attempts, and between two probes of a held destination.
    pub retry_ceiling: Duration,
}
