//! Which destinations are configured, from the start on and after every change of the configuration.

use std::collections::HashSet;
use std::time::Duration;

use rusqlite::Connection;

use crate::ledger::embedded::engine::audiences::Audiences;
use crate::ledger::embedded::members::in_flight::InFlight;
use crate::ledger::embedded::settings::DestinationSettings;
use crate::ledger::embedded::tables::destinations::Destination;
use crate::membership::{DestinationName, Timestamp};

/// What was known of each destination, in their order.
pub(crate) type Configured = Vec<(DestinationSettings, bool)>;

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
                self.load(db, index, &mut |_| InFlight::default())?;
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
        self.load(db, index, &mut |_| InFlight::default())?;
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
