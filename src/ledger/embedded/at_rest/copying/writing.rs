//! Rows of no store's own become rows of the tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{Connection, params};

use crate::ledger::Route;
use crate::ledger::copied::{
    CopiedAudience, CopiedDestination, CopiedEvent, CopiedMember, CopiedMessage, CopiedTask,
    CopiedWalk, Progress, Rows,
};
use crate::ledger::counts::Counts;
use crate::ledger::embedded::at_rest::copying::DirectoryCopy;
use crate::ledger::embedded::ids::{AudienceRowId, DestinationRowId};
use crate::ledger::embedded::tables::audiences::{self, AudienceRow};
use crate::ledger::embedded::tables::members::{Storing, TOGETHER};
use crate::ledger::embedded::tables::open_error::OpenError;
use crate::ledger::embedded::tables::walk::{Task, Walk};
use crate::ledger::embedded::tables::{
    destinations, messages, meta, parked, persons, reassertions, rejected,
};
use crate::ledger::guard::Guard;
use crate::membership::{AudienceId, AudienceKey, ContextKind, DestinationName, Timestamp};

impl DirectoryCopy {
    /// Writes these rows, and that the copy is so far: all of it or nothing.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write(&mut self, rows: &Rows, progress: &Progress) -> Result<(), OpenError> {
        let Self { db, destinations, audiences, .. } = self;
        let tx = db.unchecked_transaction()?;
        match rows {
            Rows::Destinations(all) => {
                for row in all {
                    destinations.insert(row.no, write_destination(&tx, row)?);
                }
            }
            Rows::Audiences(all) => {
                for row in all {
                    let name = audiences::stored(destinations.get(&row.destination_no))?;
                    audiences.insert(row.no, write_audience(&tx, name, row)?);
                }
            }
            Rows::Members(all) => write_members(&tx, audiences, all)?,
            Rows::Parkings(all) => {
                for row in all {
                    let audience = AudienceRowId(row.audience_no);
                    parked::keep(&tx, audience, &row.context_key, row.at, &row.reason)?;
                }
            }
            Rows::Reassertions(all) => {
                let settled_at = Timestamp(meta::arrival(&tx)?); // not before they were told
                for row in all {
                    let audience = AudienceRowId(row.audience_no);
                    reassertions::insert(&tx, audience, &row.context_key, settled_at)?;
                }
            }
            Rows::Events(all) => all.iter().try_for_each(|row| write_event(&tx, row))?,
            Rows::Messages(all) => all.iter().try_for_each(|row| write_message(&tx, row))?,
            Rows::Deletions(all) => {
                for row in all {
                    persons::keep(&tx, &row.person, row.at.0, Some(row.arrival.0))?;
                }
            }
        }
        meta::keep_of_copy(&tx, meta::UNFINISHED_COPY, Some(&progress.to_string()))?;
        Ok(tx.commit()?)
    }
}

fn write_destination(
    db: &Connection,
    row: &CopiedDestination,
) -> rusqlite::Result<DestinationName> {
    let CopiedDestination { no, name, environment, paused_since } = row;
    let paused_at = paused_since.map(|at| at.0);
    let checksum = destinations::checksum_of(DestinationRowId(*no), name, environment, paused_at);
    db.execute(
        "INSERT INTO destination (id, name, environment, paused_at, checksum) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![no, name, environment, paused_at, checksum],
    )?;
    audiences::stored(DestinationName::new(name))
}

fn write_audience(
    db: &Connection,
    name: &DestinationName,
    row: &CopiedAudience,
) -> rusqlite::Result<AudienceRow> {
    let route = Route {
        destination: name.clone(),
        audience: audiences::stored(AudienceId::new(&row.audience_id))?,
        audience_key: audiences::stored(AudienceKey::new(&row.audience_key))?,
        context_kind: audiences::stored(ContextKind::new(&row.context_kind))?,
    };
    db.prepare_cached(
        "INSERT INTO audience (id, destination, audience_id, audience_key, context_kind)
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![
        row.no,
        row.destination_no,
        row.audience_id,
        row.audience_key,
        row.context_kind
    ])?;
    let guard = row.guard.as_deref().map_or(Some(Guard::default()), Guard::parse);
    let written = AudienceRow {
        id: AudienceRowId(row.no),
        route: Arc::new(route),
        acknowledged: row.acknowledged,
        told_counts_from: row.told_counts_from,
        snapshot_at: row.snapshot_at,
        claimed_through: Timestamp::EPOCH,
        unheard_through: Timestamp::EPOCH,
        walk: row.walk.as_ref().map(walk),
        counts: Counts::default(),
        guard: audiences::stored(guard)?,
        stored: None,
    };
    written.write(db)?;
    Ok(written)
}

fn walk(row: &CopiedWalk) -> Walk {
    let CopiedWalk { task, since, after, visited, expected } = row;
    let task = match task {
        CopiedTask::Resync => Task::Resync,
        CopiedTask::Retract => Task::Retract { through: *since },
        CopiedTask::RetractStale { current } => Task::RetractStale { current: current.clone() },
        CopiedTask::Reenter { since: left_since } => {
            Task::Reenter { since: *left_since, at: *since }
        }
    };
    Walk { task, after: after.clone(), since: *since, visited: *visited, expected: *expected }
}

/// Writes members that have no row, and counts them in their audiences.
fn write_members(
    db: &Connection,
    audiences: &mut BTreeMap<i64, AudienceRow>,
    rows: &[CopiedMember],
) -> rusqlite::Result<()> {
    let mut storing = Storing::into(db);
    let (together, others) = rows.as_chunks::<TOGETHER>();
    for rows in together {
        let mut insert = storing.insert_together()?;
        for CopiedMember { audience_no, context_key, member } in rows {
            insert.add(AudienceRowId(*audience_no), context_key.as_str(), member)?;
        }
        insert.insert()?;
    }
    for CopiedMember { audience_no, context_key, member } in others {
        storing.store(AudienceRowId(*audience_no), context_key.as_str(), None, Some(member))?;
    }
    let mut counts: BTreeMap<i64, Counts> = BTreeMap::new();
    for row in rows {
        *counts.entry(row.audience_no).or_default() += Counts::of(Some(&row.member));
    }
    for (no, more) in counts {
        let audience = audiences::stored(audiences.get_mut(&no))?;
        audience.counts += more;
        audience.write(db)?;
    }
    Ok(())
}

fn write_event(db: &Connection, row: &CopiedEvent) -> rusqlite::Result<()> {
    let CopiedEvent { id, destination_no, received_at, event_at, person, reason, detail, body } =
        row;
    let checksum = rejected::checksum_of(*received_at, reason, detail, body);
    db.prepare_cached(
        "INSERT INTO rejected (id, destination, received_at, reason, detail, body, person, checksum, event_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        id,
        destination_no,
        received_at.0,
        reason,
        detail,
        body,
        person,
        checksum,
        event_at.0
    ])?;
    Ok(())
}

/// No two messages are remembered from the same moment on here: whoever comes second moves on a little.
fn write_message(db: &Connection, row: &CopiedMessage) -> rusqlite::Result<()> {
    let mut seen_at = row.seen_at.0;
    let mut taken =
        db.prepare_cached("SELECT EXISTS (SELECT 1 FROM message WHERE seen_at = ?1)")?;
    while taken.query_row([seen_at], |row| row.get::<_, bool>(0))? {
        seen_at += 1;
    }
    messages::keep(db, &row.hash, Timestamp(seen_at), row.counts_at)
}
