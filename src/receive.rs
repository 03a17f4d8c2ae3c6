//! Receiving: the public listener, the only part that strangers can reach.
//!
//! It answers `POST|PUT|PATCH /segment/{destination or route}`, the two calls of Webhook Audiences, the
//! Tracking API under `/v1`, and the probes, and nothing else. A request is authenticated over the bytes as
//! they arrived, split into raw events, mapped for each destination of its path, recorded for all of them in
//! one transaction, and only then answered.
//!
//! # What always holds
//! * A 2xx is sent after [`Recorder::record`] returned ([P1](crate::design::P1);
//!   `webhook::tests::no_success_is_answered_before_the_ledger_has_recorded`).
//! * A bad event does not affect the others of its request ([P5](crate::design::P5); the tables of `envelope`
//!   and `webhook`).
//! * All requests in flight share one budget. When it is used up, a body that has been arriving for longer is
//!   evicted, or the answer is 503. Whatever is made of a body (its text if it was compressed, trees, copies,
//!   what is recorded) is reserved there too, before it is made ([P6](crate::design::P6); `budget::tests`,
//!   tests/it/memory.rs).
//! * Trouble on our side is never a 4xx, because Segment never retries one.
//! * A stranger learns nothing but 401: authentication precedes every complaint about a body.
//!
//! # What does not
//! Segment signs only the first event of a batch, so under a signature alone the others are unauthenticated.
//! An operator who minds requires a bearer token as well (`require`).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::{MethodFilter, MethodRouter, get, on, post};
use tokio::time::Instant;

use crate::clock::Seldom;
use crate::ledger::Recorder;

mod answer;
mod authentication;
mod body;
mod bucket;
mod budget;
mod calls;
mod change;
mod connections;
mod cors;
mod counters;
mod doors;
pub mod envelope;
mod exchange;
#[cfg(test)]
mod fake;
mod handed_in;
mod heavy;
mod listener;
mod names;
mod opening;
mod probes;
mod progress;
mod proxy_protocol;
mod refused;
mod remembered;
mod rewritten;
mod slip;
mod socket;
mod sorting;
mod sources;
pub mod tls;
mod tracking;
mod unpacking;
mod webhook;
mod webhook_audiences;
mod windows;

pub use authentication::{Credential, Credentials, bearer};
pub use body::discard;
pub use bucket::Rate;
pub use change::SinceChange;
pub use counters::{Counters, Received, Requests};
pub use doors::{Destination, Doors, Entrance};
pub use handed_in::{HandInError, HandedIn, hand_in};
pub use listener::{Front, Proven, serve};
pub use probes::{Readiness, objection, unready};
pub use refused::{RefusedCount, RefusedPath};
pub use remembered::Remembered;
pub use sorting::too_large;
pub use sources::Peer;
pub use tracking::messages;

use answer::Refusal;
use counters::{Counted, Outcome};
use refused::{Asked, At, Doubt};

/// What a request may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of a body; a larger one is answered 413, which Segment never retries.
    pub body_limit_bytes: usize,
    /// Most bytes that all bodies in flight may hold together; past it the answer is 503.
    pub body_budget_bytes: usize,
    /// Most bytes of request line and headers; larger ones are answered 431, or 414.
    pub header_limit_bytes: usize,
    /// Timeout for the request line and headers of the first request, TLS handshake included.
    pub header_timeout: Duration,
    /// Timeout for the request line and headers of a further request, from the end of the one before.
    pub idle_timeout: Duration,
    /// Timeout for the whole body, and for an answer to be taken.
    pub body_timeout: Duration,
    /// Timeout from the request head to the answer; Segment gives up after 5 s.
    pub answer_timeout: Duration,
    /// Most open connections; past it the one that has been longest without a complete request is closed.
    pub max_connections: usize,
    /// Most requests with a body that are handled at once; past it one whose body has been arriving for
    /// longer is evicted, or the answer is 503.
    pub max_requests: usize,
    /// How many proxies in front are trusted to name the source of a request.
    pub trusted_proxies: usize,
    /// Whether every connection must begin with a header of the PROXY protocol; otherwise none may.
    pub proxy_protocol: bool,
}

/// The state shared by the public routes.
#[derive(Debug)]
pub struct PublicState {
    doors: Doors,
    ledger: Arc<dyn Recorder>,
    limits: Limits,
    budget: budget::Budget,
    heavy: heavy::Heavy,
    readiness: Readiness,
    counters: Arc<Counters>,
    /// Limits the log lines about requests that the ledger did not accept.
    unrecorded: Mutex<Seldom>,
    /// Limits the log lines about pages whose origin is not listed.
    unlisted: Mutex<Seldom>,
}

impl PublicState {
    /// Builds the state. The caller may replace `doors` and flip `readiness` later; `counters` are updated
    /// here.
    #[must_use]
    pub fn new(
        doors: Doors,
        ledger: Arc<dyn Recorder>,
        limits: Limits,
        readiness: Readiness,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            doors,
            ledger,
            limits,
            budget: budget::Budget::new(
                limits.max_requests,
                limits.body_budget_bytes,
                limits.body_limit_bytes,
            ),
            heavy: heavy::Heavy::new(),
            readiness,
            counters,
            unrecorded: Mutex::default(),
            unlisted: Mutex::default(),
        }
    }

    /// Counts a request that arrived at this time and place, for each destination behind its door if it has
    /// one, and returns its outcome `end` unchanged.
    fn counted<T: Counted>(&self, at: &At<'_>, asked: Asked, arrived: Instant, end: T) -> T {
        let (outcome, took) = (end.outcome(), arrived.elapsed());
        match at.door() {
            Some(door) => {
                door.destinations.iter().for_each(|of| of.counters.requests.count(outcome, took));
            }
            None => self.counters.nobodys().count(outcome, took),
        }
        let mut asked = asked;
        if let (Outcome::Refused(Refusal::Unauthenticated), At::Door(door, _)) = (outcome, at)
            && door.sample.take()
        {
            asked.doubt = Doubt::Rewritten;
        }
        match outcome {
            Outcome::Done => self.counters.refused.succeeded(at, || self.ledger.arrival()),
            Outcome::AllRejected => {} // authenticated, but nothing was accepted
            Outcome::Refused(refusal) => self.refused(at, asked, refusal),
        }
        end
    }

    /// Counts a refused request, and remembers it if it looks like Segment's.
    fn refused(&self, at: &At<'_>, asked: Asked, refusal: Refusal) {
        self.counters.refused.note(at, &self.doors, asked, refusal, self.ledger.arrival());
    }
}

/// Builds what the public listener serves.
pub fn front(state: PublicState) -> Front {
    let budget = state.budget.clone();
    let state = Arc::new(state);
    let probes_and_nothing_else = probed().fallback(answer::misled).with_state(Arc::clone(&state));
    Front::new(routed(state), probes_and_nothing_else, budget)
}

/// Adds a route, also with a trailing slash: people write it, and so do some SDKs.
fn route(
    router: Router<Arc<PublicState>>,
    path: &str,
    methods: MethodRouter<Arc<PublicState>>,
) -> Router<Arc<PublicState>> {
    router.route(path, methods.clone()).route(&format!("{path}/"), methods)
}

/// The probes of load balancers.
fn probed() -> Router<Arc<PublicState>> {
    let router = route(Router::new(), "/livez", get(probes::live));
    let router = route(router, "/readyz", get(probes::ready));
    route(router, "/healthz", get(probes::ready))
}

/// The public routes. Anything else is a 404, any other method a 405.
fn routed(state: Arc<PublicState>) -> Router {
    let events = MethodFilter::POST.or(MethodFilter::PUT).or(MethodFilter::PATCH);
    let create = post(webhook_audiences::create);
    let router = route(probed(), "/segment/{destination}", on(events, webhook::accept));
    let router = route(router, "/segment/{destination}/audiences/create", create);
    let find = post(webhook_audiences::get);
    route(router, "/segment/{destination}/audiences/get", find)
        .merge(calls::routes())
        .method_not_allowed_fallback(answer::method_not_allowed)
        .fallback(answer::not_found)
        .with_state(state)
}

/// The public routes, for tests of a single step.
#[cfg(test)]
fn router(state: PublicState) -> Router {
    routed(Arc::new(state))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::manual;
    use crate::receive::fake::{Behaviour, FakeLedger, LIMITS};

    #[tokio::test]
    async fn the_manual_names_every_public_route() {
        let ledger = FakeLedger::that(Behaviour::Records { kind_conflicts: Vec::new() });
        let state = PublicState::new(
            Doors::new([]),
            Arc::new(ledger),
            LIMITS,
            Readiness::default(),
            Arc::default(),
        );
        // only axum's debug output lists its routes
        let shown = format!("{:?}", router(state));
        let (_, paths) = shown.split_once("paths: {").expect("axum lists its paths");
        let (paths, _) = paths.split_once("} }").expect("the list has an end");
        let paths = paths.split('"').skip(1).step_by(2).map(|path| path.trim_end_matches('/'));
        let shortened = |path: &str| {
            if path.starts_with("/v1/") { "/v1/…".to_owned() } else { path.to_owned() }
        };
        let routed: BTreeSet<String> = paths.map(shortened).collect();
        let rows = manual::rows("operations", "api");
        let (_, public) = rows.split_at(
            rows.iter().position(|row| row[0].starts_with("route of the public")).expect("a table"),
        );
        let named = public.iter().skip(2).flat_map(|row| manual::quoted(row[0]));
        assert_eq!(routed, named.map(str::to_owned).collect());
    }
}
