//! Segment's HTTP Tracking API, as far as its SDKs speak it: `POST /v1/identify` and its neighbours, and
//! `/v1/batch`. For sources that send straight to here, and for backfills (`wire.md`, section 1).
//!
//! The write key names the destination and is the credential: as the user name of HTTP Basic, or as
//! `writeKey` in the body.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use subtle::{Choice, ConstantTimeEq};
use tokio::time::Instant;

use super::answer::Refusal;
use super::sorting::{self, MOST_EVENTS, Sorted};
use super::webhook::Due;
use super::{Door, Limits, PublicState, body};
use crate::membership::Timestamp;

/// The calls that carry one message; the path is its type.
const CALLS: [&str; 6] = ["identify", "track", "group", "page", "screen", "alias"];

/// Without a key in the head the body is read from a stranger: Segment's own limit for a batch.
const STRANGERS_BODY_BYTES: usize = 512 * 1024;

#[derive(Serialize)]
struct Success {
    success: bool,
}

/// A batch: what its messages share stands beside them.
#[derive(Deserialize)]
struct Batch<'a> {
    #[serde(borrow, rename = "batch")]
    messages: Vec<&'a RawValue>,
    #[serde(default)]
    context: Option<Map<String, Value>>,
    #[serde(default)]
    integrations: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct Keyed {
    #[serde(default, rename = "writeKey")]
    write_key: Option<String>,
}

/// `POST /v1/{call}`: one message.
pub(super) async fn single(
    State(state): State<Arc<PublicState>>,
    Path(call): Path<String>,
    request: Request,
) -> Response {
    let Some(call) = CALLS.into_iter().find(|known| *known == call) else {
        return Refusal::NotFound.into_response();
    };
    accept(&state, request, move |door, body, arrival| {
        let mut sorted = Sorted::default();
        let mut message: Map<String, Value> =
            serde_json::from_slice(body).map_err(|_| Refusal::BadJson)?;
        message.remove("writeKey"); // it is a secret, and the event may be kept
        message.insert("type".to_owned(), call.into());
        sorted.add_message(door, 0, message, arrival);
        Ok(sorted)
    })
    .await
}

/// `POST /v1/batch`: messages that share their `context` and `integrations`.
pub(super) async fn batch(State(state): State<Arc<PublicState>>, request: Request) -> Response {
    accept(&state, request, |door, body, arrival| {
        let batch: Batch<'_> = serde_json::from_slice(body).map_err(|_| Refusal::BadJson)?;
        if batch.messages.len() > MOST_EVENTS {
            return Err(Refusal::TooManyEvents);
        }
        let shared = [("context", batch.context), ("integrations", batch.integrations)];
        let mut sorted = Sorted::default();
        for (index, raw) in batch.messages.into_iter().enumerate() {
            let text = raw.get().as_bytes();
            match sorting::read(text) {
                Ok(Value::Object(mut message)) => {
                    for (name, shared) in &shared {
                        merge_beneath(&mut message, name, shared.as_ref());
                    }
                    message.remove("writeKey");
                    sorted.add_message(door, index, message, arrival);
                }
                Ok(other) => {
                    sorted.add(door, index, &other, arrival, || Bytes::copy_from_slice(text));
                }
                Err(rejection) => sorted.reject(index, rejection, text, None),
            }
        }
        Ok(sorted)
    })
    .await
}

impl Sorted {
    fn add_message(
        &mut self,
        door: &Door,
        index: usize,
        message: Map<String, Value>,
        arrival: Timestamp,
    ) {
        let event = Value::Object(message);
        self.add(door, index, &event, arrival, || event.to_string().into());
    }
}

/// What the message says itself counts; key by key, not deeper.
fn merge_beneath(
    message: &mut Map<String, Value>,
    name: &str,
    shared: Option<&Map<String, Value>>,
) {
    let Some(shared) = shared else { return };
    let own = message.entry(name).or_insert_with(|| Value::Object(Map::new()));
    let Value::Object(own) = own else { return };
    for (key, value) in shared {
        if !own.contains_key(key) {
            own.insert(key.clone(), value.clone());
        }
    }
}

/// The way of one request. What is rejected is kept with its reason; the sender is told only that it
/// was handled, as Segment's own API does.
async fn accept(
    state: &Arc<PublicState>,
    request: Request,
    sort: impl FnOnce(&Door, &[u8], Timestamp) -> Result<Sorted, Refusal> + Send + 'static,
) -> Response {
    let arrived = Instant::now();
    let (head, mut body) = request.into_parts();
    let source = state.source(&head.extensions, &head.headers);
    match take(state, &head.headers, source, &mut body, arrived, sort).await {
        Ok(()) => Json(Success { success: true }).into_response(),
        Err(refusal @ (Refusal::BodyTimeout | Refusal::BodyBroken)) => refusal.into_response(),
        Err(refusal) => {
            body::discard(head, &mut body).await;
            refusal.into_response()
        }
    }
}

async fn take(
    state: &Arc<PublicState>,
    headers: &HeaderMap,
    source: Option<IpAddr>,
    body: &mut axum::body::Body,
    arrived: Instant,
    sort: impl FnOnce(&Door, &[u8], Timestamp) -> Result<Sorted, Refusal> + Send + 'static,
) -> Result<(), Refusal> {
    let known = match basic_user(headers) {
        Some(key) => {
            let door = state.door_of(&key).ok_or(Refusal::Unauthenticated)?;
            door.is_open(headers, source)?;
            Some(door)
        }
        None => None,
    };
    let limits = match known {
        Some(_) => state.limits,
        None => Limits {
            body_limit_bytes: state.limits.body_limit_bytes.min(STRANGERS_BODY_BYTES),
            ..state.limits
        },
    };
    let received = body::read(body, headers, &limits, &state.budget).await?;
    let door = if let Some(door) = known {
        door
    } else {
        let keyed: Option<Keyed> = serde_json::from_slice(&received.bytes).ok();
        let key = keyed.and_then(|keyed| keyed.write_key);
        let door = key.and_then(|key| state.door_of(&key)).ok_or(Refusal::Unauthenticated)?;
        door.is_open(headers, source)?;
        door
    };
    door.count_request()?;
    let due = Due::of(arrived, &state.limits);
    let arrival = state.ledger.arrival();
    let (sorting_door, text) = (Arc::clone(&door), received.bytes.clone());
    let sort = move || sort(&sorting_door, &text, arrival);
    let sorted = state.sorted(received.bytes.len(), sort, due).await?;
    state.keep(&door, sorted, received, arrival, due).await.map(|_| ())
}

impl PublicState {
    /// The destination of a write key. Every key is compared, so that the time tells nothing.
    fn door_of(&self, write_key: &str) -> Option<Arc<Door>> {
        let mut found = None;
        for door in self.doors.values() {
            let is_one = door.write_keys.iter().fold(Choice::from(0), |is_one, key| {
                is_one | key.expose().as_bytes().ct_eq(write_key.as_bytes())
            });
            if bool::from(is_one) {
                found = Some(Arc::clone(door));
            }
        }
        found
    }
}

/// The user name of HTTP Basic; the password is empty and not looked at.
fn basic_user(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, _) = decoded.split_once(':')?;
    Some(user.to_owned())
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use http::StatusCode;
    use serde_json::json;
    use tower::ServiceExt;

    use super::*;
    use crate::ledger::Intake;
    use crate::map::Mapping;
    use crate::membership::DestinationName;
    use crate::receive::fake::{Behaviour, FakeLedger, LIMITS, text_of};
    use crate::receive::{Credentials, Destination, Readiness, router};
    use crate::secret::Secret;

    fn public(ledger: &Arc<FakeLedger>) -> Router {
        let of = |name: &str, key: &str, enabled| Destination {
            name: DestinationName::new(name).expect("a name"),
            enabled,
            mappings: Mapping::preset().into(),
            credentials: Credentials::default(),
            write_keys: vec![Secret::new(key), Secret::new(format!("{key}-next"))],
            extra_fields: Vec::new(),
            allowed_sources: Vec::new(),
            allow_batches: true,
            rate: None,
        };
        let destinations =
            [of("one", "key-1", true), of("two", "key-2", true), of("off", "key-3", false)];
        let state =
            PublicState::new(destinations, Arc::clone(ledger) as _, LIMITS, Readiness::default());
        router(state)
    }

    async fn post(path: &str, key: Option<&str>, body: &Value) -> (StatusCode, Value, Vec<Intake>) {
        let ledger = Arc::new(FakeLedger::that(Behaviour::Records { kind_conflicts: Vec::new() }));
        let mut request = Request::post(path);
        if let Some(key) = key {
            let encoded = STANDARD.encode(format!("{key}:"));
            request = request.header("authorization", format!("Basic {encoded}"));
        }
        let request = request.body(axum::body::Body::from(body.to_string())).expect("a request");
        let response = public(&ledger).oneshot(request).await.expect("infallible");
        let status = response.status();
        let answer = serde_json::from_str(&text_of(response).await).expect("JSON");
        (status, answer, ledger.recorded())
    }

    fn personas() -> Value {
        json!({"personas": {
            "computation_class": "audience", "computation_id": "aud_1", "computation_key": "vip",
        }})
    }

    #[tokio::test]
    async fn the_write_key_is_the_credential_and_names_the_destination() {
        let message = json!({"userId": "ada", "context": personas(), "traits": {"vip": true}});
        let with_key = |key: &str| {
            let mut message = message.clone();
            message["writeKey"] = json!(key);
            message
        };
        let table = [
            (Some("key-1"), message.clone(), 200, Some("one")),
            (Some("key-2-next"), message.clone(), 200, Some("two")),
            (None, with_key("key-2"), 200, Some("two")),
            (Some("key-1"), with_key("nonsense"), 200, Some("one")),
            (Some("key"), message.clone(), 401, None),
            (Some(""), message.clone(), 401, None),
            (Some("nonsense"), with_key("key-1"), 401, None),
            (None, message.clone(), 401, None),
            (Some("key-3"), message.clone(), 503, None),
        ];
        for (key, body, expected, destination) in table {
            let (status, answer, recorded) = post("/v1/identify", key, &body).await;
            assert_eq!(status.as_u16(), expected, "{key:?}: {answer}");
            let to = recorded.first().map(|intake| intake.destination.as_str());
            assert_eq!(to, destination, "{key:?}");
            if expected == 200 {
                assert_eq!(answer, json!({"success": true}));
            }
        }
    }

    #[tokio::test]
    async fn the_path_is_the_type_and_unknown_calls_are_not_found() {
        let message = json!({
            "type": "track", "userId": "ada", "context": personas(), "traits": {"vip": true},
            "properties": {"vip": false},
        });
        for (path, expected, deltas) in [
            ("/v1/identify", 200, 1),
            ("/v1/track", 200, 1),
            ("/v1/page", 200, 0),
            ("/v1/alias", 200, 0),
            ("/v1/nothing", 404, 0),
        ] {
            let (status, _, recorded) = post(path, Some("key-1"), &message).await;
            assert_eq!(status.as_u16(), expected, "{path}");
            let found: usize = recorded.iter().map(|intake| intake.deltas.len()).sum();
            assert_eq!(found, deltas, "{path}");
        }
        let (status, ..) = post("/v1/identify", Some("key-1"), &json!([message])).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn what_a_batch_shares_lies_beneath_each_message_key_by_key() {
        let batch = json!({
            "batch": [
                {"type": "identify", "userId": "ada", "traits": {"vip": true}},
                {"type": "identify", "userId": "bob", "traits": {"vip": true},
                 "context": {"ip": "127.0.0.1"}},
                {"type": "identify", "userId": "cyd", "traits": {"vip": true},
                 "context": {"personas": {"computation_class": "trait"}}},
                {"type": "identify", "userId": "dan", "traits": {"vip": "perhaps"}, "writeKey": "k"},
                7,
            ],
            "context": personas(),
            "integrations": {"All": true},
            "sentAt": "2026-01-01T00:00:00Z",
        });
        for path in ["/v1/batch", "/v1/import"] {
            let (status, answer, recorded) = post(path, Some("key-1"), &batch).await;
            assert_eq!((status, &answer), (StatusCode::OK, &json!({"success": true})));
            let [intake] = &recorded[..] else { panic!("one record for one request") };
            let users: Vec<_> =
                intake.deltas.iter().map(|delta| delta.context_key.as_str()).collect();
            assert_eq!(users, ["ada", "bob"]);
            let [kept] = &intake.rejected[..] else { panic!("one is worth keeping") };
            let body: Value = serde_json::from_slice(&kept.body).expect("JSON");
            assert_eq!((kept.reason, &body["context"]), ("membership_unknown", &personas()));
            assert_eq!(body.get("writeKey"), None, "a secret is not kept");
        }
        let (status, ..) = post("/v1/batch", Some("key-1"), &json!({"no": "batch"})).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
    }
}
