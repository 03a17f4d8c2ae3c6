//! Pace: how long to wait because of LaunchDarkly's
//! [rate limits](crate::design::launchdarkly::rate_limits).
//!
//! Reset times are epoch times of LaunchDarkly's clock, and have been seen both in the past and far in
//! the future. They are therefore corrected by the answer's `Date` header and clamped between a floor
//! and a ceiling.

use std::time::Duration;

use crate::launchdarkly::{RateLimits, Window};
use crate::membership::Timestamp;

/// Shortest wait for a limit that is exhausted.
const FLOOR: Duration = Duration::from_millis(100);
/// Longest wait for a reset: windows are 10 s long.
const CEILING: Duration = Duration::from_secs(60);
/// Length of a rate limit window, from one reset to the next.
const WINDOW: Duration = Duration::from_secs(10);
/// Longest wait that a `Retry-After` may ask for.
const RETRY_AFTER_CEILING: Duration = Duration::from_secs(3600);
/// Longest wait that `Retry-After` may ask for during an outage: the server cannot know when it will be
/// over, and one call in five minutes does no harm.
const OUTAGE_CEILING: Duration = Duration::from_secs(300);
/// `Date` has a resolution of one second, so that smaller differences are not taken for clock skew.
const SKEW_NOTICED: Duration = Duration::from_secs(2);

/// What an answer's headers ask of the next calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pace {
    /// Send nothing for this long.
    pub pause: Duration,
    /// After that, calls are at least this far apart, …
    pub gap: Duration,
    /// … until an answer with newer limits, or until this much time has passed.
    pub lasts: Duration,
}

/// The pace after an answer received at `now`, with `in_flight` calls still unanswered. The remaining
/// quota is spread evenly over the time until the reset. Calls in flight may not have been counted by
/// LaunchDarkly yet, so they are subtracted. If nothing remains, calls pause until the reset and the
/// next window's quota is spread over that window. `None`: the answer has no such headers.
pub(super) fn pace(limits: &RateLimits, now: Timestamp, in_flight: usize) -> Option<Pace> {
    let in_flight = u64::try_from(in_flight).unwrap_or(u64::MAX);
    let left = |calls: u64| u32::try_from(calls.saturating_sub(in_flight)).unwrap_or(u32::MAX);
    let mut pace: Option<Pace> = None;
    for window in windows(limits) {
        let Some(remaining) = window.remaining else { continue };
        let until = until_reset(window, limits.date, now);
        let of_window = match (left(remaining), window.limit) {
            (0, None) => Pace { pause: until, ..Pace::default() },
            (0, Some(limit)) => {
                Pace { pause: until, gap: WINDOW / left(limit).max(1), lasts: until + WINDOW }
            }
            (calls, _) => Pace { pause: Duration::ZERO, gap: until / calls, lasts: until },
        };
        let Pace { pause, gap, lasts } = pace.unwrap_or_default();
        pace = Some(Pace {
            pause: pause.max(of_window.pause),
            gap: gap.max(of_window.gap),
            lasts: lasts.max(of_window.lasts),
        });
    }
    pace
}

/// How long a 429 answer asks to wait; `None` if it does not say. `draw`, uniform in 0..1, adds jitter,
/// so that couriers limited together do not retry together.
pub(super) fn rate_limited(limits: &RateLimits, now: Timestamp, draw: f64) -> Option<Duration> {
    let resets = || windows(limits).filter(|window| window.reset.is_some());
    let used_up = resets().filter(|window| window.remaining == Some(0));
    let reset = used_up
        .map(|window| until_reset(window, limits.date, now))
        .max()
        .or_else(|| resets().map(|window| until_reset(window, limits.date, now)).max());
    let asked = limits.retry_after.map(|asked| asked.clamp(FLOOR, RETRY_AFTER_CEILING));
    Some(with_jitter(asked.max(reset)?, draw))
}

/// How long an answer during an outage asks to wait; `None` if it does not say.
pub(super) fn unavailable(limits: &RateLimits, draw: f64) -> Option<Duration> {
    limits.retry_after.map(|asked| with_jitter(asked.clamp(FLOOR, OUTAGE_CEILING), draw))
}

fn with_jitter(wait: Duration, draw: f64) -> Duration {
    wait + (wait / 10).max(FLOOR).mul_f64(draw.clamp(0.0, 1.0))
}

fn windows(limits: &RateLimits) -> impl Iterator<Item = &Window> {
    [&limits.global, &limits.route, &limits.token].into_iter()
}

fn until_reset(window: &Window, date: Option<Timestamp>, now: Timestamp) -> Duration {
    let Some(reset) = window.reset else { return FLOOR };
    let skewed = |date: &Timestamp| date.since(now).max(now.since(*date)) > SKEW_NOTICED;
    let their_now = date.filter(skewed).unwrap_or(now);
    reset.since(their_now).clamp(FLOOR, CEILING)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

    fn in_ms(ms: i64) -> Timestamp {
        Timestamp(NOW.0 + ms * 1000)
    }

    fn limits(limit: Option<u64>, remaining: Option<u64>, reset: Option<Timestamp>) -> RateLimits {
        RateLimits { global: Window { limit, remaining, reset }, ..RateLimits::default() }
    }

    #[test]
    fn what_remains_is_spread_until_the_reset_and_calls_stop_when_nothing_does() {
        let ms = Duration::from_millis;
        let cases = [
            ("plenty left", limits(Some(600), Some(500), Some(in_ms(5000))), ms(0), ms(10)),
            ("few left", limits(Some(100), Some(10), Some(in_ms(5000))), ms(0), ms(500)),
            ("no limit said", limits(None, Some(10), Some(in_ms(5000))), ms(0), ms(500)),
            ("no reset said", limits(Some(9), Some(10), None), ms(0), ms(10)),
            ("a reset in the past", limits(Some(9), Some(2), Some(in_ms(-1))), ms(0), ms(50)),
            (
                "a reset tomorrow",
                limits(Some(9), Some(2), Some(in_ms(86_400_000))),
                ms(0),
                ms(30_000),
            ),
            (
                "more left than fits",
                limits(None, Some(u64::MAX), Some(in_ms(5000))),
                ms(0),
                ms(5000) / u32::MAX,
            ),
            ("none left", limits(Some(100), Some(0), Some(in_ms(5000))), ms(5000), ms(100)),
            ("none left of one", limits(Some(1), Some(0), Some(in_ms(5000))), ms(5000), ms(10_000)),
            (
                "none left of none",
                limits(Some(0), Some(0), Some(in_ms(5000))),
                ms(5000),
                ms(10_000),
            ),
            (
                "none left, reset in the past",
                limits(Some(100), Some(0), Some(in_ms(-9000))),
                ms(100),
                ms(100),
            ),
            (
                "none left, reset far away",
                limits(None, Some(0), Some(in_ms(86_400_000))),
                ms(60_000),
                ms(0),
            ),
            ("none left, no reset", limits(Some(100), Some(0), None), ms(100), ms(100)),
        ];
        for (case, limits, pause, gap) in cases {
            let pace = pace(&limits, NOW, 0).expect(case);
            assert_eq!((pace.pause, pace.gap), (pause, gap), "{case}");
            assert!(pace.lasts >= pause + gap || gap.is_zero(), "{case}: {pace:?}");
        }
    }

    #[test]
    fn an_answer_that_says_nothing_of_what_remains_changes_nothing() {
        for limits in [
            limits(None, None, None),
            limits(Some(9), None, Some(in_ms(5000))),
            RateLimits { retry_after: Some(Duration::from_secs(7)), ..RateLimits::default() },
        ] {
            assert_eq!(pace(&limits, NOW, 0), None, "{limits:?}");
        }
    }

    #[test]
    fn what_is_in_flight_may_not_have_been_counted_yet() {
        let left = limits(Some(100), Some(4), Some(in_ms(4000)));
        let ms = Duration::from_millis;
        for (in_flight, pause, gap) in
            [(0, 0, 1000), (2, 0, 2000), (4, 4000, 104), (50, 4000, 200), (200, 4000, 10_000)]
        {
            let pace = pace(&left, NOW, in_flight).expect("it says what remains");
            let gap_ms = pace.gap.as_millis();
            assert_eq!((pace.pause, gap_ms), (ms(pause), gap), "{in_flight} in flight");
        }
    }

    #[test]
    fn the_tightest_limit_sets_the_pace() {
        let window = |remaining, reset_ms| Window {
            limit: Some(100),
            remaining: Some(remaining),
            reset: Some(in_ms(reset_ms)),
        };
        let limits = RateLimits {
            global: window(90, 9000),
            route: window(4, 8000),
            token: window(0, 3000),
            ..RateLimits::default()
        };
        let ms = Duration::from_millis;
        let expected = Pace { pause: ms(3000), gap: ms(2000), lasts: ms(13_000) };
        assert_eq!(pace(&limits, NOW, 0), Some(expected));
    }

    #[test]
    fn a_clock_that_is_off_is_corrected_by_the_answers_date() {
        for (off_ms, expected_ms) in [(-60_000, 5000), (60_000, 5000), (1500, 6500), (2000, 7000)] {
            let reset = Some(in_ms(off_ms + 5000));
            let limits =
                RateLimits { date: Some(in_ms(off_ms)), ..limits(Some(9), Some(0), reset) };
            let pause = pace(&limits, NOW, 0).expect("it says what remains").pause;
            assert_eq!(pause, Duration::from_millis(expected_ms), "clock off by {off_ms} ms");
        }
    }

    /// The end of what is drawn from, for a wait of at least this long: a tenth more, or a little.
    fn latest(wait: Duration) -> Duration {
        wait + (wait / 10).max(FLOOR)
    }

    #[test]
    fn a_429_waits_at_least_as_long_as_its_headers_say() {
        let retry = |seconds| RateLimits {
            retry_after: Some(Duration::from_secs(seconds)),
            ..RateLimits::default()
        };
        let one_of_two = RateLimits {
            route: Window { limit: Some(9), remaining: Some(0), reset: Some(in_ms(3000)) },
            ..limits(Some(9), Some(5), Some(in_ms(8000)))
        };
        let cases = [
            ("retry-after", retry(7), Some(7.0)),
            ("retry-after of nothing", retry(0), Some(0.1)),
            ("retry-after of a year", retry(31_536_000), Some(3600.0)),
            ("reset, none left", limits(Some(9), Some(0), Some(in_ms(4000))), Some(4.0)),
            ("reset, some left", limits(Some(9), Some(3), Some(in_ms(4000))), Some(4.0)),
            ("of two, the one that is used up", one_of_two, Some(3.0)),
            ("nothing", RateLimits::default(), None),
        ];
        for (case, limits, expected) in cases {
            let waits = [0.0, 1.0].map(|draw| rate_limited(&limits, NOW, draw));
            assert_eq!(waits[0].map(|wait| wait.as_secs_f64()), expected, "{case}");
            assert_eq!(waits[1], waits[0].map(latest), "{case}: the jitter");
        }
    }

    #[test]
    fn an_outage_lasts_as_long_as_retry_after_says_up_to_a_ceiling() {
        let retry = |ms| RateLimits {
            retry_after: Some(Duration::from_millis(ms)),
            ..RateLimits::default()
        };
        let cases = [
            ("seconds", retry(7000), Some(7.0)),
            ("a fraction", retry(1500), Some(1.5)),
            ("nothing", retry(0), Some(0.1)),
            ("a day", retry(86_400_000), Some(300.0)),
            ("it does not say", RateLimits::default(), None),
            ("a reset is no outage's", limits(Some(9), Some(0), Some(in_ms(4000))), None),
        ];
        for (case, limits, expected) in cases {
            let waits = [0.0, 1.0].map(|draw| unavailable(&limits, draw));
            assert_eq!(waits[0].map(|wait| wait.as_secs_f64()), expected, "{case}");
            assert_eq!(waits[1], waits[0].map(latest), "{case}: the jitter");
        }
    }
}
