//! The configured destinations, in memory and as rows.
//!
//! One that is configured no more stays in memory until the end: what is on its way to it, events and
//! answers, still arrives.

use std::collections::HashSet;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::watch;

use super::DestinationSettings;
use super::audiences::Audiences;
use super::checksum::{self, Checksum};
use super::claimed::Claimed;
use crate::membership::{DestinationName, Timestamp};

/// One destination that is configured, or was since the ledger was opened.
#[derive(Debug)]
pub(super) struct Destination {
    pub row: i64,
    pub settings: DestinationSettings,
    pub configured: bool,
    /// An operator has stopped its delivery.
    pub paused_at: Option<Timestamp>,
    pub news: watch::Sender<()>,
}

/// Of a row with these values.
pub(super) fn checksum_of(id: i64, name: &str, environment: &str, paused_at: Option<i64>) -> u32 {
    Checksum::new().number(id).text(name).text(environment).maybe(paused_at).finish()
}

/// What was known of each destination, in their order.
pub(super) type Configured = Vec<(DestinationSettings, bool)>;

impl Audiences {
    /// Makes these the configured destinations. A new one comes with the audiences that are stored of
    /// it. One whose environment changed forgets what was told: its audiences are resynced.
    pub fn configure(
        &mut self,
        db: &Connection,
        settings: Vec<DestinationSettings>,
        stamp: Timestamp,
    ) -> rusqlite::Result<()> {
        for destination in &mut self.destinations {
            destination.configured = false;
        }
        let mut moved = HashSet::new();
        let before = self.list.len();
        for settings in settings {
            let (index, told_to) = if let Some(index) = self.destination(&settings.name) {
                let environment = self.destinations[index].settings.environment.clone();
                (index, Some(environment))
            } else {
                let (destination, told_to) = Destination::load(db, settings.clone())?;
                let index = self.add(destination);
                self.load(db, index, &mut |_| Claimed::default())?;
                (index, told_to)
            };
            if told_to.is_some_and(|told_to| told_to != settings.environment) {
                moved.insert(index);
            }
            let destination = &mut self.destinations[index];
            (destination.settings, destination.configured) = (settings, true);
            destination.save(db)?;
        }
        for index in 0..self.list.len() {
            if moved.contains(&self.list[index].destination) {
                self.list[index].forget_tellings(stamp);
            }
            if index >= before {
                self.adopt(db, index)?;
            }
            self.save(db, index, true)?;
        }
        Ok(())
    }

    /// Reads a destination that is not configured: what was on its way to it still arrives. How long
    /// a repeat of what it was told counts is not known, so that it is told again.
    pub fn know(&mut self, db: &Connection, name: &DestinationName) -> rusqlite::Result<()> {
        if self.destination(name).is_some() {
            return Ok(());
        }
        let settings = DestinationSettings {
            name: name.clone(),
            environment: String::new(),
            repeat_window: Duration::ZERO,
            reassert_after: Duration::ZERO,
        };
        let (mut destination, told_to) = Destination::load(db, settings)?;
        destination.settings.environment = told_to.unwrap_or_default();
        destination.configured = false;
        let index = self.add(destination);
        let before = self.list.len();
        self.load(db, index, &mut |_| Claimed::default())?;
        (before..self.list.len()).try_for_each(|index| self.adopt(db, index))
    }

    /// What is known of each destination, for [`Audiences::take_back`].
    pub fn configured(&self) -> Configured {
        self.destinations.iter().map(|of| (of.settings.clone(), of.configured)).collect()
    }

    /// Undoes a [`Audiences::configure`] that was rolled back, except for the audiences.
    pub fn take_back(&mut self, before: Configured) {
        self.keep_first(before.len());
        for (destination, (settings, configured)) in self.destinations.iter_mut().zip(before) {
            (destination.settings, destination.configured) = (settings, configured);
        }
    }

    /// How long after a settle a late duplicate of any destination may still be on its way.
    pub fn reassert_after(&self) -> Duration {
        let all = self.destinations.iter().map(|of| of.settings.reassert_after);
        all.max().unwrap_or(Duration::ZERO)
    }

    /// The position of a destination that is configured now.
    pub fn configured_destination(&self, name: &DestinationName) -> Option<usize> {
        self.destination(name).filter(|index| self.destinations[*index].configured)
    }
}

impl Destination {
    /// Reads its row, or makes one; and the environment that tellings went to so far.
    fn load(
        db: &Connection,
        settings: DestinationSettings,
    ) -> rusqlite::Result<(Self, Option<String>)> {
        let known = db
            .query_row(
                "SELECT id, environment, paused_at, checksum FROM destination WHERE name = ?1",
                [settings.name.as_str()],
                |row| {
                    let (id, environment): (i64, String) = (row.get(0)?, row.get(1)?);
                    let (paused_at, stored): (Option<i64>, _) = (row.get(2)?, row.get(3)?);
                    Ok((id, environment, paused_at, stored))
                },
            )
            .optional()?;
        let news = watch::Sender::new(());
        let mut destination = Self { row: 0, settings, configured: true, paused_at: None, news };
        let Some((row, environment, paused_at, stored)) = known else {
            db.execute(
                "INSERT INTO destination (name, environment) VALUES (?1, '')",
                [destination.settings.name.as_str()],
            )?;
            destination.row = db.last_insert_rowid();
            return Ok((destination, None));
        };
        (destination.row, destination.paused_at) = (row, paused_at.map(Timestamp));
        checksum::verify(stored, || destination.checksum(&environment), "a destination")?;
        Ok((destination, Some(environment)))
    }

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
