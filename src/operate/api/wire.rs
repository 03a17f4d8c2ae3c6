//! The bodies of the admin API's requests and answers, for the daemon and for the commands that call
//! it. Times are RFC 3339, UTC.

mod destinations;
mod events;
mod failing;
mod guard;
mod members;
mod parked;
mod progress;
mod reconcile;
mod rejected;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::membership::Timestamp;

pub use destinations::{AudienceInfo, DestinationInfo, Drop, ListQuery, Resync, WalkInfo};
pub use events::{EventAccount, RejectedOf};
pub use failing::{FailingInfo, said};
pub use guard::{GuardInfo, Held};
pub use members::{Forget, MemberInfo, MemberQuery};
pub use parked::{ParkedChange, ParkedInfo, ParkedPage, ParkedQuery};
pub use progress::{ProgressItem, ProgressList, Work};
pub use reconcile::{
    Reconcile, ReconcileInfo, ReconcileList, ReconcileStage, ReconcileStop, Reconciled,
};
pub use rejected::{
    RejectedChange, RejectedInfo, RejectedPage, RejectedQuery, Replay, Replayed, StillRejected,
};

/// A point in time as RFC 3339 text.
#[must_use]
pub fn instant(timestamp: Timestamp) -> String {
    let instant = jiff::Timestamp::from_microsecond(timestamp.0).unwrap_or_default();
    format!("{instant:.3}")
}

/// The result of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// Changed keys that are applied, and destinations and routes that were added or removed.
    pub changed: Vec<String>,
    /// Changed keys that take effect after a restart of the daemon.
    pub needs_restart: Vec<String>,
}

/// What a token may do.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Access {
    /// `operate`: everything; `read`: everything may be seen but the kept events themselves.
    pub power: String,
}

/// How many members, events or audiences a change concerned.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Done {
    /// The number.
    pub count: u64,
    /// Audiences that were left alone, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_alone: Vec<String>,
}

impl Done {
    pub(super) fn of(count: u64) -> Self {
        Self { count, left_alone: Vec::new() }
    }
}

/// A change without parameters: its body is an empty object.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}
