//! Rejected events, kept so that they can be replayed once the mapping is mended. Bounded in number
//! and bytes: the oldest go first.

use rusqlite::{Connection, params};

use crate::membership::Timestamp;

/// What is kept, counted.
#[derive(Debug)]
pub(super) struct Rejected {
    count: u64,
    bytes: u64,
    max_count: u64,
    max_bytes: u64,
}

impl Rejected {
    pub fn open(db: &Connection, max_count: u64, max_bytes: u64) -> rusqlite::Result<Self> {
        let mut kept = Self { count: 0, bytes: 0, max_count, max_bytes };
        kept.reload(db)?;
        Ok(kept)
    }

    /// Reads the counts again, after a transaction that was rolled back.
    pub fn reload(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let read = |name| {
            db.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| {
                row.get::<_, u64>(0)
            })
        };
        self.count = read("rejected_count")?;
        self.bytes = read("rejected_bytes")?;
        Ok(())
    }

    /// Keeps one event: its reason, sentence, body and person.
    pub fn keep(
        &mut self,
        db: &Connection,
        destination: i64,
        received_at: Timestamp,
        (reason, detail, body, person): (&str, &str, &[u8], Option<[u8; 16]>),
    ) -> rusqlite::Result<()> {
        db.prepare_cached(
            "INSERT INTO rejected (destination, received_at, reason, detail, body, person)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![destination, received_at.0, reason, detail, body, person])?;
        self.count += 1;
        self.bytes += body.len() as u64;
        while self.count > 0 && (self.count > self.max_count || self.bytes > self.max_bytes) {
            let bytes: u64 = db
                .prepare_cached(
                    "DELETE FROM rejected WHERE id = (SELECT min(id) FROM rejected)
                     RETURNING length(body)",
                )?
                .query_row([], |row| row.get(0))?;
            self.forgot(1, bytes);
        }
        self.store(db)
    }

    /// Erases the events of a person.
    pub fn forget(&mut self, db: &Connection, person: [u8; 16]) -> rusqlite::Result<()> {
        let sizes: Vec<u64> = db
            .prepare_cached("DELETE FROM rejected WHERE person = ?1 RETURNING length(body)")?
            .query_map(params![person], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        if sizes.is_empty() {
            return Ok(());
        }
        self.forgot(sizes.len() as u64, sizes.iter().sum());
        self.store(db)
    }

    fn forgot(&mut self, count: u64, bytes: u64) {
        self.count = self.count.saturating_sub(count);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn store(&self, db: &Connection) -> rusqlite::Result<()> {
        let mut statement = db.prepare_cached("UPDATE meta SET value = ?2 WHERE name = ?1")?;
        statement.execute(params!["rejected_count", self.count])?;
        statement.execute(params!["rejected_bytes", self.bytes])?;
        Ok(())
    }
}
