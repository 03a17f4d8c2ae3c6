//! The configured destinations, in memory and as rows.
//!
//! One that is no longer configured stays in memory until the ledger is closed: events and reports that are
//! under way to it are still applied.

use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::watch;

use crate::ledger::embedded::ids::DestinationRowId;
use crate::ledger::embedded::settings::DestinationSettings;
use crate::ledger::embedded::tables::audiences;
use crate::ledger::embedded::tables::checksum::{self, Checksum};
use crate::membership::{DestinationName, Timestamp};

/// A destination that is configured, or was since the ledger was opened.
#[derive(Debug)]
pub(crate) struct Destination {
    pub row: DestinationRowId,
    pub settings: DestinationSettings,
    pub configured: bool,
    /// When an operator paused its delivery.
    pub paused_at: Option<Timestamp>,
    pub news: watch::Sender<()>,
}

/// The checksum of a row with these values.
pub(crate) fn checksum_of(
    id: DestinationRowId,
    name: &str,
    environment: &str,
    paused_at: Option<i64>,
) -> u32 {
    Checksum::new().number(id.0).text(name).text(environment).maybe(paused_at).finish()
}

/// The row id of a destination.
pub(crate) fn find(
    db: &Connection,
    name: &DestinationName,
) -> rusqlite::Result<Option<DestinationRowId>> {
    db.prepare_cached("SELECT id FROM destination WHERE name = ?1")?
        .query_row([name.as_str()], |row| row.get(0))
        .optional()
}

impl Destination {
    /// Reads its row, or inserts one; also returns the environment that was told so far.
    pub fn load(
        db: &Connection,
        settings: DestinationSettings,
    ) -> rusqlite::Result<(Self, Option<String>)> {
        let known = db
            .query_row(
                "SELECT id, environment, paused_at, checksum FROM destination WHERE name = ?1",
                [settings.name.as_str()],
                |row| {
                    let (id, environment): (DestinationRowId, String) = (row.get(0)?, row.get(1)?);
                    let (paused_at, stored): (Option<i64>, _) = (row.get(2)?, row.get(3)?);
                    Ok((id, environment, paused_at, stored))
                },
            )
            .optional()?;
        let news = watch::Sender::new(());
        let mut destination =
            Self { row: DestinationRowId(0), settings, configured: true, paused_at: None, news };
        let Some((row, environment, paused_at, stored)) = known else {
            db.execute(
                "INSERT INTO destination (name, environment) VALUES (?1, '')",
                [destination.settings.name.as_str()],
            )?;
            destination.row = DestinationRowId(db.last_insert_rowid());
            return Ok((destination, None));
        };
        (destination.row, destination.paused_at) = (row, paused_at.map(Timestamp));
        checksum::verify(stored, || destination.checksum(&environment), "a destination")?;
        Ok((destination, Some(environment)))
    }

    /// The checksum of its row with this environment.
    pub fn checksum(&self, environment: &str) -> u32 {
        let paused_at = self.paused_at.map(|at| at.0);
        checksum_of(self.row, self.settings.name.as_str(), environment, paused_at)
    }

    /// Writes its row.
    pub fn save(&self, db: &Connection) -> rusqlite::Result<()> {
        let environment = &self.settings.environment;
        db.prepare_cached(
            "UPDATE destination SET environment = ?2, paused_at = ?3, checksum = ?4 WHERE id = ?1",
        )?
        .execute(params![
            self.row,
            environment,
            self.paused_at.map(|at| at.0),
            self.checksum(environment)
        ])?;
        Ok(())
    }

    /// Reads again what may have been rolled back.
    pub fn read_again(&mut self, db: &Connection) -> rusqlite::Result<()> {
        self.paused_at = db
            .prepare_cached("SELECT paused_at FROM destination WHERE id = ?1")?
            .query_row([self.row], |row| row.get::<_, Option<i64>>(0))?
            .map(Timestamp);
        Ok(())
    }
}

/// Verifies every destination and audience; damage is an error.
pub(crate) fn verify_all(db: &Connection) -> rusqlite::Result<()> {
    let mut statement =
        db.prepare("SELECT id, name, environment, paused_at, checksum FROM destination")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, name, environment): (DestinationRowId, String, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        let paused_at: Option<i64> = row.get(3)?;
        let read = || checksum_of(id, &name, &environment, paused_at);
        checksum::verify(row.get(4)?, read, "a destination")?;
        let name = audiences::stored(DestinationName::new(&name))?;
        audiences::of_destination(db, id, &name)?;
    }
    Ok(())
}
