//! When upkeep is due: re-assertions, walks, and expiry.

use std::collections::VecDeque;
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::Instant;

use crate::ledger::embedded::ids::{AudienceIndex, AudienceRowId};
use crate::ledger::embedded::tables::reassertions;
use crate::membership::Timestamp;

/// Pause between two slices while no command wakes the writer.
const PAUSE: Duration = Duration::from_millis(50);

/// Re-assertions that are due within this of each other share one entry.
const TOGETHER: Duration = Duration::from_millis(10);

/// Interval at which the age and number of rejected events and parked members are checked.
const LOOK: Duration = Duration::from_secs(60);

/// What is due, and when.
#[derive(Debug)]
pub(crate) struct Schedule {
    tombstone_ttl: Duration,
    reassert_after: Duration,
    /// When re-assertions up to a stamp are due; oldest first.
    reassertions: VecDeque<(Instant, Timestamp)>,
    /// Position of the audience whose walk gets the next turn.
    pub next_walker: AudienceIndex,
    /// The row at which the current search for expired tombstones goes on.
    walk: Option<(AudienceRowId, String)>,
    next_walk: Instant,
    /// When rejected events, messages and parked members are checked next.
    next_look: Instant,
    next_slice: Instant,
    more: bool,
}

impl Schedule {
    pub fn open(
        db: &Connection,
        tombstone_ttl: Duration,
        reassert_after: Duration,
    ) -> rusqlite::Result<Self> {
        let now = Instant::now();
        let mut schedule = Self {
            tombstone_ttl,
            reassert_after,
            reassertions: VecDeque::new(),
            next_walker: AudienceIndex(0),
            walk: None,
            next_walk: now + walk_interval(tombstone_ttl),
            next_look: now,
            next_slice: now,
            more: true,
        };
        schedule.reload(db)?;
        Ok(schedule)
    }

    /// Sets how long after a settle re-assertions are due.
    pub fn reassert_after(&mut self, reassert_after: Duration) {
        self.reassert_after = reassert_after;
    }

    /// Schedules the re-assertions in the table, at opening and after a rollback.
    pub fn reload(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let latest = reassertions::latest(db)?;
        let due = Instant::now() + self.reassert_after;
        self.reassertions = latest.map(|latest| (due, latest)).into_iter().collect();
        self.wake();
        Ok(())
    }

    /// There is upkeep to do.
    pub fn wake(&mut self) {
        self.more = true;
    }

    /// How long after `now` the next slice may be done.
    pub fn next_slice_in(&self, now: Instant) -> Duration {
        self.next_slice.saturating_duration_since(now)
    }

    /// How long the writer may sleep if no command arrives, and nothing expires.
    pub fn idle_for(&self, now: Instant) -> Duration {
        let slice = self.more.then_some(self.next_slice);
        let reassertion = self.reassertions.front().map(|(due, _)| *due);
        let regular = self.next_walk.min(self.next_look);
        let next = [slice, reassertion].into_iter().flatten().fold(regular, Instant::min);
        next.saturating_duration_since(now)
    }

    /// Schedules a member that was settled at `at` to be told once more.
    pub fn reassert_later(
        &mut self,
        db: &Connection,
        audience: AudienceRowId,
        key: &str,
        at: Timestamp,
    ) -> rusqlite::Result<()> {
        reassertions::insert(db, audience, key, at)?;
        let due = Instant::now() + self.reassert_after + TOGETHER;
        match self.reassertions.back_mut() {
            Some((earlier, through)) if due.duration_since(*earlier) < TOGETHER => *through = at,
            _ => self.reassertions.push_back((due, at)),
        }
        Ok(())
    }

    /// A slice was done at `now`; `more`: there is more to do.
    pub fn sliced(&mut self, now: Instant, more: bool) {
        self.more = more;
        self.next_slice = now + PAUSE;
    }

    /// The stamp through which settled members are due to be told once more; it is removed from the schedule.
    pub fn take_reassertions(&mut self, now: Instant) -> Option<Timestamp> {
        let due = self.reassertions.partition_point(|(due, _)| *due <= now);
        self.reassertions.drain(..due).next_back().map(|(_, through)| through)
    }

    /// Some re-assertions up to `through` are still to be done.
    pub fn reassert_more(&mut self, now: Instant, through: Timestamp) {
        self.reassertions.push_front((now, through));
    }

    /// Whether rejected events, messages and parked members are due to be checked.
    pub fn is_look_due(&self, now: Instant) -> bool {
        self.next_look <= now
    }

    /// They were checked; `more`: there is more to do.
    pub fn looked(&mut self, now: Instant, more: bool) {
        self.next_look = now + if more { PAUSE } else { LOOK };
    }

    /// How long a member that left, and was told so, is remembered.
    pub fn tombstone_ttl(&self) -> Duration {
        self.tombstone_ttl
    }

    /// Where the search for expired tombstones goes on, if it is under way or due. It ends unless
    /// [`Self::walk_tombstones_behind`] continues it.
    pub fn take_tombstone_walk(&mut self, now: Instant) -> Option<(AudienceRowId, String)> {
        if self.walk.is_none() && self.next_walk <= now {
            self.next_walk = now + walk_interval(self.tombstone_ttl);
            return Some((AudienceRowId(i64::MIN), String::new()));
        }
        self.walk.take()
    }

    /// Continues the search for expired tombstones behind this row.
    pub fn walk_tombstones_behind(&mut self, row: AudienceRowId, key: String) {
        self.walk = Some((row, key));
    }
}

/// Short enough that tombstones outlive their time only a little.
fn walk_interval(tombstone_ttl: Duration) -> Duration {
    (tombstone_ttl / 16).clamp(Duration::from_secs(1), Duration::from_secs(6 * 3600))
}
