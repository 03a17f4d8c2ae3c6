//! What became of the deltas that were recorded, counted by destination.

use super::member::{Change, Member, Moment, Next, is_overtaken, is_repeat};
use crate::counting::Count;

/// Outcomes of the committed deltas of one destination.
#[derive(Debug, Default)]
pub struct Recordings {
    /// All deltas.
    pub deltas: Count,
    /// Deltas that said nothing new, so that LaunchDarkly is not told because of them.
    pub repeats: Count,
    /// Deltas older than what is known, which change nothing.
    pub overtaken: Count,
    /// Entries that a deletion left in place, because their event time was ahead of their arrival and later
    /// than that of the deletion.
    pub outlived: Count,
    /// Members that left because their entries have expired.
    pub expired: Count,
}

impl Recordings {
    pub(crate) fn count(&self, tally: Tally) {
        self.deltas.add(tally.deltas);
        self.repeats.add(tally.repeats);
        self.overtaken.add(tally.overtaken);
        self.outlived.add(tally.outlived);
    }
}

/// Outcomes of the deltas of one transaction, counted into [`Recordings`] once it is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    deltas: u64,
    repeats: u64,
    overtaken: u64,
    /// See [`Recordings::outlived`].
    pub outlived: u64,
}

impl Tally {
    /// Counts a delta that changed a member from `before` to `next`.
    pub fn add(&mut self, before: Option<&Member>, change: &Change, next: &Next, moment: &Moment) {
        self.deltas += 1;
        self.repeats += u64::from(is_repeat(before, change, next, moment));
        self.overtaken += u64::from(is_overtaken(before, change, moment));
    }
}
