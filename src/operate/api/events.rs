//! A single event, given by an operator: explained, or taken as if Segment had posted it.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;

use super::wire::{EventAccount, RejectedOf};
use super::{Api, Destination, JsonBytes, Problem, audit};
use crate::json::Json;
use crate::json::exact::Exact;
use crate::membership::AudienceId;
use crate::operate::explain::{self, Report};
use crate::receive::{HandInError, HandedIn, hand_in, too_large};

const ONE_EVENT: &str = "the body is not one event (a JSON object)";

/// What would happen to an event and why; nothing is recorded or delivered
#[utoipa::path(
    post,
    path = "/api/v1/destinations/{destination}/explain",
    operation_id = "explain",
    request_body = Object,
    responses(
        (status = 200, description = "What would happen", body = Report),
        (status = 409, description = "The destination is not configured"),
        (status = 413, description = "The event is too large, or holds too many values"),
    )
)]
pub(super) async fn explain(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    JsonBytes(body, _turn): JsonBytes,
) -> Result<Json<Report>, Problem> {
    let destination = api.configured(&name)?;
    if let Some(rejection) = too_large(&body) {
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, rejection.to_string()));
    }
    match Exact::read(&body) {
        Ok(event) if event.value().is_object() => {
            let arrival = api.ledger.arrival();
            Ok(Json(explain::report(&name, &destination, &event, arrival)))
        }
        Ok(_) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, ONE_EVENT)),
        Err(error) => Err(Problem::unreadable(&error)),
    }
}

/// Takes an event as if Segment had posted it: the same mapping, the same ledger, the same answer
#[utoipa::path(
    post,
    path = "/api/v1/destinations/{destination}/events",
    operation_id = "take_event",
    request_body = Object,
    responses(
        (status = 200, description = "What became of it; a rejected event is kept with its reason",
            body = EventAccount),
        (status = 409, description = "The destination is not configured, or disabled"),
    )
)]
pub(super) async fn take(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    JsonBytes(body, _turn): JsonBytes,
) -> Result<Json<EventAccount>, Problem> {
    let destination = api.configured(&name)?;
    if !destination.enabled {
        let detail =
            format!("destination {name} is disabled (enabled = false): it accepts no events");
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    }
    let taken = hand_in(&*api.ledger, &name, &destination.mappings, &body).await;
    let HandedIn { accepted, ignored, rejected, audiences } =
        taken.map_err(|error| match error {
            HandInError::NotJson => {
                Problem::new(StatusCode::BAD_REQUEST, "the body is not JSON, or was cut off")
            }
            HandInError::NotOneEvent => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, ONE_EVENT),
            HandInError::Ledger(error) => error.into(),
        })?;
    let shown = audiences.iter().map(AudienceId::as_str).collect::<Vec<_>>().join(" ");
    audit!(
        name,
        "event recorded",
        audience = shown,
        accepted = accepted,
        ignored = ignored,
        rejected = rejected.is_some()
    );
    let rejected = rejected.map(|reason| RejectedOf { index: 0, reason });
    Ok(Json(EventAccount { accepted, ignored, rejected: rejected.into_iter().collect() }))
}
