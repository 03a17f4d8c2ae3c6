//! Reports of couriers: each member of the batch goes through a rule, and its claim ends.

use tokio::time::Instant;

use crate::ledger::embedded::engine::state::State;
use crate::ledger::embedded::engine::unclaim::Unclaimed;
use crate::ledger::embedded::ids::AudienceIndex;
use crate::ledger::embedded::memtable::AT_ONCE;
use crate::ledger::embedded::tables::database::Database;
use crate::ledger::embedded::tables::parked::Parked;
use crate::ledger::member::{self, Member, Next};
use crate::ledger::{Batch, ClaimedMember, Report};
use crate::membership::Timestamp;

/// Whether a report needs up-to-date rows, rather than only its own members.
pub(crate) fn needs_rows(report: &Report) -> bool {
    match report {
        Report::Park(..) | Report::Split(_) | Report::Unpark(_) => true,
        Report::Settle(_) | Report::Release(..) => false,
    }
}

/// Applies a report; returns the claims that end once it is committed.
pub(crate) fn report(
    state: &mut State,
    db: &Database,
    report: Report,
) -> rusqlite::Result<Option<Unclaimed>> {
    match report {
        Report::Settle(batch) => settle(state, db, batch),
        Report::Release(batch, unheard) => {
            for_each_claimed(state, db, batch, |state, _, audience, _, before| {
                Ok(member::release(before, unheard, &state.moment(audience)))
            })
        }
        Report::Park(batch, reason) => {
            for_each_claimed(state, db, batch, |state, db, audience, claimed, before| {
                let moment = state.moment(audience);
                let (next, parked) = member::park(before, claimed, &moment);
                if parked {
                    let row = state.audiences[audience].row;
                    let key = claimed.context_key.as_str();
                    state.parked.insert(db.connection()?, row, key, moment.stamp, &reason)?;
                }
                Ok(next)
            })
        }
        Report::Split(parts) => {
            for part in parts {
                let Some(audience) = state.audiences.of_route(&part.route) else { continue };
                let half = state.stamp();
                for claimed in &part.members {
                    let key = &claimed.context_key;
                    state.apply(db, audience, key, |before, _| member::split(before, half))?;
                }
            }
            Ok(None) // the members stay claimed
        }
        Report::Unpark(batch) => {
            let Some(audience) = state.audiences.of_route(&batch.route) else { return Ok(None) };
            for parked in &batch.members {
                state.apply(db, audience, &parked.context_key, member::requeue)?;
            }
            Ok(None) // the members are not claimed
        }
    }
}

/// LaunchDarkly has taken the whole batch.
fn settle(state: &mut State, db: &Database, batch: Batch) -> rusqlite::Result<Option<Unclaimed>> {
    let Some(audience) = state.audiences.of_route(&batch.route) else { return Ok(None) };
    let (moment, row) = (state.moment(audience), state.audiences[audience].row);
    state.audiences[audience].acknowledged = true;
    state.touch(audience);
    state.members.memtable.told(row, batch.members.len(), Instant::now());
    for_each_claimed(state, db, batch, |state, db, _, claimed, before| {
        let (next, tell_once_more) = member::settle(before, claimed, &moment);
        let key = claimed.context_key.as_str();
        if before.is_some_and(|before| before.parked_at.is_some()) {
            Parked::erase(db.connection()?, row, key)?;
            state.erasure.note();
        }
        if tell_once_more {
            state.schedule.reassert_later(db.connection()?, row, key, moment.stamp)?;
        }
        Ok(next)
    })
}

/// Loads each member of a claimed batch and applies `rule`; returns the claims that end.
fn for_each_claimed(
    state: &mut State,
    db: &Database,
    batch: Batch,
    mut rule: impl FnMut(
        &mut State,
        &Database,
        AudienceIndex,
        &ClaimedMember,
        Option<&Member>,
    ) -> rusqlite::Result<Next>,
) -> rusqlite::Result<Option<Unclaimed>> {
    let Some(audience) = state.audiences.of_route(&batch.route) else { return Ok(None) };
    let mut order = batch.members;
    if !state.members.is_buffering() {
        order.sort_by(|a, b| a.context_key.cmp(&b.context_key));
    }
    let mut longest: Option<Timestamp> = None;
    for some in order.chunks(AT_ONCE) {
        state.prefetch(some.iter().map(|claimed| (audience, claimed.context_key.as_str())));
        for claimed in some {
            let key = &claimed.context_key;
            let place = state.place(audience, key.as_str());
            let known = if place.is_row() {
                state.audiences[audience].in_flight.take_row(key)
            } else {
                None
            };
            let before = match known {
                Some(known) => Some(known),
                None => state.load(db, audience, (key.as_str(), place))?,
            };
            let next = rule(state, db, audience, claimed, before.as_ref())?;
            state.put(db, audience, (key, place), before.as_ref(), &next)?;
            let waits = next.or(before.as_ref()).and_then(|member| member.pending_since);
            if let Some(since) = waits {
                state.audiences[audience].marks.look_again_from(since);
                longest = Some(longest.map_or(since, |other| other.min(since)));
            }
        }
    }
    let members = order.into_iter().map(|claimed| claimed.context_key).collect();
    Ok(Some(Unclaimed { audience, members, longest }))
}
