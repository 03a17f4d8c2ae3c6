//! Exponential backoff with full jitter, so that couriers that failed together do not retry together.

use std::time::Duration;

/// Counts failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Counts one more failure and returns the pause after it: uniform between zero and
    /// `floor` · 2^(failures - 1), at most `ceiling`. `draw` is uniform in 0..1.
    pub fn fail(&mut self, floor: Duration, ceiling: Duration, draw: f64) -> Duration {
        let longest = floor.saturating_mul(1 << self.failures.min(20)).min(ceiling);
        self.failures = self.failures.saturating_add(1);
        longest.mul_f64(draw.clamp(0.0, 1.0))
    }

    /// Call after a success: the next failure counts as the first.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_the_ceiling_and_is_drawn_from_nothing_upwards() {
        let (floor, ceiling) = (Duration::from_millis(500), Duration::from_secs(4));
        let longest = [500, 1000, 2000, 4000, 4000, 4000];
        for draw in [0.0, 0.25, 0.999, 1.0] {
            let mut backoff = Backoff::default();
            for longest in longest {
                let pause = backoff.fail(floor, ceiling, draw);
                assert_eq!(pause, Duration::from_millis(longest).mul_f64(draw));
            }
        }
    }

    #[test]
    fn success_starts_over_and_thousands_of_failures_do_not_overflow() {
        let mut backoff = Backoff::default();
        for _ in 0..10_000 {
            backoff.fail(Duration::from_secs(1), Duration::from_secs(30), 1.0);
        }
        let pause = backoff.fail(Duration::from_secs(1), Duration::from_secs(30), 1.0);
        assert_eq!(pause, Duration::from_secs(30));
        backoff.reset();
        let pause = backoff.fail(Duration::from_secs(1), Duration::from_secs(30), 1.0);
        assert_eq!(pause, Duration::from_secs(1));
    }
}
