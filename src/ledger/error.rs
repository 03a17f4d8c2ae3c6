//! How the ledger fails.

use crate::membership::{AudienceId, DestinationName, Timestamp};

/// Why a call of the ledger failed. Variants follow what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The store cannot do it now (no space, or a database that is away or busy); nothing of the call was kept. The caller asks for a retry
    /// later.
    #[error("the ledger cannot do that now: {0}")]
    Unavailable(String),
    /// The destination is not configured.
    #[error("there is no destination {0}")]
    UnknownDestination(DestinationName),
    /// The destination has no such audience.
    #[error("there is no audience {}", .0.as_str())]
    UnknownAudience(AudienceId),
    /// Its members are being retracted, which must finish first.
    #[error("the members of {} are being retracted", .0.as_str())]
    Retracting(AudienceId),
    /// The ledger is closed, closing, or has failed.
    #[error("the ledger is closed")]
    Closed,
}

/// Why nothing can be recorded now. It passes by itself once its cause is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The disk of the ledger has no space.
    NoSpace,
    /// The database cannot be used: why, and what to do.
    Database(String),
}

impl Obstacle {
    /// What it is, for anybody who asks: without names of hosts.
    #[must_use]
    pub fn words(&self) -> &'static str {
        match self {
            Self::NoSpace => "the disk of the ledger has no space",
            Self::Database(_) => "the database of the ledger cannot be used",
        }
    }
}

/// What makes the ledger slower the longer it lasts, though it still records everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Burden {
    /// What it is, in a sentence.
    pub why: String,
    /// What to do about it.
    pub remedy: String,
    /// Since when it is known.
    pub since: Timestamp,
}

/// Why what writes to the ledger ended by itself. The daemon must end too: what is stored is now unknown.
#[derive(Debug, thiserror::Error)]
#[error("the ledger failed while {doing}")]
pub struct WriterFailure {
    doing: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl WriterFailure {
    pub(crate) fn new(
        doing: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { doing, source: source.into() }
    }

    /// The error of the ledger that is its cause, if there is one.
    pub(crate) fn cause(&self) -> Option<&LedgerError> {
        self.source.downcast_ref()
    }
}
