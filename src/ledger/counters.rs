//! What the ledger has recorded and committed, as plain numbers.

use super::member::{Change, Member, Next, is_overtaken, is_repeat};
use crate::counting::{Count, Histogram, PerDestination};

/// The numbers of the ledger since it was opened.
#[derive(Debug)]
pub struct Counters {
    /// How many deltas, kept events, claimed and reported members the writer took together.
    pub commit_rows: Histogram,
    /// How long one commit took to be on stable storage.
    pub sync: Histogram,
    /// What became of deltas, by destination.
    pub destinations: PerDestination<Recordings>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            commit_rows: Histogram::of_sizes(),
            sync: Histogram::of_durations(),
            destinations: PerDestination::default(),
        }
    }
}

/// What the committed deltas of one destination came to.
#[derive(Debug, Default)]
pub struct Recordings {
    /// All of them.
    pub deltas: Count,
    /// Those that said nothing new, so that LaunchDarkly is not told for their sake.
    pub repeats: Count,
    /// Those that are older than what is known, and change nothing.
    pub overtaken: Count,
    /// Entries that a deletion left in place, because their event time was ahead of their arrival and
    /// is later than the deletion's.
    pub outlived: Count,
}

impl Recordings {
    pub(crate) fn count(&self, tally: Tally) {
        self.deltas.add(tally.deltas);
        self.repeats.add(tally.repeats);
        self.overtaken.add(tally.overtaken);
        self.outlived.add(tally.outlived);
    }
}

/// The deltas of one transaction, before it is known to be committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    deltas: u64,
    repeats: u64,
    overtaken: u64,
    /// Entries that a deletion left in place although they were stamped ahead of their arrival.
    pub outlived: u64,
}

impl Tally {
    /// A delta changed a row that was `before` to `next`.
    pub fn add(&mut self, before: Option<&Member>, change: &Change, next: &Next) {
        self.deltas += 1;
        self.repeats += u64::from(is_repeat(before, change, next));
        self.overtaken += u64::from(before.is_some_and(|before| is_overtaken(before, change)));
    }
}
