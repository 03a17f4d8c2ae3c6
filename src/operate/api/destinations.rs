//! Destinations and audiences: what is there, and what is done to all of it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;

use super::wire::{AudienceInfo, DestinationInfo, Done, Drop, Forget, MemberInfo, Nothing, Resync};
use super::{Api, Asked, Change, Destination, Problem, audience_id, audit};
use crate::membership::{AudienceId, AudienceKey, DestinationName, UserId};

type Answer<T> = Result<Json<T>, Problem>;

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Answer<Vec<DestinationInfo>> {
    let found = api.ledger.destinations().await?;
    Ok(Json(found.into_iter().map(DestinationInfo::from).collect()))
}

pub(super) async fn audiences(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
) -> Answer<Vec<AudienceInfo>> {
    let found = api.ledger.audiences(&name).await?;
    Ok(Json(found.into_iter().map(AudienceInfo::from).collect()))
}

pub(super) async fn member(
    State(api): State<Arc<Api>>,
    Path((name, key)): Path<(String, String)>,
) -> Answer<Vec<MemberInfo>> {
    let name = DestinationName::new(&name);
    let name = name.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no such destination"))?;
    let found = api.ledger.member(&name, &key).await?;
    Ok(Json(found.into_iter().map(MemberInfo::from).collect()))
}

pub(super) async fn pause(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    Change(Nothing {}): Change<Nothing>,
) -> Answer<Done> {
    api.ledger.pause(&name, true).await?;
    audit!(name, "delivery paused");
    Ok(Json(Done::of(1)))
}

pub(super) async fn resume(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    Change(Nothing {}): Change<Nothing>,
) -> Answer<Done> {
    api.ledger.pause(&name, false).await?;
    audit!(name, "delivery resumed");
    Ok(Json(Done::of(1)))
}

pub(super) async fn forget(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    Change(Forget { user_id }): Change<Forget>,
) -> Answer<Done> {
    let user_id = UserId::new(&user_id)
        .ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, "user_id must not be empty"))?;
    api.configured(&name)?;
    api.ledger.forget(&name, user_id).await?;
    audit!(name, "a person is forgotten");
    Ok(Json(Done::of(1)))
}

pub(super) async fn drop_rows(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    Change(Drop { audience, retract }): Change<Drop>,
) -> Answer<Done> {
    let audience = audience_id(audience.as_ref())?;
    let shown = audience.as_ref().map(AudienceId::as_str);
    let count = if retract {
        api.configured(&name)?;
        let count = api.ledger.retract(&name, audience.as_ref()).await?;
        audit!(name, "members are retracted and dropped", audience = shown);
        count
    } else {
        let count = api.ledger.erase(&name, audience.as_ref()).await?;
        audit!(name, "rows are dropped", audience = shown);
        count
    };
    Ok(Json(Done::of(count)))
}

pub(super) async fn resync(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    Change(what): Change<Resync>,
) -> Answer<Done> {
    let audience = audience_id(what.audience.as_ref())?;
    let shown = audience.as_ref().map(AudienceId::as_str);
    if what.retract_stale {
        return retract_stale(&api, &name, audience.as_ref(), what.force).await.map(Json);
    }
    api.configured(&name)?;
    let count = if what.stop {
        let count = api.ledger.stop_resync(&name, audience.as_ref()).await?;
        audit!(name, "resync stopped", audience = shown);
        count
    } else {
        let count = api.ledger.resync(&name, audience.as_ref()).await?;
        audit!(name, "resync started", audience = shown);
        count
    };
    Ok(Json(Done::of(count)))
}

/// Where nobody is under the present mapping yet, everybody would be stale: Segment has not sent the
/// audience since the mapping was changed.
async fn retract_stale(
    api: &Api,
    name: &DestinationName,
    only: Option<&AudienceId>,
    force: bool,
) -> Result<Done, Problem> {
    let mappings = api.configured(name)?;
    let known = api.ledger.audiences(name).await?;
    let mut done = Done::of(0);
    let mut found = false;
    for view in known {
        let ids = (AudienceId::new(&view.audience), AudienceKey::new(&view.audience_key));
        let (Some(audience), Some(key)) = ids else { continue };
        if only.is_some_and(|only| *only != audience) {
            continue;
        }
        found = true;
        let current = mappings.key_rules(&key);
        if !force && !api.ledger.any_under_rules(name, &audience, &current).await? {
            done.left_alone.push(format!(
                "{}: no member has come under the present mapping yet, so that all of them would go; \
                 start a full sync of the audience in Segment first, or use --force",
                view.audience
            ));
            continue;
        }
        api.ledger.retract_stale(name, &audience, current).await?;
        audit!(name, "stale members are retracted", audience = view.audience);
        done.count += 1;
    }
    match only {
        Some(only) if !found => {
            let detail = format!("there is no audience {}", only.as_str());
            Err(Problem::new(StatusCode::NOT_FOUND, detail))
        }
        _ => Ok(done),
    }
}
