//! Maps stamps to the monotonic clock, to know how long a member has been waiting.
//!
//! Rows hold stamps of the ledger's clock, which stands still while the wall clock is behind it. A wait
//! measured with that clock could appear to last a day, so stamps are paired with monotonic instants here.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::membership::Timestamp;

/// Finer than any sensible linger.
const RESOLUTION: Duration = Duration::from_millis(10);
/// At this number of pairs they are thinned out: old stamps need less precision.
const MOST: usize = 4096;
/// After that, two neighbouring pairs are at least this fraction of their age apart.
const PART_OF_AGE: u32 = 250;

/// Pairs of stamp and instant, oldest first.
#[derive(Debug)]
pub(crate) struct Stamps {
    long_ago: Instant,
    pairs: VecDeque<(Timestamp, Instant)>,
}

impl Stamps {
    pub fn new() -> Self {
        Self { long_ago: Instant::now(), pairs: VecDeque::new() }
    }

    /// Notes that `stamp` was given out at `now`.
    pub fn note(&mut self, stamp: Timestamp, now: Instant) {
        let is_known = |(noted, at): &(Timestamp, Instant)| {
            *noted >= stamp || now.saturating_duration_since(*at) < RESOLUTION
        };
        if self.pairs.back().is_some_and(is_known) {
            return;
        }
        if self.pairs.len() == MOST {
            self.thin_out(now);
        }
        self.pairs.push_back((stamp, now));
    }

    fn thin_out(&mut self, now: Instant) {
        let mut thinner = VecDeque::with_capacity(MOST);
        let mut newer: Option<Instant> = None;
        for (stamp, at) in self.pairs.drain(..).rev() {
            let age = now.duration_since(at);
            if newer.is_none_or(|newer| newer.duration_since(at) >= age / PART_OF_AGE) {
                newer = Some(at);
                thinner.push_front((stamp, at));
            }
        }
        while thinner.len() > MOST - MOST / 16 {
            thinner.pop_front(); // only after months
        }
        self.pairs = thinner;
    }

    /// When `stamp` was given out, rounded down to a noted instant.
    pub fn instant_of(&self, stamp: Timestamp) -> Instant {
        let behind = self.pairs.partition_point(|(noted, _)| *noted <= stamp);
        behind.checked_sub(1).map_or(self.long_ago, |index| self.pairs[index].1)
    }

    /// An instant before every noted one, for what waited already at the start.
    pub fn long_ago(&self) -> Instant {
        self.long_ago
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_remembered_less_exactly_but_remembered() {
        const EVERY: Duration = Duration::from_millis(100);
        let start = Instant::now();
        let mut stamps = Stamps::new();
        for tenth in 0..2_000_000_u32 {
            stamps.note(Timestamp(tenth.into()), start + EVERY * tenth);
        }
        assert!(stamps.pairs.len() <= MOST);
        let now = start + EVERY * 2_000_000;
        for tenths_ago in [1_u32, 600, 36_000, 864_000, 1_999_999] {
            let truly = start + EVERY * (2_000_000 - tenths_ago);
            let known = stamps.instant_of(Timestamp((2_000_000 - tenths_ago).into()));
            assert!(known <= truly, "{tenths_ago} tenths ago");
            let off = truly - known;
            let bound = (now - truly) / 100 + EVERY;
            assert!(off <= bound, "{tenths_ago} tenths ago: off by {off:?}");
        }
    }

    #[test]
    fn a_stamp_maps_to_the_last_instant_noted_before_it() {
        let start = Instant::now();
        let mut stamps = Stamps::new();
        let at = |ms| start + Duration::from_secs(1) + Duration::from_millis(ms);
        stamps.note(Timestamp(100), at(0));
        stamps.note(Timestamp(150), at(5)); // too close to the one before: not noted
        stamps.note(Timestamp(200), at(20));
        let cases =
            [(99, stamps.long_ago()), (100, at(0)), (199, at(0)), (200, at(20)), (900, at(20))];
        for (stamp, expected) in cases {
            assert_eq!(stamps.instant_of(Timestamp(stamp)), expected, "stamp {stamp}");
        }
    }
}
