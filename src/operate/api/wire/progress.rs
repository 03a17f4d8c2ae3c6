//! Long work of a destination, and its progress.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The kinds of long work.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Every member of an audience is delivered again.
    Resync,
    /// Every member of an audience is taken out and forgotten.
    Retract,
    /// Members that did not come by the present mapping are taken out and forgotten.
    RetractStale,
    /// Members that left an audience which the guard holds are entered again.
    Reenter,
    /// An audience is brought to what a snapshot says.
    Reconcile,
    /// Rejected events are mapped again with the present mapping.
    Replay,
    /// A backlog is delivered.
    Drain,
}

impl Work {
    /// The kind of an operation on all members of an audience, from its name in the ledger.
    pub(in crate::operate::api) fn of(task: &str) -> Self {
        match task {
            "retract" => Self::Retract,
            "retract_stale" => Self::RetractStale,
            "reenter" => Self::Reenter,
            _ => Self::Resync,
        }
    }
}

/// Long work of a destination.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ProgressList {
    /// The present time by the daemon's clock.
    pub now: String,
    /// At most 1000.
    pub items: Vec<ProgressItem>,
}

/// The progress of long work.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ProgressItem {
    /// Its kind.
    pub kind: Work,
    /// The audience concerned; null if it concerns the whole destination.
    pub audience: Option<String>,
    /// Members or events that are done …
    pub done: u64,
    /// … of this many, approximately.
    pub total: u64,
    /// When it began; for a backlog, since when its longest waiting member has waited.
    pub since: String,
    /// The recent rate per second.
    pub per_second: f64,
    /// Seconds left at that rate; null at a standstill.
    pub remaining_s: Option<u64>,
}
