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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_better_of_the_last_two_windows() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let second = Duration::from_secs(1);
        let mut rate = TellingRate::default();
        assert_eq!(rate.within(second, start), 0);
        // told at, this many, and how many a second that is
        let rows = [
            (0, 5, 100),
            (49, 5, 200), // in the same window
            (50, 3, 200), // in the next one, of which little is over
            (99, 9, 240), // which is better by now
            (150, 1, 20), // the window before was empty
            (300, 2, 40), // so was this one: it is over twice its length
            (399, 3, 60), // as long ago as it can be to count
        ];
        for (at, members, a_second) in rows {
            rate.add(members, after(at));
            assert_eq!(rate.within(second, after(at)), a_second, "at {at} ms");
        }
        assert_eq!(rate.within(second * 2, after(449)), 120);
        assert_eq!(rate.within(second, after(499)), 0, "nothing is told any more");
    }
}
