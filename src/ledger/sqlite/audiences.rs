//! The audiences and destinations that the writer knows, in memory and as rows.
//!
//! Counts of pending members are kept here and not in the tables: they are hints for when to claim,
//! rebuilt at opening, and the claim itself reads the rows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use rusqlite::{Connection, params};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{DestinationSettings, members};
use crate::ledger::{Backlog, Route};
use crate::membership::{
    AudienceId, AudienceKey, ContextKey, ContextKind, DestinationName, MembershipDelta, Timestamp,
};

/// Backlogs of one destination by the row of their audience.
pub(super) type BacklogByRow = BTreeMap<i64, Backlog>;

/// At opening, pending members are counted no further than this: a long backlog is due anyway.
const COUNT_NO_FURTHER: u32 = 20_000;

/// One configured destination.
#[derive(Debug)]
pub(super) struct Destination {
    pub row: i64,
    pub settings: DestinationSettings,
    pub news: watch::Sender<()>,
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
    /// A resync is under way: it has come to this context key.
    pub resync_after: Option<String>,
    /// Members in a batch.
    pub claimed: HashSet<ContextKey>,
    /// Every member pending since then or earlier is in a batch: the next claim looks behind it.
    pub all_claimed_through: Timestamp,
    /// How many rows are pending; at least that many if `uncounted`.
    pub pending: u64,
    pub uncounted: bool,
    /// When the longest waiting unclaimed member began to wait.
    pub waiting_since: Option<Instant>,
}

impl Audience {
    /// Pending members that are in no batch.
    pub fn waiting(&self) -> u64 {
        self.pending.saturating_sub(self.claimed.len() as u64)
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

    /// Reads again how many members are pending.
    pub fn count(&mut self, db: &Connection) -> rusqlite::Result<()> {
        self.pending = members::count_pending(db, self.row, COUNT_NO_FURTHER)?;
        self.uncounted = self.pending >= u64::from(COUNT_NO_FURTHER);
        Ok(())
    }
}

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
    ///
    /// A destination whose environment changed forgets what was told: its audiences are resynced.
    pub fn open(
        db: &Connection,
        settings: Vec<DestinationSettings>,
        stamp: Timestamp,
    ) -> rusqlite::Result<Self> {
        let mut audiences = Self::default();
        let transaction = db.unchecked_transaction()?;
        for settings in settings {
            let (row, known): (i64, String) = transaction.query_row(
                "INSERT INTO destination (name, environment) VALUES (?1, ?2)
                 ON CONFLICT (name) DO UPDATE SET name = name RETURNING id, environment",
                params![settings.name.as_str(), settings.environment],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            if known != settings.environment {
                transaction.execute(
                    "UPDATE destination SET environment = ?2 WHERE id = ?1",
                    params![row, settings.environment],
                )?;
                transaction.execute(
                    "UPDATE audience SET told_counts_from = ?2, acknowledged = 0, resync_after = ''
                     WHERE destination = ?1",
                    params![row, stamp.0],
                )?;
            }
            audiences.by_name.insert(settings.name.clone(), audiences.destinations.len());
            audiences.destinations.push(Destination {
                row,
                settings,
                news: watch::Sender::new(()),
            });
        }
        transaction.execute(
            "UPDATE audience SET unheard_through = max(unheard_through, claimed_through),
                 claimed_through = 0 WHERE claimed_through > 0",
            [],
        )?;
        transaction.commit()?;
        audiences.reload(db)?;
        Ok(audiences)
    }

    /// Makes memory what the tables say, after a transaction that was rolled back. Claims stay.
    pub fn reload(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let mut claimed: HashMap<i64, HashSet<ContextKey>> =
            self.list.drain(..).map(|audience| (audience.row, audience.claimed)).collect();
        self.by_id.clear();
        self.by_row.clear();
        for destination in 0..self.destinations.len() {
            let row = self.destinations[destination].row;
            let mut statement = db.prepare_cached(
                "SELECT id, audience_id, audience_key, context_kind, acknowledged,
                     told_counts_from, claimed_through, unheard_through, resync_after
                 FROM audience WHERE destination = ?1",
            )?;
            let mut rows = statement.query(params![row])?;
            while let Some(row) = rows.next()? {
                let id: i64 = row.get(0)?;
                let name = self.destinations[destination].settings.name.clone();
                let mut audience = Audience {
                    row: id,
                    destination,
                    route: Arc::new(Route {
                        destination: name,
                        audience: stored(AudienceId::new(&row.get::<_, String>(1)?))?,
                        audience_key: stored(AudienceKey::new(&row.get::<_, String>(2)?))?,
                        context_kind: stored(ContextKind::new(&row.get::<_, String>(3)?))?,
                    }),
                    acknowledged: row.get(4)?,
                    told_counts_from: Timestamp(row.get(5)?),
                    claimed_through: Timestamp(row.get(6)?),
                    unheard_through: Timestamp(row.get(7)?),
                    resync_after: row.get(8)?,
                    claimed: claimed.remove(&id).unwrap_or_default(),
                    all_claimed_through: Timestamp::EPOCH,
                    pending: 0,
                    uncounted: false,
                    waiting_since: None,
                };
                audience.count(db)?;
                self.insert(audience);
            }
        }
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

    /// The audience of a delta, registered if it is new. Its name follows the latest delta.
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
        if audience.route.context_kind != delta.context_kind {
            return Ok(Err(KindConflict));
        }
        if audience.route.audience_key != delta.audience_key {
            db.prepare_cached("UPDATE audience SET audience_key = ?2 WHERE id = ?1")?
                .execute(params![audience.row, delta.audience_key.as_str()])?;
            audience.route = Arc::new(Route {
                audience_key: delta.audience_key.clone(),
                ..(*audience.route).clone()
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
        db.prepare_cached(
            "INSERT INTO audience (destination, audience_id, audience_key, context_kind)
             VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            row,
            delta.audience.as_str(),
            delta.audience_key.as_str(),
            delta.context_kind.as_str(),
        ])?;
        let audience = Audience {
            row: db.last_insert_rowid(),
            destination,
            route: Arc::new(Route {
                destination: settings.name.clone(),
                audience: delta.audience.clone(),
                audience_key: delta.audience_key.clone(),
                context_kind: delta.context_kind.clone(),
            }),
            acknowledged: false,
            told_counts_from: Timestamp::EPOCH,
            claimed_through: Timestamp::EPOCH,
            unheard_through: Timestamp::EPOCH,
            resync_after: None,
            claimed: HashSet::new(),
            all_claimed_through: Timestamp::EPOCH,
            pending: 0,
            uncounted: false,
            waiting_since: None,
        };
        Ok(self.insert(audience))
    }
}

/// A text of the table that was checked when it was written.
fn stored<T>(checked: Option<T>) -> rusqlite::Result<T> {
    checked.ok_or(rusqlite::Error::InvalidQuery)
}
