//! The ledger's own clock, as one replica has it. It follows that of the database, so that replicas agree to within
//! the time that a question takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::clock::Clock;
use crate::membership::Timestamp;

/// Gives out arrivals and stamps.
#[derive(Debug)]
pub(crate) struct Stamps {
    clock: Arc<dyn Clock>,
    /// How far the clock of the database is ahead of this machine's, in microseconds.
    ahead: AtomicI64,
    /// The largest arrival given out or recorded.
    arrival: AtomicI64,
    /// The last stamp given out.
    last: AtomicI64,
}

impl Stamps {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            ahead: AtomicI64::new(0),
            arrival: AtomicI64::new(0),
            last: AtomicI64::new(0),
        }
    }

    /// This machine's clock.
    pub fn here(&self) -> Timestamp {
        self.clock.now()
    }

    /// The clock of the database showed `there` when this machine's showed `here`.
    pub fn follow(&self, there: Timestamp, here: Timestamp) {
        self.ahead.store(there.0.saturating_sub(here.0), Ordering::SeqCst);
    }

    /// The present time, but never less than an arrival that was told or recorded.
    pub fn arrival(&self) -> Timestamp {
        let now = self.clock.now().0.saturating_add(self.ahead.load(Ordering::SeqCst));
        Timestamp(self.arrival.fetch_max(now, Ordering::SeqCst).max(now))
    }

    /// An arrival was recorded: the clock must never show less.
    pub fn note(&self, arrival: Timestamp) {
        self.arrival.fetch_max(arrival.0, Ordering::SeqCst);
    }

    /// A stamp was given out, by whomever: the next one is larger.
    pub fn note_stamp(&self, stamp: Timestamp) {
        self.last.fetch_max(stamp.0, Ordering::SeqCst);
    }

    /// Now, and larger than every stamp before it.
    pub fn fresh(&self) -> Timestamp {
        let now = self.arrival().0;
        let next = |last: i64| now.max(last + 1);
        let last =
            self.last.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(next(last)));
        Timestamp(next(last.unwrap_or_else(|last| last)))
    }
}
