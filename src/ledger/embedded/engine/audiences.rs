//! The audiences that the writer knows, in memory and as rows, by destination.
//!
//! What changes here changes in memory first; the rows that say something new are written as a whole,
//! each with its checksum, by the next transaction ([`Audiences::take_unsaved`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashMap;
use rusqlite::Connection;

use crate::ledger::embedded::engine::audience::Audience;
use crate::ledger::embedded::engine::shared::Shared;
use crate::ledger::embedded::members::in_flight::InFlight;
use crate::ledger::embedded::settings::DestinationSettings;
use crate::ledger::embedded::tables::audiences as rows;
use crate::ledger::embedded::tables::audiences::AudienceRow;
use crate::ledger::embedded::tables::database::Database;
use crate::ledger::embedded::tables::destinations::Destination;
use crate::ledger::embedded::tables::members;
use crate::ledger::{Route, Unrecorded};
use crate::membership::{AudienceId, DestinationName, MembershipDelta, Timestamp};

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Audiences {
    pub destinations: Vec<Destination>,
    /// By position. One that was dropped leaves its position to the next new one.
    pub list: Vec<Audience>,
    vacant: BTreeSet<usize>,
    by_name: HashMap<DestinationName, usize>,
    by_id: HashMap<(usize, AudienceId), usize>,
    by_row: HashMap<i64, usize>,
}

impl Audiences {
    /// Registers the configured destinations and reads their audiences, and those of `also`, which
    /// were configured before.
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

    /// Another destination; its position.
    pub fn add(&mut self, destination: Destination) -> usize {
        let index = self.destinations.len();
        self.by_name.insert(destination.settings.name.clone(), index);
        self.destinations.push(destination);
        index
    }

    /// Forgets the destinations that were added behind the first so many.
    pub fn keep_first(&mut self, count: usize) {
        self.destinations.truncate(count);
        self.by_name.retain(|_, index| *index < count);
    }

    /// Reads the audiences of a destination; `in_flight` knows who of one is in a batch.
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

    /// Takes over an audience that a daemon of before has left as it is.
    pub fn adopt(&mut self, db: &Connection, index: usize) -> rusqlite::Result<()> {
        let audience = &mut self.list[index];
        audience.marks.adopt();
        // The store heals what a count got wrong, rather than leave a member untold.
        let waits = members::any_pending(db, audience.row)?;
        if waits != (audience.counts.pending > 0) {
            audience.counts.pending = members::count_pending(db, audience.row)?;
            audience.written.pending = audience.counts.pending;
        }
        Ok(())
    }

    /// Makes memory what the tables say, after a transaction that was rolled back. Claims stay; what
    /// was reported of them may be lost.
    pub fn reload(&mut self, db: &Connection, is_lost: bool) -> rusqlite::Result<()> {
        // By name: the row that it had may be one that was rolled back.
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

    /// Writes the row of an audience, if it is to say something new.
    pub fn save(
        &mut self,
        db: &Connection,
        index: usize,
        all_written: bool,
    ) -> rusqlite::Result<()> {
        self.take_unsaved(index, all_written).map_or(Ok(()), |row| row.write(db))
    }

    /// The row of an audience, if it is to say something new; its counts are of the members' rows.
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

    /// Forgets an audience, of which nobody is in a batch; what it was.
    pub fn remove(&mut self, index: usize) -> Audience {
        let vacant = Audience::vacant(&self.list[index].route);
        let removed = std::mem::replace(&mut self.list[index], vacant);
        self.by_id.remove(&(removed.destination, removed.route.audience.clone()));
        self.by_row.remove(&removed.row);
        self.vacant.insert(index); // it stays a position: the group may still speak of it
        removed
    }

    pub fn destination(&self, name: &DestinationName) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub fn find(&self, destination: usize, audience: &AudienceId) -> Option<usize> {
        self.by_id.get(&(destination, audience.clone())).copied()
    }

    /// The audience of a batch that was claimed here.
    pub fn of_route(&self, route: &Route) -> Option<usize> {
        self.find(self.destination(&route.destination)?, &route.audience)
    }

    pub fn of_row(&self, row: i64) -> Option<usize> {
        self.by_row.get(&row).copied()
    }

    /// All audiences of a destination, by position.
    pub fn of_destination(&self, destination: usize) -> Vec<usize> {
        let of = |index: &usize| self.list[*index].destination == destination;
        (0..self.list.len()).filter(of).collect()
    }

    /// Whether the audience of a delta has another kind than that, as far as it is known.
    pub fn has_other_kind(&self, destination: usize, delta: &MembershipDelta) -> bool {
        let known = self.find(destination, &delta.audience);
        known.is_some_and(|known| self.list[known].route.context_kind != delta.context_kind)
    }

    /// The audience of a delta, registered if it is new. Its name follows the latest delta; its kind
    /// is that of its members, of those too who are `arriving` with it, and of those who are promised
    /// by a block behind `merged`.
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

    /// Gives an audience a new row without members; the old row is left to whoever asks. What is in a
    /// call stays known to be.
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
