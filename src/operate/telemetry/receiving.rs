//! Requests in traces: the public router and the ledger that it records in, wrapped.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use http::{Method, StatusCode};
use tokio::sync::watch;

use super::context::{CURRENT, TraceContext};
use super::delivering::Untold;
use super::spans::{Kind, Tracer};
use crate::ledger::{
    Backlog, Batch, Intake, Ledger, LedgerError, Members, ParkReason, Recorded, Room, Route,
    Unheard,
};
use crate::membership::{AudienceId, ContextKey, DestinationName, Timestamp};

/// Of a path: as long as one that exists.
const LONGEST_PATH: usize = 256;
/// What stands for a path that does not exist, and is a stranger's text.
const NOWHERE: &str = "/REDACTED";

/// Every request of the router is a span, with the attributes that the semantic conventions of HTTP ask for.
/// Its path is one of those there are: any other is a stranger's text ([P8](crate::design::P8)).
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
    let method = match request.method() {
        known @ (&Method::GET | &Method::HEAD | &Method::POST | &Method::PUT | &Method::PATCH) => {
            known.as_str().to_owned()
        }
        _ => "_OTHER".to_owned(),
    };
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let name = route.as_ref().map_or_else(|| method.clone(), |route| format!("{method} {route}"));
    let mut span = tracer.begin(parent, Kind::Server, name);
    span.text("http.request.method", method);
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

/// A ledger whose records are spans, and which remembers for which trace an audience was touched.
#[derive(Debug)]
pub struct TracedLedger {
    ledger: Arc<dyn Ledger>,
    tracer: Tracer,
    untold: Untold,
}

impl TracedLedger {
    /// The same ledger, for those who record.
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>, tracer: Tracer, untold: Untold) -> Self {
        Self { ledger, tracer, untold }
    }
}

#[async_trait]
impl Ledger for TracedLedger {
    async fn record_all(&self, intakes: Vec<Intake>) -> Result<Vec<Recorded>, LedgerError> {
        let Some(parent) = TraceContext::current() else {
            return self.ledger.record_all(intakes).await;
        };
        let mut span = self.tracer.begin(Some(parent), Kind::Internal, "record");
        let names: Vec<&str> = intakes.iter().map(|intake| intake.destination.as_str()).collect();
        span.text("cohortd.destination", names.join(","));
        span.number("cohortd.deltas", intakes.iter().map(|intake| intake.deltas.len()).sum());
        // Before they are recorded: a call may follow at once.
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

    async fn backlog(&self, destination: &DestinationName) -> Result<Vec<Backlog>, LedgerError> {
        self.ledger.backlog(destination).await
    }

    fn news(&self, destination: &DestinationName) -> watch::Receiver<()> {
        self.ledger.news(destination)
    }

    async fn claim(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
        room: Room,
    ) -> Result<Option<Batch>, LedgerError> {
        self.ledger.claim(destination, audience, room).await
    }

    async fn claim_again(
        &self,
        route: &Arc<Route>,
        context_key: &ContextKey,
    ) -> Result<Option<Batch>, LedgerError> {
        self.ledger.claim_again(route, context_key).await
    }

    async fn claim_told(
        &self,
        destination: &DestinationName,
        after: Option<&(AudienceId, ContextKey)>,
    ) -> Result<Option<Batch>, LedgerError> {
        self.ledger.claim_told(destination, after).await
    }

    async fn settle(&self, batch: Batch) -> Result<(), LedgerError> {
        self.ledger.settle(batch).await
    }

    async fn release(&self, batch: Batch, unheard: Unheard) -> Result<(), LedgerError> {
        self.ledger.release(batch, unheard).await
    }

    async fn park(&self, batch: Batch, reason: ParkReason) -> Result<(), LedgerError> {
        self.ledger.park(batch, reason).await
    }

    async fn split(&self, parts: Vec<Batch>) -> Result<(), LedgerError> {
        self.ledger.split(parts).await
    }

    async fn requeue(&self, members: Members) -> Result<u64, LedgerError> {
        self.ledger.requeue(members).await
    }

    fn paused_since(&self, destination: &DestinationName) -> Option<Timestamp> {
        self.ledger.paused_since(destination)
    }

    fn takes_writes(&self) -> bool {
        self.ledger.takes_writes()
    }

    fn has_failed(&self) -> bool {
        self.ledger.has_failed()
    }
}
