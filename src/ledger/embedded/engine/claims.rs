//! Claiming: which of an audience's pending members go into the next batch.
//!
//! How far claims have come is persisted with the audience before a call is made: after a crash, members
//! pending since then or earlier are known to have possibly been in a call.

use std::sync::Arc;

use crate::ledger::embedded::engine::state::State;
use crate::ledger::embedded::ids::AudienceIndex;
use crate::ledger::embedded::tables::database::Database;
use crate::ledger::embedded::tables::members;
use crate::ledger::member::{self, Next};
use crate::ledger::picking::{Picked, Picking};
use crate::ledger::{Batch, Claim, ClaimedMember, Room, Route, SOLE_OWNER};
use crate::membership::{AudienceId, ContextKey, DestinationName, Timestamp};

/// A claim marks this many batches of its size ahead, so that the next claims need no commit. After a crash,
/// members that were marked but not claimed are told once more, like those that were.
const MARKED_AHEAD: usize = 16;

/// A claim, and the destination whose courier asks for it.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub destination: DestinationName,
    pub claim: Claim,
}

impl Wanted {
    /// Whether it reads rows other than those of pending members.
    pub fn needs_rows(&self) -> bool {
        !matches!(self.claim, Claim::Longest { .. })
    }
}

/// Claims members; `None` if there are none to claim.
pub(crate) fn claim(
    state: &mut State,
    db: &Database,
    Wanted { destination, claim }: &Wanted,
) -> rusqlite::Result<Option<Batch>> {
    match claim {
        Claim::Longest { audience, room } => claim_longest(state, db, destination, audience, *room),
        Claim::Again { route, context_key } => claim_again(state, db, route, context_key),
        Claim::Told { after } => claim_told(state, db, destination, after.as_ref()),
    }
}

/// Claims the oldest pending members that are not in flight and may share a batch, up to `room`.
fn claim_longest(
    state: &mut State,
    db: &Database,
    destination: &DestinationName,
    audience: &AudienceId,
    room: Room,
) -> rusqlite::Result<Option<Batch>> {
    let found = state.audiences.destination(destination);
    let Some(index) = found.and_then(|found| state.audiences.find(found, audience)) else {
        return Ok(None);
    };
    let known = &state.audiences[index];
    if known.guard.is_held() {
        return claim_passing(state, db, index, room);
    }
    let mut picking = Picking::new(room, &known.route);
    let mut through = Timestamp::EPOCH;
    let mut left_since: Option<Timestamp> = None;
    let mut rows = Vec::new();
    let (row, after) = (known.row, known.marks.all_in_flight_through);
    // Rows that this transaction has written itself are not in these counts yet.
    let rows_wait = known.written.pending > 0 && known.marks.rows_wait_through > after;
    state.members.visit_pending(db, row, after, rows_wait, |key, waiting, is_row| {
        let since = waiting.pending_since.unwrap_or(Timestamp::EPOCH);
        if known.in_flight.contains(key) {
            return true;
        }
        let picked = picking.offer(key, waiting);
        if picked == Picked::Taken {
            rows.push(is_row.then(|| waiting.clone()));
            through = through.max(since);
        } else {
            left_since.get_or_insert(since);
        }
        picked != Picked::Enough
    })?;
    let taken = picking.taken();
    let waiting_since = left_since.map(|stamp| state.stamps.instant_of(stamp));
    let known = &mut state.audiences[index];
    known.waiting_since = waiting_since;
    if taken.is_empty() {
        // The count was wrong: the rows decide.
        state.write_members(db)?;
        let known = &mut state.audiences[index];
        known.counts.pending = members::count_pending(db.connection()?, known.row)?;
        known.written.pending = known.counts.pending;
        known.marks.look_at_all();
        state.touch(index);
        return Ok(None);
    }
    // Marks the members that may be claimed next too, so that not every claim needs a sync.
    let marks = &mut known.marks;
    marks.ahead = taken.len().saturating_mul(MARKED_AHEAD);
    if marks.claimed_through < through {
        let far = state.members.memtable.pending_far_behind(row, through, marks.ahead);
        marks.claimed_through = far.unwrap_or(through);
    }
    state.must_commit |= marks.claim(through);
    marks.all_in_flight_through = marks.all_in_flight_through.max(through);
    if let Some(since) = left_since {
        marks.look_again_from(since);
    }
    let route = Arc::clone(&known.route);
    for (member, row) in taken.iter().zip(rows) {
        known.in_flight.insert(member.context_key.clone(), row);
    }
    state.touch(index);
    Ok(Some(Batch { route, members: taken, token: SOLE_OWNER }))
}

/// Claims those of a held audience that are told all the same, the longest pending first.
fn claim_passing(
    state: &mut State,
    db: &Database,
    index: AudienceIndex,
    room: Room,
) -> rusqlite::Result<Option<Batch>> {
    let known = &state.audiences[index];
    if known.passing.has_more() && known.passing.waiting(&known.in_flight).next().is_none() {
        state.find_passing(db, index)?;
        state.touch(index);
    }
    let known = &state.audiences[index];
    let route = Arc::clone(&known.route);
    let keys: Vec<ContextKey> = known.passing.waiting(&known.in_flight).cloned().collect();
    let mut waiting = Vec::with_capacity(keys.len());
    for key in keys {
        let place = state.place(index, key.as_str());
        let member = state.load(db, index, (key.as_str(), place))?;
        match member.and_then(|member| Some((member.pending_since?, member))) {
            Some((since, member)) => waiting.push((since, key, member, place.is_row())),
            None => state.audiences[index].passing.remove(&key),
        }
    }
    waiting.sort_by_key(|(since, ..)| *since);
    let mut picking = Picking::new(room, &route);
    let mut through = Timestamp::EPOCH;
    let mut rows = Vec::new();
    for (since, key, member, is_row) in waiting {
        match picking.offer(&key, &member) {
            Picked::Taken => {
                rows.push(is_row.then_some(member));
                through = through.max(since);
            }
            Picked::Left => {}
            Picked::Enough => break,
        }
    }
    let taken = picking.taken();
    if taken.is_empty() {
        return Ok(None);
    }
    let known = &mut state.audiences[index];
    state.must_commit |= known.marks.claim(through);
    for (member, row) in taken.iter().zip(rows) {
        known.in_flight.insert(member.context_key.clone(), row);
    }
    state.touch(index);
    Ok(Some(Batch { route, members: taken, token: SOLE_OWNER }))
}

/// Claims this one member, pending or not, unless it is in flight, parked or gone.
fn claim_again(
    state: &mut State,
    db: &Database,
    route: &Route,
    context_key: &ContextKey,
) -> rusqlite::Result<Option<Batch>> {
    let Some(index) = state.audiences.of_route(route) else { return Ok(None) };
    let known = &state.audiences[index];
    let route = Arc::clone(&known.route);
    let place = state.place(index, context_key.as_str());
    let is_held = known.guard.is_held();
    if known.in_flight.contains(context_key) {
        return Ok(None);
    }
    let before = state.load(db, index, (context_key.as_str(), place))?;
    let Some(before) = before.filter(|before| before.erase || !is_held) else { return Ok(None) };
    let next = member::reassert(&before, &state.moment(index));
    let place = state.put(db, index, (context_key, place), Some(&before), &next)?;
    let after = if let Next::Write(after) = next { after } else { before };
    let Some(since) = after.pending_since else { return Ok(None) };
    let member = ClaimedMember {
        context_key: context_key.clone(),
        membership: after.membership,
        version: after.version,
    };
    let known = &mut state.audiences[index];
    state.must_commit |= known.marks.claim(since);
    let row = place.is_row().then_some(after);
    known.in_flight.insert(context_key.clone(), row);
    state.touch(index);
    Ok(Some(Batch { route, members: vec![member], token: SOLE_OWNER }))
}

/// Rows that are searched in each acknowledged audience for a member that was told and is not pending.
const NEAR: usize = 1000;

/// Claims a member behind `after` that was told and is not pending.
fn claim_told(
    state: &mut State,
    db: &Database,
    destination: &DestinationName,
    after: Option<&(AudienceId, ContextKey)>,
) -> rusqlite::Result<Option<Batch>> {
    let Some(destination) = state.audiences.destination(destination) else { return Ok(None) };
    let mut audiences = state.audiences.of_destination(destination);
    audiences.sort_by_key(|index| state.audiences[*index].route.audience.clone());
    for index in audiences {
        let known = &state.audiences[index];
        let (row, route) = (known.row, Arc::clone(&known.route));
        let behind = match after {
            Some((audience, _)) if route.audience < *audience => continue,
            Some((audience, key)) if route.audience == *audience => key.as_str(),
            _ => "",
        };
        if !known.acknowledged || known.guard.is_held() {
            continue;
        }
        let near = members::walk_in(db.connection()?, row, behind, NEAR)?;
        let told = near.iter().find(|(key, member)| {
            member.told.is_some()
                && member.pending_since.is_none()
                && member.parked_at.is_none()
                && ContextKey::new(key).is_some_and(|key| !state.is_in_flight(index, &key))
        });
        if let Some(key) = told.and_then(|(key, _)| ContextKey::new(key)) {
            return claim_again(state, db, &route, &key);
        }
    }
    Ok(None)
}
