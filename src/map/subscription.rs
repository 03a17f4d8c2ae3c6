//! Subscriptions: which events a mapping applies to, in FQL, the language of Segment's editor.
//!
//! ```text
//! type = "identify" or (type = "track" and match(event, "Audience *"))
//! ```
//!
//! A statement is parsed once, when the configuration is read: what is not FQL is a fault with its
//! place, while Segment would take it as best it can or never match. The language is the one its
//! reference describes; where recorded behaviour (`tests/conformance/fql.jsonl`) is clearer than the
//! description, it is followed.
//!
//! # What always holds
//! * [`Subscription::selects`] answers for every event: it never panics, borrows what it can, and
//!   needs time and memory bounded by the statement and the event.
//! * What is printed is the statement again: it parses into an equal one.
//! * What is told about an event names fields and kinds, never a value ([P8](crate::design::P8)).

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

/// A statement that says of every event whether it is selected.
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
    /// Reads a statement.
    pub fn parse(statement: &str) -> Result<Self, SubscriptionFault> {
        Ok(Self { condition: grammar::parse(statement)? })
    }

    /// Whether it selects this event.
    #[must_use]
    pub fn selects(&self, event: &Value) -> bool {
        self.condition.holds(event) == Some(true)
    }

    /// Which comparison decided that this event is not selected; none if it is.
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

/// As `Display`.
impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
