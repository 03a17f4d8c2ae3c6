//! Counting: plain numbers that the steps keep of what they do, for whoever reads them.
//!
//! A step adds and never looks; nothing here knows who reads. Adding is an atomic or two, without order:
//! a reading may see one number before another that was added first, and never one twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::membership::DestinationName;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// So many more.
    pub fn add(&self, more: u64) {
        if more > 0 {
            self.0.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// One more.
    pub fn one(&self) {
        self.add(1);
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds in microseconds, for what takes from a fraction of a millisecond to several seconds.
const DURATIONS_US: &[u64] = &[
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];
/// Upper bounds for how many things are handled together.
const SIZES: &[u64] = &[1, 4, 16, 64, 256, 1_024, 4_096, 16_384];

/// How often a quantity was how large.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// As many of the counted units are one of the unit that is read.
    in_a_unit: f64,
    /// One for each bound, and one for what is above the last.
    counts: Box<[Count]>,
    sum: Count,
}

impl Histogram {
    /// Of times; read in seconds.
    #[must_use]
    pub fn of_durations() -> Self {
        Self::new(DURATIONS_US, 1e6)
    }

    /// Of numbers of things.
    #[must_use]
    pub fn of_sizes() -> Self {
        Self::new(SIZES, 1.0)
    }

    fn new(bounds: &'static [u64], in_a_unit: f64) -> Self {
        let counts = (0..=bounds.len()).map(|_| Count::default()).collect();
        Self { bounds, in_a_unit, counts, sum: Count::default() }
    }

    /// It took so long; of a histogram of durations.
    pub fn took(&self, duration: Duration) {
        self.was(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// There were so many; of a histogram of sizes.
    pub fn was(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].one();
        self.sum.add(value);
    }

    /// What was counted so far.
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

/// What a [`Histogram`] has counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// Upper bound, inclusive, and how many were between the one before and this. The last bound is
    /// infinite.
    pub buckets: Vec<(f64, u64)>,
    /// Of all values.
    pub sum: f64,
    /// How many values.
    pub count: u64,
}

/// One set of numbers for each destination, made when it is first asked for. It stays for the life of
/// the process, so that a number never goes back.
#[derive(Debug)]
pub struct PerDestination<T>(Mutex<BTreeMap<DestinationName, Arc<T>>>);

impl<T> Default for PerDestination<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Default> PerDestination<T> {
    /// The numbers of a destination. Locks: ask once, and keep what you get.
    #[must_use]
    pub fn of(&self, destination: &DestinationName) -> Arc<T> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(destination.clone()).or_default())
    }

    /// Those of every destination that was asked for, by name.
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
