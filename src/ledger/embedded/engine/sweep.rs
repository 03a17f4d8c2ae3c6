//! Expiry: members whose entries have expired leave, found by sweeps over the audiences whose entries expire, a slice at
//! a time. Audiences without an expiry cost nothing.
//!
//! # What always holds
//! * Whether an entry has expired is the rules' decision ([`member::expire`]), by event time and the ledger's own clock.
//! * A change made here is marked in the member (`is_expired`) and counted as such ([`Turnover::expired`]): whoever
//!   counts exits can tell it from what events said.
//!
//! [`Turnover::expired`]: crate::ledger::Turnover::expired

use crate::ledger::embedded::engine::expiry::Expiry;
use crate::ledger::embedded::engine::state::State;
use crate::ledger::embedded::engine::walks;
use crate::ledger::embedded::ids::AudienceIndex;
use crate::ledger::embedded::tables::database::Database;
use crate::ledger::embedded::tables::members;
use crate::ledger::member;
use crate::membership::{ContextKey, Membership, Timestamp};

/// Most rows read in one slice: a few milliseconds of the writer's time.
const SLICE: usize = 2_000;

/// Does one slice of the sweeps that are due, which take turns. `true`: a sweep is under way.
pub(crate) fn step(state: &mut State, db: &Database) -> rusqlite::Result<bool> {
    let now = state.shared.arrival();
    let is_due = state.sweeps.due_in(now).is_some_and(|due| due.is_zero());
    if !is_due && !state.sweeps.are_under_way && !state.audiences.has_new_expiry {
        return Ok(false);
    }
    let is_wanted = |expiry: &Expiry| expiry.is_swept() || expiry.next_sweep() <= now;
    let first = state.sweeps.next_audience;
    let all = state.audiences.indices();
    let wanted = all.filter(|index| state.audiences[*index].expiry.as_ref().is_some_and(is_wanted));
    let (before, mut swept): (Vec<_>, Vec<_>) = wanted.partition(|index| *index < first);
    swept.extend(before);
    let (mut left, mut expired) = (SLICE, 0);
    for audience in swept {
        if left == 0 {
            break;
        }
        state.sweeps.next_audience = AudienceIndex(audience.0 + 1);
        let done = advance(state, db, audience, (left, now))?;
        left = left.saturating_sub(done.visited.max(1)); // even an empty slice is work
        expired += done.expired;
    }
    let State { audiences, sweeps, .. } = &mut *state;
    let expiries = || audiences.list.iter().filter_map(|audience| audience.expiry.as_ref());
    sweeps.due(expiries().map(Expiry::next_sweep));
    sweeps.are_under_way = expiries().any(Expiry::is_swept);
    let is_under_way = sweeps.are_under_way;
    if expired > 0
        && let Some(members) = sweeps.expired.more(expired)
    {
        tracing::info!(members, "members left: their entries have expired");
    }
    audiences.has_new_expiry = false;
    Ok(is_under_way)
}

/// What one slice did.
struct Done {
    visited: usize,
    expired: u64,
}

/// Visits up to `limit` members of an audience.
fn advance(
    state: &mut State,
    db: &Database,
    audience: AudienceIndex,
    (limit, now): (usize, Timestamp),
) -> rusqlite::Result<Done> {
    let mut done = Done { visited: 0, expired: 0 };
    let known = &mut state.audiences[audience];
    let row = known.row;
    let Some(expiry) = &mut known.expiry else { return Ok(done) };
    let mut last = expiry.sweep(now);
    let slice = members::walk_in(db.connection()?, row, &last, limit)?;
    let is_last = slice.len() < limit;
    let rows = slice.len();
    let moment_of_all = state.moment_at(audience, now);
    for (key, before) in slice {
        if done.expired == walks::SLICE as u64 {
            break; // each is a row to write
        }
        done.visited += 1;
        if moment_of_all.has_expired(before.event_at) {
            let next = member::expire(&before, &state.moment(audience));
            if let (member::Next::Write(_), Some(key)) = (&next, ContextKey::new(&key)) {
                let place = state.place(audience, key.as_str());
                state.put(db, audience, (&key, place), Some(&before), &next)?;
                done.expired += 1;
            }
        } else if before.membership == Membership::In
            && let Some(expiry) = &mut state.audiences[audience].expiry
        {
            expiry.entered(before.event_at);
        }
        last = key;
    }
    if let Some(expiry) = &mut state.audiences[audience].expiry {
        if is_last && done.visited == rows {
            expiry.swept(state.shared.arrival());
        } else {
            expiry.visited(last);
        }
    }
    Ok(done)
}
