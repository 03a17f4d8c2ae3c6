//! The ledger as whoever receives events sees it.

use async_trait::async_trait;

use super::error::LedgerError;
use super::intake::{Intake, Recorded};
use crate::membership::Timestamp;

/// Makes what requests bring durable. Implemented by every store, by what traces the requests in front of one, and by
/// the stand-in that the tests of receiving hand their events to.
#[async_trait]
pub trait Recorder: Send + Sync + std::fmt::Debug {
    /// The time of arrival for a request that is being read now: the wall clock, but never less
    /// than the largest arrival recorded or told so far ([P2](crate::design::P2)).
    fn arrival(&self) -> Timestamp;

    /// Makes the intakes of one request durable, one for each destination: all of them or none, in one
    /// transaction with one sync. Everything is synced when this returns; the answers are in their order.
    ///
    /// Waits while the queue in front of the ledger is full: bound it with a timeout.
    async fn record_all(&self, intakes: Vec<Intake>) -> Result<Vec<Recorded>, LedgerError>;

    /// The same for a request that concerns one destination.
    async fn record(&self, intake: Intake) -> Result<Recorded, LedgerError> {
        Ok(self.record_all(vec![intake]).await?.pop().unwrap_or_default())
    }

    /// Whether [`Recorder::record_all`] may succeed: not while the disk has no space to give. It is found
    /// out again without anybody calling.
    fn takes_writes(&self) -> bool;

    /// Whether a part of the ledger has failed: nothing is recorded any more, and the daemon is about to
    /// end.
    fn has_failed(&self) -> bool {
        false
    }
}
