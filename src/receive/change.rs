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
    /// Those of them that are not kept.
    pub unkept: u64,
    /// When the first of the ignored came.
    pub first_ignored_at: Option<Timestamp>,
    /// When the first of the rejected came.
    pub first_rejected_at: Option<Timestamp>,
    /// When the last of the accepted came.
    pub last_accepted_at: Option<Timestamp>,
    /// When the last of the ignored came.
    pub last_ignored_at: Option<Timestamp>,
    /// When the first of those that are not kept came, and the last.
    pub unkept_at: Option<(Timestamp, Timestamp)>,
}

/// How many events there were since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub accepted: u64,
    pub ignored: u64,
    pub rejected: u64,
    /// Of the rejected ones.
    pub unkept: u64,
}

/// Where the counting began, and the times since. A time is in microseconds of the epoch; 0: never.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// How many there were until then, and when that was.
    begun: Mutex<(Totals, Option<Timestamp>)>,
    first_ignored_at: AtomicI64,
    first_rejected_at: AtomicI64,
    first_unkept_at: AtomicI64,
    last_accepted_at: AtomicI64,
    last_ignored_at: AtomicI64,
    last_unkept_at: AtomicI64,
}

impl Change {
    pub fn events(&self, tally: &Tally, arrival: Timestamp) {
        // an error is of a time that is known already
        let first = |at: &AtomicI64| {
            let _ = at.compare_exchange(0, arrival.0, Ordering::Relaxed, Ordering::Relaxed);
        };
        let last = |at: &AtomicI64| _ = at.fetch_max(arrival.0, Ordering::Relaxed);
        if tally.accepted > 0 {
            last(&self.last_accepted_at);
        }
        if tally.ignored > 0 {
            first(&self.first_ignored_at);
            last(&self.last_ignored_at);
        }
        if !tally.rejected.is_empty() {
            first(&self.first_rejected_at);
        }
        if !tally.rejected.iter().all(|reason| reason.worth_keeping()) {
            first(&self.first_unkept_at);
            last(&self.last_unkept_at);
        }
    }

    /// Begins anew, at these totals.
    pub fn begin(&self, totals: Totals, at: Timestamp) {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = (totals, Some(at));
        for time in [
            &self.first_ignored_at,
            &self.first_rejected_at,
            &self.first_unkept_at,
            &self.last_accepted_at,
            &self.last_ignored_at,
            &self.last_unkept_at,
        ] {
            time.store(0, Ordering::Relaxed);
        }
    }

    pub fn read(&self, totals: Totals) -> SinceChange {
        let (before, changed_at) = *self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |which: fn(&Totals) -> u64| which(&totals).saturating_sub(which(&before));
        let time = |at: &AtomicI64| match at.load(Ordering::Relaxed) {
            0 => None,
            at => Some(Timestamp(at)),
        };
        SinceChange {
            changed_at,
            accepted: since(|of| of.accepted),
            ignored: since(|of| of.ignored),
            rejected: since(|of| of.rejected),
            unkept: since(|of| of.unkept),
            first_ignored_at: time(&self.first_ignored_at),
            first_rejected_at: time(&self.first_rejected_at),
            last_accepted_at: time(&self.last_accepted_at),
            last_ignored_at: time(&self.last_ignored_at),
            unkept_at: time(&self.first_unkept_at).zip(time(&self.last_unkept_at)),
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
        let totals = |accepted, ignored| Totals { accepted, ignored, ..Totals::default() };
        assert_eq!(change.read(totals(0, 0)), SinceChange::default());
        change.events(&tally(2, 1), Timestamp(10));
        change.events(&tally(0, 1), Timestamp(20));
        let expected = SinceChange {
            accepted: 2,
            ignored: 2,
            first_ignored_at: Some(Timestamp(10)),
            last_accepted_at: Some(Timestamp(10)),
            last_ignored_at: Some(Timestamp(20)),
            ..SinceChange::default()
        };
        assert_eq!(change.read(totals(2, 2)), expected);
        change.begin(totals(2, 2), Timestamp(25));
        change.events(&tally(0, 3), Timestamp(30));
        let expected = SinceChange {
            changed_at: Some(Timestamp(25)),
            ignored: 3,
            first_ignored_at: Some(Timestamp(30)),
            last_ignored_at: Some(Timestamp(30)),
            ..SinceChange::default()
        };
        assert_eq!(change.read(totals(2, 5)), expected);
    }
}
