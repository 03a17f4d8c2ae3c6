//! Parked members as the admin API lists, requeues and discards them. Personal.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::instant;
use crate::ledger::ParkedView;

/// A parked member. Personal.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct ParkedInfo {
    /// The audience's id.
    pub audience: String,
    /// The context key.
    pub context_key: String,
    /// When it was refused.
    pub parked_at: String,
    /// The HTTP status of the refusal.
    pub status: u16,
    /// LaunchDarkly's `code`.
    pub code: String,
    /// LaunchDarkly's `message`.
    pub message: String,
    /// LaunchDarkly's `id`, for its support.
    pub answer_id: String,
}

impl From<ParkedView> for ParkedInfo {
    fn from(view: ParkedView) -> Self {
        Self {
            audience: view.audience,
            context_key: view.context_key,
            parked_at: instant(view.parked_at),
            status: view.status,
            code: view.code,
            message: view.message,
            answer_id: view.answer_id,
        }
    }
}

/// A page of parked members.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct ParkedPage {
    /// In the order of audience and context key.
    pub parked: Vec<ParkedInfo>,
    /// There may be more after the last one.
    pub more: bool,
}

/// Which parked members are listed.
#[derive(Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ParkedQuery {
    /// Only those of this audience.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// Only those after this audience …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_audience: Option<String>,
    /// … and this context key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_key: Option<String>,
    /// Most items in the answer; 1 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// Which parked members are requeued or discarded.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ParkedChange {
    /// Only those of this audience; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1)]
    pub audience: Option<String>,
    /// Only this member of the audience.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_key: Option<String>,
}
