//! Corrects for a wrong clock of the sender, where events come straight from it: the Tracking API.
//!
//! Segment has corrected the times of the events it sends. Here they are corrected
//! [in the same way](crate::design::segment::times): by the sender's own clock, an event happened as long
//! before it was sent as it happened before it arrived. So `timestamp` becomes arrival - (`sentAt` -
//! `originalTimestamp`), and its old value is kept as `originalTimestamp`. A clock that is behind is left
//! alone, unless an operator asks for more: a message that was delayed looks the same.
//!
//! # What always holds
//! * There is no threshold: the correction grows from zero with the time by which the clock is ahead. So two
//!   messages of one clock keep their order, unless they happened closer together than their transit times
//!   differed.
//! * A message with an id never counts later than its first attempt: a message whose time was moved is
//!   remembered, and every message is looked up (`membership::Message`, `tests/it/real_world.rs`). Where
//!   clocks that are behind are corrected, every message is remembered, because a retried body looks like one
//!   of a clock that is behind.
//!
//! # What does not
//! * A body that first arrives long after it was sent, from a clock that is ahead, looks as if that clock
//!   were less ahead, or right. It counts later than it should, by as long as it was delayed, but never later
//!   than the sender says. So it may overtake a later message that arrived at once.
//! * Where clocks that are behind are corrected, such a body from a clock that is right moves forward: the
//!   two cannot be told apart. So they are not corrected unless an operator asks for it.

use std::time::Duration;

use serde_json::Value;

use super::event_time::{EARLIEST, Written};
use super::message;
use crate::membership::Timestamp;

/// A clock counts as ahead if a message arrives at least this long before it was sent: synchronised clocks
/// differ by some milliseconds.
const AHEAD: Duration = Duration::from_secs(1);

/// A clock counts as behind if a message arrives at least this long after it was sent: a body may take half a
/// minute to arrive (`listen.body_timeout_ms`), and some time to be retried.
const BEHIND: Duration = Duration::from_secs(60);

/// Which clock the times of an event were taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Segment's: the times do not depend on when the event is sent.
    Segments,
    /// A sender's, which is believed this time; another attempt of the same message may have been corrected,
    /// or may yet be.
    Senders,
    /// A sender's, and the message was corrected, or its next attempt may be: it has to be remembered.
    Corrected(Corrected),
}

/// In which direction a clock was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corrected {
    /// It was ahead.
    Ahead,
    /// It was behind.
    Behind,
    /// Off by no more than synchronised clocks differ, or than a network takes.
    Neither,
}

impl Corrected {
    /// The two directions, for metrics.
    pub const WRONG: [Self; 2] = [Self::Ahead, Self::Behind];

    /// The label in metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ahead => "ahead",
            Self::Behind => "behind",
            Self::Neither => "right",
        }
    }
}

/// The clock of a message that arrived at `arrival`, and its new `timestamp` if its time is moved. `sent_at`
/// is that of the body, if it has one; the message's own takes precedence. `also_behind`: correct clocks that
/// are behind, too.
#[must_use]
pub fn corrected(
    message: &Value,
    sent_at: Option<&Value>,
    arrival: Timestamp,
    also_behind: bool,
) -> (Clock, Option<String>) {
    let sent = read(message.get("sentAt")).or_else(|| read(sent_at));
    let has_id = message::id(message).is_some();
    if !has_id && message.get("type").is_some_and(|of| of == "delete") {
        return (Clock::Senders, None); // identified by its text, which must stay the same
    }
    let also_behind = also_behind && has_id;
    let moved = original(message).zip(sent).and_then(|(original, sent)| {
        let ahead = sent.0.checked_sub(arrival.0)?;
        let ahead = if also_behind { ahead } else { ahead.max(0) };
        let at = Some(Timestamp(original.0.checked_sub(ahead)?)).filter(|at| *at >= EARLIEST)?;
        let at = jiff::Timestamp::from_microsecond(at.0).ok()?;
        (ahead != 0).then(|| (how_wrong(sent, arrival), at.to_string()))
    });
    match moved {
        Some((how, at)) => (Clock::Corrected(how), Some(at)),
        None if also_behind => (Clock::Corrected(Corrected::Neither), None),
        None => (Clock::Senders, None),
    }
}

/// A readable time that is not before [`EARLIEST`].
fn read(value: Option<&Value>) -> Option<Timestamp> {
    Written::of(value).and_then(Written::read).filter(|at| *at >= EARLIEST)
}

/// When the event happened by the sender's clock; when it was sent, if the message states no other time.
fn original(message: &Value) -> Option<Timestamp> {
    let times = ["originalTimestamp", "timestamp"];
    let is_silent = || {
        let mut others = times.iter().chain(&["receivedAt"]);
        others.all(|name| Written::of(message.get(name)).is_none())
    };
    times
        .iter()
        .find_map(|name| read(message.get(name)))
        .or_else(|| read(message.get("sentAt")).filter(|_| is_silent()))
}

fn how_wrong(sent: Timestamp, arrival: Timestamp) -> Corrected {
    if sent >= arrival.after(AHEAD) {
        Corrected::Ahead
    } else if sent <= arrival.before(BEHIND) {
        Corrected::Behind
    } else {
        Corrected::Neither
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::map::mappings::message_of;
    use crate::map::{Event, happened_at};

    /// 2025-03-13T07:23:15Z in microseconds.
    const ARRIVAL: Timestamp = Timestamp(1_741_850_595_000_000);

    #[expect(clippy::cast_possible_truncation, reason = "some minutes")]
    fn micros(seconds: f64) -> i64 {
        (seconds * 1e6).round() as i64
    }

    fn at(seconds: f64) -> String {
        let at = jiff::Timestamp::from_microsecond(ARRIVAL.0 + micros(seconds));
        at.expect("near the arrival").to_string()
    }

    #[test]
    fn a_clock_that_is_ahead_is_set_right_and_one_that_is_behind_where_that_is_asked_for() {
        use Clock::{Corrected as By, Senders};
        use Corrected::{Ahead, Behind, Neither};
        let both = |timestamp: f64, sent: f64| {
            json!({
                "messageId": "m", "timestamp": at(timestamp), "sentAt": at(sent),
            })
        };
        let hour = 3600.0;
        // message, `sentAt` of the body, then the results without and with correction of clocks that are
        // behind
        let rows = [
            (both(-9.0, 0.0), None, (Senders, None), (By(Neither), None)),
            (both(-9.0, -0.2), None, (Senders, None), (By(Neither), Some(-8.8))),
            (both(-9.0, 0.001), None, (By(Neither), Some(-9.001)), (By(Neither), Some(-9.001))),
            (both(-9.0, 0.999), None, (By(Neither), Some(-9.999)), (By(Neither), Some(-9.999))),
            (both(-9.0, 1.0), None, (By(Ahead), Some(-10.0)), (By(Ahead), Some(-10.0))),
            (both(-9.0, 1.5), None, (By(Ahead), Some(-10.5)), (By(Ahead), Some(-10.5))),
            (both(hour - 9.0, hour), None, (By(Ahead), Some(-9.0)), (By(Ahead), Some(-9.0))),
            (both(hour + 9.0, hour), None, (By(Ahead), Some(9.0)), (By(Ahead), Some(9.0))),
            (both(-69.0, -59.0), None, (Senders, None), (By(Neither), Some(-10.0))),
            (both(-70.0, -60.0), None, (Senders, None), (By(Behind), Some(-10.0))),
            (both(-hour - 9.0, -hour), None, (Senders, None), (By(Behind), Some(-9.0))),
            // The `sentAt` of the body counts for a message without its own.
            (
                json!({"messageId": "m", "timestamp": at(hour - 9.0)}),
                Some(json!(at(hour))),
                (By(Ahead), Some(-9.0)),
                (By(Ahead), Some(-9.0)),
            ),
            (both(-9.0, 0.0), Some(json!(at(hour))), (Senders, None), (By(Neither), None)),
            // `originalTimestamp` counts if there is one.
            (
                json!({"timestamp": at(-5.0), "originalTimestamp": at(hour - 9.0), "sentAt": at(hour)}),
                None,
                (By(Ahead), Some(-9.0)),
                (By(Ahead), Some(-9.0)),
            ),
            (
                json!({"messageId": "m", "timestamp": 1_741_854_186, "sentAt": 1_741_854_195_000_i64}),
                None,
                (By(Ahead), Some(-9.0)),
                (By(Ahead), Some(-9.0)),
            ),
            // Without an id, each repetition would be moved further.
            (
                json!({"timestamp": at(-hour - 9.0), "sentAt": at(-hour)}),
                None,
                (Senders, None),
                (Senders, None),
            ),
            // A deletion without an id is identified by its text.
            (
                json!({"type": "delete", "timestamp": at(hour - 9.0), "sentAt": at(hour)}),
                None,
                (Senders, None),
                (Senders, None),
            ),
            // A message that does not say when it was sent is left alone.
            (json!({"timestamp": at(9.0)}), None, (Senders, None), (Senders, None)),
            (
                json!({"timestamp": null, "sentAt": at(hour)}),
                None,
                (By(Ahead), Some(0.0)),
                (By(Ahead), Some(0.0)),
            ),
            (
                json!({"timestamp": "soon", "sentAt": at(hour)}),
                None,
                (Senders, None),
                (Senders, None),
            ),
            (json!({}), Some(json!(at(hour))), (Senders, None), (Senders, None)),
            (json!({"timestamp": at(-9.0), "sentAt": 7}), None, (Senders, None), (Senders, None)),
            (json!({"timestamp": 7, "sentAt": at(hour)}), None, (Senders, None), (Senders, None)),
            (both(-9.0, 1e9), None, (Senders, None), (By(Neither), None)), // it would be moved to 1993
            (json!({"timestamp": "soon", "sentAt": "now"}), None, (Senders, None), (Senders, None)),
            (json!([]), None, (Senders, None), (Senders, None)),
        ];
        for (message, sent_at, ahead_only, also_behind) in rows {
            for (expected, asked) in [(ahead_only, false), (also_behind, true)] {
                let found = corrected(&message, sent_at.as_ref(), ARRIVAL, asked);
                let (clock, seconds) = expected;
                assert_eq!(found, (clock, seconds.map(at)), "{message} {asked}");
            }
        }
    }

    /// Two messages of one clock, the second created when the first had been in transit for `delay`: whatever
    /// the clock shows, the second counts later, even where only one of them was corrected.
    #[test]
    fn the_way_here_does_not_turn_the_order_of_two_messages_of_one_clock() {
        let counts = |ahead: f64, made: f64, delay: f64, also_behind: bool| {
            let of_clock = made + ahead;
            let message =
                json!({"messageId": "m", "timestamp": at(of_clock), "sentAt": at(of_clock)});
            let arrival = Timestamp(ARRIVAL.0 + micros(made + delay));
            let (_, timestamp) = corrected(&message, None, arrival, also_behind);
            let timestamp = timestamp.map_or_else(|| message["timestamp"].clone(), Value::from);
            read(Some(&timestamp)).expect("a time")
        };
        for ahead in
            [600.0, 1.3, 1.001, 1.0, 0.999, 0.1, 0.0, -0.3, -1.0, -59.9, -60.0, -60.2, -600.0]
        {
            for delay in [0.0, 0.001, 0.2, 0.45, 0.999, 1.0, 5.0] {
                for also_behind in [false, true] {
                    let first = counts(ahead, 0.0, delay, also_behind);
                    let second = counts(ahead, delay + 0.001, 0.0, also_behind);
                    assert!(first < second, "{ahead} {delay} {also_behind}");
                    let latest = Timestamp(ARRIVAL.0 + micros(delay.max(ahead)));
                    assert!(first <= latest, "{ahead} {delay} {also_behind}");
                }
            }
        }
    }

    #[test]
    fn a_message_is_remembered_where_another_attempt_may_be_dated_later() {
        let message = json!({"messageId": "m", "timestamp": at(-9.0), "receivedAt": at(-8.0)});
        let of = |clock| message_of(Event::from(&message).by(clock), ARRIVAL);
        assert!(of(Clock::Segments).is_none());
        assert!(of(Clock::Senders).is_some_and(|message| !message.moves));
        for corrected in [Corrected::Ahead, Corrected::Behind, Corrected::Neither] {
            assert!(of(Clock::Corrected(corrected)).is_some_and(|message| message.moves));
        }
        let event = Event::from(&message).by(Clock::Corrected(Corrected::Ahead));
        assert_eq!(happened_at(event, ARRIVAL), happened_at(&message, ARRIVAL));
    }
}
