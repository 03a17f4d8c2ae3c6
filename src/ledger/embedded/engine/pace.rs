//! How much of something is done at once.

use std::time::Duration;

use crate::ledger::embedded::engine::erasure::ERASE_AFTER;

/// How much is done at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Deltas in front of the writer from which more go through the journal instead. A request alone,
    /// and a few at once, are quickest with one sync and no merge.
    pub journal_from: u32,
    /// Bytes of the journal that are read at once: couriers wait for their claims as long.
    pub most_read: u64,
    /// Members of which couriers report together from which their rows are written later.
    pub reported_from: usize,
    /// Changed members whose rows are written later: the more, the fewer pages are written for each.
    pub most_unwritten: usize,
    /// Of these, rows that are written in one transaction.
    pub most_written: usize,
    /// From a deletion until nothing of it is left in the logs.
    pub erase_after: Duration,
}

/// So many rows can be written at once in a second or two, when somebody must see all of them.
pub(crate) const MOST_UNWRITTEN: usize = 3 << 17;

pub(crate) const PACE: Pace = Pace {
    journal_from: 32,
    most_read: 64 << 10,
    reported_from: 500,
    most_unwritten: 1 << 17,
    most_written: 1 << 15,
    erase_after: ERASE_AFTER,
};
