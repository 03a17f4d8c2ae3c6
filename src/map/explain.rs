//! What a mapping makes of one event, step by step, for a person who wants to know why.
//!
//! The only part of the mapping that returns values of an event, and only to a caller that already holds the
//! event. Nothing here is logged or stored.

use std::borrow::Cow;

use serde_json::Value;

use super::event_time::{Doubt, EventTime};
use super::fields::Field;
use super::{Event, Mapping, Rejection};
use crate::membership::{AudienceKey, MembershipDelta, Timestamp};

/// What one mapping makes of one event. Not `Debug`: it holds values of the event ([P8](crate::design::P8)).
pub struct Explanation {
    /// The condition that selects events.
    pub subscription: String,
    /// The comparison because of which this event is not selected; `None` if it is selected.
    pub why_not: Option<String>,
    /// What each field resolved to; empty if the event is not selected.
    pub fields: Vec<ExplainedField>,
    /// The delta; `None` if the event or its audience is not selected; an error if the event is rejected.
    pub result: Result<Option<MembershipDelta>, Rejection>,
}

/// What one field of the action resolved to.
pub struct ExplainedField {
    /// The name, as in Segment's mapping editor.
    pub field: &'static str,
    /// Where the mapping looks for the value.
    pub from: String,
    /// The value found there, before it is converted to the type of the field.
    pub value: Option<Value>,
    /// Why the value could not be resolved.
    pub problem: Option<String>,
}

/// When an event happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExplainedTime {
    /// The time that counts.
    pub at: Timestamp,
    /// The field that it was taken from; `None` if the arrival counts.
    pub from: Option<&'static str>,
    /// The best field that states a time but does not count, and why.
    pub doubt: Option<(&'static str, Doubt)>,
}

/// Explains when an event happened that arrived at `arrival`.
#[must_use]
pub fn explain_time<'a>(event: impl Into<Event<'a>>, arrival: Timestamp) -> ExplainedTime {
    let EventTime { at, from, doubt, .. } = event.into().time(arrival);
    ExplainedTime { at, from, doubt }
}

impl Mapping {
    /// Explains what [`Mapping::map`] does with an event that arrived at `arrival`.
    #[must_use]
    pub fn explain<'a>(&self, event: impl Into<Event<'a>>, arrival: Timestamp) -> Explanation {
        let event = event.into();
        let why_not = self.subscription.why_not(event.numbers);
        let explained = |field| self.explain_field(field, event.texts);
        let fields = match why_not {
            None => Field::ALL.into_iter().map(explained).collect(),
            Some(_) => Vec::new(),
        };
        Explanation {
            subscription: self.subscription.to_string(),
            why_not,
            fields,
            result: self.map(event, arrival),
        }
    }

    fn explain_field(&self, field: Field, event: &Value) -> ExplainedField {
        let (from, resolved) = self.fields.resolved(field, event);
        let (value, problem) = match resolved {
            Ok(value) => (value.map(Cow::into_owned), None),
            Err(unresolved) => (None, Some(unresolved.to_string())),
        };
        let explained = ExplainedField { field: field.name(), from, value, problem };
        match self.particular_value(field, event) {
            Some(value) => ExplainedField {
                from: "the audience's own".to_owned(),
                value: Some(value.into()),
                ..explained
            },
            None => explained,
        }
    }

    /// The value that an override for the event's audience sets for this field.
    fn particular_value(&self, field: Field, event: &Value) -> Option<String> {
        let audience = self.fields.find(Field::AudienceKey, event);
        let audience = AudienceKey::new(&audience.text().ok()??)?;
        let particular = self.audiences.override_of(&audience)?;
        match field {
            Field::ContextKind => particular.context_kind.as_ref().map(|k| k.as_str().to_owned()),
            Field::ContextKey => particular.context_key.map(|rule| rule.name().to_owned()),
            _ => None,
        }
    }
}
