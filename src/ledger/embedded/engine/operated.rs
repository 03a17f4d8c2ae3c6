//! Operator commands: rare, so each is simple rather than fast.

use crate::ledger::embedded::engine::guarding::Decision;
use crate::ledger::embedded::engine::state::State;
use crate::ledger::embedded::ids::{AudienceIndex, DestinationIndex};
use crate::ledger::embedded::tables::database::Database;
use crate::ledger::embedded::tables::walk::Task;
use crate::ledger::embedded::tables::{audiences, destinations, dropped, meta, reconciliations};
use crate::ledger::member::{self, Member, Moment, Next};
use crate::ledger::{LedgerError, Members, ReconciliationStep};
use crate::membership::{AudienceId, DestinationName};

/// A verb of [`crate::ledger::Operations`] that changes something.
#[derive(Debug)]
pub(crate) enum Operation {
    Requeue(Members),
    Discard(Members),
    DiscardRejected { destination: DestinationName, ids: Vec<i64> },
    Walk { destination: DestinationName, audience: Option<AudienceId>, task: Task },
    StopResync { destination: DestinationName, audience: Option<AudienceId> },
    Retract { destination: DestinationName, audience: Option<AudienceId> },
    Drop { destination: DestinationName, audience: Option<AudienceId> },
    Guard { destination: DestinationName, audience: Option<AudienceId>, decision: Decision },
    Pause { destination: DestinationName, paused: bool },
    LeaveNote(String),
    BeginReconciliation { destination: DestinationName, audience: AudienceId, process: i64 },
    StepReconciliation { id: i64, step: ReconciliationStep },
}

impl Operation {
    /// Whether it has the same effect if it is applied before events that were accepted earlier and wait in
    /// the log.
    pub fn may_overtake(&self) -> bool {
        !matches!(
            self,
            Self::Walk { .. } | Self::Retract { .. } | Self::Drop { .. } | Self::Guard { .. }
        )
    }

    /// About how many rows it touches.
    pub fn items(&self) -> usize {
        match self {
            Self::Requeue(members) | Self::Discard(members) => members.context_keys.len(),
            Self::DiscardRejected { ids, .. } => ids.len(),
            _ => 1,
        }
    }
}

/// Applies it; returns how many members, events or audiences it concerned.
pub(crate) fn apply(
    state: &mut State,
    db: &Database,
    operation: &Operation,
) -> rusqlite::Result<Result<u64, LedgerError>> {
    match operation {
        Operation::Requeue(members) => each_of(state, db, members, member::requeue).map(Ok),
        Operation::Discard(members) => {
            each_of(state, db, members, |before, _| member::discard(before)).map(Ok)
        }
        Operation::DiscardRejected { destination, ids } => {
            let Some(row) = destinations::find(db.connection()?, destination)? else {
                return Ok(Err(LedgerError::UnknownDestination(destination.clone())));
            };
            let mut discarded = 0;
            for id in ids {
                discarded += u64::from(state.rejected.discard(db.connection()?, row, *id)?);
            }
            Ok(Ok(discarded))
        }
        Operation::Walk { destination, audience, task } => {
            let is_retraction = |task: &Task| matches!(task, Task::Retract { .. });
            if let Some(of) = under_way(state, destination, audience.as_ref(), is_retraction) {
                return Ok(Err(LedgerError::Retracting(of)));
            }
            each_configured(state, destination, audience.as_ref(), |state, audience| {
                state.start_walk(audience, task.clone());
                Ok(())
            })
        }
        Operation::StopResync { destination, audience } => {
            each_configured(state, destination, audience.as_ref(), |state, audience| {
                let walk = &mut state.audiences[audience].walk;
                walk.take_if(|walk| walk.task == Task::Resync);
                state.touch(audience);
                Ok(())
            })
        }
        Operation::Retract { destination, audience } => {
            each_configured(state, destination, audience.as_ref(), |state, audience| {
                let through = state.stamp();
                state.decide(audience, Decision::Release); // who asks for it has looked
                state.start_walk(audience, Task::Retract { through });
                Ok(())
            })
        }
        Operation::Guard { destination, audience, decision } => {
            // Whoever is being removed is not to be entered again, nor is that to end early.
            let is_retraction = |task: &Task| match task {
                Task::Retract { .. } => true,
                Task::RetractStale { .. } => *decision == Decision::Discard,
                Task::Resync | Task::Reenter { .. } => false,
            };
            if let Some(of) = under_way(state, destination, audience.as_ref(), is_retraction) {
                return Ok(Err(LedgerError::Retracting(of)));
            }
            let mut decided = 0;
            let done =
                each_configured(state, destination, audience.as_ref(), |state, audience| {
                    decided += u64::from(state.decide(audience, *decision));
                    Ok(())
                })?;
            Ok(done.map(|_| decided))
        }
        Operation::Drop { destination, audience } => {
            drop_rows(state, db, destination, audience.as_ref())
        }
        Operation::Pause { destination, paused } => {
            let Some(index) = state.audiences.configured_destination(destination) else {
                return Ok(Err(LedgerError::UnknownDestination(destination.clone())));
            };
            state.pause(db, index, *paused)?;
            Ok(Ok(1))
        }
        Operation::LeaveNote(note) => {
            meta::keep_note(db.connection()?, note)?;
            Ok(Ok(1))
        }
        Operation::BeginReconciliation { destination, audience, process } => {
            if state.audiences.configured_destination(destination).is_none() {
                return Ok(Err(LedgerError::UnknownDestination(destination.clone())));
            }
            let (now, db) = (state.stamp(), db.connection()?);
            let id = reconciliations::begin(db, destination, audience, *process, now)?;
            Ok(Ok(id.unsigned_abs()))
        }
        Operation::StepReconciliation { id, step } => {
            let now = state.stamp();
            if *step == ReconciliationStep::Remove {
                state.erasure.note(); // its pieces had keys of people who may have been deleted since
            }
            let is_done = reconciliations::step(db.connection()?, *id, step, now)?;
            Ok(Ok(u64::from(is_done)))
        }
    }
}

/// Applies a rule to these members; returns how many changed.
fn each_of(
    state: &mut State,
    db: &Database,
    members: &Members,
    rule: impl Fn(&Member, &Moment) -> Next,
) -> rusqlite::Result<u64> {
    let found = state.audiences.destination(&members.destination);
    let Some(audience) = found.and_then(|of| state.audiences.find(of, &members.audience)) else {
        return Ok(0);
    };
    let mut changed = 0;
    for key in &members.context_keys {
        changed += u64::from(state.apply(db, audience, key, &rule)?);
    }
    Ok(changed)
}

/// An audience that such a task is about.
fn under_way(
    state: &State,
    destination: &DestinationName,
    only: Option<&AudienceId>,
    is_such: impl Fn(&Task) -> bool,
) -> Option<AudienceId> {
    let of = state.audiences.destination(destination)?;
    let found = state.audiences.list.iter().find(|audience| {
        audience.destination == of
            && only.is_none_or(|only| *only == audience.route.audience)
            && audience.walk.as_ref().is_some_and(|walk| is_such(&walk.task))
    })?;
    Some(found.route.audience.clone())
}

fn each_configured(
    state: &mut State,
    destination: &DestinationName,
    only: Option<&AudienceId>,
    act: impl FnMut(&mut State, AudienceIndex) -> rusqlite::Result<()>,
) -> rusqlite::Result<Result<u64, LedgerError>> {
    match state.audiences.configured_destination(destination) {
        Some(of) => each_audience(state, of, only, act),
        None => Ok(Err(LedgerError::UnknownDestination(destination.clone()))),
    }
}

fn each_audience(
    state: &mut State,
    of: DestinationIndex,
    only: Option<&AudienceId>,
    mut act: impl FnMut(&mut State, AudienceIndex) -> rusqlite::Result<()>,
) -> rusqlite::Result<Result<u64, LedgerError>> {
    let audiences = match only {
        None => state.audiences.of_destination(of),
        Some(only) => match state.audiences.find(of, only) {
            Some(audience) => vec![audience],
            None => return Ok(Err(LedgerError::UnknownAudience(only.clone()))),
        },
    };
    let count = audiences.len() as u64;
    for audience in audiences {
        act(state, audience)?;
    }
    Ok(Ok(count))
}

fn drop_rows(
    state: &mut State,
    db: &Database,
    destination: &DestinationName,
    only: Option<&AudienceId>,
) -> rusqlite::Result<Result<u64, LedgerError>> {
    reconciliations::stop(db.connection()?, destination, only)?;
    if let Some(of) = state.audiences.destination(destination) {
        if only.is_none() {
            dropped::detach_rejected(db.connection()?, state.audiences[of].row)?;
            state.schedule.wake();
        }
        return each_audience(state, of, only, |state, audience| {
            state.drop_audience(db.connection()?, audience)
        });
    }
    // Not configured since the start: nothing of it is in memory or in flight.
    let Some(row) = destinations::find(db.connection()?, destination)? else {
        return Ok(Err(LedgerError::UnknownDestination(destination.clone())));
    };
    state.schedule.wake();
    let Some(only) = only else {
        dropped::detach_destination(db.connection()?, row)?;
        return Ok(Ok(1));
    };
    let audience = audiences::find(db.connection()?, row, only)?;
    match audience {
        Some(audience) => dropped::detach(db.connection()?, audience).map(|()| Ok(1)),
        None => Ok(Err(LedgerError::UnknownAudience(only.clone()))),
    }
}
