//! Planned re-assertions: members to be told once more, some time after they were settled.

use rusqlite::{Connection, Row, params};

use crate::ledger::embedded::ids::AudienceRowId;
use crate::ledger::embedded::tables::checksum::{self, Checksum};
use crate::membership::Timestamp;

/// The settle's stamp, the row of the audience, and the context key.
type Reassertion = (i64, AudienceRowId, String);

/// The stamp of the latest settle among them.
pub(crate) fn latest(db: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    let latest: Option<i64> =
        db.query_row("SELECT max(settled_at) FROM reassertion", [], |row| row.get(0))?;
    Ok(latest.map(Timestamp))
}

/// Plans to tell a member once more that was settled at `at`.
pub(crate) fn insert(
    db: &Connection,
    audience: AudienceRowId,
    key: &str,
    at: Timestamp,
) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR IGNORE INTO reassertion VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![at.0, audience, key, checksum_of(at.0, audience, key)])?;
    Ok(())
}

/// Removes and returns up to `limit` of those settled until `through`.
pub(crate) fn take(
    db: &Connection,
    through: Timestamp,
    limit: usize,
) -> rusqlite::Result<Vec<Reassertion>> {
    db.prepare_cached(
        "DELETE FROM reassertion WHERE (settled_at, audience, context_key) IN (
             SELECT settled_at, audience, context_key FROM reassertion
             WHERE settled_at <= ?1 LIMIT ?2)
         RETURNING settled_at, audience, context_key, checksum",
    )?
    .query_map(params![through.0, limit], reassertion)?
    .collect()
}

fn reassertion(row: &Row<'_>) -> rusqlite::Result<Reassertion> {
    let (at, audience, key): (i64, AudienceRowId, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let read = || checksum_of(at, audience, &key);
    checksum::verify(row.get(3)?, read, "a planned re-assertion")?;
    Ok((at, audience, key))
}

pub(crate) fn checksum_of(at: i64, audience: AudienceRowId, key: &str) -> u32 {
    Checksum::new().number(at).number(audience.0).text(key).finish()
}

/// Verifies every planned re-assertion; damage is an error.
pub(crate) fn verify_all(db: &Connection) -> rusqlite::Result<()> {
    db.prepare("SELECT settled_at, audience, context_key, checksum FROM reassertion")?
        .query_map([], |row| reassertion(row).map(|_| ()))?
        .collect()
}
