//! Traces of requests: wrappers of the public router and of the ledger in which it records.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use http::{Method, StatusCode};

use super::context::{CURRENT, TraceContext};
use super::delivering::Untold;
use super::spans::{Kind, Tracer};
use crate::ledger::{Intake, LedgerError, Obstacle, Recorded, Recorder};
use crate::membership::Timestamp;

/// Longest path that is recorded: none of ours is longer.
const LONGEST_PATH: usize = 256;
/// Longest non-standard method that is recorded.
const LONGEST_METHOD: usize = 16;
/// Recorded in place of a path that does not exist, which may be any text.
const NOWHERE: &str = "/REDACTED";

/// Records each request of the router as a span, with the attributes of the HTTP semantic conventions.
/// Paths that do not exist are redacted: they may be any text ([P8](crate::design::P8)).
pub fn traced(router: Router, tracer: Tracer, scheme: &'static str) -> Router {
    router.layer(middleware::from_fn_with_state((tracer, scheme), request))
}

async fn request(
    State((tracer, scheme)): State<(Tracer, &'static str)>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let path = (path.len() <= LONGEST_PATH).then(|| path.to_owned());
    let parent = TraceContext::of(request.headers());
    let (method, original) = method(request.method());
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map(|path| route(path.as_str()).to_owned());
    let verb = if original.is_some() { "HTTP" } else { method };
    let name = route.as_ref().map_or_else(|| verb.to_owned(), |route| format!("{verb} {route}"));
    let mut span = tracer.begin(parent, Kind::Server, name);
    span.text("http.request.method", method);
    if let Some(original) = original {
        span.text("http.request.method_original", original);
    }
    if let Some(route) = route {
        span.text("http.route", route);
    }
    let response = CURRENT.scope(span.span.context, next.run(request)).await;
    let status = response.status();
    let exists = !matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED);
    span.text("url.path", path.filter(|_| exists).unwrap_or_else(|| NOWHERE.to_owned()));
    span.text("url.scheme", scheme);
    span.number("http.response.status_code", status.as_u16().into());
    if status.is_server_error() {
        span.failed(status.as_str());
    }
    tracer.end(span);
    response
}

/// The method in terms of the semantic conventions; and, if it is none of theirs, the original, which
/// is redacted unless it is a short alphabetic name.
fn method(method: &Method) -> (&'static str, Option<String>) {
    const KNOWN: [&str; 9] =
        ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    let sent = method.as_str();
    if let Some(known) = KNOWN.into_iter().find(|known| *known == sent) {
        return (known, None);
    }
    let is_name =
        sent.len() <= LONGEST_METHOD && sent.bytes().all(|byte| byte.is_ascii_alphabetic());
    ("_OTHER", Some(if is_name { sent } else { "REDACTED" }.to_owned()))
}

/// The name of a route, which is matched both with and without a trailing slash.
fn route(matched: &str) -> &str {
    matched.strip_suffix('/').filter(|route| !route.is_empty()).unwrap_or(matched)
}

/// A ledger that records each `record` as a span, and remembers which traces touched an audience.
#[derive(Debug)]
pub struct TracedLedger {
    ledger: Arc<dyn Recorder>,
    tracer: Tracer,
    untold: Untold,
}

impl TracedLedger {
    /// Wraps the ledger for `receive`.
    #[must_use]
    pub fn new(ledger: Arc<dyn Recorder>, tracer: Tracer, untold: Untold) -> Self {
        Self { ledger, tracer, untold }
    }
}

#[async_trait]
impl Recorder for TracedLedger {
    async fn record_all(&self, intakes: Vec<Intake>) -> Result<Vec<Recorded>, LedgerError> {
        let Some(parent) = TraceContext::current() else {
            return self.ledger.record_all(intakes).await;
        };
        let mut span = self.tracer.begin(Some(parent), Kind::Internal, "record");
        let names: Vec<&str> = intakes.iter().map(|intake| intake.destination.as_str()).collect();
        span.text("cohortd.destination", names.join(","));
        span.number("cohortd.deltas", intakes.iter().map(|intake| intake.deltas.len()).sum());
        // Before they are recorded, as a call may follow at once.
        for Intake { destination, deltas, .. } in &intakes {
            let audiences: BTreeSet<_> = deltas.iter().map(|delta| &delta.audience).collect();
            for audience in audiences {
                self.untold.touched(destination, audience, span.span.context);
            }
        }
        let recorded = self.ledger.record_all(intakes).await;
        if recorded.is_err() {
            span.failed("ledger");
        }
        self.tracer.end(span);
        recorded
    }

    fn arrival(&self) -> Timestamp {
        self.ledger.arrival()
    }

    fn obstacle(&self) -> Option<Obstacle> {
        self.ledger.obstacle()
    }

    fn has_failed(&self) -> bool {
        self.ledger.has_failed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_and_routes_have_the_names_of_the_conventions() {
        let table = [
            ("GET", "GET", None),
            ("OPTIONS", "OPTIONS", None),
            ("DELETE", "DELETE", None),
            ("TRACE", "TRACE", None),
            ("CONNECT", "CONNECT", None),
            ("BREW", "_OTHER", Some("BREW")),
            ("get", "_OTHER", Some("get")),
            ("S3CRET", "_OTHER", Some("REDACTED")),
            ("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "_OTHER", Some("REDACTED")),
        ];
        for (sent, known, original) in table {
            let sent = Method::from_bytes(sent.as_bytes()).expect("a token");
            assert_eq!(method(&sent), (known, original.map(str::to_owned)), "{sent}");
        }
        for (matched, expected) in [
            ("/v1/i/", "/v1/i"),
            ("/v1/i", "/v1/i"),
            ("/segment/{destination}/", "/segment/{destination}"),
            ("/", "/"),
        ] {
            assert_eq!(route(matched), expected);
        }
    }
}
