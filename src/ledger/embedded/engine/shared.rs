//! State shared by the ledger's threads and its handles.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::counting::{Histogram, PerDestination};
use crate::ledger::embedded::engine::kinds::Kinds;
use crate::ledger::embedded::engine::pace::Pace;
use crate::ledger::embedded::ids::AudienceIndex;
use crate::ledger::embedded::wal::Log;
use crate::ledger::{Backlog, HeldAudience, Recordings, Turnover};
use crate::membership::{AudienceId, DestinationName, Timestamp};

/// State shared by the ledger's threads and its handles.
#[derive(Debug)]
pub(crate) struct Shared {
    pub clock: Arc<dyn Clock>,
    pub pace: Pace,
    /// The largest arrival given out or recorded.
    pub arrival: AtomicI64,
    /// The last stamp given out.
    pub stamp: AtomicI64,
    pub log: Log,
    pub kinds: Mutex<Kinds>,
    /// Whether the disk had no space when the writer last looked.
    pub has_no_space: AtomicBool,
    /// A thread of the ledger has failed; the writer ends next, and with it the daemon.
    pub has_failed: AtomicBool,
    /// Some members are dirty: their rows are not up to date.
    pub has_dirty_members: AtomicBool,
    pub published: Mutex<HashMap<DestinationName, Published>>,
    pub recordings: PerDestination<Recordings>,
    /// Items of one commit.
    pub commit_rows: Histogram,
    /// How long one commit or sync took.
    pub sync: Histogram,
}

/// What the writer publishes of a destination that is configured, or was since the start.
#[derive(Debug)]
pub(crate) struct Published {
    pub configured: bool,
    pub backlog: BTreeMap<AudienceIndex, Backlog>,
    pub held: BTreeMap<AudienceIndex, HeldAudience>,
    pub paused_since: Option<Timestamp>,
    pub news: watch::Receiver<()>,
    /// Since it was last taken.
    pub turnover: HashMap<AudienceId, Turnover>,
}

impl Published {
    /// Adds to the turnover of an audience.
    pub fn count(&mut self, audience: &AudienceId, turnover: Turnover) {
        if turnover != Turnover::default() {
            let sum = self.turnover.entry(audience.clone()).or_default();
            sum.joined += turnover.joined;
            sum.left += turnover.left;
            sum.expired += turnover.expired;
        }
    }
}

impl Shared {
    pub fn published(&self) -> MutexGuard<'_, HashMap<DestinationName, Published>> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The context kinds of all audiences.
    pub fn kinds(&self) -> MutexGuard<'_, Kinds> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer has read the blocks up to this number, and looks for more before it sleeps.
    pub fn has_read(&self, block: u64) {
        self.log.has_read(block);
        self.kinds().has_read(block);
    }

    /// Counts the expired entries of a turnover that was committed.
    pub fn count_expired(&self, destination: &DestinationName, turnover: Turnover) {
        if turnover.expired > 0 {
            self.recordings.of(destination).expired.add(turnover.expired);
        }
    }

    pub fn arrival(&self) -> Timestamp {
        let now = self.clock.now().0;
        Timestamp(self.arrival.fetch_max(now, Ordering::SeqCst).max(now))
    }

    /// Whether something that was answered may not be in the tables yet.
    pub fn is_behind(&self) -> bool {
        let has_dirty_members = || self.has_dirty_members.load(Ordering::SeqCst);
        // The first check is only a shortcut that saves the log's lock. The second one counts: what is in
        // neither the log nor the memtable is in the tables.
        has_dirty_members() || self.log.is_used() || has_dirty_members()
    }

    /// Notes a recorded arrival: the clock must never show less.
    pub fn note_arrival(&self, arrival: Timestamp) {
        self.arrival.fetch_max(arrival.0, Ordering::SeqCst);
    }

    /// Gives out `count` fresh stamps (at least one) and returns the first: now, and larger than every stamp
    /// before.
    pub fn stamps(&self, count: usize) -> Timestamp {
        let now = self.arrival().0;
        let more = i64::try_from(count).unwrap_or(i64::MAX).max(1) - 1;
        let next = |last: i64| now.max(last + 1);
        let taken = self
            .stamp
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(next(last) + more));
        Timestamp(next(taken.unwrap_or_else(|last| last)))
    }

    /// The largest stamp or arrival given out or recorded.
    pub fn latest(&self) -> Timestamp {
        self.arrival().max(Timestamp(self.stamp.load(Ordering::SeqCst)))
    }
}
