//! A token bucket: an average rate, and a burst. Pure: the caller passes the time.

use std::time::Duration;

use tokio::time::Instant;

/// A rate limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Calls per second, on average.
    pub a_second: f64,
    /// Calls at once, after a period without any.
    pub burst: f64,
}

impl Rate {
    /// This many calls a second, and a second's worth at once.
    #[must_use]
    pub fn a_second(calls: u64) -> Self {
        let calls = f64::from(u32::try_from(calls).unwrap_or(u32::MAX));
        Self { a_second: calls, burst: calls.max(1.0) }
    }
}

/// The tokens left of a rate.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    left: f64,
    filled_at: Option<Instant>,
}

impl Bucket {
    /// A full bucket.
    pub fn of(rate: Rate) -> Self {
        Self { rate, left: rate.burst, filled_at: None }
    }

    /// The rate at which it is refilled.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes a token; `false` if there is none.
    pub fn take(&mut self, now: Instant) -> bool {
        let passed = self.filled_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.filled_at = Some(now);
        self.left =
            passed.as_secs_f64().mul_add(self.rate.a_second, self.left).min(self.rate.burst);
        let has_one = self.left >= 1.0;
        if has_one {
            self.left -= 1.0;
        }
        has_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_at_once_and_the_rest_at_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::of(Rate { a_second: 2.0, burst: 3.0 });
        let at = |ms| start + Duration::from_millis(ms);
        for (ms, allowed) in [
            (0, true),
            (0, true),
            (0, true),
            (0, false),
            (400, false),
            (500, true),
            (600, false),
            (1000, true),
            (60_000, true),
            (60_000, true),
            (60_000, true),
            (60_000, false),
        ] {
            assert_eq!(bucket.take(at(ms)), allowed, "at {ms} ms");
        }
    }
}
