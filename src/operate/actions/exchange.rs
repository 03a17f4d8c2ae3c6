//! The answers of the action, in the format of Segment's development server: an exchange for each call,
//! a failure for each error.

use std::collections::BTreeMap;

use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use crate::launchdarkly::calls::Call;
use crate::launchdarkly::wire;
use crate::ledger::MemberView;
use crate::map::{Mapping, MappingFault, Reason, Rejection};
use crate::membership::{DestinationName, MembershipDelta};

/// One element of an answer. Contains data of the request, so it is not `Debug`
/// ([P8](crate::design::P8)).
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Entry {
    Exchange { request: Request, response: Response },
    Failure(Failure),
}

/// A call as LaunchDarkly would get it if nothing else were pending for the audience.
#[derive(Serialize)]
pub(super) struct Request {
    url: String,
    method: &'static str,
    headers: BTreeMap<&'static str, &'static str>,
    /// JSON as text.
    body: String,
}

/// Stands in for LaunchDarkly's answer: says what was done instead of calling it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Response {
    status_code: u16,
    status_message: &'static str,
    headers: BTreeMap<&'static str, &'static str>,
    body: Value,
}

/// How many members of a call are in which state.
#[derive(Serialize)]
pub(super) struct Standing<'a> {
    destination: &'a str,
    /// Members recorded on stable storage. Each is counted in one of the following.
    recorded: usize,
    /// Pending: delivered to LaunchDarkly together with other pending members.
    waiting: usize,
    /// LaunchDarkly already has this membership.
    told: usize,
    /// A later event or a deletion is known, so this one changes nothing.
    superseded: usize,
    /// LaunchDarkly refused the member alone.
    parked: usize,
}

impl<'a> Standing<'a> {
    pub(super) fn of(destination: &'a DestinationName, recorded: usize) -> Self {
        let destination = destination.as_str();
        Self { destination, recorded, waiting: 0, told: 0, superseded: 0, parked: 0 }
    }

    /// Counts a recorded member by what the ledger now says of it.
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

/// An error, of the whole request or of one event of a batch.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Failure {
    status_code: u16,
    message: String,
    /// The development server's stack trace; always empty here.
    stack: [String; 0],
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<BTreeMap<String, String>>,
    request_error: bool,
    /// The index of the event in its batch.
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
    /// For a dry run.
    pub(super) fn dry_run() -> Self {
        Self {
            status_code: 0,
            status_message: "Dry run: nothing was recorded or sent",
            headers: BTreeMap::new(),
            body: Value::Null,
        }
    }

    /// For a call whose members were recorded.
    pub(super) fn recorded(what: &Standing<'_>) -> Self {
        Self {
            status_code: StatusCode::ACCEPTED.as_u16(),
            status_message: "Recorded: cohortd delivers it to LaunchDarkly in the background",
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

    /// Adds the message for one field.
    pub(super) fn at(mut self, field: &str, message: impl Into<String>) -> Self {
        self.fields.get_or_insert_default().insert(field.to_owned(), message.into());
        self
    }

    /// Sets the index of the event in its batch.
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
            // The details of these reasons begin with the name of the field.
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
