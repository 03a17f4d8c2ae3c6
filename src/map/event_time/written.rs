//! The formats in which senders write a time.

use jiff::civil::Time;
use jiff::fmt::temporal::Pieces;
use jiff::fmt::{rfc2822, strtime};
use jiff::tz::Offset;
use serde_json::Value;

use super::EARLIEST;
use crate::membership::Timestamp;

/// The value of a time field, as the sender wrote it.
#[derive(Clone, Copy, Debug)]
pub(in crate::map) enum Written<'a> {
    Text(&'a str),
    Number(f64),
    /// Any other JSON value, which is not a time.
    Other,
}

impl<'a> Written<'a> {
    /// `None` if there is nothing; an empty text counts as nothing, as everywhere.
    pub(in crate::map) fn of(value: Option<&'a Value>) -> Option<Self> {
        match value? {
            Value::Null => None,
            Value::String(text) => Self::of_text(text),
            Value::Number(number) => Some(number.as_f64().map_or(Self::Other, Self::Number)),
            _ => Some(Self::Other),
        }
    }

    /// [`Written::of`] for a text.
    pub(in crate::map) fn of_text(text: &'a str) -> Option<Self> {
        (!text.is_empty()).then_some(Self::Text(text))
    }

    /// The time, if the value is one.
    pub(in crate::map) fn read(self) -> Option<Timestamp> {
        match self {
            Self::Text(text) => text_read(text),
            Self::Number(number) => Some(number_read(number)),
            Self::Other => None,
        }
    }

    /// Whether this time is at or before `other`, decided by comparing their texts. That works only if both
    /// have Segment's fixed-width format; otherwise the answer is `false`. Avoids parsing `other`.
    pub(super) fn is_sooner(self, other: Self) -> bool {
        const SEGMENTS: usize = "2025-03-13T07:23:15.697Z".len();
        let is_usual = |text: &str| {
            let at = |place: usize| text.as_bytes()[place];
            text.len() == SEGMENTS
                && at(10) == b'T'
                && at(SEGMENTS - 5) == b'.'
                && text.ends_with('Z')
        };
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => {
                is_usual(one) && is_usual(other) && one <= other
            }
            _ => false,
        }
    }
}

/// A number since the epoch, in the finest unit from nanoseconds to seconds that makes it a time since 2010:
/// as milliseconds 1,741,850,595 would be in January 1970, and as seconds 1,741,850,595,029 in the year
/// 57,167. If no unit does, it is taken as seconds, and is too early.
fn number_read(number: f64) -> Timestamp {
    #[expect(clippy::cast_precision_loss, reason = "a whole second")]
    let earliest = EARLIEST.0 as f64;
    let seconds = (number * 1e6).round();
    let micros = [(number / 1e3).floor(), number.floor(), (number * 1e3).round(), seconds];
    let micros = micros.into_iter().find(|micros| *micros >= earliest).unwrap_or(seconds);
    #[expect(clippy::cast_possible_truncation, reason = "it saturates, and is not believed then")]
    let micros = micros as i64;
    Timestamp(micros)
}

/// * ISO 8601: a date, optionally a time, optionally an offset. Without an offset it is UTC. A named zone
///   without an offset is not read, because this process carries no time zone database. Also accepted, as
///   Ruby, Go and others write it: a blank before the offset, `UTC` or `GMT` instead of the offset, a colon
///   before the `Z`, and a zone after the offset.
/// * RFC 2822, as in mail and HTTP, and what `Date.toString()` gives in JavaScript. Of the zone names of RFC
///   2822 only those whose meaning it defines: `HST` is not among them and would pass for UTC.
/// * Digits since the epoch: see [`number_read`].
fn text_read(text: &str) -> Option<Timestamp> {
    iso(text).or_else(|| other_form(text.trim()))
}

fn iso(text: &str) -> Option<Timestamp> {
    let pieces = Pieces::parse(text).ok()?;
    let offset = match pieces.to_numeric_offset() {
        Some(offset) => offset,
        None if pieces.time_zone_annotation().is_some() => return None,
        None => Offset::UTC,
    };
    let local = pieces.date().to_datetime(pieces.time().unwrap_or(Time::midnight()));
    let instant = match offset.to_timestamp(local) {
        Ok(instant) => instant,
        // An offset can push the last day of the year 9999 out of range; the maximum is ahead enough.
        Err(_) if local.year() > 0 => jiff::Timestamp::MAX,
        Err(_) => return None,
    };
    Some(Timestamp(instant.as_microsecond()))
}

fn other_form(text: &str) -> Option<Timestamp> {
    let first = text.as_bytes().first()?;
    let is_number = || text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if first.is_ascii_digit() && is_number() {
        return text.parse().ok().map(number_read);
    }
    if let Some(cut) = with_less_digits(text) {
        return text_read(&cut);
    }
    if text.as_bytes().get(4) == Some(&b'-') {
        return iso(&iso_of(text)?);
    }
    if !has_known_zone(text) {
        return None;
    }
    let micros = |at: jiff::Timestamp| Timestamp(at.as_microsecond());
    let mail = match without_utc(text) {
        Some(moment) => rfc2822::DateTimeParser::new().parse_timestamp(format!("{moment} +0000")),
        None => rfc2822::DateTimeParser::new().parse_timestamp(text),
    };
    let javascript = || {
        let moment = text.split(" (").next()?;
        strtime::parse("%a %b %d %Y %H:%M:%S GMT%z", moment).ok()?.to_timestamp().ok()
    };
    mail.ok().or_else(javascript).map(micros)
}

/// Rewrites as ISO 8601 a text that differs from it only in how the offset is written.
fn iso_of(text: &str) -> Option<String> {
    if let Some(moment) = text.strip_suffix(":Z").or_else(|| text.strip_suffix(":z")) {
        return Some(format!("{moment}Z"));
    }
    let (date, rest) = text.split_at_checked("2025-03-13".len())?;
    let (time, offset) = match rest.rfind(['+', '-']) {
        // Go appends the reading of its monotonic clock
        Some(_) if rest.contains(" m=") => return iso_of(text.split(" m=").next()?),
        Some(at) => rest.split_at(at),
        None => return Some(format!("{}Z", without_utc(text)?)),
    };
    let (offset, zone) = offset.split_once(' ').unwrap_or((offset, ""));
    let is_zone = zone.bytes().all(|byte| byte.is_ascii_uppercase());
    is_zone.then(|| format!("{date}{}{offset}", time.trim_end()))
}

/// The text with its fraction of a second cut to nanoseconds, the most that the parsers accept; `None` if it
/// is no longer than that.
fn with_less_digits(text: &str) -> Option<String> {
    const MOST: usize = 9;
    let (whole, fraction) = text.split_at(text.find(['.', ','])? + 1);
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    (digits > MOST).then(|| [whole, &fraction[..MOST], &fraction[digits..]].concat())
}

/// Whether RFC 2822 defines the zone name that ends the text, or that precedes a comment; `true` if there is
/// no zone name.
fn has_known_zone(text: &str) -> bool {
    const KNOWN: [&str; 12] =
        ["UT", "UTC", "GMT", "Z", "EST", "EDT", "CST", "CDT", "MST", "MDT", "PST", "PDT"];
    let moment = text.split('(').next().unwrap_or(text);
    let zone = moment.split_ascii_whitespace().next_back().unwrap_or(moment);
    !zone.bytes().all(|byte| byte.is_ascii_alphabetic())
        || KNOWN.iter().any(|known| known.eq_ignore_ascii_case(zone))
}

/// The text before a final `UTC`, `GMT` or `Z`; `None` if it ends in none of them.
fn without_utc(text: &str) -> Option<&str> {
    ["UTC", "GMT", "Z"].into_iter().find_map(|zone| {
        let (moment, end) = text.split_at_checked(text.len().checked_sub(zone.len())?)?;
        end.eq_ignore_ascii_case(zone).then(|| moment.trim_end())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2025-03-13T07:23:15Z in microseconds.
    const ARRIVAL: Timestamp = Timestamp(1_741_850_595_000_000);

    #[test]
    fn forms_of_a_time() {
        let rows = [
            ("2025-03-13T07:23:15Z", Some(0)),
            ("2025-03-13t07:23:15z", Some(0)),
            ("2025-03-13 07:23:15Z", Some(0)),
            ("2025-03-13T07:23:15", Some(0)),
            ("2025-03-13T07:23:15+00:00", Some(0)),
            ("2025-03-13T07:23:15+0000", Some(0)),
            ("2025-03-13T07:23:15+00", Some(0)),
            ("2025-03-13T09:23:15+02:00", Some(0)),
            ("2025-03-13T02:23:15-0500", Some(0)),
            ("20250313T072315Z", Some(0)),
            ("2025-03-13T07:23:15.697Z", Some(697_000)),
            ("2025-03-13T07:23:15,697Z", Some(697_000)),
            ("2025-03-13T07:23:15.000001Z", Some(1)),
            ("2025-03-13T07:23:15.000001999Z", Some(1)),
            ("2025-03-13T07:23:15.0000019999999999Z", Some(1)),
            ("2025-03-13T09:23:15,123456789012345+02:00", Some(123_456)),
            ("2025-03-13 07:23:15.0291234567890 +0000 UTC", Some(29_123)),
            ("2025-03-13T07:23:15.0000019999999999.5Z", None),
            ("1741850595.00000200000000000", Some(2)),
            ("2025-03-13T07:23Z", Some(-15_000_000)),
            ("2025-03-13", Some(-26_595_000_000)),
            ("2025-03-13T09:23:15+02:00[Europe/Berlin]", Some(0)),
            ("2025-03-13T09:23:15[Europe/Berlin]", None),
            ("2025-02-30T07:23:15Z", None),
            // as senders other than browsers write them
            ("2025-03-13T07:23:15.029:Z", Some(29_000)),
            ("2025-03-13T07:23:15:z", Some(0)),
            ("2025-03-13T07:23:15.029+0000", Some(29_000)),
            ("2025-03-13T07:23:15.029 +0000", Some(29_000)),
            ("2025-03-13T07:23:15 +00:00", Some(0)),
            ("2025-03-13 07:23:15 UTC", Some(0)),
            ("2025-03-13 07:23:15 utc", Some(0)),
            ("2025-03-13 07:23:15.5 GMT", Some(500_000)),
            ("2025-03-13 07:23:15UTC", Some(0)),
            ("2025-03-13 07:23:15 Z", Some(0)),
            ("2025-03-13 09:23:15 +0200", Some(0)),
            ("2025-03-13 02:23:15 -0500", Some(0)),
            ("2025-03-13 09:23:15.029 +0200 CEST", Some(29_000)),
            ("2025-03-13 07:23:15.029123456 +0000 UTC", Some(29_123)),
            ("2025-03-13 07:23:15.029123456 +0000 UTC m=+0.000045", Some(29_123)),
            ("  2025-03-13T07:23:15Z\n", Some(0)),
            ("Thu, 13 Mar 2025 07:23:15 +0000", Some(0)),
            ("Thu, 13 Mar 2025 09:23:15 +0200", Some(0)),
            ("Thu, 13 Mar 2025 07:23:15 GMT", Some(0)),
            ("Thu, 13 Mar 2025 07:23:15 UTC", Some(0)),
            ("13 Mar 2025 07:23:15 GMT", Some(0)),
            ("Thu, 13 Mar 2025 07:23:15 UT", Some(0)),
            ("Thu, 13 Mar 2025 07:23:15 Z", Some(0)),
            ("Thu, 13 Mar 2025 07:23:15 z (Zulu)", Some(0)),
            ("Thu, 13 Mar 2025 07:23:15 GMT (GMT)", Some(0)),
            ("Thu, 13 Mar 2025 02:23:15 EST", Some(0)),
            ("Thu, 13 Mar 2025 03:23:15 edt", Some(0)),
            ("Thu, 13 Mar 2025 01:23:15 CST", Some(0)),
            ("Thu, 13 Mar 2025 02:23:15 CDT", Some(0)),
            ("Thu, 13 Mar 2025 00:23:15 MST", Some(0)),
            ("Thu, 13 Mar 2025 01:23:15 MDT", Some(0)),
            ("Wed, 12 Mar 2025 23:23:15 PST", Some(0)),
            ("Thu, 13 Mar 2025 00:23:15 PDT", Some(0)),
            // zone names that would pass for UTC
            ("Wed, 12 Mar 2025 21:23:15 HST", None),
            ("Thu, 13 Mar 2025 16:23:15 JST", None),
            ("Thu, 13 Mar 2025 09:23:15 CEST", None),
            ("Thu, 13 Mar 2025 08:23:15 BST (British Summer Time)", None),
            ("13 Mar 2025 12:53:15 IST", None),
            ("Thu, 13 Mar 2025 07:23:15 A", None),
            ("Thu, 13 Mar 2025 07:23:15 Europe/Berlin", None),
            ("Fri, 13 Mar 2025 07:23:15 GMT", None), // that day was a Thursday
            ("Thu Mar 13 2025 07:23:15 GMT+0000 (Coordinated Universal Time)", Some(0)),
            ("Thu Mar 13 2025 09:23:15 GMT+0200 (CEST)", Some(0)),
            ("Thu Mar 13 2025 09:23:15 GMT+0200", Some(0)),
            ("1741850595", Some(0)),
            ("1741850595.25", Some(250_000)),
            ("1741850595029", Some(29_000)),
            ("1741850595029123", Some(29_123)),
            ("1741850595029123456", Some(29_123)),
            ("20250313", Some(-26_595_000_000)), // an ISO 8601 date
            ("-1741850595", None),
            ("1e9", None),
            ("2025-03-13 09:23:15 CEST", None),
            ("2025-03-13 07:23:15 +0000 or so", None),
            ("13/03/2025 07:23:15", None),
            ("yesterday", None),
            ("UTC", None),
            (":Z", None),
            ("+0000", None),
            ("é UTC", None),
            ("", None),
        ];
        for (text, micros_after) in rows {
            let expected = micros_after.map(|micros| Timestamp(ARRIVAL.0 + micros));
            assert_eq!(text_read(text), expected, "{text}");
        }
    }

    #[test]
    fn numbers_count_in_the_unit_that_makes_them_a_time_since_2010() {
        let rows = [
            (1_741_850_595.0, ARRIVAL.0),
            (1_741_850_595.25, ARRIVAL.0 + 250_000),
            (1_741_850_595_029.0, ARRIVAL.0 + 29_000),
            (1_741_850_595_029_123.0, ARRIVAL.0 + 29_123),
            (1_741_850_595_029_123_456.0, ARRIVAL.0 + 29_123),
            (1_262_304_000.0, EARLIEST.0),
            (1_262_303_999_999.0, 1_262_303_999_999_000_064), // seconds, far ahead
            (1_262_304_000_000.0, EARLIEST.0),
            (1_262_303_999.0, EARLIEST.0 - 1_000_000),
            (0.0, 0),
            (-5.0, -5_000_000),
            (1e300, i64::MAX),
        ];
        for (number, micros) in rows {
            assert_eq!(Written::Number(number).read(), Some(Timestamp(micros)), "{number}");
        }
    }
}
