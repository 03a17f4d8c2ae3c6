//! The configured ledger. Its owner opens, configures and closes it; everybody else sees one of its traits.

use std::sync::Arc;

use tokio::time::Instant;

use super::embedded::{DestinationSettings, EmbeddedLedger, OpenError, Settings, Writer};
use super::error::{LedgerError, Obstacle, WriterFailure};
use super::operations::Operations;
use super::outbox::Outbox;
use super::postgres::{Keeper, PostgresLedger, SharedSettings};
use super::recorder::Recorder;
use crate::clock::Clock;
use crate::membership::DestinationName;

/// Which ledger is used, and how.
#[derive(Clone, Debug)]
pub enum StoreSettings {
    /// A directory of this machine.
    Embedded(Settings),
    /// A database that replicas share.
    Shared(Box<SharedSettings>),
}

/// An open ledger.
#[derive(Clone, Debug)]
pub enum Store {
    /// In a directory of this machine.
    Embedded(Arc<EmbeddedLedger>),
    /// In a database that replicas share.
    Shared(Arc<PostgresLedger>),
}

/// What writes to an open ledger: a thread of its own runs it until the ledger is closed.
#[derive(Debug)]
pub enum StoreWriter {
    /// Of a directory.
    Embedded(Box<Writer>),
    /// Of a database.
    Shared(Keeper),
}

/// Why a ledger could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The one in a directory.
    #[error(transparent)]
    Embedded(#[from] OpenError),
    /// The one in a database; the text says what to do.
    #[error("{0}")]
    Shared(String),
}

impl StoreError {
    /// What a daemon waits for instead of ending; `None`: waiting does not help.
    #[must_use]
    pub fn obstacle(&self) -> Option<Obstacle> {
        match self {
            Self::Embedded(OpenError::NoSpace { .. }) => Some(Obstacle::NoSpace),
            Self::Embedded(_) => None,
            Self::Shared(why) => Some(Obstacle::Database(why.clone())),
        }
    }
}

impl Store {
    /// Opens the ledger, creating it if it does not exist. Nothing is written until [`StoreWriter::run`] runs.
    pub async fn open(
        settings: StoreSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, StoreWriter), StoreError> {
        match settings {
            StoreSettings::Embedded(settings) => {
                let (ledger, writer) = EmbeddedLedger::open(settings, clock)?;
                Ok((Self::Embedded(Arc::new(ledger)), StoreWriter::Embedded(Box::new(writer))))
            }
            StoreSettings::Shared(settings) => {
                let opened = PostgresLedger::open(*settings, clock, true).await;
                let (ledger, keeper) =
                    opened.map_err(|error| StoreError::Shared(error.to_string()))?;
                Ok((Self::Shared(Arc::new(ledger)), StoreWriter::Shared(keeper)))
            }
        }
    }

    /// The ledger as seen by whoever receives events.
    #[must_use]
    pub fn recorder(&self) -> Arc<dyn Recorder> {
        match self {
            Self::Embedded(ledger) => Arc::clone(ledger) as Arc<dyn Recorder>,
            Self::Shared(ledger) => Arc::clone(ledger) as Arc<dyn Recorder>,
        }
    }

    /// The ledger as seen by the courier of a destination.
    #[must_use]
    pub fn outbox(&self, destination: &DestinationName) -> Arc<dyn Outbox> {
        self.operations().outbox(destination)
    }

    /// The ledger as seen by operators.
    #[must_use]
    pub fn operations(&self) -> Arc<dyn Operations> {
        match self {
            Self::Embedded(ledger) => Arc::clone(ledger) as Arc<dyn Operations>,
            Self::Shared(ledger) => Arc::clone(ledger) as Arc<dyn Operations>,
        }
    }

    /// Replaces the configured destinations. A destination whose environment has changed forgets what was
    /// told, so none of its calls may be in flight. One that is no longer configured keeps its rows, and
    /// events and reports already under way to it are still applied.
    pub async fn configure(
        &self,
        destinations: Vec<DestinationSettings>,
    ) -> Result<(), LedgerError> {
        match self {
            Self::Embedded(ledger) => ledger.configure(destinations).await,
            Self::Shared(ledger) => ledger.configure(destinations).await,
        }
    }

    /// Closes the ledger: what is queued is committed first, and leases are handed over. What a directory's logs hold
    /// is emptied into its tables until the deadline `by`; the next start does the rest. Every later call fails with
    /// [`LedgerError::Closed`].
    pub async fn close_by(&self, by: Instant) {
        match self {
            Self::Embedded(ledger) => ledger.close_by(by).await,
            Self::Shared(ledger) => ledger.close().await,
        }
    }
}

impl StoreWriter {
    /// Writes until the ledger is closed.
    ///
    /// # Errors
    /// It has failed, and with it the ledger.
    pub fn run(self) -> Result<(), WriterFailure> {
        match self {
            Self::Embedded(writer) => writer.run(),
            Self::Shared(keeper) => {
                let failed = |error| WriterFailure::new("starting", error);
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.map_err(failed)?;
                let ended = runtime.block_on(keeper.run());
                runtime.shutdown_background(); // what looks up a name may take its time
                ended
            }
        }
    }
}
