//! Batch sizes and thresholds.

use std::time::Duration;

use crate::ledger::embedded::engine::erasure::ERASE_AFTER;

/// Batch sizes and thresholds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Deltas queued for the writer from which further requests go through the log. One request, or a few at
    /// once, are fastest with a single sync and no merge.
    pub journal_from: u32,
    /// Most bytes of the log read at once: a claim may have to wait for that.
    pub most_read: u64,
    /// Members reported together from which the reports go to the memtable.
    pub reported_from: usize,
    /// Most dirty members held; a larger memtable lets more rows share a page write.
    pub most_dirty: usize,
    /// Most of them written in one transaction.
    pub most_written: usize,
    /// Time from a deletion until nothing of it is left in the logs.
    pub erase_after: Duration,
}

/// Upper bound of [`Pace::most_dirty`]: this many rows can be flushed in a second or two, when a reader
/// must see all of them.
pub(crate) const MOST_DIRTY: usize = 3 << 17;

pub(crate) const PACE: Pace = Pace {
    journal_from: 32,
    most_read: 64 << 10,
    reported_from: 500,
    most_dirty: 1 << 17,
    most_written: 1 << 15,
    erase_after: ERASE_AFTER,
};
