//! The [two calls](crate::design::segment::requests) that Segment's Webhook Audiences make besides their
//! events: to create an audience, and to look one up. They carry no credential, so they store nothing and
//! reveal nothing: the external id is a pure function of the path's name and the audience's, and the calls
//! are rate-limited.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use tokio::time::Instant;

use super::answer::Refusal;
use super::doors::Door;
use super::refused::{Asked, At, shortened};
use super::unpacking::{Encoding, Sender};
use super::webhook::Due;
use super::{Limits, PublicState, body};

use crate::json::{self, Json};

/// Most bytes of such a call, which contains a name and a few settings.
const BODY_LIMIT_BYTES: usize = 64 * 1024;

/// The rest of the path, after the name.
const CREATE: &str = "/audiences/create";
const GET: &str = "/audiences/get";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Create {
    audience_name: String,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExternalId {
    external_id: String,
}

/// `{"audienceName": …}` is answered with the audience's id, which is the same every time.
pub(super) async fn create(
    State(state): State<Arc<PublicState>>,
    Path(destination): Path<String>,
    request: Request,
) -> Result<Json<ExternalId>, Refusal> {
    let (arrived, door) = (Instant::now(), state.doors.at(&destination));
    let (asked, astray) = seen(&request);
    let end = created(&state, door.as_deref(), request).await;
    let at = door.as_deref().map_or(At::Astray(&astray), |door| At::Door(door, CREATE));
    state.counted(&at, asked, arrived, end)
}

async fn created(
    state: &PublicState,
    door: Option<&Door>,
    request: Request,
) -> Result<Json<ExternalId>, Refusal> {
    let (door, encoding) = enter(state, door, &request)?;
    let Create { audience_name } = read(state, request, encoding).await?;
    if audience_name.is_empty() {
        return Err(Refusal::BadAudience);
    }
    let name = [door.name.as_bytes(), b"\0", audience_name.as_bytes()].concat();
    let external_id = format!("cohortd_{}", hex::encode(Sha1::digest(name)));
    Ok(Json(ExternalId { external_id }))
}

/// `{"externalId": …}` is answered with itself: every id is valid, because none is stored.
pub(super) async fn get(
    State(state): State<Arc<PublicState>>,
    Path(destination): Path<String>,
    request: Request,
) -> Result<Json<ExternalId>, Refusal> {
    let (arrived, door) = (Instant::now(), state.doors.at(&destination));
    let (asked, astray) = seen(&request);
    let end = known(&state, door.as_deref(), request).await;
    let at = door.as_deref().map_or(At::Astray(&astray), |door| At::Door(door, GET));
    state.counted(&at, asked, arrived, end)
}

async fn known(
    state: &PublicState,
    door: Option<&Door>,
    request: Request,
) -> Result<Json<ExternalId>, Refusal> {
    let (_, encoding) = enter(state, door, &request)?;
    let known: ExternalId = read(state, request, encoding).await?;
    if known.external_id.is_empty() {
        return Err(Refusal::BadAudience);
    }
    Ok(Json(known))
}

/// The credentials of a request, and its path, in case it is refused.
fn seen(request: &Request) -> (Asked, String) {
    let path = request.uri().path();
    (Asked::of(request.method(), request.headers()), shortened(path))
}

fn enter<'a>(
    state: &PublicState,
    door: Option<&'a Door>,
    request: &Request,
) -> Result<(&'a Door, Option<Encoding>), Refusal> {
    let door = door.ok_or(Refusal::UnknownDestination)?;
    let source = state.source(request.extensions(), request.headers());
    let encoding = door.is_open(request.headers(), source)?;
    door.count_unsigned_call()?;
    Ok((door, encoding))
}

async fn read<T: for<'a> Deserialize<'a>>(
    state: &PublicState,
    request: Request,
    encoding: Option<Encoding>,
) -> Result<T, Refusal> {
    let arrived = Instant::now();
    let mut body = request.into_body(); // no part of the head is kept while the body is awaited
    let body_limit_bytes = state.limits.body_limit_bytes.min(BODY_LIMIT_BYTES);
    let limits = Limits { body_limit_bytes, ..state.limits };
    let mut received = body::read(&mut body, &limits, &state.budget).await?;
    if let Some(encoding) = encoding {
        let due = Due::of(arrived, &limits);
        let anybody = Sender::Anybody;
        received = state.unpacked(received, encoding, anybody, body_limit_bytes, due).await?;
    }
    json::from_slice(&received.bytes).map_err(|_| Refusal::BadAudience)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use http::StatusCode;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;
    use crate::receive::fake::{Behaviour, FakeLedger, LIMITS, entrance, text_of};
    use crate::receive::{Doors, Readiness, router};

    fn public() -> Router {
        let ledger = FakeLedger::that(Behaviour::Records { kind_conflicts: Vec::new() });
        let doors = Doors::new(["one", "two", "off"].map(entrance));
        let ledger = Arc::new(ledger);
        let state = PublicState::new(doors, ledger, LIMITS, Readiness::default(), Arc::default());
        router(state)
    }

    async fn post(router: &Router, path: &str, body: &str) -> (StatusCode, Value) {
        let body = axum::body::Body::from(body.to_owned());
        let request = Request::post(format!("/segment/{path}")).body(body).expect("a request");
        let response = router.clone().oneshot(request).await.expect("infallible");
        let status = response.status();
        (status, serde_json::from_str(&text_of(response).await).expect("JSON"))
    }

    #[tokio::test]
    async fn an_id_is_a_pure_function_of_destination_and_name() {
        let vip = json!({"audienceName": "VIP", "advertiserId": "ignored"}).to_string();
        let (status, first) = post(&public(), "one/audiences/create", &vip).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(first["externalId"], "cohortd_94928046553e211f2a4ef6b52d0b84aba4358061");
        assert_eq!(post(&public(), "one/audiences/create", &vip).await.1, first);
        assert_ne!(post(&public(), "two/audiences/create", &vip).await.1, first);
        let other = json!({"audienceName": "vip"}).to_string();
        assert_ne!(post(&public(), "one/audiences/create", &other).await.1, first);
        let (status, got) = post(&public(), "one/audiences/get", &first.to_string()).await;
        assert_eq!((status, got), (StatusCode::OK, first));
    }

    #[tokio::test]
    async fn what_cannot_be_answered_is_refused_with_a_reason() {
        let large = format!("{{\"audienceName\":\"{}\"}}", "x".repeat(70_000));
        let table = [
            ("one/audiences/create", "{}", 400),
            ("one/audiences/create", "{\"audienceName\":\"\"}", 400),
            ("one/audiences/create", "{\"audienceName\":7}", 400),
            ("one/audiences/create", "nonsense", 400),
            ("one/audiences/create", large.as_str(), 413),
            ("one/audiences/get", "{\"externalId\":\"\"}", 400),
            ("nobody/audiences/get", "{\"externalId\":\"x\"}", 404),
            ("off/audiences/get", "{\"externalId\":\"x\"}", 503),
            ("one/audiences/drop", "{}", 404),
        ];
        for (path, body, expected) in table {
            let (status, answer) = post(&public(), path, body).await;
            assert_eq!(status.as_u16(), expected, "{path}: {answer}");
            assert!(answer["error"].is_string(), "{answer}");
        }
    }

    #[tokio::test]
    async fn the_calls_are_limited_in_number() {
        let router = public();
        let body = "{\"externalId\":\"x\"}";
        let mut limited = 0;
        for _ in 0..80 {
            let (status, _) = post(&router, "one/audiences/get", body).await;
            limited += usize::from(status == StatusCode::TOO_MANY_REQUESTS);
        }
        assert!(limited >= 20, "{limited} of 80");
        let (status, _) = post(&router, "two/audiences/get", body).await;
        assert_eq!(status, StatusCode::OK, "the other destination has a limit of its own");
    }
}
