//! Destinations and audiences: lists, and operations on a whole destination or audience.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use http::StatusCode;
use serde_json::Value;

use super::part::{Part, part};
use super::reconcile::waiting::is_of;
use super::wire::{
    AudienceInfo, DestinationInfo, Done, Drop, FailingInfo, Forget, ListQuery, MemberInfo,
    MemberQuery, Nothing, Resync, instant,
};
use super::{Api, Asked, Change, Destination, Last, MOST, Problem, audience_id, audit, limit};
use crate::json::{self, Json};
use crate::ledger::{AudienceView, LedgerError, MemberView, ReplicaView};
use crate::membership::{AudienceId, AudienceKey, DestinationName, UserId};

type Answer<T> = Result<Json<T>, Problem>;

fn behind(last: &str, limit: u32) -> Vec<(&'static str, String)> {
    vec![("after", last.to_owned()), ("limit", limit.to_string())]
}

/// How long after its event time an entry of an audience expires, as configured.
fn expires_after(api: &Api, name: &DestinationName, audience_key: &str) -> Option<Duration> {
    let configured = Arc::clone(api.destinations.get().get(name)?);
    configured.expires_after.get(&AudienceKey::new(audience_key)?).copied()
}

/// The destinations, in the order of their names
#[utoipa::path(
    get,
    path = "/api/v1/destinations",
    operation_id = "list_destinations",
    params(ListQuery),
    responses((status = 200, description = "One page; `Link` names the next one",
        body = Vec<DestinationInfo>))
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Asked(asked): Asked<ListQuery>,
) -> Result<Part<DestinationInfo>, Problem> {
    let found = api.ledger.destinations().await?.into_iter().map(DestinationInfo::from).collect();
    let query = |last: &DestinationInfo, limit| behind(&last.name, limit);
    let name = |of: &DestinationInfo| of.name.clone();
    Ok(part(found, name, asked.after.as_ref(), limit(asked.limit, MOST)?, query))
}

/// The audiences of a destination that have members, in the order of their ids
#[utoipa::path(
    get,
    path = "/api/v1/destinations/{destination}/audiences",
    operation_id = "list_audiences",
    params(ListQuery),
    responses((status = 200, description = "One page; `Link` names the next one",
        body = Vec<AudienceInfo>))
)]
pub(super) async fn audiences(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    Asked(asked): Asked<ListQuery>,
) -> Result<Part<AudienceInfo>, Problem> {
    let failing = api.delivered.of(&name).failing_audiences();
    let mut failing: HashMap<&str, _> =
        failing.iter().map(|of| (of.audience.as_str(), FailingInfo::from(of))).collect();
    let held: HashMap<String, _> =
        api.ledger.held_audiences(&name).into_iter().map(|of| (of.audience, of.since)).collect();
    let info = |view: AudienceView| {
        let failing = failing.remove(view.audience.as_str());
        let expires_after_s = expires_after(&api, &name, &view.audience_key).map(|of| of.as_secs());
        let held_since = held.get(&view.audience).copied().map(instant);
        AudienceInfo { expires_after_s, failing, held_since, ..view.into() }
    };
    let found = api.ledger.audiences(&name).await?.into_iter().map(info).collect();
    let query = |last: &AudienceInfo, limit| behind(&last.audience, limit);
    let id = |of: &AudienceInfo| of.audience.clone();
    Ok(part(found, id, asked.after.as_ref(), limit(asked.limit, MOST)?, query))
}

/// Every audience of a person, by context key or by Segment's user id. Personal
#[utoipa::path(
    get,
    path = "/api/v1/destinations/{destination}/members/{key}",
    operation_id = "show_member",
    params(MemberQuery),
    responses((status = 200, description = "One page; `Link` names the next one; empty if nobody \
                                            is known by this key",
        body = Vec<MemberInfo>))
)]
pub(super) async fn member(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    Last(key): Last,
    Asked(asked): Asked<MemberQuery>,
) -> Result<Part<MemberInfo>, Problem> {
    let info = |view: MemberView| {
        let entered = view.included || view.expired;
        let after = expires_after(&api, &name, &view.audience_key).filter(|_| entered);
        let expires_at = after.map(|after| instant(view.event_at.after(after)));
        MemberInfo { expires_at, ..view.into() }
    };
    let found = api.ledger.member(&name, &key).await?.into_iter().map(info).collect();
    let query = |last: &MemberInfo, limit: u32| {
        let (audience, key) = (last.audience.clone(), last.context_key.clone());
        vec![("after_audience", audience), ("after_key", key), ("limit", limit.to_string())]
    };
    let place = |of: &MemberInfo| (of.audience.clone(), of.context_key.clone());
    let after = asked.after_audience.map(|of| (of, asked.after_key.unwrap_or_default()));
    Ok(part(found, place, after.as_ref(), limit(asked.limit, MOST)?, query))
}

/// Stops the delivery of a destination; events are accepted and kept
#[utoipa::path(
    post,
    path = "/api/v1/destinations/{destination}/pause",
    operation_id = "pause",
    request_body = Nothing,
    responses(
        (status = 200, description = "Delivery is paused", body = Done),
        (status = 409, description = "The destination is not configured"),
    )
)]
pub(super) async fn pause(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    Change(Nothing {}): Change<Nothing>,
) -> Answer<Done> {
    api.configured(&name)?;
    api.ledger.pause(&name, true).await?;
    audit!(name, "delivery paused");
    Ok(Json(Done::of(1)))
}

/// Resumes the delivery of a destination
#[utoipa::path(
    post,
    path = "/api/v1/destinations/{destination}/resume",
    operation_id = "resume",
    request_body = Nothing,
    responses(
        (status = 200, description = "Delivery is resumed", body = Done),
        (status = 409, description = "The destination is not configured"),
    )
)]
pub(super) async fn resume(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    Change(Nothing {}): Change<Nothing>,
) -> Answer<Done> {
    api.configured(&name)?;
    api.ledger.pause(&name, false).await?;
    audit!(name, "delivery resumed");
    Ok(Json(Done::of(1)))
}

/// Removes a person from every audience, then erases what is known of them
#[utoipa::path(
    post,
    path = "/api/v1/destinations/{destination}/forget",
    operation_id = "forget",
    request_body = Forget,
    responses(
        (status = 200, description = "The deletion is recorded and delivered next; in how many \
                                      audiences the person was known", body = Done),
        (status = 409, description = "The destination is not configured"),
    )
)]
pub(super) async fn forget(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    Change(Forget { user_id }): Change<Forget>,
) -> Answer<Done> {
    let user_id = UserId::new(&user_id).ok_or_else(|| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "user_id must not be empty")
    })?;
    api.configured(&name)?;
    let known = api.ledger.member(&name, user_id.as_str()).await?;
    api.ledger.forget(&name, user_id).await?;
    let known: BTreeSet<String> = known.into_iter().map(|of| of.audience).collect();
    audit!(name, "deletion of a person recorded", audiences = known.len());
    Ok(Json(Done::of(known.len() as u64)))
}

/// A replica that was silent for longer may be gone.
const HEARD_WITHIN: Duration = Duration::from_secs(15);

/// Another replica that has a destination configured, if one does: it goes by what each says of itself.
fn configured_at<'a>(replicas: &'a [ReplicaView], name: &DestinationName) -> Option<&'a str> {
    let mut others = replicas.iter().filter(|of| !of.is_here && of.silent_for < HEARD_WITHIN);
    let has_it = |of: &&ReplicaView| {
        let said: Option<Value> = of.said.as_deref().and_then(|said| json::from_str(said).ok());
        said.is_some_and(|said| said["destinations"].get(name.as_str()).is_some())
    };
    others.find(has_it).map(|of| of.name.as_str())
}

/// Forgets an audience or a whole destination
#[utoipa::path(
    post,
    path = "/api/v1/destinations/{destination}/drop",
    operation_id = "drop",
    request_body = Drop,
    responses(
        (status = 200, description = "How many audiences or destinations are affected", body = Done),
        (status = 409, description = "The destination is not configured, so its members cannot be \
                                      retracted; or another replica has it configured. With \
                                      `Retry-After`: a snapshot is being applied"),
    )
)]
pub(super) async fn drop_rows(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    Change(Drop { audience, retract }): Change<Drop>,
) -> Answer<Done> {
    let audience = audience_id(audience.as_ref())?;
    let shown = audience.as_ref().map(AudienceId::as_str);
    // Nobody records anything for a destination that is not configured.
    let is_used = api.configured(&name).is_ok();
    let is_taken = api.reconciling.is_taken(&name, shown)
        || is_used && api.ledger.reconciliations().await?.iter().any(|of| is_of(of, &name, shown));
    if is_taken {
        let detail = "a reconcile is under way: whoever its file says is in would come back; end it first, with \
                      Ctrl-C where it runs or POST …/reconcile/stop, or wait until it is done";
        return Err(Problem::not_yet(detail));
    }
    let count = if retract {
        api.configured(&name)?;
        let count = api.ledger.retract(&name, audience.as_ref()).await?;
        audit!(name, "retraction and drop started", audience = shown);
        count
    } else {
        if api.configured(&name).is_err()
            && let Some(replicas) = api.ledger.replicas().await?
            && let Some(replica) = configured_at(&replicas, &name)
        {
            let detail = format!(
                "the replica {replica} has this destination configured and uses it: give all replicas the same \
                 configuration first"
            );
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
        let count = api.ledger.erase(&name, audience.as_ref()).await?;
        audit!(name, "rows dropped", audience = shown);
        count
    };
    Ok(Json(Done::of(count)))
}

/// Delivers every member again, stops doing so, or removes members that came by an older mapping
#[utoipa::path(
    post,
    path = "/api/v1/destinations/{destination}/resync",
    operation_id = "resync",
    request_body = Resync,
    responses(
        (status = 200, description = "How many audiences are affected", body = Done),
        (status = 409, description = "The destination is not configured. With `Retry-After`: members are being retracted"),
    )
)]
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

/// Retracts members that came by an older mapping. Without `force`, audiences without any member under
/// the present mapping are left alone: Segment has not sent them since the mapping was changed, so all
/// members would be retracted.
async fn retract_stale(
    api: &Api,
    name: &DestinationName,
    only: Option<&AudienceId>,
    force: bool,
) -> Result<Done, Problem> {
    let mappings = &api.configured(name)?.mappings;
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
                "{}: no member has arrived under the present mapping yet, so all of them would be \
                 removed; start a full sync of the audience in Segment first, or use --force",
                view.audience
            ));
            continue;
        }
        api.ledger.retract_stale(name, &audience, current).await?;
        audit!(name, "retraction of stale members started", audience = view.audience);
        done.count += 1;
    }
    match only {
        Some(only) if !found => Err(LedgerError::UnknownAudience(only.clone()).into()),
        _ => Ok(done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::Timestamp;

    #[test]
    fn a_destination_is_configured_at_another_replica_that_says_so_and_is_heard_of() {
        let name = DestinationName::new("eu").expect("it is good");
        for (is_here, silent_s, said, expected) in [
            (false, 1, r#"{"destinations": {"eu": {"state": "ok"}}}"#, true),
            (false, 14, r#"{"destinations": {"us": {}, "eu": {}}}"#, true),
            (false, 16, r#"{"destinations": {"eu": {}}}"#, false),
            (true, 0, r#"{"destinations": {"eu": {}}}"#, false),
            (false, 1, r#"{"destinations": {"us": {}}}"#, false),
            (false, 1, "{}", false),
        ] {
            let replica = ReplicaView {
                name: "other".to_owned(),
                is_here,
                version: "1".to_owned(),
                configuration: "c".to_owned(),
                started_at: Timestamp(0),
                silent_for: Duration::from_secs(silent_s),
                delivers: Vec::new(),
                said: Some(said.to_owned()),
            };
            let all = [replica];
            assert_eq!(configured_at(&all, &name).is_some(), expected, "{said} after {silent_s} s");
        }
    }
}
