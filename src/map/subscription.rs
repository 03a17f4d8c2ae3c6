//! Subscriptions: which events a mapping applies to, in FQL, the query language of Segment's editor.
//!
//! ```text
//! type = "identify" or (type = "track" and match(event, "Audience *"))
//! ```
//!
//! A statement is parsed once, when the configuration is read. Invalid FQL is a fault with its place, whereas
//! Segment would interpret it as best it can, or never match. The language is the one described in Segment's
//! reference; where recorded behaviour (`tests/conformance/fql.jsonl`) is clearer than the description, the
//! recording is followed.
//!
//! # What always holds
//! * [`Subscription::selects`] answers for every event: it never panics, borrows what it can, and its time
//!   and memory are bounded by the statement and the event.
//! * A printed statement parses into an equal statement.
//! * Explanations name fields and kinds of values, never a value of the event ([P8](crate::design::P8)).

mod evaluate;
mod explain;
mod fault;
mod functions;
mod grammar;
mod pattern;
mod term;
mod tree;

use std::fmt;

use serde_json::Value;

pub use fault::SubscriptionFault;

use tree::Condition;

/// A statement that decides for every event whether it is selected.
///
/// ```
/// use cohortd::map::Subscription;
///
/// let subscription = Subscription::parse("type = \"track\" and match(event, \"Audience *\")")?;
/// assert!(subscription.selects(&serde_json::json!({ "type": "track", "event": "Audience Entered" })));
/// assert!(!subscription.selects(&serde_json::json!({ "type": "track", "event": "Order Completed" })));
///
/// assert!(Subscription::parse("type = ").is_err());
/// # Ok::<(), cohortd::map::SubscriptionFault>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Subscription {
    condition: Condition,
}

impl Subscription {
    /// Parses a statement.
    pub fn parse(statement: &str) -> Result<Self, SubscriptionFault> {
        Ok(Self { condition: grammar::parse(statement)? })
    }

    /// Whether the statement selects this event.
    #[must_use]
    pub fn selects(&self, event: &Value) -> bool {
        self.condition.holds(event) == Some(true)
    }

    /// The comparison because of which this event is not selected; `None` if it is selected.
    #[must_use]
    pub fn why_not(&self, event: &Value) -> Option<String> {
        (!self.selects(event)).then(|| self.condition.reason(event))
    }
}

/// Canonical FQL.
impl fmt::Display for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.condition, f)
    }
}

/// The same text as `Display`.
impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
