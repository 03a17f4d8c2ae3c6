//! When a membership changed, as far as the event can be believed ([P2](crate::design::P2)), by one of its
//! [times](crate::design::segment::times).
//!
//! The latest event time wins, so a clock that runs ahead could lock a member for as long as it is ahead. A
//! time more than [`TOLERANCE`] ahead of arrival is therefore not believed. Nor is one before [`EARLIEST`],
//! which only a clock that was never set produces: an exit with such a time would never win. Times that are
//! not believed or not readable are counted, and `cohortd explain` shows them.

mod written;

use std::time::Duration;

use crate::membership::Timestamp;
pub(super) use written::Written;

/// How far a sender's clock may run ahead of ours.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// 2010-01-01T00:00:00Z: Segment is not older.
pub(super) const EARLIEST: Timestamp = Timestamp(1_262_304_000_000_000);

/// The fields in which Segment says when the event happened, best first.
const FIELDS: [&str; 4] = ["timestamp", "originalTimestamp", RECEIVED_AT, "sentAt"];

const RECEIVED_AT: &str = "receivedAt";

/// How long a sender may keep retrying an event: Segment does so for four hours.
const REPEATED_WITHIN: Duration = Duration::from_secs(5 * 3600);

/// When an event happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EventTime {
    pub at: Timestamp,
    /// The time, or whether it is believed, depends on when the event arrives: if the event is posted again,
    /// it may get a later time.
    pub moves: bool,
    /// The time is believed now, but an earlier delivery of the same event may not have been: it was too far
    /// ahead then, and the event does not say when it was received.
    pub may_have_moved: bool,
    /// The field that the time was taken from; `None` if the arrival counts.
    pub from: Option<&'static str>,
    /// The best field that states a time but does not count, and why.
    pub doubt: Option<(&'static str, Doubt)>,
}

/// Why a time stated by an event does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It is in no format that is understood.
    Unreadable,
    /// It is before 2010.
    TooEarly,
    /// It is more than five minutes ahead of the arrival.
    Ahead,
}

impl Doubt {
    /// Every reason, for metrics.
    pub const ALL: [Self; 3] = [Self::Unreadable, Self::TooEarly, Self::Ahead];

    /// The label in metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::TooEarly => "too_early",
            Self::Ahead => "ahead",
        }
    }

    /// The explanation shown to people.
    #[must_use]
    pub fn why(self) -> &'static str {
        match self {
            Self::Unreadable => "it cannot be read as a time",
            Self::TooEarly => "it is before 2010",
            Self::Ahead => "it is more than five minutes ahead of its arrival",
        }
    }
}

/// The first readable time of the event, else the arrival. A time too far ahead is replaced by `receivedAt`,
/// or by the arrival if `receivedAt` is missing or not believed either; a time that is too early is replaced
/// by the arrival.
///
/// `written` returns what the event has in the field of that name; `None` if that is nothing.
pub(super) fn event_time<'a>(
    written: impl Fn(&str) -> Option<Written<'a>>,
    arrival: Timestamp,
) -> EventTime {
    let mut doubt = None;
    let readable = FIELDS.into_iter().find_map(|field| {
        let written = written(field)?;
        let read = written.read();
        if read.is_none() && doubt.is_none() {
            doubt = Some((field, Doubt::Unreadable));
        }
        Some((field, written, read?))
    });
    let arrived =
        |doubt| EventTime { at: arrival, moves: true, may_have_moved: false, from: None, doubt };
    let Some((field, said, claimed)) = readable else { return arrived(doubt) };
    if claimed < EARLIEST {
        return arrived(doubt.or(Some((field, Doubt::TooEarly))));
    }
    let received = written(RECEIVED_AT);
    if claimed <= arrival.after(TOLERANCE) {
        // If the time is this far ahead of `receivedAt`, it was not believed in deliveries before that time
        // had come.
        let (moves, may_have_moved) = match received {
            Some(received) if said.is_sooner(received) => (false, false),
            received => match received.and_then(Written::read) {
                Some(received) => (claimed > received.after(TOLERANCE), false),
                None => (false, claimed > arrival.before(REPEATED_WITHIN).after(TOLERANCE)),
            },
        };
        return EventTime { at: claimed, moves, may_have_moved, from: Some(field), doubt };
    }
    let doubt = doubt.or(Some((field, Doubt::Ahead)));
    let believed = |received: &Timestamp| (EARLIEST..=arrival).contains(received);
    match received.and_then(Written::read).filter(believed) {
        Some(at) => EventTime { at, from: Some(RECEIVED_AT), ..arrived(doubt) },
        None => arrived(doubt),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(event: &Value) -> EventTime {
        event_time(|field| Written::of(event.get(field)), ARRIVAL)
    }

    fn time_of(event: &Value) -> Timestamp {
        read(event).at
    }

    /// The event's `moves` and `may_have_moved`.
    fn moves(event: &Value) -> (bool, bool) {
        let time = read(event);
        (time.moves, time.may_have_moved)
    }

    /// 2025-03-13T07:23:15Z in microseconds.
    const ARRIVAL: Timestamp = Timestamp(1_741_850_595_000_000);

    /// Times are in seconds relative to the arrival.
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
            (json!({"timestamp": 1_741_850_586}), -9),
            (json!({"timestamp": 1_741_850_586_000_i64}), -9),
            (json!({"timestamp": "1741850586"}), -9),
            (json!({"timestamp": 1_741_850_895}), 300),
            (json!({"timestamp": 1_741_850_896, "receivedAt": 1_741_850_588}), -7),
            (json!({"timestamp": "Thu, 13 Mar 2025 07:23:06 GMT"}), -9),
            (json!({"timestamp": 0, "sentAt": at(-6)}), 0),
            (json!({"timestamp": true, "sentAt": at(-6)}), -6),
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
            // The same times in other formats.
            (
                json!({"timestamp": 1_741_850_586, "receivedAt": 1_741_850_588_000_i64}),
                (false, false),
            ),
            (json!({"timestamp": 1_741_850_586}), (false, true)),
            (json!({"timestamp": 1_741_850_586, "receivedAt": at(-310)}), (true, false)),
            (json!({"timestamp": 1_741_850_896}), (true, false)),
            (json!({"timestamp": 1, "receivedAt": at(0)}), (true, false)),
            (
                json!({"timestamp": "13 Mar 2025 07:23:06 GMT", "receivedAt": at(-7)}),
                (false, false),
            ),
            (json!({"timestamp": "soon", "receivedAt": at(-7)}), (false, false)),
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

    #[test]
    fn a_time_that_does_not_count_is_told_with_what_counts_instead() {
        let at = |seconds: i64| {
            let micros = ARRIVAL.0 + seconds * 1_000_000;
            jiff::Timestamp::from_microsecond(micros).expect("near the arrival").to_string()
        };
        let (timestamp, original) = ("timestamp", "originalTimestamp");
        let rows = [
            (json!({"timestamp": at(-9)}), Some(timestamp), None),
            (json!({"timestamp": null, "sentAt": at(-9)}), Some("sentAt"), None),
            (json!({"timestamp": "", "sentAt": at(-9)}), Some("sentAt"), None),
            (json!({}), None, None),
            (json!({"timestamp": "soon"}), None, Some((timestamp, Doubt::Unreadable))),
            (
                json!({"timestamp": [], "originalTimestamp": at(-9)}),
                Some(original),
                Some((timestamp, Doubt::Unreadable)),
            ),
            (
                json!({"timestamp": "soon", "originalTimestamp": at(400)}),
                None,
                Some((timestamp, Doubt::Unreadable)),
            ),
            (
                json!({"originalTimestamp": "0038-01-19T03:14:07Z", "receivedAt": at(-7)}),
                None,
                Some((original, Doubt::TooEarly)),
            ),
            (json!({"timestamp": at(301)}), None, Some((timestamp, Doubt::Ahead))),
            (json!({"timestamp": "9999-12-31T23:59:59Z"}), None, Some((timestamp, Doubt::Ahead))),
            (
                json!({"timestamp": "9999-12-31T23:59:59.999-14:00"}),
                None,
                Some((timestamp, Doubt::Ahead)),
            ),
            (
                json!({"timestamp": "Sun, 29 Nov 2026 01:00:00 HST", "originalTimestamp": at(-9)}),
                Some(original),
                Some((timestamp, Doubt::Unreadable)),
            ),
            (
                json!({"timestamp": at(301), "receivedAt": at(-7)}),
                Some("receivedAt"),
                Some((timestamp, Doubt::Ahead)),
            ),
        ];
        for (event, from, doubt) in rows {
            let time = read(&event);
            assert_eq!((time.from, time.doubt), (from, doubt), "{event}");
        }
    }
}
