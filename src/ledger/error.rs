//! Why a call of the ledger failed.

use crate::membership::{AudienceId, DestinationName};

/// Why a call of the ledger failed. Variants follow what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The store cannot write now (no space); nothing of the call was kept. The caller asks for a retry
    /// later.
    #[error("the ledger cannot take writes now: {0}")]
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
