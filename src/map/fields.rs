//! The fields of the action `syncAudience`, and how one of them is read from an event.
//!
//! [`Found`] converts a value to the type of its field; every rejection for a missing or unfit field is
//! worded here.

use std::borrow::Cow;
use std::fmt::Display;

use serde_json::{Map, Value};

use super::coercion::{self, Unfit};
use super::context_key::has_template_braces;
use super::expression::{Expression, MappingFault, Unresolved};
use super::length::NAME_BYTES;
use super::preset;
use super::rejection::{Reason, Rejection};

/// A field of the action, under the name that customers know from Segment's mapping editor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// Text, required.
    AudienceId,
    /// Text, required.
    AudienceKey,
    /// `audience` or `journey_step`, required.
    ComputationAction,
    /// Text, required.
    ContextKind,
    /// Text.
    UserId,
    /// Text.
    AnonymousId,
    /// Text.
    Email,
    /// The name of a rule, required.
    ContextKey,
    /// Object, required.
    TraitsOrProps,
    /// Boolean. Irrelevant to a daemon that always batches, but a bad value means a bad mapping.
    EnableBatching,
    /// `ADD` or `REMOVE`. Checked but not used, as in the hosted integration.
    AudienceAction,
}

impl Field {
    /// Every field, in the order of the documentation.
    pub(super) const ALL: [Self; 11] = [
        Self::AudienceId,
        Self::AudienceKey,
        Self::ComputationAction,
        Self::ContextKind,
        Self::UserId,
        Self::AnonymousId,
        Self::Email,
        Self::ContextKey,
        Self::TraitsOrProps,
        Self::EnableBatching,
        Self::AudienceAction,
    ];

    /// The field's name in the mapping.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AudienceId => "segment_audience_id",
            Self::AudienceKey => "segment_audience_key",
            Self::ComputationAction => "segment_computation_action",
            Self::ContextKind => "context_kind",
            Self::UserId => "segment_user_id",
            Self::AnonymousId => "segment_anonymous_id",
            Self::Email => "user_email",
            Self::ContextKey => "context_key",
            Self::TraitsOrProps => "traits_or_props",
            Self::EnableBatching => "enable_batching",
            Self::AudienceAction => "audience_action",
        }
    }
}

/// The expression of each field.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    expressions: [Expression; Field::ALL.len()],
    /// A hash of each field's JSON where it differs from the preset; 0 where it does not.
    fingerprints: [u32; Field::ALL.len()],
}

impl Fields {
    /// One expression for each field.
    pub(super) fn new(expression: impl Fn(Field) -> Expression) -> Self {
        Self { expressions: Field::ALL.map(expression), fingerprints: [0; Field::ALL.len()] }
    }

    /// Replaces the expression of the field of this name.
    pub(super) fn set(&mut self, name: &str, json: &Value) -> Result<(), Vec<MappingFault>> {
        let Some(field) = Field::ALL.into_iter().find(|field| field.name() == name) else {
            let problem = "is not a field of the action".to_owned();
            return Err(vec![MappingFault { path: name.to_owned(), problem }]);
        };
        let expression = Expression::compile(json, name)?;
        let is_preset = expression == preset::fields().expressions[field as usize];
        let fingerprint = crc32fast::hash(in_order(json).to_string().as_bytes());
        self.fingerprints[field as usize] = if is_preset { 0 } else { fingerprint };
        self.expressions[field as usize] = expression;
        Ok(())
    }

    /// Identifies what the mapping says about these fields; 0 for the preset. Stored with members, so it must
    /// depend on nothing but the text of the mapping.
    pub(super) fn fingerprint(&self, fields: &[Field]) -> u32 {
        let mut all = crc32fast::Hasher::new();
        let of_fields = || fields.iter().map(|field| self.fingerprints[*field as usize]);
        of_fields().for_each(|one| all.update(&one.to_le_bytes()));
        if of_fields().all(|one| one == 0) { 0 } else { all.finalize() }
    }

    /// Whether every field but these is as in the preset.
    pub(super) fn are_preset_but(&self, others: &[Field]) -> bool {
        let preset = preset::fields();
        Field::ALL
            .into_iter()
            .filter(|field| !others.contains(field))
            .all(|field| self.expressions[field as usize] == preset.expressions[field as usize])
    }

    /// A field's value, if the mapping sets it to a constant text.
    pub(super) fn literal(&self, field: Field) -> Option<&str> {
        self.expressions[field as usize].literal()?.as_str()
    }

    /// Whether a field has no value, whatever the event.
    pub(super) fn is_nothing(&self, field: Field) -> bool {
        let expression = &self.expressions[field as usize];
        let is_empty = |value: Option<Cow<'_, Value>>| {
            value.is_none_or(|value| matches!(coercion::text(&value), Ok(None)))
        };
        !expression.reads_event() && expression.resolve(&Value::Null).is_ok_and(is_empty)
    }

    /// A field's expression for people: a constant text itself, otherwise where the value comes from.
    pub(super) fn shown(&self, field: Field) -> String {
        let expression = &self.expressions[field as usize];
        let text = expression.literal().and_then(Value::as_str);
        text.map_or_else(|| expression.to_string(), str::to_owned)
    }

    /// Where a field's value comes from, and the value for this event.
    pub(super) fn resolved<'a>(
        &'a self,
        field: Field,
        event: &'a Value,
    ) -> (String, Result<Option<Cow<'a, Value>>, Unresolved>) {
        (self.expressions[field as usize].to_string(), self.resolve(field, event))
    }

    /// The field's value for this event.
    pub(super) fn find<'a>(&'a self, field: Field, event: &'a Value) -> Found<'a> {
        let expression = &self.expressions[field as usize];
        Found { name: field.name(), expression, value: self.resolve(field, event) }
    }

    /// The field's value. With the preset, an email that is empty in `traits` falls back to the one in
    /// `context.traits`.
    fn resolve<'a>(
        &'a self,
        field: Field,
        event: &'a Value,
    ) -> Result<Option<Cow<'a, Value>>, Unresolved> {
        let expression = &self.expressions[field as usize];
        let value = expression.resolve(event)?;
        let is_preset_email = field == Field::Email && self.fingerprints[field as usize] == 0;
        let is_empty = |value: &Value| matches!(coercion::text(value), Ok(None));
        if is_preset_email && value.as_deref().is_some_and(is_empty) {
            let fallback = expression.fallback(event)?;
            let is_text = |value: &Value| matches!(coercion::text(value), Ok(Some(_)));
            if fallback.as_deref().is_some_and(is_text) {
                return Ok(fallback);
            }
        }
        Ok(value)
    }
}

/// The JSON with its keys sorted, because tables of a configuration file have no order.
fn in_order(json: &Value) -> Value {
    match json {
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by_key(|(key, _)| *key);
            sorted.into_iter().map(|(key, value)| (key.clone(), in_order(value))).collect()
        }
        Value::Array(items) => items.iter().map(in_order).collect(),
        other => other.clone(),
    }
}

/// What one field resolved to.
pub(super) struct Found<'a> {
    name: &'static str,
    expression: &'a Expression,
    value: Result<Option<Cow<'a, Value>>, Unresolved>,
}

impl Found<'_> {
    /// A non-empty text, if there is one.
    pub(super) fn text(&self) -> Result<Option<Cow<'_, str>>, Rejection> {
        self.coerced(coercion::text, "a string")
    }

    /// A required text of at most [`NAME_BYTES`] that `parse` accepts; `takes` describes what it accepts.
    pub(super) fn parsed<T>(
        &self,
        takes: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, Rejection> {
        let text = self.text()?.ok_or_else(|| self.missing())?;
        if text.len() > NAME_BYTES {
            return Err(self.too_long(NAME_BYTES));
        }
        parse(&text).ok_or_else(|| self.invalid(takes))
    }

    /// [`Found::parsed`] for the id or key of an audience: refuses a text with the braces of an unrendered
    /// template.
    pub(super) fn named<T>(&self, parse: impl Fn(&str) -> Option<T>) -> Result<T, Rejection> {
        if self.text()?.is_some_and(|text| has_template_braces(&text)) {
            return Err(self.unrendered("audiences"));
        }
        self.parsed("a string", parse)
    }

    /// An object, if there is one.
    pub(super) fn object(&self) -> Result<Option<&Map<String, Value>>, Rejection> {
        self.coerced(coercion::object, "an object")
    }

    /// A boolean, if there is one.
    pub(super) fn boolean(&self) -> Result<Option<bool>, Rejection> {
        self.coerced(coercion::boolean, "a boolean")
    }

    fn coerced<'v, T>(
        &'v self,
        coerce: impl Fn(&'v Value) -> Result<Option<T>, Unfit>,
        wanted: &str,
    ) -> Result<Option<T>, Rejection> {
        let Self { name, expression, value } = self;
        let value = value.as_ref().map_err(|unresolved| {
            let detail = format!("{name}: {unresolved} ({expression}): correct mapping.{name}.");
            Rejection::new(Reason::MappingFailed, detail)
        })?;
        let Some(value) = value.as_deref() else { return Ok(None) };
        coerce(value).map_err(|Unfit(found)| {
            let detail = format!(
                "{name} must be {wanted} but it is {found} ({expression}): correct \
                 mapping.{name}, or the value that is sent there."
            );
            Rejection::new(Reason::InvalidField, detail)
        })
    }

    /// The rejection for a required field without a value.
    pub(super) fn missing(&self) -> Rejection {
        let Self { name, expression, .. } = self;
        let detail = format!(
            "{name} is required and has no value ({expression}): correct mapping.{name}, or the \
             value that is sent there."
        );
        Rejection::new(Reason::MissingField, detail)
    }

    /// The rejection for a text of more than `most` bytes.
    pub(super) fn too_long(&self, most: usize) -> Rejection {
        too_long(self.name, most, self.expression)
    }

    /// The rejection for a text with the braces of an unrendered template; `whose` says whom it should have
    /// identified.
    pub(super) fn unrendered(&self, whose: &str) -> Rejection {
        let Self { name, expression, .. } = self;
        let detail = format!(
            "{name} still has the braces of a template, {{{{ or }}}}, which would \
             merge many {whose} into one ({expression}): correct mapping.{name}, or the value that is sent there."
        );
        Rejection::new(Reason::InvalidField, detail)
    }

    /// The rejection for a text that the field does not accept.
    pub(super) fn invalid(&self, takes: &str) -> Rejection {
        let Self { name, expression, .. } = self;
        let detail = format!(
            "{name} must be {takes} ({expression}): correct mapping.{name}, or the value that is \
             sent there."
        );
        Rejection::new(Reason::InvalidField, detail)
    }
}

/// The rejection for a text called `name` that comes `from` there and is longer than `most` bytes.
pub(super) fn too_long(name: &str, most: usize, from: impl Display) -> Rejection {
    let detail = format!(
        "{name} is longer than the limit of {most} bytes ({from}): shorten it where it is set, or \
         map another field."
    );
    Rejection::new(Reason::FieldTooLong, detail)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_fingerprint_follows_what_the_mapping_says_and_nothing_else() {
        let of = |json: Value| {
            let mut fields = preset::fields();
            fields.set("segment_user_id", &json).expect("a field of the action");
            fields.fingerprint(&[Field::UserId])
        };
        assert_eq!(preset::fields().fingerprint(&Field::ALL), 0);
        assert_eq!(of(json!({"@path": "$.userId"})), 0, "the preset, spelled out");
        let custom = of(json!({"@path": "$.traits.id"}));
        assert_eq!(custom, 0x6996_a185, "kept with members: it may never change");
        let lower = json!({"@case": {"operator": "lower", "value": {"@path": "$.userId"}}});
        let other = json!({"@case": {"value": {"@path": "$.userId"}, "operator": "lower"}});
        assert_eq!(of(lower.clone()), of(other), "whatever the order of the keys");
        assert_ne!(of(lower), custom);
        let mut fields = preset::fields();
        fields.set("user_email", &json!("one@example.com")).expect("a field of the action");
        assert_eq!(fields.fingerprint(&[Field::UserId]), 0, "the email decides nothing here");
    }

    #[test]
    fn an_email_that_is_empty_in_traits_is_looked_for_in_the_context() {
        let (preset, mut pasted, mut custom) =
            (preset::fields(), preset::fields(), preset::fields());
        let (traits, context) =
            (json!({"@path": "$.traits.email"}), json!({"@path": "$.context.traits.email"}));
        let spelled = json!({"@if": {"exists": traits, "then": traits, "else": context}});
        pasted.set("user_email", &spelled).expect("the preset, spelled out");
        let other = json!({"@if": {"exists": traits, "then": traits, "else": "x@example.com"}});
        custom.set("user_email", &other).expect("a field of the action");
        let rows = [
            (json!("t"), json!("c"), Some("t"), Some("t")),
            (json!(""), json!("c"), Some("c"), None),
            (json!([""]), json!("c"), Some("c"), None),
            (json!(null), json!("c"), Some("c"), Some("x@example.com")),
            (json!(""), json!(""), None, None),
            (json!(""), json!(null), None, None),
            // An unfit fallback is not an error: the event may be keyed by another identifier.
            (json!(""), json!({}), None, None),
        ];
        for (in_traits, in_context, expected, customs) in rows {
            let event = json!({"traits": {"email": in_traits}, "context": {"traits": {"email": in_context}}});
            for (fields, expected) in [(&preset, expected), (&pasted, expected), (&custom, customs)]
            {
                let found = fields.find(Field::Email, &event);
                assert_eq!(found.text().expect("no unfit one").as_deref(), expected, "{event}");
            }
            let (_, explained) = preset.resolved(Field::Email, &event);
            let explained = explained.expect("it resolves");
            let shown =
                explained.as_deref().and_then(Value::as_str).filter(|text| !text.is_empty());
            assert_eq!(shown, expected, "{event}");
        }
    }

    #[test]
    fn every_field_is_found_where_its_name_was_set() {
        let mut fields = Fields::new(|_| Expression::Literal(Value::Null));
        for field in Field::ALL {
            fields.set(field.name(), &Value::from(field.name())).expect("the name is a field");
        }
        for field in Field::ALL {
            let found = fields.find(field, &Value::Null);
            assert_eq!(found.text().expect("a text").as_deref(), Some(field.name()));
        }
        let faults = fields.set("segment_user", &Value::Null).expect_err("no field has this name");
        assert_eq!(faults[0].to_string(), "segment_user is not a field of the action");
    }
}
