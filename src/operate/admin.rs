//! The admin listener: the probes, `/metrics` and `/status` for machines, the operator's verbs, Segment's
//! Actions protocol, and the dashboard. Not public.
//!
//! # What always holds
//! * With tokens configured, all but the probes and the dashboard's own files, which hold no data, answers
//!   only to one of them. Without, the listener is on a
//!   loopback address (a configuration fault otherwise) and answers only requests that name one as
//!   their `Host`, so that no web page can reach it through a browser that runs beside it (but Segment's
//!   application the Actions protocol, if `admin.segment_app` says so).
//! * A browser changes nothing on behalf of a page of another origin, with or without a token.
//! * Errors are problem documents (RFC 9457).
//! * `/status` and `/metrics` hold nothing personal: names of destinations, ids of audiences, counts
//!   (P8; tests/it/secrecy.rs).

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use subtle::ConstantTimeEq;

use crate::current::Current;
use crate::json::Json;
use crate::launchdarkly::wire::USER_AGENT;
use crate::operate::actions::{self, Actions, segment_app};
use crate::operate::api::openapi::{Document, routes};
use crate::operate::api::{self, Api};
use crate::operate::dashboard;
use crate::operate::metrics::{self, Families};
use crate::operate::problem::Problem;
use crate::operate::sources::Sources;
use crate::operate::status::Status;
use crate::secret::Secret;

/// What the admin routes share.
#[derive(Debug)]
pub struct AdminState {
    /// Any of them opens all but the probes; none: reaching the address is enough.
    pub tokens: Current<Vec<Secret>>,
    /// What is shown.
    pub sources: Arc<Sources>,
    /// Whether Segment's web application may ask `/actions`.
    pub segment_app: bool,
}

/// The admin routes.
pub fn router(state: AdminState, api: Api, actions: Actions) -> Router {
    let segment_app = state.segment_app;
    let state = Arc::new(state);
    let probes = routes!(self::live, self::ready, self::healthy);
    let shown = routes!(self::status, self::metrics);
    let verbs = api::routes();
    let document = Document::of(vec![probes.declared, shown.declared, verbs.declared]);
    let probes = probes.router.with_state(Arc::clone(&state));
    let guarded = shown
        .router
        .with_state(Arc::clone(&state))
        .merge(verbs.router.with_state(Arc::new(api)))
        .layer(Extension(document))
        .merge(actions::router(actions))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is no such route"))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), admit));
    let guarded = if segment_app { segment_app::admit_to(guarded) } else { guarded };
    let page = middleware::from_fn_with_state(state, admit_to_the_page);
    probes
        .merge(dashboard::router().layer(page))
        .method_not_allowed_fallback(method_not_allowed)
        .merge(guarded)
        .layer(middleware::map_response(signed))
}

async fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this route takes another method")
}

/// Who answers, so that commands of another version can say so.
async fn signed(mut response: Response) -> Response {
    response.headers_mut().insert(header::SERVER, HeaderValue::from_static(USER_AGENT));
    response
}

/// Whether the process lives
#[utoipa::path(get, path = "/livez", operation_id = "livez", security(()),
    responses((status = 200, description = "It does", body = String)))]
async fn live() -> &'static str {
    "ok"
}

/// Whether events are accepted
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", security(()), responses(
    (status = 200, description = "They are", body = String),
    (status = 503, description = "They are not, and why", body = String),
))]
async fn ready(State(state): State<Arc<AdminState>>) -> (StatusCode, &'static str) {
    match state.sources.objection() {
        None => (StatusCode::OK, "ok"),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

/// Whether events are accepted; another name of `/readyz`
#[utoipa::path(get, path = "/healthz", operation_id = "healthz", security(()), responses(
    (status = 200, description = "They are", body = String),
    (status = 503, description = "They are not, and why", body = String),
))]
async fn healthy(state: State<Arc<AdminState>>) -> (StatusCode, &'static str) {
    ready(state).await
}

/// How each destination stands
#[utoipa::path(get, path = "/status", operation_id = "status",
    responses((status = 200, description = "Destinations by name", body = Object)))]
async fn status(State(state): State<Arc<AdminState>>) -> Result<Json<Status>, Problem> {
    Ok(Json(state.sources.status().await?))
}

/// What Prometheus scrapes: `OpenMetrics` for whoever asks for it, its own format for everybody else
#[utoipa::path(get, path = "/metrics", operation_id = "metrics",
    responses((status = 200, description = "Every metric", body = String)))]
async fn metrics(
    State(state): State<Arc<AdminState>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let families = Families::gather(&state.sources).await?;
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let (kind, text) =
        if accepts.is_some_and(|kinds| kinds.contains("application/openmetrics-text")) {
            (metrics::OPEN_METRICS, metrics::open_metrics(families))
        } else {
            (metrics::TEXT, metrics::text(families))
        };
    let text = text.map_err(|_| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written as text")
    })?;
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

async fn admit(State(state): State<Arc<AdminState>>, request: Request, next: Next) -> Response {
    match objection(&state.tokens.get(), request.method(), request.headers()) {
        None => next.run(request).await,
        Some((status, detail)) => Problem::new(status, detail).into_response(),
    }
}

/// A browser that opens the page has no token to send yet: the page asks for it.
async fn admit_to_the_page(
    state: State<Arc<AdminState>>,
    request: Request,
    next: Next,
) -> Response {
    if state.tokens.get().is_empty() {
        admit(state, request, next).await
    } else {
        next.run(request).await
    }
}

fn objection(
    tokens: &[Secret],
    method: &Method,
    headers: &HeaderMap,
) -> Option<(StatusCode, &'static str)> {
    if !method.is_safe() && is_cross_origin(headers) {
        return Some((StatusCode::FORBIDDEN, "a web page of another origin may change nothing"));
    }
    if tokens.is_empty() {
        let foreign = "this listener answers only to a loopback name as Host and Origin";
        let local = host(headers).is_some_and(is_loopback)
            && origin(headers).is_none_or(|origin| is_loopback(authority(origin)));
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

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST).and_then(|host| host.to_str().ok())
}

/// What cannot be read is nobody's.
fn origin(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default())
}

fn authority(origin: &str) -> &str {
    origin.split_once("://").map_or("", |(_, authority)| authority)
}

/// Whether a browser sends this for a page of another origin. Browsers of our days say so in
/// `Sec-Fetch-Site`; older ones name the page in `Origin`; programs send neither. As Go's
/// `CrossOriginProtection` does, so that a proxy may change the `Host`.
fn is_cross_origin(headers: &HeaderMap) -> bool {
    match headers.get("sec-fetch-site").map(HeaderValue::as_bytes) {
        Some(site) => !matches!(site, b"same-origin" | b"none"),
        None => origin(headers).is_some_and(|origin| host(headers) != Some(authority(origin))),
    }
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
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use axum::body::{Body, to_bytes};
    use tower::ServiceExt;

    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::ledger::{Operations, Retention, Settings, SqliteLedger};
    use crate::operate::logging::Lines;
    use crate::receive::Readiness;

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
            assert_eq!(objection(&[], &Method::GET, &headers(list)).is_none(), passes, "{list:?}");
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
            assert_eq!(
                objection(&tokens, &Method::GET, &headers(list)).is_none(),
                passes,
                "{list:?}"
            );
        }
    }

    #[test]
    fn a_browser_changes_nothing_for_a_page_of_another_origin() {
        let tokens = [Secret::new("token")];
        let host = ("host", "ops.example");
        let token = ("authorization", "Bearer token");
        let cases: [(&[(&str, &str)], bool); 8] = [
            (&[host, token], true),
            (&[host, token, ("origin", "https://ops.example")], true),
            (&[host, token, ("origin", "https://attacker.example")], false),
            (&[host, token, ("origin", "null")], false),
            (&[host, token, ("sec-fetch-site", "same-origin")], true),
            (&[host, token, ("sec-fetch-site", "none")], true),
            (&[host, token, ("sec-fetch-site", "cross-site")], false),
            // a proxy has given the request another host
            (
                &[
                    ("host", "10.0.0.7:8081"),
                    token,
                    ("origin", "https://ops.example"),
                    ("sec-fetch-site", "same-origin"),
                ],
                true,
            ),
        ];
        for (list, passes) in cases {
            let headers = headers(list);
            assert_eq!(objection(&tokens, &Method::POST, &headers).is_none(), passes, "{list:?}");
            assert_eq!(objection(&tokens, &Method::GET, &headers), None, "reading is no change");
        }
    }

    /// A router over a ledger of its own, without destinations.
    fn bare() -> (tempfile::TempDir, Router) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let week = Duration::from_secs(604_800);
        let kept = Retention { max_age: week, max_count: 1, max_bytes: 1 };
        let settings = Settings {
            path: directory.path().to_owned(),
            disk_reserve_bytes: 0,
            cache_kib: 64,
            tombstone_ttl: week,
            rejected: kept,
            parked: kept,
            max_audiences: 10_000,
            check_every: week,
            destinations: Vec::new(),
        };
        let (ledger, _writer) =
            SqliteLedger::open(settings, Arc::new(SystemClock)).expect("a new ledger");
        let ledger: Arc<dyn Operations> = Arc::new(ledger);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let sources = Sources {
            ledger: Arc::clone(&ledger),
            standings: Current::new(Vec::new()),
            readiness: Readiness::default(),
            received: Arc::default(),
            delivered: Arc::default(),
            lines: Lines::default(),
            started_at: clock.now(),
            clock,
        };
        let (tokens, sources) = (Current::new(Vec::new()), Arc::new(sources));
        let state = AdminState { tokens, sources, segment_app: true };
        let environments = Current::new(Vec::new());
        let actions = Actions { ledger: Arc::clone(&ledger), environments };
        let api = Api {
            ledger,
            destinations: Current::new(BTreeMap::new()),
            tombstone_ttl: week,
            history: Arc::default(),
            courses: api::progress::Courses::default(),
            reloads: api::Reloads::channel().0,
        };
        (directory, router(state, api, actions))
    }

    /// Routed, and not of the API.
    const NOT_OF_THE_API: [&str; 5] = [
        "/",
        "/assets/{*file}",
        "/actions/manifest",
        "/actions/authenticate",
        "/actions/syncAudience",
    ];

    /// As a browser asks for Segment's application, where it may.
    #[tokio::test]
    async fn segments_application_may_ask_across_origins_for_the_actions_only() {
        let (_directory, router) = bare();
        for (path, status) in [("/actions/syncAudience", 415), ("/api/v1/reload", 403)] {
            let request = Request::post(path)
                .header("host", "localhost")
                .header("origin", "https://app.segment.com")
                .header("sec-fetch-site", "cross-site")
                .body(Body::empty());
            let answer = router.clone().oneshot(request.expect("a request")).await;
            assert_eq!(answer.expect("infallible").status().as_u16(), status, "{path}");
        }
    }

    #[tokio::test]
    async fn what_is_routed_is_in_the_document_and_what_is_in_the_document_is_routed() {
        let (_directory, router) = bare();
        // axum shows its routes in its debug format and nowhere else.
        let shown = format!("{router:?}");
        let (_, paths) = shown.split_once("paths: {").expect("axum lists its paths");
        let (paths, _) = paths.split_once("} }").expect("the list has an end");
        let paths: BTreeSet<&str> = paths.split('"').skip(1).step_by(2).collect();

        let request = Request::get("/api/v1/openapi.json").header("host", "localhost");
        let request = request.body(Body::empty()).expect("a request");
        let answer = router.clone().oneshot(request).await.expect("infallible");
        let text = to_bytes(answer.into_body(), usize::MAX).await.expect("it is in memory");
        let document: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        let documented = document["paths"].as_object().expect("it has paths");
        let documented: BTreeSet<&str> =
            documented.keys().map(String::as_str).chain(NOT_OF_THE_API).collect();
        assert_eq!(paths, documented);
        assert!(paths.len() > 20, "{paths:?}");
    }
}
