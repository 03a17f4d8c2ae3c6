//! `POST|PUT|PATCH /segment/{destination or route}`: how one request is handled.
//!
//! A 2xx is a promise that everything accepted is on stable storage ([P1](crate::design::P1)). If the ledger
//! does not achieve that in time the answer is 503, and Segment retries: recording the same events again
//! changes nothing.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use tokio::time::{Instant, timeout_at};

use super::answer::{Account, Refusal};
use super::authentication::Presented;
use super::body::{Place, Received};
use super::doors::Door;
use super::heavy::Lane;
use super::refused::{Asked, At, shortened};
use super::slip::Meant;
use super::sorting::{self, Sorted};
use super::sources::{self, Peer};
use super::unpacking::{self, Encoding, Sender};
use super::{Limits, PublicState, body};
use crate::ledger::{Intake, LedgerError, Recorded};
use crate::membership::Timestamp;

/// Bodies of at least this size, about a millisecond of work, are sorted on a blocking thread.
const HEAVY_BYTES: usize = 64 * 1024;

/// The least time that the ledger gets, however long the body took to arrive.
const LEAST_FOR_THE_LEDGER: Duration = Duration::from_millis(500);

/// Handles one request with events.
///
/// The futures awaited here are boxed one by one: an allocator's thread cache does not hold futures larger
/// than a kibibyte, which would cost every request.
pub(super) async fn accept(
    State(state): State<Arc<PublicState>>,
    destination: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let arrived = Instant::now();
    let (head, mut body) = request.into_parts();
    let door = destination.ok().and_then(|Path(name)| state.doors.at(&name));
    let mut asked = Asked::of(&head.method, &head.headers);
    let astray = if door.is_none() { shortened(head.uri.path()) } else { String::new() };
    let source = state.source(&head.extensions, &head.headers);
    let entered = match &door {
        Some(door) => enter(door, &head.headers, source, &mut asked).map(|entered| (door, entered)),
        None => Err(Refusal::UnknownDestination),
    };
    let meant = entered.is_err().then(|| Meant::by(&astray, &head.headers, &state.doors)).flatten();
    let awaits_leave = body::awaits_leave(&head.headers);
    drop(head); // so that strangers hold no memory while their body is awaited
    let received = Box::pin(async {
        let (door, (presented, encoding)) = entered?;
        let received = body::read(&mut body, &state.limits, &state.budget).await?;
        Ok((door, presented, encoding, received))
    });
    let end = match received.await {
        Ok((door, presented, encoding, received)) => {
            drop(body); // early, because an allocator is fastest at reusing recent frees
            let due = Due::of(arrived, &state.limits);
            Box::pin(state.take(door, presented, encoding, received, due)).await
        }
        Err(refusal @ (Refusal::BodyTimeout | Refusal::BodyBroken)) => Err(refusal),
        Err(refusal) => {
            if !awaits_leave {
                if let Some(meant) = &meant {
                    asked.is_proven = Box::pin(meant.is_proven_by(&mut body, &state.budget)).await;
                }
                Box::pin(body::drain(&mut body)).await;
            }
            Err(refusal)
        }
    };
    let at = door.as_deref().map_or(At::Astray(&astray), |door| At::Door(door, ""));
    state.counted(&at, asked, arrived, end).into_response()
}

/// Everything that can be decided before the body is read.
fn enter(
    door: &Door,
    headers: &http::HeaderMap,
    source: Option<IpAddr>,
    asked: &mut Asked,
) -> Result<(Presented, Option<Encoding>), Refusal> {
    let encoding = door.is_open(headers, source)?;
    let Some(presented) = door.gate.inspect(headers) else {
        asked.doubt = door.gate.doubt(headers);
        return Err(Refusal::Unauthenticated);
    };
    Ok((presented, encoding))
}

/// The deadline of the answer.
#[derive(Clone, Copy)]
pub(super) struct Due(Instant);

impl Due {
    /// The deadline for a request that arrived at this time.
    pub(super) fn of(arrived: Instant, limits: &Limits) -> Self {
        Self(arrived + limits.answer_timeout)
    }

    fn for_the_ledger(self) -> Instant {
        self.0.max(Instant::now() + LEAST_FOR_THE_LEDGER)
    }
}

impl PublicState {
    /// The source address of a request, as far as it is known.
    pub(super) fn source(
        &self,
        extensions: &http::Extensions,
        headers: &http::HeaderMap,
    ) -> Option<IpAddr> {
        let peer = extensions.get::<Peer>()?;
        sources::source(*peer, headers, self.limits.trusted_proxies)
    }

    /// Processes a received body, which keeps its place in the budget until this returns.
    async fn take(
        &self,
        door: &Arc<Door>,
        presented: Presented,
        encoding: Option<Encoding>,
        mut received: Received,
        due: Due,
    ) -> Result<Account, Refusal> {
        if presented.shows_a_secret() {
            received.place.settle()?;
        }
        if let Some(encoding) = encoding {
            let sender = Sender::at(door, &presented);
            let limit_bytes = self.limits.body_limit_bytes;
            received =
                Box::pin(self.unpacked(received, encoding, sender, limit_bytes, due)).await?;
        }
        let arrival = self.ledger.arrival();
        let sort = move |door: &_, body: &_, place: &mut _| {
            sorting::sort(door, &presented, body, place, arrival)
        };
        let (received, sorted) = self.sorted(door, received, sort, due).await?;
        self.keep(door, sorted, received, arrival, due).await
    }

    /// Decompresses a body into at most `limit_bytes`.
    pub(super) async fn unpacked(
        &self,
        received: Received,
        encoding: Encoding,
        sender: Sender,
        limit_bytes: usize,
        due: Due,
    ) -> Result<Received, Refusal> {
        let by = due.for_the_ledger();
        unpacking::unpacked(received, encoding, sender, limit_bytes, &self.heavy, by).await
    }

    /// Makes the sorted events durable.
    pub(super) async fn keep(
        &self,
        door: &Door,
        sorted: Sorted,
        mut received: Received,
        arrival: Timestamp,
        due: Due,
    ) -> Result<Account, Refusal> {
        let names = door.destinations.iter().map(|destination| &destination.name);
        let (intakes, mut unsure) = sorted.into_intakes(names, arrival);
        if !intakes.is_empty() {
            let recorded = self.record(door, intakes, due).await?;
            received.place.charge(unsure.conflicts_bytes(&recorded))?;
            let kept = unsure.without_conflicts(recorded, &received.bytes);
            if !kept.is_empty() {
                self.record(door, kept, due).await?;
            }
        }
        for (destination, tally) in door.destinations.iter().zip(unsure.tallies()) {
            destination.counters.events(tally, arrival);
        }
        Ok(unsure.account)
    }

    /// Sorts a body: on this thread, or on a blocking thread if it is heavy.
    pub(super) async fn sorted(
        &self,
        door: &Arc<Door>,
        mut received: Received,
        sort: impl FnOnce(&Door, &[u8], &mut Place) -> Result<Sorted, Refusal> + Send + 'static,
        due: Due,
    ) -> Result<(Received, Sorted), Refusal> {
        if received.bytes.len() < HEAVY_BYTES {
            received.place.settle()?;
            let sorted = sort(door, &received.bytes, &mut received.place)?;
            return Ok((received, sorted));
        }
        let door = Arc::clone(door);
        let sort = move |of: &mut Received| sort(&door, &of.bytes, &mut of.place);
        let lane = Lane::for_text(received.bytes.len());
        self.heavy.work(lane, received, due.for_the_ledger(), sort).await
    }

    /// A record that misses the deadline may still succeed; the sender's retry then repeats it.
    async fn record(
        &self,
        door: &Door,
        intakes: Vec<Intake>,
        due: Due,
    ) -> Result<Vec<Recorded>, Refusal> {
        match timeout_at(due.for_the_ledger(), self.ledger.record_all(intakes)).await {
            Ok(Ok(recorded)) => Ok(recorded),
            Ok(Err(error)) => Err(self.unrecorded(door, Some(&error))),
            Err(_) => Err(self.unrecorded(door, None)),
        }
    }

    /// Logged rarely: the sender retries as fast as it likes, and the log may be on the same disk.
    fn unrecorded(&self, door: &Door, error: Option<&LedgerError>) -> Refusal {
        let due = self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner).more(1);
        if let Some(requests) = due {
            tracing::warn!(
                destination.name = door.names(),
                requests,
                error = error.map(|error| error as &dyn std::error::Error),
                "requests were answered 503, the latest for this destination: the ledger did not accept \
                 their events{}",
                if error.is_some() { "" } else { " in time" }
            );
        }
        Refusal::Unavailable
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use axum::Router;
    use axum::body::Body;
    use hmac::{Hmac, KeyInit, Mac};
    use http::StatusCode;
    use serde_json::{Value, json};
    use sha1::Sha1;
    use tower::ServiceExt;

    use super::*;
    use crate::membership::{DestinationName, UserId};
    use crate::receive::fake::{Behaviour, FakeLedger, LIMITS, entrance, pieces, stalled, text_of};
    use crate::receive::{Credential, Credentials, Doors, Entrance, Readiness, router};
    use crate::secret::Secret;

    const RECORDS: Behaviour = Behaviour::Records { kind_conflicts: Vec::new() };

    fn with(name: &str, credentials: Credentials) -> Entrance {
        Entrance { credentials, extra_fields: vec!["plan".to_owned()], ..entrance(name) }
    }

    /// `production` accepts either proof, `strict` requires both, `open` none; `off` is disabled.
    fn public(ledger: &Arc<FakeLedger>, limits: Limits) -> Router {
        let both = || Credentials {
            shared_secrets: vec![Secret::new("secret")],
            bearer_tokens: vec![Secret::new("token")],
            write_keys: vec![Secret::new("key")],
            ..Credentials::default()
        };
        let require = vec![Credential::Signature, Credential::Bearer];
        let open = Credentials { allow_unauthenticated: true, ..Credentials::default() };
        let doors = Doors::new([
            with("production", both()),
            with("strict", Credentials { require, ..both() }),
            with("open", open),
            with("off", both()),
        ]);
        let readiness = Readiness::default();
        let ledger = Arc::clone(ledger) as _;
        router(PublicState::new(doors, ledger, limits, readiness, Arc::default()))
    }

    fn signature(text: impl AsRef<[u8]>) -> String {
        let signer = Hmac::<Sha1>::new_from_slice(b"secret").expect("HMAC takes any key");
        hex::encode(signer.chain_update(text).finalize().into_bytes())
    }

    fn enters(user: &str) -> String {
        json!({
            "type": "identify",
            "userId": user,
            "context": {"personas": {
                "computation_id": "aud_1", "computation_key": "vip", "computation_class": "audience",
            }},
            "traits": {"vip": true, "email": "ada@example.com"},
        })
        .to_string()
    }

    /// Posts to `/segment/open`.
    async fn post(ledger: &Arc<FakeLedger>, body: impl Into<Body>) -> (StatusCode, Value) {
        let request = Request::post("/segment/open").body(body.into()).expect("a request");
        ask(&public(ledger, LIMITS), request).await
    }

    async fn ask(router: &Router, request: Request) -> (StatusCode, Value) {
        let response = router.clone().oneshot(request).await.expect("infallible");
        let status = response.status();
        assert_eq!(response.headers()["content-type"], "application/json");
        let text = text_of(response).await;
        assert!(!text.contains('\n') && !text.contains("example.com"), "{text}");
        (status, serde_json::from_str(&text).expect("answers are JSON"))
    }

    fn recording() -> Arc<FakeLedger> {
        Arc::new(FakeLedger::that(RECORDS))
    }

    /// An event of an audience without an identifier: rejected, and worth keeping.
    fn nobody_enters() -> String {
        enters("u1").replace("\"u1\"", "null")
    }

    fn users(intake: &Intake) -> Vec<&str> {
        intake.deltas.iter().map(|delta| delta.context_key.as_str()).collect()
    }

    #[tokio::test]
    async fn each_event_is_accounted_for_and_recorded_once() {
        let unreadable = r#"{"userId":"\ud800"}"#;
        let no_key = nobody_enters();
        let body = format!(
            "[{}, {unreadable}, {no_key}, 7, {}, {}, {}, {}]",
            enters("u1"),
            r#"{"type":"page"}"#,
            r#"{"type":"delete","userId":"u9"}"#,
            r#"{"type":"identify"}"#,
            enters("u2"),
        );
        let ledger = recording();
        let (status, answer) = post(&ledger, body).await;

        assert_eq!(status, StatusCode::OK);
        assert_eq!((&answer["accepted"], &answer["ignored"]), (&json!(3), &json!(1)));
        let rejected = answer["rejected"].as_array().expect("a list");
        let words: Vec<_> = rejected
            .iter()
            .map(|rejection| {
                let reason = rejection["reason"].as_str().expect("text");
                (rejection["index"].as_u64().expect("a number"), reason.split(": ").next())
            })
            .collect();
        assert_eq!(
            words,
            [
                (1, Some("unreadable_event")),
                (2, Some("no_context_key")),
                (3, Some("not_an_object")),
                (6, Some("not_an_audience")),
            ]
        );
        let recorded = ledger.recorded();
        let [intake] = &recorded[..] else { panic!("one record for one request") };
        assert_eq!(users(intake), ["u1", "u2"]);
        assert_eq!(intake.destination.as_str(), "open");
        let deleted: Vec<_> = intake.deletions.iter().map(|of| &of.deletion.user_id).collect();
        assert_eq!(deleted, [&UserId::new("u9").expect("an id")]);
        let kept: Vec<_> =
            intake.rejected.iter().map(|event| (&*event.reason, &event.body[..])).collect();
        assert_eq!(
            kept,
            [("unreadable_event", unreadable.as_bytes()), ("no_context_key", no_key.as_bytes()),],
            "what is not of an audience at all is counted, not kept"
        );
    }

    #[tokio::test]
    async fn what_is_left_decides_the_status() {
        let event = enters("u1");
        let page = r#"{"type":"page"}"#;
        let no_user = r#"{"type":"delete"}"#;
        let too_deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
        // body, status, accepted, ignored, rejected, records
        let table = [
            (event.clone(), 200, 1, 0, 0, 1),
            (format!(" {event}\n"), 200, 1, 0, 0, 1),
            (format!("[{event}]"), 200, 1, 0, 0, 1),
            (format!("[{{\"json\": {event}}}, {{\"json\":{event}}}]"), 200, 2, 0, 0, 1),
            (page.to_owned(), 200, 0, 1, 0, 0),
            ("[]".to_owned(), 200, 0, 0, 0, 0),
            (format!("[{page},{no_user}]"), 200, 0, 1, 1, 1),
            (no_user.to_owned(), 400, 0, 0, 1, 1),
            (format!("[{no_user},{no_user}]"), 400, 0, 0, 2, 1),
            (r#"{"type":"identify"}"#.to_owned(), 400, 0, 0, 1, 0),
            ("42".to_owned(), 400, 0, 0, 1, 0),
            (nobody_enters(), 400, 0, 0, 1, 1),
            (too_deep.clone(), 400, 0, 0, 1, 1),
            (format!("[{too_deep},{event}]"), 200, 1, 0, 1, 1),
        ];
        for (body, status, accepted, ignored, rejected, records) in table {
            let ledger = recording();
            let (actual, answer) = post(&ledger, body.clone()).await;
            assert_eq!(actual.as_u16(), status, "{body}");
            assert_eq!(answer["accepted"], accepted, "{body}");
            assert_eq!(answer["ignored"], ignored, "{body}");
            assert_eq!(answer["rejected"].as_array().map(Vec::len), Some(rejected), "{body}");
            assert_eq!(ledger.recorded().len(), records, "{body}");
        }
    }

    #[tokio::test]
    async fn a_deletion_finds_the_events_that_were_kept_of_a_person() {
        let ledger = recording();
        let event = enters("u1").replace("true", "\"perhaps\"");
        post(&ledger, event).await;
        assert_eq!(ledger.recorded()[0].rejected[0].user_id, UserId::new("u1"));
    }

    #[tokio::test]
    async fn a_body_that_is_no_json_is_one_refusal() {
        let event = enters("u1");
        let truncated = format!("[{event},{}", &event[..40]);
        for body in ["", "{", "nonsense", "[{}]]", truncated.as_str()] {
            let ledger = recording();
            let (status, answer) = post(&ledger, body.to_owned()).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
            let error = answer["error"].as_str().expect("text");
            assert!(error.starts_with("bad_json: "), "{error}");
            assert!(ledger.recorded().is_empty(), "all of a request or none");
        }
    }

    #[tokio::test]
    async fn heavy_bodies_are_sorted_like_light_ones() {
        let events: Vec<_> = (0..2000).map(|n| enters(&format!("u{n}"))).collect();
        let body = format!("[{}]", events.join(","));
        assert!(body.len() > HEAVY_BYTES);
        let ledger = recording();
        let limits = Limits { body_budget_bytes: 8 << 20, ..LIMITS };
        let request = || Request::post("/segment/open").body(body.clone().into()).expect("one");
        let (status, answer) = ask(&public(&ledger, limits), request()).await;
        assert_eq!((status, &answer["accepted"]), (StatusCode::OK, &json!(2000)));
        assert_eq!(ledger.recorded()[0].deltas.len(), 2000);

        let tight = Limits { body_budget_bytes: body.len() + 1024, ..LIMITS };
        let (status, _) = ask(&public(&ledger, tight), request()).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "what it becomes counts too");
    }

    #[tokio::test]
    async fn an_event_may_be_large_but_not_any_size() {
        let ledger = recording();
        let large = enters("u1").replace("ada@", &"x".repeat(900 << 10));
        let too_large = enters("u2").replace("ada@", &"x".repeat(1 << 20));
        let body = format!("[{large},{too_large}]");
        let limits = Limits { body_limit_bytes: 4 << 20, body_budget_bytes: 8 << 20, ..LIMITS };
        let request = Request::post("/segment/open").body(body.into()).expect("a request");
        let (_, answer) = ask(&public(&ledger, limits), request).await;
        assert_eq!(answer["accepted"], 1);
        let reason = answer["rejected"][0]["reason"].as_str().expect("text");
        assert!(reason.starts_with("event_too_large: "), "{reason}");
        assert!(ledger.recorded()[0].rejected.is_empty());
    }

    #[tokio::test]
    async fn a_long_list_of_rejections_is_cut_and_counted() {
        let body = format!("[{}1]", "1,".repeat(1499));
        let (status, answer) = post(&recording(), body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(answer["rejected"].as_array().map(Vec::len), Some(1000));
        assert_eq!(answer["rejected_more"], 500);
    }

    #[tokio::test]
    async fn a_destination_may_refuse_sources_batches_and_too_many_requests() {
        let ledger = recording();
        let open = Credentials { allow_unauthenticated: true, ..Credentials::default() };
        let narrow = Entrance {
            allowed_sources: vec!["10.0.0.0/8".parse().expect("a network")],
            ..with("narrow", open.clone())
        };
        let alone = Entrance { allow_batches: false, ..with("alone", open.clone()) };
        let secret =
            Credentials { shared_secrets: vec![Secret::new("secret")], ..Credentials::default() };
        let slow =
            Entrance { rate: Some(crate::receive::Rate::a_second(2)), ..with("slow", secret) };
        let limits = Limits { trusted_proxies: 1, ..LIMITS };
        let state = PublicState::new(
            Doors::new([narrow, alone, slow]),
            Arc::clone(&ledger) as _,
            limits,
            Readiness::default(),
            Arc::default(),
        );
        let public = router(state);
        let post_as = async |signed: &str, name: &str, from: &str, body: String| {
            let mut request = Request::post(format!("/segment/{name}"))
                .header("x-forwarded-for", from)
                .header("x-signature", signature(signed))
                .body(body.into())
                .expect("a request");
            request.extensions_mut().insert(Peer([127, 0, 0, 1].into()));
            ask(&public, request).await.0.as_u16()
        };
        let (one, batch) = (enters("u1"), format!("[{}]", enters("u1")));
        let post =
            async |name: &str, from: &str, body: String| post_as(&one, name, from, body).await;
        assert_eq!(post("narrow", "10.1.2.3", one.clone()).await, 200);
        assert_eq!(post("narrow", "10.1.2.3, 11.1.2.3", one.clone()).await, 403);
        assert_eq!(post("narrow", "nonsense", one.clone()).await, 403);
        assert_eq!(post("alone", "1.1.1.1", one.clone()).await, 200);
        assert_eq!(post("alone", "1.1.1.1", batch).await, 400);
        let get = r#"{"externalId":"x"}"#.to_owned();
        assert_eq!(post("narrow/audiences/get", "11.1.2.3", get.clone()).await, 403);
        assert_eq!(post("narrow/audiences/get", "10.1.2.3", get).await, 200);
        for _ in 0..10 {
            let stranger = post_as("something else", "slow", "1.1.1.1", one.clone()).await;
            assert_eq!(stranger, 401, "a stranger uses up nothing");
        }
        let mut statuses = Vec::new();
        for _ in 0..4 {
            statuses.push(post("slow", "1.1.1.1", one.clone()).await);
        }
        assert_eq!(statuses, [200, 200, 429, 429]);
    }

    /// Compressed by common tools; the signature covers the uncompressed text.
    #[tokio::test]
    async fn a_body_may_be_compressed() {
        const EVENT: &str = concat!(
            r#"{"type":"identify","userId":"ada","context":{"personas":{"computation_class":"#,
            r#""audience","computation_id":"aud_1","computation_key":"vip"}},"traits":{"vip":true}}"#
        );
        const GZIP: &str = "1f8b08000000000002ff5d8c410ac3300c04ffa2732ebdfa077d4510960a22a96c2cb9\
            c404ff3d767a28f4b6bbc3ec09de324300215697578305aa7179d2d89070d498d4f9700827642e96146de6\
            98deb93aba245de38e6653a824ac916feb8785be6c7dfc818ddb201fc9d0fb025e50fcfe9e4bf052b9f70b\
            a89f2c0ea1000000";
        const DEFLATE: &str = "789c5d8c410ac3300c04ffa2732ebdfa077d4510960a22a96c2cb9c404ff3d767a28\
            f4b6bbc3ec09de324300215697578305aa7179d2d89070d498d4f9700827642e96146de698deb93aba245d\
            e38e6653a824ac916feb8785be6c7dfc818ddb201fc9d0fb025e50fcfe9e4bf052b9f70bcfad38fe";
        let ledger = recording();
        let post = async |encoding: &str, body: Vec<u8>, limits| {
            let request = Request::post("/segment/production")
                .header("content-encoding", encoding)
                .header("x-signature", signature(EVENT));
            ask(&public(&ledger, limits), request.body(body.into()).expect("a request")).await
        };
        for (encoding, hex) in [("gzip", GZIP), ("deflate", DEFLATE), ("x-gzip", GZIP)] {
            let body = hex::decode(hex).expect("hex");
            let (status, answer) = post(encoding, body.clone(), LIMITS).await;
            assert_eq!((status, &answer["accepted"]), (StatusCode::OK, &json!(1)), "{encoding}");
            let (status, answer) = post(encoding, body[..40].to_vec(), LIMITS).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{encoding}: {answer}");
            let tight = Limits { body_limit_bytes: EVENT.len() - 1, ..LIMITS };
            let (status, _) = post(encoding, body, tight).await;
            assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{encoding}: the text counts");
        }
        assert_eq!(post("identity", EVENT.into(), LIMITS).await.0, StatusCode::OK);
        for encoding in ["compress", "br", "zstd"] {
            let (status, answer) = post(encoding, EVENT.into(), LIMITS).await;
            assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{encoding}");
            let said = answer["error"].as_str().expect("text");
            assert!(said.starts_with("unknown_encoding") && said.ends_with("gzip or deflate"));
        }
        assert_eq!(ledger.recorded().len(), 4);
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        writer.write_all(text).expect("memory takes it");
        writer.finish().expect("memory takes it")
    }

    /// The text that a stranger's signature covers decides how much of its body is decompressed.
    #[tokio::test]
    async fn a_stranger_has_little_unpacked_before_its_signature_is_known() {
        const MIB: usize = 1 << 20;
        let first = enters("u1");
        let noise = (0..200_000_u32).map(|n| n.wrapping_mul(2_654_435_761) >> 7);
        let noise: Vec<_> = noise.map(|n| n.to_string()).collect();
        let long = format!("[{first},{}]", noise.join(",")); // 1.4 MB, compressed to a third
        let spaces = |count: usize| format!("[{first}{}]", " ".repeat(count));
        assert!(long.len() > MIB + 64 * 1024);
        let batch = |count: usize| format!("[{first}{}]", format!(",{first}").repeat(count));
        // text, what is signed, a bearer token, status
        let table = [
            (first.clone(), first.clone(), None, 200),
            (long.clone(), first.clone(), None, 200), // by its first event
            (long.clone(), long.clone(), None, 200),  // by the whole text
            (long.clone(), "other".to_owned(), None, 401),
            (long.clone(), "other".to_owned(), Some("token"), 200),
            // a few bytes that expand to much more
            (spaces(60_000), first.clone(), None, 200),
            (spaces(500_000), first.clone(), None, 413),
            (spaces(500_000), "other".to_owned(), None, 413),
            // the first event shows whether it is signed
            (batch(3_000), first.clone(), None, 200),
            (batch(3_000), "other".to_owned(), None, 401),
            (spaces(500_000), first.clone(), Some("token"), 200),
            (spaces(2 * MIB), first.clone(), Some("token"), 200),
            (spaces(9 * MIB), first.clone(), Some("token"), 413),
        ];
        let limits = Limits { body_limit_bytes: 8 * MIB, body_budget_bytes: 512 * MIB, ..LIMITS };
        for (text, signed, bearer, expected) in table {
            let mut request = Request::post("/segment/production")
                .header("content-encoding", "gzip")
                .header("x-signature", signature(&signed));
            if let Some(bearer) = bearer {
                request = request.header("authorization", format!("Bearer {bearer}"));
            }
            let request = request.body(gzip(text.as_bytes()).into()).expect("a request");
            let (status, answer) = ask(&public(&recording(), limits), request).await;
            let (length, start) = (text.len(), &signed[..5]);
            assert_eq!(status.as_u16(), expected, "{length} bytes, {start}, {bearer:?}: {answer}");
        }
    }

    #[tokio::test]
    async fn fields_that_are_appended_after_signing_are_left_out_of_the_signature() {
        let event = enters("u1");
        let appended = |extra: &str| format!("{},{extra}}}", &event[..event.len() - 1]);
        let (plan, other) = (appended(r#""plan":"pro""#), appended(r#""other":1"#));
        let two = enters("u2");
        // body, accepted
        let table = [
            (plan.clone(), 200),
            (format!(" {plan}"), 200),
            (format!("[{plan},{two}]"), 200),
            (format!("[{{\"json\":{plan}}}]"), 401),
            (other.clone(), 401),
            (format!("[{other}]"), 401),
            (plan.replace("u1", "u3"), 401),
            (event.clone(), 200),
        ];
        for (body, expected) in table {
            let ledger = recording();
            let request = Request::post("/segment/production")
                .header("x-signature", signature(&event))
                .body(body.clone().into())
                .expect("a request");
            let (status, _) = ask(&public(&ledger, LIMITS), request).await;
            assert_eq!(status.as_u16(), expected, "{body}");
        }
    }

    /// Which texts a signature may cover, and what it does not protect.
    #[tokio::test]
    async fn a_batch_is_signed_by_its_raw_first_element() {
        let (one, two) = (enters("u1"), enters("u2"));
        let spaced = one.replace(':', " :  ");
        let wrapped = format!("{{ \"json\" : {spaced} }}");
        let lone = r#"{"a":"\ud800"}"#.to_owned();
        let escaped = one.replace("vip", r"v\u0069p");
        let tampered = one.replace("u1", "u3");
        let batch = |elements: &[&String]| {
            let elements: Vec<_> = elements.iter().map(|element| element.as_str()).collect();
            format!("[ {} ]", elements.join(" ,\n"))
        };
        // body, signed text, accepted
        let table = [
            (one.clone(), one.clone(), 200),
            (format!(" {one}"), format!(" {one}"), 200),
            (format!(" {one}"), one.clone(), 401),
            (format!("\u{feff}{one}"), one.clone(), 200),
            (format!("\u{feff}{one}"), format!("\u{feff}{one}"), 200),
            (format!("\u{feff}{tampered}"), one.clone(), 401),
            (format!("\u{feff}{}", batch(&[&one, &two])), batch(&[&one, &two]), 200),
            (spaced.clone(), spaced.clone(), 200),
            (spaced.clone(), one.clone(), 401),
            (batch(&[&one, &two]), one.clone(), 200),
            (batch(&[&spaced, &two]), spaced.clone(), 200),
            (batch(&[&spaced, &two]), one.clone(), 401),
            (batch(&[&escaped]), escaped.clone(), 200),
            (batch(&[&escaped]), one.clone(), 401),
            (batch(&[&lone, &two]), lone.clone(), 200),
            (batch(&[&wrapped, &two]), spaced.clone(), 200),
            (batch(&[&wrapped, &two]), wrapped.clone(), 200),
            (batch(&[&one, &two]), batch(&[&one, &two]), 200),
            (batch(&[&one, &two]), two.clone(), 401),
            (batch(&[&tampered, &two]), one.clone(), 401),
            // a limitation of Segment's scheme: nothing vouches for the rest of a batch
            (batch(&[&one, &tampered]), one.clone(), 200),
            (batch(&[&one, &tampered]), batch(&[&one, &two]), 401),
            ("[]".to_owned(), "[]".to_owned(), 200),
            ("[]".to_owned(), String::new(), 401),
            // strangers are told 401 before anything else
            ("[{},".to_owned(), "{}".to_owned(), 400),
            ("[{},".to_owned(), "[{},".to_owned(), 400),
            ("[{},".to_owned(), "[]".to_owned(), 401),
            ("[{".to_owned(), "[{".to_owned(), 400),
            ("[{".to_owned(), "{".to_owned(), 401),
            ("nonsense".to_owned(), "{}".to_owned(), 401),
        ];
        for (body, signed, expected) in table {
            let request = Request::post("/segment/production")
                .header("X-Signature", signature(&signed))
                .body(body.clone().into())
                .expect("a request");
            let (status, _) = ask(&public(&recording(), LIMITS), request).await;
            assert_eq!(status.as_u16(), expected, "{body} signed as {signed}");
        }
    }

    #[tokio::test]
    async fn each_path_method_and_credential_has_its_status() {
        let event = enters("u1");
        let signed = Some(signature(&event));
        let bearer = Some("Bearer token");
        let wrong = Some("Bearer wrong");
        let table = [
            ("POST", "/segment/production", &signed, None, 200),
            ("PUT", "/segment/production", &signed, None, 200),
            ("PATCH", "/segment/production", &signed, None, 200),
            ("POST", "/segment/production", &None, bearer, 200),
            ("POST", "/segment/production", &None, None, 401),
            ("POST", "/segment/production", &None, wrong, 401),
            ("POST", "/segment/strict", &signed, None, 401),
            ("POST", "/segment/strict", &None, bearer, 401),
            ("POST", "/segment/strict", &signed, bearer, 200),
            ("POST", "/segment/open", &None, None, 200),
            ("POST", "/segment/off", &signed, bearer, 503),
            ("POST", "/segment/nowhere", &signed, bearer, 404),
            ("POST", "/segment/%ff", &signed, bearer, 404),
            ("POST", "/segment", &signed, bearer, 404),
            ("POST", "/", &signed, bearer, 404),
            ("GET", "/metrics", &None, None, 404),
            ("GET", "/segment/production", &signed, bearer, 405),
            ("HEAD", "/segment/production", &signed, bearer, 405),
            ("DELETE", "/segment/production", &signed, bearer, 405),
            ("OPTIONS", "/segment/production", &signed, bearer, 405),
            ("POST", "/livez", &None, None, 405),
        ];
        for (method, path, signature, authorization, expected) in table {
            let mut request = Request::builder().method(method).uri(path);
            if let Some(signature) = signature {
                request = request.header("X-Signature", signature);
            }
            if let Some(authorization) = authorization {
                request = request.header("Authorization", authorization);
            }
            let request = request.body(Body::from(event.clone())).expect("a request");
            let ledger = recording();
            let response = public(&ledger, LIMITS).oneshot(request).await.expect("infallible");
            assert_eq!(response.status().as_u16(), expected, "{method} {path}");
            assert_eq!(ledger.recorded().len(), usize::from(expected == 200), "{method} {path}");
            let header = |name| response.headers().get(name).map(http::HeaderValue::as_bytes);
            match expected {
                401 => assert_eq!(header("www-authenticate"), Some(&b"Bearer"[..])),
                405 if path == "/livez" => assert_eq!(header("allow"), Some(&b"GET,HEAD"[..])),
                405 => assert_eq!(header("allow"), Some(&b"PUT,POST,PATCH"[..])),
                503 => assert_eq!(header("retry-after"), Some(&b"10"[..])),
                _ => {}
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_is_refused_before_the_body_is_awaited() {
        let started = Instant::now();
        let request = Request::post("/segment/production").body(stalled("{")).expect("a request");
        let (status, _) = ask(&public(&recording(), LIMITS), request).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(started.elapsed() < LIMITS.body_timeout);
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_too_large_too_slow_or_too_many_have_their_status() {
        let limits = Limits { body_limit_bytes: 4096, body_budget_bytes: 2048, ..LIMITS };
        let part = " ".repeat(1024);
        let table = [
            (Body::from(" ".repeat(4097)), 413),
            (Body::from(" ".repeat(4096)), 413),
            (Body::from(" ".repeat(2048)), 400),
            (pieces(&[&part, &part, &part]), 413),
            (stalled("["), 408),
        ];
        for (body, expected) in table {
            let request = Request::post("/segment/open").body(body).expect("a request");
            let (status, _) = ask(&public(&recording(), limits), request).await;
            assert_eq!(status.as_u16(), expected);
        }
        let roomy = Limits { body_limit_bytes: 2000, ..LIMITS };
        let request = Request::post("/segment/open").body(pieces(&[&part, &part]));
        let (status, _) = ask(&public(&recording(), roomy), request.expect("a request")).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);

        let many = format!("[{}1]", "1,".repeat(250_000));
        let roomy = Limits { body_budget_bytes: 8 << 20, ..LIMITS };
        let request = Request::post("/segment/open").body(many.into()).expect("a request");
        let (status, answer) = ask(&public(&recording(), roomy), request).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(answer["error"].as_str().expect("text").starts_with("too_many_events: "));
    }

    #[tokio::test]
    async fn events_of_another_context_kind_are_rejected_and_kept() {
        let (one, two, page) = (enters("u1"), enters("u2"), r#"{"type":"page"}"#);
        let wrapped = format!("{{\"json\":{two}}}");
        let behaviour = || Behaviour::Records { kind_conflicts: vec![1] };

        let ledger = Arc::new(FakeLedger::that(behaviour()));
        let body = format!("[{one},{page},{wrapped},{}]", nobody_enters());
        let (status, answer) = post(&ledger, body).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!((&answer["accepted"], &answer["ignored"]), (&json!(1), &json!(1)));
        let indices: Vec<_> = answer["rejected"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|rejection| rejection["index"].clone())
            .collect();
        assert_eq!(indices, [2, 3]);
        let reason = answer["rejected"][0]["reason"].as_str().expect("text");
        assert!(reason.starts_with("context_kind_conflict: "), "{reason}");

        let recorded = ledger.recorded();
        let [first, second] = &recorded[..] else { panic!("two records") };
        assert_eq!((first.deltas.len(), first.rejected.len()), (2, 1));
        assert_eq!((second.deltas.len(), second.rejected.len()), (0, 1));
        assert_eq!(second.rejected[0].reason, "context_kind_conflict");
        assert_eq!(second.rejected[0].body, two.as_bytes());
        assert_eq!(second.rejected[0].user_id, UserId::new("u2"));

        let ledger = Arc::new(FakeLedger::that(Behaviour::Records { kind_conflicts: vec![0] }));
        let (status, _) = post(&ledger, one).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "alone");
    }

    async fn answer_and_retry_after(
        ledger: &Arc<FakeLedger>,
        body: Body,
    ) -> (StatusCode, Option<String>) {
        let request = Request::post("/segment/open").body(body).expect("a request");
        let response = public(ledger, LIMITS).oneshot(request).await.expect("infallible");
        let retry_after = response.headers().get("retry-after");
        let retry_after = retry_after.map(|value| value.to_str().expect("text").to_owned());
        (response.status(), retry_after)
    }

    /// Trouble on our side is never a 4xx, and never a 2xx, whatever the events.
    #[tokio::test(start_paused = true)]
    async fn a_ledger_that_refuses_or_is_slow_is_a_503() {
        let later = (StatusCode::SERVICE_UNAVAILABLE, Some("1".to_owned()));
        for body in [enters("u1"), r#"{"type":"delete"}"#.to_owned(), nobody_enters()] {
            let refusing = Arc::new(FakeLedger::that(Behaviour::Refuses));
            assert_eq!(answer_and_retry_after(&refusing, body.clone().into()).await, later);

            let started = Instant::now();
            let hanging = Arc::new(FakeLedger::that(Behaviour::Hangs));
            assert_eq!(answer_and_retry_after(&hanging, body.into()).await, later);
            assert_eq!(started.elapsed(), LIMITS.answer_timeout);
        }
        let refusing = Arc::new(FakeLedger::that(Behaviour::Refuses));
        let (status, _) = answer_and_retry_after(&refusing, r#"{"type":"page"}"#.into()).await;
        assert_eq!(status, StatusCode::OK, "nothing to record");
    }

    #[tokio::test(start_paused = true)]
    async fn the_ledger_has_its_time_after_a_slow_body() {
        let ledger = Arc::new(FakeLedger::that(Behaviour::Hangs));
        let arrived = Instant::now();
        let due = Due(arrived + LIMITS.answer_timeout);
        tokio::time::advance(LIMITS.answer_timeout * 2).await;
        let (doors, readiness) = (Doors::new([entrance("open")]), Readiness::default());
        let door = doors.at("open").expect("it is there");
        let state = PublicState::new(doors, ledger, LIMITS, readiness, Arc::default());
        let intake = Intake {
            destination: DestinationName::new("open").expect("a name"),
            arrival: Timestamp::EPOCH,
            deltas: Vec::new(),
            deletions: Vec::new(),
            rejected: Vec::new(),
            origin: crate::ledger::Origin::Events,
        };
        let before = Instant::now();
        assert_eq!(state.record(&door, vec![intake], due).await, Err(Refusal::Unavailable));
        assert_eq!(before.elapsed(), LEAST_FOR_THE_LEDGER);
    }

    /// [P1](crate::design::P1).
    #[tokio::test]
    async fn no_success_is_answered_before_the_ledger_has_recorded() {
        let ledger = Arc::new(FakeLedger::that(Behaviour::Waits));
        let request = Request::post("/segment/open").body(Body::from(enters("u1"))).expect("one");
        let mut answer = tokio::spawn(public(&ledger, LIMITS).oneshot(request));
        ledger.asked().await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!answer.is_finished(), "answered while the ledger was still at it");
        assert!(ledger.recorded().is_empty());

        ledger.release();
        let response = (&mut answer).await.expect("no panic").expect("infallible");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(ledger.recorded().len(), 1);
    }

    #[tokio::test]
    async fn probes_tell_life_and_readiness() {
        let readiness = Readiness::default();
        let (doors, ledger) = (Doors::new([]), recording() as _);
        let state = PublicState::new(doors, ledger, LIMITS, readiness.clone(), Arc::default());
        let router = router(state);
        let probe = async |method: &str, path: &str| {
            let request = Request::builder().method(method).uri(path).body(Body::empty());
            let request = request.expect("a request");
            let response = router.clone().oneshot(request).await.expect("infallible");
            (response.status().as_u16(), text_of(response).await)
        };
        let answer = |status, text: &str| (status, text.to_owned());

        assert_eq!(probe("GET", "/livez").await, answer(200, "ok"));
        assert_eq!(probe("GET", "/readyz").await, answer(503, "starting"));
        readiness.ready();
        assert_eq!(probe("GET", "/readyz").await, answer(200, "ok"));
        assert_eq!(probe("HEAD", "/readyz").await, answer(200, ""));
        assert_eq!(probe("GET", "/healthz").await, answer(200, "ok"));
        readiness.not_ready("stopping");
        assert_eq!(probe("GET", "/healthz").await, answer(503, "stopping"));
        assert_eq!(probe("HEAD", "/readyz").await, answer(503, ""));
        assert_eq!(probe("GET", "/livez").await, answer(200, "ok"));
    }
}
