//! The few values of the ledger as a whole: the largest arrival, and the key of the hashes. Each stands
//! beside its checksum.

use rusqlite::types::{FromSql, ToSql};
use rusqlite::{Connection, params};

use super::checksum::{self, Checksum};

/// The largest arrival told or recorded.
pub(super) fn arrival(db: &Connection) -> rusqlite::Result<i64> {
    verified(db, "arrival", |arrival| Checksum::new().number(*arrival).finish())
}

/// Keeps the largest arrival.
pub(super) fn keep_arrival(db: &Connection, arrival: i64) -> rusqlite::Result<()> {
    db.prepare_cached(
        "UPDATE meta SET value = CASE name WHEN 'arrival' THEN ?1 ELSE ?2 END
         WHERE name IN ('arrival', 'arrival_checksum')",
    )?
    .execute(params![arrival, Checksum::new().number(arrival).finish()])?;
    Ok(())
}

/// A value that was made with the ledger and never changes.
pub(super) fn blob(db: &Connection, name: &str) -> rusqlite::Result<Vec<u8>> {
    verified(db, name, |blob: &Vec<u8>| Checksum::new().bytes(blob).finish())
}

/// Gives a new ledger, or one from before there were checksums, those that it lacks.
pub(super) fn complete(db: &Connection) -> rusqlite::Result<()> {
    let has: bool = db.query_row(
        "SELECT EXISTS (SELECT 1 FROM meta WHERE name = 'person_key_checksum')",
        [],
        |row| row.get(0),
    )?;
    if has {
        return Ok(());
    }
    let (key, arrival): (Vec<u8>, i64) = (value(db, "person_key")?, value(db, "arrival")?);
    keep(db, "arrival_checksum", Checksum::new().number(arrival).finish())?;
    keep(db, "person_key_checksum", Checksum::new().bytes(&key).finish())
}

fn value<T: FromSql>(db: &Connection, name: &str) -> rusqlite::Result<T> {
    db.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0))
}

fn keep(db: &Connection, name: &str, value: impl ToSql) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?
        .execute(params![name, value])?;
    Ok(())
}

/// Both in one statement: between two, the writer may commit.
fn verified<T: FromSql>(
    db: &Connection,
    name: &str,
    checksum_of: impl FnOnce(&T) -> u32,
) -> rusqlite::Result<T> {
    let (value, stored): (T, Option<u32>) = db
        .prepare_cached(
            "SELECT value, (SELECT value FROM meta WHERE name = ?1 || '_checksum')
             FROM meta WHERE name = ?1",
        )?
        .query_row([name], |row| Ok((row.get(0)?, row.get(1)?)))?;
    checksum::verify(stored, || checksum_of(&value), &format!("the value {name}"))?;
    Ok(value)
}
