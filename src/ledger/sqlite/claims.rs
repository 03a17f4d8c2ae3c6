//! Claiming: which of an audience's pending members travel next.

use std::num::NonZeroUsize;
use std::sync::Arc;

use rusqlite::{Connection, params};

use super::members;
use super::writer::State;
use crate::ledger::member::{self, Next};
use crate::ledger::{Batch, ClaimedMember, Route};
use crate::membership::{AudienceId, ContextKey, DestinationName, Timestamp};

/// The longest pending members that are in no batch, at most `limit`; one that was refused alone
/// before comes alone.
pub(super) fn claim(
    state: &mut State,
    db: &Connection,
    destination: &DestinationName,
    audience: &AudienceId,
    limit: NonZeroUsize,
) -> rusqlite::Result<Option<Batch>> {
    let found = state.audiences.destination(destination);
    let Some(index) = found.and_then(|found| state.audiences.find(found, audience)) else {
        return Ok(None);
    };
    let known = &state.audiences.list[index];
    let mut taken: Vec<ClaimedMember> = Vec::new();
    let mut alone = false;
    let mut through = Timestamp::EPOCH;
    let mut left_since: Option<Timestamp> = None;
    let mut left = 0_u64;
    members::visit_pending(db, known.row, known.all_claimed_through, |waiting| {
        let Some(context_key) = ContextKey::new(&waiting.context_key) else { return true };
        if known.claimed.contains(&context_key) {
            return true;
        }
        if taken.is_empty() {
            alone = waiting.alone;
        }
        let fits = taken.is_empty() || (!alone && !waiting.alone && taken.len() < limit.get());
        if fits {
            through = through.max(waiting.pending_since);
            let (membership, version) = (waiting.membership, waiting.version);
            taken.push(ClaimedMember { context_key, membership, version });
            return true;
        }
        left_since.get_or_insert(waiting.pending_since);
        left += 1;
        !alone && taken.len() < limit.get()
    })?;
    let long_ago = state.waits.long_ago();
    let waiting_since = left_since.map(|stamp| state.waits.instant_of(stamp));
    let known = &mut state.audiences.list[index];
    known.waiting_since = waiting_since;
    if taken.is_empty() {
        known.pending = known.claimed.len() as u64;
        known.uncounted = false;
        state.touch(index);
        return Ok(None);
    }
    mark_claimed(state, db, index, through)?;
    let known = &mut state.audiences.list[index];
    for member in &taken {
        known.claimed.insert(member.context_key.clone());
    }
    known.all_claimed_through = known.all_claimed_through.max(through);
    if let Some(since) = left_since {
        known.look_again_from(since);
    }
    let at_least = known.claimed.len() as u64 + left;
    if left == 0 {
        known.pending = at_least; // every row was seen
        known.uncounted = false;
    } else {
        known.pending = known.pending.max(at_least);
        known.waiting_since.get_or_insert(long_ago);
    }
    let batch = Batch { route: Arc::clone(&known.route), members: taken };
    state.touch(index);
    Ok(Some(batch))
}

/// This member, whatever it is pending or not, unless it is in a batch, parked or gone.
pub(super) fn claim_again(
    state: &mut State,
    db: &Connection,
    route: &Route,
    context_key: &ContextKey,
) -> rusqlite::Result<Option<Batch>> {
    let Some(index) = state.audiences.of_route(route) else { return Ok(None) };
    let known = &state.audiences.list[index];
    let (row, route) = (known.row, Arc::clone(&known.route));
    if known.claimed.contains(context_key) {
        return Ok(None);
    }
    let Some(before) = members::load(db, row, context_key.as_str())? else { return Ok(None) };
    let next = member::reassert(&before, &state.moment(index));
    state.put(db, index, context_key.as_str(), Some(&before), &next)?;
    let after = if let Next::Write(after) = next { after } else { before };
    let Some(since) = after.pending_since else { return Ok(None) };
    mark_claimed(state, db, index, since)?;
    let member = ClaimedMember {
        context_key: context_key.clone(),
        membership: after.membership,
        version: after.version,
    };
    state.audiences.list[index].claimed.insert(context_key.clone());
    state.touch(index);
    Ok(Some(Batch { route, members: vec![member] }))
}

/// Durable before the call: after a crash, members pending since then are known to have been on their
/// way.
fn mark_claimed(
    state: &mut State,
    db: &Connection,
    audience: usize,
    through: Timestamp,
) -> rusqlite::Result<()> {
    let known = &mut state.audiences.list[audience];
    if through > known.claimed_through {
        db.prepare_cached("UPDATE audience SET claimed_through = ?2 WHERE id = ?1")?
            .execute(params![known.row, through.0])?;
        known.claimed_through = through;
    }
    Ok(())
}
