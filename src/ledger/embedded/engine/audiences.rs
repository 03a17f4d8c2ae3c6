//! The audiences that the writer knows, by destination, in memory and as rows.
//!
//! Changes are made in memory first. Rows that differ are written as a whole, each with its checksum, by the
//! next transaction ([`Audiences::take_unsaved`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashMap;
use rusqlite::Connection;

use crate::ledger::embedded::engine::audience::Audience;
use crate::ledger::embedded::engine::shared::Shared;
use crate::ledger::embedded::members::in_flight::InFlight;
use crate::ledger::embedded::settings::DestinationSettings;
use crate::ledger::embedded::tables::audiences::AudienceRow;
use crate::ledger::embedded::tables::database::Database;
use crate::ledger::embedded::tables::destinations::Destination;
use crate::ledger::embedded::tables::{audiences as rows, members};
use crate::ledger::{Route, Unrecorded};
use crate::membership::{AudienceId, DestinationName, MembershipDelta, Timestamp};

/// All audiences and their destinations.
#[derive(Debug, Default)]
pub(crate) struct Audiences {
    pub destinations: Vec<Destination>,
    /// By position. The position of a removed audience is reused by the next new one.
    pub list: Vec<Audience>,
    vacant: BTreeSet<usize>,
    by_name: HashMap<DestinationName, usize>,
    by_id: HashMap<(usize, AudienceId), usize>,
    by_row: HashMap<i64, usize>,
}

impl Audiences {
    /// Registers the configured destinations and reads their audiences; also those of `also`, which are not
    /// configured but still have events in the log.
    pub fn open(
        db: &Connection,
        settings: Vec<DestinationSettings>,
        also: &BTreeSet<DestinationName>,
        stamp: Timestamp,
    ) -> rusqlite::Result<Self> {
        let mut audiences = Self::default();
        let transaction = db.unchecked_transaction()?;
        rows::erase_unused(&transaction)?;
        audiences.configure(&transaction, settings, stamp)?;
        for name in also {
            audiences.know(&transaction, name)?;
        }
        transaction.commit()?;
        Ok(audiences)
    }

    /// Adds a destination and returns its position.
    pub fn add(&mut self, destination: Destination) -> usize {
        let index = self.destinations.len();
        self.by_name.insert(destination.settings.name.clone(), index);
        self.destinations.push(destination);
        index
    }

    /// Removes the destinations at positions from `count` on.
    pub fn keep_first(&mut self, count: usize) {
        self.destinations.truncate(count);
        self.by_name.retain(|_, index| *index < count);
    }

    /// Reads the audiences of a destination; `in_flight` says which of their members are in flight.
    pub fn load(
        &mut self,
        db: &Connection,
        destination: usize,
        in_flight: &mut impl FnMut(&Audience) -> InFlight,
    ) -> rusqlite::Result<()> {
        let name = self.destinations[destination].settings.name.clone();
        for row in rows::of_destination(db, self.destinations[destination].row, &name)? {
            let mut audience = Audience::of_row(row, destination);
            audience.in_flight = in_flight(&audience);
            self.insert(audience);
        }
        Ok(())
    }

    /// Takes over the marks and counts of an audience that an earlier process wrote.
    pub fn adopt(&mut self, db: &Connection, index: usize) -> rusqlite::Result<()> {
        let audience = &mut self.list[index];
        audience.marks.adopt();
        // A wrong count is repaired here: it must not leave a member untold.
        let waits = members::any_pending(db, audience.row)?;
        if waits != (audience.counts.pending > 0) {
            audience.counts.pending = members::count_pending(db, audience.row)?;
            audience.written.pending = audience.counts.pending;
        }
        Ok(())
    }

    /// Reads everything again from the tables after a rollback. Claims stay; with `is_lost`, some of what was
    /// reported on them may be lost.
    pub fn reload(&mut self, db: &Connection, is_lost: bool) -> rusqlite::Result<()> {
        // Matched by name, because the row of an audience may have been rolled back.
        let name_of = |audience: &Audience| (audience.destination, audience.route.audience.clone());
        let mut in_flight: HashMap<(usize, AudienceId), InFlight> = self
            .list
            .drain(..)
            .map(|audience| (name_of(&audience), audience.in_flight.without_rows()))
            .collect();
        self.vacant.clear();
        self.by_id.clear();
        self.by_row.clear();
        for index in 0..self.destinations.len() {
            self.destinations[index].read_again(db)?;
            self.load(db, index, &mut |audience| {
                in_flight.remove(&name_of(audience)).unwrap_or_default()
            })?;
        }
        for audience in self.list.iter_mut().filter(|_| is_lost) {
            audience.marks.unheard();
        }
        Ok(())
    }

    /// Writes the row of an audience if it differs from the stored one.
    pub fn save(
        &mut self,
        db: &Connection,
        index: usize,
        all_written: bool,
    ) -> rusqlite::Result<()> {
        self.take_unsaved(index, all_written).map_or(Ok(()), |row| row.write(db))
    }

    /// Returns the row of an audience if it differs from the stored one. Its counts are those of the members'
    /// rows.
    pub fn take_unsaved(&mut self, index: usize, all_written: bool) -> Option<AudienceRow> {
        if self.vacant.contains(&index) {
            return None;
        }
        let audience = &mut self.list[index];
        if all_written {
            audience.written = audience.counts;
        }
        audience.take_unsaved()
    }

    fn insert(&mut self, audience: Audience) -> usize {
        let index = self.list.len();
        self.put(index, audience);
        index
    }

    fn put(&mut self, index: usize, audience: Audience) {
        self.by_id.insert((audience.destination, audience.route.audience.clone()), index);
        self.by_row.insert(audience.row, index);
        if index == self.list.len() {
            self.list.push(audience);
        } else {
            self.list[index] = audience;
        }
    }

    /// Removes and returns an audience that has no member in flight.
    pub fn remove(&mut self, index: usize) -> Audience {
        let vacant = Audience::vacant(&self.list[index].route);
        let removed = std::mem::replace(&mut self.list[index], vacant);
        self.by_id.remove(&(removed.destination, removed.route.audience.clone()));
        self.by_row.remove(&removed.row);
        self.vacant.insert(index); // the current group may still hold this position
        removed
    }

    pub fn destination(&self, name: &DestinationName) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub fn find(&self, destination: usize, audience: &AudienceId) -> Option<usize> {
        self.by_id.get(&(destination, audience.clone())).copied()
    }

    /// The audience of a batch that was claimed in this process.
    pub fn of_route(&self, route: &Route) -> Option<usize> {
        self.find(self.destination(&route.destination)?, &route.audience)
    }

    pub fn of_row(&self, row: i64) -> Option<usize> {
        self.by_row.get(&row).copied()
    }

    /// The positions of a destination's audiences.
    pub fn of_destination(&self, destination: usize) -> Vec<usize> {
        let of = |index: &usize| self.list[*index].destination == destination;
        (0..self.list.len()).filter(of).collect()
    }

    /// Whether the audience of a delta is known with another context kind.
    pub fn has_other_kind(&self, destination: usize, delta: &MembershipDelta) -> bool {
        let known = self.find(destination, &delta.audience);
        known.is_some_and(|known| self.list[known].route.context_kind != delta.context_kind)
    }

    /// The position of a delta's audience, which is registered if it is new. Its key follows the latest
    /// delta. Its kind is fixed by its members, including those `arriving` with the delta and those in blocks
    /// behind `merged`.
    pub fn resolve(
        &mut self,
        db: &Database,
        destination: usize,
        delta: &MembershipDelta,
        arriving: &BTreeSet<usize>,
        (shared, merged): (&Shared, u64),
    ) -> rusqlite::Result<Result<usize, Unrecorded>> {
        let settle = |name: &DestinationName| {
            shared.kinds().settle(name, &delta.audience, &delta.context_kind, merged)
        };
        let Some(index) = self.find(destination, &delta.audience) else {
            let name = &self.destinations[destination].settings.name;
            return match settle(name) {
                Ok(()) => self.register(db, destination, delta).map(Ok),
                Err(other) => Ok(Err(other)),
            };
        };
        let audience = &mut self.list[index];
        audience.is_dropped = false;
        let route = &audience.route;
        if route.context_kind != delta.context_kind
            && (arriving.contains(&index)
                || members::any(db.connection()?, audience.row)?
                || settle(&route.destination).is_err())
        {
            return Ok(Err(Unrecorded::OtherKind));
        }
        if route.audience_key != delta.audience_key || route.context_kind != delta.context_kind {
            audience.route = Arc::new(Route {
                audience_key: delta.audience_key.clone(),
                context_kind: delta.context_kind.clone(),
                ..(**route).clone()
            });
        }
        Ok(Ok(index))
    }

    fn register(
        &mut self,
        db: &Database,
        destination: usize,
        delta: &MembershipDelta,
    ) -> rusqlite::Result<usize> {
        let Destination { row, settings, .. } = &self.destinations[destination];
        let route = Arc::new(Route {
            destination: settings.name.clone(),
            audience: delta.audience.clone(),
            audience_key: delta.audience_key.clone(),
            context_kind: delta.context_kind.clone(),
        });
        let row = rows::insert(db.connection()?, *row, &route)?;
        let index = self.vacant.pop_first().unwrap_or(self.list.len());
        self.put(index, Audience::new(row, destination, route));
        Ok(index)
    }

    /// Gives a dropped audience a fresh row without members; the caller disposes of the old row. Members in
    /// flight stay known.
    pub fn start_over(&mut self, db: &Connection, index: usize) -> rusqlite::Result<()> {
        let old = &mut self.list[index];
        let row = rows::insert(db, self.destinations[old.destination].row, &old.route)?;
        let mut fresh = Audience::new(row, old.destination, Arc::clone(&old.route));
        fresh.in_flight = std::mem::take(&mut old.in_flight).without_rows();
        fresh.is_dropped = true;
        self.by_row.remove(&old.row);
        self.by_row.insert(row, index);
        *old = fresh;
        Ok(())
    }
}
