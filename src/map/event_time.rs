//! When a membership changed, as far as the event can be believed (P2).
//!
//! The latest event time wins, so a clock that runs ahead could lock a member for as long as it is
//! ahead. A time more than [`TOLERANCE`] ahead of arrival is therefore not believed, nor is one before
//! [`EARLIEST`], which only a clock that was never set shows.

use std::time::Duration;

use crate::membership::Timestamp;
use jiff::civil::Time;
use jiff::fmt::temporal::Pieces;
use jiff::tz::Offset;

/// How far a sender's clock may run ahead of ours.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// 2010-01-01T00:00:00Z: Segment is not older than that.
const EARLIEST: Timestamp = Timestamp(1_262_304_000_000_000);

/// Where Segment says when it happened, best first.
const FIELDS: [&str; 4] = ["timestamp", "originalTimestamp", "receivedAt", "sentAt"];

/// How long a sender may go on to send the same event: Segment tries for four hours.
const REPEATED_WITHIN: Duration = Duration::from_secs(5 * 3600);

/// When an event happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EventTime {
    pub at: Timestamp,
    /// The time, or whether it is believed, depends on when the event arrives: the same event may get
    /// a later time when it is posted again.
    pub moves: bool,
    /// It is believed, but the same event may have come before, when it was not: it was too far ahead
    /// then, and nobody says when it was received.
    pub may_have_moved: bool,
}

/// The first readable time of the event, else the arrival. One too far ahead counts as
/// `receivedAt`, or as the arrival if that is missing or not to be believed either; one that is too
/// early counts as the arrival.
///
/// `text_of`: what the event has under a name, if that is a text.
pub(super) fn event_time<'a>(
    text_of: impl Fn(&str) -> Option<&'a str>,
    arrival: Timestamp,
) -> EventTime {
    let arrived = EventTime { at: arrival, moves: true, may_have_moved: false };
    let readable = FIELDS.into_iter().find_map(|field| {
        let text = text_of(field)?;
        Some((text, read(text)?))
    });
    let Some((text, claimed)) = readable else { return arrived };
    if claimed < EARLIEST {
        return arrived;
    }
    let received = text_of("receivedAt");
    if claimed <= arrival.after(TOLERANCE) {
        // It was not believed before this time had come, if it is that far ahead of its receipt.
        let (moves, may_have_moved) = match received {
            Some(received) if is_sooner(text, received) => (false, false),
            received => match received.and_then(read) {
                Some(received) => (claimed > received.after(TOLERANCE), false),
                None => (false, claimed > arrival.before(REPEATED_WITHIN).after(TOLERANCE)),
            },
        };
        return EventTime { at: claimed, moves, may_have_moved };
    }
    let believed = |received: &Timestamp| (EARLIEST..=arrival).contains(received);
    let at = received.and_then(read).filter(believed).unwrap_or(arrival);
    EventTime { at, moves: true, may_have_moved: false }
}

/// Whether a time is not after another one, as far as their texts show it at once: both as Segment
/// writes them, so that digits stand above digits. It spares reading the other one.
fn is_sooner(text: &str, other: &str) -> bool {
    const SEGMENTS: usize = "2025-03-13T07:23:15.697Z".len();
    let is_usual = |text: &str| {
        text.len() == SEGMENTS && text.ends_with('Z') && text.as_bytes()[SEGMENTS - 5] == b'.'
    };
    is_usual(text) && is_usual(other) && text <= other
}

/// ISO 8601: a date, maybe a time, maybe an offset. Without an offset it is UTC; a named zone
/// without an offset is not read, because this process carries no zone database.
fn read(text: &str) -> Option<Timestamp> {
    let pieces = Pieces::parse(text).ok()?;
    let offset = match pieces.to_numeric_offset() {
        Some(offset) => offset,
        None if pieces.time_zone_annotation().is_some() => return None,
        None => Offset::UTC,
    };
    let local = pieces.date().to_datetime(pieces.time().unwrap_or(Time::midnight()));
    let instant = offset.to_timestamp(local).ok()?;
    Some(Timestamp(instant.as_microsecond()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn time_of(event: &Value) -> Timestamp {
        event_time(|field| event.get(field)?.as_str(), ARRIVAL).at
    }

    /// Whether it moves, and whether it may have.
    fn moves(event: &Value) -> (bool, bool) {
        let time = event_time(|field| event.get(field)?.as_str(), ARRIVAL);
        (time.moves, time.may_have_moved)
    }

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
            ("2025-03-13T07:23Z", Some(-15_000_000)),
            ("2025-03-13", Some(-26_595_000_000)),
            ("2025-03-13T09:23:15+02:00[Europe/Berlin]", Some(0)),
            ("2025-03-13T09:23:15[Europe/Berlin]", None),
            ("2025-02-30T07:23:15Z", None),
            ("1741850595", None),
            ("yesterday", None),
            ("", None),
        ];
        for (text, micros_after) in rows {
            let expected = micros_after.map(|micros| Timestamp(ARRIVAL.0 + micros));
            assert_eq!(read(text), expected, "{text}");
        }
    }

    /// Times are told in seconds from the arrival.
    #[test]
    fn which_time_counts() {
        let at = |seconds: i64| {
            let micros = ARRIVAL.0 + seconds * 1_000_000;
            jiff::Timestamp::from_microsecond(micros).expect("near the arrival").to_string()
        };
        let rows = [
            (
                json!({"timestamp": at(-9), "originalTimestamp": at(-8), "receivedAt": at(-7), "sentAt": at(-6)}),
                -9,
            ),
            (json!({"originalTimestamp": at(-8), "receivedAt": at(-7), "sentAt": at(-6)}), -8),
            (json!({"receivedAt": at(-7), "sentAt": at(-6)}), -7),
            (json!({"sentAt": at(-6)}), -6),
            (json!({}), 0),
            (json!({"timestamp": "soon", "sentAt": at(-6)}), -6),
            (json!({"timestamp": null, "originalTimestamp": 5, "receivedAt": {}}), 0),
            (json!({"timestamp": at(300)}), 300),
            (json!({"timestamp": at(301)}), 0),
            (json!({"timestamp": at(301), "receivedAt": at(-7)}), -7),
            (json!({"timestamp": at(301), "receivedAt": at(0)}), 0),
            (json!({"timestamp": at(301), "receivedAt": at(1)}), 0),
            (json!({"timestamp": at(301), "receivedAt": "?"}), 0),
            (json!({"timestamp": at(301), "originalTimestamp": at(-8)}), 0),
            (json!({"receivedAt": at(301)}), 0),
            (json!({"receivedAt": at(299)}), 299),
            (json!({"sentAt": at(301), "receivedAt": "?"}), 0),
            (json!({"timestamp": "1970-01-01T00:00:00Z"}), 0),
            (json!({"timestamp": "0001-01-01T00:00:00Z", "receivedAt": at(-7)}), 0),
            (json!({"timestamp": "2009-12-31T23:59:59.999999Z"}), 0),
            (json!({"timestamp": at(301), "receivedAt": "1970-01-01T00:00:00Z"}), 0),
        ];
        for (event, seconds) in rows {
            let expected = Timestamp(ARRIVAL.0 + seconds * 1_000_000);
            assert_eq!(time_of(&event), expected, "{event}");
        }
    }

    #[test]
    fn the_first_moment_of_2010_is_believed() {
        assert_eq!(time_of(&json!({"timestamp": "2010-01-01T00:00:00Z"})), EARLIEST);
    }

    #[test]
    fn a_time_that_depends_on_arrival_is_known_to() {
        let at = |seconds: i64| {
            let micros = ARRIVAL.0 + seconds * 1_000_000;
            let at = jiff::Timestamp::from_microsecond(micros).expect("near the arrival");
            format!("{at:.3}")
        };
        let rows = [
            (json!({"timestamp": at(-9), "receivedAt": at(-7)}), (false, false)),
            (json!({"timestamp": at(-9)}), (false, true)),
            (json!({"timestamp": at(299)}), (false, true)),
            (json!({"timestamp": at(-5 * 3600 + 301)}), (false, true)),
            (json!({"timestamp": at(-5 * 3600 + 300)}), (false, false)),
            (json!({"timestamp": at(-9), "receivedAt": "?"}), (false, true)),
            (json!({"timestamp": at(-9), "receivedAt": at(-309)}), (false, false)),
            (json!({"timestamp": at(-9), "receivedAt": at(-310)}), (true, false)),
            (json!({"timestamp": at(301), "receivedAt": at(-7)}), (true, false)),
            (json!({"timestamp": at(301)}), (true, false)),
            (json!({"timestamp": "1970-01-01T00:00:00Z"}), (true, false)),
            (json!({}), (true, false)),
        ];
        for (event, expected) in rows {
            assert_eq!(moves(&event), expected, "{event}");
        }
    }

    #[test]
    fn a_microsecond_past_the_tolerance_is_too_far() {
        let rows =
            [("2025-03-13T07:28:15.000000Z", 300_000_000), ("2025-03-13T07:28:15.000001Z", 0)];
        for (text, micros) in rows {
            let told = time_of(&json!({"timestamp": text}));
            assert_eq!(told, Timestamp(ARRIVAL.0 + micros), "{text}");
        }
    }
}
