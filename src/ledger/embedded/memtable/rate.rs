//! How fast couriers tell the members of an audience.

use std::time::Duration;

use tokio::time::Instant;

/// Members told in the current window and the one before.
#[derive(Debug, Default)]
pub(crate) struct TellingRate {
    /// Start of the current window.
    since: Option<Instant>,
    now: usize,
    /// Members told in the window before.
    before: usize,
}

/// Length of a window.
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

    /// How many members will be told within `time` at this rate.
    pub fn within(&self, time: Duration, now: Instant) -> usize {
        if self.since.is_none_or(|since| now.duration_since(since) >= 2 * WINDOW) {
            return 0;
        }
        let windows = usize::try_from(time.as_millis() / WINDOW.as_millis()).unwrap_or(0);
        self.before.max(self.now) * windows
    }
}
