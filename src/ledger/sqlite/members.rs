//! Rows of members: read one, write one, find what waits. No rule is decided here.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::ledger::member::{Member, Next, Told};
use crate::membership::{Membership, Timestamp};

const UNHEARD: i64 = 1;
const ERASE: i64 = 2;

/// The member, if the ledger knows it.
pub(super) fn load(db: &Connection, audience: i64, key: &str) -> rusqlite::Result<Option<Member>> {
    db.prepare_cached(
        "SELECT included, event_at, version, told, told_at, pending_since, parked_at, flags,
             key_rule, person
         FROM member WHERE audience = ?1 AND context_key = ?2",
    )?
    .query_row(params![audience, key], from_row)
    .optional()
}

/// Up to `limit` members of all audiences behind `after` in the order of the table.
pub(super) fn walk(
    db: &Connection,
    after: (i64, &str),
    limit: usize,
) -> rusqlite::Result<Vec<(i64, String, Member)>> {
    db.prepare_cached(
        "SELECT included, event_at, version, told, told_at, pending_since, parked_at, flags,
             key_rule, person, audience, context_key
         FROM member WHERE (audience, context_key) > (?1, ?2)
         ORDER BY audience, context_key LIMIT ?3",
    )?
    .query_map(params![after.0, after.1, limit], |row| {
        Ok((row.get(10)?, row.get(11)?, from_row(row)?))
    })?
    .collect()
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Member> {
    let told: Option<bool> = row.get(3)?;
    let told_at: Option<i64> = row.get(4)?;
    let flags: i64 = row.get(7)?;
    Ok(Member {
        membership: Membership::from_bool(row.get(0)?),
        event_at: Timestamp(row.get(1)?),
        version: Timestamp(row.get(2)?),
        told: told
            .zip(told_at)
            .map(|(told, at)| Told { membership: Membership::from_bool(told), at: Timestamp(at) }),
        pending_since: row.get::<_, Option<i64>>(5)?.map(Timestamp),
        parked_at: row.get::<_, Option<i64>>(6)?.map(Timestamp),
        unheard: flags & UNHEARD != 0,
        erase: flags & ERASE != 0,
        key_rule: row.get(8)?,
        person: row.get(9)?,
    })
}

/// Makes the row what the rules decided.
pub(super) fn store(
    db: &Connection,
    audience: i64,
    key: &str,
    before: Option<&Member>,
    next: &Next,
) -> rusqlite::Result<()> {
    let after = match next {
        Next::Same => return Ok(()),
        Next::Delete => {
            db.prepare_cached("DELETE FROM member WHERE audience = ?1 AND context_key = ?2")?
                .execute(params![audience, key])?;
            return Ok(());
        }
        Next::Write(after) => after,
    };
    let was_pending = before.and_then(|before| before.pending_since);
    let sql = match before {
        None => {
            "INSERT INTO member (audience, context_key, included, event_at, version, told, told_at,
                 parked_at, flags, key_rule, person, pending_since)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"
        }
        // Not naming `pending_since` spares the index of the pending a delete and an insert.
        Some(_) if was_pending == after.pending_since => {
            "UPDATE member SET included = ?3, event_at = ?4, version = ?5, told = ?6, told_at = ?7,
                 parked_at = ?8, flags = ?9, key_rule = ?10, person = ?11
             WHERE audience = ?1 AND context_key = ?2 AND pending_since IS ?12"
        }
        Some(_) => {
            "UPDATE member SET included = ?3, event_at = ?4, version = ?5, told = ?6, told_at = ?7,
                 parked_at = ?8, flags = ?9, key_rule = ?10, person = ?11, pending_since = ?12
             WHERE audience = ?1 AND context_key = ?2"
        }
    };
    let flags = i64::from(after.unheard) * UNHEARD + i64::from(after.erase) * ERASE;
    db.prepare_cached(sql)?.execute(params![
        audience,
        key,
        after.membership.as_bool(),
        after.event_at.0,
        after.version.0,
        after.told.map(|told| told.membership.as_bool()),
        after.told.map(|told| told.at.0),
        after.parked_at.map(|at| at.0),
        flags,
        after.key_rule,
        after.person,
        after.pending_since.map(|since| since.0),
    ])?;
    Ok(())
}

/// A member that waits to be told.
#[derive(Debug)]
pub(super) struct Waiting {
    pub context_key: String,
    pub membership: Membership,
    pub version: Timestamp,
    pub pending_since: Timestamp,
    /// It was refused alone before: it travels alone.
    pub alone: bool,
}

/// Shows the members of an audience that are pending since later than `after` to `visit`, the longest
/// pending first, until it has seen enough (`false`).
pub(super) fn visit_pending(
    db: &Connection,
    audience: i64,
    after: Timestamp,
    mut visit: impl FnMut(Waiting) -> bool,
) -> rusqlite::Result<()> {
    let mut statement = db.prepare_cached(
        "SELECT context_key, included, version, pending_since, parked_at IS NOT NULL
         FROM member WHERE audience = ?1 AND pending_since > ?2 ORDER BY pending_since",
    )?;
    let mut rows = statement.query(params![audience, after.0])?;
    while let Some(row) = rows.next()? {
        let waiting = Waiting {
            context_key: row.get(0)?,
            membership: Membership::from_bool(row.get(1)?),
            version: Timestamp(row.get(2)?),
            pending_since: Timestamp(row.get(3)?),
            alone: row.get(4)?,
        };
        if !visit(waiting) {
            break;
        }
    }
    Ok(())
}

/// How many members of an audience are pending, counted no further than `limit`.
pub(super) fn count_pending(db: &Connection, audience: i64, limit: u32) -> rusqlite::Result<u64> {
    db.prepare_cached(
        "SELECT count(*) FROM (SELECT 1 FROM member
             WHERE audience = ?1 AND pending_since IS NOT NULL LIMIT ?2)",
    )?
    .query_row(params![audience, limit], |row| row.get(0))
}
