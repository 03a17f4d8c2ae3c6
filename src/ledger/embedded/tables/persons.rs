//! Persons: how a deletion finds the members of a user id without storing the user id.
//!
//! Where the context key is not the user id, a keyed [hash](crate::ledger::hashes) of the user id is stored with the
//! member. A deletion leaves the hash as a tombstone, so that a late, older event does not bring the person back.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::ledger::deletion::Tombstone;
use crate::ledger::embedded::ids::DestinationRowId;
use crate::ledger::embedded::tables::checksum::{self, Checksum};
use crate::ledger::embedded::tables::database::Database;
use crate::ledger::embedded::tables::meta;
use crate::ledger::hashes::HashKey;
use crate::membership::Timestamp;

/// Hashes user ids and remembers deletions.
#[derive(Debug)]
pub(crate) struct Persons {
    key: HashKey,
    /// Whether there is any tombstone: if not, deltas need no look-up.
    any_forgotten: bool,
}

impl Persons {
    pub fn open(db: &Connection) -> rusqlite::Result<Self> {
        let key = HashKey::new(meta::blob(db, "person_key")?);
        let any_forgotten =
            db.query_row("SELECT EXISTS (SELECT 1 FROM forgotten)", [], |row| row.get(0))?;
        Ok(Self { key, any_forgotten })
    }

    /// The keyed hash of a user id of one destination.
    pub fn hash(&self, destination: DestinationRowId, user_id: &str) -> [u8; 16] {
        self.key.person(destination.0, user_id)
    }

    /// The keyed hash of a message of one destination; never equal to that of a user id.
    pub fn hash_of_message(&self, destination: DestinationRowId, message: &[u8; 16]) -> [u8; 16] {
        self.key.message(destination.0, message)
    }

    /// The tombstone of a person, if there was a deletion.
    pub fn tombstone(
        &self,
        db: &Database,
        destination: DestinationRowId,
        user_id: &str,
    ) -> rusqlite::Result<Option<Tombstone>> {
        if !self.any_forgotten {
            return Ok(None);
        }
        db.connection()?
            .prepare_cached(
                "SELECT person, forgotten_at, seen_at, checksum FROM forgotten WHERE person = ?1",
            )?
            .query_row(params![self.hash(destination, user_id)], tombstone)
            .optional()
    }

    /// Stores the tombstone of a deletion that arrived at `arrival`. Of several deletions the latest counts,
    /// and it is kept as long as the last one to arrive.
    pub fn remember(
        &mut self,
        db: &Connection,
        person: [u8; 16],
        Tombstone(at): Tombstone,
        arrival: Timestamp,
    ) -> rusqlite::Result<()> {
        let known: Option<(i64, Option<i64>)> = db
            .prepare_cached("SELECT forgotten_at, seen_at FROM forgotten WHERE person = ?1")?
            .query_row(params![person], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let (known_at, known_since) = known.map_or((None, None), |(at, since)| (Some(at), since));
        let at = known_at.map_or(at.0, |known| known.max(at.0));
        let seen_at = known_since.map_or(arrival.0, |known| known.max(arrival.0));
        self.any_forgotten = true;
        keep(db, &person, at, Some(seen_at))
    }
}

/// Writes a tombstone in place of the previous one; `seen_at`: when its deletion arrived.
pub(crate) fn keep(
    db: &Connection,
    person: &[u8; 16],
    at: i64,
    seen_at: Option<i64>,
) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT OR REPLACE INTO forgotten (person, forgotten_at, seen_at, checksum)
         VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![person, at, seen_at, checksum_of(person, at, seen_at)])?;
    Ok(())
}

/// Erases the tombstones of deletions that arrived before `oldest`.
pub(crate) fn purge(db: &Connection, oldest: Timestamp) -> rusqlite::Result<()> {
    // Tombstones of older versions have no `seen_at`: their deletions counted at their arrival.
    db.execute(
        "DELETE FROM forgotten WHERE max(forgotten_at, coalesce(seen_at, 0)) < ?1",
        [oldest.0],
    )?;
    Ok(())
}

fn tombstone(row: &Row<'_>) -> rusqlite::Result<Tombstone> {
    let (person, at, seen_at): ([u8; 16], i64, Option<i64>) =
        (row.get(0)?, row.get(1)?, row.get(2)?);
    let read = || checksum_of(&person, at, seen_at);
    checksum::verify(row.get(3)?, read, "the tombstone of a deletion")?;
    Ok(Tombstone(Timestamp(at)))
}

/// `seen_at`: missing in tombstones of older versions.
fn checksum_of(person: &[u8; 16], at: i64, seen_at: Option<i64>) -> u32 {
    let mut checksum = Checksum::new();
    checksum.bytes(person).number(at);
    if let Some(seen_at) = seen_at {
        checksum.number(seen_at);
    }
    checksum.finish()
}

/// Verifies every tombstone; damage is an error.
pub(crate) fn verify_all(db: &Connection) -> rusqlite::Result<()> {
    db.prepare("SELECT person, forgotten_at, seen_at, checksum FROM forgotten")?
        .query_map([], |row| tombstone(row).map(|_| ()))?
        .collect()
}
