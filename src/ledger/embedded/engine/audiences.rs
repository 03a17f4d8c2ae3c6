//! The audiences that the writer knows, by destination, in memory and as rows.
//!
//! Changes are made in memory first. Rows that differ are written as a whole, each with its checksum, by the
//! next transaction ([`Audiences::take_unsaved`]).

use std::collections::BTreeSet;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use hashbrown::HashMap;
use rusqlite::Connection;

use crate::ledger::embedded::engine::audience::Audience;
use crate::ledger::embedded::engine::expiry::Expiry;
use crate::ledger::embedded::engine::shared::Shared;
use crate::ledger::embedded::ids::{AudienceIndex, AudienceRowId, DestinationIndex};
use crate::ledger::embedded::members::in_flight::InFlight;
use crate::ledger::embedded::settings::DestinationSettings;
use crate::ledger::embedded::tables::audiences::AudienceRow;
use crate::ledger::embedded::tables::database::Database;
use crate::ledger::embedded::tables::destinations::Destination;
use crate::ledger::embedded::tables::{audiences as rows, members};
use crate::ledger::{Route, Unrecorded};
use crate::membership::{AudienceId, ContextKey, DestinationName, MembershipDelta, Timestamp};

/// All audiences and their destinations.
#[derive(Debug, Default)]
pub(crate) struct Audiences {
    pub destinations: Vec<Destination>,
    /// By position. The position of a removed audience is reused by the next new one.
    pub list: Vec<Audience>,
    vacant: BTreeSet<AudienceIndex>,
    /// Some audience's entries expire and it has not been swept since that was set.
    pub has_new_expiry: bool,
    by_name: HashMap<DestinationName, DestinationIndex>,
    by_id: HashMap<(DestinationIndex, AudienceId), AudienceIndex>,
    by_row: HashMap<AudienceRowId, AudienceIndex>,
}

impl Index<AudienceIndex> for Audiences {
    type Output = Audience;

    fn index(&self, index: AudienceIndex) -> &Audience {
        &self.list[index.0]
    }
}

impl IndexMut<AudienceIndex> for Audiences {
    fn index_mut(&mut self, index: AudienceIndex) -> &mut Audience {
        &mut self.list[index.0]
    }
}

impl Index<DestinationIndex> for Audiences {
    type Output = Destination;

    fn index(&self, index: DestinationIndex) -> &Destination {
        &self.destinations[index.0]
    }
}

impl IndexMut<DestinationIndex> for Audiences {
    fn index_mut(&mut self, index: DestinationIndex) -> &mut Destination {
        &mut self.destinations[index.0]
    }
}

impl Audiences {
    /// The positions of all audiences; at a vacant one nobody waits and nothing is in flight.
    pub fn indices(&self) -> impl Iterator<Item = AudienceIndex> + use<> {
        (0..self.list.len()).map(AudienceIndex)
    }

    /// The positions of all destinations.
    pub fn destination_indices(&self) -> impl Iterator<Item = DestinationIndex> + use<> {
        (0..self.destinations.len()).map(DestinationIndex)
    }

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
    pub fn add(&mut self, destination: Destination) -> DestinationIndex {
        let index = DestinationIndex(self.destinations.len());
        self.by_name.insert(destination.settings.name.clone(), index);
        self.destinations.push(destination);
        index
    }

    /// Removes the destinations at positions from `count` on.
    pub fn keep_first(&mut self, count: usize) {
        self.destinations.truncate(count);
        self.by_name.retain(|_, index| index.0 < count);
    }

    /// Reads the audiences of a destination; `in_flight` says which of their members are in flight.
    pub fn load(
        &mut self,
        db: &Connection,
        destination: DestinationIndex,
        in_flight: &mut impl FnMut(&Audience) -> InFlight,
    ) -> rusqlite::Result<()> {
        let name = self[destination].settings.name.clone();
        for row in rows::of_destination(db, self[destination].row, &name)? {
            let mut audience = Audience::of_row(row, destination);
            audience.in_flight = in_flight(&audience);
            if audience.guard.is_held() {
                let Audience { row, passing, in_flight, .. } = &mut audience;
                passing.start_over(in_flight);
                members::visit_pending(db, *row, Timestamp::EPOCH, |key, member| {
                    ContextKey::new(key).is_none_or(|key| passing.offer(&key, member))
                })?;
            }
            self.insert(audience);
        }
        Ok(())
    }

    /// Takes over the marks and counts of an audience that an earlier process wrote.
    pub fn adopt(&mut self, db: &Connection, index: AudienceIndex) -> rusqlite::Result<()> {
        let audience = &mut self[index];
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
        let mut in_flight: HashMap<(DestinationIndex, AudienceId), InFlight> = self
            .list
            .drain(..)
            .map(|audience| (name_of(&audience), audience.in_flight.without_rows()))
            .collect();
        self.vacant.clear();
        self.by_id.clear();
        self.by_row.clear();
        for index in self.destination_indices() {
            self[index].read_again(db)?;
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
        index: AudienceIndex,
        all_written: bool,
    ) -> rusqlite::Result<()> {
        self.take_unsaved(index, all_written).map_or(Ok(()), |row| row.write(db))
    }

    /// Returns the row of an audience if it differs from the stored one. Its counts are those of the members'
    /// rows.
    pub fn take_unsaved(&mut self, index: AudienceIndex, all_written: bool) -> Option<AudienceRow> {
        if self.vacant.contains(&index) {
            return None;
        }
        let audience = &mut self[index];
        if all_written {
            audience.written = audience.counts;
        }
        audience.take_unsaved()
    }

    fn insert(&mut self, audience: Audience) {
        self.put(AudienceIndex(self.list.len()), audience);
    }

    fn put(&mut self, index: AudienceIndex, audience: Audience) {
        self.by_id.insert((audience.destination, audience.route.audience.clone()), index);
        self.by_row.insert(audience.row, index);
        if index.0 == self.list.len() {
            self.list.push(audience);
        } else {
            self[index] = audience;
        }
        self.set_expiry(index);
    }

    /// Sets whether the entries of an audience expire: its key, or the configuration, may have changed.
    pub fn set_expiry(&mut self, index: AudienceIndex) {
        let audience = &self[index];
        let Some(destination) = self.destinations.get(audience.destination.0) else {
            return; // the position is vacant
        };
        let after = destination.settings.expires_after.get(&audience.route.audience_key).copied();
        let expiry = &mut self[index].expiry;
        if expiry.as_ref().map(Expiry::after) != after {
            *expiry = after.map(Expiry::new);
            self.has_new_expiry |= after.is_some();
        }
    }

    /// Removes and returns an audience that has no member in flight.
    pub fn remove(&mut self, index: AudienceIndex) -> Audience {
        let vacant = Audience::vacant(&self[index].route);
        let removed = std::mem::replace(&mut self[index], vacant);
        self.by_id.remove(&(removed.destination, removed.route.audience.clone()));
        self.by_row.remove(&removed.row);
        self.vacant.insert(index); // the current group may still hold this position
        removed
    }

    pub fn destination(&self, name: &DestinationName) -> Option<DestinationIndex> {
        self.by_name.get(name).copied()
    }

    pub fn find(
        &self,
        destination: DestinationIndex,
        audience: &AudienceId,
    ) -> Option<AudienceIndex> {
        self.by_id.get(&(destination, audience.clone())).copied()
    }

    /// The audience of a batch that was claimed in this process.
    pub fn of_route(&self, route: &Route) -> Option<AudienceIndex> {
        self.find(self.destination(&route.destination)?, &route.audience)
    }

    pub fn of_row(&self, row: AudienceRowId) -> Option<AudienceIndex> {
        self.by_row.get(&row).copied()
    }

    /// The positions of a destination's audiences.
    pub fn of_destination(&self, destination: DestinationIndex) -> Vec<AudienceIndex> {
        let of = |index: &AudienceIndex| self[*index].destination == destination;
        self.indices().filter(of).collect()
    }

    /// Whether the audience of a delta is known with another context kind.
    pub fn has_other_kind(&self, destination: DestinationIndex, delta: &MembershipDelta) -> bool {
        let known = self.find(destination, &delta.audience);
        known.is_some_and(|known| self[known].route.context_kind != delta.context_kind)
    }

    /// The position of a delta's audience, which is registered if it is new. Its key follows the latest
    /// delta. Its kind is fixed by its members, including those `arriving` with the delta and those in blocks
    /// behind `merged`.
    pub fn resolve(
        &mut self,
        db: &Database,
        destination: DestinationIndex,
        delta: &MembershipDelta,
        arriving: &BTreeSet<AudienceIndex>,
        (shared, merged): (&Shared, u64),
    ) -> rusqlite::Result<Result<AudienceIndex, Unrecorded>> {
        let settle = |name: &DestinationName| {
            shared.kinds().settle(name, &delta.audience, &delta.context_kind, merged)
        };
        let Some(index) = self.find(destination, &delta.audience) else {
            let name = &self[destination].settings.name;
            return match settle(name) {
                Ok(()) => self.register(db, destination, delta).map(Ok),
                Err(other) => Ok(Err(other)),
            };
        };
        let audience = &mut self[index];
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
            self.set_expiry(index);
        }
        Ok(Ok(index))
    }

    fn register(
        &mut self,
        db: &Database,
        destination: DestinationIndex,
        delta: &MembershipDelta,
    ) -> rusqlite::Result<AudienceIndex> {
        let Destination { row, settings, .. } = &self[destination];
        let route = Arc::new(Route {
            destination: settings.name.clone(),
            audience: delta.audience.clone(),
            audience_key: delta.audience_key.clone(),
            context_kind: delta.context_kind.clone(),
        });
        let row = rows::insert(db.connection()?, *row, &route)?;
        let index = self.vacant.pop_first().unwrap_or(AudienceIndex(self.list.len()));
        self.put(index, Audience::new(row, destination, route));
        Ok(index)
    }

    /// Gives a dropped audience a fresh row without members; the caller disposes of the old row. Members in
    /// flight stay known.
    pub fn start_over(&mut self, db: &Connection, index: AudienceIndex) -> rusqlite::Result<()> {
        let old = &mut self.list[index.0];
        let destination = self.destinations[old.destination.0].row;
        let row = rows::insert(db, destination, &old.route)?;
        let mut fresh = Audience::new(row, old.destination, Arc::clone(&old.route));
        fresh.in_flight = std::mem::take(&mut old.in_flight).without_rows();
        fresh.is_dropped = true;
        self.by_row.remove(&old.row);
        self.by_row.insert(row, index);
        *old = fresh;
        self.set_expiry(index);
        Ok(())
    }
}
