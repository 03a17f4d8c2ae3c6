//! One audience that the writer knows, in memory and as a row.

use std::sync::Arc;

use tokio::time::Instant;

use crate::ledger::counts::Counts;
use crate::ledger::embedded::members::Whose;
use crate::ledger::embedded::members::in_flight::InFlight;
use crate::ledger::embedded::tables::audiences::AudienceRow;
use crate::ledger::embedded::tables::walk::Walk;
use crate::ledger::{Backlog, Route, Turnover};
use crate::membership::{AudienceId, AudienceKey, ContextKind, Timestamp};

/// One audience of a configured destination.
#[derive(Debug)]
pub(crate) struct Audience {
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
    pub in_flight: InFlight,
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
            in_flight: InFlight::default(),
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

    pub fn whose(&self) -> Whose {
        Whose { row: self.row, is_new: self.is_new }
    }

    /// Pending members that are in no batch.
    pub fn waiting(&self) -> u64 {
        self.counts.pending.saturating_sub(self.in_flight.len() as u64)
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

    /// Its row, if that is to say something new; it counts as written from here on.
    pub fn take_unsaved(&mut self) -> Option<AudienceRow> {
        let row = AudienceRow {
            id: self.row,
            route: Arc::clone(&self.route),
            acknowledged: self.acknowledged,
            told_counts_from: self.told_counts_from,
            claimed_through: self.claimed_through,
            unheard_through: self.unheard_through,
            walk: self.walk.clone(),
            counts: self.written,
            stored: self.saved,
        };
        let checksum = row.checksum();
        self.saved = Some(checksum);
        (row.stored != self.saved).then_some(row)
    }

    /// As it is stored, of the destination at this position.
    pub fn of_row(row: AudienceRow, destination: usize) -> Self {
        let AudienceRow { id, route, walk, counts, stored, .. } = row;
        Self {
            is_new: false,
            acknowledged: row.acknowledged,
            told_counts_from: row.told_counts_from,
            claimed_through: row.claimed_through,
            marked_through: row.claimed_through,
            unheard_through: row.unheard_through,
            walk,
            counts,
            written: counts,
            rows_wait_through: Timestamp(i64::MAX),
            saved: stored,
            ..Self::new(id, destination, route)
        }
    }
}
