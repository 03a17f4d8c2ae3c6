//! Reads the rate limit headers of an answer as they are: clamping resets and correcting clock skew is
//! up to the pacing of `deliver`.
//!
//! The headers are those of LaunchDarkly's [REST API](crate::design::launchdarkly::rate_limits). A
//! value that cannot be parsed counts as absent: a limit that is not understood must not stop delivery.

use std::time::Duration;

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

use crate::membership::Timestamp;

/// The longest wait accepted from `Retry-After`: a day. A longer one is taken for a mistake; the cap
/// also keeps the arithmetic of callers from overflowing.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The rate limits in an answer's headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    /// The limit of the account.
    pub global: Window,
    /// The limit of the route; shares its reset with the account's.
    pub route: Window,
    /// The limit of the service token.
    pub token: Window,
    /// How long to wait at least. A `Retry-After` with a date is read relative to [`Self::date`].
    pub retry_after: Option<Duration>,
    /// The server's time, with a resolution of one second.
    pub date: Option<Timestamp>,
}

/// One limit. It did not apply to the call if all fields are absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Calls per window.
    pub limit: Option<u64>,
    /// Calls left in this window.
    pub remaining: Option<u64>,
    /// When the next window begins, by the server's clock; may be in the past.
    pub reset: Option<Timestamp>,
}

impl RateLimits {
    /// Reads the headers of an answer.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Self {
        let reset = milliseconds(headers, "x-ratelimit-reset");
        let date = text(headers, DATE.as_str()).and_then(http_date);
        Self {
            global: Window {
                limit: count(headers, "x-ratelimit-global-limit"),
                remaining: count(headers, "x-ratelimit-global-remaining"),
                reset,
            },
            route: Window {
                limit: count(headers, "x-ratelimit-route-limit"),
                remaining: count(headers, "x-ratelimit-route-remaining"),
                reset,
            },
            token: Window {
                limit: count(headers, "x-ratelimit-auth-token-limit"),
                remaining: count(headers, "x-ratelimit-auth-token-remaining"),
                reset: milliseconds(headers, "x-ratelimit-auth-token-reset"),
            },
            retry_after: text(headers, RETRY_AFTER.as_str())
                .and_then(|value| retry_after(value, date)),
            date,
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// Digits only: `u64::from_str` alone would also take a plus sign.
fn digits(value: &str) -> Option<u64> {
    value.bytes().all(|b| b.is_ascii_digit()).then(|| value.parse().ok()).flatten()
}

fn count(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name).and_then(digits)
}

fn milliseconds(headers: &HeaderMap, name: &str) -> Option<Timestamp> {
    let micros = text(headers, name).and_then(digits)?.checked_mul(1000)?;
    i64::try_from(micros).ok().map(Timestamp)
}

fn http_date(value: &str) -> Option<Timestamp> {
    let parsed = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(Timestamp(parsed.as_microsecond()))
}

fn retry_after(value: &str, date: Option<Timestamp>) -> Option<Duration> {
    let wait = match seconds(value) {
        Some(wait) => wait,
        // relative to the server's own clock, so that ours need not agree
        None => http_date(value)?.since(date?),
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

/// A number of seconds, whole or with a fraction, which no standard allows but proxies send; rounded up
/// to milliseconds.
fn seconds(value: &str) -> Option<Duration> {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let millis: u64 = format!("{fraction:0<3.3}").parse().ok()?;
    let is_more = fraction.bytes().skip(3).any(|digit| digit != b'0');
    let fraction = Duration::from_millis(millis + u64::from(is_more));
    Some(Duration::from_secs(digits(whole)?).saturating_add(fraction))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{HeaderName, HeaderValue};

    fn read(lines: &[(&str, &str)]) -> RateLimits {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).expect("test names are valid"),
                HeaderValue::from_bytes(value.as_bytes()).expect("test values are valid"),
            );
        }
        RateLimits::read(&headers)
    }

    #[test]
    fn each_limit_is_read_from_its_own_headers() {
        let limits = read(&[
            ("X-Ratelimit-Global-Limit", "600"),
            ("X-Ratelimit-Global-Remaining", "599"),
            ("X-Ratelimit-Route-Limit", "10"),
            ("X-Ratelimit-Route-Remaining", "0"),
            ("X-Ratelimit-Reset", "1700000000123"),
            ("X-Ratelimit-Auth-Token-Limit", "50"),
            ("X-Ratelimit-Auth-Token-Remaining", "7"),
            ("X-Ratelimit-Auth-Token-Reset", "1700000000999"),
            ("Retry-After", "3"),
            ("Date", "Tue, 14 Nov 2023 22:13:20 GMT"),
        ]);
        let shared = Some(Timestamp(1_700_000_000_123_000));
        assert_eq!(
            limits,
            RateLimits {
                global: Window { limit: Some(600), remaining: Some(599), reset: shared },
                route: Window { limit: Some(10), remaining: Some(0), reset: shared },
                token: Window {
                    limit: Some(50),
                    remaining: Some(7),
                    reset: Some(Timestamp(1_700_000_000_999_000)),
                },
                retry_after: Some(Duration::from_secs(3)),
                date: Some(Timestamp(1_700_000_000_000_000)),
            }
        );
    }

    #[test]
    fn what_cannot_be_read_is_absent() {
        for garbage in [
            "",
            "soon",
            "-1",
            "+1",
            ".5",
            "1.",
            "1.5.5",
            "1.x",
            "0x10",
            "1 2",
            "99999999999999999999",
            "1e3",
            "\u{e9}",
        ] {
            let limits = read(&[
                ("X-Ratelimit-Global-Limit", garbage),
                ("X-Ratelimit-Route-Remaining", garbage),
                ("X-Ratelimit-Reset", garbage),
                ("X-Ratelimit-Auth-Token-Reset", garbage),
                ("Retry-After", garbage),
                ("Date", garbage),
            ]);
            assert_eq!(limits, RateLimits::default(), "{garbage:?}");
        }
        let fraction = [("X-Ratelimit-Reset", "1.5"), ("X-Ratelimit-Global-Remaining", "1.5")];
        assert_eq!(read(&fraction), RateLimits::default());
        let past_the_end_of_time = read(&[("X-Ratelimit-Reset", "18446744073709551615")]);
        assert_eq!(past_the_end_of_time, RateLimits::default());
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_of_the_same_clock() {
        const DATE: &str = "Tue, 14 Nov 2023 22:13:20 GMT";
        let seconds = |s| Some(Duration::from_secs(s));
        let millis = |ms| Some(Duration::from_millis(ms));
        let table: [(&str, Option<&str>, Option<Duration>); 14] = [
            ("0", None, seconds(0)),
            ("1.5", None, millis(1500)),
            ("0.25", None, millis(250)),
            ("2.0004", None, millis(2001)),
            ("3.", None, None),
            ("7.000000000000000000000000", None, seconds(7)),
            ("18446744073709551615.999999", None, Some(LONGEST_RETRY_AFTER)),
            (" 12 ", None, seconds(12)),
            ("Tue, 14 Nov 2023 22:13:50 GMT", Some(DATE), seconds(30)),
            ("Tue, 14 Nov 2023 22:13:10 GMT", Some(DATE), seconds(0)),
            ("Tue, 14 Nov 2023 22:13:50 GMT", None, None),
            ("Tue, 14 Nov 2023 22:13:50 GMT", Some("yesterday"), None),
            ("18446744073709551615", None, Some(LONGEST_RETRY_AFTER)),
            ("Tue, 14 Nov 2028 22:13:50 GMT", Some(DATE), Some(LONGEST_RETRY_AFTER)),
        ];
        for (value, date, expected) in table {
            let mut lines = vec![("Retry-After", value)];
            lines.extend(date.map(|date| ("Date", date)));
            assert_eq!(read(&lines).retry_after, expected, "{value} at {date:?}");
        }
    }
}
