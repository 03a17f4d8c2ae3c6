//! Destinations and audiences in the admin API, and operations on a whole one.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{FailingInfo, instant};
use crate::ledger::{AudienceView, DestinationView};
use crate::membership::Timestamp;

/// A destination that the ledger has rows of.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DestinationInfo {
    /// Its name.
    pub name: String,
    /// Whether it is configured; if not, the ledger only keeps its rows.
    pub configured: bool,
    /// Since when an operator has paused its delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_since: Option<String>,
    /// Audiences that have members.
    pub audiences: u64,
    /// Members that are in their audience.
    pub included: u64,
    /// Members that wait for delivery or are in a call.
    pub pending: u64,
    /// Members that LaunchDarkly refused.
    pub parked: u64,
    /// Rejected events kept.
    pub rejected: u64,
}

impl From<DestinationView> for DestinationInfo {
    fn from(view: DestinationView) -> Self {
        let DestinationView {
            name,
            configured,
            paused_since,
            audiences,
            included,
            pending,
            pending_since: _,
            unvisited: _,
            parked,
            parked_since: _,
            rejected,
            rejected_since: _,
        } = view;
        let paused_since = paused_since.map(instant);
        Self { name, configured, paused_since, audiences, included, pending, parked, rejected }
    }
}

/// An audience with its counts.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AudienceInfo {
    /// LaunchDarkly's `cohortId`.
    pub audience: String,
    /// Its latest key.
    pub audience_key: String,
    /// The kind of its members.
    pub context_kind: String,
    /// How long after its event time an entry expires, in seconds; absent if entries do not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_after_s: Option<u64>,
    /// Members that are in it.
    pub included: u64,
    /// Members that wait for delivery or are in a call.
    pub pending: u64,
    /// Since when the longest pending member has been pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_since: Option<String>,
    /// Members that LaunchDarkly refused.
    pub parked: u64,
    /// When the first of them was parked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked_since: Option<String>,
    /// Why the last call of it was not taken, and when it is tried again; absent if it was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<FailingInfo>,
    /// As of when it was last reconciled with a snapshot: events that are older and arrive now change nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_at: Option<String>,
    /// Since when its guard holds it: LaunchDarkly is told nothing of it but removals; absent if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_since: Option<String>,
    /// The operation under way on all its members: `resync`, `retract`, `retract_stale`, or `reenter` of those who left
    /// while the guard held it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under_way: Option<String>,
    /// The progress of that operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walk: Option<WalkInfo>,
}

impl From<AudienceView> for AudienceInfo {
    fn from(view: AudienceView) -> Self {
        Self {
            audience: view.audience,
            audience_key: view.audience_key,
            context_kind: view.context_kind,
            expires_after_s: None,
            included: view.included,
            pending: view.pending,
            pending_since: view.pending_since.map(instant),
            parked: view.parked,
            parked_since: view.parked_since.map(instant),
            failing: None,
            held_since: None,
            snapshot_at: view.snapshot_at.map(instant),
            under_way: view.walk.as_ref().map(|walk| walk.task.to_owned()),
            walk: view.walk.map(|walk| WalkInfo {
                since: (walk.since != Timestamp::EPOCH).then(|| instant(walk.since)),
                done: walk.visited,
                total: walk.expected.max(walk.visited),
            }),
        }
    }
}

/// The progress of an operation on all members of an audience.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WalkInfo {
    /// When it began, if that was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Members it has visited.
    pub done: u64,
    /// Members in all, approximately.
    pub total: u64,
}

/// Which destinations or audiences are listed.
#[derive(Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only those after this name or ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Most items in the answer; 1 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// Which audiences are delivered again.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Resync {
    /// Only this audience; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1)]
    pub audience: Option<String>,
    /// Stop a resync that is under way instead.
    #[serde(default)]
    pub stop: bool,
    /// Remove members whose context key came from an older mapping instead.
    #[serde(default)]
    pub retract_stale: bool,
    /// Also in audiences in which no member is under the present mapping yet.
    #[serde(default)]
    pub force: bool,
}

/// What is dropped from the ledger.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Drop {
    /// Only this audience; the whole destination if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1)]
    pub audience: Option<String>,
    /// First tell LaunchDarkly that every member has left.
    #[serde(default)]
    pub retract: bool,
}
