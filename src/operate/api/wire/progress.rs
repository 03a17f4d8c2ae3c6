//! Long work of a destination, and how far it has come.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What long work it is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Every member of an audience is told again.
    Resync,
    /// Every member of an audience leaves and is forgotten.
    Retract,
    /// The same for those whom the present mapping did not bring.
    RetractStale,
    /// Rejected events go through the present mapping.
    Replay,
    /// A backlog is worked off.
    Drain,
}

impl Work {
    /// What is done to every member of an audience, by its name.
    pub(in crate::operate::api) fn of(task: &str) -> Self {
        match task {
            "retract" => Self::Retract,
            "retract_stale" => Self::RetractStale,
            _ => Self::Resync,
        }
    }
}

/// Long work of a destination.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ProgressList {
    /// The daemon's clock.
    pub now: String,
    /// At most 1000.
    pub items: Vec<ProgressItem>,
}

/// How far long work has come.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ProgressItem {
    /// What it is.
    pub kind: Work,
    /// Of this audience; null where it is of the whole destination.
    pub audience: Option<String>,
    /// So many members or events are through …
    pub done: u64,
    /// … of so many, about.
    pub total: u64,
    /// When it began; of a backlog, since when its longest waiting member has waited.
    pub since: String,
    /// So many a second, lately.
    pub per_second: f64,
    /// Seconds it will take at that pace; null if it stands still.
    pub remaining_s: Option<u64>,
}
