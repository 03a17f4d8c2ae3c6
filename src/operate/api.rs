//! The operator's API over HTTP: `/api/v1/…` on the admin listener.
//!
//! # What always holds
//! * A change requires a JSON content type, so that no HTML form can make one.
//! * Every change is logged in one line with what was done to which destination and audience, but never
//!   to whom ([P8](crate::design::P8)).
//! * Errors are problem documents with a sentence that says what to do.

mod access;
mod destinations;
mod events;
mod guard;
mod history;
pub mod openapi;
mod parked;
mod part;
pub mod progress;
pub mod reconcile;
mod rejected;
mod reload;
pub mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::HttpBody;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use bytes::Bytes;
use http::request::Parts;
use http::{StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::openapi::{Routes, routes};
use super::explain::Configured;
use super::history::History;
use super::problem::Problem;
use crate::current::Current;
use crate::deliver;
use crate::json::{self, exact};
use crate::ledger::Operations;
use crate::membership::{AudienceId, DestinationName};
use crate::receive;

/// The largest body of a change: the largest event and some room.
const BODY_LIMIT_BYTES: usize = 2 << 20;
/// Timeout for receiving the body of a change.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Most items in one page of a list.
const MOST: u32 = 1000;
/// Most destinations named in the answer to a request for an unknown one.
const NAMES_SHOWN: usize = 20;

pub use reload::{Asked as AskedToReload, Reloads};

/// What the handlers share.
#[derive(Debug)]
pub struct Api {
    /// The ledger that carries out the operations.
    pub ledger: Arc<dyn Operations>,
    /// Counters of deliveries.
    pub delivered: Arc<deliver::Counters>,
    /// The configured destinations.
    pub destinations: Current<BTreeMap<DestinationName, Arc<Configured>>>,
    /// How long members that left are remembered: an older event may bring one back.
    pub tombstone_ttl: Duration,
    /// The ledger's directory: the keys of a snapshot are sorted there.
    pub scratch: PathBuf,
    /// Cancelled when the daemon begins to stop.
    pub stopping: CancellationToken,
    /// The last hour of each destination.
    pub history: Arc<History>,
    /// The progress of long work.
    pub courses: progress::Courses,
    /// Whose snapshot is compared and recorded.
    pub reconciling: reconcile::turn::Turn,
    /// Sends requests to reload the configuration.
    pub reloads: Reloads,
}

impl Api {
    /// The configuration of a destination, which must be configured for the requested operation.
    fn configured(&self, destination: &DestinationName) -> Result<Arc<Configured>, Problem> {
        self.destinations.get().get(destination).map(Arc::clone).ok_or_else(|| {
            let detail = format!(
                "destination {destination} is not configured: nothing can be delivered to it; put it \
                 back into the configuration, rename it (cohortd ledger rename) or drop it without \
                 --retract"
            );
            Problem::new(StatusCode::CONFLICT, detail)
        })
    }
}

/// The routes. All are in the OpenAPI document, and all in the document are routed.
pub(super) fn routes() -> Routes<Arc<Api>> {
    routes!(
        openapi::serve,
        access::show,
        history::show,
        destinations::list,
        destinations::audiences,
        destinations::member,
        progress::progress,
        destinations::resync,
        destinations::pause,
        destinations::resume,
        destinations::forget,
        destinations::drop_rows,
        guard::list,
        guard::release,
        guard::discard,
        events::explain,
        events::take,
        parked::list,
        parked::requeue,
        parked::discard,
        reconcile::list,
        reconcile::reconcile,
        reconcile::stop,
        rejected::list,
        rejected::one,
        rejected::replay,
        rejected::discard,
        reload::reload,
    )
}

/// Logs one line for each change.
macro_rules! audit {
    ($destination:expr, $what:literal $(, $field:ident = $value:expr)*) => {
        tracing::info!(
            audit = true, destination.name = %$destination $(, $field = $value)*,
            concat!("operator: ", $what)
        )
    };
}
pub(super) use audit;

/// The `{destination}` of a path: a destination that is configured or of which the ledger has rows.
struct Destination(DestinationName);

impl FromRequestParts<Arc<Api>> for Destination {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let path = Path::<BTreeMap<String, String>>::from_request_parts(parts, api).await;
        let asked = path.ok().and_then(|Path(path)| path.get("destination").cloned());
        let name = asked.as_ref().and_then(|asked| DestinationName::new(asked));
        if let Some(name) = name.as_ref().filter(|name| api.destinations.get().contains_key(name)) {
            return Ok(Self(name.clone()));
        }
        let mut known: Vec<String> =
            api.ledger.destinations().await?.into_iter().map(|of| of.name).collect();
        if let Some(name) = name.filter(|name| known.iter().any(|known| *known == name.as_str())) {
            return Ok(Self(name));
        }
        known.truncate(NAMES_SHOWN);
        // Text that cannot be a name is not echoed: it may be a person's key in the wrong place.
        let asked =
            asked.filter(|asked| can_be_named(asked)).unwrap_or_else(|| "of that name".into());
        let detail = format!("there is no destination {asked}; there are: {}", known.join(", "));
        Err(Problem::new(StatusCode::NOT_FOUND, detail))
    }
}

/// Whether a configuration could have a destination of this name.
fn can_be_named(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// The last segment of a path.
struct Last(String);

impl<S: Send + Sync> FromRequestParts<S> for Last {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let last = path.ok().and_then(|Path(mut path)| path.pop());
        let not_text = || Problem::new(StatusCode::NOT_FOUND, "the path is not UTF-8");
        last.map(|(_, value)| Self(value)).ok_or_else(not_text)
    }
}

/// The limit on items that was requested, else `default`.
fn limit(asked: Option<u32>, default: u32) -> Result<u32, Problem> {
    let limit = asked.unwrap_or(default);
    if (1..=MOST).contains(&limit) {
        return Ok(limit);
    }
    Err(Problem::new(StatusCode::BAD_REQUEST, format!("limit must be from 1 to {MOST}")))
}

/// The query of a request that reads.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(asked)| Self(asked)).map_err(|_| {
            let detail = "the query has an unknown parameter or an invalid value";
            Problem::new(StatusCode::BAD_REQUEST, detail)
        })
    }
}

/// A body of this size or larger, or of unknown size, must wait for its turn, because processing takes
/// many times its size ([P6](crate::design::P6)).
const LARGE_BODY_BYTES: u64 = 64 * 1024;
/// Permits for the large bodies that are read and processed at the same time.
static LARGE_BODIES: Semaphore = Semaphore::const_new(2);

/// A body declared as JSON, and its permit, which is held as long as this value.
struct JsonBytes(Bytes, Option<SemaphorePermit<'static>>);

impl<S: Send + Sync> FromRequest<S> for JsonBytes {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            let detail = "a change needs a body with Content-Type: application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        let (head, mut body) = request.into_parts();
        let is_large = body.size_hint().exact().is_none_or(|bytes| bytes >= LARGE_BODY_BYTES);
        // the semaphore is never closed
        let turn = if is_large { LARGE_BODIES.acquire().await.ok() } else { None };
        let whole = Limited::new(&mut body, BODY_LIMIT_BYTES).collect();
        match timeout(BODY_TIMEOUT, whole).await {
            Ok(Ok(whole)) => Ok(Self(whole.to_bytes(), turn)),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                receive::discard(head, &mut body).await;
                let detail = "the body may have at most 2 MiB";
                Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail))
            }
            Ok(Err(_)) => Err(Problem::new(StatusCode::BAD_REQUEST, "the body was cut off")),
            Err(_) => {
                let detail = "the body did not arrive in time";
                Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail))
            }
        }
    }
}

/// The body of a change, parsed.
pub(super) struct Change<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Change<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let JsonBytes(body, _turn) = JsonBytes::from_request(request, state).await?;
        understood(&body).map(Self)
    }
}

/// Like [`Change`], but numbers that cannot be represented exactly become texts.
pub(super) struct ExactChange<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for ExactChange<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let JsonBytes(body, _turn) = JsonBytes::from_request(request, state).await?;
        understood::<IgnoredAny>(&body)?;
        match exact::with_texts(&body) {
            Some(body) => understood(&body).map(Self),
            None => understood(&body).map(Self),
        }
    }
}

fn understood<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // Serde would accept an array for a struct, field by field in order.
    if body.trim_ascii_start().first() == Some(&b'[') {
        let detail = "the body is an array, and this route expects an object";
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    json::from_slice(body).map_err(|error| Problem::unreadable(&error))
}

/// The audience of a change, if it names one.
fn audience_id(text: Option<&String>) -> Result<Option<AudienceId>, Problem> {
    let parse = |text: &String| {
        let empty =
            || Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "an audience id must not be empty");
        AudienceId::new(text).ok_or_else(empty)
    };
    text.map(parse).transpose()
}
