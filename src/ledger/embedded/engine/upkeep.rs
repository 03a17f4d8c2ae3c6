//! Upkeep: what the writer does a slice at a time between commands, so that no command waits for it.
//!
//! * Members of a call that ended without an answer are told once more, some time after their settle: the
//!   unanswered call may have been applied after the answered one.
//! * Tasks of an operator over all members of an audience ([`walks`]), and the erasing of what was dropped.
//! * A member that left, and was told so, is forgotten after a time: until then it outranks a late, older
//!   "enter".
//! * Members whose entries have expired leave ([`sweep`]).
//! * Rejected events, parked members and messages go by age and number.

use tokio::time::Instant;

use crate::ledger::embedded::engine::state::State;
use crate::ledger::embedded::engine::sweep;
use crate::ledger::embedded::engine::walks::{self, SLICE};
use crate::ledger::embedded::tables::database::Database;
use crate::ledger::embedded::tables::{dropped, members, persons, reassertions};
use crate::ledger::member;
use crate::membership::ContextKey;

/// Does one slice of whatever is due at `now`, inside the transaction that is open on `db`.
pub(crate) fn step(state: &mut State, db: &Database, now: Instant) -> rusqlite::Result<()> {
    let reasserted = reassert_due(state, db, now)?;
    let walking = walks::step(state, db)?;
    let sweeping = sweep::step(state, db)?;
    state.free_dropped(db.connection()?)?;
    let emptying = state.free_emptied(db.connection()?)?;
    let dropping = dropped::erase_slice(&mut state.rejected, db.connection()?, SLICE)?;
    if dropping {
        state.erasure.note();
    }
    let purging = purge(state, db, now)?;
    state
        .schedule
        .sliced(now, reasserted || walking || sweeping || emptying || dropping || purging);
    Ok(())
}

/// `true`: more is due.
fn reassert_due(state: &mut State, db: &Database, now: Instant) -> rusqlite::Result<bool> {
    let Some(through) = state.schedule.take_reassertions(now) else { return Ok(false) };
    let rows = reassertions::take(db.connection()?, through, SLICE)?;
    let more = rows.len() == SLICE;
    if !rows.is_empty() {
        state.erasure.note(); // each holds a context key
    }
    for (_, row, key) in rows {
        let Some(audience) = state.audiences.of_row(row) else { continue };
        let Some(key) = ContextKey::new(&key) else { continue };
        let is_called = state.is_in_flight(audience, &key);
        state.apply(db, audience, &key, |before, moment| {
            member::reassert_after_silence(before, is_called, moment)
        })?;
    }
    if more {
        state.schedule.reassert_more(now, through);
    }
    Ok(more)
}

/// One slice of everything that expires. `true`: there is more.
fn purge(state: &mut State, db: &Database, now: Instant) -> rusqlite::Result<bool> {
    let mut more = false;
    if state.schedule.is_look_due(now) {
        let stamp = state.stamp();
        more |= state.rejected.purge_slice(db.connection()?, stamp, SLICE)?;
        more |= state.messages.purge_slice(db.connection()?, stamp, SLICE)?;
        more |= discard_parked(state, db)?;
        state.schedule.looked(now, more);
    }
    Ok(more | purge_tombstones(state, db, now)?)
}

/// Discards parked members that are too old or too many. `true`: there are more.
fn discard_parked(state: &mut State, db: &Database) -> rusqlite::Result<bool> {
    let now = state.stamp();
    let excess = state.parked.take_slice(db.connection()?, now, SLICE)?;
    let discarded = excess.members.len();
    for (row, key) in excess.members {
        let Some(audience) = state.audiences.of_row(row) else { continue };
        let Some(key) = ContextKey::new(&key) else { continue };
        state.apply(db, audience, &key, |before, _| member::discard(before))?;
    }
    if discarded > 0 {
        state.erasure.note();
        tracing::warn!(discarded, "parked members were too old or too many: discarded");
    }
    Ok(excess.is_more)
}

/// `true`: the search goes on.
fn purge_tombstones(state: &mut State, db: &Database, now: Instant) -> rusqlite::Result<bool> {
    let Some((row, key)) = state.schedule.take_tombstone_walk(now) else { return Ok(false) };
    let ttl = state.schedule.tombstone_ttl();
    let stamp = state.stamp();
    let slice = members::walk(db.connection()?, (row, &key), SLICE)?;
    for (row, key, before) in &slice {
        if before.is_spent_tombstone(stamp, ttl) {
            // Tombstones are not counted, so the audience need not be in memory.
            members::store(db.connection()?, *row, key, Some(before), None)?;
            state.erasure.note();
        }
    }
    let is_more = slice.len() == SLICE;
    match slice.into_iter().next_back() {
        Some((row, key, _)) if is_more => state.schedule.walk_tombstones_behind(row, key),
        _ => persons::purge(db.connection()?, stamp.before(ttl))?,
    }
    Ok(is_more)
}
