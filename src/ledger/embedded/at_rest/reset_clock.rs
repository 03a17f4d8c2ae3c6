//! Repairs a ledger whose clock was once ahead: every time in the future is brought back to now.
//!
//! Arrival times never run backwards, so a clock that was ahead is believed until the real time catches up:
//! leaves are ignored, deleted persons cannot return, and nothing expires. This repairs all of it in one
//! transaction.
//!
//! # What always holds
//! * Afterwards nothing is in the future, except that pending members are spread one microsecond apart: no
//!   two pending members of an audience share a stamp, and their order is kept.
//! * What was told before a resync still does not count, and what was told since then does.
//! * A member that may have been in a call at a crash is still known as such.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, params};

use crate::ledger::embedded::at_rest::prepare;
use crate::ledger::embedded::directory::names;
use crate::ledger::embedded::ids::{AudienceRowId, DestinationRowId};
use crate::ledger::embedded::opening::open;
use crate::ledger::embedded::tables::open_error::OpenError;
use crate::ledger::embedded::tables::walk::Task;
use crate::ledger::embedded::tables::{
    audiences, destinations, members, meta, parked, persons, reassertions, rejected,
};
use crate::ledger::member::{Member, Told};
use crate::membership::{DestinationName, Timestamp};

/// Rows read at once.
const ROWS: usize = 1000;
/// Rejected events read at once: their bodies are large.
const BODIES: usize = 16;

/// What was in the future.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockReset {
    /// How far the stored arrival was ahead.
    pub ahead: Duration,
    /// Members with a time in the future.
    pub members: u64,
    /// Deletions with a time in the future.
    pub deletions: u64,
    /// Audiences with a mark in the future, and destinations that were paused in the future.
    pub marks: u64,
    /// Rejected events, park reasons and planned re-assertions.
    pub kept: u64,
}

/// Brings the ledger at `directory`, which no daemon may have open, back to `now`.
pub fn reset_clock(directory: &Path, now: Timestamp) -> Result<ClockReset, OpenError> {
    if !names::database(directory).exists() {
        return Err(OpenError::Missing(directory.to_owned()));
    }
    prepare::prepare(directory)?; // the log holds times too
    let _lock = open::lock(directory)?;
    let (mut db, found) = open::open(directory, 8192)?;
    if !found.blocks.is_empty() {
        return Err(OpenError::InUse(directory.to_owned())); // a daemon has started in between
    }
    let transaction = db.transaction()?;
    let reset = reset(&transaction, now)?;
    transaction.commit()?;
    Ok(reset)
}

fn reset(db: &Connection, now: Timestamp) -> rusqlite::Result<ClockReset> {
    let recorded = Timestamp(meta::arrival(db)?);
    let members = db.query_row(
        "SELECT count(*) FROM member WHERE max(event_at, version, coalesce(told_at, 0),
             coalesce(pending_since, 0), coalesce(parked_at, 0)) > ?1",
        [now.0],
        |row| row.get(0),
    )?;
    let end = reset_waiting(db, now)?;
    let span = Span { now, end };
    let mut marks = 0;
    let points = reset_audiences(db, span, &mut marks)?;
    reset_members(db, span, &points)?;
    marks += reset_destinations(db, now)?;
    let deletions = reset_deletions(db, now)?;
    reset_messages(db, now)?;
    let kept = reset_rejected(db, now)? + reset_parked(db, now)? + reset_reassertions(db, now)?;
    if recorded > now {
        meta::keep_arrival(db, end.0)?;
    }
    Ok(ClockReset { ahead: recorded.since(now), members, deletions, marks, kept })
}

/// The range that times in the future are mapped to.
#[derive(Clone, Copy, Debug)]
struct Span {
    now: Timestamp,
    /// Later than every pending member, and earlier than every stamp given out from now on.
    end: Timestamp,
}

impl Span {
    /// Maps a time in the future to `now`, or to `end` if it is at or after `point`.
    fn bring(self, at: Timestamp, point: Option<Timestamp>) -> Timestamp {
        let is_behind = point.is_some_and(|point| at >= point);
        if at <= self.now {
            at
        } else if is_behind {
            self.end
        } else {
            self.now
        }
    }

    /// Maps a mark, which must stay at or after everything that it covers.
    fn mark(self, at: Timestamp) -> Timestamp {
        if at > self.now { self.end } else { at }
    }

    fn member(self, before: &Member, points: &Points) -> Member {
        Member {
            event_at: before.event_at.min(self.now),
            version: self.bring(before.version, points.kept_from),
            told: before
                .told
                .map(|told| Told { at: self.bring(told.at, points.told_counts_from), ..told }),
            parked_at: before.parked_at.map(|at| at.min(self.now)),
            // `refused_with` is only compared for equality: it groups members and is no time to be mapped.
            ..before.clone()
        }
    }
}

/// Points in the future that order the members of an audience, and whose order must be kept.
#[derive(Clone, Copy, Debug, Default)]
struct Points {
    /// What was told at or after this counts.
    told_counts_from: Option<Timestamp>,
    /// Members that changed at or after this are not retracted.
    kept_from: Option<Timestamp>,
}

/// Gives members pending since the future new stamps from `now` on, one microsecond apart in their old order.
/// Returns a time after all of them.
fn reset_waiting(db: &Connection, now: Timestamp) -> rusqlite::Result<Timestamp> {
    let audiences: Vec<AudienceRowId> = db
        .prepare("SELECT DISTINCT audience FROM member WHERE pending_since > ?1")?
        .query_map([now.0], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut last_of_all = now;
    for audience in audiences {
        let (mut through, mut last) = (now, now);
        loop {
            let slice: Vec<(String, i64)> = db
                .prepare_cached(
                    "SELECT context_key, pending_since FROM member
                     WHERE audience = ?1 AND pending_since > ?2 ORDER BY pending_since LIMIT ?3",
                )?
                .query_map(params![audience, through.0, ROWS], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?
                .collect::<Result<_, _>>()?;
            // Every new stamp is earlier than the ones still to be visited, and no two members share one:
            // none is visited twice.
            let Some((_, before)) = slice.last() else { break };
            through = Timestamp(*before);
            for (key, _) in slice {
                let Some(before) = members::load(db, audience, &key)? else { continue };
                last.0 += 1;
                let after = Member { pending_since: Some(last), ..before.clone() };
                members::store(db, audience, &key, Some(&before), Some(&after))?;
            }
        }
        last_of_all = last_of_all.max(last);
    }
    Ok(Timestamp(last_of_all.0 + 1))
}

/// Maps the marks of every audience; returns the points that order its members.
fn reset_audiences(
    db: &Connection,
    span: Span,
    marks: &mut u64,
) -> rusqlite::Result<HashMap<AudienceRowId, Points>> {
    let mut all = HashMap::new();
    let destinations: Vec<(DestinationRowId, String)> = db
        .prepare("SELECT id, name FROM destination")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (destination, name) in destinations {
        let name = audiences::stored(DestinationName::new(&name))?;
        for mut audience in audiences::of_destination(db, destination, &name)? {
            let mut points = Points::default();
            let is_future = |at: Timestamp| at > span.now;
            points.told_counts_from = Some(audience.told_counts_from).filter(|at| is_future(*at));
            audience.guard.bring_back(span.now);
            audience.snapshot_at = audience.snapshot_at.min(span.now);
            if let Some(walk) = &mut audience.walk {
                walk.since = walk.since.min(span.now);
                if let Task::Retract { through } = &mut walk.task
                    && is_future(*through)
                {
                    points.kept_from = Some(Timestamp(through.0 + 1));
                    *through = span.now;
                }
            }
            for mark in [
                &mut audience.told_counts_from,
                &mut audience.claimed_through,
                &mut audience.unheard_through,
            ] {
                *mark = span.mark(*mark);
            }
            all.insert(audience.id, points);
            if audience.stored != Some(audience.checksum()) {
                audience.write(db)?;
                *marks += 1;
            }
        }
    }
    Ok(all)
}

fn reset_members(
    db: &Connection,
    span: Span,
    points: &HashMap<AudienceRowId, Points>,
) -> rusqlite::Result<()> {
    let mut after = (AudienceRowId(i64::MIN), String::new());
    loop {
        let slice = members::walk(db, (after.0, &after.1), ROWS)?;
        for (audience, key, before) in &slice {
            let points = points.get(audience).copied().unwrap_or_default();
            let now = span.member(before, &points);
            if now != *before {
                members::store(db, *audience, key, Some(before), Some(&now))?;
            }
        }
        let Some((audience, key, _)) = slice.into_iter().next_back() else { return Ok(()) };
        after = (audience, key);
    }
}

/// Applies `change` to rows that `select` finds later than now, until it finds none.
fn until_none<T>(
    db: &Connection,
    now: Timestamp,
    (select, limit): (&str, usize),
    mut read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    mut change: impl FnMut(T) -> rusqlite::Result<()>,
) -> rusqlite::Result<u64> {
    let mut changed = 0;
    loop {
        let found: Vec<T> = db
            .prepare_cached(&format!("{select} > ?1 LIMIT {limit}"))?
            .query_map([now.0], &mut read)?
            .collect::<Result<_, _>>()?;
        if found.is_empty() {
            return Ok(changed);
        }
        changed += found.len() as u64;
        found.into_iter().try_for_each(&mut change)?;
    }
}

fn reset_destinations(db: &Connection, now: Timestamp) -> rusqlite::Result<u64> {
    let select = "SELECT id, name, environment FROM destination WHERE paused_at";
    let read = |row: &rusqlite::Row<'_>| {
        Ok((row.get(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
    };
    until_none(db, now, (select, ROWS), read, |(id, name, environment)| {
        let checksum = destinations::checksum_of(id, &name, &environment, Some(now.0));
        let update = "UPDATE destination SET paused_at = ?2, checksum = ?3 WHERE id = ?1";
        db.execute(update, params![id, now.0, checksum]).map(|_| ())
    })
}

fn reset_deletions(db: &Connection, now: Timestamp) -> rusqlite::Result<u64> {
    let select = "SELECT person, forgotten_at, seen_at FROM forgotten
         WHERE max(forgotten_at, coalesce(seen_at, 0))";
    let read = |row: &rusqlite::Row<'_>| {
        Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, i64>(1)?, row.get::<_, Option<i64>>(2)?))
    };
    until_none(db, now, (select, ROWS), read, |(person, at, seen_at)| {
        persons::keep(db, &person, at.min(now.0), seen_at.map(|seen_at| seen_at.min(now.0)))
    })
}

/// A message repeated after this counts as new: it cannot be told from a message of now.
fn reset_messages(db: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    db.execute("DELETE FROM message WHERE max(seen_at, counts_at) > ?1", [now.0]).map(|_| ())
}

fn reset_rejected(db: &Connection, now: Timestamp) -> rusqlite::Result<u64> {
    db.execute("UPDATE rejected SET event_at = ?1 WHERE event_at > ?1", [now.0])?;
    let select = "SELECT id, reason, detail, body FROM rejected WHERE received_at";
    let read = |row: &rusqlite::Row<'_>| {
        let (reason, detail): (String, String) = (row.get(1)?, row.get(2)?);
        let body: Vec<u8> = row.get(3)?;
        Ok((row.get::<_, i64>(0)?, rejected::checksum_of(now, &reason, &detail, &body)))
    };
    until_none(db, now, (select, BODIES), read, |(id, checksum)| {
        let update = "UPDATE rejected SET received_at = ?2, checksum = ?3 WHERE id = ?1";
        db.execute(update, params![id, now.0, checksum]).map(|_| ())
    })
}

fn reset_parked(db: &Connection, now: Timestamp) -> rusqlite::Result<u64> {
    let select = "SELECT audience, context_key FROM parked WHERE parked_at";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get::<_, String>(1)?));
    until_none(db, now, (select, ROWS), read, |(audience, key)| {
        let Some((_, reason)) = parked::load(db, audience, &key)? else { return Ok(()) };
        parked::keep(db, audience, &key, now, &reason)
    })
}

/// Two re-assertions of one member become one.
fn reset_reassertions(db: &Connection, now: Timestamp) -> rusqlite::Result<u64> {
    let select = "SELECT settled_at, audience, context_key FROM reassertion WHERE settled_at";
    let read = |row: &rusqlite::Row<'_>| {
        Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get::<_, String>(2)?))
    };
    until_none(db, now, (select, ROWS), read, |(at, audience, key)| {
        let checksum = reassertions::checksum_of(now.0, audience, &key);
        db.execute(
            "UPDATE OR REPLACE reassertion SET settled_at = ?4, checksum = ?5
             WHERE settled_at = ?1 AND audience = ?2 AND context_key = ?3",
            params![at, audience, key, now.0, checksum],
        )
        .map(|_| ())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_before_a_resync_stays_before_it() {
        let span = Span { now: Timestamp(100), end: Timestamp(103) };
        let resync = Timestamp(500);
        for (at, after) in [(99, 99), (100, 100), (101, 100), (499, 100), (500, 103), (501, 103)] {
            assert_eq!(span.bring(Timestamp(at), Some(resync)), Timestamp(after), "{at}");
        }
        assert_eq!(span.mark(resync), Timestamp(103));
        assert_eq!(span.mark(Timestamp(99)), Timestamp(99));
        assert_eq!(span.bring(Timestamp(101), None), Timestamp(100), "nothing divides them");
    }
}
