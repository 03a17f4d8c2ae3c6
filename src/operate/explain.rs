//! What happens to one event and why, for `cohortd explain` and the admin API.
//!
//! A report contains what the event contains: it is for those who already have the event, not for logs.

use serde::Serialize;
use serde_json::Value;
use url::Url;
use utoipa::ToSchema;

use super::api::wire::instant;
use crate::config;
use crate::json::{self, exact::Exact};
use crate::launchdarkly::wire;
use crate::map::{ExplainedField, ExplainedTime, Explanation, Mappings, Outcome, explain_time};
use crate::membership::{DestinationName, MembershipDelta, Timestamp};

/// What operators may see of a configured destination.
#[derive(Debug)]
pub struct Configured {
    /// Whether it accepts events.
    pub enabled: bool,
    /// How its events are mapped to deltas.
    pub mappings: Mappings,
    /// How long after its event time an entry expires, in the audiences where it does.
    pub expires_after: config::Expiries,
    /// The client-side ID as it may be shown.
    pub client_side_id: String,
    /// LaunchDarkly's base URL.
    pub base_url: Url,
}

impl From<&config::Destination> for Configured {
    fn from(destination: &config::Destination) -> Self {
        let launchdarkly = &destination.launchdarkly;
        Self {
            enabled: destination.enabled,
            mappings: destination.mappings.clone(),
            expires_after: destination.expires_after.clone(),
            client_side_id: launchdarkly.shown_client_side_id().to_owned(),
            base_url: launchdarkly.base_url.clone(),
        }
    }
}

/// What happens to an event.
#[derive(Serialize, ToSchema)]
pub struct Report {
    /// The destination it is for.
    pub destination: String,
    /// `accepted`, `ignored` or `rejected`, as the webhook would count it.
    pub outcome: &'static str,
    /// Why it is rejected, or a remark on what else happens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The time of the change; for a deletion, never later than its arrival.
    pub time: TimeReport,
    /// One for each enabled mapping; empty for a deletion, which is handled before any mapping.
    pub mappings: Vec<MappingReport>,
}

/// The time of the change.
#[derive(Serialize, ToSchema)]
pub struct TimeReport {
    /// The event time that counts; absent if the arrival counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_at: Option<String>,
    /// The field of the event that it comes from, or `arrival`.
    pub from: &'static str,
    /// Which field has a time that does not count, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doubt: Option<String>,
}

/// What one mapping makes of the event.
#[derive(Serialize, ToSchema)]
pub struct MappingReport {
    /// The subscription statement that selects events.
    pub subscription: String,
    /// Which comparison decided that the event is not selected; null if it is selected.
    pub why_not: Option<String>,
    /// The value of each field; empty if the event is not selected.
    pub fields: Vec<FieldReport>,
    /// Why the event is rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejection: Option<String>,
    /// The membership change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<DeltaReport>,
    /// The call that LaunchDarkly would get if nothing else were pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestReport>,
}

/// The value of one field of the action.
#[derive(Serialize, ToSchema)]
pub struct FieldReport {
    /// The field's name, as in Segment's mapping editor.
    pub field: &'static str,
    /// Where in the event the mapping looks for it.
    pub from: String,
    /// The value found there.
    pub value: Option<Value>,
    /// Why it could not be evaluated.
    pub problem: Option<String>,
}

/// Which context enters or leaves which audience.
#[derive(Serialize, ToSchema)]
pub struct DeltaReport {
    /// LaunchDarkly's `cohortId`.
    pub audience_id: String,
    /// The name of the segment.
    pub segment: String,
    /// The kind of the context.
    pub context_kind: String,
    /// The context key.
    pub context_key: String,
    /// Whether the context enters.
    pub included: bool,
    /// The event time.
    pub event_at: String,
}

/// A call of LaunchDarkly's API.
#[derive(Serialize, ToSchema)]
pub struct RequestReport {
    /// The method.
    pub method: &'static str,
    /// The URL.
    pub url: String,
    /// The body.
    pub body: Value,
}

/// Reports what would happen to an event that arrived at `arrival`.
#[must_use]
pub fn report(
    name: &DestinationName,
    destination: &Configured,
    event: &Exact,
    arrival: Timestamp,
) -> Report {
    let (outcome, reason, is_deletion) = match destination.mappings.map(event, arrival) {
        Outcome::Accepted { rejection, .. } => {
            ("accepted", rejection.map(|rejection| rejection.to_string()), false)
        }
        Outcome::Deletion(deletion) => {
            let as_of = match deletion.event_at {
                at if at == arrival => "its arrival".to_owned(),
                at => instant(at),
            };
            let what = format!(
                "a deletion as of {as_of}: the person is removed from every audience of the \
                 destination that they have not entered since"
            );
            ("accepted", Some(what), true)
        }
        Outcome::Ignored => ("ignored", None, false),
        Outcome::Rejected(rejection) => ("rejected", Some(rejection.to_string()), false),
    };
    let mappings = if is_deletion { &[] } else { destination.mappings.all() };
    let mapping = |explanation| mapping_report(destination, explanation);
    Report {
        destination: name.to_string(),
        outcome,
        reason,
        time: time_report(event, arrival),
        mappings: mappings.iter().map(|of| mapping(of.explain(event, arrival))).collect(),
    }
}

fn time_report(event: &Exact, arrival: Timestamp) -> TimeReport {
    let ExplainedTime { at, from, doubt } = explain_time(event, arrival);
    let event_at = from.is_some().then(|| instant(at));
    let from = from.unwrap_or("arrival");
    let doubt = doubt.map(|(field, doubt)| {
        format!("{field} is not used, because {}; {from} is used instead", doubt.why())
    });
    TimeReport { event_at, from, doubt }
}

fn mapping_report(destination: &Configured, explanation: Explanation) -> MappingReport {
    let Explanation { subscription, why_not, fields, result } = explanation;
    let (delta, rejection) = match result {
        Ok(delta) => (delta, None),
        Err(rejection) => (None, Some(rejection.to_string())),
    };
    let field = |ExplainedField { field, from, value, problem }| FieldReport {
        field,
        from,
        value,
        problem,
    };
    MappingReport {
        subscription,
        why_not,
        fields: fields.into_iter().map(field).collect(),
        rejection,
        request: delta.as_ref().map(|delta| request_report(destination, delta)),
        delta: delta.as_ref().map(delta_report),
    }
}

fn delta_report(delta: &MembershipDelta) -> DeltaReport {
    DeltaReport {
        audience_id: delta.audience.as_str().to_owned(),
        segment: delta.audience_key.segment_name(),
        context_kind: delta.context_kind.as_str().to_owned(),
        context_key: delta.context_key.as_str().to_owned(),
        included: delta.membership.as_bool(),
        event_at: instant(delta.event_at),
    }
}

fn request_report(destination: &Configured, delta: &MembershipDelta) -> RequestReport {
    let body = wire::encode(
        &destination.client_side_id,
        &delta.context_kind,
        &delta.audience,
        &delta.audience_key.segment_name(),
        std::iter::once((&delta.context_key, delta.membership)),
    );
    RequestReport {
        method: "POST",
        url: format!("{}{}", destination.base_url.as_str().trim_end_matches('/'), wire::PATH),
        body: json::from_slice(&body).unwrap_or_default(),
    }
}
