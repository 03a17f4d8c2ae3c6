//! `cohortd eval sync`: maps the events of one request to the calls that would be made.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{parsed_exactly, told};
use crate::launchdarkly::calls::{Call, calls};
use crate::launchdarkly::wire;
use crate::map::Mapping;
use crate::membership::{MembershipDelta, Timestamp};

/// The members of a line; others are ignored.
#[derive(Deserialize)]
struct Case {
    settings: Settings,
    #[serde(default)]
    mapping: Map<String, Value>,
    events: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Settings {
    api_key: String,
    client_id: String,
}

#[derive(Serialize)]
pub(super) struct Answer {
    requests: Vec<Request>,
    results: Vec<EventResult>,
}

#[derive(Serialize)]
struct Request {
    method: &'static str,
    path: &'static str,
    headers: Headers,
    body: Value,
}

#[derive(Serialize)]
struct Headers {
    #[serde(rename = "Authorization")]
    authorization: String,
    #[serde(rename = "Content-Type")]
    content_type: &'static str,
    #[serde(rename = "LD-API-Version")]
    api_version: &'static str,
    #[serde(rename = "User-Agent")]
    user_agent: &'static str,
}

#[derive(Serialize)]
struct EventResult {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Maps one request by itself: if a member is named twice, the later item wins. Event times, suppression of
/// repeats and the subscription are not applied.
pub(super) fn answer(line: &[u8]) -> Result<Answer, String> {
    let case: Case =
        parsed_exactly(line, "a sync case", "settings.apiKey, settings.clientId and events")?;
    let mapping = Mapping::preset_with(&case.mapping).map_err(|faults| told(&faults))?;
    let mut deltas = Vec::new();
    let mut results = Vec::with_capacity(case.events.len());
    for event in &case.events {
        results.push(match mapping.delta(event, Timestamp::EPOCH) {
            Ok(Some(delta)) => {
                deltas.push(MembershipDelta { event_at: Timestamp::EPOCH, ..delta });
                EventResult { status: "accepted", reason: None }
            }
            Ok(None) => EventResult { status: "ignored", reason: None },
            Err(rejection) => {
                EventResult { status: "rejected", reason: Some(rejection.to_string()) }
            }
        });
    }
    Ok(Answer { requests: requests(&calls(deltas), &case.settings), results })
}

fn requests(calls: &[Call], settings: &Settings) -> Vec<Request> {
    let request = |call: &Call| Request {
        method: "POST",
        path: wire::PATH,
        headers: Headers {
            authorization: settings.api_key.clone(),
            content_type: "application/json",
            api_version: wire::API_VERSION,
            user_agent: wire::USER_AGENT,
        },
        body: json!(call.body(&settings.client_id)),
    };
    calls.iter().map(request).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(input: &str) -> Vec<Value> {
        let mut output = Vec::new();
        crate::cli::eval::sync(input.as_bytes(), &mut output).expect("memory does not fail");
        let output = String::from_utf8(output).expect("JSON is UTF-8");
        output.lines().map(|line| serde_json::from_str(line).expect("lines of JSON")).collect()
    }

    fn case(mapping: &Value, users: &[(&Value, bool)]) -> Value {
        let event = |(user, value): &(&Value, bool)| {
            json!({
                "userId": user,
                "traits": {"vip_users": value},
                "context": {"personas": {
                    "computation_class": "audience",
                    "computation_id": "aud_1",
                    "computation_key": "vip_users",
                }},
            })
        };
        let events: Vec<_> = users.iter().map(event).collect();
        json!({"settings": {"apiKey": "t o k", "clientId": "env"}, "mapping": mapping, "events": events})
    }

    #[test]
    fn the_later_item_of_a_member_wins_and_the_request_is_complete() {
        let (ada, bob, bad) = (json!("ada"), json!(7), json!({}));
        let line = case(&json!({}), &[(&ada, true), (&bob, true), (&bad, true), (&ada, false)]);
        let expected = json!({
            "requests": [{
                "method": "POST",
                "path": "/api/v2/segment-targets/segment-audiences",
                "headers": {
                    "Authorization": "t o k",
                    "Content-Type": "application/json",
                    "LD-API-Version": "20240415",
                    "User-Agent": concat!("cohortd/", env!("CARGO_PKG_VERSION")),
                },
                "body": {"environmentId": "env", "contextKind": "user", "batch": [
                    {"userId": "ada", "cohortName": "Vip users", "cohortId": "aud_1", "value": false},
                    {"userId": "7", "cohortName": "Vip users", "cohortId": "aud_1", "value": true},
                ]},
            }],
            "results": [
                {"status": "accepted"},
                {"status": "accepted"},
                {"status": "rejected", "reason": "invalid_field: segment_user_id must be a string but it is an object ($.userId): correct mapping.segment_user_id, or the value that is sent there."},
                {"status": "accepted"},
            ],
        });
        assert_eq!(answers(&line.to_string()), [expected]);
    }

    #[test]
    fn every_line_is_answered_and_errors_quote_nothing() {
        let ada = json!("ada");
        let rows = [
            ("{\"secret\n".to_owned(), "not JSON at column 8"),
            ("\n".to_owned(), "not JSON at column 0"),
            (
                "{\"settings\":\"secret\"}\n".to_owned(),
                "not a sync case at column 20: settings.apiKey, settings.clientId and events are needed",
            ),
            (
                format!("{}\n", case(&json!({"user_email": {"@liquid": 7}}), &[(&ada, true)])),
                "mapping: user_email.@liquid must be a string but it is a number",
            ),
            (
                format!(
                    "{}\n",
                    case(&json!({"__segment_internal_directive": "secret"}), &[(&ada, true)])
                ),
                "mapping: __segment_internal_directive is not a field of the action",
            ),
        ];
        let input: String = rows.iter().map(|(line, _)| line.as_str()).collect();
        let expected: Vec<_> = rows.iter().map(|(_, error)| json!({"error": error})).collect();
        assert_eq!(answers(&input), expected);
    }
}
