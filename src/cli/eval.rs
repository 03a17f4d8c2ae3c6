//! `cohortd eval`: JSON lines in, JSON lines out, so that a mapping can be tried and the recorded
//! behaviour of Segment's hosted integration be compared with ours.
//!
//! One line is read, answered and forgotten: memory does not grow with the input.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::map::{ContextKeyRule, Mapping, MappingSettings, MembershipRule};
use crate::membership::{AudienceId, ContextKey, ContextKind, MembershipDelta, Timestamp};

/// `cohortd eval sync`: what the events of each line amount to, as the requests that would be sent.
///
/// A line maps one request and nothing else: for a member named twice the later item wins; event
/// times, repeats and the subscription are not applied. A line that cannot be used is answered with
/// `{"error": …}`, so that there are as many lines out as in. Fails only if reading or writing does.
pub fn sync(mut input: impl BufRead, mut output: impl Write) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return output.flush();
        }
        match answer(line.trim_ascii_end()) {
            Ok(answer) => serde_json::to_writer(&mut output, &answer)?,
            Err(error) => serde_json::to_writer(&mut output, &Failure { error })?,
        }
        output.write_all(b"\n")?;
    }
}

/// What a line holds; anything else in it is the business of whoever wrote it.
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
struct Failure {
    error: String,
}

#[derive(Serialize)]
struct Answer {
    requests: Vec<Request>,
    results: Vec<EventResult>,
}

#[derive(Serialize)]
struct Request {
    method: &'static str,
    path: &'static str,
    headers: Headers,
    body: Body,
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
#[serde(rename_all = "camelCase")]
struct Body {
    environment_id: String,
    context_kind: ContextKind,
    batch: Vec<Member>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Member {
    user_id: ContextKey,
    cohort_name: String,
    cohort_id: AudienceId,
    value: bool,
}

#[derive(Serialize)]
struct EventResult {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The text of an error never quotes the line: it holds a token and personal data (P8).
fn answer(line: &[u8]) -> Result<Answer, String> {
    let case: Case = serde_json::from_slice(line).map_err(|error| {
        let column = error.column();
        if error.is_data() {
            format!("not a sync case at column {column}: settings.apiKey, settings.clientId and events are needed")
        } else {
            format!("not JSON at column {column}")
        }
    })?;
    let mapping = mapping(&case.mapping)?;
    let mut requests = Requests::default();
    let mut results = Vec::with_capacity(case.events.len());
    for event in &case.events {
        results.push(match mapping.delta(event, Timestamp::EPOCH) {
            Ok(delta) => {
                requests.add(delta);
                EventResult { status: "accepted", reason: None }
            }
            Err(rejection) => {
                EventResult { status: "rejected", reason: Some(rejection.to_string()) }
            }
        });
    }
    Ok(Answer { requests: requests.into_wire(&case.settings), results })
}

/// The preset with the line's overrides.
fn mapping(overrides: &Map<String, Value>) -> Result<Mapping, String> {
    let mut mapping = Mapping::new(MappingSettings {
        context_kind: ContextKind::new("user").ok_or("user is a context kind")?,
        context_key: ContextKeyRule::UserIdOnly,
        membership: MembershipRule::Strict,
        journey_step_without_value_enters: false,
    });
    for (field, json) in overrides {
        mapping.set_field(field, json).map_err(|error| format!("mapping.{field}: {error}"))?;
    }
    Ok(mapping)
}

/// One request for each audience and context kind, in the order in which they first appear.
#[derive(Default)]
struct Requests {
    groups: Vec<Group>,
    positions: HashMap<(AudienceId, ContextKind), usize>,
}

struct Group {
    context_kind: ContextKind,
    members: Vec<Member>,
    positions: HashMap<ContextKey, usize>,
}

impl Requests {
    fn add(&mut self, delta: MembershipDelta) {
        let group = (delta.audience.clone(), delta.context_kind.clone());
        let at = *self.positions.entry(group).or_insert_with(|| {
            self.groups.push(Group {
                context_kind: delta.context_kind,
                members: Vec::new(),
                positions: HashMap::new(),
            });
            self.groups.len() - 1
        });
        let Group { members, positions, .. } = &mut self.groups[at];
        let member = Member {
            user_id: delta.context_key,
            cohort_name: delta.audience_key.segment_name(),
            cohort_id: delta.audience,
            value: delta.membership.as_bool(),
        };
        if let Some(&earlier) = positions.get(&member.user_id) {
            members[earlier] = member;
        } else {
            positions.insert(member.user_id.clone(), members.len());
            members.push(member);
        }
    }

    fn into_wire(self, settings: &Settings) -> Vec<Request> {
        let request = |group: Group| Request {
            method: "POST",
            path: "/api/v2/segment-targets/segment-audiences",
            headers: Headers {
                authorization: settings.api_key.clone(),
                content_type: "application/json",
                api_version: "20240415",
                user_agent: concat!("cohortd/", env!("CARGO_PKG_VERSION")),
            },
            body: Body {
                environment_id: settings.client_id.clone(),
                context_kind: group.context_kind,
                batch: group.members,
            },
        };
        self.groups.into_iter().map(request).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answers(input: &str) -> Vec<Value> {
        let mut output = Vec::new();
        sync(input.as_bytes(), &mut output).expect("memory does not fail");
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
                {"status": "rejected", "reason": "invalid_field: segment_user_id must be a text but it is an object ($.userId)."},
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
                format!(
                    "{}\n",
                    case(&json!({"user_email": {"@liquid": "secret"}}), &[(&ada, true)])
                ),
                "mapping.user_email: @liquid is not supported",
            ),
            (
                format!("{}\n", case(&json!({"colour": "secret"}), &[(&ada, true)])),
                "mapping.colour: the action has no such field",
            ),
        ];
        let input: String = rows.iter().map(|(line, _)| line.as_str()).collect();
        let expected: Vec<_> = rows.iter().map(|(_, error)| json!({"error": error})).collect();
        assert_eq!(answers(&input), expected);
    }
}
