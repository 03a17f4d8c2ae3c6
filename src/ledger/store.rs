//! The configured ledger. Its owner opens, configures and closes it; everybody else sees one of its traits.

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
    /// Opens the ledger, creating it if it does not exist. Nothing is written until [`Writer::run`] runs.
    pub fn open(settings: Settings, clock: Arc<dyn Clock>) -> Result<(Self, Writer), OpenError> {
        let (ledger, writer) = EmbeddedLedger::open(settings, clock)?;
        Ok((Self(Arc::new(ledger)), writer))
    }

    /// The ledger as seen by whoever receives events.
    #[must_use]
    pub fn recorder(&self) -> Arc<dyn Recorder> {
        Arc::clone(&self.0) as Arc<dyn Recorder>
    }

    /// The ledger as seen by the courier of a destination.
    #[must_use]
    pub fn outbox(&self, destination: &DestinationName) -> Arc<dyn Outbox> {
        self.0.outbox_of(destination)
    }

    /// The ledger as seen by operators.
    #[must_use]
    pub fn operations(&self) -> Arc<dyn Operations> {
        Arc::clone(&self.0) as Arc<dyn Operations>
    }

    /// Replaces the configured destinations. A destination whose environment has changed forgets what was
    /// told, so none of its calls may be in flight. One that is no longer configured keeps its rows, and
    /// events and reports already under way to it are still applied.
    pub async fn configure(
        &self,
        destinations: Vec<DestinationSettings>,
    ) -> Result<(), LedgerError> {
        self.0.configure(destinations).await
    }

    /// Commits what is queued, empties the log and SQLite's log into the tables, and closes the database.
    /// Every later call fails with [`LedgerError::Closed`].
    pub async fn close(&self) {
        self.0.close().await;
    }

    /// Like [`Self::close`], but stops emptying the logs at the deadline `by`: the next start does the rest.
    pub async fn close_by(&self, by: Instant) {
        self.0.close_by(by).await;
    }
}
