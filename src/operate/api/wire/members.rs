//! A person's memberships in the admin API, and the request to forget a person. Personal.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::instant;
use crate::ledger::MemberView;

/// A member. Personal.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Serialize, Deserialize, ToSchema)]
pub struct MemberInfo {
    /// The audience's id.
    pub audience: String,
    /// The audience's latest key.
    pub audience_key: String,
    /// The kind of the audience's members.
    pub context_kind: String,
    /// The context key.
    pub context_key: String,
    /// Whether it should be in the segment.
    pub included: bool,
    /// When the membership changed; of an entry that has expired, when the member entered.
    pub event_at: String,
    /// When the entry expires, or has expired; absent if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Whether it is out because its entry has expired.
    #[serde(default)]
    pub expired: bool,
    /// What LaunchDarkly was last told; absent if it was told nothing, or nothing that still counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<bool>,
    /// When LaunchDarkly was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_at: Option<String>,
    /// Whether it is pending.
    pub pending: bool,
    /// Whether LaunchDarkly refused it alone.
    pub parked: bool,
}

impl From<MemberView> for MemberInfo {
    fn from(view: MemberView) -> Self {
        Self {
            audience: view.audience,
            audience_key: view.audience_key,
            context_kind: view.context_kind,
            context_key: view.context_key,
            included: view.included,
            event_at: instant(view.event_at),
            expires_at: None,
            expired: view.expired,
            told: view.told,
            told_at: view.told_at.map(instant),
            pending: view.pending,
            parked: view.parked,
        }
    }
}

/// Which part of a person's audiences is listed.
#[derive(Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MemberQuery {
    /// Only those after this audience …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_audience: Option<String>,
    /// … and this context key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_key: Option<String>,
    /// Most items in the answer; 1 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// The person to forget. Personal.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Forget {
    /// Segment's user id.
    #[schema(min_length = 1)]
    pub user_id: String,
}
