//! Writes what a snapshot changes into the ledger, so that all of it will be recorded whoever dies.

use http::StatusCode;

use super::plan::Plan;
use super::reading::has_room;
use super::target::Target;
use super::walk::Walk;
use super::{applying, recording, stopped, waiting};
use crate::ledger::{ReconciliationStep, Stage, Stager};
use crate::operate::api::{Api, Problem};
use crate::operate::reconcile::comparison::Finding;
use crate::operate::reconcile::piece;
use crate::operate::reconcile::spool::Spool;

/// Changes in one piece: they are recorded together.
const SLICE: usize = 1000;
/// Pieces between two looks whether there is room for more.
const LOOK_EVERY: i64 = 100;

/// Writes the changes down. The first delta is recorded before: it makes sure that what is older and arrives from then on
/// changes nobody, so only then is compared what is to be changed: everything recorded before can be seen by then.
pub(super) async fn stage(
    api: &Api,
    target: &Target,
    id: i64,
    (spool, plan): (&Spool, &Plan),
) -> Result<(), Problem> {
    let first = plan.first.as_slice();
    let changed = target.changed_by(first);
    let planned = ReconciliationStep::Plan { about: target.about()?, total: plan.changes, changed };
    step(api, id, planned).await?;
    recording::record(api, target, first).await?;
    let mut walk = Walk::begin(spool)?;
    let mut due: Vec<Finding> = Vec::new();
    let (mut goes_on, mut no, mut total) = (true, 0, changed.done);
    while goes_on {
        match walk.next(api, target).await? {
            Some(found) => due.extend(found.into_iter().filter(|of| target.is_changed_by(of))),
            None => goes_on = false,
        }
        while due.len() >= SLICE || (!goes_on && !due.is_empty()) {
            let rest = due.split_off(due.len().min(SLICE));
            let slice = std::mem::replace(&mut due, rest);
            total += slice.len() as u64;
            if no % LOOK_EVERY == 0 && !has_room(api).await? {
                let detail = "the disk of the ledger has no room for what the snapshot changes; nobody but the first \
                              member was changed";
                return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
            }
            step(api, id, ReconciliationStep::Stage { no, body: piece::encode(&slice) }).await?;
            no += 1;
        }
    }
    step(api, id, ReconciliationStep::Staged { total }).await
}

/// Takes a step, unless somebody has stopped it.
async fn step(api: &Api, id: i64, step: ReconciliationStep) -> Result<(), Problem> {
    if api.ledger.step_reconciliation(id, step).await? { Ok(()) } else { Err(stopped()) }
}

/// Begins one of an audience, unless one is under way; its number in the ledger. One that nobody writes down any more gives
/// way.
pub(super) async fn begin(api: &Api, target: &Target) -> Result<i64, Problem> {
    let Target { destination, audience, .. } = target;
    if let Some(id) = api.ledger.begin_reconciliation(destination, audience).await? {
        return Ok(id);
    }
    let all = api.ledger.reconciliations().await?;
    let other = all.iter().find(|of| waiting::is_of(of, destination, Some(audience.as_str())));
    if let Some(other) = other
        && other.stage == Stage::Staging
        && other.stager == Stager::Gone
        && api.ledger.step_reconciliation(other.id, ReconciliationStep::Abandon).await?
    {
        applying::end(api, other, false).await?;
    }
    let begun = api.ledger.begin_reconciliation(destination, audience).await?;
    begun.ok_or_else(|| {
        let detail = "another reconcile of this audience is under way; try again when it has ended";
        Problem::not_yet(detail)
    })
}
