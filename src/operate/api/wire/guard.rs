//! Audiences that their guards hold, in the admin API.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::instant;
use crate::ledger::HeldAudience;

/// An audience that the guard holds.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct GuardInfo {
    /// LaunchDarkly's `cohortId`.
    pub audience: String,
    /// Its latest key.
    pub audience_key: String,
    /// Since when it is held.
    pub since: String,
    /// When the window began in which too many members changed.
    pub window_since: String,
    /// Members at the start of the window.
    pub members: u64,
    /// Members that left in the window.
    pub left: u64,
    /// Members that entered in the window.
    pub entered: u64,
    /// The most members that left in a window in which it was not held.
    pub usual: u64,
    /// Those who left are being entered again.
    pub discarding: bool,
}

impl From<HeldAudience> for GuardInfo {
    fn from(held: HeldAudience) -> Self {
        Self {
            audience: held.audience,
            audience_key: held.audience_key,
            since: instant(held.since),
            window_since: instant(held.window_since),
            members: held.members,
            left: held.left,
            entered: held.entered,
            usual: held.usual,
            discarding: held.is_discarding,
        }
    }
}

/// Which held audiences are released or discarded.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Held {
    /// Only this audience; all that are held if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1)]
    pub audience: Option<String>,
}
