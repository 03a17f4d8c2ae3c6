//! `POST …/reconcile`: brings an audience to what a snapshot says (`operate::reconcile`).
//!
//! All of it happens within the request. It ends before it is done if the body does not arrive, if the daemon
//! stops, or by `POST …/reconcile/stop`; the same request again does what is left. A sender that goes away once
//! all is sent does not end it: how would one tell it from one that waits?

mod applying;
mod beside;
mod plan;
mod reading;
mod target;
pub mod turn;
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
use super::wire::{Done, Reconcile, ReconcileStop, Reconciled, instant};
use super::{Api, Asked, Change, Destination, Problem};
use crate::json::Json;
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
        (status = 409, description = "It looks like a mistake and `yes` is not set, another one is under way, \
                                      it was stopped, or the audience cannot take it"),
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
    let stopping = api.stopping.clone();
    let from = peer.map(|Extension(Peer(address))| address);
    let audience = asked.audience.as_deref().unwrap_or_default();
    let answer = match api.reconciling.take(&name, audience) {
        None => {
            let detail = "another reconcile is under way; try again when it has ended";
            Err(Problem::new(StatusCode::CONFLICT, detail))
        }
        Some(turn) => tokio::select! {
            answer = carried_out(&api, name, &asked, from, &mut body) => answer,
            () = turn.stopped() => {
                let detail = "it was stopped; what was recorded stays, and the same again does what is left";
                Err(Problem::new(StatusCode::CONFLICT, detail))
            }
            () = stopping.cancelled() => {
                let detail = "the daemon stops; type the same again once it runs, and what is left is done";
                return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
            }
        },
    };
    if answer.is_err() {
        // Read to its end, so that its sender sees the answer.
        while let Ok(Some(Ok(_))) = timeout(reading::PIECE_TIMEOUT, body.frame()).await {}
    }
    answer.map(Json)
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
    let was_there = api.reconciling.stop(&name, &what.audience).await;
    Ok(Json(Done::of(u64::from(was_there))))
}

async fn carried_out(
    api: &Api,
    name: DestinationName,
    asked: &Reconcile,
    from: Option<IpAddr>,
    body: &mut Body,
) -> Result<Reconciled, Problem> {
    let target = Target::of(api, name, asked).await?;
    let (read, spool) = reading::spooled(api, &target, body).await?;
    let plan = Plan::of(api, &target, &spool).await?;
    let refusal = plan.refusal(asked.max_exits.unwrap_or(MAX_EXITS_PERCENT));
    let refusal = refusal.filter(|_| !asked.yes);
    if let Some(refusal) = refusal.as_ref().filter(|_| !asked.dry_run) {
        return Err(Problem::new(StatusCode::CONFLICT, format!("{refusal}; nothing was done")));
    }
    if !asked.dry_run {
        applying::apply(api, &target, (&spool, &plan), from).await?;
    }
    let held = api.ledger.held_audiences(&target.destination);
    Ok(Reconciled {
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
        held: held.iter().any(|of| of.audience == target.audience.as_str()),
        entering: plan.entering,
        leaving: plan.leaving,
    })
}
