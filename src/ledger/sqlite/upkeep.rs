//! Upkeep: what the writer does a slice at a time beside the verbs, so that no verb waits for it.
//!
//! * Members of a call that ended without an answer are told once more, some time after their settle:
//!   the call may have been applied after its successor.
//! * What an operator asked for every member of an audience (`walks`), and what was dropped.
//! * A member that left, and was told so, is forgotten after its time: until then a late old "enter"
//!   finds it and loses. Rejected events, parked members and messages go when they are too old or too
//!   many.

use std::collections::VecDeque;
use std::time::Duration;

use rusqlite::{Connection, Row, params};
use tokio::time::Instant;

use super::checksum::{self, Checksum};
use super::database::Database;
use super::parked::Parked;
use super::state::State;
use super::walks::SLICE;
use super::{dropped, members, persons, walks};
use crate::ledger::member;
use crate::membership::{ContextKey, Timestamp};

/// Pause between two slices while nothing else wakes the writer.
const PAUSE: Duration = Duration::from_millis(50);

/// Re-assertions that are due within this of each other share one entry.
const TOGETHER: Duration = Duration::from_millis(10);

/// Between two looks at the age and number of rejected events and parked members.
const LOOK: Duration = Duration::from_secs(60);

/// What is due and when.
#[derive(Debug)]
pub(super) struct Upkeep {
    tombstone_ttl: Duration,
    reassert_after: Duration,
    /// Re-assertions up to a stamp are due at an instant; oldest first.
    reassertions: VecDeque<(Instant, Timestamp)>,
    /// The position of the audience that is walked next.
    pub next_walker: usize,
    /// The row that the current walk for tombstones has come to.
    walk: Option<(i64, String)>,
    next_walk: Instant,
    /// When rejected events and parked members are looked at next.
    next_look: Instant,
    next_slice: Instant,
    more: bool,
}

impl Upkeep {
    pub fn open(
        db: &Connection,
        tombstone_ttl: Duration,
        reassert_after: Duration,
    ) -> rusqlite::Result<Self> {
        let now = Instant::now();
        let mut upkeep = Self {
            tombstone_ttl,
            reassert_after,
            reassertions: VecDeque::new(),
            next_walker: 0,
            walk: None,
            next_walk: now + walk_interval(tombstone_ttl),
            next_look: now,
            next_slice: now,
            more: true,
        };
        upkeep.reload(db)?;
        Ok(upkeep)
    }

    /// From here on, re-assertions are due so long after a settle.
    pub fn reassert_after(&mut self, reassert_after: Duration) {
        self.reassert_after = reassert_after;
    }

    /// Plans what the table says, at opening and after a transaction that was rolled back.
    pub fn reload(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let latest: Option<i64> =
            db.query_row("SELECT max(settled_at) FROM reassertion", [], |row| row.get(0))?;
        let due = Instant::now() + self.reassert_after;
        self.reassertions = latest.map(|latest| (due, Timestamp(latest))).into_iter().collect();
        self.wake();
        Ok(())
    }

    /// There is something to do beside the verbs.
    pub fn wake(&mut self) {
        self.more = true;
    }

    /// How long the writer may sleep if no verb arrives.
    pub fn idle_for(&self, now: Instant) -> Duration {
        let slice = self.more.then_some(self.next_slice);
        let reassertion = self.reassertions.front().map(|(due, _)| *due);
        let regular = self.next_walk.min(self.next_look);
        let next = [slice, reassertion].into_iter().flatten().fold(regular, Instant::min);
        next.saturating_duration_since(now)
    }

    /// Notes that a member settled at `at` is to be told once more.
    pub fn reassert_later(
        &mut self,
        db: &Connection,
        audience: i64,
        key: &str,
        at: Timestamp,
    ) -> rusqlite::Result<()> {
        db.prepare_cached("INSERT OR IGNORE INTO reassertion VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![at.0, audience, key, checksum_of(at.0, audience, key)])?;
        let due = Instant::now() + self.reassert_after + TOGETHER;
        match self.reassertions.back_mut() {
            Some((earlier, through)) if due.duration_since(*earlier) < TOGETHER => *through = at,
            _ => self.reassertions.push_back((due, at)),
        }
        Ok(())
    }

    /// One slice of whatever is due at `now`, inside the transaction that is open on `db`.
    pub fn step(state: &mut State, db: &Database, now: Instant) -> rusqlite::Result<()> {
        let reasserted = reassert_due(state, db, now)?;
        let walking = walks::step(state, db)?;
        state.free_dropped(db)?;
        let dropping = dropped::erase_slice(state, db)?;
        if dropping {
            state.erasure.note();
        }
        let purging = purge(state, db, now)?;
        state.upkeep.more = reasserted || walking || dropping || purging;
        state.upkeep.next_slice = now + PAUSE;
        Ok(())
    }
}

fn reassertion(row: &Row<'_>) -> rusqlite::Result<(i64, i64, String)> {
    let (at, audience, key): (i64, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let read = || checksum_of(at, audience, &key);
    checksum::verify(row.get(3)?, read, "a planned re-assertion")?;
    Ok((at, audience, key))
}

pub(super) fn checksum_of(at: i64, audience: i64, key: &str) -> u32 {
    Checksum::new().number(at).number(audience).text(key).finish()
}

/// Reads every planned re-assertion; one that is not as it was written is an error.
pub(super) fn verify_all(db: &Connection) -> rusqlite::Result<()> {
    db.prepare("SELECT settled_at, audience, context_key, checksum FROM reassertion")?
        .query_map([], |row| reassertion(row).map(|_| ()))?
        .collect()
}

/// Often enough that a tombstone outlives its time by little.
fn walk_interval(tombstone_ttl: Duration) -> Duration {
    (tombstone_ttl / 16).clamp(Duration::from_secs(1), Duration::from_secs(6 * 3600))
}

/// `true`: there is more that is due.
fn reassert_due(state: &mut State, db: &Database, now: Instant) -> rusqlite::Result<bool> {
    let mut through = None;
    while let Some((due, stamp)) = state.upkeep.reassertions.front().copied() {
        if due > now {
            break;
        }
        through = Some(stamp);
        state.upkeep.reassertions.pop_front();
    }
    let Some(through) = through else { return Ok(false) };
    let rows: Vec<(i64, i64, String)> = db
        .prepare_cached(
            "DELETE FROM reassertion WHERE (settled_at, audience, context_key) IN (
                 SELECT settled_at, audience, context_key FROM reassertion
                 WHERE settled_at <= ?1 LIMIT ?2)
             RETURNING settled_at, audience, context_key, checksum",
        )?
        .query_map(params![through.0, SLICE], reassertion)?
        .collect::<Result<_, _>>()?;
    let more = rows.len() == SLICE;
    if !rows.is_empty() {
        state.erasure.note(); // each has a context key
    }
    for (_, row, key) in rows {
        let Some(audience) = state.audiences.of_row(row) else { continue };
        let Some(key) = ContextKey::new(&key) else { continue };
        let is_called = state.is_claimed(audience, &key);
        state.apply(db, audience, &key, |before, moment| {
            member::reassert_after_silence(before, is_called, moment)
        })?;
    }
    if more {
        state.upkeep.reassertions.push_front((now, through));
    }
    Ok(more)
}

/// One slice of everything that goes after its time. `true`: there is more.
fn purge(state: &mut State, db: &Database, now: Instant) -> rusqlite::Result<bool> {
    let mut more = false;
    if state.upkeep.next_look <= now {
        let stamp = state.stamp();
        more |= state.rejected.purge_slice(db, stamp)?;
        more |= state.messages.purge_slice(db, stamp)?;
        more |= Parked::purge_slice(state, db)?;
        state.upkeep.next_look = now + if more { PAUSE } else { LOOK };
    }
    Ok(more | purge_tombstones(state, db, now)?)
}

/// `true`: the walk goes on.
fn purge_tombstones(state: &mut State, db: &Database, now: Instant) -> rusqlite::Result<bool> {
    if state.upkeep.walk.is_none() {
        if state.upkeep.next_walk > now {
            return Ok(false);
        }
        state.upkeep.walk = Some((i64::MIN, String::new()));
        state.upkeep.next_walk = now + walk_interval(state.upkeep.tombstone_ttl);
    }
    let ttl = state.upkeep.tombstone_ttl;
    let stamp = state.stamp();
    let Some((row, key)) = state.upkeep.walk.take() else { return Ok(false) };
    let slice = members::walk(db, (row, &key), SLICE)?;
    for (row, key, before) in &slice {
        if before.is_spent_tombstone(stamp, ttl) {
            // No count is of tombstones, so that the audience need not be known.
            members::store(db, *row, key, Some(before), None)?;
            state.erasure.note();
        }
    }
    state.upkeep.walk = (slice.len() == SLICE)
        .then(|| slice.into_iter().next_back().map(|(row, key, _)| (row, key)))
        .flatten();
    if state.upkeep.walk.is_none() {
        persons::purge(db, stamp.before(ttl))?;
    }
    Ok(state.upkeep.walk.is_some())
}
