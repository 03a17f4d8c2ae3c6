//! Rows of no store's own become rows of the tables.
//!
//! A message or a deletion is written for every destination: which one it is of cannot be told from its hash, and is not
//! needed, because no other destination looks for that hash.

use tokio_postgres::types::{ToSql, Type};

use crate::ledger::copied::{
    CopiedAudience, CopiedDeletion, CopiedDestination, CopiedEvent, CopiedMember, CopiedMessage,
    CopiedParking, CopiedReassertion, CopiedTask, CopiedWalk, Progress, Rows,
};
use crate::ledger::counts::Counts;
use crate::ledger::guard::Guard;
use crate::ledger::member::Next;
use crate::ledger::postgres::copying::{DatabaseCopy, keep, value};
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::members::Members;
use crate::ledger::postgres::pool::{Tx, transact};
use crate::ledger::postgres::rows::damaged;
use crate::ledger::postgres::schema::UNFINISHED_COPY;
use crate::membership::ContextKey;

impl DatabaseCopy {
    /// Writes these rows, and that the copy is so far and no longer where it was: all of it or nothing.
    ///
    /// # Errors
    /// They cannot be written; [`Failure::Stale`]: the copy is elsewhere, so that another command makes it, too.
    pub async fn write(
        &self,
        rows: &Rows,
        before: &Progress,
        after: &Progress,
    ) -> Result<(), Failure> {
        transact!(self.pool, |tx, _attempt| write(&tx, rows, (before, after)))
    }
}

async fn write(
    tx: &Tx,
    rows: &Rows,
    (before, after): (&Progress, &Progress),
) -> Result<(), Failure> {
    let sql = "SELECT 1 FROM cohortd WHERE name = $1 FOR UPDATE";
    tx.query(sql, &[(&UNFINISHED_COPY, Type::TEXT)]).await?;
    let found = value(tx, UNFINISHED_COPY).await?;
    if found.as_deref() == Some(&after.to_string()) {
        return Ok(()); // committed by an attempt that was not confirmed
    }
    if found.as_deref() != Some(&before.to_string()) {
        return Err(Failure::Stale);
    }
    keep(tx, UNFINISHED_COPY, Some(after.to_string())).await?;
    match rows {
        Rows::Destinations(all) => write_destinations(tx, all).await,
        Rows::Audiences(all) => write_audiences(tx, all).await,
        Rows::Members(all) => write_members(tx, all).await,
        Rows::Parkings(all) => write_parkings(tx, all).await,
        Rows::Reassertions(all) => write_reassertions(tx, all).await,
        Rows::Events(all) => write_events(tx, all).await,
        Rows::Messages(all) => write_messages(tx, all).await,
        Rows::Deletions(all) => write_deletions(tx, all).await,
    }
}

/// A number of another store, as the tables have it.
fn number(no: i64) -> Result<i32, Failure> {
    let too_large = || {
        Failure::Unavailable(
            "the ledger has a destination or an audience with a number that PostgreSQL does not take"
                .to_owned(),
        )
    };
    i32::try_from(no).map_err(|_| too_large())
}

async fn write_destinations(tx: &Tx, rows: &[CopiedDestination]) -> Result<(), Failure> {
    let sql =
        "INSERT INTO destination (no, name, environment, paused_since) OVERRIDING SYSTEM VALUE
         VALUES ($1, $2, $3, $4)";
    for CopiedDestination { no, name, environment, paused_since } in rows {
        let (no, paused_since) = (number(*no)?, paused_since.map(|at| at.0));
        let params: [(&(dyn ToSql + Sync), Type); 4] = [
            (&no, Type::INT4),
            (name, Type::TEXT),
            (environment, Type::TEXT),
            (&paused_since, Type::INT8),
        ];
        tx.execute(sql, &params).await?;
    }
    Ok(())
}

async fn write_audiences(tx: &Tx, rows: &[CopiedAudience]) -> Result<(), Failure> {
    let sql = "INSERT INTO audience (no, destination_no, audience_id, audience_key, context_kind, acknowledged,
             told_counts_from, snapshot_at, guard, is_held, walk, walk_rules, walk_since, walk_after, walk_visited,
             walk_expected) OVERRIDING SYSTEM VALUE
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";
    for row in rows {
        let (no, destination_no) = (number(row.no)?, number(row.destination_no)?);
        let is_held = match &row.guard {
            Some(guard) => Guard::parse(guard).ok_or_else(damaged)?.is_held(),
            None => false,
        };
        let walk = row.walk.as_ref();
        let task = walk.map(|walk| match walk.task {
            CopiedTask::Resync => "resync",
            CopiedTask::Retract => "retract",
            CopiedTask::RetractStale { .. } => "retract_stale",
            CopiedTask::Reenter { .. } => "reenter",
        });
        let rules = walk.and_then(rules);
        let since = walk.map(|walk| walk.since.0);
        let after = walk.map(|walk| walk.after.as_bytes());
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let visited = walk.map(|walk| count(walk.visited));
        let expected = walk.map(|walk| count(walk.expected));
        let params: [(&(dyn ToSql + Sync), Type); 16] = [
            (&no, Type::INT4),
            (&destination_no, Type::INT4),
            (&row.audience_id.as_bytes(), Type::BYTEA),
            (&row.audience_key.as_bytes(), Type::BYTEA),
            (&row.context_kind.as_bytes(), Type::BYTEA),
            (&row.acknowledged, Type::BOOL),
            (&row.told_counts_from.0, Type::INT8),
            (&row.snapshot_at.0, Type::INT8),
            (&row.guard, Type::TEXT),
            (&is_held, Type::BOOL),
            (&task, Type::TEXT),
            (&rules, Type::INT8_ARRAY),
            (&since, Type::INT8),
            (&after, Type::BYTEA),
            (&visited, Type::INT8),
            (&expected, Type::INT8),
        ];
        tx.execute(sql, &params).await?;
    }
    Ok(())
}

fn rules(walk: &CopiedWalk) -> Option<Vec<i64>> {
    match &walk.task {
        CopiedTask::Resync | CopiedTask::Retract => None,
        CopiedTask::RetractStale { current } => {
            Some(current.iter().map(|rule| i64::from(*rule)).collect())
        }
        CopiedTask::Reenter { since } => Some(vec![since.0]),
    }
}

/// Writes members that have no row, and counts them in their audiences.
async fn write_members(tx: &Tx, rows: &[CopiedMember]) -> Result<(), Failure> {
    let mut members = Members::default();
    for CopiedMember { audience_no, context_key, member } in rows {
        let key = (number(*audience_no)?, context_key.clone());
        members.is_new(key.clone());
        members.put(&key, Next::Write(member.clone()));
    }
    let changes = members.flush(tx).await?;
    let audiences: Vec<i32> = changes.keys().copied().collect();
    let more: Vec<i64> = changes.values().map(|change| change.members).collect();
    let column = |of: fn(&Counts) -> u64| -> Vec<i64> {
        changes.values().map(|change| of(&change.after).cast_signed()).collect()
    };
    let included = column(|counts| counts.included);
    let pending = column(|counts| counts.pending);
    let parked = column(|counts| counts.parked);
    let params: [(&(dyn ToSql + Sync), Type); 5] = [
        (&audiences, Type::INT4_ARRAY),
        (&more, Type::INT8_ARRAY),
        (&included, Type::INT8_ARRAY),
        (&pending, Type::INT8_ARRAY),
        (&parked, Type::INT8_ARRAY),
    ];
    let sql = "UPDATE audience a SET members = a.members + i.members, included = a.included + i.included,
             pending = a.pending + i.pending, parked = a.parked + i.parked
         FROM unnest($1, $2, $3, $4, $5) AS i(no, members, included, pending, parked) WHERE a.no = i.no";
    tx.execute(sql, &params).await.map(|_| ())
}

async fn write_parkings(tx: &Tx, rows: &[CopiedParking]) -> Result<(), Failure> {
    let mut members = Members::default();
    for CopiedParking { audience_no, context_key, at, reason } in rows {
        let context_key = ContextKey::new(context_key).ok_or_else(damaged)?;
        members.say(&(number(*audience_no)?, context_key), *at, reason);
    }
    members.flush(tx).await.map(|_| ())
}

async fn write_reassertions(tx: &Tx, rows: &[CopiedReassertion]) -> Result<(), Failure> {
    let mut members = Members::default();
    for CopiedReassertion { audience_no, context_key } in rows {
        let context_key = ContextKey::new(context_key).ok_or_else(damaged)?;
        members.tell_once_more(&(number(*audience_no)?, context_key));
    }
    members.flush(tx).await.map(|_| ())
}

async fn write_events(tx: &Tx, rows: &[CopiedEvent]) -> Result<(), Failure> {
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let destinations: Vec<i32> =
        rows.iter().map(|row| number(row.destination_no)).collect::<Result<_, _>>()?;
    let received_at: Vec<i64> = rows.iter().map(|row| row.received_at.0).collect();
    let event_at: Vec<i64> = rows.iter().map(|row| row.event_at.0).collect();
    let persons: Vec<Option<&[u8]>> =
        rows.iter().map(|row| row.person.as_ref().map(|person| &person[..])).collect();
    let reasons: Vec<&str> = rows.iter().map(|row| &*row.reason).collect();
    let details: Vec<&str> = rows.iter().map(|row| &*row.detail).collect();
    let bodies: Vec<&[u8]> = rows.iter().map(|row| &*row.body).collect();
    let params: [(&(dyn ToSql + Sync), Type); 8] = [
        (&ids, Type::INT8_ARRAY),
        (&destinations, Type::INT4_ARRAY),
        (&received_at, Type::INT8_ARRAY),
        (&event_at, Type::INT8_ARRAY),
        (&persons, Type::BYTEA_ARRAY),
        (&reasons, Type::TEXT_ARRAY),
        (&details, Type::TEXT_ARRAY),
        (&bodies, Type::BYTEA_ARRAY),
    ];
    let sql = "INSERT INTO rejected (id, destination_no, received_at, event_at, person, reason, detail, body)
             OVERRIDING SYSTEM VALUE
         SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8)";
    tx.execute(sql, &params).await.map(|_| ())
}

async fn write_messages(tx: &Tx, rows: &[CopiedMessage]) -> Result<(), Failure> {
    let hashes: Vec<&[u8]> = rows.iter().map(|row| &row.hash[..]).collect();
    let seen_at: Vec<i64> = rows.iter().map(|row| row.seen_at.0).collect();
    let counts_at: Vec<i64> = rows.iter().map(|row| row.counts_at.0).collect();
    let params: [(&(dyn ToSql + Sync), Type); 3] = [
        (&hashes, Type::BYTEA_ARRAY),
        (&seen_at, Type::INT8_ARRAY),
        (&counts_at, Type::INT8_ARRAY),
    ];
    let sql = "INSERT INTO message (destination_no, hash, seen_at, counts_at)
         SELECT d.no, i.* FROM destination d CROSS JOIN unnest($1, $2, $3) AS i";
    tx.execute(sql, &params).await.map(|_| ())
}

async fn write_deletions(tx: &Tx, rows: &[CopiedDeletion]) -> Result<(), Failure> {
    let persons: Vec<&[u8]> = rows.iter().map(|row| &row.person[..]).collect();
    let at: Vec<i64> = rows.iter().map(|row| row.at.0).collect();
    let arrivals: Vec<i64> = rows.iter().map(|row| row.arrival.0).collect();
    let params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&persons, Type::BYTEA_ARRAY), (&at, Type::INT8_ARRAY), (&arrivals, Type::INT8_ARRAY)];
    let sql = "INSERT INTO deleted (destination_no, person, at, arrival)
         SELECT d.no, i.* FROM destination d CROSS JOIN unnest($1, $2, $3) AS i";
    tx.execute(sql, &params).await.map(|_| ())
}
