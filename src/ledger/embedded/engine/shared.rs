//! What the threads of the ledger and its handles both see.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::ledger::embedded::engine::kinds::Kinds;
use crate::ledger::embedded::engine::pace::Pace;
use crate::ledger::embedded::wal::Log;
use crate::ledger::{Backlog, Counters, Turnover};
use crate::membership::{AudienceId, DestinationName, Timestamp};

/// What the writer and the handles both see.
#[derive(Debug)]
pub(crate) struct Shared {
    pub clock: Arc<dyn Clock>,
    pub pace: Pace,
    /// The largest arrival told or recorded.
    pub arrival: AtomicI64,
    /// The last stamp given out.
    pub stamp: AtomicI64,
    pub journal: Log,
    pub kinds: Mutex<Kinds>,
    /// What the writer last found of the disk.
    pub has_no_space: AtomicBool,
    /// A thread has ended that should not have: the writer will, and the daemon.
    pub has_failed: AtomicBool,
    /// Rows of members are not written yet.
    pub is_unwritten: AtomicBool,
    pub published: Mutex<HashMap<DestinationName, Published>>,
    pub counters: Counters,
}

/// What the writer lets everybody see of a destination that is configured, or was since the start.
#[derive(Debug)]
pub(crate) struct Published {
    pub configured: bool,
    pub backlog: BTreeMap<usize, Backlog>,
    pub paused_since: Option<Timestamp>,
    pub news: watch::Receiver<()>,
    /// Since it was last taken.
    pub turnover: HashMap<AudienceId, Turnover>,
}

impl Shared {
    pub fn published(&self) -> MutexGuard<'_, HashMap<DestinationName, Published>> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kinds of all audiences, as far as they are promised.
    pub fn kinds(&self) -> MutexGuard<'_, Kinds> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer has read the blocks of the journal up to this number, and looks for more before it waits.
    pub fn has_read(&self, block: u64) {
        self.journal.has_read(block);
        self.kinds().has_read(block);
    }

    pub fn arrival(&self) -> Timestamp {
        let now = self.clock.now().0;
        Timestamp(self.arrival.fetch_max(now, Ordering::SeqCst).max(now))
    }

    /// Whether what was answered may not be in the tables yet.
    pub fn is_behind(&self) -> bool {
        let is_unwritten = || self.is_unwritten.load(Ordering::SeqCst);
        // Asked first it spares the lock of the journal; asked last it counts, for what is in neither is
        // in the tables.
        is_unwritten() || self.journal.is_used() || is_unwritten()
    }

    /// The clock must never show less than an arrival that was recorded.
    pub fn note_arrival(&self, arrival: Timestamp) {
        self.arrival.fetch_max(arrival.0, Ordering::SeqCst);
    }

    /// The first of so many fresh stamps, of at least one: now, and larger than every stamp before.
    pub fn stamps(&self, count: usize) -> Timestamp {
        let now = self.arrival().0;
        let more = i64::try_from(count).unwrap_or(i64::MAX).max(1) - 1;
        let next = |last: i64| now.max(last + 1);
        let taken = self
            .stamp
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(next(last) + more));
        Timestamp(next(taken.unwrap_or_else(|last| last)))
    }

    /// The largest stamp given out, or arrival told or recorded.
    pub fn latest(&self) -> Timestamp {
        self.arrival().max(Timestamp(self.stamp.load(Ordering::SeqCst)))
    }
}
