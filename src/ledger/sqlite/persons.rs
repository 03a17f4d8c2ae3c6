//! Persons: how a deletion finds the members of a user id without keeping the user id.
//!
//! Where the context key is not the user id itself, a keyed hash of the user id is kept with the
//! member. A deletion leaves the hash behind as a tombstone, so that a retried older event does not
//! bring the person back. The key lives in the ledger; it hides nothing from who holds the file.

use hmac::{Hmac, KeyInit, Mac};
use rusqlite::{Connection, OptionalExtension, Row, params};
use sha1::Sha1;

use super::checksum::{self, Checksum};
use super::database::Database;
use super::meta;
use crate::membership::Timestamp;

/// Hashes user ids, and remembers who was deleted.
#[derive(Debug)]
pub(super) struct Persons {
    key: Vec<u8>,
    /// Whether anybody was ever deleted: while not, deltas need no look-up.
    any_forgotten: bool,
}

impl Persons {
    pub fn open(db: &Connection) -> rusqlite::Result<Self> {
        let key = meta::blob(db, "person_key")?;
        let any_forgotten =
            db.query_row("SELECT EXISTS (SELECT 1 FROM forgotten)", [], |row| row.get(0))?;
        Ok(Self { key, any_forgotten })
    }

    /// The keyed hash of a user id of one destination.
    pub fn hash(&self, destination: i64, user_id: &str) -> [u8; 16] {
        let mut mac =
            Hmac::<Sha1>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        mac.update(&destination.to_be_bytes());
        mac.update(user_id.as_bytes());
        let digest = mac.finalize().into_bytes();
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest[..16]);
        hash
    }

    /// Whether the person was deleted at or after `event_at`.
    pub fn is_forgotten(
        &self,
        db: &Database,
        destination: i64,
        user_id: &str,
        event_at: Timestamp,
    ) -> rusqlite::Result<bool> {
        if !self.any_forgotten {
            return Ok(false);
        }
        let forgotten_at: Option<i64> = db
            .prepare_cached(
                "SELECT person, forgotten_at, checksum FROM forgotten WHERE person = ?1",
            )?
            .query_row(params![self.hash(destination, user_id)], forgotten_at)
            .optional()?;
        Ok(forgotten_at.is_some_and(|forgotten_at| event_at.0 <= forgotten_at))
    }

    /// Leaves the tombstone of a deletion.
    pub fn remember(
        &mut self,
        db: &Connection,
        person: [u8; 16],
        at: Timestamp,
    ) -> rusqlite::Result<()> {
        self.any_forgotten = true;
        keep(db, &person, at)
    }
}

/// Writes a tombstone in the place of the one that may be there.
pub(super) fn keep(db: &Connection, person: &[u8; 16], at: Timestamp) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR REPLACE INTO forgotten VALUES (?1, ?2, ?3)")?.execute(params![
        person,
        at.0,
        checksum_of(person, at.0)
    ])?;
    Ok(())
}

fn forgotten_at(row: &Row<'_>) -> rusqlite::Result<i64> {
    let (person, at): ([u8; 16], i64) = (row.get(0)?, row.get(1)?);
    checksum::verify(row.get(2)?, || checksum_of(&person, at), "the memory of a deletion")?;
    Ok(at)
}

fn checksum_of(person: &[u8; 16], at: i64) -> u32 {
    Checksum::new().bytes(person).number(at).finish()
}

/// Reads every tombstone; one that is not as it was written is an error.
pub(super) fn verify_all(db: &Connection) -> rusqlite::Result<()> {
    db.prepare("SELECT person, forgotten_at, checksum FROM forgotten")?
        .query_map([], |row| forgotten_at(row).map(|_| ()))?
        .collect()
}
