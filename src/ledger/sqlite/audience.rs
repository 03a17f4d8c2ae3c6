//! One audience that the writer knows, in memory and as a row.

use std::ops::AddAssign;
use std::sync::Arc;

use rusqlite::{Connection, Row, params};
use tokio::time::Instant;

use super::checksum::{self, Checksum};
use super::claimed::Claimed;
use super::walks::Walk;
use crate::ledger::member::Member;
use crate::ledger::{Backlog, Route, Turnover};
use crate::membership::{AudienceId, AudienceKey, ContextKind, DestinationName, Timestamp};

/// How many members of an audience are what. Kept with every change of a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub included: u64,
    pub pending: u64,
    pub parked: u64,
}

impl Counts {
    /// What one member counts as.
    pub fn of(member: Option<&Member>) -> Self {
        let one = |is: fn(&Member) -> bool| u64::from(member.is_some_and(is));
        Self {
            included: one(|member| member.membership.as_bool()),
            pending: one(|member| member.pending_since.is_some()),
            parked: one(Member::is_parked),
        }
    }

    /// Members counted as this, and count as that now.
    pub fn change(&mut self, before: Self, after: Self) {
        let change = |what: &mut u64, before: u64, after: u64| {
            *what = (*what + after).saturating_sub(before);
        };
        change(&mut self.included, before.included, after.included);
        change(&mut self.pending, before.pending, after.pending);
        change(&mut self.parked, before.parked, after.parked);
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.change(Self::default(), more);
    }
}

impl Turnover {
    /// A member was this, and is that now.
    pub(super) fn change(&mut self, before: Option<&Member>, after: Option<&Member>) {
        let is_in = |member: &Member| member.membership.as_bool();
        match (before.is_some_and(is_in), after.is_some_and(is_in)) {
            (false, true) => self.joined += 1,
            (true, false) => self.left += 1,
            _ => {}
        }
    }
}

/// One audience of a configured destination.
#[derive(Debug)]
pub(super) struct Audience {
    pub row: i64,
    /// Position among the destinations.
    pub destination: usize,
    pub route: Arc<Route>,
    /// It was made since the ledger was opened: everybody of it was noted (`super::bloom`).
    pub is_new: bool,
    /// It was dropped, and nothing of it has arrived since: it goes when nobody is in a batch any more.
    pub is_dropped: bool,
    /// LaunchDarkly has taken a member of it.
    pub acknowledged: bool,
    /// What was told before this does not count.
    pub told_counts_from: Timestamp,
    /// No member pending since later than this was claimed since the ledger was opened: the mark.
    pub claimed_through: Timestamp,
    /// The same as it is on the disk: whoever is claimed behind it is not handed out before the mark is
    /// there.
    pub marked_through: Timestamp,
    /// So many members are marked beyond those that are claimed.
    pub mark_ahead: usize,
    /// The same of the time before: these may have been in a call when the process died.
    pub unheard_through: Timestamp,
    /// Something is done to every member, a slice at a time.
    pub walk: Option<Walk>,
    pub counts: Counts,
    /// The same of the members' rows, of which some may be written later.
    pub written: Counts,
    /// No row says that its member is pending since later than this.
    pub rows_wait_through: Timestamp,
    /// Since this was last published.
    pub turnover: Turnover,
    /// Members in a batch.
    pub claimed: Claimed,
    /// Every member pending since then or earlier is in a batch: the next claim looks behind it.
    pub all_claimed_through: Timestamp,
    /// When the longest waiting unclaimed member began to wait.
    pub waiting_since: Option<Instant>,
    /// Checksum of the row as it is stored.
    saved: Option<u32>,
}

impl Audience {
    pub fn new(row: i64, destination: usize, route: Arc<Route>) -> Self {
        Self {
            row,
            destination,
            route,
            is_new: true,
            is_dropped: false,
            acknowledged: false,
            told_counts_from: Timestamp::EPOCH,
            claimed_through: Timestamp::EPOCH,
            marked_through: Timestamp::EPOCH,
            mark_ahead: 0,
            unheard_through: Timestamp::EPOCH,
            walk: None,
            counts: Counts::default(),
            written: Counts::default(),
            rows_wait_through: Timestamp::EPOCH,
            turnover: Turnover::default(),
            claimed: Claimed::default(),
            all_claimed_through: Timestamp::EPOCH,
            waiting_since: None,
            saved: None,
        }
    }

    /// What is at a position that is free: of no destination, and without the texts of what was there.
    pub fn vacant(before: &Route) -> Self {
        let text = "-";
        let route = AudienceId::new(text).zip(AudienceKey::new(text)).zip(ContextKind::new(text));
        let ((audience, audience_key), context_kind) = route.expect("it is a text");
        let destination = before.destination.clone();
        let route = Route { destination, audience, audience_key, context_kind };
        Self::new(0, usize::MAX, Arc::new(route))
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
        let Counts { included, pending, parked } = self.written;
        let counts = [included, pending, parked].map(u64::cast_signed);
        let walk = self.walk.as_ref();
        let mut sum = Checksum::new();
        sum.number(self.row)
            .text(self.route.audience.as_str())
            .text(self.route.audience_key.as_str())
            .text(self.route.context_kind.as_str())
            .number(i64::from(self.acknowledged))
            .number(self.told_counts_from.0)
            .number(self.claimed_through.0)
            .number(self.unheard_through.0)
            .text(&walk.map(Walk::to_string).unwrap_or_default())
            .text(walk.map_or("", |walk| &walk.after));
        counts.into_iter().fold(&mut sum, Checksum::number).finish()
    }

    /// Its row, if that is to say something new; it counts as written from here on.
    pub fn take_unsaved(&mut self) -> Option<AudienceRow> {
        let checksum = self.checksum();
        if self.saved.replace(checksum) == Some(checksum) {
            return None;
        }
        Some(AudienceRow {
            id: self.row,
            route: Arc::clone(&self.route),
            acknowledged: self.acknowledged,
            told_counts_from: self.told_counts_from,
            claimed_through: self.claimed_through,
            unheard_through: self.unheard_through,
            walk: self.walk.clone(),
            counts: self.written,
            checksum,
        })
    }

    /// Reads and verifies a row of [`AUDIENCE_COLUMNS`].
    pub fn from_row(
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
        let counts = Counts { included: row.get(10)?, pending: row.get(11)?, parked: row.get(12)? };
        let audience = Self {
            is_new: false,
            acknowledged: row.get(4)?,
            told_counts_from: Timestamp(row.get(5)?),
            claimed_through: Timestamp(row.get(6)?),
            marked_through: Timestamp(row.get(6)?),
            unheard_through: Timestamp(row.get(7)?),
            walk: match walk {
                Some(walk) => Some(stored(Walk::parse(&walk, row.get(8)?))?),
                None => None,
            },
            counts,
            written: counts,
            rows_wait_through: Timestamp(i64::MAX),
            saved: row.get(13)?,
            ..Self::new(row.get(0)?, destination, Arc::new(route))
        };
        checksum::verify(audience.saved, || audience.checksum(), "an audience")?;
        Ok(audience)
    }
}

/// The row of an audience as it is to be.
#[derive(Debug)]
pub(super) struct AudienceRow {
    id: i64,
    route: Arc<Route>,
    acknowledged: bool,
    told_counts_from: Timestamp,
    claimed_through: Timestamp,
    unheard_through: Timestamp,
    walk: Option<Walk>,
    counts: Counts,
    checksum: u32,
}

impl AudienceRow {
    /// The mark of which audience.
    pub fn mark(&self) -> (i64, Timestamp) {
        (self.id, self.claimed_through)
    }

    pub fn write(&self, db: &Connection) -> rusqlite::Result<()> {
        db.prepare_cached(
            "UPDATE audience SET audience_key = ?2, context_kind = ?3, acknowledged = ?4,
                 told_counts_from = ?5, claimed_through = ?6, unheard_through = ?7,
                 walk_after = ?8, walk = ?9, included = ?10, pending = ?11, parked = ?12,
                 checksum = ?13
             WHERE id = ?1",
        )?
        .execute(params![
            self.id,
            self.route.audience_key.as_str(),
            self.route.context_kind.as_str(),
            self.acknowledged,
            self.told_counts_from.0,
            self.claimed_through.0,
            self.unheard_through.0,
            self.walk.as_ref().map(|walk| &walk.after),
            self.walk.as_ref().map(Walk::to_string),
            self.counts.included,
            self.counts.pending,
            self.counts.parked,
            self.checksum,
        ])?;
        Ok(())
    }
}

/// What [`Audience::from_row`] reads, in its order.
pub(super) const AUDIENCE_COLUMNS: &str =
    "id, audience_id, audience_key, context_kind, acknowledged, told_counts_from, claimed_through,
     unheard_through, walk_after, walk, included, pending, parked, checksum";

/// A row for a new audience; its id.
pub(super) fn insert_row(
    db: &Connection,
    destination: i64,
    route: &Route,
) -> rusqlite::Result<i64> {
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

/// A text of the table that was checked when it was written.
pub(super) fn stored<T>(checked: Option<T>) -> rusqlite::Result<T> {
    checked.ok_or(rusqlite::Error::InvalidQuery)
}
