//! What a courier has done since it began, for whoever watches: counts that only grow, of fixed size.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets for each doubling of a call's duration: a quantile is right to a fifth of itself.
const A_DOUBLING: f64 = 4.0;
/// From a millisecond to a minute; what is outside counts in the first or the last.
const BUCKETS: usize = 64;

/// Counts of one courier.
#[derive(Debug)]
pub struct Tally {
    delivered: AtomicU64,
    failed_calls: AtomicU64,
    durations: [AtomicU64; BUCKETS],
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            delivered: AtomicU64::new(0),
            failed_calls: AtomicU64::new(0),
            durations: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Tally {
    /// A call is over: it took so long, and LaunchDarkly took so many members (`None`: it took nothing).
    pub(super) fn count(&self, taken: Option<usize>, took: Duration) {
        match taken {
            Some(members) => _ = self.delivered.fetch_add(members as u64, Ordering::Relaxed),
            None => _ = self.failed_calls.fetch_add(1, Ordering::Relaxed),
        }
        self.durations[bucket(took)].fetch_add(1, Ordering::Relaxed);
    }

    /// The counts as they are.
    #[must_use]
    pub fn now(&self) -> Tallied {
        Tallied {
            delivered: self.delivered.load(Ordering::Relaxed),
            failed_calls: self.failed_calls.load(Ordering::Relaxed),
            durations: std::array::from_fn(|at| self.durations[at].load(Ordering::Relaxed)),
        }
    }
}

/// The counts of a moment, or what was added between two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tallied {
    /// Members that LaunchDarkly took.
    pub delivered: u64,
    /// Calls after which it had taken nothing.
    pub failed_calls: u64,
    durations: [u64; BUCKETS],
}

impl Default for Tallied {
    fn default() -> Self {
        Tally::default().now()
    }
}

impl Tallied {
    /// What was added since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let added = |now: u64, before: u64| now.saturating_sub(before);
        Self {
            delivered: added(self.delivered, before.delivered),
            failed_calls: added(self.failed_calls, before.failed_calls),
            durations: std::array::from_fn(|at| added(self.durations[at], before.durations[at])),
        }
    }

    /// Calls that ended.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.durations.iter().sum()
    }

    /// How long the call took that this part (0 to 1) of all calls did not outlast. `None`: no calls.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank among fewer calls than 2^52"
    )]
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let calls = self.calls();
        let rank = ((calls as f64 * part).ceil() as u64).clamp(1, calls.max(1));
        let mut seen = 0;
        let at = self.durations.iter().position(|of| {
            seen += of;
            seen >= rank
        })?;
        // Half of a bucket up: what is inside is equally likely to be above and below.
        let millis = ((at as f64 + 0.5) / A_DOUBLING).exp2();
        Some(Duration::from_secs_f64(millis / 1000.0))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and the number of buckets"
)]
fn bucket(took: Duration) -> usize {
    let doublings = (took.as_secs_f64() * 1000.0).max(1.0).log2();
    ((doublings * A_DOUBLING) as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_a_fifth_and_extremes_are_kept() {
        let tally = Tally::default();
        for millis in 1..=1000 {
            tally.count(Some(2), Duration::from_millis(millis));
        }
        let now = tally.now();
        for (part, millis) in [(0.5, 500.0), (0.95, 950.0), (1.0, 1000.0), (0.0, 1.0)] {
            let found = now.quantile(part).expect("there were calls").as_secs_f64() * 1000.0;
            assert!((found / millis - 1.0_f64).abs() < 0.2, "{part}: {found} for {millis}");
        }
        tally.count(None, Duration::ZERO);
        tally.count(None, Duration::from_secs(86_400));
        let added = tally.now().since(&now);
        assert_eq!((added.calls(), added.failed_calls, added.delivered), (2, 2, 0));
        assert!(added.quantile(1.0).expect("a call") > Duration::from_secs(50));
        assert_eq!((now.delivered, now.calls()), (2000, 1000));
    }

    #[test]
    fn without_calls_there_is_no_duration() {
        assert_eq!(Tallied::default().quantile(0.5), None);
    }
}
