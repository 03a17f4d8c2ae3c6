//! What became of a destination's events since its mappings last changed. A destination that only ignores or
//! only rejects events is not healthy, however many it accepted under earlier mappings.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::counters::Tally;
use crate::map::Reason;
use crate::membership::Timestamp;

/// What became of the events under the mappings in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SinceChange {
    /// When these mappings were put to use, by this process or an earlier one; `None` if not known yet.
    pub begun_at: Option<Timestamp>,
    /// Events that are durable.
    pub accepted: u64,
    /// Events that no subscription selects.
    pub ignored: u64,
    /// Events that could not be applied.
    pub rejected: u64,
    /// Rejected events that are not stored.
    pub unkept: u64,
    /// Arrival of the first ignored event.
    pub first_ignored_at: Option<Timestamp>,
    /// Arrival of the first rejected event.
    pub first_rejected_at: Option<Timestamp>,
    /// Arrival of the last accepted event.
    pub last_accepted_at: Option<Timestamp>,
    /// Arrival of the last ignored event.
    pub last_ignored_at: Option<Timestamp>,
    /// Arrival of the first and of the last rejected event that is not stored.
    pub unkept_at: Option<(Timestamp, Timestamp)>,
    /// Why the last one of them is not stored.
    pub unkept_reason: Option<Reason>,
    /// When an earlier process, which was killed later, wrote this: events since then are missing from it.
    pub noted_at: Option<Timestamp>,
}

/// Numbers of events since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub accepted: u64,
    pub ignored: u64,
    pub rejected: u64,
    /// Those of the rejected that are not stored.
    pub unkept: u64,
}

/// Where counting began, and the times since. Times are microseconds since the epoch; 0: never.
#[derive(Debug, Default)]
pub(super) struct Change {
    begun: Mutex<Begun>,
    first_ignored_at: AtomicI64,
    first_rejected_at: AtomicI64,
    first_unkept_at: AtomicI64,
    last_accepted_at: AtomicI64,
    last_ignored_at: AtomicI64,
    last_unkept_at: AtomicI64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Begun {
    /// Identifies the mappings in use.
    mappings: u64,
    at: Option<Timestamp>,
    /// The totals of this process when it began.
    before: Totals,
    /// Numbers of events since it began, from earlier processes.
    carried: Totals,
    unkept_reason: Option<Reason>,
    noted_at: Option<Timestamp>,
}

impl Change {
    pub fn events(&self, tally: &Tally, arrival: Timestamp) {
        // an error means that a time is set already
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
        if let Some(reason) = tally.rejected.iter().rfind(|reason| !reason.worth_keeping()) {
            self.begun().unkept_reason = Some(*reason);
            first(&self.first_unkept_at);
            last(&self.last_unkept_at);
        }
    }

    /// These mappings are in use from now on: starts counting anew from these totals.
    pub fn begin(&self, mappings: u64, totals: Totals, at: Timestamp) {
        let begun = Begun { mappings, at: Some(at), before: totals, ..Begun::default() };
        self.set(begun, &SinceChange::default());
    }

    /// Continues the counts of an earlier process, which had put the same mappings to use.
    pub fn carry_on(&self, since: &SinceChange) {
        let SinceChange { accepted, ignored, rejected, unkept, .. } = *since;
        let carried = Totals { accepted, ignored, rejected, unkept };
        let SinceChange { begun_at: at, unkept_reason, noted_at, .. } = *since;
        let begun = Begun { at, carried, unkept_reason, noted_at, ..*self.begun() };
        self.set(begun, since);
    }

    fn set(&self, begun: Begun, times: &SinceChange) {
        *self.begun() = begun;
        for (at, time) in [
            (&self.first_ignored_at, times.first_ignored_at),
            (&self.first_rejected_at, times.first_rejected_at),
            (&self.first_unkept_at, times.unkept_at.map(|(first, _)| first)),
            (&self.last_accepted_at, times.last_accepted_at),
            (&self.last_ignored_at, times.last_ignored_at),
            (&self.last_unkept_at, times.unkept_at.map(|(_, last)| last)),
        ] {
            at.store(time.map_or(0, |time| time.0), Ordering::Relaxed);
        }
    }

    /// The number that identifies the mappings in use.
    pub fn mappings(&self) -> u64 {
        self.begun().mappings
    }

    pub fn read(&self, totals: Totals) -> SinceChange {
        let Begun { at, before, carried, unkept_reason, noted_at, .. } = *self.begun();
        let since = |which: fn(&Totals) -> u64| {
            which(&totals).saturating_sub(which(&before)) + which(&carried)
        };
        let time = |at: &AtomicI64| match at.load(Ordering::Relaxed) {
            0 => None,
            at => Some(Timestamp(at)),
        };
        SinceChange {
            begun_at: at,
            accepted: since(|of| of.accepted),
            ignored: since(|of| of.ignored),
            rejected: since(|of| of.rejected),
            unkept: since(|of| of.unkept),
            first_ignored_at: time(&self.first_ignored_at),
            first_rejected_at: time(&self.first_rejected_at),
            last_accepted_at: time(&self.last_accepted_at),
            last_ignored_at: time(&self.last_ignored_at),
            unkept_at: time(&self.first_unkept_at).zip(time(&self.last_unkept_at)),
            unkept_reason,
            noted_at,
        }
    }

    fn begun(&self) -> MutexGuard<'_, Begun> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
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
        change.begin(7, totals(2, 2), Timestamp(25));
        change.events(&tally(0, 3), Timestamp(30));
        let expected = SinceChange {
            begun_at: Some(Timestamp(25)),
            ignored: 3,
            first_ignored_at: Some(Timestamp(30)),
            last_ignored_at: Some(Timestamp(30)),
            ..SinceChange::default()
        };
        assert_eq!(change.read(totals(2, 5)), expected);

        let next = Change::default();
        next.begin(7, totals(0, 0), Timestamp(40));
        next.carry_on(&expected);
        next.events(&tally(0, 1), Timestamp(50));
        let expected = SinceChange { ignored: 4, last_ignored_at: Some(Timestamp(50)), ..expected };
        assert_eq!(next.read(totals(0, 1)), expected);
    }
}
