//! The HTTP server: accepts connections, routes requests and injects faults.

use std::convert::Infallible;
use std::future::pending;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

use super::Shared;
use super::fault::{Apply, Endless, Fault, Incoming};
use super::protocol::{Problem, check, read, token};
use super::state::{Call, State as KnownState};
use crate::clock::{Clock, SystemClock};
use crate::json::Json;
use crate::launchdarkly::wire::{PATH, SyncRequest};

/// Larger than any call in a test; LaunchDarkly's own limit is not documented.
const BODY_LIMIT_BYTES: usize = 256 * 1024 * 1024;

/// How long to wait for the end of a hanging call's connection before another call that names its members
/// counts as an overlap. A client that has given up may call again at once, and the new connection may be
/// seen before the end of the old one.
const GIVING_UP: Duration = Duration::from_millis(100);

/// An extension that marks a response: close the connection instead of sending it.
#[derive(Clone)]
struct Hangup;

/// Accepts connections until the stand-in is stopped.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let router = Router::new()
        .route(PATH, post(sync))
        .route("/sdk/goals/{client_side_id}", get(goals))
        .route("/api/v2/versions", get(versions))
        .fallback(elsewhere)
        .method_not_allowed_fallback(elsewhere)
        .layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES))
        .with_state(Arc::clone(&shared));
    loop {
        let stream = tokio::select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => continue, // this connection failed; the next may not
            },
        };
        let connection = converse(stream, router.clone());
        let stop = shared.stop.clone();
        shared.tasks.spawn(async move { stop.run_until_cancelled(connection).await });
    }
}

/// Serves one connection until it ends. Errors are ignored: the client notices them itself.
async fn converse(stream: TcpStream, router: Router) {
    stream.set_nodelay(true).ok();
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let answer = router.clone().oneshot(request);
        async move {
            let response = answer.await.unwrap_or_else(|never: Infallible| match never {});
            match response.extensions().get::<Hangup>() {
                Some(Hangup) => Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
                None => Ok(response),
            }
        }
    });
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
}

/// Handles `POST` to the synced-segment route.
async fn sync(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let limit = shared.state().rate_limit.as_mut().map(|limit| limit.call(SystemClock.now()));
    let Some((limit, is_within)) = limit else {
        return answered(shared, headers, body, true).await;
    };
    let mut response = answered(shared, headers, body, is_within).await;
    response.headers_mut().extend(limit);
    response
}

async fn answered(
    shared: Arc<Shared>,
    headers: HeaderMap,
    body: Bytes,
    is_within_limit: bool,
) -> Response {
    let number = shared.state().begin();
    let request = match read(&headers, &body) {
        Ok(request) => request,
        Err(problem) => {
            let status = Some(problem.status.as_u16());
            let traceparent = traceparent(&headers);
            let (audience, bytes) = (String::new(), body.len());
            let call = Call { number, audience, members: 0, bytes, status, traceparent };
            shared.change(|state| state.conclude(call));
            return refusal(number, &problem);
        }
    };
    let bytes = body.len();
    let call =
        IncomingCall { number, request: &request, bytes, headers: &headers, shared: &shared };
    let in_flight = call.depart().await;
    let latency = shared.state().latency;
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let fault = if is_within_limit { call.fault() } else { Fault::status(429) };
    let response = match fault {
        Fault::None => call.judge(),
        Fault::Answer { status, headers, body } => {
            call.conclude(Some(status));
            scripted(number, status, &headers, body)
        }
        Fault::AnswerAfterApply { status, headers, body } => match call.apply(Some(status)) {
            Ok(()) => scripted(number, status, &headers, body),
            Err(problem) => refusal(number, &problem),
        },
        Fault::Hang { apply } => {
            shared.state().hang(number);
            call.apply_unheard(apply, &body);
            pending().await // dropped when the client closes the connection
        }
        Fault::Reset { apply } => {
            call.apply_unheard(apply, &body);
            let mut response = Response::new(Body::empty());
            response.extensions_mut().insert(Hangup);
            response
        }
        Fault::EndlessBody { status, chunk_bytes, every } => {
            if (200..300).contains(&status) {
                call.apply(Some(status)).ok();
            } else {
                call.conclude(Some(status));
            }
            let mut response = Response::new(Body::new(Endless::new(chunk_bytes, every)));
            *response.status_mut() = scripted_status(status);
            response
        }
    };
    // before the answer is sent: the client may name the members again as soon as it has it
    drop(in_flight);
    response
}

/// A well-formed call.
struct IncomingCall<'a> {
    number: u64,
    request: &'a SyncRequest<'a>,
    bytes: usize,
    headers: &'a HeaderMap,
    shared: &'a Arc<Shared>,
}

/// Marks the members of a call as in flight until it is dropped, which is when the call is answered or the
/// client gives up.
struct InFlight<'a> {
    number: u64,
    members: Vec<u64>,
    shared: &'a Shared,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.shared.change(|state| state.return_home(self.number, &self.members));
    }
}

impl<'a> IncomingCall<'a> {
    fn audience(&self) -> &str {
        self.request.batch.first().map_or("", |member| &member.cohort_id)
    }

    /// Marks the members as in flight, and counts those that another call in flight already names as
    /// overlaps.
    async fn depart(&self) -> InFlight<'a> {
        let shared: &'a Shared = self.shared;
        let (members, mut others) = shared.state().depart(self.number, self.request);
        let in_flight = InFlight { number: self.number, members, shared };
        if others.is_empty() {
            return in_flight;
        }
        let hanging: Vec<u64> = {
            let state = shared.state();
            others.iter().copied().filter(|other| state.hangs(*other)).collect()
        };
        if !hanging.is_empty() {
            let mut changed = shared.changed.subscribe();
            let gone = changed.wait_for(|()| !shared.state().any_hangs(&hanging));
            tokio::time::timeout(GIVING_UP, gone).await.ok();
            let state = shared.state();
            others.retain(|other| !hanging.contains(other) || state.hangs(*other));
        }
        shared.change(|state| state.count_overlaps(others.len() as u64));
        in_flight
    }

    /// The fault that the script chooses.
    fn fault(&self) -> Fault {
        let mut script = self.shared.script.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(script) = script.as_mut() else { return Fault::None };
        script(&Incoming {
            call_number: self.number,
            client_side_id: &self.request.environment_id,
            audience: self.audience(),
            members: &self.request.batch,
        })
    }

    /// Answers without a fault.
    fn judge(&self) -> Response {
        match self.apply(Some(204)) {
            Ok(()) => StatusCode::NO_CONTENT.into_response(),
            Err(problem) => refusal(self.number, &problem),
        }
    }

    /// Checks the call and applies it if it is accepted. `status` is that of its answer, `None` if it is
    /// not answered.
    fn apply(&self, status: Option<u16>) -> Result<(), Problem> {
        self.shared.change(|state| {
            let verdict = check(state, token(self.headers), self.request);
            match &verdict {
                Ok(()) => {
                    state.apply(self.request);
                    state.conclude(self.entry(status));
                }
                Err(problem) => {
                    // an unanswered call is logged as such even if it was refused
                    let refused = status.map(|_| problem.status.as_u16());
                    state.conclude(self.entry(refused));
                }
            }
            verdict
        })
    }

    /// Ends a call that is not answered.
    fn apply_unheard(&self, apply: Apply, body: &Bytes) {
        match apply {
            Apply::No => self.conclude(None),
            Apply::Now => {
                self.apply(None).ok();
            }
            Apply::Later(delay) => {
                self.conclude(None);
                let (headers, body) = (self.headers.clone(), body.clone());
                let shared = Arc::clone(self.shared);
                self.shared.tasks.spawn(async move {
                    let due = tokio::time::sleep(delay);
                    if shared.stop.run_until_cancelled(due).await.is_some() {
                        apply_late(&shared, &headers, &body);
                    }
                });
            }
        }
    }

    fn conclude(&self, status: Option<u16>) {
        self.shared.change(|state| state.conclude(self.entry(status)));
    }

    fn entry(&self, status: Option<u16>) -> Call {
        let (audience, members) = (self.audience().to_owned(), self.request.batch.len());
        let traceparent = traceparent(self.headers);
        Call { number: self.number, audience, members, bytes: self.bytes, status, traceparent }
    }
}

fn traceparent(headers: &HeaderMap) -> Option<String> {
    headers.get("traceparent")?.to_str().ok().map(str::to_owned)
}

fn apply_late(shared: &Shared, headers: &HeaderMap, body: &[u8]) {
    let Ok(request) = read(headers, body) else { return };
    shared.change(|state| {
        if check(state, token(headers), &request).is_ok() {
            state.apply(&request);
        }
    });
}

fn refusal(number: u64, problem: &Problem) -> Response {
    (problem.status, error_body(number, problem.code, &problem.message)).into_response()
}

fn error_body(number: u64, code: &str, message: &str) -> Json<serde_json::Value> {
    let id = format!("standin-{number}");
    Json(serde_json::json!({"code": code, "message": message, "id": id}))
}

fn scripted(
    number: u64,
    status: u16,
    headers: &[(String, String)],
    body: Option<String>,
) -> Response {
    let mut response = match body {
        Some(body) => body.into_response(),
        None if (200..300).contains(&status) => Response::new(Body::empty()),
        None => error_body(number, "scripted", "scripted answer").into_response(),
    };
    *response.status_mut() = scripted_status(status);
    for (name, value) in headers {
        let name = http::HeaderName::try_from(name).expect("scripts name valid headers");
        let value = http::HeaderValue::try_from(value).expect("scripts give valid values");
        response.headers_mut().insert(name, value);
    }
    response
}

fn scripted_status(status: u16) -> StatusCode {
    StatusCode::from_u16(status).expect("scripts answer with 100 to 999")
}

/// The client's check of the client-side ID, which goes to LaunchDarkly's client SDK host.
async fn goals(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> StatusCode {
    match shared.state().environment(&id) {
        Some(_) => StatusCode::OK,
        None => StatusCode::NOT_FOUND,
    }
}

/// The client's check of the service token.
async fn versions(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    if shared.state().knows_token(token(&headers)) {
        let current = crate::launchdarkly::wire::API_VERSION;
        Json(serde_json::json!({"validVersions": [20_240_415], "latestVersion": current}))
            .into_response()
    } else {
        refusal(0, &Problem::unauthorized())
    }
}

/// Any other request. LaunchDarkly has no such route; counted for tests.
async fn elsewhere(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.change(KnownState::count_elsewhere);
    StatusCode::NOT_FOUND
}
