//! Members that LaunchDarkly refused: listed, requeued, or discarded.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;

use super::wire::{Done, ParkedChange, ParkedInfo, ParkedPage, ParkedQuery};
use super::{
    Api, Asked, Change, Destination, MOST, NAMES_SHOWN, Problem, audience_id, audit, limit,
};
use crate::json::Json;
use crate::ledger::{Members, ParkedAfter, ParkedView};
use crate::membership::{AudienceId, ContextKey, DestinationName};

/// Members that LaunchDarkly refused, with its messages. Personal
#[utoipa::path(
    get,
    path = "/api/v1/destinations/{destination}/parked",
    operation_id = "list_parked",
    params(ParkedQuery),
    responses((status = 200, description = "One page", body = ParkedPage))
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    Asked(asked): Asked<ParkedQuery>,
) -> Result<Json<ParkedPage>, Problem> {
    let limit = limit(asked.limit, 100)?;
    let audience = match &asked.audience {
        None => None,
        // No audience has an empty ID.
        Some(id) => match AudienceId::new(id) {
            None => return Err(unknown(&api, &name, id).await?),
            audience => audience,
        },
    };
    let after = ParkedAfter {
        audience: asked.after_audience.unwrap_or_default(),
        context_key: asked.after_key.unwrap_or_default(),
    };
    let found = api.ledger.parked(&name, audience.as_ref(), &after, limit).await?;
    if found.is_empty() {
        must_be_known(&api, &name, audience.as_ref()).await?;
    }
    let more = found.len() == limit as usize;
    Ok(Json(ParkedPage { parked: found.into_iter().map(ParkedInfo::from).collect(), more }))
}

/// Tries parked members again, each alone
#[utoipa::path(
    post,
    path = "/api/v1/destinations/{destination}/parked/requeue",
    operation_id = "requeue_parked",
    request_body = ParkedChange,
    responses(
        (status = 200, description = "How many members were affected", body = Done),
        (status = 409, description = "The destination is not configured"),
    )
)]
pub(super) async fn requeue(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    Change(which): Change<ParkedChange>,
) -> Result<Json<Done>, Problem> {
    change(&api, &name, which, Deed::Requeue).await
}

/// Forgets parked members until they change
#[utoipa::path(
    post,
    path = "/api/v1/destinations/{destination}/parked/discard",
    operation_id = "discard_parked",
    request_body = ParkedChange,
    responses(
        (status = 200, description = "How many members were affected", body = Done),
        (status = 409, description = "The destination is not configured"),
    )
)]
pub(super) async fn discard(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    Change(which): Change<ParkedChange>,
) -> Result<Json<Done>, Problem> {
    change(&api, &name, which, Deed::Discard).await
}

async fn change(
    api: &Api,
    name: &DestinationName,
    which: ParkedChange,
    deed: Deed,
) -> Result<Json<Done>, Problem> {
    api.configured(name)?;
    let shown = which.audience.clone();
    let audience = audience_id(which.audience.as_ref())?;
    let count = each(api, name, (audience.as_ref(), which.context_key), deed).await?;
    if count == 0 {
        must_be_known(api, name, audience.as_ref()).await?;
    }
    match deed {
        Deed::Requeue => {
            audit!(name, "parked members requeued", audience = shown, count = count);
        }
        Deed::Discard => {
            audit!(name, "parked members discarded", audience = shown, count = count);
        }
    }
    Ok(Json(Done::of(count)))
}

#[derive(Clone, Copy)]
enum Deed {
    Requeue,
    Discard,
}

impl Deed {
    async fn on(self, api: &Api, members: Members) -> Result<u64, Problem> {
        Ok(match self {
            Self::Requeue => api.ledger.requeue(members).await?,
            Self::Discard => api.ledger.discard_parked(members).await?,
        })
    }
}

/// Carries out `deed` on the parked members that `which` selects, page by page; returns how many were
/// concerned.
async fn each(
    api: &Api,
    name: &DestinationName,
    (audience, context_key): (Option<&AudienceId>, Option<String>),
    deed: Deed,
) -> Result<u64, Problem> {
    if let Some(key) = context_key {
        let both = audience.cloned().zip(ContextKey::new(&key)).ok_or_else(|| {
            let detail = "a context key must not be empty, and needs its audience beside it";
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
        })?;
        let (audience, context_keys) = (both.0, vec![both.1]);
        return deed.on(api, Members { destination: name.clone(), audience, context_keys }).await;
    }
    let (mut after, mut count) = (ParkedAfter::default(), 0);
    loop {
        let page = api.ledger.parked(name, audience, &after, MOST).await?;
        let Some(last) = page.last() else { return Ok(count) };
        after =
            ParkedAfter { audience: last.audience.clone(), context_key: last.context_key.clone() };
        for of_one in page.chunk_by(|one, next| one.audience == next.audience) {
            if let Some(members) = members(name, of_one) {
                count += deed.on(api, members).await?;
            }
        }
    }
}

/// Nobody is parked in an audience that is not there, which is not what was asked.
async fn must_be_known(
    api: &Api,
    name: &DestinationName,
    audience: Option<&AudienceId>,
) -> Result<(), Problem> {
    let Some(audience) = audience.map(AudienceId::as_str) else { return Ok(()) };
    if api.ledger.audiences(name).await?.iter().any(|known| known.audience == audience) {
        return Ok(());
    }
    Err(unknown(api, name, audience).await?)
}

async fn unknown(api: &Api, name: &DestinationName, audience: &str) -> Result<Problem, Problem> {
    let known = api.ledger.audiences(name).await?;
    let ids: Vec<&str> =
        known.iter().take(NAMES_SHOWN).map(|known| known.audience.as_str()).collect();
    let rest = match known.len() - ids.len() {
        0 => String::new(),
        rest => format!(" and {rest} more: `cohortd audiences {name}` lists them"),
    };
    let there = if ids.is_empty() { "none".to_owned() } else { ids.join(", ") };
    let detail = format!("there is no audience {audience:?} in {name}; there are: {there}{rest}");
    Ok(Problem::new(StatusCode::NOT_FOUND, detail))
}

fn members(name: &DestinationName, of_one: &[ParkedView]) -> Option<Members> {
    Some(Members {
        destination: name.clone(),
        audience: AudienceId::new(&of_one.first()?.audience)?,
        context_keys: of_one.iter().filter_map(|view| ContextKey::new(&view.context_key)).collect(),
    })
}
