//! The probes: `/livez` says that the process lives; `/readyz` and its alias `/healthz` say that the ledger
//! accepts writes and start-up is over. They do not say that LaunchDarkly is well: a restart would not help.

use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use http::{HeaderValue, StatusCode, header};

use super::PublicState;
use crate::ledger::Recorder;

/// A latch that says whether traffic is welcome; clones share it. Initially not ready.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<RwLock<Option<&'static str>>>);

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(RwLock::new(Some("starting"))))
    }
}

impl Readiness {
    /// Traffic is welcome from here on.
    pub fn ready(&self) {
        self.set(None);
    }

    /// Traffic should go elsewhere; `reason` is what the probe answers.
    pub fn not_ready(&self, reason: &'static str) {
        self.set(Some(reason));
    }

    /// Why traffic is not welcome, if it is not.
    #[must_use]
    pub fn objection(&self) -> Option<&'static str> {
        *self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, objection: Option<&'static str>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = objection;
    }
}

/// Why no events should be sent here; `None` if they may be.
#[must_use]
pub fn objection(readiness: &Readiness, ledger: &dyn Recorder) -> Option<&'static str> {
    let failed = || ledger.has_failed().then_some("the ledger has failed");
    let obstacle = || ledger.obstacle().map(|obstacle| obstacle.words());
    readiness.objection().or_else(failed).or_else(obstacle)
}

/// The answers while nothing can be accepted yet: the process lives, and everything else is 503 with the
/// reason.
pub fn unready(reason: &'static str) -> Router {
    let refuse = move || async move {
        let later = [(header::RETRY_AFTER, HeaderValue::from_static("1"))];
        (StatusCode::SERVICE_UNAVAILABLE, later, reason)
    };
    Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(refuse))
        .route("/healthz", get(refuse))
        .fallback(refuse)
}

pub(super) async fn live() -> &'static str {
    "ok"
}

pub(super) async fn ready(State(state): State<Arc<PublicState>>) -> (StatusCode, &'static str) {
    match objection(&state.readiness, &*state.ledger) {
        None => (StatusCode::OK, "ok"),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}
