//! The few values of the ledger as a whole: the largest arrival, and the key of the hashes. Each stands
//! beside its checksum.

use rusqlite::types::{FromSql, ToSql};
use rusqlite::{Connection, OptionalExtension, params};

use super::checksum::{self, Checksum};

/// The largest arrival told or recorded.
pub(super) fn arrival(db: &Connection) -> rusqlite::Result<i64> {
    let arrival = value(db, "arrival")?;
    verify(db, "arrival", || Checksum::new().number(arrival).finish())?;
    Ok(arrival)
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
    let blob: Vec<u8> = value(db, name)?;
    verify(db, name, || Checksum::new().bytes(&blob).finish())?;
    Ok(blob)
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

fn verify(db: &Connection, name: &str, read: impl FnOnce() -> u32) -> rusqlite::Result<()> {
    let stored: Option<u32> = value(db, &format!("{name}_checksum")).optional()?;
    checksum::verify(stored, read, &format!("the value {name}"))
}
