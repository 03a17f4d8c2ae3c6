//! The admin listener: probes, `/metrics` and `/status` for machines; the operator's API, Segment's
//! Actions protocol, the dashboard and the manual. Not public.
//!
//! # What always holds
//! * If tokens are configured, every route requires one with sufficient power (`access`), except the
//!   probes, the manual and the dashboard's own files, which contain no data. Without tokens, the
//!   listener must be on a loopback address (otherwise the configuration is refused) and answers only
//!   requests that name one as their `Host`, so that no web page can reach it through a browser on the
//!   same machine. (Segment's application may reach the Actions protocol if `admin.segment_app` says
//!   so.)
//! * Wrong tokens are slowed down and logged (`refusals`), which never delays a request with a right
//!   one.
//! * No answer with data is cached on its way (tests/it/admin.rs).
//! * Errors are problem documents (RFC 9457).
//! * `/status` and `/metrics` contain no personal data, only names of destinations, IDs of audiences
//!   and counts ([P8](crate::design::P8); tests/it/secrecy.rs).

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::current::Current;
use crate::json::Json;
use crate::launchdarkly::wire::USER_AGENT;
use crate::operate::access::{self, Tokens};
use crate::operate::actions::{self, Actions, segment_app};
use crate::operate::api::openapi::{Document, routes};
use crate::operate::api::{self, Api};
use crate::operate::dashboard;
use crate::operate::manual;
use crate::operate::metrics::{self, Families};
use crate::operate::problem::Problem;
use crate::operate::sources::Sources;
use crate::operate::status::Status;
use crate::receive::{Peer, Proven};

/// What the admin routes share.
#[derive(Debug)]
pub struct AdminState {
    /// The tokens, which are required for all but the probes, the manual and the dashboard's files.
    pub tokens: Current<Tokens>,
    /// The sources of what is shown.
    pub sources: Arc<Sources>,
    /// Whether Segment's web application may call `/actions`.
    pub segment_app: bool,
}

/// The admin routes.
pub fn router(state: AdminState, api: Arc<Api>, actions: Actions) -> Router {
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
        .merge(verbs.router.with_state(api))
        .layer(Extension(document))
        .merge(actions::router(actions))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is no such route"))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), admit));
    let guarded = if segment_app { segment_app::admit_to(guarded) } else { guarded };
    let page = middleware::from_fn_with_state(state, admit_to_the_page);
    probes
        .merge(dashboard::router().merge(manual::router()).layer(page))
        .method_not_allowed_fallback(method_not_allowed)
        .merge(guarded)
        .layer(middleware::map_response(signed))
}

async fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this route does not accept this method")
}

/// Adds headers to every answer: `Server`, so that commands of another version can tell; and headers
/// against caching, except for the dashboard's files, and against content sniffing.
pub async fn signed(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static(USER_AGENT));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Whether the process is alive
#[utoipa::path(get, path = "/livez", operation_id = "livez", security(()),
    responses((status = 200, description = "The process is alive", body = String)))]
async fn live() -> &'static str {
    "ok"
}

/// Whether events are accepted
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", security(()), responses(
    (status = 200, description = "Events are accepted", body = String),
    (status = 503, description = "Events are not accepted; the body says why", body = String),
))]
async fn ready(State(state): State<Arc<AdminState>>) -> (StatusCode, &'static str) {
    match state.sources.objection() {
        None => (StatusCode::OK, "ok"),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

/// Whether events are accepted; another name of `/readyz`
#[utoipa::path(get, path = "/healthz", operation_id = "healthz", security(()), responses(
    (status = 200, description = "Events are accepted", body = String),
    (status = 503, description = "Events are not accepted; the body says why", body = String),
))]
async fn healthy(state: State<Arc<AdminState>>) -> (StatusCode, &'static str) {
    ready(state).await
}

/// The status of the daemon and of each destination
#[utoipa::path(get, path = "/status", operation_id = "status",
    responses((status = 200, description = "Destinations by name", body = Object)))]
async fn status(State(state): State<Arc<AdminState>>) -> Result<Json<Status>, Problem> {
    Ok(Json(state.sources.whole().await?))
}

/// The metrics: as `OpenMetrics` if the request accepts it, otherwise in Prometheus's own format
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

async fn admit(State(state): State<Arc<AdminState>>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let needs = access::needed(request.method(), route);
    match access::judge(&state.tokens.get(), needs, request.method(), request.headers()) {
        Ok(power) => {
            request.extensions_mut().insert(power);
            let mut response = next.run(request).await;
            response.extensions_mut().insert(Proven);
            response
        }
        Err(refusal) => {
            let from = request.extensions().get::<Peer>().map(|peer| peer.0);
            drop(request); // else it would be held in memory as long as its sender waits
            state.sources.refusals.refused(refusal, from).await;
            refusal.problem().into_response()
        }
    }
}

/// A browser that opens the page cannot send a token yet: the page asks for it.
async fn admit_to_the_page(
    state: State<Arc<AdminState>>,
    request: Request,
    next: Next,
) -> Response {
    if state.tokens.get().operate.is_empty() {
        admit(state, request, next).await
    } else {
        next.run(request).await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use axum::body::{Body, to_bytes};
    use tokio_util::sync::CancellationToken;
    use tower::ServiceExt;

    use super::*;
    use crate::clock::{Clock, SystemClock};
    use crate::ledger::{EmbeddedLedger, Operations, Retention, Settings};
    use crate::operate::access::{Power, ROUTES};
    use crate::operate::configuration::Configuration;
    use crate::operate::logging::Lines;
    use crate::operate::refusals::Refusals;
    use crate::receive::Readiness;

    /// A router with a new ledger and no destinations.
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
            EmbeddedLedger::open(settings, Arc::new(SystemClock)).expect("a new ledger");
        let ledger: Arc<dyn Operations> = Arc::new(ledger);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let sources = Sources {
            ledger: Arc::clone(&ledger),
            entries: Current::new(std::collections::BTreeMap::new()),
            standings: Current::new(Vec::new()),
            readiness: Readiness::default(),
            received: Arc::default(),
            delivered: Arc::default(),
            lines: Lines::default(),
            configuration: Configuration::started(clock.now()),
            certificates: Vec::new(),
            refusals: Arc::new(Refusals::new(CancellationToken::new())),
            started_at: clock.now(),
            not_ok_at: std::sync::Mutex::default(),
            seen: std::sync::Mutex::default(),
            unread: crate::counting::Count::default(),
            clock,
        };
        let (tokens, sources) = (Current::new(Tokens::default()), Arc::new(sources));
        let state = AdminState { tokens, sources, segment_app: true };
        let environments = Current::new(Vec::new());
        let actions = Actions { ledger: Arc::clone(&ledger), environments };
        let api = Api {
            ledger,
            delivered: Arc::default(),
            destinations: Current::new(BTreeMap::new()),
            tombstone_ttl: week,
            scratch: directory.path().to_owned(),
            stopping: CancellationToken::new(),
            history: Arc::default(),
            courses: api::progress::Courses::default(),
            reconciling: api::reconcile::turn::Turn::default(),
            reloads: api::Reloads::channel().0,
        };
        (directory, router(state, Arc::new(api), actions))
    }

    /// Routes that are not part of the API.
    const NOT_OF_THE_API: [&str; 7] = [
        "/",
        "/assets/{*file}",
        "/manual",
        "/manual/{topic}",
        "/actions/manifest",
        "/actions/authenticate",
        "/actions/syncAudience",
    ];

    /// Segment's application in a browser, where it is admitted.
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

    /// axum lists its routes only in its debug output.
    fn routed(router: &Router) -> BTreeSet<String> {
        let shown = format!("{router:?}");
        let (_, paths) = shown.split_once("paths: {").expect("axum lists its paths");
        let (paths, _) = paths.split_once("} }").expect("the list has an end");
        paths.split('"').skip(1).step_by(2).map(str::to_owned).collect()
    }

    /// Every method of a new route must be given the power that it requires.
    #[tokio::test]
    async fn each_route_is_in_the_table() {
        let (_directory, router) = bare();
        let mut found = BTreeSet::new();
        for path in routed(&router) {
            let filled = path
                .replace("{destination}", "eu")
                .replace("{key}", "k")
                .replace("{id}", "1")
                .replace("{topic}", "security")
                .replace("{*file}", "app.js");
            // a method that the route does not take is answered with those it does
            let request =
                Request::builder().method("PURGE").uri(filled).header("host", "localhost");
            let request = request.body(Body::empty()).expect("a request");
            let answer = router.clone().oneshot(request).await.expect("infallible");
            assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
            let allowed = answer.headers()[header::ALLOW].to_str().expect("text").to_owned();
            let methods = allowed.split(',').map(str::trim).filter(|method| *method != "HEAD");
            found.extend(methods.map(|method| (method.to_owned(), path.clone())));
        }
        let of_the_table =
            |(method, path, _): &(&str, &str, Power)| ((*method).to_owned(), (*path).to_owned());
        assert_eq!(found, ROUTES.iter().map(of_the_table).collect());
        assert_eq!(found.len(), ROUTES.len(), "none stands there twice");
    }

    #[test]
    fn the_manual_names_every_route() {
        let rows = crate::manual::rows("operations", "api");
        let own = rows.iter().take_while(|row| !row[0].starts_with("route of the public"));
        let named = own.flat_map(|row| crate::manual::quoted(row[0]));
        let shortened = |(_, path, _): &(&'static str, &'static str, Power)| {
            if path.starts_with("/api/v1/") { "/api/v1/…" } else { *path }
        };
        assert_eq!(named.collect::<BTreeSet<_>>(), ROUTES.iter().map(shortened).collect());
    }

    #[tokio::test]
    async fn what_is_routed_is_in_the_document_and_what_is_in_the_document_is_routed() {
        let (_directory, router) = bare();
        let paths = routed(&router);
        let paths: BTreeSet<&str> = paths.iter().map(String::as_str).collect();

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
