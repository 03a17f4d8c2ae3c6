//! An event, in the two forms in which it is read.
//!
//! Where values are compared, a number is a number: the 64-bit float that it is in JavaScript, or an integer
//! of 64 bits. Where a value becomes text (an id, a key, a template), a number that fits neither keeps its
//! digits ([`json::exact`](crate::json::exact)): two people must not become one.

use serde_json::Value;

use super::event_time::{EventTime, Written, event_time};
use super::sender_clock::Clock;

use crate::json::exact::Exact;
use crate::membership::Timestamp;

/// A parsed event. Not `Debug`: it holds personal data ([P8](crate::design::P8)).
#[derive(Clone, Copy)]
pub struct Event<'a> {
    /// For comparisons: subscriptions.
    pub(super) numbers: &'a Value,
    /// For values that become text: the fields of the mapping.
    pub(super) texts: &'a Value,
    /// Which clock the event's times were taken from.
    pub(super) clock: Clock,
}

impl<'a> Event<'a> {
    /// This event, with its times attributed to `clock`.
    #[must_use]
    pub fn by(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Which clock the event's times were taken from.
    #[must_use]
    pub fn clock(self) -> Clock {
        self.clock
    }

    /// When the event happened, given that it arrived at `arrival`.
    pub(super) fn time(self, arrival: Timestamp) -> EventTime {
        let time = event_time(|field| Written::of(self.texts.get(field)), arrival);
        match self.clock {
            Clock::Segments => time,
            Clock::Senders => EventTime { may_have_moved: true, ..time },
            Clock::Corrected(_) => EventTime { moves: true, ..time },
        }
    }

    /// The form in which numbers are numbers.
    #[must_use]
    pub fn numbers(self) -> &'a Value {
        self.numbers
    }
}

impl<'a> From<&'a Exact> for Event<'a> {
    fn from(event: &'a Exact) -> Self {
        Self { numbers: event.value(), texts: event.texts(), clock: Clock::Segments }
    }
}

/// An event whose numbers lost nothing when they were parsed, so that one form serves as both.
impl<'a> From<&'a Value> for Event<'a> {
    fn from(event: &'a Value) -> Self {
        Self { numbers: event, texts: event, clock: Clock::Segments }
    }
}
