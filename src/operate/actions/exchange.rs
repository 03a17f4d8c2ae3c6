//! What the action answers: for each call an exchange, for what went wrong a failure, in the shapes of
//! Segment's development server.

use std::collections::BTreeMap;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use crate::launchdarkly::calls::Call;
use crate::launchdarkly::wire;
use crate::ledger::MemberView;
use crate::map::{Mapping, MappingFault, Reason, Rejection};
use crate::membership::{DestinationName, MembershipDelta};

/// One element of an answer. Holds what the request held: not `Debug` ([P8](crate::design::P8)).
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Entry {
    Exchange { request: Request, response: Response },
    Failure(Failure),
}

/// A call, as LaunchDarkly gets it if nothing else waits for the same audience.
#[derive(Serialize)]
pub(super) struct Request {
    url: String,
    method: &'static str,
    headers: BTreeMap<&'static str, &'static str>,
    /// JSON, as text.
    body: String,
}

/// In the place of LaunchDarkly's answer: what was done instead of calling it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Response {
    status_code: u16,
    status_message: &'static str,
    headers: BTreeMap<&'static str, &'static str>,
    body: Value,
}

/// What has become of the members of a call.
#[derive(Serialize)]
pub(super) struct Standing<'a> {
    destination: &'a str,
    /// On stable storage. Each of these is one of the following.
    recorded: usize,
    /// LaunchDarkly will be told, together with what else waits.
    waiting: usize,
    /// LaunchDarkly was told the same already.
    told: usize,
    /// A later event, or a deletion, is known: this one changes nothing.
    superseded: usize,
    /// LaunchDarkly has refused the member alone.
    parked: usize,
}

impl<'a> Standing<'a> {
    pub(super) fn of(destination: &'a DestinationName, recorded: usize) -> Self {
        let destination = destination.as_str();
        Self { destination, recorded, waiting: 0, told: 0, superseded: 0, parked: 0 }
    }

    /// Counts what the ledger says now of a member that was recorded.
    pub(super) fn count(&mut self, recorded: &MembershipDelta, found: Option<&MemberView>) {
        let count = match found {
            None => &mut self.superseded,
            Some(found) if found.event_at > recorded.event_at => &mut self.superseded,
            Some(found) if found.pending => &mut self.waiting,
            Some(found) if found.parked => &mut self.parked,
            Some(_) => &mut self.told,
        };
        *count += 1;
    }
}

/// What went wrong, alone or for one event of a batch.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Failure {
    status_code: u16,
    message: String,
    /// The development server's own calls; there are none here to be shown.
    stack: [String; 0],
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<BTreeMap<String, String>>,
    request_error: bool,
    /// Which event of a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
}

impl Request {
    pub(super) fn of(call: &Call, base_url: &str, client_side_id: &str) -> Self {
        Self {
            url: format!("{}{}", base_url.trim_end_matches('/'), wire::PATH),
            method: "POST",
            headers: BTreeMap::from([
                ("authorization", "<redacted>"),
                ("content-type", "application/json"),
                ("ld-api-version", wire::API_VERSION),
                ("user-agent", wire::USER_AGENT),
            ]),
            body: json!(call.body(client_side_id)).to_string(),
        }
    }
}

impl Response {
    /// Nothing was done.
    pub(super) fn dry_run() -> Self {
        Self {
            status_code: 0,
            status_message: "Dry run: nothing was recorded or sent",
            headers: BTreeMap::new(),
            body: Value::Null,
        }
    }

    /// What the call says is in the ledger.
    pub(super) fn recorded(what: &Standing<'_>) -> Self {
        Self {
            status_code: StatusCode::ACCEPTED.as_u16(),
            status_message: "Recorded: cohortd tells LaunchDarkly by itself",
            headers: BTreeMap::new(),
            body: json!(what),
        }
    }
}

impl Failure {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status_code: status.as_u16(),
            message: message.into(),
            stack: [],
            fields: None,
            request_error: true,
            index: None,
        }
    }

    /// The same, beside a field.
    pub(super) fn at(mut self, field: &str, message: impl Into<String>) -> Self {
        self.fields.get_or_insert_default().insert(field.to_owned(), message.into());
        self
    }

    /// The same, for one event of a batch.
    pub(super) fn in_batch(self, index: usize) -> Self {
        Self { index: Some(index), ..self }
    }

    pub(super) fn of_mapping(faults: &[MappingFault]) -> Self {
        let all: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let failure = Self::new(StatusCode::BAD_REQUEST, format!("mapping: {}", all.join("; ")));
        faults.iter().fold(failure, |failure, fault| {
            let field = fault.path.split('.').next().unwrap_or_default();
            failure.at(field, fault.to_string())
        })
    }

    pub(super) fn of_event(rejection: &Rejection) -> Self {
        let failure = Self::new(StatusCode::BAD_REQUEST, rejection.to_string());
        let field = match rejection.reason {
            Reason::NoContextKey => Some("context_key"),
            Reason::MembershipUnknown => Some("traits_or_props"),
            Reason::ContextKindConflict => Some("context_kind"),
            // Their sentences begin with the field.
            Reason::MissingField
            | Reason::InvalidField
            | Reason::FieldTooLong
            | Reason::MappingFailed => {
                let word = rejection.detail.split([' ', ':']).next();
                Mapping::field_names().find(|name| Some(*name) == word)
            }
            _ => None,
        };
        match field {
            Some(field) => failure.at(field, &rejection.detail),
            None => failure,
        }
    }
}
