//! Records what was written down of reconciliations, as fast as it is delivered, and tidies up after them. Every replica
//! does so for the destinations that it delivers, so that another one goes on where it was.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::recording;
use super::target::Target;
use crate::clock::Seldom;
use crate::ledger::{LedgerError, ReconciliationStep, ReconciliationView, Stage, Stager};
use crate::operate::api::wire::instant;
use crate::operate::api::{Api, Problem, audit};
use crate::operate::reconcile::piece;

/// No change is recorded while this many members of the audience wait: ordinary delivery goes first.
const AHEAD: u64 = 5000;
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often it is seen what other replicas have left to do.
const LOOK_AROUND_EVERY: Duration = Duration::from_secs(1);
/// The same where there are no others: whoever has something to do says so.
const ALONE_EVERY: Duration = Duration::from_secs(30);
/// How long a replica that writes one down has to be away: after an outage of the database it may be the last to be back.
const AWAY_FOR: Duration = Duration::from_secs(10);
/// How long one that has ended is remembered, for whoever waits for its end.
const REMEMBERED: Duration = Duration::from_secs(60);

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// There is nothing to do.
    Nothing,
    /// What is to be recorded has to wait.
    Waits,
    /// Something was done.
    Work,
}

/// Since when those are away that write reconciliations down, by their numbers.
type Gone = HashMap<i64, Instant>;

/// Records what is left of reconciliations until the daemon stops.
pub async fn keep_recording(api: Arc<Api>) {
    let (mut said, mut gone) = (Seldom::default(), HashMap::new());
    let is_alone = matches!(api.ledger.replicas().await, Ok(None));
    let rest = if is_alone { ALONE_EVERY } else { LOOK_AROUND_EVERY };
    while !api.stopping.is_cancelled() {
        let (found, failed) = look(&api, (&mut gone, is_alone)).await;
        if let Some(error) = &failed
            && said.is_due()
        {
            warn!(detail = error.detail, "a reconcile waits: the ledger cannot be used");
        }
        let pause = match found {
            Found::Work => continue,
            Found::Waits => LOOK_EVERY,
            Found::Nothing if failed.is_some() => LOOK_AROUND_EVERY,
            Found::Nothing => rest,
        };
        tokio::select! {
            () = api.stopping.cancelled() => {}
            () = api.reconciling.work.notified() => {}
            () = sleep(pause) => {}
        }
    }
}

/// Does the next of all that there is to do; of what is to be recorded, one piece of each. What has failed of one does not
/// hold back the others.
async fn look(api: &Api, (gone, is_alone): (&mut Gone, bool)) -> (Found, Option<Problem>) {
    let (mut found, mut failed) = (Found::Nothing, None);
    let all = match api.ledger.reconciliations().await {
        Ok(all) => all,
        Err(error) => return (found, Some(error.into())),
    };
    gone.retain(|id, _| all.iter().any(|of| of.id == *id && of.stager == Stager::Gone));
    for of in all {
        let is_away = of.stager == Stager::Gone
            && (is_alone || gone.entry(of.id).or_insert_with(Instant::now).elapsed() >= AWAY_FOR);
        match step(api, &of, is_away).await {
            Ok(done) => found = found.max(done),
            Err(error) => {
                failed.get_or_insert(error);
            }
        }
    }
    (found, failed)
}

/// Does what is next of one.
async fn step(api: &Api, of: &ReconciliationView, is_away: bool) -> Result<Found, Problem> {
    let is_configured = api.destinations.get().contains_key(&of.destination);
    let is_ours = !is_configured || api.ledger.delivers(&of.destination);
    Ok(match of.stage {
        Stage::Staging => abandon(api, of, is_away).await?,
        Stage::Staged if is_ours && is_configured => go_on(api, of).await?,
        Stage::Stopping if is_ours => {
            end(api, of, false).await?;
            Found::Work
        }
        Stage::Staged | Stage::Stopping => Found::Nothing,
        Stage::Complete | Stage::Stopped => tidy(api, of).await?,
    })
}

/// Stops one that nobody writes down any more.
async fn abandon(api: &Api, of: &ReconciliationView, is_away: bool) -> Result<Found, LedgerError> {
    let is_left = match of.stager {
        Stager::Here => !api.reconciling.is_taken(&of.destination, Some(of.audience.as_str())),
        Stager::Elsewhere => false,
        Stager::Gone => is_away,
    };
    if !is_left || !api.ledger.step_reconciliation(of.id, ReconciliationStep::Abandon).await? {
        return Ok(Found::Nothing);
    }
    warn!(
        destination.name = %of.destination,
        audience = of.audience.as_str(),
        "a reconcile was broken off before the ledger had all that it changes: give the same command again"
    );
    Ok(Found::Work)
}

/// Records the next piece.
async fn go_on(api: &Api, of: &ReconciliationView) -> Result<Found, Problem> {
    let outbox = api.ledger.outbox(&of.destination);
    let backlog = outbox.backlog().await?;
    let own = backlog.iter().find(|other| other.audience == of.audience);
    // While it is paused there is nothing to go behind.
    if own.is_some_and(|of| of.waiting >= AHEAD) && outbox.paused_since().is_none() {
        return Ok(Found::Waits);
    }
    let Some((no, body)) = api.ledger.reconciliation_piece(of.id).await? else {
        end(api, of, true).await?;
        return Ok(Found::Work);
    };
    // Whoever of it was deleted meanwhile would be taken for somebody new.
    if api.ledger.arrival().since(of.since) >= api.tombstone_ttl {
        let why = "it has waited for longer than the ledger remembers who was deleted (ledger.tombstone_ttl_s)";
        return give_up(api, of, why).await;
    }
    let found = Target::kept(of).zip(piece::decode(&body));
    let Some((target, findings)) = found else {
        let why = "another version has written it down";
        return give_up(api, of, why).await;
    };
    // Whoever stood still since it looked may find it stopped by another owner, and its audience dropped.
    if !api.ledger.delivers(&of.destination) {
        return Ok(Found::Nothing);
    }
    match recording::record(api, &target, &findings).await {
        Err(problem) if problem.status == StatusCode::CONFLICT.as_u16() => {
            return give_up(api, of, &problem.detail).await;
        }
        recorded => recorded?,
    }
    let changed = target.changed_by(&findings);
    api.ledger.step_reconciliation(of.id, ReconciliationStep::Applied { no, changed }).await?;
    Ok(Found::Work)
}

/// Ends one that cannot go on.
async fn give_up(api: &Api, of: &ReconciliationView, why: &str) -> Result<Found, Problem> {
    warn!(
        destination.name = %of.destination,
        audience = of.audience.as_str(),
        why,
        "a reconcile cannot go on: what was recorded stays; give the same command again"
    );
    end(api, of, false).await?;
    Ok(Found::Work)
}

/// Ends one, and says so in one line of the log, once, whoever else ends it.
pub(super) async fn end(
    api: &Api,
    of: &ReconciliationView,
    is_complete: bool,
) -> Result<(), LedgerError> {
    let ended = ReconciliationStep::End { is_complete };
    let is_first = api.ledger.step_reconciliation(of.id, ended).await?;
    if let Some(target) = Target::kept(of).filter(|_| is_first) {
        audit!(
            of.destination,
            "audience reconciled with a snapshot",
            audience = of.audience.as_str(),
            as_of = instant(target.as_of),
            entered = of.changed.entered,
            left = of.changed.left,
            complete = is_complete,
            from = target.from
        );
    }
    api.reconciling.ends.notify_waiters();
    Ok(())
}

/// Removes what is left of one that has ended, and in the end itself.
async fn tidy(api: &Api, of: &ReconciliationView) -> Result<Found, LedgerError> {
    let is_swept = api.ledger.step_reconciliation(of.id, ReconciliationStep::Sweep).await?;
    let now = api.ledger.arrival();
    // A time far in the future is of a clock that was set since; another replica's may be a little ahead.
    let is_old =
        of.ended_at.is_none_or(|at| at > now.after(REMEMBERED) || now.since(at) >= REMEMBERED);
    if !is_swept && is_old {
        api.ledger.step_reconciliation(of.id, ReconciliationStep::Remove).await?;
    }
    Ok(if is_swept { Found::Work } else { Found::Nothing })
}
