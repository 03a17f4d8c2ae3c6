//! Percentiles of call durations, estimated from histogram buckets.

use crate::counting::Distribution;

/// A histogram of call durations.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct CallTimes {
    /// Upper bounds in seconds, each with the number of calls above the bound before it; the last bound
    /// is infinite.
    buckets: Vec<(f64, u64)>,
}

impl CallTimes {
    /// Adds calls counted in the same buckets.
    pub fn add(&mut self, more: &Distribution) {
        if self.buckets.is_empty() {
            self.buckets.clone_from(&more.buckets);
            return;
        }
        for ((_, sum), (_, count)) in self.buckets.iter_mut().zip(&more.buckets) {
            *sum += count;
        }
    }

    /// The calls added since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let earlier = before.buckets.iter().map(|(_, count)| *count).chain(std::iter::repeat(0));
        let added = self.buckets.iter().zip(earlier);
        Self {
            buckets: added.map(|((of, now), before)| (*of, now.saturating_sub(before))).collect(),
        }
    }

    /// The number of calls.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// The duration in milliseconds that this part (0 to 1) of all calls did not exceed, assuming that
    /// calls are spread evenly within a bucket. `None` if there were no calls.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank among fewer calls than 2^52, and milliseconds of a call"
    )]
    pub fn quantile_ms(&self, part: f64) -> Option<u64> {
        let rank = self.count() as f64 * part;
        let (mut seen, mut lower) = (0.0, 0.0);
        for (upper, count) in self.buckets.iter().map(|(upper, count)| (*upper, *count as f64)) {
            if count > 0.0 && seen + count >= rank {
                // Calls above the last finite bound count as that bound.
                let upper = if upper.is_finite() { upper } else { lower };
                let seconds = lower + (upper - lower) * (rank - seen) / count;
                return Some((seconds * 1000.0).round() as u64);
            }
            seen += count;
            lower = if upper.is_finite() { upper } else { lower };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::counting::Histogram;

    #[test]
    fn quantiles_are_those_of_what_was_added() {
        let calls = Histogram::of_durations();
        let times = || {
            let mut times = CallTimes::default();
            times.add(&calls.read());
            times.add(&Histogram::of_durations().read());
            times
        };
        assert_eq!((times().count(), times().quantile_ms(0.5)), (0, None));
        for millis in 1..=1000 {
            calls.took(Duration::from_millis(millis));
        }
        let before = times();
        for (part, millis) in [(0.5, 500), (0.95, 950), (1.0, 1000)] {
            let found = before.quantile_ms(part).expect("there were calls");
            assert!(found.abs_diff(millis) <= 1, "{part}: {found} for {millis}");
        }
        calls.took(Duration::from_secs(86_400));
        let added = times().since(&before);
        assert_eq!((added.count(), added.quantile_ms(0.5)), (1, Some(10_000)));
        assert_eq!(added.since(&added).quantile_ms(0.95), None);
    }
}
