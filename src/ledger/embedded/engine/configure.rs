//! Which destinations are configured, at the start and after every change of the configuration.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use rusqlite::Connection;

use crate::ledger::GuardLimits;
use crate::ledger::embedded::engine::audiences::Audiences;
use crate::ledger::embedded::ids::DestinationIndex;
use crate::ledger::embedded::members::in_flight::InFlight;
use crate::ledger::embedded::settings::DestinationSettings;
use crate::ledger::embedded::tables::destinations::Destination;
use crate::membership::{DestinationName, Timestamp};

/// The settings of each destination by position, and whether it is configured.
pub(crate) type Configured = Vec<(DestinationSettings, bool)>;

impl Audiences {
    /// Replaces the configured destinations. A new destination comes with its stored audiences. One whose
    /// environment has changed forgets what was told: its audiences are resynced.
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
                let environment = self[index].settings.environment.clone();
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
            let destination = &mut self[index];
            (destination.settings, destination.configured) = (settings, true);
            destination.save(db)?;
        }
        for index in self.indices() {
            if moved.contains(&self[index].destination) {
                self[index].forget_tellings(stamp);
            }
            self.set_expiry(index);
            if index.0 >= before {
                self.adopt(db, index)?;
            }
            self.save(db, index, true)?;
        }
        Ok(())
    }

    /// Reads a destination that is no longer configured but still has events in the log. Its repeat window is
    /// not known and taken to be zero, so that every member that is repeated is told again.
    pub fn know(&mut self, db: &Connection, name: &DestinationName) -> rusqlite::Result<()> {
        if self.destination(name).is_some() {
            return Ok(());
        }
        let settings = DestinationSettings {
            name: name.clone(),
            environment: String::new(),
            repeat_window: Duration::ZERO,
            reassert_after: Duration::ZERO,
            expires_after: BTreeMap::new(),
            guard: GuardLimits::default(),
        };
        let (mut destination, told_to) = Destination::load(db, settings)?;
        destination.settings.environment = told_to.unwrap_or_default();
        destination.configured = false;
        let index = self.add(destination);
        let before = self.list.len();
        self.load(db, index, &mut |_| InFlight::default())?;
        self.indices().skip(before).try_for_each(|index| self.adopt(db, index))
    }

    /// A snapshot of the configuration for [`Audiences::take_back`].
    pub fn configured(&self) -> Configured {
        self.destinations.iter().map(|of| (of.settings.clone(), of.configured)).collect()
    }

    /// Restores the configuration after a rollback of [`Audiences::configure`]; the audiences are reloaded
    /// separately.
    pub fn take_back(&mut self, before: Configured) {
        self.keep_first(before.len());
        for (destination, (settings, configured)) in self.destinations.iter_mut().zip(before) {
            (destination.settings, destination.configured) = (settings, configured);
        }
    }

    /// The longest time after a settle in which a late duplicate may still arrive, over all destinations.
    pub fn reassert_after(&self) -> Duration {
        let all = self.destinations.iter().map(|of| of.settings.reassert_after);
        all.max().unwrap_or(Duration::ZERO)
    }

    /// The position of a destination that is configured.
    pub fn configured_destination(&self, name: &DestinationName) -> Option<DestinationIndex> {
        self.destination(name).filter(|index| self[*index].configured)
    }
}
