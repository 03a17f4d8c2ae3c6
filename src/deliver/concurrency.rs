//! How many requests may be in flight (additive increase, multiplicative decrease): one more after each
//! round of fast clean answers, half as many after trouble. Pure.

use std::num::NonZeroUsize;
use std::time::Duration;

use tokio::time::Instant;

/// A slower answer shows that enough requests are in flight already.
const FAST: Duration = Duration::from_secs(2);

/// The present bound, between the two that are configured.
#[derive(Debug)]
pub(super) struct Concurrency {
    least: f64,
    most: f64,
    /// Fractional: the part below one is progress towards one more request.
    allowed: f64,
    /// When the bound was last halved. Trouble of calls sent before that is not counted again.
    cut_at: Option<Instant>,
}

impl Concurrency {
    /// Starts at the maximum: trouble is rare, and shows at once.
    pub fn new(least: NonZeroUsize, most: NonZeroUsize) -> Self {
        let whole = |bound: NonZeroUsize| f64::from(u32::try_from(bound.get()).unwrap_or(u32::MAX));
        let most = whole(most);
        Self { least: whole(least).min(most), most, allowed: most, cut_at: None }
    }

    /// Other bounds are configured; what trouble has taken away stays away.
    pub fn change(&mut self, least: NonZeroUsize, most: NonZeroUsize) {
        let Self { least, most, .. } = Self::new(least, most);
        let is_at_most = self.allowed >= self.most;
        self.allowed = if is_at_most { most } else { self.allowed.clamp(least, most) };
        (self.least, self.most) = (least, most);
    }

    /// The number of requests that may be in flight now.
    pub fn allowed(&self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is between two numbers of requests"
        )]
        (self.allowed as usize).max(1)
    }

    /// A batch was taken, and the call took this long.
    pub fn clean(&mut self, took: Duration) {
        if took <= FAST {
            self.allowed = (self.allowed + 1.0 / self.allowed).min(self.most);
        }
    }

    /// A call sent at `sent` ended at `now` with a rate limit or without a usable answer. Calls that
    /// were in flight together count once.
    pub fn trouble(&mut self, sent: Instant, now: Instant) {
        if self.cut_at.is_none_or(|cut_at| sent > cut_at) {
            self.allowed = (self.allowed / 2.0).max(self.least);
            self.cut_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(least: usize, most: usize) -> Concurrency {
        let whole = |bound| NonZeroUsize::new(bound).expect("not zero");
        Concurrency::new(whole(least), whole(most))
    }

    #[test]
    fn trouble_halves_once_for_all_that_were_in_flight() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut concurrency = bounds(1, 16);
        assert_eq!(concurrency.allowed(), 16);
        for _ in 0..16 {
            concurrency.trouble(start, start + second);
        }
        assert_eq!(concurrency.allowed(), 8, "they were in flight together");
        for (sent, allowed) in [(2, 4), (4, 2), (6, 1), (8, 1)] {
            concurrency.trouble(start + second * sent, start + second * (sent + 1));
            assert_eq!(concurrency.allowed(), allowed);
        }
    }

    #[test]
    fn clean_answers_add_one_a_round_and_slow_ones_none() {
        let start = Instant::now();
        let mut concurrency = bounds(2, 4);
        concurrency.trouble(start, start);
        assert_eq!(concurrency.allowed(), 2);
        for _ in 0..100 {
            concurrency.clean(FAST + Duration::from_millis(1));
        }
        assert_eq!(concurrency.allowed(), 2);
        let mut rounds = Vec::new();
        for _ in 0..3 {
            for _ in 0..=concurrency.allowed() {
                concurrency.clean(FAST);
            }
            rounds.push(concurrency.allowed());
        }
        assert_eq!(rounds, [3, 4, 4], "one more a round, and never more than configured");
    }

    #[test]
    fn the_least_is_kept() {
        let mut concurrency = bounds(3, 4);
        let start = Instant::now();
        for second in 0..5 {
            let at = start + Duration::from_secs(second);
            concurrency.trouble(at, at);
        }
        assert_eq!(concurrency.allowed(), 3);
        assert_eq!(bounds(9, 4).allowed(), 4);
        let whole = |bound| NonZeroUsize::new(bound).expect("not zero");
        for (least, most, allowed) in [(1, 8, 3), (5, 8, 5), (1, 2, 2), (1, 6, 6)] {
            concurrency.change(whole(least), whole(most));
            assert_eq!(concurrency.allowed(), allowed, "from {least} to {most}");
        }
    }
}
