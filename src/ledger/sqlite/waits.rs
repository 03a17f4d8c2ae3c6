//! Since when a member has been waiting, on the clock that never jumps.
//!
//! Rows hold stamps of the ledger's clock, which stands still while the wall clock is behind it. A
//! wait measured with that could last a day, so stamps are paired with the monotonic clock here.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::membership::Timestamp;

/// Finer than any linger that makes sense.
const RESOLUTION: Duration = Duration::from_millis(10);
/// Enough for the longest linger that makes sense; what is older counts as "long ago".
const MOST: usize = 4096;

/// Pairs of stamp and instant, oldest first.
#[derive(Debug)]
pub(super) struct Waits {
    long_ago: Instant,
    pairs: VecDeque<(Timestamp, Instant)>,
}

impl Waits {
    pub fn new() -> Self {
        Self { long_ago: Instant::now(), pairs: VecDeque::new() }
    }

    /// Notes that `stamp` is given out at `now`.
    pub fn note(&mut self, stamp: Timestamp, now: Instant) {
        if self.pairs.back().is_some_and(|(_, at)| now.duration_since(*at) < RESOLUTION) {
            return;
        }
        if self.pairs.len() == MOST {
            self.pairs.pop_front();
        }
        self.pairs.push_back((stamp, now));
    }

    /// When `stamp` was given out; never later than it truly was.
    pub fn instant_of(&self, stamp: Timestamp) -> Instant {
        let behind = self.pairs.partition_point(|(noted, _)| *noted <= stamp);
        behind.checked_sub(1).map_or(self.long_ago, |index| self.pairs[index].1)
    }

    /// Before anything that is noted: for what has waited already.
    pub fn long_ago(&self) -> Instant {
        self.long_ago
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_maps_to_the_last_instant_noted_before_it() {
        let start = Instant::now();
        let mut waits = Waits::new();
        let at = |ms| start + Duration::from_secs(1) + Duration::from_millis(ms);
        waits.note(Timestamp(100), at(0));
        waits.note(Timestamp(150), at(5)); // too close: not noted
        waits.note(Timestamp(200), at(20));
        let cases =
            [(99, waits.long_ago()), (100, at(0)), (199, at(0)), (200, at(20)), (900, at(20))];
        for (stamp, expected) in cases {
            assert_eq!(waits.instant_of(Timestamp(stamp)), expected, "stamp {stamp}");
        }
    }
}
