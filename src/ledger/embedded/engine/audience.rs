//! An audience as the writer holds it in memory, and its row.

use std::sync::Arc;

use tokio::time::Instant;

use crate::ledger::counts::Counts;
use crate::ledger::embedded::engine::expiry::Expiry;
use crate::ledger::embedded::engine::passing::Passing;
use crate::ledger::embedded::ids::{AudienceRowId, DestinationIndex};
use crate::ledger::embedded::members::Whose;
use crate::ledger::embedded::members::in_flight::InFlight;
use crate::ledger::embedded::tables::audiences::AudienceRow;
use crate::ledger::embedded::tables::walk::{Task, Walk};
use crate::ledger::embedded::watermarks::ClaimMarks;
use crate::ledger::guard::Guard;
use crate::ledger::member::Member;
use crate::ledger::{Backlog, HeldAudience, Route, Turnover};
use crate::membership::{AudienceId, AudienceKey, ContextKey, ContextKind, Timestamp};

/// An audience of a destination.
#[derive(Debug)]
pub(crate) struct Audience {
    pub row: AudienceRowId,
    /// Index into [`Audiences::destinations`](super::audiences::Audiences::destinations).
    pub destination: DestinationIndex,
    pub route: Arc<Route>,
    /// Created since the ledger was opened, so that all its members are in the Bloom filter
    /// ([`super::super::members::bloom`]).
    pub is_new: bool,
    /// Dropped, and no delta for it has arrived since: it is removed once nothing of it is in flight.
    pub is_dropped: bool,
    /// LaunchDarkly has accepted a member of it.
    pub acknowledged: bool,
    /// What was told before this does not count.
    pub told_counts_from: Timestamp,
    /// As of when the latest snapshot of it was.
    pub snapshot_at: Timestamp,
    pub marks: ClaimMarks,
    /// A task over all its members that is under way, done a slice at a time.
    pub walk: Option<Walk>,
    pub counts: Counts,
    /// Unlike `counts` it is written as it is: what is read again of the log is not counted again.
    pub guard: Guard,
    /// Changes of the log up to this one were counted before the ledger was opened.
    pub counted_before: Timestamp,
    /// Who is told although it is held.
    pub passing: Passing,
    /// Counts of the members' rows, which lag behind `counts` while members are dirty.
    pub written: Counts,
    /// Members that joined and left since this was last published.
    pub turnover: Turnover,
    /// Members that a courier has claimed and not reported.
    pub in_flight: InFlight,
    /// Its entries expire, and when somebody next has to look for those that have.
    pub expiry: Option<Expiry>,
    /// When the oldest pending member that is not in flight began to wait.
    pub waiting_since: Option<Instant>,
    /// Checksum of the stored row.
    saved: Option<u32>,
}

impl Audience {
    pub fn new(row: AudienceRowId, destination: DestinationIndex, route: Arc<Route>) -> Self {
        Self {
            row,
            destination,
            route,
            is_new: true,
            is_dropped: false,
            acknowledged: false,
            told_counts_from: Timestamp::EPOCH,
            snapshot_at: Timestamp::EPOCH,
            marks: ClaimMarks::NONE,
            walk: None,
            counts: Counts::default(),
            guard: Guard::default(),
            counted_before: Timestamp::EPOCH,
            passing: Passing::default(),
            written: Counts::default(),
            turnover: Turnover::default(),
            in_flight: InFlight::default(),
            expiry: None,
            waiting_since: None,
            saved: None,
        }
    }

    /// A placeholder for a free position: it belongs to no destination, and holds none of the texts of the
    /// audience before it.
    pub fn vacant(before: &Route) -> Self {
        let text = "-";
        let route = AudienceId::new(text).zip(AudienceKey::new(text)).zip(ContextKind::new(text));
        let ((audience, audience_key), context_kind) = route.expect("it is a text");
        let destination = before.destination.clone();
        let route = Route { destination, audience, audience_key, context_kind };
        Self::new(AudienceRowId(0), DestinationIndex(usize::MAX), Arc::new(route))
    }

    pub fn whose(&self) -> Whose {
        Whose { row: self.row, is_new: self.is_new }
    }

    /// It is held, and a member of it has changed: whether it is told all the same.
    pub fn may_pass(&mut self, key: &ContextKey, now: Option<&Member>) {
        if !now.is_some_and(|now| now.erase && now.pending_since.is_some()) {
            self.passing.remove(key);
        } else if let Some(now) = now {
            self.passing.offer(key, now);
        }
    }

    /// Pending members that are not in flight and may be told.
    pub fn waiting(&self) -> u64 {
        if self.guard.is_held() {
            let passing = self.passing.waiting(&self.in_flight).count() as u64;
            return passing.max(self.passing.has_more().into());
        }
        self.counts.pending.saturating_sub(self.in_flight.len() as u64)
    }

    /// Its backlog as couriers see it, if there is anything to claim.
    pub fn backlog(&self, long_ago: Instant) -> Option<Backlog> {
        let waiting = self.waiting();
        (waiting > 0).then(|| Backlog {
            audience: self.route.audience.clone(),
            waiting,
            waiting_since: self.waiting_since.unwrap_or(long_ago),
            acknowledged: self.acknowledged,
        })
    }

    /// Its guard as people see it, if it is held.
    pub fn held(&self) -> Option<HeldAudience> {
        let held_since = self.guard.held_since()?;
        let task = self.walk.as_ref().map(|walk| &walk.task);
        let is_discarding = matches!(task, Some(Task::Reenter { .. }));
        Some(HeldAudience::of(&self.route, held_since, &self.guard, is_discarding))
    }

    /// Forgets what was told, because LaunchDarkly's side is another or lost it: starts to tell every member
    /// again.
    pub fn forget_tellings(&mut self, stamp: Timestamp) {
        self.told_counts_from = stamp;
        self.acknowledged = false;
        let task = self.walk.take().map(|walk| walk.task).unwrap_or_default();
        self.walk = Some(Walk::of(task, stamp, self.counts.included));
    }

    /// Returns its row if it differs from the stored one; from here on it counts as stored.
    pub fn take_unsaved(&mut self) -> Option<AudienceRow> {
        let row = AudienceRow {
            id: self.row,
            route: Arc::clone(&self.route),
            acknowledged: self.acknowledged,
            told_counts_from: self.told_counts_from,
            snapshot_at: self.snapshot_at,
            claimed_through: self.marks.claimed_through,
            unheard_through: self.marks.unheard_through,
            walk: self.walk.clone(),
            counts: self.written,
            guard: self.guard,
            stored: self.saved,
        };
        let checksum = row.checksum();
        self.saved = Some(checksum);
        (row.stored != self.saved).then_some(row)
    }

    /// Reads an audience from its row; `destination` is an index.
    pub fn of_row(row: AudienceRow, destination: DestinationIndex) -> Self {
        let AudienceRow { id, route, walk, counts, guard, stored, .. } = row;
        Self {
            is_new: false,
            acknowledged: row.acknowledged,
            told_counts_from: row.told_counts_from,
            snapshot_at: row.snapshot_at,
            marks: ClaimMarks::stored(row.claimed_through, row.unheard_through),
            walk,
            counts,
            guard,
            counted_before: guard.counted_through(),
            written: counts,
            saved: stored,
            ..Self::new(id, destination, route)
        }
    }
}
