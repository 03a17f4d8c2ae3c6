//! The operator's verbs over HTTP: `/api/v1/…` on the admin listener.
//!
//! # What always holds
//! * A change demands a JSON content type, so that no form of a web page can make one.
//! * Every change is one line in the log that says what was done to which destination and audience,
//!   and never to whom (P8).
//! * Errors are problem documents with a sentence that says what to do.

mod destinations;
mod parked;
mod rejected;
mod reload;
pub mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::routing::{get, post};
use bytes::Bytes;
use http::request::Parts;
use http::{StatusCode, header};
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::current::Current;
use crate::ledger::Operations;
use crate::map::Mappings;
use crate::membership::{AudienceId, DestinationName};

pub use reload::{Asked as AskedToReload, Reloads};

/// What the verbs need.
#[derive(Debug)]
pub struct Api {
    /// Where they are carried out.
    pub ledger: Arc<dyn Operations>,
    /// How each configured destination maps events.
    pub mappings: Current<BTreeMap<DestinationName, Arc<Mappings>>>,
    /// Events older than this may bring back a member that left.
    pub tombstone_ttl: Duration,
    /// Who reads the configuration again.
    pub reloads: Reloads,
}

impl Api {
    /// The mappings of a destination that must be configured for what was asked.
    fn configured(&self, destination: &DestinationName) -> Result<Arc<Mappings>, Problem> {
        self.mappings.get().get(destination).map(Arc::clone).ok_or_else(|| {
            let detail = format!(
                "destination {destination} is not configured: nothing can be delivered to it; put it \
                 back into the configuration, rename it (cohortd ledger rename) or drop it without \
                 --retract"
            );
            Problem::new(StatusCode::CONFLICT, detail)
        })
    }
}

/// The routes, relative to `/api/v1`.
pub(super) fn router(api: Api) -> Router {
    let of = |path: &str| format!("/api/v1/destinations/{{destination}}{path}");
    Router::new()
        .route("/api/v1/destinations", get(destinations::list))
        .route(&of("/audiences"), get(destinations::audiences))
        .route(&of("/members/{key}"), get(destinations::member))
        .route(&of("/resync"), post(destinations::resync))
        .route(&of("/pause"), post(destinations::pause))
        .route(&of("/resume"), post(destinations::resume))
        .route(&of("/forget"), post(destinations::forget))
        .route(&of("/drop"), post(destinations::drop_rows))
        .route(&of("/parked"), get(parked::list))
        .route(&of("/parked/requeue"), post(parked::requeue))
        .route(&of("/parked/discard"), post(parked::discard))
        .route(&of("/rejected"), get(rejected::list))
        .route(&of("/rejected/replay"), post(rejected::replay))
        .route(&of("/rejected/discard"), post(rejected::discard))
        .route("/api/v1/reload", post(reload::reload))
        .with_state(Arc::new(api))
}

/// One line for each change.
macro_rules! audit {
    ($destination:expr, $what:literal $(, $field:ident = $value:expr)*) => {
        tracing::info!(
            audit = true, destination.name = %$destination $(, $field = $value)*,
            concat!("operator: ", $what)
        )
    };
}
pub(super) use audit;

/// The `{destination}` of a path.
struct Destination(DestinationName);

impl<S: Send + Sync> FromRequestParts<S> for Destination {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<BTreeMap<String, String>>::from_request_parts(parts, state).await;
        let name = path.ok().and_then(|Path(path)| path.get("destination").cloned());
        let name = name.and_then(|name| DestinationName::new(&name));
        name.map(Self)
            .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "there is no such destination"))
    }
}

/// The query of a reading.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(asked)| Self(asked)).map_err(|_| {
            let detail =
                "the query has a parameter that this route does not take, or a wrong value";
            Problem::new(StatusCode::BAD_REQUEST, detail)
        })
    }
}

/// The JSON body of a change.
pub(super) struct Change<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Change<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if kind.split(';').next().map(str::trim) != Some("application/json") {
            let detail = "a change needs a body with Content-Type: application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        let body = Bytes::from_request(request, state).await.map_err(|_| {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large, or it broke off")
        })?;
        serde_json::from_slice(&body).map(Self).map_err(|error| {
            // Its own words may quote what is personal.
            let detail = format!(
                "the body is not a JSON object that this route takes (line {}, column {})",
                error.line(),
                error.column()
            );
            Problem::new(StatusCode::BAD_REQUEST, detail)
        })
    }
}

fn audience_id(text: Option<&String>) -> Result<Option<AudienceId>, Problem> {
    let parse = |text: &String| {
        AudienceId::new(text)
            .ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, "an audience id is not empty"))
    };
    text.map(parse).transpose()
}
