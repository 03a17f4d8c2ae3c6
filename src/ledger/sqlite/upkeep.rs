//! Upkeep: what the writer does a slice at a time beside the verbs, so that no verb waits for it.
//!
//! * Members of a call that ended without an answer are told once more, some time after their settle:
//!   the call may have been applied after its successor.
//! * A resync makes the members of an audience pending, paced by how fast they are delivered.
//! * A member that left, and was told so, is forgotten after its time: until then a late old "enter"
//!   finds it and loses.

use std::collections::VecDeque;
use std::time::Duration;

use rusqlite::{Connection, params};
use tokio::time::Instant;

use super::members;
use super::writer::State;
use crate::ledger::member::{self, Next};
use crate::membership::Timestamp;

/// Rows in one slice: about a millisecond of the writer's time.
const SLICE: usize = 500;
/// A resync adds no more while this many members of the audience wait.
const RESYNC_AHEAD: u64 = 5_000;
/// Pause between two slices while nothing else wakes the writer.
const PAUSE: Duration = Duration::from_millis(50);

/// Re-assertions that are due within this of each other share one entry.
const TOGETHER: Duration = Duration::from_millis(10);

/// What is due and when.
#[derive(Debug)]
pub(super) struct Upkeep {
    tombstone_ttl: Duration,
    reassert_after: Duration,
    /// Re-assertions up to a stamp are due at an instant; oldest first.
    reassertions: VecDeque<(Instant, Timestamp)>,
    /// The row that the current walk for tombstones has come to.
    walk: Option<(i64, String)>,
    next_walk: Instant,
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
            walk: None,
            next_walk: now + walk_interval(tombstone_ttl),
            next_slice: now,
            more: true,
        };
        upkeep.reload(db)?;
        Ok(upkeep)
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
        let next = [slice, reassertion].into_iter().flatten().fold(self.next_walk, Instant::min);
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
        db.prepare_cached("INSERT OR IGNORE INTO reassertion VALUES (?1, ?2, ?3)")?
            .execute(params![at.0, audience, key])?;
        let due = Instant::now() + self.reassert_after + TOGETHER;
        match self.reassertions.back_mut() {
            Some((earlier, through)) if due.duration_since(*earlier) < TOGETHER => *through = at,
            _ => self.reassertions.push_back((due, at)),
        }
        Ok(())
    }

    /// One slice of whatever is due, inside the transaction that is open on `db`.
    pub fn step(state: &mut State, db: &Connection) -> rusqlite::Result<()> {
        let now = Instant::now();
        let due = state.upkeep.reassertions.front().is_some_and(|(due, _)| *due <= now);
        let slice = state.upkeep.more && state.upkeep.next_slice <= now;
        if !due && !slice && state.upkeep.next_walk > now {
            return Ok(());
        }
        let reasserted = reassert_due(state, db, now)?;
        let resyncing = resync(state, db)?;
        let walking = purge(state, db, now)?;
        state.upkeep.more = reasserted || resyncing || walking;
        state.upkeep.next_slice = now + PAUSE;
        Ok(())
    }
}

/// Often enough that a tombstone outlives its time by little.
fn walk_interval(tombstone_ttl: Duration) -> Duration {
    (tombstone_ttl / 16).clamp(Duration::from_secs(1), Duration::from_secs(6 * 3600))
}

/// `true`: there is more that is due.
fn reassert_due(state: &mut State, db: &Connection, now: Instant) -> rusqlite::Result<bool> {
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
             RETURNING settled_at, audience, context_key",
        )?
        .query_map(params![through.0, SLICE], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    let more = rows.len() == SLICE;
    for (_, row, key) in rows {
        let Some(audience) = state.audiences.of_row(row) else { continue };
        state.apply(db, audience, &key, member::reassert)?;
    }
    if more {
        state.upkeep.reassertions.push_front((now, through));
    }
    Ok(more)
}

/// `true`: a resync is under way.
fn resync(state: &mut State, db: &Connection) -> rusqlite::Result<bool> {
    let mut under_way = false;
    for audience in 0..state.audiences.list.len() {
        let known = &state.audiences.list[audience];
        let Some(after) = known.resync_after.clone() else { continue };
        under_way = true;
        if known.pending >= RESYNC_AHEAD {
            continue;
        }
        let (row, counts_from) = (known.row, known.told_counts_from);
        let slice = members::walk(db, (row, &after), SLICE)?;
        let of_this = slice.iter().take_while(|(of, _, _)| *of == row);
        let mut reached = None;
        for (_, key, before) in of_this {
            if before.told.is_none_or(|told| told.at < counts_from) {
                let next = member::reassert(before, &state.moment(audience));
                state.put(db, audience, key, Some(before), &next)?;
            }
            reached = Some(key.clone());
        }
        db.prepare_cached("UPDATE audience SET resync_after = ?2 WHERE id = ?1")?
            .execute(params![row, reached])?;
        state.audiences.list[audience].resync_after = reached;
    }
    Ok(under_way)
}

/// `true`: the walk goes on.
fn purge(state: &mut State, db: &Connection, now: Instant) -> rusqlite::Result<bool> {
    if state.upkeep.walk.is_none() {
        if state.upkeep.next_walk > now {
            return Ok(false);
        }
        state.upkeep.walk = Some((i64::MIN, String::new()));
    }
    let ttl = state.upkeep.tombstone_ttl;
    let stamp = state.stamp();
    let Some((row, key)) = state.upkeep.walk.take() else { return Ok(false) };
    let slice = members::walk(db, (row, &key), SLICE)?;
    for (row, key, before) in &slice {
        if before.is_spent_tombstone(stamp, ttl) {
            members::store(db, *row, key, Some(before), &Next::Delete)?;
        }
    }
    state.upkeep.walk = (slice.len() == SLICE)
        .then(|| slice.into_iter().next_back().map(|(row, key, _)| (row, key)))
        .flatten();
    if state.upkeep.walk.is_none() {
        state.upkeep.next_walk = now + walk_interval(ttl);
        let micros = i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX);
        db.execute(
            "DELETE FROM forgotten WHERE forgotten_at < ?1",
            [stamp.0.saturating_sub(micros)],
        )?;
    }
    Ok(state.upkeep.walk.is_some())
}
