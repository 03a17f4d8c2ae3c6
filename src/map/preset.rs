//! The defaults of Segment's "LaunchDarkly Audiences" [action](crate::design::segment::sync_audience): its
//! subscription, and an expression for each field.

use serde_json::Value;

use super::expression::Expression;
use super::fields::{Field, Fields};
use super::{ContextKeyRule, Subscription};

/// The events that the action accepts.
const SUBSCRIPTION: &str = r#"type = "identify" or type = "track""#;

/// The subscription that applies if the customer wrote none.
pub(super) fn subscription() -> Subscription {
    Subscription::parse(SUBSCRIPTION).expect("the statement is ours, and a test parses it")
}

/// The fields as they are if the customer changed nothing.
pub(super) fn fields() -> Fields {
    Fields::new(|field| match field {
        Field::AudienceId => Expression::path(&["context", "personas", "computation_id"]),
        Field::AudienceKey => Expression::path(&["context", "personas", "computation_key"]),
        Field::ComputationAction => Expression::path(&["context", "personas", "computation_class"]),
        Field::ContextKind => Expression::Literal("user".into()),
        Field::UserId => Expression::path(&["userId"]),
        Field::AnonymousId => Expression::path(&["anonymousId"]),
        Field::Email => Expression::first_of(&["traits", "email"], &["context", "traits", "email"]),
        Field::ContextKey => Expression::Literal(ContextKeyRule::UserIdOnly.name().into()),
        // An identify call that also has properties is read from those, even if they say nothing about the
        // audience, as in the hosted integration.
        Field::TraitsOrProps => Expression::first_of(&["properties"], &["traits"]),
        Field::EnableBatching => Expression::Literal(Value::Bool(true)),
        Field::AudienceAction => Expression::Literal(Value::Null),
    })
}
