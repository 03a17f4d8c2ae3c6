//! Segment's HTTP [Tracking API](crate::design::segment::tracking_api), as far as its SDKs use it:
//! `POST /v1/identify` and the other calls, and `/v1/batch`. For sources that send here directly, and for
//! backfills.
//!
//! The write key selects the destination and is the credential: as the user name of HTTP Basic, or as
//! `writeKey` in the body.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::answer::{self, Refusal};
use super::authentication::basic_user;
use super::body::Place;
use super::calls::{self, BATCH, IMPORT};
use super::cors;
use super::doors::Door;
use super::envelope::{self, Envelope, Fault};
use super::refused::{Asked, At, Doubt, Kind};
use super::sorting::{self, EVENT_LIMIT_BYTES, Sorted, Text};
use super::unpacking::{Encoding, Sender};
use super::webhook::Due;
use super::{Limits, PublicState, body};
use crate::json::exact::Exact;
use crate::json::{self, Json};
use crate::map::{Clock, Event, Mappings, Reason, Rejection, corrected};
use crate::membership::Timestamp;

/// Most bytes of a body without a key in the head, which a stranger may have sent: Segment's own
/// [limit for a batch](crate::design::segment::tracking_api).
const STRANGERS_BODY_BYTES: usize = 512 * 1024;

/// Most bytes of all copies of what messages share: each message is parsed with a copy, by which a sender
/// must not multiply a body at will ([P6](crate::design::P6)).
const MOST_SHARED_BYTES: usize = 32 * 1024 * 1024;

/// Longest `sentAt` of a batch; a longer one is ignored.
const LONGEST_TIME_BYTES: usize = 256;

/// A secret; it is removed from messages, which may be stored.
const WRITE_KEY: &str = "writeKey";

#[derive(Serialize)]
pub(super) struct Success {
    pub success: bool,
}

/// The members of a batch that are read: its messages, and what they share.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Part {
    Batch,
    Context,
    Integrations,
    #[serde(rename = "sentAt")]
    SentAt,
    #[serde(other)]
    Other,
}

/// A batch as raw text: its messages, and what they share.
struct Batch<'a> {
    messages: &'a [u8],
    context: Option<&'a [u8]>,
    integrations: Option<&'a [u8]>,
    sent_at: Option<&'a [u8]>,
}

impl<'a> Batch<'a> {
    /// `None` if the body is not a batch, or repeats a member other than `sentAt`.
    fn of(body: &'a [u8]) -> Option<Self> {
        let (mut messages, mut context, mut integrations) = (None, None, None);
        let mut sent_at = None;
        envelope::each_member(body, |part, text| {
            let part = match part {
                Part::Batch => &mut messages,
                Part::Context => &mut context,
                Part::Integrations => &mut integrations,
                Part::SentAt => {
                    sent_at = Some(text);
                    return Some(());
                }
                Part::Other => return Some(()),
            };
            part.replace(text).is_none().then_some(())
        })?;
        Some(Self { messages: messages?, context, integrations, sent_at })
    }
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
    let Some(call) = calls::SINGLE.into_iter().find(|known| *known == call) else {
        return answer::not_found(State(state), request).await.into_response();
    };
    message(&state, call, request).await
}

pub(super) async fn message(
    state: &Arc<PublicState>,
    call: &'static str,
    request: Request,
) -> Response {
    accept(state, call, request, move |door, body, place, arrival| {
        let body = json::without_mark(body);
        if body.len() > EVENT_LIMIT_BYTES {
            return Err(Refusal::TooLarge);
        }
        let mappings = door.mappings();
        let tree_bytes = sorting::tree_bytes(body);
        place.charge(sorting::bytes_of_events(1, &mappings) + tree_bytes)?;
        let mut sorted = Sorted::of(&mappings);
        let mut message = match sorting::read(body) {
            Ok(message) if message.value().is_object() => message,
            Err(rejection) if rejection.reason == Reason::EventTooLarge => {
                return Err(Refusal::TooLarge);
            }
            Ok(_) | Err(_) => return Err(Refusal::BadJson),
        };
        message.each(|message| {
            if let Value::Object(message) = message {
                message.remove(WRITE_KEY);
                message.insert("type".to_owned(), call.into());
            }
        });
        let clock = date(&mut message, None, arrival, door);
        sorted.add_message(&mappings, 0, (&message, clock), arrival);
        sorted.charge(place, tree_bytes)?;
        Ok(sorted)
    })
    .await
}

/// `POST /v1/batch`: messages that share their `context` and `integrations`.
pub(super) async fn batch(State(state): State<Arc<PublicState>>, request: Request) -> Response {
    let path = request.uri().path().trim_end_matches('/');
    let call = if path.ends_with(IMPORT) { IMPORT } else { BATCH };
    accept(&state, call, request, |door, body, place, arrival| {
        let body = json::without_mark(body);
        let mappings = door.mappings();
        let mut sorted = Sorted::of(&mappings);
        let most_events = sorting::most_events(door);
        let list_bytes = sorting::bytes_of_list(body, most_events);
        place.charge(list_bytes)?;
        let mut messages = Messages::of(body, most_events)?;
        let events = messages.texts.len();
        // all at once: a batch that does not fit must not fill the budget first
        let written_bytes = body.len() + events * messages.shared_bytes;
        sorted.prepaid_bytes = written_bytes;
        let sorted_bytes = sorting::bytes_of_events(events, &mappings);
        place.charge(sorted_bytes + messages.tree_bytes + written_bytes)?;
        place.discharge(list_bytes);
        for index in 0..events {
            let tree_bytes = messages.next_tree_bytes();
            if tree_bytes > 0 {
                place.charge(tree_bytes)?;
            }
            match messages.next() {
                Some(Ok(mut message)) => {
                    let clock = date(&mut message, messages.sent_at.as_ref(), arrival, door);
                    sorted.add_message(&mappings, index, (&message, clock), arrival);
                }
                Some(Err((text, rejection))) => {
                    // The write key cannot be removed from a text that cannot be parsed.
                    let kept = if names_write_key(text) { &[][..] } else { text };
                    sorted.reject(index, rejection, kept, arrival);
                }
                None => break,
            }
            sorted.charge(place, tree_bytes)?;
        }
        place.discharge(messages.tree_bytes);
        Ok(sorted)
    })
    .await
}

fn names_write_key(text: &[u8]) -> bool {
    text.windows(WRITE_KEY.len()).any(|part| part == WRITE_KEY.as_bytes())
}

/// The messages of a batch, each merged with what they share.
struct Messages<'a> {
    texts: std::vec::IntoIter<&'a [u8]>,
    /// When the batch was sent, according to its sender.
    sent_at: Option<Value>,
    shared: Vec<(&'static str, Exact)>,
    /// Bytes of the shared texts.
    shared_bytes: usize,
    /// Bytes that the shared values take when parsed, and again in each message.
    tree_bytes: usize,
}

impl<'a> Messages<'a> {
    fn of(body: &'a [u8], most_events: usize) -> Result<Self, Refusal> {
        let batch = Batch::of(body).ok_or(Refusal::BadJson)?;
        let texts = match envelope::split(batch.messages, most_events) {
            Ok(Envelope::Array(texts)) => texts,
            Err(unsplittable) if unsplittable.fault == Fault::TooManyEvents => {
                return Err(Refusal::TooManyEvents);
            }
            Ok(Envelope::Single(_)) | Err(_) => return Err(Refusal::BadJson),
        };
        let mut shared = Vec::new();
        let (mut shared_bytes, mut tree_bytes) = (0, 0);
        for (name, raw) in [("context", batch.context), ("integrations", batch.integrations)] {
            let Some(raw) = raw else { continue };
            let value = match sorting::read(raw) {
                Ok(value) => value,
                Err(rejection) if rejection.reason == Reason::EventTooLarge => {
                    return Err(Refusal::TooLarge);
                }
                Err(_) => return Err(Refusal::BadJson),
            };
            // Some languages write an empty list where there is nothing to share.
            if value.value().is_object() {
                shared_bytes += raw.len();
                tree_bytes += sorting::tree_bytes(raw);
                shared.push((name, value));
            }
        }
        if shared_bytes.saturating_mul(texts.len()) > MOST_SHARED_BYTES {
            return Err(Refusal::TooLarge);
        }
        let sent_at = batch.sent_at.filter(|raw| raw.len() <= LONGEST_TIME_BYTES);
        let sent_at = sent_at.and_then(|raw| json::from_slice(raw).ok());
        Ok(Self { texts: texts.into_iter(), sent_at, shared, shared_bytes, tree_bytes })
    }

    /// Most bytes that the next message takes while it is parsed and written.
    fn next_tree_bytes(&self) -> usize {
        let own = self.texts.as_slice().first().map_or(0, |text| sorting::tree_bytes(text));
        // a shared value with two trees gives every message two trees
        let is_twice = self.shared.iter().any(|(_, shared)| !shared.is_plain());
        (if is_twice { 2 * own } else { own }) + self.tree_bytes
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Exact, (&'a [u8], Rejection)>;

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.texts.next()?;
        let mut message = match sorting::read(text) {
            Ok(message) => message,
            Err(rejection) => return Some(Err((text, rejection))),
        };
        for (name, shared) in &self.shared {
            message.with(shared, |message, shared| merge_beneath(message, name, shared));
        }
        message.each(|message| {
            message.as_object_mut().map(|message| message.remove(WRITE_KEY));
        });
        Some(Ok(message))
    }
}

/// The messages in a body of `/v1/batch`, in the form in which they are mapped: merged with what the batch
/// shares, and without their write key. `None` for a message that cannot be parsed, and for a body that is
/// not a batch.
#[must_use]
pub fn messages(body: &[u8]) -> Option<Vec<Option<Value>>> {
    let value = |message: Result<Exact, _>| message.ok().map(|message| message.value().clone());
    Messages::of(body, sorting::MOST_EVENTS).ok().map(|messages| messages.map(value).collect())
}

impl Sorted {
    fn add_message(
        &mut self,
        mappings: &[&Mappings],
        index: usize,
        (message, clock): (&Exact, Clock),
        arrival: Timestamp,
    ) {
        let text = OnceCell::new();
        let written = || Text::Written(text.get_or_init(|| Bytes::from(message.to_json())).clone());
        self.add(mappings, index, Event::from(message).by(clock), arrival, &[], written);
        self.uncharged_bytes += text.get().map_or(0, Bytes::len);
    }
}

/// Corrects the time of a message if the sender's clock is wrong. The original time stays beside it, as with
/// Segment, so that a stored message has both.
fn date(message: &mut Exact, sent_at: Option<&Value>, arrival: Timestamp, door: &Door) -> Clock {
    let (clock, timestamp) =
        corrected(message.value(), sent_at, arrival, door.corrects_clocks_behind);
    if let Some(timestamp) = timestamp {
        message.each(|message| {
            let Value::Object(message) = message else { return };
            let said = message.insert("timestamp".to_owned(), timestamp.as_str().into());
            if let Some(said) = said.filter(|_| !message.contains_key("originalTimestamp")) {
                message.insert("originalTimestamp".to_owned(), said);
            }
        });
    }
    clock
}

/// Merges shared members into a message. Its own members take precedence, key by key and not deeper.
fn merge_beneath(message: &mut Value, name: &str, shared: &Value) {
    let (Value::Object(message), Value::Object(shared)) = (message, shared) else { return };
    let own = message.entry(name).or_insert_with(|| Value::Object(Map::new()));
    let Value::Object(own) = own else { return };
    for (key, value) in shared {
        if !own.contains_key(key) {
            own.insert(key.clone(), value.clone());
        }
    }
}

/// Handles one request. Rejected messages are stored with their reason; the sender is told only that the
/// request was handled, as by Segment's own API.
async fn accept(
    state: &Arc<PublicState>,
    call: &'static str,
    request: Request,
    sort: impl FnOnce(&Door, &[u8], &mut Place, Timestamp) -> Result<Sorted, Refusal> + Send + 'static,
) -> Response {
    let arrived = Instant::now();
    let (head, mut body) = request.into_parts();
    let (mut door, origin) = (None, cors::origin(&head.headers));
    let mut asked = Asked::of(&head.method, &head.headers);
    asked.doubt = match asked.authorization {
        // the key may be in the body
        Kind::None => Doubt::Nothing,
        Kind::Basic => Doubt::Wrong(Kind::Basic),
        other => Doubt::Unexpected(other),
    };
    let entered = enter(state, &head, &mut door);
    let awaits_leave = body::awaits_leave(&head.headers);
    drop(head); // so that strangers hold no memory while their body is awaited
    let end = match entered {
        Ok(entered) => take(state, entered, &mut body, arrived, sort, &mut door).await,
        Err(refusal) => Err(refusal),
    };
    let is_worth_a_word =
        |refusal: &Refusal| !matches!(refusal, Refusal::BodyTimeout | Refusal::BodyBroken);
    if end.as_ref().is_err_and(is_worth_a_word) && !awaits_leave {
        body::drain(&mut body).await;
    }
    let end = end.map(|()| Json(Success { success: true }));
    let at = At::Call(call, door.as_deref());
    let mut response = state.counted(&at, asked, arrived, end).into_response();
    cors::let_read(&mut response, origin, door.as_deref(), state);
    response
}

/// What the head of a request says about its handling.
struct Entered {
    /// The door that a write key in the head opens.
    known: Option<Arc<Door>>,
    source: Option<IpAddr>,
    encoding: Option<Encoding>,
}

/// Everything that can be decided before the body is read. Sets `found` to the door, once it is known.
fn enter(
    state: &PublicState,
    head: &Parts,
    found: &mut Option<Arc<Door>>,
) -> Result<Entered, Refusal> {
    if !state.doors.have_write_keys() {
        return Err(Refusal::NotFound);
    }
    let source = state.source(&head.extensions, &head.headers);
    let Some(key) = basic_user(&head.headers) else {
        return Ok(Entered { known: None, source, encoding: Encoding::of(&head.headers)? });
    };
    let door = found.insert(state.doors.of_key(&key).ok_or(Refusal::Unauthenticated)?);
    let encoding = door.is_open(&head.headers, source)?;
    Ok(Entered { known: Some(Arc::clone(door)), source, encoding })
}

async fn take(
    state: &Arc<PublicState>,
    Entered { known, source, encoding }: Entered,
    body: &mut axum::body::Body,
    arrived: Instant,
    sort: impl FnOnce(&Door, &[u8], &mut Place, Timestamp) -> Result<Sorted, Refusal> + Send + 'static,
    found: &mut Option<Arc<Door>>,
) -> Result<(), Refusal> {
    let body_limit_bytes = match known {
        Some(_) => state.limits.body_limit_bytes,
        None => state.limits.body_limit_bytes.min(STRANGERS_BODY_BYTES),
    };
    let limits = Limits { body_limit_bytes, ..state.limits };
    let mut received = body::read(body, &limits, &state.budget).await?;
    let due = Due::of(arrived, &state.limits);
    if known.is_some() {
        received.place.settle()?;
    }
    if let Some(encoding) = encoding {
        let sender = if known.is_some() { Sender::Known } else { Sender::Anybody };
        received = state.unpacked(received, encoding, sender, body_limit_bytes, due).await?;
    }
    let door = if let Some(door) = known {
        door
    } else {
        let keyed: Option<Keyed> = json::from_slice(&received.bytes).ok();
        let key = keyed.and_then(|keyed| keyed.write_key);
        let door = key.and_then(|key| state.doors.of_key(&key)).ok_or(Refusal::Unauthenticated)?;
        found.insert(Arc::clone(&door)).admits_from(source)?;
        received.place.settle()?;
        door
    };
    door.count_request()?;
    let arrival = state.ledger.arrival();
    let sort = move |door: &_, body: &_, place: &mut _| sort(door, body, place, arrival);
    let (received, sorted) = state.sorted(&door, received, sort, due).await?;
    state.keep(&door, sorted, received, arrival, due).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use http::StatusCode;
    use serde_json::json;
    use tower::ServiceExt;

    use super::*;
    use crate::ledger::Intake;
    use crate::receive::fake::{Behaviour, FakeLedger, LIMITS, entrance, text_of};
    use crate::receive::{Credentials, Doors, Entrance, Readiness, router};
    use crate::secret::Secret;

    fn public(ledger: &Arc<FakeLedger>, limits: Limits) -> Router {
        let of = |name: &str, key: &str| Entrance {
            credentials: Credentials {
                write_keys: vec![Secret::new(key), Secret::new(format!("{key}-next"))],
                ..Credentials::default()
            },
            ..entrance(name)
        };
        let doors = Doors::new([of("one", "key-1"), of("two", "key-2"), of("off", "key-3")]);
        let ledger = Arc::clone(ledger) as _;
        let state = PublicState::new(doors, ledger, limits, Readiness::default(), Arc::default());
        router(state)
    }

    async fn post(path: &str, key: Option<&str>, body: &Value) -> (StatusCode, Value, Vec<Intake>) {
        post_text(path, key, body.to_string()).await
    }

    async fn post_text(
        path: &str,
        key: Option<&str>,
        body: String,
    ) -> (StatusCode, Value, Vec<Intake>) {
        post_within(LIMITS, path, key, body).await
    }

    async fn post_within(
        limits: Limits,
        path: &str,
        key: Option<&str>,
        body: String,
    ) -> (StatusCode, Value, Vec<Intake>) {
        let ledger = Arc::new(FakeLedger::that(Behaviour::Records { kind_conflicts: Vec::new() }));
        let mut request = Request::post(path);
        if let Some(key) = key {
            let encoded = STANDARD.encode(format!("{key}:"));
            request = request.header("authorization", format!("Basic {encoded}"));
        }
        let request = request.body(axum::body::Body::from(body)).expect("a request");
        let response = public(&ledger, limits).oneshot(request).await.expect("infallible");
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
            assert_eq!((&*kept.reason, &body["context"]), ("membership_unknown", &personas()));
            assert_eq!(body.get("writeKey"), None, "a secret is not kept");
        }
        let (status, ..) = post("/v1/batch", Some("key-1"), &json!({"no": "batch"})).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn a_message_that_cannot_be_read_costs_no_other_and_an_empty_share_may_be_a_list() {
        let ada = json!({
            "type": "identify", "userId": "ada", "context": personas(), "traits": {"vip": true},
        });
        let batch = format!(
            r#"{{"context":[],"integrations":null,"batch":[{{"userId":"\ud800"}}, {ada},7]}}"#
        );
        let (status, _, recorded) = post_text("/v1/batch", Some("key-1"), batch).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(recorded[0].deltas.len(), 1);
        assert_eq!(recorded[0].rejected[0].reason, "unreadable_event");
    }

    #[tokio::test]
    async fn a_message_that_cannot_be_read_is_not_kept_with_a_write_key() {
        let batch = r#"{"batch":[{"writeKey":"hidden","userId":"\ud800"}, {"userId":"\ud800"}]}"#;
        let (status, _, recorded) = post_text("/v1/batch", Some("key-1"), batch.to_owned()).await;
        assert_eq!(status, StatusCode::OK);
        let [kept] = &recorded[0].rejected[..] else { panic!("the other one is kept") };
        assert_eq!(kept.body, br#"{"userId":"\ud800"}"#);
    }

    /// Shared members multiply a body, and the result counts against the limits ([P6](crate::design::P6)).
    #[tokio::test]
    async fn what_is_shared_may_not_multiply_a_body_past_all_bounds() {
        let batch = |messages: usize, shared_bytes: usize| {
            let message = json!({
                "type": "identify", "userId": "ada", "traits": {"vip": true}, "x": null,
            });
            let mut context = personas();
            context["fill"] = "x".repeat(shared_bytes).into();
            json!({"batch": vec![message; messages], "context": context})
        };
        // messages, bytes that they share, status
        let table = [
            (10, 1000, 200),
            (1, 900_000, 200),
            (40, 900_000, 413), // refused before anything is built
            (3000, 1500, 413),  // 5 MB of copies on top of what is sorted: more than the budget
        ];
        let limits = Limits { body_budget_bytes: 6 << 20, ..LIMITS };
        for (messages, shared_bytes, expected) in table {
            let body = batch(messages, shared_bytes).to_string();
            let (status, ..) = post_within(limits, "/v1/batch", Some("key-1"), body).await;
            assert_eq!(status.as_u16(), expected, "{messages} of {shared_bytes}");
        }
    }

    #[tokio::test]
    async fn a_call_may_be_as_large_as_an_event_and_a_batch_may_hold_so_many() {
        let long = |bytes: usize| json!({"userId": "ada", "fill": "x".repeat(bytes)});
        for (bytes, expected) in [(1_000_000, 200), (1_048_576, 413)] {
            let limits = Limits { body_limit_bytes: 8 << 20, body_budget_bytes: 8 << 20, ..LIMITS };
            let (status, ..) =
                post_within(limits, "/v1/page", Some("key-1"), long(bytes).to_string()).await;
            assert_eq!(status.as_u16(), expected, "{bytes}");
        }
        let many = format!("{{\"batch\":[{}0]}}", "0,".repeat(sorting::MOST_EVENTS));
        let limits = Limits { body_budget_bytes: 8 << 20, ..LIMITS };
        let (status, ..) = post_within(limits, "/v1/batch", Some("key-1"), many).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn one_letter_is_the_call_with_or_without_a_slash_and_whatever_the_body_is_called() {
        let message = |kind: &str| {
            json!({
                "type": kind, "userId": "ada", "writeKey": "key-1", "context": personas(),
                "traits": {"vip": true}, "properties": {"vip": true},
            })
        };
        let calls = calls::SHORT
            .into_iter()
            .filter(|(_, call)| ["identify", "track", BATCH].contains(call));
        for (short, call) in calls {
            let body = match call {
                BATCH => json!({"writeKey": "key-1", "batch": [message("track")]}),
                // the path determines the type
                _ => message("page"),
            };
            for path in [format!("/v1/{short}"), format!("/v1/{short}/")] {
                let (status, answer, recorded) = post(&path, None, &body).await;
                assert_eq!((status, answer), (StatusCode::OK, json!({"success": true})), "{path}");
                assert_eq!(recorded.len(), 1, "{path}");
                assert_eq!(recorded[0].deltas.len(), 1, "{path}");
            }
        }
        for (short, _) in calls::SHORT {
            let (status, _, recorded) = post(&format!("/v1/{short}"), None, &json!({})).await;
            assert_eq!((status.as_u16(), recorded.len()), (401, 0), "{short}");
        }
        for path in ["/v1/m", "/v1/m/"] {
            let (status, answer, recorded) = post(path, None, &json!({"series": []})).await;
            let expected = (200, json!({"success": true}), 0);
            assert_eq!((status.as_u16(), answer, recorded.len()), expected, "{path}");
        }
        assert_eq!(post("/v1/x", None, &message("track")).await.0, StatusCode::NOT_FOUND);

        let ledger = Arc::new(FakeLedger::that(Behaviour::Records { kind_conflicts: Vec::new() }));
        let body = message("identify").to_string();
        for kind in ["text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded"]
        {
            let request = Request::post("/v1/i").header("content-type", kind);
            let request = request.body(axum::body::Body::from(body.clone())).expect("a request");
            let response = public(&ledger, LIMITS).oneshot(request).await.expect("infallible");
            assert_eq!(response.status(), StatusCode::OK, "{kind}");
        }
        assert_eq!(ledger.recorded().len(), 3);
    }
}
