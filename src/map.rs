//! Mapping: a pure function from an event to a delta, or to the reason why there is none (P9).

use crate::membership::{ContextKind, MembershipDelta, UserId};

/// Which identifier becomes the context key: the field `context_key` of the mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextKeyRule {
    /// `user_id_only`
    UserIdOnly,
    /// `email_only`
    EmailOnly,
    /// `user_id_then_email`
    UserIdThenEmail,
    /// `user_id_then_anonymousId`
    UserIdThenAnonymousId,
    /// `user_id_then_email_then_anonymousId`
    UserIdThenEmailThenAnonymousId,
}

/// How a membership value that is not plainly true or false is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MembershipRule {
    /// `true`, `false` and their texts; anything else is rejected.
    Strict,
    /// JavaScript truthiness, as Segment's hosted integration does; a missing value removes.
    Reference,
}

/// What a destination's `mapping` section decides.
#[derive(Clone, Debug)]
pub struct MappingSettings {
    /// The kind of every context.
    pub context_kind: ContextKind,
    /// The rule for the context key.
    pub context_key: ContextKeyRule,
    /// The rule for the membership value.
    pub membership: MembershipRule,
    /// `journey_step_without_value = "enter"`: a journey step without a value counts as an entry.
    pub journey_step_without_value_enters: bool,
}

/// What became of one event.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It changes a membership.
    Delta(Box<MembershipDelta>),
    /// A privacy deletion of the person.
    Deletion(UserId),
    /// The subscription does not select it.
    Ignored,
    /// It should have changed a membership and cannot.
    Rejected(Rejection),
}

/// Why an event cannot be applied: a stable word, and a sentence without personal data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Stable, `snake_case`: `not_an_audience`, `missing_field`, …
    pub reason: &'static str,
    /// One sentence for the person who reads it in Segment's Event Delivery view.
    pub detail: String,
}
