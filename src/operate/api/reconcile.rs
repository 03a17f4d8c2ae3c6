//! `POST …/reconcile`: brings an audience to what a snapshot says (`operate::reconcile`).
//!
//! Within the request the snapshot is read, compared, and refused, or what it changes is written into the ledger. From
//! then on it goes on by itself ([`applying`]), and the request only waits for its end. Until then it ends with the
//! request: if the body does not arrive or the daemon stops. `POST …/reconcile/stop` ends it at any time; the same request
//! again does what is left. A sender that goes away once all is sent does not end it: how would one tell it from one that
//! waits?

pub mod applying;
mod beside;
mod plan;
mod reading;
mod recording;
mod staging;
mod target;
pub mod turn;
pub(super) mod waiting;
mod walk;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use http::{StatusCode, header};
use http_body_util::BodyExt;
use tokio::time::timeout;

use self::plan::Plan;
use self::target::Target;
use super::wire::{
    Done, Nothing, Reconcile, ReconcileInfo, ReconcileList, ReconcileStage, ReconcileStop,
    Reconciled, instant,
};
use super::{Api, Asked, Change, Destination, Problem};
use crate::json::Json;
use crate::ledger::{ReconciliationView, Stage};
use crate::membership::DestinationName;
use crate::receive::Peer;

/// Exits that need no confirmation, in percent of the members.
const MAX_EXITS_PERCENT: u8 = 20;
/// Makes a snapshot the truth of an audience at its time. Personal
#[utoipa::path(
    post,
    path = "/api/v1/destinations/{destination}/reconcile",
    operation_id = "reconcile",
    params(Reconcile),
    request_body(content = String, content_type = "application/octet-stream",
        description = "CSV, JSON lines, or one context key a line"),
    responses(
        (status = 200, description = "It is recorded, or would be, and is delivered next", body = Reconciled),
        (status = 400, description = "The query has an unknown parameter, an invalid value, or lacks one; or \
                                      the body was cut off"),
        (status = 409, description = "It looks like a mistake and `yes` is not set, it was stopped, or the audience \
                                      cannot take it. With `Retry-After`: another one is under way, or members are being \
                                      retracted"),
        (status = 503, description = "The daemon stops, or the ledger cannot write; the problem says whether it goes \
                                      on by itself"),
        (status = 415, description = "The Content-Type of the body is not application/octet-stream"),
        (status = 422, description = "The snapshot cannot be read; the problem says where"),
    )
)]
pub(super) async fn reconcile(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    Asked(asked): Asked<Reconcile>,
    peer: Option<Extension<Peer>>,
    request: Request,
) -> Result<Json<Reconciled>, Problem> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/octet-stream")) {
        let detail = "a snapshot needs Content-Type: application/octet-stream";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let mut body = request.into_body();
    let from = peer.map(|Extension(Peer(address))| address);
    match begun(&api, name, &asked, from, &mut body).await {
        Ok(Begun { id: None, answer, .. }) => Ok(Json(answer)),
        Ok(Begun { id: Some(id), mut answer, destination }) => {
            api.reconciling.work.notify_one();
            tokio::select! {
                ended = waiting::complete(&api, id) => ended?,
                () = api.stopping.cancelled() => return Err(waiting::goes_on()),
            }
            answer.held = is_held(&api, &destination, &answer.audience);
            Ok(Json(answer))
        }
        Err(problem) => {
            // Read to its end, so that its sender sees the answer; a daemon that stops has no time for that.
            let all = async {
                while let Ok(Some(Ok(_))) = timeout(reading::PIECE_TIMEOUT, body.frame()).await {}
            };
            let _ = api.stopping.run_until_cancelled(all).await;
            Err(problem)
        }
    }
}

/// Stops a reconciliation that is under way; what was recorded stays
#[utoipa::path(
    post,
    path = "/api/v1/destinations/{destination}/reconcile/stop",
    operation_id = "stop_reconcile",
    request_body = ReconcileStop,
    responses((status = 200, description = "Whether there was one", body = Done))
)]
pub(super) async fn stop(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    Change(what): Change<ReconcileStop>,
) -> Result<Json<Done>, Problem> {
    let was_there = waiting::stop(&api, &name, &what.audience).await?;
    Ok(Json(Done::of(u64::from(was_there))))
}

/// The reconciliations that are under way, and those that ended within the last minute
#[utoipa::path(
    get,
    path = "/api/v1/destinations/{destination}/reconcile",
    operation_id = "reconciliations",
    responses((status = 200, description = "In the order in which they began", body = ReconcileList))
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    Asked(Nothing {}): Asked<Nothing>,
) -> Result<Json<ReconcileList>, Problem> {
    let all = api.ledger.reconciliations().await?;
    let items = all.iter().filter(|of| of.destination == name).map(info).collect();
    Ok(Json(ReconcileList { items }))
}

/// What is under way in the ledger, or has its answer.
struct Begun {
    /// Its number in the ledger; `None`: it is a dry run.
    id: Option<i64>,
    destination: DestinationName,
    answer: Reconciled,
}

fn info(of: &ReconciliationView) -> ReconcileInfo {
    ReconcileInfo {
        audience: of.audience.as_str().to_owned(),
        stage: match of.stage {
            Stage::Staging => ReconcileStage::Comparing,
            Stage::Staged => ReconcileStage::Recording,
            Stage::Stopping => ReconcileStage::Stopping,
            Stage::Complete => ReconcileStage::Complete,
            Stage::Stopped => ReconcileStage::Stopped,
        },
        as_of: Target::kept(of).map(|target| instant(target.as_of)),
        since: instant(of.since),
        ended_at: of.ended_at.map(instant),
        entered: of.changed.entered,
        left: of.changed.left,
    }
}

fn stopped() -> Problem {
    let detail = "it was stopped; what was recorded stays, and the same again does what is left";
    Problem::new(StatusCode::CONFLICT, detail)
}

fn is_held(api: &Api, destination: &DestinationName, audience: &str) -> bool {
    api.ledger.held_audiences(destination).iter().any(|of| of.audience == audience)
}

/// Everything up to where it goes on by itself.
async fn begun(
    api: &Api,
    name: DestinationName,
    asked: &Reconcile,
    from: Option<IpAddr>,
    body: &mut Body,
) -> Result<Begun, Problem> {
    let audience = asked.audience.as_deref().unwrap_or_default();
    let Some(turn) = api.reconciling.take(&name, audience, asked.dry_run) else {
        let what = if asked.dry_run { "dry run of a reconcile" } else { "reconcile" };
        let detail = format!(
            "another {what} is being compared with the ledger; try again when that has ended"
        );
        return Err(Problem::not_yet(detail));
    };
    let begun = tokio::select! {
        begun = staged(api, name, asked, from, (body, &turn)) => begun,
        () = turn.stopped() => Err(stopped()),
        () = api.stopping.cancelled() => {
            let detail = "the daemon stops; type the same again once it runs, and what is left is done";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail))
        }
    };
    if let (Err(_), Some(id)) = (&begun, turn.id()) {
        waiting::give_up(api, id).await;
    }
    begun
}

async fn staged(
    api: &Api,
    name: DestinationName,
    asked: &Reconcile,
    from: Option<IpAddr>,
    (body, turn): (&mut Body, &turn::Taken<'_>),
) -> Result<Begun, Problem> {
    let target = Target::of(api, name, asked, from).await?;
    let id = if asked.dry_run { None } else { Some(staging::begin(api, &target).await?) };
    if let Some(id) = id {
        turn.begun(id);
    }
    let (read, spool) = reading::spooled(api, &target, body).await?;
    let plan = Plan::of(api, &target, &spool).await?;
    let refusal = plan.refusal(asked.max_exits.unwrap_or(MAX_EXITS_PERCENT));
    let refusal = refusal.filter(|_| !asked.yes);
    if let Some(refusal) = refusal.as_ref().filter(|_| !asked.dry_run) {
        return Err(Problem::new(StatusCode::CONFLICT, format!("{refusal}; nothing was done")));
    }
    if let Some(id) = id {
        staging::stage(api, &target, id, (&spool, &plan)).await?;
    }
    let answer = Reconciled {
        audience: target.audience.as_str().to_owned(),
        as_of: instant(target.as_of),
        lines: read.lines,
        without_key: read.without_key,
        enter: plan.enter,
        leave: plan.leave,
        stay: plan.stay,
        newer: plan.newer,
        dry_run: asked.dry_run,
        refusal,
        held: is_held(api, &target.destination, target.audience.as_str()),
        entering: plan.entering,
        leaving: plan.leaving,
    };
    Ok(Begun { id, destination: target.destination, answer })
}
