//! Compares clocks: the wall clock with the boot clock, which nobody sets, and the ledger's recorded
//! arrival with the wall clock.
//!
//! It only reports. A step of the wall clock is reported once; a recorded arrival that is ahead is
//! reported again and again, because nothing else shows it.

use std::time::Duration;

use super::status::CLOCK_TOLERANCE;
use crate::membership::Timestamp;

/// Interval between two reports of an arrival that stays ahead.
const SAY_AGAIN: Duration = Duration::from_secs(3600);

/// A report about the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The wall clock was set forward or back by this many seconds.
    Stepped {
        /// Negative if it was set back.
        seconds: i64,
    },
    /// The recorded arrival is ahead of the wall clock by this much.
    ArrivalAhead(Duration),
    /// It was reported to be ahead, and no longer is.
    CaughtUp,
}

/// The previous readings of the clocks.
#[derive(Debug)]
pub struct Clocks {
    /// The wall-clock time of the boot, computed from both clocks: constant unless the wall clock is
    /// set.
    boot: Timestamp,
    /// When, since boot, the arrival was last reported to be ahead.
    said_at: Option<Duration>,
}

impl Clocks {
    /// Starts with the present readings.
    #[must_use]
    pub fn new(now: Timestamp, since_boot: Duration) -> Self {
        Self { boot: now.before(since_boot), said_at: None }
    }

    /// Compares the present readings; `ahead` is how far the recorded arrival is ahead of `now`.
    pub fn look(
        &mut self,
        now: Timestamp,
        since_boot: Duration,
        ahead: Duration,
    ) -> impl Iterator<Item = Finding> + use<> {
        let boot = now.before(since_boot);
        let is_set = boot.since(self.boot).max(self.boot.since(boot)) > CLOCK_TOLERANCE;
        let stepped = is_set.then(|| {
            let seconds = (boot.0 - self.boot.0) / 1_000_000;
            self.boot = boot;
            Finding::Stepped { seconds }
        });
        let is_ahead = ahead > CLOCK_TOLERANCE;
        let is_said = |said_at: Duration| since_boot.saturating_sub(said_at) < SAY_AGAIN;
        let arrival = match self.said_at {
            Some(_) if !is_ahead => {
                self.said_at = None;
                Some(Finding::CaughtUp)
            }
            said_at if is_ahead && !said_at.is_some_and(is_said) => {
                self.said_at = Some(since_boot);
                Some(Finding::ArrivalAhead(ahead))
            }
            _ => None,
        };
        stepped.into_iter().chain(arrival)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The findings at these moments: seconds since boot, offset of the wall clock in seconds, and how
    /// many seconds the arrival is ahead.
    fn findings(moments: &[(u64, i64, u64)]) -> Vec<Vec<Finding>> {
        let wall = |since_boot: u64, offset: i64| {
            Timestamp((since_boot.cast_signed() + offset + 1_800_000_000) * 1_000_000)
        };
        let mut clocks = Clocks::new(wall(10, 0), Duration::from_secs(10));
        let mut look = |&(since_boot, offset, ahead): &(u64, i64, u64)| {
            let (now, ahead) = (wall(since_boot, offset), Duration::from_secs(ahead));
            clocks.look(now, Duration::from_secs(since_boot), ahead).collect()
        };
        moments.iter().map(&mut look).collect()
    }

    #[test]
    fn a_clock_that_is_set_by_more_than_five_minutes_is_said_once_in_either_direction() {
        use Finding::Stepped;
        let said = findings(&[
            (20, 0, 0),
            (86_400, 300, 0),
            (86_410, 301, 0),
            (86_420, 301, 0),
            (86_430, -1000, 0),
            (86_440, -1000, 0),
        ]);
        let expected = [
            vec![],
            vec![],
            vec![Stepped { seconds: 301 }],
            vec![],
            vec![Stepped { seconds: -1301 }],
            vec![],
        ];
        assert_eq!(said, expected);
    }

    #[test]
    fn an_arrival_that_is_ahead_is_said_at_once_and_every_hour_until_it_is_not() {
        let ahead = |seconds| vec![Finding::ArrivalAhead(Duration::from_secs(seconds))];
        let said = findings(&[
            (10, 0, 300),
            (20, 0, 301),
            (30, 0, 400),
            (3619, 0, 400),
            (3620, 0, 400),
            (3630, 0, 300),
            (3640, 0, 0),
            (3650, 0, 301),
        ]);
        let expected = [
            vec![],
            ahead(301),
            vec![],
            vec![],
            ahead(400),
            vec![Finding::CaughtUp],
            vec![],
            ahead(301),
        ];
        assert_eq!(said, expected);
    }
}
