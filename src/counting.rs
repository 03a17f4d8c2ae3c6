//! Counters and histograms that the steps of the pipeline keep about their work.
//!
//! A step only adds and never reads; this module does not know the readers. Adding uses relaxed
//! atomics: a reader may see one counter before another that was incremented first, but never counts
//! anything twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::membership::DestinationName;

/// A counter that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds this many.
    pub fn add(&self, more: u64) {
        if more > 0 {
            self.0.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// Adds one.
    pub fn one(&self) {
        self.add(1);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of buckets in microseconds, for durations from a fraction of a millisecond to several
/// seconds.
const DURATIONS_US: &[u64] = &[
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];
/// Upper bounds of buckets for numbers of things handled together.
const SIZES: &[u64] = &[1, 4, 16, 64, 256, 1_024, 4_096, 16_384];

/// Counts values in buckets.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// How many recorded units make one unit as it is read, such as microseconds in a second.
    in_a_unit: f64,
    /// One per bound, and one for values above the last bound.
    counts: Box<[Count]>,
    sum: Count,
}

impl Histogram {
    /// A histogram of durations, read in seconds.
    #[must_use]
    pub fn of_durations() -> Self {
        Self::new(DURATIONS_US, 1e6)
    }

    /// A histogram of sizes.
    #[must_use]
    pub fn of_sizes() -> Self {
        Self::new(SIZES, 1.0)
    }

    fn new(bounds: &'static [u64], in_a_unit: f64) -> Self {
        let counts = (0..=bounds.len()).map(|_| Count::default()).collect();
        Self { bounds, in_a_unit, counts, sum: Count::default() }
    }

    /// Records a duration, in a histogram of durations.
    pub fn took(&self, duration: Duration) {
        self.was(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// Records a size, in a histogram of sizes.
    pub fn was(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].one();
        self.sum.add(value);
    }

    /// What was recorded so far.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "nobody needs the last digit")]
    pub fn read(&self) -> Distribution {
        let in_unit = |value: u64| value as f64 / self.in_a_unit;
        let bounds = self.bounds.iter().map(|bound| in_unit(*bound)).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(self.counts.iter().map(Count::get)).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        Distribution { buckets, sum: in_unit(self.sum.get()), count }
    }
}

/// The contents of a [`Histogram`].
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// Upper bounds, inclusive, each with the number of values above the bound before it. The last
    /// bound is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// The sum of all values.
    pub sum: f64,
    /// The number of values.
    pub count: u64,
}

/// One set of counters per destination, created on first use and kept for the life of the process, so
/// that counters never go back.
#[derive(Debug)]
pub struct PerDestination<T>(Mutex<BTreeMap<DestinationName, Arc<T>>>);

impl<T> Default for PerDestination<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Default> PerDestination<T> {
    /// The counters of a destination. Takes a lock: call once and keep the result.
    #[must_use]
    pub fn of(&self, destination: &DestinationName) -> Arc<T> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(destination.clone()).or_default())
    }

    /// The counters of every destination that has any, in order of name.
    #[must_use]
    pub fn all(&self) -> Vec<(DestinationName, Arc<T>)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(name, numbers)| (name.clone(), Arc::clone(numbers))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_counted_in_the_first_bucket_that_holds_it() {
        let sizes = Histogram::of_sizes();
        for value in [0, 1, 2, 4, 5, 16_384, 16_385, 1_000_000] {
            sizes.was(value);
        }
        let read = sizes.read();
        let counts: Vec<u64> = read.buckets.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [2, 2, 1, 0, 0, 0, 0, 1, 2]);
        assert_eq!(read.buckets[0].0.to_bits(), 1.0_f64.to_bits());
        assert!(read.buckets[8].0.is_infinite());
        assert_eq!((read.count, read.sum.to_bits()), (8, 1_032_781.0_f64.to_bits()));
    }

    #[test]
    fn durations_are_read_in_seconds() {
        let durations = Histogram::of_durations();
        durations.took(Duration::from_millis(1));
        durations.took(Duration::from_secs(60));
        let read = durations.read();
        assert_eq!(read.buckets.iter().map(|(_, count)| count).sum::<u64>(), 2);
        let bounds: Vec<String> = read.buckets.iter().map(|(bound, _)| bound.to_string()).collect();
        assert_eq!(bounds[1..4], ["0.001", "0.0025", "0.005"]);
        assert_eq!(read.buckets[1].1, 1);
        assert!((read.sum - 60.001).abs() < 1e-9, "{read:?}");
    }

    #[test]
    fn a_destination_keeps_its_numbers() {
        let all = PerDestination::<Count>::default();
        let eu = DestinationName::new("eu").expect("a name");
        all.of(&eu).add(2);
        all.of(&eu).one();
        let read: Vec<(String, u64)> =
            all.all().iter().map(|(name, count)| (name.to_string(), count.get())).collect();
        assert_eq!(read, [("eu".to_owned(), 3)]);
    }
}
