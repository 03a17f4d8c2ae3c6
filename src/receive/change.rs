//! What became of a destination's events since its mappings last changed: one that only ignores or only
//! rejects is not well, however much it took under another mapping.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::counters::Tally;
use crate::membership::Timestamp;

/// What became of the events since then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinceChange {
    /// When the mappings changed; none: they are those of the start.
    pub changed_at: Option<Timestamp>,
    /// Events that are durable.
    pub accepted: u64,
    /// Events that no subscription selects.
    pub ignored: u64,
    /// Events that could not be applied.
    pub rejected: u64,
    /// When the first of the ignored came.
    pub first_ignored_at: Option<Timestamp>,
    /// When the first of the rejected came.
    pub first_rejected_at: Option<Timestamp>,
    /// When the last of the accepted came.
    pub last_accepted_at: Option<Timestamp>,
}

/// Where the counting began, and the times since. A time is in microseconds of the epoch; 0: never.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// Accepted, ignored and rejected until then, and when that was.
    begun: Mutex<([u64; 3], Option<Timestamp>)>,
    first_ignored_at: AtomicI64,
    first_rejected_at: AtomicI64,
    last_accepted_at: AtomicI64,
}

impl Change {
    pub fn events(&self, tally: &Tally, arrival: Timestamp) {
        // an error is of a time that is known already
        let first = |at: &AtomicI64| {
            let _ = at.compare_exchange(0, arrival.0, Ordering::Relaxed, Ordering::Relaxed);
        };
        if tally.accepted > 0 {
            self.last_accepted_at.fetch_max(arrival.0, Ordering::Relaxed);
        }
        if tally.ignored > 0 {
            first(&self.first_ignored_at);
        }
        if !tally.rejected.is_empty() {
            first(&self.first_rejected_at);
        }
    }

    /// Begins anew, at these totals.
    pub fn begin(&self, totals: [u64; 3], at: Timestamp) {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = (totals, Some(at));
        for time in [&self.first_ignored_at, &self.first_rejected_at, &self.last_accepted_at] {
            time.store(0, Ordering::Relaxed);
        }
    }

    pub fn read(&self, totals: [u64; 3]) -> SinceChange {
        let (before, changed_at) = *self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |which: usize| totals[which].saturating_sub(before[which]);
        let time = |at: &AtomicI64| match at.load(Ordering::Relaxed) {
            0 => None,
            at => Some(Timestamp(at)),
        };
        SinceChange {
            changed_at,
            accepted: since(0),
            ignored: since(1),
            rejected: since(2),
            first_ignored_at: time(&self.first_ignored_at),
            first_rejected_at: time(&self.first_rejected_at),
            last_accepted_at: time(&self.last_accepted_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_the_mappings_begins_anew() {
        let tally = |accepted, ignored| Tally { accepted, ignored, ..Tally::default() };
        let change = Change::default();
        assert_eq!(change.read([0; 3]), SinceChange::default());
        change.events(&tally(2, 1), Timestamp(10));
        change.events(&tally(0, 1), Timestamp(20));
        let expected = SinceChange {
            accepted: 2,
            ignored: 2,
            first_ignored_at: Some(Timestamp(10)),
            last_accepted_at: Some(Timestamp(10)),
            ..SinceChange::default()
        };
        assert_eq!(change.read([2, 2, 0]), expected);
        change.begin([2, 2, 0], Timestamp(25));
        change.events(&tally(0, 3), Timestamp(30));
        let expected = SinceChange {
            changed_at: Some(Timestamp(25)),
            ignored: 3,
            first_ignored_at: Some(Timestamp(30)),
            ..SinceChange::default()
        };
        assert_eq!(change.read([2, 5, 0]), expected);
    }
}
