//! The calls of the Tracking API and their routes: by name, or by the single letter that SDKs in browsers and
//! on phones use instead.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::time::Instant;

use super::answer::Refusal;
use super::cors::{self, preflight};
use super::refused::{Asked, At};
use super::tracking::{self, Success};
use super::{PublicState, body, route};
use crate::json::Json;

/// The calls that carry one message; the path is its type.
pub(super) const SINGLE: [&str; 6] = ["identify", "track", "group", "page", "screen", "alias"];

pub(super) const BATCH: &str = "batch";
pub(super) const IMPORT: &str = "import";

/// The first letter of the type, and `b` for a batch. Requests to it are counted as the call itself.
pub(super) const SHORT: [(&str, &str); 7] = [
    ("i", "identify"),
    ("t", "track"),
    ("g", "group"),
    ("p", "page"),
    ("s", "screen"),
    ("a", "alias"),
    ("b", BATCH),
];

/// Metrics of the browser SDK about itself: no events, and no write key.
const METRICS: &str = "m";

/// The call of that name under `/v1/`.
pub(super) fn named(name: &str) -> Option<&'static str> {
    let short = || SHORT.into_iter().find(|(short, _)| *short == name);
    let long = SINGLE.into_iter().chain([BATCH, IMPORT, METRICS]).find(|known| *known == name);
    long.or_else(|| short().map(|(_, call)| call))
}

/// The routes under `/v1/`.
pub(super) fn routes() -> Router<Arc<PublicState>> {
    let long = [
        ("/v1/batch".to_owned(), post(tracking::batch)),
        ("/v1/import".to_owned(), post(tracking::batch)),
        ("/v1/{call}".to_owned(), post(tracking::single)),
        (format!("/v1/{METRICS}"), post(metrics)),
    ];
    let short = SHORT.into_iter().map(|(short, call)| {
        let handler = match call {
            BATCH => post(tracking::batch),
            _ => post(move |State(state), request| async move {
                tracking::message(&state, call, request).await
            }),
        };
        (format!("/v1/{short}"), handler)
    });
    let all = long.into_iter().chain(short);
    all.fold(Router::new(), |router, (path, handler)| {
        route(router, &path, handler.options(preflight))
    })
}

/// `POST /v1/m`: metrics of the browser SDK about itself, which are discarded. It is answered so that the SDK
/// does not retry.
async fn metrics(State(state): State<Arc<PublicState>>, request: Request) -> Response {
    let arrived = Instant::now();
    let (head, mut body) = request.into_parts();
    let (asked, origin) = (Asked::of(&head.method, &head.headers), cors::origin(&head.headers));
    body::discard(head, &mut body).await;
    let is_there = state.doors.have_write_keys();
    let end = is_there.then_some(Json(Success { success: true })).ok_or(Refusal::NotFound);
    let mut response = state.counted(&At::Call(METRICS, None), asked, arrived, end).into_response();
    cors::let_read(&mut response, origin, None, &state);
    response
}
