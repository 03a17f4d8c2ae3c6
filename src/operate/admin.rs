//! The admin listener: the probes, `/status` for machines, the operator's verbs, and Segment's Actions
//! protocol. Not public.
//!
//! # What always holds
//! * With tokens configured, all but the probes answers only to one of them. Without, the listener is on a
//!   loopback address (a configuration fault otherwise) and answers only requests that name one as
//!   their `Host`, so that no web page can reach it through a browser that runs beside it (but Segment's
//!   application the Actions protocol, if `admin.segment_app` says so).
//! * `/status` holds nothing personal: names of destinations, ids of audiences, counts (P8).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderMap, StatusCode, header};
use subtle::ConstantTimeEq;
use tokio::sync::watch;

use crate::current::Current;
use crate::deliver::Standing;
use crate::ledger::Operations;
use crate::membership::DestinationName;
use crate::operate::actions::{self, Actions, segment_app};
use crate::operate::api::{self, Api};
use crate::operate::problem::Problem;
use crate::operate::status::{DestinationStatus, Status};
use crate::receive::{self, Readiness};
use crate::secret::Secret;

/// What the admin routes share.
#[derive(Debug)]
pub struct AdminState {
    /// Any of them opens all but the probes; none: reaching the address is enough.
    pub tokens: Current<Vec<Secret>>,
    /// Asked for backlogs.
    pub ledger: Arc<dyn Operations>,
    /// How each destination fares.
    pub standings: Current<Vec<(DestinationName, watch::Receiver<Standing>)>>,
    /// Whether traffic is welcome.
    pub readiness: Readiness,
    /// Whether Segment's web application may ask `/actions`.
    pub segment_app: bool,
}

/// The admin routes.
pub fn router(state: AdminState, api: Api, actions: Actions) -> Router {
    let segment_app = state.segment_app;
    let state = Arc::new(state);
    let guarded = Router::new()
        .route("/status", get(status))
        .with_state(Arc::clone(&state))
        .merge(api::router(api))
        .merge(actions::router(actions))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this route takes another method")
        })
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is no such route"))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), admit));
    let guarded = if segment_app { segment_app::admit_to(guarded) } else { guarded };
    Router::new()
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(ready))
        .route("/healthz", get(ready))
        .with_state(state)
        .merge(guarded)
}

async fn ready(State(state): State<Arc<AdminState>>) -> (StatusCode, &'static str) {
    match receive::objection(&state.readiness, &*state.ledger) {
        None => (StatusCode::OK, "ok"),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

async fn status(State(state): State<Arc<AdminState>>) -> Response {
    let mut destinations = BTreeMap::new();
    for (name, standing) in state.standings.get().iter() {
        let Ok(backlog) = state.ledger.backlog(name).await else {
            let detail = "the ledger is closed";
            return Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response();
        };
        let held = standing.borrow().held.clone();
        let paused = state.ledger.paused_since(name);
        destinations.insert(name.to_string(), DestinationStatus::of(&backlog, held, paused));
    }
    let ready = receive::objection(&state.readiness, &*state.ledger).is_none();
    Json(Status { ready, destinations }).into_response()
}

async fn admit(State(state): State<Arc<AdminState>>, request: Request, next: Next) -> Response {
    match objection(&state.tokens.get(), request.headers()) {
        None => next.run(request).await,
        Some((status, detail)) => Problem::new(status, detail).into_response(),
    }
}

fn objection(tokens: &[Secret], headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
    if tokens.is_empty() {
        let foreign = "this listener answers only to a loopback name as Host and Origin";
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let origin = headers.get(header::ORIGIN).map(|origin| {
            let origin = origin.to_str().unwrap_or_default();
            origin.split_once("://").map_or("", |(_, host)| host)
        });
        let local = host.is_some_and(is_loopback) && origin.is_none_or(is_loopback);
        return (!local).then_some((StatusCode::FORBIDDEN, foreign));
    }
    let presented = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default();
    let good = tokens.iter().fold(subtle::Choice::from(0), |good, token| {
        good | token.expose().as_bytes().ct_eq(presented.as_bytes())
    });
    let refusal = (StatusCode::UNAUTHORIZED, "send one of admin.tokens as Authorization: Bearer");
    (!bool::from(good)).then_some(refusal)
}

/// Whether `host[:port]` names this machine to itself.
fn is_loopback(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<http::uri::Authority>() else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        let parse = |(name, value): &(&str, &str)| {
            let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a name");
            (name, value.parse().expect("a value"))
        };
        list.iter().map(parse).collect()
    }

    #[test]
    fn without_tokens_only_a_loopback_host_and_origin_pass() {
        let cases: [(&[(&str, &str)], bool); 8] = [
            (&[("host", "127.0.0.1:8081")], true),
            (&[("host", "localhost:8081")], true),
            (&[("host", "[::1]:8081")], true),
            (&[("host", "attacker.example:8081")], false),
            (&[("host", "127.0.0.1.attacker.example")], false),
            (&[], false),
            (&[("host", "127.0.0.1"), ("origin", "https://attacker.example")], false),
            (&[("host", "127.0.0.1"), ("origin", "http://localhost:8081")], true),
        ];
        for (list, passes) in cases {
            assert_eq!(objection(&[], &headers(list)).is_none(), passes, "{list:?}");
        }
    }

    #[test]
    fn with_tokens_one_of_them_passes_whatever_the_host() {
        let tokens = [Secret::new("old"), Secret::new("new")];
        let cases: [(&[(&str, &str)], bool); 5] = [
            (&[("authorization", "Bearer new"), ("host", "cohortd.internal")], true),
            (&[("authorization", "Bearer old")], true),
            (&[("authorization", "Bearer ne")], false),
            (&[("authorization", "new")], false),
            (&[("host", "127.0.0.1")], false),
        ];
        for (list, passes) in cases {
            assert_eq!(objection(&tokens, &headers(list)).is_none(), passes, "{list:?}");
        }
    }
}
