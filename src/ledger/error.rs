//! Why a verb did not happen.

use crate::membership::{AudienceId, DestinationName};

/// Why a verb did not happen. Variants follow what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The store cannot take writes now (out of space); nothing of the call was kept. The caller
    /// says "try again later".
    #[error("the ledger cannot take writes now: {0}")]
    Unavailable(String),
    /// The destination is not one of those that are configured.
    #[error("there is no destination {0}")]
    UnknownDestination(DestinationName),
    /// The destination has no such audience.
    #[error("there is no audience {}", .0.as_str())]
    UnknownAudience(AudienceId),
    /// Its members are being retracted, which comes before anything else.
    #[error("the members of {} are being retracted", .0.as_str())]
    Retracting(AudienceId),
    /// The ledger is closed, closing, or has failed.
    #[error("the ledger is closed")]
    Closed,
}
