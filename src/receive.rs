//! Receiving: the public listener, which is the only thing strangers can reach.
//!
//! It answers `POST|PUT|PATCH /segment/{destination}`, the two calls of Webhook Audiences, the Tracking
//! API under `/v1`, and the probes, and nothing else. A request
//! is authenticated over the bytes as they came, split into raw events, mapped, recorded, and
//! only then answered.
//!
//! # What always holds
//! * A 2xx is sent after [`Ledger::record`] returned (P1;
//!   `webhook::tests::no_success_is_answered_before_the_ledger_has_recorded`).
//! * One bad event costs none of its neighbours (P5; the tables of `envelope` and `webhook`).
//! * All requests in flight share one budget; past it a body that has been arriving for longer makes way,
//!   or the answer is 503 (P6; `budget::tests`).
//! * Our own trouble is never a 4xx, because Segment never retries one.
//! * A stranger learns nothing but 401: authentication precedes every complaint about a body.
//!
//! # What does not
//! Segment signs only the first event of a batch, so under a signature alone the others are
//! unauthenticated. Whoever minds demands a bearer token as well (`require`).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use answer::Refusal;
use axum::Router;
use axum::routing::{MethodFilter, get, on, post};
use http::HeaderMap;
use ipnet::IpNet;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::ledger::Ledger;
use crate::map::Mappings;
use crate::membership::DestinationName;
use crate::secret::Secret;

mod answer;
mod authentication;
mod body;
mod bucket;
mod budget;
mod connections;
mod envelope;
mod exchange;
#[cfg(test)]
mod fake;
mod listener;
mod probes;
mod progress;
mod socket;
mod sorting;
mod sources;
pub mod tls;
mod tracking;
mod unpacking;
mod webhook;
mod webhook_audiences;

pub use authentication::{Credential, Credentials};
pub use bucket::Rate;
pub use listener::serve;
pub use probes::{Readiness, objection};

use bucket::Bucket;
use unpacking::Encoding;

/// Calls that need no credential, of one destination: Segment makes one when an audience is connected.
const UNSIGNED_CALLS: Rate = Rate { a_second: 5.0, burst: 50.0 };

/// A configured destination, as the public listener knows it.
#[derive(Debug)]
pub struct Destination {
    /// The last part of its path, `/segment/{name}`.
    pub name: DestinationName,
    /// A disabled one answers 503, so that Segment retries for a while and nothing is lost.
    pub enabled: bool,
    /// How its events become deltas.
    pub mappings: Mappings,
    /// What a request must present.
    pub credentials: Credentials,
    /// What names it to the Tracking API.
    pub write_keys: Vec<Secret>,
    /// Fields that Segment appends to an event after it has signed it.
    pub extra_fields: Vec<String>,
    /// Networks that may send; without any, every one may.
    pub allowed_sources: Vec<IpNet>,
    /// Whether one request may carry several events, of which a signature covers the first.
    pub allow_batches: bool,
    /// Requests it takes; none: as many as come.
    pub rate: Option<Rate>,
}

/// What a request may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest body; a larger one is answered 413, which Segment never retries.
    pub body_limit_bytes: usize,
    /// What all bodies in flight may hold together; past it the answer is 503.
    pub body_budget_bytes: usize,
    /// The largest request line and headers; larger ones are answered 431, or 414.
    pub header_limit_bytes: usize,
    /// For the request line and headers of the first request, TLS handshake included.
    pub header_timeout: Duration,
    /// For those of another one, from the end of the request before.
    pub idle_timeout: Duration,
    /// For the whole body, and for an answer to be taken.
    pub body_timeout: Duration,
    /// From the request head to the answer; Segment gives up after 5 s.
    pub answer_timeout: Duration,
    /// Open at once; one that has been longest without a complete request makes way.
    pub max_connections: usize,
    /// Requests with a body that are handled at once; past it one whose body has been arriving for longer
    /// makes way, or the answer is 503.
    pub max_requests: usize,
    /// Proxies in front whose word about the source of a request is taken.
    pub trusted_proxies: usize,
}

/// What the public routes share.
#[derive(Debug)]
pub struct PublicState {
    doors: HashMap<String, Arc<Door>>,
    ledger: Arc<dyn Ledger>,
    limits: Limits,
    budget: budget::Budget,
    /// One permit per core: bodies that are heavy to read wait for each other, not for threads.
    heavy_readers: Semaphore,
    readiness: Readiness,
}

impl PublicState {
    /// Puts the state together; `readiness` is the caller's to flip.
    #[must_use]
    pub fn new(
        destinations: impl IntoIterator<Item = Destination>,
        ledger: Arc<dyn Ledger>,
        limits: Limits,
        readiness: Readiness,
    ) -> Self {
        let doors = destinations.into_iter().map(|destination| {
            (destination.name.as_str().to_owned(), Arc::new(Door::new(destination)))
        });
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            doors: doors.collect(),
            ledger,
            limits,
            budget: budget::Budget::new(limits.max_requests, limits.body_budget_bytes),
            heavy_readers: Semaphore::new(cores),
            readiness,
        }
    }
}

/// A destination with its credentials made ready for checking.
#[derive(Debug)]
struct Door {
    name: DestinationName,
    enabled: bool,
    mappings: Mappings,
    gate: authentication::Gate,
    write_keys: Vec<Secret>,
    extra_fields: Vec<String>,
    allowed_sources: Vec<IpNet>,
    allow_batches: bool,
    requests: Option<Mutex<Bucket>>,
    /// Of the calls that need no credential.
    unsigned: Mutex<Bucket>,
}

impl Door {
    fn new(destination: Destination) -> Self {
        Self {
            name: destination.name,
            enabled: destination.enabled,
            mappings: destination.mappings,
            gate: authentication::Gate::new(&destination.credentials),
            write_keys: destination.write_keys,
            extra_fields: destination.extra_fields,
            allowed_sources: destination.allowed_sources,
            allow_batches: destination.allow_batches,
            requests: destination.rate.map(|rate| Mutex::new(Bucket::of(rate))),
            unsigned: Mutex::new(Bucket::of(UNSIGNED_CALLS)),
        }
    }
}

impl Door {
    /// What holds of every request with a body.
    fn is_open(&self, headers: &HeaderMap, source: Option<IpAddr>) -> Result<(), Refusal> {
        if !sources::is_among(source, &self.allowed_sources) {
            return Err(Refusal::SourceNotAllowed);
        }
        if !self.enabled {
            return Err(Refusal::Disabled);
        }
        Encoding::of(headers).map(|_| ())
    }

    /// Counts a request of somebody who is known: strangers use up nobody's rate.
    fn count_request(&self) -> Result<(), Refusal> {
        self.requests.as_ref().map_or(Ok(()), take_one)
    }
}

fn take_one(bucket: &Mutex<Bucket>) -> Result<(), Refusal> {
    let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
    if bucket.take(Instant::now()) { Ok(()) } else { Err(Refusal::TooMany) }
}

/// The public routes. Anything else is a 404, any other method a 405.
pub fn router(state: PublicState) -> Router {
    let events = MethodFilter::POST.or(MethodFilter::PUT).or(MethodFilter::PATCH);
    Router::new()
        .route("/segment/{destination}", on(events, webhook::accept))
        .route("/segment/{destination}/audiences/create", post(webhook_audiences::create))
        .route("/segment/{destination}/audiences/get", post(webhook_audiences::get))
        .route("/v1/batch", post(tracking::batch))
        .route("/v1/import", post(tracking::batch))
        .route("/v1/{call}", post(tracking::single))
        .route("/livez", get(probes::live))
        .route("/readyz", get(probes::ready))
        .route("/healthz", get(probes::ready))
        .method_not_allowed_fallback(answer::method_not_allowed)
        .fallback(answer::not_found)
        .with_state(Arc::new(state))
}
