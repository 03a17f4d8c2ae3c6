//! Records what a snapshot changes, as fast as it is delivered.

use std::net::IpAddr;
use std::time::Duration;

use http::StatusCode;
use tokio::time::sleep;

use super::plan::Plan;
use super::target::Target;
use super::walk::Walk;
use crate::ledger::{Intake, Origin, Outbox};
use crate::membership::Timestamp;
use crate::operate::api::wire::instant;
use crate::operate::api::{Api, Problem, audit};
use crate::operate::reconcile::comparison::Finding;
use crate::operate::reconcile::spool::Spool;

/// Changes that are recorded together.
const SLICE: usize = 1000;
/// No change is recorded while this many members of the audience wait: ordinary delivery goes first.
const AHEAD: u64 = 5000;
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Records the changes. The first delta makes sure that what is older and arrives from then on changes nobody, so
/// only then is compared what is to be changed: everything recorded before can be seen by then.
pub(super) async fn apply(
    api: &Api,
    target: &Target,
    (spool, plan): (&Spool, &Plan),
    from: Option<IpAddr>,
) -> Result<(), Problem> {
    let mut applied = Applied {
        target,
        api,
        from,
        of: plan.changes,
        done: 0,
        enter: 0,
        leave: 0,
        is_whole: false,
    };
    applied.record(plan.first.as_slice()).await?;
    let outbox = api.ledger.outbox(&target.destination);
    let mut walk = Walk::begin(spool)?;
    let mut due: Vec<Finding> = Vec::new();
    let mut goes_on = true;
    while goes_on {
        match walk.next(api, target).await? {
            Some(found) => due.extend(found.into_iter().filter(|of| target.is_changed_by(of))),
            None => goes_on = false,
        }
        while due.len() >= SLICE || (!goes_on && !due.is_empty()) {
            let rest = due.split_off(due.len().min(SLICE));
            let slice = std::mem::replace(&mut due, rest);
            applied.wait_for_room(&*outbox).await?;
            applied.record(&slice).await?;
        }
    }
    applied.is_whole = true;
    Ok(())
}

/// What was recorded so far. Its end is logged, however it comes, in one line.
struct Applied<'a> {
    target: &'a Target,
    api: &'a Api,
    from: Option<IpAddr>,
    of: u64,
    done: u64,
    enter: u64,
    leave: u64,
    is_whole: bool,
}

impl Applied<'_> {
    /// Ordinary delivery goes first, where there is any.
    async fn wait_for_room(&self, outbox: &dyn Outbox) -> Result<(), Problem> {
        loop {
            let Target { destination, audience, .. } = self.target;
            let so_far = Some((self.done, self.of));
            self.api.courses.reconciled(destination, audience, so_far, self.api.ledger.arrival());
            let backlog = outbox.backlog().await?;
            let own = backlog.iter().find(|of| of.audience == *audience);
            let has_room = own.is_none_or(|of| of.waiting < AHEAD);
            if has_room || outbox.paused_since().is_some() {
                return Ok(()); // while it is paused there is nothing to go behind
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn record(&mut self, found: &[Finding]) -> Result<(), Problem> {
        let intake = Intake {
            destination: self.target.destination.clone(),
            arrival: self.api.ledger.arrival(),
            deltas: found.iter().filter_map(|finding| self.target.delta(finding)).collect(),
            deletions: Vec::new(),
            rejected: Vec::new(),
            origin: Origin::Snapshot,
        };
        // Whoever stops it while this waits for the disk does not stop this: it counts from here on.
        let before = (self.done, self.enter, self.leave);
        for finding in found {
            self.done += u64::from(self.target.is_changed_by(finding));
            self.enter += u64::from(matches!(finding, Finding::Enters(_)));
            self.leave += u64::from(matches!(finding, Finding::Leaves(_)));
        }
        let recorded = self.api.ledger.record(intake).await;
        if !recorded.as_ref().is_ok_and(|recorded| recorded.unrecorded().is_empty()) {
            (self.done, self.enter, self.leave) = before;
        }
        let recorded = recorded?;
        if !recorded.kind_conflicts.is_empty() {
            let detail = "the audience has another context kind: give it with --context-kind";
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
        if !recorded.without_place.is_empty() {
            let detail = "the destination has as many audiences as ledger.max_audiences allows";
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
        Ok(())
    }
}

impl Drop for Applied<'_> {
    fn drop(&mut self) {
        let Target { destination, audience, as_of, .. } = self.target;
        self.api.courses.reconciled(destination, audience, None, Timestamp::EPOCH);
        let from = self.from.map(|address| address.to_string());
        audit!(
            destination,
            "audience reconciled with a snapshot",
            audience = audience.as_str(),
            as_of = instant(*as_of),
            entered = self.enter,
            left = self.leave,
            complete = self.is_whole,
            from = from
        );
    }
}
