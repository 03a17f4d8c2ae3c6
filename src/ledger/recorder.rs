//! The ledger as seen by whoever receives events.

use async_trait::async_trait;

use super::error::{Burden, LedgerError, Obstacle};
use super::intake::{Intake, Recorded};
use crate::membership::Timestamp;

/// Makes requests durable. Implemented by every store, by the tracing layer in front of it, and by a fake in
/// the tests of `receive`.
#[async_trait]
pub trait Recorder: Send + Sync + std::fmt::Debug {
    /// The arrival time for a request that is being read now: the wall clock, but never less than the largest
    /// arrival recorded or given out so far ([P2](crate::design::P2)).
    fn arrival(&self) -> Timestamp;

    /// Makes the intakes of one request durable, one for each destination: all of them or none. Only a
    /// request of more than 4 MiB is recorded in pieces: after an error some of these may be durable, and the
    /// sender repeats the request. Everything is synced when this returns; the outcomes are in the order of
    /// the intakes.
    ///
    /// Waits while the queue in front of the ledger is full: call it with a timeout.
    async fn record_all(&self, intakes: Vec<Intake>) -> Result<Vec<Recorded>, LedgerError>;

    /// Like [`Recorder::record_all`], for a request that concerns one destination.
    async fn record(&self, intake: Intake) -> Result<Recorded, LedgerError> {
        Ok(self.record_all(vec![intake]).await?.pop().unwrap_or_default())
    }

    /// Why [`Recorder::record_all`] cannot succeed now; `None` if it may. Updated even if nobody calls it.
    fn obstacle(&self) -> Option<Obstacle>;

    /// What makes the ledger slower the longer it lasts; `None` if nothing is known to. Updated even if nobody calls it.
    fn burden(&self) -> Option<Burden> {
        None
    }

    /// Whether a part of the ledger has failed: nothing is recorded any more, and the daemon is about to end.
    fn has_failed(&self) -> bool {
        false
    }
}
