//! When upkeep is due: what is told once more, walks, and what is forgotten after its time.

use std::collections::VecDeque;
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::Instant;

use crate::ledger::embedded::tables::reassertions;
use crate::membership::Timestamp;

/// Pause between two slices while nothing else wakes the writer.
const PAUSE: Duration = Duration::from_millis(50);

/// Re-assertions that are due within this of each other share one entry.
const TOGETHER: Duration = Duration::from_millis(10);

/// Between two looks at the age and number of rejected events and parked members.
const LOOK: Duration = Duration::from_secs(60);

/// What is due and when.
#[derive(Debug)]
pub(crate) struct Schedule {
    tombstone_ttl: Duration,
    reassert_after: Duration,
    /// Re-assertions up to a stamp are due at an instant; oldest first.
    reassertions: VecDeque<(Instant, Timestamp)>,
    /// The position of the audience that is walked next.
    pub next_walker: usize,
    /// The row that the current walk for tombstones has come to.
    walk: Option<(i64, String)>,
    next_walk: Instant,
    /// When rejected events and parked members are looked at next.
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
            next_walker: 0,
            walk: None,
            next_walk: now + walk_interval(tombstone_ttl),
            next_look: now,
            next_slice: now,
            more: true,
        };
        schedule.reload(db)?;
        Ok(schedule)
    }

    /// From here on, re-assertions are due so long after a settle.
    pub fn reassert_after(&mut self, reassert_after: Duration) {
        self.reassert_after = reassert_after;
    }

    /// Plans what the table says, at opening and after a transaction that was rolled back.
    pub fn reload(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let latest = reassertions::latest(db)?;
        let due = Instant::now() + self.reassert_after;
        self.reassertions = latest.map(|latest| (due, latest)).into_iter().collect();
        self.wake();
        Ok(())
    }

    /// There is something to do beside the verbs.
    pub fn wake(&mut self) {
        self.more = true;
    }

    /// How long the writer may sleep if no verb arrives.
    pub fn idle_for(&self, now: Instant) -> Duration {
        let slice = self.more.then_some(self.next_slice);
        let reassertion = self.reassertions.front().map(|(due, _)| *due);
        let regular = self.next_walk.min(self.next_look);
        let next = [slice, reassertion].into_iter().flatten().fold(regular, Instant::min);
        next.saturating_duration_since(now)
    }

    /// Notes that a member settled at `at` is to be told once more.
    pub fn reassert_later(
        &mut self,
        db: &Connection,
        audience: i64,
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

    /// A slice was done at `now`; whether there is more.
    pub fn sliced(&mut self, now: Instant, more: bool) {
        self.more = more;
        self.next_slice = now + PAUSE;
    }

    /// Members that were settled until then are to be told once more now; taken from the plan.
    pub fn take_reassertions(&mut self, now: Instant) -> Option<Timestamp> {
        let due = self.reassertions.partition_point(|(due, _)| *due <= now);
        self.reassertions.drain(..due).next_back().map(|(_, through)| through)
    }

    /// Not all of these are done.
    pub fn reassert_more(&mut self, now: Instant, through: Timestamp) {
        self.reassertions.push_front((now, through));
    }

    /// Whether rejected events, messages and parked members are to be looked at.
    pub fn is_look_due(&self, now: Instant) -> bool {
        self.next_look <= now
    }

    /// They were; whether there is more.
    pub fn looked(&mut self, now: Instant, more: bool) {
        self.next_look = now + if more { PAUSE } else { LOOK };
    }

    /// How long a member that left, and was told so, is remembered.
    pub fn tombstone_ttl(&self) -> Duration {
        self.tombstone_ttl
    }

    /// Where the walk for tombstones goes on, if it is under way or due; it ends unless it is said to go on.
    pub fn take_tombstone_walk(&mut self, now: Instant) -> Option<(i64, String)> {
        if self.walk.is_none() && self.next_walk <= now {
            self.next_walk = now + walk_interval(self.tombstone_ttl);
            return Some((i64::MIN, String::new()));
        }
        self.walk.take()
    }

    /// The walk for tombstones goes on behind this row.
    pub fn walk_tombstones_behind(&mut self, row: i64, key: String) {
        self.walk = Some((row, key));
    }
}

/// Often enough that a tombstone outlives its time by little.
fn walk_interval(tombstone_ttl: Duration) -> Duration {
    (tombstone_ttl / 16).clamp(Duration::from_secs(1), Duration::from_secs(6 * 3600))
}
