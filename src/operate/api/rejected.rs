//! Events that could not be mapped: listed, replayed through the present mapping, or discarded.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use http::StatusCode;

use super::wire::{
    Done, Nothing, RejectedChange, RejectedInfo, RejectedPage, RejectedQuery, Replay, Replayed,
    StillRejected,
};
use super::{Api, Asked, Change, Destination, Last, Problem, audit, limit};
use crate::json::Json;
use crate::json::exact::Exact;
use crate::ledger::{Intake, OrderedDeletion, RejectedView, Unrecorded};
use crate::map::{Mappings, Outcome, Rejection};
use crate::membership::{DestinationName, MembershipDelta, Timestamp, UserId};
use crate::operate::access::Power;

/// Most events in one part of a replay.
const PAGE: u32 = 500;

/// Events that could not be mapped, with their reasons, the oldest first. Personal
#[utoipa::path(
    get,
    path = "/api/v1/destinations/{destination}/rejected",
    operation_id = "list_rejected",
    params(RejectedQuery),
    responses((status = 200, description = "One page", body = RejectedPage))
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(power): Extension<Power>,
    Destination(name): Destination,
    Asked(asked): Asked<RejectedQuery>,
) -> Result<Json<RejectedPage>, Problem> {
    let limit = limit(asked.limit, 100)?;
    let after = asked.after.unwrap_or(0);
    let (found, more) = match &asked.user_id {
        None => page(&api, &name, after, limit).await?,
        // Whoever has no name has rejected nothing.
        Some(user_id) => match UserId::new(user_id) {
            None => (Vec::new(), false),
            Some(user_id) => {
                let found = api.ledger.rejected_of(&name, &user_id, after, limit).await?;
                let more = match found.last() {
                    Some(last) => {
                        !api.ledger.rejected_of(&name, &user_id, last.id, 1).await?.is_empty()
                    }
                    None => false,
                };
                (found, more)
            }
        },
    };
    let rejected = found.into_iter().map(|view| RejectedInfo::of(view, power)).collect();
    Ok(Json(RejectedPage { rejected, more }))
}

/// The next events after `after`, and whether there are more: the ledger returns fewer events per page
/// if they are large.
async fn page(
    api: &Api,
    name: &DestinationName,
    after: i64,
    limit: u32,
) -> Result<(Vec<RejectedView>, bool), Problem> {
    let found = api.ledger.rejected(name, after, limit).await?;
    let Some(last) = found.last() else { return Ok((found, false)) };
    let more = !api.ledger.rejected(name, last.id, 1).await?.is_empty();
    Ok((found, more))
}

/// The event with this number.
async fn numbered(api: &Api, name: &DestinationName, id: i64) -> Result<RejectedView, Problem> {
    let found = api.ledger.rejected(name, id.saturating_sub(1), 1).await?;
    found.into_iter().find(|event| event.id == id).ok_or_else(|| {
        let detail = format!("there is no rejected event {id} of {name}");
        Problem::new(StatusCode::NOT_FOUND, detail)
    })
}

/// A rejected event, with its reason. Personal
#[utoipa::path(
    get,
    path = "/api/v1/destinations/{destination}/rejected/{id}",
    operation_id = "show_rejected",
    responses((status = 200, description = "The event", body = RejectedInfo))
)]
pub(super) async fn one(
    State(api): State<Arc<Api>>,
    Extension(power): Extension<Power>,
    Destination(name): Destination,
    Last(id): Last,
    Asked(Nothing {}): Asked<Nothing>,
) -> Result<Json<RejectedInfo>, Problem> {
    let not_a_number =
        |_| Problem::new(StatusCode::NOT_FOUND, "the id of a rejected event must be a number");
    let id = id.parse().map_err(not_a_number)?;
    Ok(Json(RejectedInfo::of(numbered(&api, &name, id).await?, power)))
}

/// Discards rejected events
#[utoipa::path(
    post,
    path = "/api/v1/destinations/{destination}/rejected/discard",
    operation_id = "discard_rejected",
    request_body = RejectedChange,
    responses((status = 200, description = "How many were discarded", body = Done))
)]
pub(super) async fn discard(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    Change(RejectedChange { id }): Change<RejectedChange>,
) -> Result<Json<Done>, Problem> {
    let count = match id {
        Some(id) => api.ledger.discard_rejected(&name, vec![id]).await?,
        None => discard_all(&api, &name).await?,
    };
    audit!(name, "rejected events discarded", count = count);
    Ok(Json(Done::of(count)))
}

async fn discard_all(api: &Api, name: &DestinationName) -> Result<u64, Problem> {
    let (mut after, mut count) = (0, 0);
    loop {
        let page = api.ledger.rejected(name, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(count) };
        after = last.id;
        let ids = page.iter().map(|event| event.id).collect();
        count += api.ledger.discard_rejected(name, ids).await?;
    }
}

/// Replays a part of the rejected events through the present mapping
#[utoipa::path(
    post,
    path = "/api/v1/destinations/{destination}/rejected/replay",
    operation_id = "replay_rejected",
    request_body = Replay,
    responses(
        (status = 200, description = "What became of them; `next_after` is where the next part \
                                      begins",
            body = Replayed),
        (status = 409, description = "The destination is not configured"),
    )
)]
pub(super) async fn replay(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    Change(what): Change<Replay>,
) -> Result<Json<Replayed>, Problem> {
    let configured = api.configured(&name)?;
    let after = what.after.unwrap_or(0);
    let (events, more) = match what.id {
        Some(id) => (vec![numbered(&api, &name, id).await?], false),
        None => page(&api, &name, after, PAGE).await?,
    };
    let next_after = events.last().filter(|_| more).map(|event| event.id);
    let part = events.len() as u64;
    let of = if more && what.after.is_none() { kept(&api, &name).await? } else { None };
    let oldest = (!what.force).then(|| api.ledger.arrival().before(api.tombstone_ttl));
    let plan = Plan::of(&configured.mappings, events, oldest);
    let mut answer = plan.carry_out(&api, &name).await?;
    answer.next_after = next_after;
    if what.id.is_none() {
        api.courses.replayed(&name, part, of, more, api.ledger.arrival());
    }
    let still_rejected = answer.rejected.len();
    audit!(
        name,
        "rejected events replayed",
        replayed = answer.replayed,
        ignored = answer.ignored,
        too_old = answer.too_old,
        still_rejected = still_rejected
    );
    Ok(Json(answer))
}

/// The number of rejected events kept.
async fn kept(api: &Api, name: &DestinationName) -> Result<Option<u64>, Problem> {
    let known = api.ledger.destinations().await?;
    Ok(known.iter().find(|of| of.name == name.as_str()).map(|of| of.rejected))
}

/// The results of mapping events anew.
#[derive(Default)]
struct Plan {
    deltas: Vec<MembershipDelta>,
    /// The number of the event behind each delta.
    origins: Vec<i64>,
    deletions: Vec<(i64, OrderedDeletion)>,
    /// Events that are recorded but kept all the same, as one of the mappings still rejects them.
    half_rejected: Vec<i64>,
    answer: Replayed,
}

impl Plan {
    fn of(mappings: &Mappings, events: Vec<RejectedView>, oldest: Option<Timestamp>) -> Self {
        let mut plan = Self::default();
        for RejectedView { id, received_at, body, .. } in events {
            let Ok(event) = Exact::read(&body) else {
                plan.reject(id, &Rejection::unreadable());
                continue;
            };
            // Mapped as of its first arrival: a replay does not make an event newer.
            match mappings.map(&event, received_at) {
                Outcome::Accepted { deltas, .. }
                    if oldest.is_some_and(|oldest| {
                        deltas.iter().any(|delta| delta.event_at < oldest)
                    }) =>
                {
                    plan.answer.too_old += 1;
                }
                Outcome::Accepted { deltas, rejection } => {
                    plan.origins.extend(deltas.iter().map(|_| id));
                    plan.deltas.extend(deltas);
                    if let Some(rejection) = rejection {
                        plan.half_rejected.push(id);
                        plan.reject(id, &rejection);
                    }
                }
                Outcome::Deletion(deletion) => {
                    let deletion = OrderedDeletion {
                        deletion,
                        is_unconditional: false,
                        after_deltas: plan.deltas.len(),
                        after_rejected: 0,
                    };
                    plan.deletions.push((id, deletion));
                }
                Outcome::Ignored => plan.answer.ignored += 1,
                Outcome::Rejected(rejection) => plan.reject(id, &rejection),
            }
        }
        plan
    }

    fn reject(&mut self, id: i64, rejection: &Rejection) {
        self.answer.rejected.push(StillRejected { id, reason: rejection.to_string() });
    }

    /// Records first and discards afterwards: a crash in between only leads to a repetition, which is
    /// idempotent.
    async fn carry_out(mut self, api: &Api, name: &DestinationName) -> Result<Replayed, Problem> {
        let intake = Intake {
            destination: name.clone(),
            arrival: api.ledger.arrival(),
            deltas: std::mem::take(&mut self.deltas),
            deletions: self.deletions.iter().map(|(_, deletion)| deletion.clone()).collect(),
            rejected: Vec::new(),
            origin: crate::ledger::Origin::Events,
        };
        if intake.deltas.is_empty() && intake.deletions.is_empty() {
            return Ok(self.answer);
        }
        let recorded = api.ledger.record(intake).await?;
        let unrecorded = recorded.unrecorded();
        let is_recorded = |at: &usize| unrecorded.binary_search_by_key(at, |(at, _)| *at).is_err();
        let taken = self.origins.iter().enumerate();
        let taken = taken.filter(|(at, _)| is_recorded(at)).map(|(_, id)| *id);
        let mut done: Vec<i64> = taken.chain(self.deletions.iter().map(|(id, _)| *id)).collect();
        done.sort_unstable();
        done.dedup();
        let mut refused: Vec<(i64, Unrecorded)> =
            unrecorded.iter().map(|(at, why)| (self.origins[*at], *why)).collect();
        refused.retain(|(id, _)| done.binary_search(id).is_err());
        refused.dedup_by_key(|(id, _)| *id);
        for (id, why) in refused {
            self.reject(id, &why.into());
        }
        done.retain(|id| !self.half_rejected.contains(id));
        self.answer.replayed = done.len() as u64;
        api.ledger.discard_rejected(name, done).await?;
        Ok(self.answer)
    }
}
