//! The optional rate limit of the stand-in: a number of calls for each window, reported in LaunchDarkly's
//! headers ([rate limits](crate::design::launchdarkly::rate_limits)).

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::membership::Timestamp;

/// A number of calls for each window. A window begins with the first call after the previous window's end.
#[derive(Debug)]
pub(super) struct RateLimit {
    calls: u64,
    window: Duration,
    left: u64,
    ends_at: Timestamp,
}

impl RateLimit {
    pub fn new(calls: u64, window: Duration) -> Self {
        Self { calls, window, left: calls, ends_at: Timestamp::EPOCH }
    }

    /// Counts a call. Returns the rate limit headers of its answer, and whether it is within the limit.
    pub fn call(&mut self, now: Timestamp) -> (HeaderMap, bool) {
        if now >= self.ends_at {
            (self.left, self.ends_at) = (self.calls, now.after(self.window));
        }
        let is_within = self.left > 0;
        self.left = self.left.saturating_sub(1);
        let ends_ms = self.ends_at.since(Timestamp::EPOCH).as_millis();
        let wait = self.ends_at.since(now);
        let named = |name, number: u128| {
            let value = HeaderValue::from_str(&number.to_string()).expect("digits");
            (HeaderName::from_static(name), value)
        };
        let mut headers = HeaderMap::from_iter([
            named("x-ratelimit-route-limit", self.calls.into()),
            named("x-ratelimit-route-remaining", self.left.into()),
            named("x-ratelimit-reset", ends_ms),
        ]);
        if !is_within {
            headers.insert(header::RETRY_AFTER, wait.as_secs().saturating_add(1).into());
        }
        (headers, is_within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_takes_so_many_calls_and_says_when_the_next_begins() {
        let mut limit = RateLimit::new(2, Duration::from_secs(5));
        let at = |second| Timestamp::EPOCH.after(Duration::from_secs(second));
        let rows = [(100, "1", true), (101, "0", true), (102, "0", false), (105, "1", true)];
        for (second, remaining, is_within) in rows {
            let (headers, taken) = limit.call(at(second));
            assert_eq!(headers["x-ratelimit-route-remaining"], remaining, "{second}");
            assert_eq!(taken, is_within, "{second}");
            let reset = if second < 105 { "105000" } else { "110000" };
            assert_eq!(headers["x-ratelimit-reset"], reset, "{second}");
            let waits = headers.get("retry-after").map(|value| value.to_str().expect("digits"));
            assert_eq!(waits, (!is_within).then_some("4"), "{second}");
        }
    }
}
