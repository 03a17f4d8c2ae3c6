//! What became of the events of one destination since the daemon began: counts that only grow.

use std::sync::atomic::{AtomicU64, Ordering};

use super::answer::Account;

/// Counts of one destination.
#[derive(Debug, Default)]
pub struct Tally {
    accepted: AtomicU64,
    ignored: AtomicU64,
    rejected: AtomicU64,
}

impl Tally {
    /// A request is answered.
    pub(super) fn count(&self, account: &Account) {
        let add = |to: &AtomicU64, events: usize| to.fetch_add(events as u64, Ordering::Relaxed);
        add(&self.accepted, account.accepted);
        add(&self.ignored, account.ignored);
        add(&self.rejected, account.rejected.len());
    }

    /// The counts as they are.
    #[must_use]
    pub fn now(&self) -> Tallied {
        Tallied {
            accepted: self.accepted.load(Ordering::Relaxed),
            ignored: self.ignored.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
        }
    }
}

/// The counts of a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallied {
    /// Events that are in the ledger.
    pub accepted: u64,
    /// Events that no mapping selects.
    pub ignored: u64,
    /// Events that could not be applied.
    pub rejected: u64,
}
