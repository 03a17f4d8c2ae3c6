//! A sender's clock, where events come straight from their sender: the Tracking API.
//!
//! What Segment sends has been corrected by Segment. Here it is corrected [in the same way](crate::design::segment::times): it happened as
//! long before the arrival as it did before it was sent, by the sender's own clock. So `timestamp` becomes
//! arrival - (`sentAt` - `originalTimestamp`), and what it was is kept as `originalTimestamp`.
//!
//! # What always holds
//! * A message never counts later than its first attempt, if it has a message id: one that was corrected is
//!   remembered, and every one is looked for (`membership::Message`, tests/it/clocks.rs). Where clocks that are
//!   behind are corrected every message is remembered, because a body that is sent again looks like one of
//!   a clock that is behind.
//!
//! # What does not
//! A body that comes for the first time long after it was sent, from a clock that is right, moves forward
//! where clocks that are behind are corrected: nobody can tell the two apart. So they are not, unless an operator asks
//! for it.

use std::time::Duration;

use serde_json::Value;

use super::event_time::{EARLIEST, Written};
use super::message;
use crate::membership::Timestamp;

/// A clock is ahead if a message arrives so long before it was sent. No network makes it seem so; but
/// clocks that are kept right differ by some milliseconds, and their times are left alone.
const AHEAD: Duration = Duration::from_secs(1);

/// A clock is behind if a message arrives so long after it was sent: a body may take half a minute to
/// arrive (`listen.body_timeout_ms`), and some time to be sent again.
const BEHIND: Duration = Duration::from_secs(60);

/// Whose clock the times of an event are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Segment's: they do not depend on when the event is sent.
    Segments,
    /// A sender's, which is believed now; the same message may have been corrected, or may be the next time.
    Senders,
    /// A sender's, which is not.
    Corrected(Corrected),
}

/// How a clock was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corrected {
    /// It was ahead.
    Ahead,
    /// It was behind.
    Behind,
    /// It was not, but what is sent again may look as if it were: so it is to be remembered.
    Neither,
}

impl Corrected {
    /// The two ways to be wrong, for metrics.
    pub const WRONG: [Self; 2] = [Self::Ahead, Self::Behind];

    /// As it is counted.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ahead => "ahead",
            Self::Behind => "behind",
            Self::Neither => "right",
        }
    }
}

/// Whose clock a message has that arrived then, and the `timestamp` that it gets if it is corrected.
/// `sent_at`: of the body, if it has one; the message's own counts first. `also_behind`: clocks that are behind
/// are corrected too.
#[must_use]
pub fn corrected(
    message: &Value,
    sent_at: Option<&Value>,
    arrival: Timestamp,
    also_behind: bool,
) -> (Clock, Option<String>) {
    let read = |value| Written::of(value).and_then(Written::read).filter(|at| *at >= EARLIEST);
    let times = ["originalTimestamp", "timestamp"];
    let original = times.into_iter().find_map(|name| read(message.get(name)));
    let sent = read(message.get("sentAt")).or_else(|| read(sent_at));
    let has_id = message::hash(message).is_some();
    if !has_id && message.get("type").is_some_and(|of| of == "delete") {
        return (Clock::Senders, None); // it is known by its text, so that this must stay the same
    }
    let also_behind = also_behind && has_id;
    let clock = match sent {
        Some(sent) if sent > arrival.after(AHEAD) => Clock::Corrected(Corrected::Ahead),
        Some(sent) if also_behind && sent < arrival.before(BEHIND) => {
            Clock::Corrected(Corrected::Behind)
        }
        _ if also_behind => return (Clock::Corrected(Corrected::Neither), None),
        _ => return (Clock::Senders, None),
    };
    let at = original.zip(sent).and_then(|(original, sent)| {
        let before_sending = sent.0.checked_sub(original.0)?;
        jiff::Timestamp::from_microsecond(arrival.0.checked_sub(before_sending)?).ok()
    });
    match at {
        Some(at) => (clock, Some(at.to_string())),
        None if also_behind => (Clock::Corrected(Corrected::Neither), None),
        None => (Clock::Senders, None),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::map::{Event, happened_at, message_of};

    /// 2025-03-13T07:23:15Z in microseconds.
    const ARRIVAL: Timestamp = Timestamp(1_741_850_595_000_000);

    fn at(seconds: f64) -> String {
        let micros = Duration::from_secs_f64(seconds.abs());
        let at = if seconds < 0.0 { ARRIVAL.before(micros) } else { ARRIVAL.after(micros) };
        jiff::Timestamp::from_microsecond(at.0).expect("near the arrival").to_string()
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
        // message, sentAt of the body, then without and with those that are behind
        let rows = [
            (both(-9.0, -0.2), None, (Senders, None), (By(Neither), None)),
            (both(-9.0, 0.9), None, (Senders, None), (By(Neither), None)),
            (both(-9.0, 1.5), None, (By(Ahead), Some(-10.5)), (By(Ahead), Some(-10.5))),
            (both(hour - 9.0, hour), None, (By(Ahead), Some(-9.0)), (By(Ahead), Some(-9.0))),
            (both(hour + 9.0, hour), None, (By(Ahead), Some(9.0)), (By(Ahead), Some(9.0))),
            (both(-69.0, -59.0), None, (Senders, None), (By(Neither), None)),
            (both(-hour - 9.0, -hour), None, (Senders, None), (By(Behind), Some(-9.0))),
            // The body's counts for a message that has none of its own.
            (
                json!({"messageId": "m", "timestamp": at(hour - 9.0)}),
                Some(json!(at(hour))),
                (By(Ahead), Some(-9.0)),
                (By(Ahead), Some(-9.0)),
            ),
            (both(-9.0, 0.0), Some(json!(at(hour))), (Senders, None), (By(Neither), None)),
            // What was said first counts, if there is one.
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
            // Without an id each repetition would move on.
            (
                json!({"timestamp": at(-hour - 9.0), "sentAt": at(-hour)}),
                None,
                (Senders, None),
                (Senders, None),
            ),
            // A deletion without one is known by its text.
            (
                json!({"type": "delete", "timestamp": at(hour - 9.0), "sentAt": at(hour)}),
                None,
                (Senders, None),
                (Senders, None),
            ),
            // What says nothing is left alone.
            (json!({"timestamp": at(9.0)}), None, (Senders, None), (Senders, None)),
            (json!({"sentAt": at(hour)}), None, (Senders, None), (Senders, None)),
            (json!({"timestamp": at(-9.0), "sentAt": 7}), None, (Senders, None), (Senders, None)),
            (json!({"timestamp": 7, "sentAt": at(hour)}), None, (Senders, None), (Senders, None)),
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

    #[test]
    fn a_message_is_remembered_where_another_attempt_may_be_dated_later() {
        let message = json!({"messageId": "m", "timestamp": at(-9.0), "receivedAt": at(-8.0)});
        let of = |clock| message_of(Event::from(&message).by(clock), ARRIVAL);
        assert_eq!(of(Clock::Segments), None);
        assert!(of(Clock::Senders).is_some_and(|message| !message.moves));
        for corrected in [Corrected::Ahead, Corrected::Behind, Corrected::Neither] {
            assert!(of(Clock::Corrected(corrected)).is_some_and(|message| message.moves));
        }
        let event = Event::from(&message).by(Clock::Corrected(Corrected::Ahead));
        assert_eq!(happened_at(event, ARRIVAL), happened_at(&message, ARRIVAL));
    }
}
