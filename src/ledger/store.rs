//! The ledger that is configured. Whoever opens it tells it which destinations there are, and closes it; everybody
//! else sees one of its sides.

use std::sync::Arc;

use tokio::time::Instant;

use super::embedded::{DestinationSettings, EmbeddedLedger, OpenError, Settings, Writer};
use super::error::LedgerError;
use super::operations::Operations;
use super::outbox::Outbox;
use super::recorder::Recorder;
use crate::clock::Clock;
use crate::membership::DestinationName;

/// An open ledger.
#[derive(Clone, Debug)]
pub struct Store(Arc<EmbeddedLedger>);

impl Store {
    /// Opens the ledger, made if it is not there. Nothing is written until [`Writer::run`] runs.
    pub fn open(settings: Settings, clock: Arc<dyn Clock>) -> Result<(Self, Writer), OpenError> {
        let (ledger, writer) = EmbeddedLedger::open(settings, clock)?;
        Ok((Self(Arc::new(ledger)), writer))
    }

    /// As whoever receives events sees it.
    #[must_use]
    pub fn recorder(&self) -> Arc<dyn Recorder> {
        Arc::clone(&self.0) as Arc<dyn Recorder>
    }

    /// As the courier of a destination sees it.
    #[must_use]
    pub fn outbox(&self, destination: &DestinationName) -> Arc<dyn Outbox> {
        self.0.outbox_of(destination)
    }

    /// As people see it.
    #[must_use]
    pub fn operations(&self) -> Arc<dyn Operations> {
        Arc::clone(&self.0) as Arc<dyn Operations>
    }

    /// From here on these are the destinations that are configured, and this is what is known of them.
    /// One whose environment has changed forgets what was told: no call to it may be out. One that is
    /// not among them any more keeps its rows, and what was on its way to them still arrives.
    pub async fn configure(
        &self,
        destinations: Vec<DestinationSettings>,
    ) -> Result<(), LedgerError> {
        self.0.configure(destinations).await
    }

    /// Commits what is queued, empties the logs into the tables, and closes the database. Every later
    /// verb is answered [`LedgerError::Closed`].
    pub async fn close(&self) {
        self.0.close().await;
    }

    /// The same, but the logs are emptied only as far as they can be until `by`: the rest is left to
    /// the next start.
    pub async fn close_by(&self, by: Instant) {
        self.0.close_by(by).await;
    }
}
