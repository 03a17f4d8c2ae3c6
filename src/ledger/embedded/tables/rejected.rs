//! Rejected events, kept so that they can be replayed once the mapping is fixed. Bounded in age, number and
//! bytes: the oldest go first.

use rusqlite::{Connection, ToSql, params};

use crate::ledger::RejectedEvent;
use crate::ledger::embedded::ids::DestinationRowId;
use crate::ledger::embedded::settings::Retention;
use crate::ledger::embedded::tables::checksum::{self, Checksum};
use crate::membership::Timestamp;

/// Oldest events erased when a new one finds no room; upkeep does the rest.
const AT_ONCE: usize = 16;

/// Counts and bounds the rejected events.
#[derive(Debug)]
pub(crate) struct Rejected {
    count: u64,
    bytes: u64,
    kept: Retention,
    /// Something was erased since this was last taken.
    has_erased: bool,
}

/// The checksum of an event's row.
pub(crate) fn checksum_of(received_at: Timestamp, reason: &str, detail: &str, body: &[u8]) -> u32 {
    Checksum::new().number(received_at.0).text(reason).text(detail).bytes(body).finish()
}

/// Verifies every event; damage is an error.
pub(crate) fn verify_all(db: &Connection) -> rusqlite::Result<()> {
    let mut statement =
        db.prepare("SELECT received_at, reason, detail, body, checksum FROM rejected")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (reason, detail): (String, String) = (row.get(1)?, row.get(2)?);
        let (received_at, body): (i64, Vec<u8>) = (row.get(0)?, row.get(3)?);
        let read = || checksum_of(Timestamp(received_at), &reason, &detail, &body);
        checksum::verify(row.get(4)?, read, "a rejected event")?;
    }
    Ok(())
}

impl Rejected {
    pub fn open(db: &Connection, kept: Retention) -> rusqlite::Result<Self> {
        let mut rejected = Self { count: 0, bytes: 0, kept, has_erased: false };
        rejected.reload(db)?;
        Ok(rejected)
    }

    /// Reads the counts, at opening and after a rollback.
    pub fn reload(&mut self, db: &Connection) -> rusqlite::Result<()> {
        (self.count, self.bytes) = db
            .prepare_cached("SELECT count(*), coalesce(sum(length(body)), 0) FROM rejected")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(())
    }

    /// Stores one event.
    pub fn keep(
        &mut self,
        db: &Connection,
        destination: DestinationRowId,
        received_at: Timestamp,
        event: &RejectedEvent,
        person: Option<[u8; 16]>,
    ) -> rusqlite::Result<()> {
        let RejectedEvent { reason, detail, body, event_at, .. } = event;
        if self.kept.max_count == 0 || body.len() as u64 > self.kept.max_bytes {
            return Ok(());
        }
        db.prepare_cached(
            "INSERT INTO rejected
                 (destination, received_at, reason, detail, body, person, checksum, event_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            destination,
            received_at.0,
            reason,
            detail,
            body,
            person,
            checksum_of(received_at, reason, detail, body),
            event_at.0
        ])?;
        self.count += 1;
        self.bytes += body.len() as u64;
        for _ in 0..AT_ONCE {
            if !self.is_too_much() {
                break;
            }
            self.erase(db, "id = (SELECT min(id) FROM rejected)", &[])?;
        }
        Ok(())
    }

    /// Erases the events of a person that happened until `through`; events that an older version stored have
    /// only their arrival.
    pub fn forget(
        &mut self,
        db: &Connection,
        person: [u8; 16],
        through: Timestamp,
    ) -> rusqlite::Result<()> {
        let which = "person = ?1 AND coalesce(event_at, received_at) <= ?2";
        self.erase(db, which, &[&person, &through.0])?;
        Ok(())
    }

    /// Erases one event of a destination. `true`: there was one.
    pub fn discard(
        &mut self,
        db: &Connection,
        destination: DestinationRowId,
        id: i64,
    ) -> rusqlite::Result<bool> {
        let erased = self.erase(db, "id = ?1 AND destination = ?2", &[&id, &destination])?;
        Ok(erased > 0)
    }

    /// Erases a slice of the events of a destination. `true`: there may be more.
    pub fn erase_slice_of(
        &mut self,
        db: &Connection,
        destination: DestinationRowId,
        limit: usize,
    ) -> rusqlite::Result<bool> {
        let which = "id IN (SELECT id FROM rejected WHERE destination = ?1 LIMIT ?2)";
        let erased = self.erase(db, which, &[&destination, &limit])?;
        Ok(erased > 0)
    }

    /// Erases a slice of the events that are too old or too many. `true`: there are more.
    pub fn purge_slice(
        &mut self,
        db: &Connection,
        now: Timestamp,
        limit: usize,
    ) -> rusqlite::Result<bool> {
        let oldest = now.before(self.kept.max_age);
        let which = "id IN (SELECT id FROM rejected ORDER BY id LIMIT ?1) AND received_at < ?2";
        let mut erased = self.erase(db, which, &[&limit, &oldest.0])?;
        while erased < limit && self.is_too_much() {
            erased += self.erase(db, "id = (SELECT min(id) FROM rejected)", &[])?;
        }
        Ok(erased >= limit)
    }

    /// Takes the flag whether anything was erased since the last call.
    pub fn take_erased(&mut self) -> bool {
        std::mem::take(&mut self.has_erased)
    }

    fn is_too_much(&self) -> bool {
        self.count > 0 && (self.count > self.kept.max_count || self.bytes > self.kept.max_bytes)
    }

    fn erase(
        &mut self,
        db: &Connection,
        which: &str,
        values: &[&dyn ToSql],
    ) -> rusqlite::Result<usize> {
        let sizes: Vec<u64> = db
            .prepare_cached(&format!("DELETE FROM rejected WHERE {which} RETURNING length(body)"))?
            .query_map(values, |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        self.has_erased |= !sizes.is_empty();
        self.count = self.count.saturating_sub(sizes.len() as u64);
        self.bytes = self.bytes.saturating_sub(sizes.iter().sum());
        Ok(sizes.len())
    }
}
