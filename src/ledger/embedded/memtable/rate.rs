//! How quickly couriers tell the members of an audience.

use std::time::Duration;

use tokio::time::Instant;

/// How many were told of late.
#[derive(Debug, Default)]
pub(crate) struct TellingRate {
    /// Since when they are counted.
    since: Option<Instant>,
    now: usize,
    /// As long before.
    before: usize,
}

/// So long is counted.
const WINDOW: Duration = Duration::from_millis(50);

impl TellingRate {
    pub fn add(&mut self, members: usize, now: Instant) {
        let age = self.since.map(|since| now.duration_since(since));
        if age.is_none_or(|age| age >= WINDOW) {
            let is_next = age.is_some_and(|age| age < 2 * WINDOW);
            self.before = if is_next { self.now } else { 0 };
            (self.since, self.now) = (Some(now), 0);
        }
        self.now += members;
    }

    /// How many will be told within so long, if it goes on.
    pub fn within(&self, time: Duration, now: Instant) -> usize {
        if self.since.is_none_or(|since| now.duration_since(since) >= 2 * WINDOW) {
            return 0;
        }
        let windows = usize::try_from(time.as_millis() / WINDOW.as_millis()).unwrap_or(0);
        self.before.max(self.now) * windows
    }
}
