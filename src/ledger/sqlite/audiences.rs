//! The audiences that the writer knows, in memory and as rows, by destination.
//!
//! What changes here changes in memory first; [`Audiences::save`] writes a row as a whole, with its
//! checksum, before the transaction is committed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use rusqlite::{Connection, Row, params};
use tokio::time::Instant;

use super::checksum::{self, Checksum};
use super::destinations::Destination;
use super::walks::Walk;
use super::{DestinationSettings, destinations, members};
use crate::ledger::member::Member;
use crate::ledger::{Backlog, Route};
use crate::membership::{
    AudienceId, AudienceKey, ContextKey, ContextKind, DestinationName, MembershipDelta, Timestamp,
};

/// Backlogs of one destination by the position of their audience.
pub(super) type BacklogByAudience = BTreeMap<usize, Backlog>;

/// How many members of an audience are what. Kept with every change of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub included: u64,
    pub pending: u64,
    pub parked: u64,
}

impl Counts {
    /// A member was this, and is that now.
    pub fn change(&mut self, before: Option<&Member>, after: Option<&Member>) {
        let one = |what: &mut u64, of: fn(&Member) -> bool| match (
            before.is_some_and(of),
            after.is_some_and(of),
        ) {
            (false, true) => *what += 1,
            (true, false) => *what = what.saturating_sub(1),
            _ => {}
        };
        one(&mut self.included, |member| member.membership.as_bool());
        one(&mut self.pending, |member| member.pending_since.is_some());
        one(&mut self.parked, Member::is_parked);
    }
}

/// One audience of a configured destination.
#[derive(Debug)]
pub(super) struct Audience {
    pub row: i64,
    /// Position among the destinations.
    pub destination: usize,
    pub route: Arc<Route>,
    /// LaunchDarkly has taken a member of it.
    pub acknowledged: bool,
    /// What was told before this does not count.
    pub told_counts_from: Timestamp,
    /// No member pending since later than this was claimed since the ledger was opened.
    pub claimed_through: Timestamp,
    /// The same of the time before: these may have been in a call when the process died.
    pub unheard_through: Timestamp,
    /// Something is done to every member, a slice at a time.
    pub walk: Option<Walk>,
    pub counts: Counts,
    /// Members in a batch.
    pub claimed: HashSet<ContextKey>,
    /// Every member pending since then or earlier is in a batch: the next claim looks behind it.
    pub all_claimed_through: Timestamp,
    /// When the longest waiting unclaimed member began to wait.
    pub waiting_since: Option<Instant>,
    /// Checksum of the row as it is stored.
    saved: Option<u32>,
}

impl Audience {
    fn new(row: i64, destination: usize, route: Arc<Route>) -> Self {
        Self {
            row,
            destination,
            route,
            acknowledged: false,
            told_counts_from: Timestamp::EPOCH,
            claimed_through: Timestamp::EPOCH,
            unheard_through: Timestamp::EPOCH,
            walk: None,
            counts: Counts::default(),
            claimed: HashSet::new(),
            all_claimed_through: Timestamp::EPOCH,
            waiting_since: None,
            saved: None,
        }
    }

    /// Pending members that are in no batch.
    pub fn waiting(&self) -> u64 {
        self.counts.pending.saturating_sub(self.claimed.len() as u64)
    }

    /// A member pending since `since` is, or may be, in no batch: the next claim must see it.
    pub fn look_again_from(&mut self, since: Timestamp) {
        self.all_claimed_through = self.all_claimed_through.min(Timestamp(since.0 - 1));
    }

    /// What couriers see of it, if there is anything to claim.
    pub fn backlog(&self, long_ago: Instant) -> Option<Backlog> {
        (self.waiting() > 0).then(|| Backlog {
            audience: self.route.audience.clone(),
            waiting: self.waiting(),
            waiting_since: self.waiting_since.unwrap_or(long_ago),
            acknowledged: self.acknowledged,
        })
    }

    /// What was told went elsewhere: everybody is told again, from the beginning.
    pub fn forget_tellings(&mut self, stamp: Timestamp) {
        self.told_counts_from = stamp;
        self.acknowledged = false;
        let task = self.walk.take().map(|walk| walk.task).unwrap_or_default();
        self.walk = Some(Walk::of(task, stamp, self.counts.included));
    }

    fn checksum(&self) -> u32 {
        let Counts { included, pending, parked } = self.counts;
        let counts = [included, pending, parked].map(u64::cast_signed);
        let walk = self.walk.as_ref();
        let sum = Checksum::new()
            .number(self.row)
            .text(self.route.audience.as_str())
            .text(self.route.audience_key.as_str())
            .text(self.route.context_kind.as_str())
            .number(i64::from(self.acknowledged))
            .number(self.told_counts_from.0)
            .number(self.claimed_through.0)
            .number(self.unheard_through.0)
            .text(&walk.map(Walk::to_string).unwrap_or_default())
            .text(walk.map_or("", |walk| &walk.after));
        counts.into_iter().fold(sum, Checksum::number).finish()
    }

    /// Reads and verifies a row of [`AUDIENCE_COLUMNS`].
    fn from_row(
        row: &Row<'_>,
        destination: usize,
        name: &DestinationName,
    ) -> rusqlite::Result<Self> {
        let route = Route {
            destination: name.clone(),
            audience: stored(AudienceId::new(&row.get::<_, String>(1)?))?,
            audience_key: stored(AudienceKey::new(&row.get::<_, String>(2)?))?,
            context_kind: stored(ContextKind::new(&row.get::<_, String>(3)?))?,
        };
        let walk: Option<String> = row.get(9)?;
        let audience = Self {
            acknowledged: row.get(4)?,
            told_counts_from: Timestamp(row.get(5)?),
            claimed_through: Timestamp(row.get(6)?),
            unheard_through: Timestamp(row.get(7)?),
            walk: match walk {
                Some(walk) => Some(stored(Walk::parse(&walk, row.get(8)?))?),
                None => None,
            },
            counts: Counts { included: row.get(10)?, pending: row.get(11)?, parked: row.get(12)? },
            saved: row.get(13)?,
            ..Self::new(row.get(0)?, destination, Arc::new(route))
        };
        checksum::verify(audience.saved, || audience.checksum(), "an audience")?;
        Ok(audience)
    }
}

/// What [`Audience::from_row`] reads, in its order.
const AUDIENCE_COLUMNS: &str =
    "id, audience_id, audience_key, context_kind, acknowledged, told_counts_from, claimed_through,
     unheard_through, walk_after, walk, included, pending, parked, checksum";

/// Why a delta has no audience to go to.
#[derive(Debug)]
pub(super) struct KindConflict;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Audiences {
    pub destinations: Vec<Destination>,
    pub list: Vec<Audience>,
    by_name: HashMap<DestinationName, usize>,
    by_id: HashMap<(usize, AudienceId), usize>,
    by_row: HashMap<i64, usize>,
}

impl Audiences {
    /// Registers the configured destinations and reads their audiences.
    pub fn open(
        db: &Connection,
        settings: Vec<DestinationSettings>,
        stamp: Timestamp,
    ) -> rusqlite::Result<Self> {
        let mut audiences = Self::default();
        let transaction = db.unchecked_transaction()?;
        transaction.execute(
            "DELETE FROM audience
             WHERE NOT EXISTS (SELECT 1 FROM member WHERE member.audience = audience.id)",
            [],
        )?;
        audiences.configure(&transaction, settings, stamp)?;
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

    /// Reads the audiences of a destination; `claimed` knows who of one is in a batch.
    pub fn load(
        &mut self,
        db: &Connection,
        destination: usize,
        claimed: &mut impl FnMut(&Audience) -> HashSet<ContextKey>,
    ) -> rusqlite::Result<()> {
        let name = self.destinations[destination].settings.name.clone();
        let mut statement = db.prepare_cached(&format!(
            "SELECT {AUDIENCE_COLUMNS} FROM audience WHERE destination = ?1"
        ))?;
        let mut rows = statement.query([self.destinations[destination].row])?;
        while let Some(row) = rows.next()? {
            let mut audience = Audience::from_row(row, destination, &name)?;
            audience.claimed = claimed(&audience);
            self.insert(audience);
        }
        Ok(())
    }

    /// Takes over an audience that a daemon of before has left as it is.
    pub fn adopt(&mut self, db: &Connection, index: usize) -> rusqlite::Result<()> {
        let audience = &mut self.list[index];
        audience.unheard_through = audience.unheard_through.max(audience.claimed_through);
        audience.claimed_through = Timestamp::EPOCH;
        // The store heals what a count got wrong, rather than leave a member untold.
        let waits = members::any_pending(db, audience.row)?;
        if waits != (audience.counts.pending > 0) {
            audience.counts.pending = members::count_pending(db, audience.row)?;
        }
        Ok(())
    }

    /// Makes memory what the tables say, after a transaction that was rolled back. Claims stay.
    pub fn reload(&mut self, db: &Connection) -> rusqlite::Result<()> {
        // By name: the row that it had may be one that was rolled back.
        let name_of = |audience: &Audience| (audience.destination, audience.route.audience.clone());
        let mut claimed: HashMap<(usize, AudienceId), HashSet<ContextKey>> =
            self.list.drain(..).map(|audience| (name_of(&audience), audience.claimed)).collect();
        self.by_id.clear();
        self.by_row.clear();
        for index in 0..self.destinations.len() {
            let destination = &mut self.destinations[index];
            destination.paused_at = db
                .prepare_cached("SELECT paused_at FROM destination WHERE id = ?1")?
                .query_row([destination.row], |row| row.get::<_, Option<i64>>(0))?
                .map(Timestamp);
            self.load(db, index, &mut |audience| {
                claimed.remove(&name_of(audience)).unwrap_or_default()
            })?;
        }
        Ok(())
    }

    /// Writes the row of an audience, if it says something new.
    pub fn save(&mut self, db: &Connection, index: usize) -> rusqlite::Result<()> {
        let audience = &mut self.list[index];
        let checksum = audience.checksum();
        if audience.saved == Some(checksum) {
            return Ok(());
        }
        let walk = audience.walk.as_ref();
        db.prepare_cached(
            "UPDATE audience SET audience_key = ?2, context_kind = ?3, acknowledged = ?4,
                 told_counts_from = ?5, claimed_through = ?6, unheard_through = ?7,
                 walk_after = ?8, walk = ?9, included = ?10, pending = ?11, parked = ?12,
                 checksum = ?13
             WHERE id = ?1",
        )?
        .execute(params![
            audience.row,
            audience.route.audience_key.as_str(),
            audience.route.context_kind.as_str(),
            audience.acknowledged,
            audience.told_counts_from.0,
            audience.claimed_through.0,
            audience.unheard_through.0,
            walk.map(|walk| &walk.after),
            walk.map(Walk::to_string),
            audience.counts.included,
            audience.counts.pending,
            audience.counts.parked,
            checksum,
        ])?;
        audience.saved = Some(checksum);
        Ok(())
    }

    fn insert(&mut self, audience: Audience) -> usize {
        let index = self.list.len();
        self.by_id.insert((audience.destination, audience.route.audience.clone()), index);
        self.by_row.insert(audience.row, index);
        self.list.push(audience);
        index
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

    /// The audience of a delta, registered if it is new. Its name follows the latest delta; its kind
    /// is that of its members.
    pub fn resolve(
        &mut self,
        db: &Connection,
        destination: usize,
        delta: &MembershipDelta,
    ) -> rusqlite::Result<Result<usize, KindConflict>> {
        let Some(index) = self.find(destination, &delta.audience) else {
            return self.register(db, destination, delta).map(Ok);
        };
        let audience = &mut self.list[index];
        let route = &audience.route;
        if route.context_kind != delta.context_kind && members::any(db, audience.row)? {
            return Ok(Err(KindConflict));
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
        db: &Connection,
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
        let row = insert_row(db, *row, &route)?;
        Ok(self.insert(Audience::new(row, destination, route)))
    }

    /// Gives an audience a new row without members; the old row is left to whoever asks. What is in a
    /// call stays known to be.
    pub fn start_over(&mut self, db: &Connection, index: usize) -> rusqlite::Result<()> {
        let old = &mut self.list[index];
        let row = insert_row(db, self.destinations[old.destination].row, &old.route)?;
        let fresh = Audience {
            claimed: std::mem::take(&mut old.claimed),
            ..Audience::new(row, old.destination, Arc::clone(&old.route))
        };
        self.by_row.remove(&old.row);
        self.by_row.insert(row, index);
        *old = fresh;
        Ok(())
    }
}

fn insert_row(db: &Connection, destination: i64, route: &Route) -> rusqlite::Result<i64> {
    db.prepare_cached(
        "INSERT INTO audience (destination, audience_id, audience_key, context_kind)
         VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![
        destination,
        route.audience.as_str(),
        route.audience_key.as_str(),
        route.context_kind.as_str(),
    ])?;
    Ok(db.last_insert_rowid())
}

/// The audiences of a destination, as they are stored.
pub(super) fn stored_audiences(
    db: &Connection,
    destination: i64,
    name: &DestinationName,
) -> rusqlite::Result<Vec<Audience>> {
    db.prepare_cached(&format!("SELECT {AUDIENCE_COLUMNS} FROM audience WHERE destination = ?1"))?
        .query_map([destination], |row| Audience::from_row(row, 0, name))?
        .collect()
}

/// Reads every destination and audience; one that is not as it was written is an error.
pub(super) fn verify_all(db: &Connection) -> rusqlite::Result<()> {
    let mut statement =
        db.prepare("SELECT id, name, environment, paused_at, checksum FROM destination")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, name, environment): (i64, String, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        let paused_at: Option<i64> = row.get(3)?;
        let read = || destinations::checksum_of(id, &name, &environment, paused_at);
        checksum::verify(row.get(4)?, read, "a destination")?;
        let name = stored(DestinationName::new(&name))?;
        stored_audiences(db, id, &name)?;
    }
    Ok(())
}

/// A text of the table that was checked when it was written.
fn stored<T>(checked: Option<T>) -> rusqlite::Result<T> {
    checked.ok_or(rusqlite::Error::InvalidQuery)
}
