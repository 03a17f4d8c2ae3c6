//! Values of the ledger as a whole: the largest arrival, the last merged block of the log, the key of the
//! hashes, and the daemon's note to its next start. Each has a checksum.

use rusqlite::types::{FromSql, ToSql};
use rusqlite::{Connection, OptionalExtension, params};

use crate::ledger::embedded::tables::checksum::{self, Checksum};
use crate::ledger::embedded::wal::Seal;

/// A copy that is made here and is not finished: how far it is.
pub(crate) const UNFINISHED_COPY: &str = "copy_unfinished";
/// The copy that was made here and was finished.
pub(crate) const FINISHED_COPY: &str = "copy_finished";
/// The copy that is made from here. It goes when the ledger is opened to be written.
pub(crate) const SOURCE_OF_COPY: &str = "copy_source";

/// The largest arrival given out or recorded.
pub(crate) fn arrival(db: &Connection) -> rusqlite::Result<i64> {
    number(db, "arrival")
}

/// Stores the largest arrival.
pub(crate) fn keep_arrival(db: &Connection, arrival: i64) -> rusqlite::Result<()> {
    keep_number(db, "arrival", arrival)
}

/// The number of the last block of the log that is in the tables.
pub(crate) fn merged(db: &Connection) -> rusqlite::Result<u64> {
    number(db, "merged").map(i64::cast_unsigned)
}

/// Stores that number, in the transaction that merges the block.
pub(crate) fn keep_merged(db: &Connection, block: u64) -> rusqlite::Result<()> {
    keep_number(db, "merged", block.cast_signed())
}

fn number(db: &Connection, name: &str) -> rusqlite::Result<i64> {
    verified(db, name, |number| Checksum::new().number(*number).finish())
}

fn keep_number(db: &Connection, name: &str, number: i64) -> rusqlite::Result<()> {
    db.prepare_cached(
        "UPDATE meta SET value = CASE name WHEN ?1 THEN ?2 ELSE ?3 END
         WHERE name IN (?1, ?1 || '_checksum')",
    )?
    .execute(params![name, number, Checksum::new().number(number).finish()])?;
    Ok(())
}

/// A value that was created with the ledger and never changes.
pub(crate) fn blob(db: &Connection, name: &str) -> rusqlite::Result<Vec<u8>> {
    verified(db, name, |blob: &Vec<u8>| Checksum::new().bytes(blob).finish())
}

/// The note that the daemon left for its next start, if any.
pub(crate) fn note(db: &Connection) -> rusqlite::Result<Option<String>> {
    let checksum = |note: &String| Checksum::new().text(note).finish();
    verified(db, "note", checksum).optional()
}

/// Stores a note in place of the previous one.
pub(crate) fn keep_note(db: &Connection, note: &str) -> rusqlite::Result<()> {
    keep(db, "note", note)?;
    keep(db, "note_checksum", Checksum::new().text(note).finish())
}

/// Whether there is a value.
pub(crate) fn has(db: &Connection, name: &str) -> rusqlite::Result<bool> {
    db.query_row("SELECT EXISTS (SELECT 1 FROM meta WHERE name = ?1)", [name], |row| row.get(0))
}

/// A value about a copy.
pub(crate) fn of_copy(db: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    db.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0)).optional()
}

/// Stores a value about a copy in place of the previous one; `None`: there is none any more.
pub(crate) fn keep_of_copy(
    db: &Connection,
    name: &str,
    value: Option<&str>,
) -> rusqlite::Result<()> {
    match value {
        Some(value) => keep(db, name, value),
        None => db.execute("DELETE FROM meta WHERE name = ?1", [name]).map(|_| ()),
    }
}

/// Takes over the key of another ledger's hashes, before there are any.
pub(crate) fn keep_person_key(db: &Connection, key: &[u8]) -> rusqlite::Result<()> {
    keep(db, "person_key", key)?;
    keep(db, "person_key_checksum", Checksum::new().bytes(key).finish())
}

/// The seal of the log's blocks.
pub(crate) fn seal(db: &Connection) -> rusqlite::Result<Seal> {
    Ok(Seal::of(&blob(db, "person_key")?))
}

/// Adds missing checksums to a new ledger, or to one from before there were checksums.
pub(crate) fn complete(db: &Connection) -> rusqlite::Result<()> {
    for name in ["arrival", "merged"] {
        if lacks(db, name)? {
            let checksum = Checksum::new().number(value(db, name)?).finish();
            keep(db, &format!("{name}_checksum"), checksum)?;
        }
    }
    if lacks(db, "person_key")? {
        let key: Vec<u8> = value(db, "person_key")?;
        keep(db, "person_key_checksum", Checksum::new().bytes(&key).finish())?;
    }
    Ok(())
}

/// Whether the checksum of a value is missing.
fn lacks(db: &Connection, name: &str) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT NOT EXISTS (SELECT 1 FROM meta WHERE name = ?1 || '_checksum')")?
        .query_row([name], |row| row.get(0))
}

fn value<T: FromSql>(db: &Connection, name: &str) -> rusqlite::Result<T> {
    db.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0))
}

fn keep(db: &Connection, name: &str, value: impl ToSql) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?1, ?2)")?
        .execute(params![name, value])?;
    Ok(())
}

/// One statement for both, as the writer may commit between two.
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
