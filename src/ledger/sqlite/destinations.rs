//! The configured destinations, in memory and as rows.

use rusqlite::{Connection, params};
use tokio::sync::watch;

use super::DestinationSettings;
use super::checksum::Checksum;
use crate::membership::Timestamp;

/// One configured destination.
#[derive(Debug)]
pub(super) struct Destination {
    pub row: i64,
    pub settings: DestinationSettings,
    /// An operator has stopped its delivery.
    pub paused_at: Option<Timestamp>,
    pub news: watch::Sender<()>,
}

/// Of a row with these values.
pub(super) fn checksum_of(id: i64, name: &str, environment: &str, paused_at: Option<i64>) -> u32 {
    Checksum::new().number(id).text(name).text(environment).maybe(paused_at).finish()
}

impl Destination {
    /// Of the row, if it names this environment.
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
}
