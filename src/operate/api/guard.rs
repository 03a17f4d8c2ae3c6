//! Audiences that their guards hold: which, and what is to become of them.

use std::sync::Arc;

use axum::extract::State;

use super::part::{Part, part};
use super::wire::{Done, GuardInfo, Held, ListQuery};
use super::{Api, Asked, Change, Destination, MOST, Problem, audience_id, audit, limit};
use crate::json::Json;
use crate::membership::AudienceId;

/// The audiences of a destination that the guard holds, in the order of their ids
#[utoipa::path(
    get,
    path = "/api/v1/destinations/{destination}/guard",
    operation_id = "list_held",
    params(ListQuery),
    responses((status = 200, description = "One page; `Link` names the next one",
        body = Vec<GuardInfo>))
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    Asked(asked): Asked<ListQuery>,
) -> Result<Part<GuardInfo>, Problem> {
    let found = api.ledger.held_audiences(&name).into_iter().map(GuardInfo::from).collect();
    let query = |last: &GuardInfo, limit: u32| {
        vec![("after", last.audience.clone()), ("limit", limit.to_string())]
    };
    let id = |of: &GuardInfo| of.audience.clone();
    Ok(part(found, id, asked.after.as_ref(), limit(asked.limit, MOST)?, query))
}

/// Tells LaunchDarkly what has happened to audiences that the guard holds
#[utoipa::path(
    post,
    path = "/api/v1/destinations/{destination}/guard/release",
    operation_id = "release_held",
    request_body = Held,
    responses(
        (status = 200, description = "How many audiences are held no longer", body = Done),
        (status = 409, description = "The destination is not configured. With `Retry-After`: members are being retracted"),
    )
)]
pub(super) async fn release(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    Change(Held { audience }): Change<Held>,
) -> Result<Json<Done>, Problem> {
    api.configured(&name)?;
    let audience = audience_id(audience.as_ref())?;
    let count = api.ledger.release_held(&name, audience.as_ref()).await?;
    if count > 0 {
        audit!(name, "guard released", audience = audience.as_ref().map(AudienceId::as_str));
    }
    Ok(Json(Done::of(count)))
}

/// Enters the members again that left audiences which the guard holds
#[utoipa::path(
    post,
    path = "/api/v1/destinations/{destination}/guard/discard",
    operation_id = "discard_held",
    request_body = Held,
    responses(
        (status = 200, description = "In how many audiences members are entered again", body = Done),
        (status = 409, description = "The destination is not configured. With `Retry-After`: members are being retracted"),
    )
)]
pub(super) async fn discard(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    Change(Held { audience }): Change<Held>,
) -> Result<Json<Done>, Problem> {
    api.configured(&name)?;
    let audience = audience_id(audience.as_ref())?;
    let count = api.ledger.discard_held(&name, audience.as_ref()).await?;
    if count > 0 {
        audit!(name, "exits discarded", audience = audience.as_ref().map(AudienceId::as_str));
    }
    Ok(Json(Done::of(count)))
}
