//! An event, in the two ways in which it is looked at.
//!
//! Where values are compared, a number is a number: the 64-bit float that it is in JavaScript, or an
//! integer of 64 bits. Where a value becomes text (an id, a key, a template) a number that none of them holds keeps its
//! digits ([`json::exact`](crate::json::exact)): two people must not become one.

use serde_json::Value;

use super::event_time::{EventTime, Written, event_time};
use super::sender_clock::Clock;

use crate::json::exact::Exact;
use crate::membership::Timestamp;

/// An event that was read. Not `Debug`: it holds personal data ([P8](crate::design::P8)).
#[derive(Clone, Copy)]
pub struct Event<'a> {
    /// For what compares values: subscriptions.
    pub(super) numbers: &'a Value,
    /// For what becomes text: the fields of the mapping.
    pub(super) texts: &'a Value,
    /// Whose clock its times are of.
    pub(super) clock: Clock,
}

impl<'a> Event<'a> {
    /// The same, with times of this clock.
    #[must_use]
    pub fn by(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Whose clock its times are of.
    #[must_use]
    pub fn clock(self) -> Clock {
        self.clock
    }

    /// When it happened, if it arrived then.
    pub(super) fn time(self, arrival: Timestamp) -> EventTime {
        let time = event_time(|field| Written::of(self.texts.get(field)), arrival);
        match self.clock {
            Clock::Segments => time,
            Clock::Senders => EventTime { may_have_moved: true, ..time },
            Clock::Corrected(_) => EventTime { moves: true, ..time },
        }
    }

    /// With its numbers as numbers.
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

/// One whose numbers are all there is of them.
impl<'a> From<&'a Value> for Event<'a> {
    fn from(event: &'a Value) -> Self {
        Self { numbers: event, texts: event, clock: Clock::Segments }
    }
}
