//! Mapping: a pure function from an event to a delta, or to the reason why there is none ([P9](crate::design::P9)).
//!
//! The fields, their defaults and the conversions are those of Segment's "LaunchDarkly Audiences" action; the
//! tests compare with its recorded behaviour (`tests/it/conformance.rs`). Where the action would guess, the
//! event is rejected with a reason instead ([P7](crate::design::P7)).
//!
//! # What always holds
//! * [`Mapping::map`] never panics, whatever JSON it is given.
//! * The same event, arrival and settings give the same outcome.
//! * A rejection names fields and paths, never a value of the event ([P8](crate::design::P8)).

mod audiences;
mod coercion;
mod context_key;
mod doubts;
mod event;
mod event_time;
mod explain;
mod expression;
mod fields;
mod glob;
mod length;
mod mappings;
mod membership_value;
mod message;
mod not_an_event;
mod plain;
mod preset;
mod rejection;
mod sender_clock;
mod subscription;

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

pub use audiences::{AudienceOverride, AudienceRules};
pub use context_key::ContextKeyRule;
pub use event::Event;
pub use event_time::Doubt;
pub use explain::{ExplainedField, ExplainedTime, Explanation, explain_time};
pub use expression::{MappingFault, stringified};
pub use glob::{Glob, GlobFault};
pub use mappings::{Mappings, Outcome, doubt_of, happened_at, name_message, user_id};
pub use membership_value::MembershipRule;
pub use rejection::{Reason, Rejection};
pub use sender_clock::{Clock, Corrected, corrected};
pub use subscription::{Subscription, SubscriptionFault};

use crate::membership::{
    AudienceId, AudienceKey, ContextKey, ContextKind, MembershipDelta, Timestamp, UserId,
};
use context_key::Identifiers;
use expression::Expression;
use fields::{Field, Fields};
use length::KEY_BYTES;
use membership_value::{ComputationClass, ValueRules};

/// In the hosted integration this undocumented field replaces the whole mapping. Other fields that the action
/// does not have may be ignored; this one must not be.
const TAKES_OVER: &str = "__segment_internal_directive";

/// One mapping, compiled once and used for every event.
#[derive(Clone, Debug)]
pub struct Mapping {
    subscription: Subscription,
    fields: Fields,
    audiences: AudienceRules,
    value_rules: ValueRules,
}

impl Mapping {
    /// The mapping of Segment's hosted integration as long as the customer changes nothing, with two
    /// differences: a membership value must be plain, and a journey step without a value is an entry.
    #[must_use]
    pub fn preset() -> Self {
        Self {
            subscription: preset::subscription(),
            fields: preset::fields(),
            audiences: AudienceRules::default(),
            value_rules: ValueRules {
                membership: MembershipRule::Strict,
                journey_step_without_value_enters: true,
            },
        }
    }

    /// The preset with the given fields of a customer's mapping, or every fault in them. Fields that the
    /// action does not have are ignored, as in the hosted integration.
    pub fn preset_with<'a>(
        fields: impl IntoIterator<Item = (&'a String, &'a Value)>,
    ) -> Result<Self, Vec<MappingFault>> {
        let mut mapping = Self::preset();
        let mut faults = Vec::new();
        for (field, json) in fields.into_iter().filter(|(name, _)| !Self::is_unknown(name)) {
            faults.extend(mapping.set_field(field, json).err().into_iter().flatten());
        }
        if faults.is_empty() { Ok(mapping) } else { Err(faults) }
    }

    /// The names of the fields that [`Mapping::set_field`] knows.
    pub fn field_names() -> impl Iterator<Item = &'static str> {
        Field::ALL.into_iter().map(Field::name)
    }

    /// Whether the action has no field of this name, so that it may be ignored: it may come from a newer
    /// version.
    #[must_use]
    pub fn is_unknown(name: &str) -> bool {
        name != TAKES_OVER && Self::field_names().all(|known| known != name)
    }

    /// Replaces the condition that selects the events to map.
    pub fn subscribe(&mut self, subscription: Subscription) {
        self.subscription = subscription;
    }

    /// Replaces the mapping of one field of the action with a plain value or a directive.
    pub fn set_field(&mut self, name: &str, json: &Value) -> Result<(), Vec<MappingFault>> {
        self.fields.set(name, json)
    }

    /// Replaces how a membership value is read. `journey_step_without_value_enters`: a journey step
    /// without a value counts as an entry.
    pub fn set_membership(
        &mut self,
        rule: MembershipRule,
        journey_step_without_value_enters: bool,
    ) {
        self.value_rules = ValueRules { membership: rule, journey_step_without_value_enters };
    }

    /// Replaces the rules that apply to some audiences only.
    pub fn set_audiences(&mut self, audiences: AudienceRules) {
        self.audiences = audiences;
    }

    /// The delta of an event that arrived at `arrival`; `None` if this mapping does not select the event.
    pub fn map<'a>(
        &self,
        event: impl Into<Event<'a>>,
        arrival: Timestamp,
    ) -> Result<Option<MembershipDelta>, Rejection> {
        let event = event.into();
        if self.subscription.selects(event.numbers) { self.delta(event, arrival) } else { Ok(None) }
    }

    /// [`Mapping::map`] for an event that the subscription is known to select: the subscription is not
    /// evaluated again.
    pub fn delta<'a>(
        &self,
        event: impl Into<Event<'a>>,
        arrival: Timestamp,
    ) -> Result<Option<MembershipDelta>, Rejection> {
        let whole: Event<'a> = event.into();
        let event = whole.texts;
        if !event.is_object() {
            return Err(not_an_object());
        }
        let class = self.computation_class(event)?;
        let find = |field| self.fields.find(field, event);
        let audience = find(Field::AudienceId).named(AudienceId::new)?;
        let audience_key = find(Field::AudienceKey).named(AudienceKey::new)?;
        if !self.audiences.admit(&audience_key) {
            return Ok(None);
        }
        let particular = self.audiences.override_of(&audience_key);
        let context_kind = find(Field::ContextKind).parsed(
            "letters, digits, dots, dashes or underscores, and neither kind nor multi",
            ContextKind::new,
        )?;
        self.check_unused(event)?;

        let (user_id, email, anonymous_id) =
            (find(Field::UserId), find(Field::Email), find(Field::AnonymousId));
        // All three are read whichever rule applies, so that a value of the wrong type is always reported.
        let identifiers = Identifiers {
            user_id: user_id.text()?,
            email: email.text()?,
            anonymous_id: anonymous_id.text()?,
        };
        let rule = find(Field::ContextKey)
            .parsed("the name of a context key rule", ContextKeyRule::from_name)?;
        let rule = particular.and_then(|particular| particular.context_key).unwrap_or(rule);
        let (field, context_key) = rule.choose(&identifiers).ok_or_else(|| no_context_key(rule))?;
        if context_key.len() > KEY_BYTES {
            return Err(find(field).too_long(KEY_BYTES));
        }
        if context_key::has_template_braces(context_key) {
            return Err(find(field).unrendered("people"));
        }
        let context_key = ContextKey::new(context_key).ok_or_else(|| no_context_key(rule))?;

        let values = find(Field::TraitsOrProps);
        let value = match values.object()? {
            Some(values) => values.get(audience_key.as_str()),
            None if self.value_rules.needs_none(class) => None,
            None => return Err(values.missing()),
        };
        let membership = self.value_rules.read(class, value)?;
        Ok(Some(MembershipDelta {
            audience,
            context_kind: particular
                .and_then(|particular| particular.context_kind.clone())
                .unwrap_or(context_kind),
            context_key,
            membership,
            event_at: mappings::happened_at(whole, arrival),
            user_id: person(event)?,
            key_rule: self.key_rule(rule, particular),
            message: None,
            audience_key,
        }))
    }

    /// Identifies how a context key was chosen; stored with each member. The number changes when anything
    /// changes that decides the key or its kind.
    fn key_rule(&self, rule: ContextKeyRule, particular: Option<&AudienceOverride>) -> u32 {
        let mut fingerprint = self.fields.fingerprint(rule.fields());
        if let Some(kind) = particular.and_then(|particular| particular.context_kind.as_ref()) {
            fingerprint ^= crc32fast::hash(kind.as_str().as_bytes());
        }
        fingerprint << 8 | u32::from(rule.number())
    }

    /// Every number that [`Mapping::key_rule`] can return for this audience.
    fn key_rules(&self, audience: &AudienceKey) -> Vec<u32> {
        if !self.audiences.admit(audience) {
            return Vec::new();
        }
        let particular = self.audiences.override_of(audience);
        let only = particular
            .and_then(|particular| particular.context_key)
            .or_else(|| self.fields.literal(Field::ContextKey).and_then(ContextKeyRule::from_name));
        let rules = only.map_or_else(|| ContextKeyRule::ALL.to_vec(), |only| vec![only]);
        rules.into_iter().map(|rule| self.key_rule(rule, particular)).collect()
    }

    /// Read before the other fields, so that ordinary traffic of a source is rejected as
    /// [`Reason::NotAnAudience`] and never as a fault of some field. If the customer maps the class from
    /// elsewhere, `context.personas` is not needed.
    fn computation_class(&self, event: &Value) -> Result<ComputationClass, Rejection> {
        let found = self.fields.find(Field::ComputationAction, event);
        match found.text()?.as_deref() {
            Some(name) => ComputationClass::from_name(name).ok_or_else(|| {
                let detail = "segment_computation_action is neither audience nor journey_step: \
                              narrow mapping.subscribe to events from audiences, or correct \
                              mapping.segment_computation_action.";
                Rejection::new(Reason::NotAnAudience, detail)
            }),
            None if event.pointer("/context/personas").is_some_and(Value::is_object) => {
                Err(found.missing())
            }
            None => Err(Rejection::new(
                Reason::NotAnAudience,
                "The event has no $.context.personas: it is not from an audience. Connect an audience to this \
                 destination in Segment, or narrow mapping.subscribe.",
            )),
        }
    }

    /// Checks fields that decide nothing here but, as in the hosted integration, must not be nonsense.
    fn check_unused(&self, event: &Value) -> Result<(), Rejection> {
        self.fields.find(Field::EnableBatching, event).boolean()?;
        let action = self.fields.find(Field::AudienceAction, event);
        match action.text()?.as_deref() {
            None | Some("ADD" | "REMOVE") => Ok(()),
            Some(_) => Err(action.invalid("ADD or REMOVE")),
        }
    }
}

/// Why a mapping yields nothing for a payload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransformError {
    /// The mapping itself is faulty, whatever the payload.
    #[error("the mapping is faulty")]
    Faulty(Vec<MappingFault>),
    /// A directive cannot be resolved for this payload. The sentence contains no values.
    #[error("{0}")]
    Failed(String),
}

/// Tries out a mapping of any shape, not only the fields of the action, on one payload: compiles it, resolves
/// it and drops it.
pub fn transform(mapping: &Value, payload: &Value) -> Result<Option<Value>, TransformError> {
    let compiled = Expression::compile(mapping, "$").map_err(TransformError::Faulty)?;
    let resolved = compiled.resolve(payload);
    resolved
        .map(|value| value.map(Cow::into_owned))
        .map_err(|unresolved| TransformError::Failed(unresolved.to_string()))
}

/// The user whose deletion deletes this member too. `None` for a group call, which describes an account,
/// whoever made it.
fn person(event: &Value) -> Result<Option<UserId>, Rejection> {
    let of_an_account = event.get("type").and_then(Value::as_str) == Some("group");
    if of_an_account {
        return Ok(None);
    }
    match user_id(event) {
        Some(user_id) if user_id.as_str().len() > KEY_BYTES => {
            Err(fields::too_long("userId", KEY_BYTES, "$.userId"))
        }
        user_id => Ok(user_id),
    }
}

/// A one-line summary for people.
impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, key) =
            (self.fields.shown(Field::ContextKind), self.fields.shown(Field::ContextKey));
        write!(f, "context kind {kind}, context key {key}, if {}", self.subscription)?;
        if self.value_rules.membership == MembershipRule::Reference {
            f.write_str("; membership by truthiness")?;
        }
        if !self.value_rules.journey_step_without_value_enters {
            f.write_str("; a journey step without a value is rejected")?;
        }
        Ok(())
    }
}

fn not_an_object() -> Rejection {
    Rejection::new(
        Reason::NotAnObject,
        "The event is not a JSON object: in Segment's mapping of the destination, let the data be the whole event \
         ($.).",
    )
}

fn no_context_key(rule: ContextKeyRule) -> Rejection {
    let (name, fields) = (rule.name(), rule.looks_at());
    let detail = format!(
        "The context key rule {name} found no identifier (looked at {fields}): map one of them, \
         or choose another rule with mapping.context_key."
    );
    Rejection::new(Reason::NoContextKey, detail)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::membership::{Deletion, Membership};

    const ARRIVAL: Timestamp = Timestamp(1_741_850_595_000_000);

    fn mapping() -> Mapping {
        Mapping::preset()
    }

    fn outcome(mapping: Mapping, event: &Value) -> Outcome {
        Mappings::from(mapping).map(event, ARRIVAL)
    }

    /// An event that can be mapped, with the values at some JSON pointers replaced.
    fn event(changes: &[(&str, Value)]) -> Value {
        let mut event = json!({
            "type": "identify",
            "userId": "ada",
            "anonymousId": "anon-1",
            "timestamp": "2025-03-13T07:23:14Z",
            "traits": {"vip": true, "email": "ada@example.com"},
            "properties": null,
            "context": {"personas": {
                "computation_class": "audience", "computation_id": "aud_1", "computation_key": "vip",
            }},
        });
        for (pointer, value) in changes {
            *event.pointer_mut(pointer).expect("a pointer into the sample") = value.clone();
        }
        event
    }

    #[test]
    fn an_event_becomes_a_delta() {
        let expected = MembershipDelta {
            audience: AudienceId::new("aud_1").expect("not empty"),
            audience_key: AudienceKey::new("vip").expect("not empty"),
            context_kind: ContextKind::new("user").expect("a plain kind"),
            context_key: ContextKey::new("ada").expect("not empty"),
            membership: Membership::In,
            event_at: Timestamp(ARRIVAL.0 - 1_000_000),
            user_id: UserId::new("ada"),
            key_rule: 1,
            message: None,
        };
        let expected = Outcome::Accepted { deltas: vec![expected], rejection: None };
        assert_eq!(outcome(mapping(), &event(&[])), expected);
    }

    fn deleted(outcome: Outcome) -> Deletion {
        let Outcome::Deletion(deletion) = outcome else { panic!("no deletion: {outcome:?}") };
        deletion
    }

    #[test]
    fn a_deletion_counts_when_it_was_asked_for_and_never_later_than_its_arrival() {
        let rows = [
            (json!("2025-03-13T07:23:05Z"), -10),
            (json!("2025-03-13T07:23:16Z"), 0),
            (json!("2025-03-13T09:23:15Z"), 0),
            (json!("1970-01-01T00:00:00Z"), 0),
            (json!(null), 0),
        ];
        for (timestamp, seconds) in rows {
            let event = json!({"type": "delete", "userId": "ada", "timestamp": timestamp});
            let deletion = deleted(outcome(mapping(), &event));
            assert_eq!(deletion.event_at, Timestamp(ARRIVAL.0 + seconds * 1_000_000), "{event}");
        }
    }

    #[test]
    fn a_message_is_named_where_its_time_depends_on_its_arrival() {
        let message = |event: &Value| match outcome(mapping(), event) {
            Outcome::Accepted { deltas, .. } => deltas[0].message,
            other => panic!("it maps: {other:?}"),
        };
        let named = |event: &Value, id: &'static str, moves: bool| {
            let delta = mapping().map(event, ARRIVAL).expect("it maps").expect("it is selected");
            Some(message::Named { id: id.into(), moves }.saying(&delta))
        };
        let without = event(&[("/timestamp", Value::Null)]);
        assert_eq!(message(&event(&[])), None);
        assert_eq!(message(&without), None, "said twice, it may be meant twice");
        let mut with_id = without.clone();
        with_id["messageId"] = json!("m");
        assert_eq!(message(&with_id), named(&with_id, "m", true));
        with_id["messageId"] = json!(12345);
        assert_eq!(message(&with_id), named(&with_id, "12345", true));
        let mut recent = event(&[]);
        recent["messageId"] = json!("m");
        let expected = named(&recent, "m", false);
        assert_eq!(message(&recent), expected, "it may have been ahead when it came before");
        let unnamed = json!({"type": "delete", "userId": "ada"});
        let named = deleted(outcome(mapping(), &unnamed)).message;
        assert_eq!(named, Some(message::hash_of_deletion(&unnamed)));
        let delete = json!({"type": "delete", "userId": "ada", "messageId": "m"});
        let deletion = deleted(outcome(mapping(), &delete));
        assert_eq!(deletion.message, Some(message::hash_of_deletion(&delete)));
    }

    #[test]
    fn deletions_come_before_the_subscription_and_only_other_calls_of_segments_are_ignored() {
        for (id, expected) in [(json!("ada"), "ada"), (json!(7), "7")] {
            let event = json!({"type": "delete", "userId": id});
            let deletion = deleted(outcome(mapping(), &event));
            assert_eq!(deletion.user_id.as_str(), expected, "{event}");
        }
        for kind in ["group", "page", "screen", "alias"] {
            let event = event(&[("/type", json!(kind))]);
            assert_eq!(outcome(mapping(), &event), Outcome::Ignored, "{event}");
        }
        let no_events =
            [event(&[("/type", json!("Identify"))]), event(&[("/type", json!(null))]), json!({})];
        for event in no_events {
            let Outcome::Rejected(rejection) = outcome(mapping(), &event) else {
                panic!("it is none: {event}")
            };
            assert_eq!(rejection.reason, Reason::NotAnEvent, "{event}");
            let mut own = mapping();
            own.subscribe(Subscription::parse("type != \"track\"").expect("a statement"));
            let Outcome::Rejected(rejection) = outcome(own, &event) else { continue };
            assert_ne!(rejection.reason, Reason::NotAnEvent, "the operator selects it: {event}");
        }
    }

    #[test]
    fn the_subscription_decides_whatever_the_type() {
        let mut mapping = mapping();
        let statement = r#"type = "group" or match(event, "Audience *")"#;
        mapping.subscribe(Subscription::parse(statement).expect("a statement"));
        let group = event(&[("/type", json!("group"))]);
        assert!(matches!(outcome(mapping.clone(), &group), Outcome::Accepted { .. }));
        assert_eq!(outcome(mapping.clone(), &event(&[])), Outcome::Ignored);
        let deletion = json!({"type": "delete", "userId": "ada"});
        assert!(matches!(outcome(mapping, &deletion), Outcome::Deletion(_)));
    }

    #[test]
    fn track_is_read_from_properties() {
        let left = event(&[("/type", json!("track")), ("/properties", json!({"vip": false}))]);
        let delta = mapping().delta(&left, ARRIVAL).expect("it maps").expect("it is selected");
        assert_eq!(delta.membership, Membership::Out);
    }

    #[test]
    fn a_journey_step_that_says_nothing_but_whose_it_is_enters() {
        let journey = |class: &str| {
            let class = ("/context/personas/computation_class", json!(class));
            let mut event = event(&[class, ("/traits", Value::Null)]);
            event.as_object_mut().expect("an object").retain(|key, _| key != "properties");
            event
        };
        let step = journey("journey_step");
        let delta = mapping().map(&step, ARRIVAL).expect("it maps").expect("it is selected");
        assert_eq!(delta.membership, Membership::In);
        let mut rejecting = mapping();
        rejecting.set_membership(MembershipRule::Strict, false);
        for (mapping, event) in [(rejecting, step), (mapping(), journey("audience"))] {
            let rejection = mapping.map(&event, ARRIVAL).expect_err("there is no value");
            assert_eq!(rejection.reason, Reason::MissingField);
        }
    }

    #[test]
    fn an_audience_is_not_known_by_the_braces_of_a_template() {
        let rows = [
            ("id", "{{context.personas.computation_id}"),
            ("key", "{context.personas.computation_key}}"),
        ];
        for (part, text) in rows {
            let pointer = format!("/context/personas/computation_{part}");
            let event = event(&[(pointer.as_str(), json!(text))]);
            let Outcome::Rejected(rejection) = outcome(mapping(), &event) else {
                panic!("it is one audience for many");
            };
            let expected = format!(
                "invalid_field: segment_audience_{part} still has the braces of a template, {{{{ \
                 or }}}}, which would merge many audiences into one \
                 ($.context.personas.computation_{part}): correct \
                 mapping.segment_audience_{part}, or the value that is sent there."
            );
            assert_eq!(rejection.to_string(), expected);
        }
    }

    #[test]
    fn every_rejection_has_its_word_and_sentence() {
        let personas = "/context/personas";
        let class = "/context/personas/computation_class";
        let id = "/context/personas/computation_id";
        let key = "/context/personas/computation_key";
        let rows = [
            (
                json!([]),
                "not_an_object: The event is not a JSON object: in Segment's mapping of the destination, let the data be the whole event ($.).",
            ),
            (
                json!({"type": "identify"}),
                "not_an_audience: The event has no $.context.personas: it is not from an audience. Connect an audience to this destination in Segment, or narrow mapping.subscribe.",
            ),
            (
                event(&[(personas, json!(null))]),
                "not_an_audience: The event has no $.context.personas: it is not from an audience. Connect an audience to this destination in Segment, or narrow mapping.subscribe.",
            ),
            (
                event(&[("/context", json!([]))]),
                "not_an_audience: The event has no $.context.personas: it is not from an audience. Connect an audience to this destination in Segment, or narrow mapping.subscribe.",
            ),
            (
                event(&[(class, json!("trait"))]),
                "not_an_audience: segment_computation_action is neither audience nor journey_step: narrow mapping.subscribe to events from audiences, or correct mapping.segment_computation_action.",
            ),
            (
                event(&[(class, json!("Audience"))]),
                "not_an_audience: segment_computation_action is neither audience nor journey_step: narrow mapping.subscribe to events from audiences, or correct mapping.segment_computation_action.",
            ),
            (
                event(&[(class, json!(""))]),
                "missing_field: segment_computation_action is required and has no value ($.context.personas.computation_class): correct mapping.segment_computation_action, or the value that is sent there.",
            ),
            (
                event(&[(class, json!({}))]),
                "invalid_field: segment_computation_action must be a string but it is an object ($.context.personas.computation_class): correct mapping.segment_computation_action, or the value that is sent there.",
            ),
            (
                event(&[(personas, json!({}))]),
                "missing_field: segment_computation_action is required and has no value ($.context.personas.computation_class): correct mapping.segment_computation_action, or the value that is sent there.",
            ),
            (
                event(&[(id, json!(""))]),
                "missing_field: segment_audience_id is required and has no value ($.context.personas.computation_id): correct mapping.segment_audience_id, or the value that is sent there.",
            ),
            (
                event(&[(key, json!(null))]),
                "missing_field: segment_audience_key is required and has no value ($.context.personas.computation_key): correct mapping.segment_audience_key, or the value that is sent there.",
            ),
            (
                event(&[("/userId", json!({"id": "ada"}))]),
                "invalid_field: segment_user_id must be a string but it is an object ($.userId): correct mapping.segment_user_id, or the value that is sent there.",
            ),
            (
                event(&[("/anonymousId", json!([]))]),
                "invalid_field: segment_anonymous_id must be a string but it is a list ($.anonymousId): correct mapping.segment_anonymous_id, or the value that is sent there.",
            ),
            (
                event(&[("/traits/email", json!({}))]),
                "invalid_field: user_email must be a string but it is an object ($.traits.email, else $.context.traits.email): correct mapping.user_email, or the value that is sent there.",
            ),
            (
                event(&[("/traits", json!(null))]),
                "missing_field: traits_or_props is required and has no value ($.properties, else $.traits): correct mapping.traits_or_props, or the value that is sent there.",
            ),
            (
                event(&[("/traits", json!("ada"))]),
                "invalid_field: traits_or_props must be an object but it is a string ($.properties, else $.traits): correct mapping.traits_or_props, or the value that is sent there.",
            ),
            (
                event(&[("/userId", json!(""))]),
                "no_context_key: The context key rule user_id_only found no identifier (looked at segment_user_id): map one of them, or choose another rule with mapping.context_key.",
            ),
            (
                event(&[("/traits/vip", json!(1))]),
                "membership_unknown: The value under the audience's key in traits_or_props is a number, and neither true nor false: correct mapping.traits_or_props, or set mapping.membership to \"reference\".",
            ),
            (
                event(&[("/traits", json!({}))]),
                "membership_unknown: There is no value under the audience's key in traits_or_props: correct mapping.traits_or_props, or set mapping.membership to \"reference\".",
            ),
            (
                event(&[(key, json!("constructor"))]),
                "membership_unknown: There is no value under the audience's key in traits_or_props: correct mapping.traits_or_props, or set mapping.membership to \"reference\".",
            ),
            (
                json!({"type": "delete"}),
                "missing_field: userId is required and has no value ($.userId): a deletion names the person there, whatever the mapping says.",
            ),
            (
                json!({"type": "delete", "userId": {}}),
                "invalid_field: userId must be a string but it is an object ($.userId): a deletion names the person there, whatever the mapping says.",
            ),
        ];
        for (event, expected) in rows {
            match outcome(mapping(), &event) {
                Outcome::Rejected(rejection) => assert_eq!(rejection.to_string(), expected),
                other => panic!("{event} gave {other:?}, expected {expected}"),
            }
        }
    }

    #[test]
    fn overrides_that_do_not_fit_reject_every_event() {
        let rows = [
            (
                "context_kind",
                json!("multi"),
                "invalid_field: context_kind must be letters, digits, dots, dashes or \
                 underscores, and neither kind nor multi (the value in the mapping): correct \
                 mapping.context_kind, or the value that is sent there.",
            ),
            (
                "context_kind",
                json!(null),
                "missing_field: context_kind is required and has no value (the value in the \
                 mapping): correct mapping.context_kind, or the value that is sent there.",
            ),
            (
                "context_key",
                json!("USER_ID_ONLY"),
                "invalid_field: context_key must be the name of a context key rule (the value in \
                 the mapping): correct mapping.context_key, or the value that is sent there.",
            ),
            (
                "enable_batching",
                json!("yes"),
                "invalid_field: enable_batching must be a boolean but it is a string (the value \
                 in the mapping): correct mapping.enable_batching, or the value that is sent \
                 there.",
            ),
            (
                "audience_action",
                json!("add"),
                "invalid_field: audience_action must be ADD or REMOVE (the value in the mapping): \
                 correct mapping.audience_action, or the value that is sent there.",
            ),
        ];
        for (field, value, expected) in rows {
            let mut mapping = mapping();
            mapping.set_field(field, &value).expect("a plain value compiles");
            let rejection = mapping.delta(&event(&[]), ARRIVAL).expect_err("it cannot map");
            assert_eq!(rejection.to_string(), expected, "{field}");
        }
    }

    /// The unrendered text is the same for everybody, so that all of them would become one member.
    #[test]
    fn a_key_that_still_has_the_braces_of_a_template_is_rejected() {
        let template = |text: &str| {
            let mut mapping = mapping();
            let template = json!({"@template": text});
            mapping.set_field("segment_user_id", &template).expect("a template");
            mapping
        };
        let braces =
            "still has the braces of a template, {{ or }}, which would merge many people into one";
        let rows = [
            (template("{{traits.vip}"), "ada", Some(("segment_user_id", "@template"))),
            (template("{traits.vip}}"), "ada", Some(("segment_user_id", "@template"))),
            (
                template("{{}}-{{userId}}"),
                "ada",
                Some(("segment_user_id", "@template of $.userId")),
            ),
            (template("{{userId}}"), "ada", None),
            (template("{{{userId}}}"), "{7}", None),
            (mapping(), "{{user_id}}", Some(("segment_user_id", "$.userId"))),
            (mapping(), "ada}}", Some(("segment_user_id", "$.userId"))),
            (mapping(), "{3F2504E0-4F89-11D3-9A0C-0305E82C3301}", None),
        ];
        for (mapping, user_id, place) in rows {
            let event = event(&[("/userId", json!(user_id))]);
            let said = mapping.delta(&event, ARRIVAL).err().map(|rejection| rejection.to_string());
            let expected = place.map(|(field, from)| {
                format!(
                    "invalid_field: {field} {braces} ({from}): correct mapping.{field}, or the \
                     value that is sent there."
                )
            });
            assert_eq!(said, expected, "{mapping} of {user_id}");
            let plain = Mappings::from(mapping).map_plain(event.to_string().as_bytes(), ARRIVAL);
            assert!(plain.is_none() || expected.is_none(), "{user_id}");
        }
    }

    #[test]
    fn fields_that_the_action_does_not_have_say_nothing() {
        let fields = |json: Value| match json {
            Value::Object(fields) => fields,
            _ => panic!("fields are an object"),
        };
        let newer = fields(json!({"segment_external_id": {"@newer": 1}, "context_kind": "device"}));
        let mapping = Mapping::preset_with(&newer).expect("it is not looked at");
        assert!(mapping.to_string().starts_with("context kind device, "), "{mapping}");
        // In the hosted integration this field would replace the whole mapping.
        let internal = fields(json!({"__segment_internal_directive": {"@transform": {}}}));
        let faults = Mapping::preset_with(&internal).expect_err("it is not left out");
        let expected = "__segment_internal_directive is not a field of the action";
        assert_eq!(faults[0].to_string(), expected);
    }

    /// The class may come from elsewhere; then an event without `context.personas` can map.
    #[test]
    fn nothing_of_segment_s_is_needed_where_the_mapping_says_all() {
        let mut mapping = mapping();
        for (field, value) in [
            ("segment_computation_action", json!("audience")),
            ("segment_audience_id", json!("aud_fixed")),
            ("segment_audience_key", json!("plan")),
            ("traits_or_props", json!({"plan": {"@path": "$.traits.paying"}})),
        ] {
            mapping.set_field(field, &value).expect("all of these compile");
        }
        let event = json!({"userId": "ada", "traits": {"paying": false}});
        let delta = mapping.delta(&event, ARRIVAL).expect("it maps").expect("it is selected");
        assert_eq!((delta.audience.as_str(), delta.membership), ("aud_fixed", Membership::Out));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let key = prop_oneof![
            4 => proptest::sample::select(vec![
                "type", "userId", "anonymousId", "traits", "properties", "context", "personas",
                "email", "computation_class", "computation_id", "computation_key", "vip",
                "timestamp", "receivedAt",
            ]).prop_map(str::to_owned),
            1 => any::<String>(),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            proptest::sample::select(vec!["identify", "delete", "audience", "vip", "true"])
                .prop_map(Value::from),
            "[+-]?[0-9]{4,6}-[0-9]{2}-[0-9]{2}T[0-9:.]{0,20}[Z+-]?[0-9:]{0,8}"
                .prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map(key.clone(), inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(crate::seeds::kept_in("tests/seeds/map.txt"))]

        #[test]
        fn mapping_never_panics(event in any_json(), arrival in any::<i64>()) {
            let first = mapping().map(&event, Timestamp(arrival));
            prop_assert_eq!(mapping().map(&event, Timestamp(arrival)), first);
        }

        /// Close to a valid event, to reach the deeper code.
        #[test]
        fn mapping_never_panics_on_almost_good_events(
            at in proptest::sample::select(vec![
                "/userId", "/traits", "/traits/vip", "/traits/email", "/properties", "/timestamp",
                "/context", "/context/personas", "/context/personas/computation_class",
                "/context/personas/computation_id", "/context/personas/computation_key",
            ]),
            value in any_json(),
        ) {
            let event = event(&[(at, value)]);
            prop_assert_eq!(mapping().map(&event, ARRIVAL), mapping().map(&event, ARRIVAL));
        }
    }
}
