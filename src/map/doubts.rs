//! Warnings about fields of a mapping that surely do not do what was meant.
//!
//! Such a mapping is accepted; whoever checks the configuration is warned. A field that is a constant, or the
//! whole event, is tried on a sample event that the preset maps.

use serde_json::{Value, json};

use super::expression::{Expression, MappingFault};
use super::fields::Field;
use super::rejection::Reason;
use super::{ContextKeyRule, Mapping};
use crate::membership::Timestamp;

impl Mapping {
    /// Warnings about a field that [`Mapping::set_field`] accepts, each with its path.
    #[must_use]
    pub fn doubts(name: &str, json: &Value) -> Vec<MappingFault> {
        let mut doubts = Expression::doubts(json, name);
        let field = Field::ALL.into_iter().find(|field| field.name() == name);
        let expression = Expression::compile(json, name);
        if let (Some(field), Ok(expression)) = (field, expression)
            && (!expression.reads_event() || expression.is_whole_event())
        {
            doubts.extend(
                of_constant(field, json, !expression.reads_event())
                    .map(|problem| MappingFault { path: name.to_owned(), problem }),
            );
        }
        doubts
    }

    /// A warning about the fields together: no identifier that the context key rule needs can ever have a
    /// value.
    #[must_use]
    pub fn doubt(&self) -> Option<MappingFault> {
        let rule = ContextKeyRule::from_name(self.fields.literal(Field::ContextKey)?)?;
        let mut identifiers = rule.fields().iter().filter(|field| **field != Field::ContextKind);
        identifiers.all(|field| self.fields.is_nothing(*field)).then(|| MappingFault {
            path: Field::ContextKey.name().to_owned(),
            problem: format!(
                "is {}, but there is never a value in {}: no context key can be found, and every \
                 event is rejected",
                rule.name(),
                rule.looks_at()
            ),
        })
    }
}

/// The warning about a field that is the same for every event (`is_constant`) or that is the whole event.
fn of_constant(field: Field, json: &Value, is_constant: bool) -> Option<String> {
    let mut mapping = Mapping::preset();
    mapping.set_field(field.name(), json).ok()?;
    let rule = match field {
        Field::Email => ContextKeyRule::EmailOnly,
        Field::AnonymousId => ContextKeyRule::UserIdThenAnonymousId,
        _ => ContextKeyRule::UserIdOnly,
    };
    if field != Field::ContextKey {
        mapping.set_field(Field::ContextKey.name(), &rule.name().into()).ok()?;
    }
    let mut event = sample();
    if field == Field::AnonymousId {
        event["userId"] = Value::Null;
    }
    let alone = match field {
        Field::UserId | Field::Email | Field::AnonymousId => Some(
            "does not depend on the event: everybody whose context key comes from it becomes the \
             same member",
        ),
        Field::AudienceId => Some(
            "does not depend on the event: all audiences become one segment, and whoever leaves \
             one of them leaves it",
        ),
        Field::AudienceKey => Some(
            "does not depend on the event: all audiences get the same name and read their value \
             from the same place",
        ),
        Field::TraitsOrProps => {
            Some("does not depend on the event: everybody enters, or everybody leaves")
        }
        _ => None,
    };
    let alone = alone.filter(|_| is_constant);
    match mapping.delta(&event, Timestamp::EPOCH) {
        Ok(_) => alone.map(str::to_owned),
        Err(rejection) => match rejection.reason {
            Reason::MembershipUnknown
                if matches!(field, Field::TraitsOrProps | Field::AudienceKey) =>
            {
                alone.map(str::to_owned)
            }
            // Naming nobody may be intended, where another field names them.
            Reason::NoContextKey | Reason::MembershipUnknown => None,
            _ => Some(format!("rejects every event: {}", rejection.detail)),
        },
    }
}

/// An event that the preset can map.
fn sample() -> Value {
    json!({
        "type": "identify", "userId": "u", "anonymousId": "a", "traits": {"k": true, "email": "e"},
        "context": {"personas": {
            "computation_class": "audience", "computation_id": "i", "computation_key": "k",
        }},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All warnings about a field, in one line.
    fn said(field: &str, json: &Value) -> String {
        let mut mapping = Mapping::preset();
        mapping.set_field(field, json).expect("it can be compiled");
        let doubts: Vec<String> =
            Mapping::doubts(field, json).iter().map(ToString::to_string).collect();
        doubts.join("; ")
    }

    #[test]
    fn what_is_surely_not_meant_is_told_by_its_place() {
        const PAIR: &str = "segment_user_id.@template has unbalanced braces: a placeholder is \
                            {{path}} or {{{path}}}";
        const ONE: &str = "segment_user_id does not depend on the event: everybody whose context \
                           key comes from it becomes the same member";
        const LEFT: &str = "segment_user_id rejects every event: segment_user_id still has the \
                            braces of a template, {{ or }}, which would merge many people into \
                            one (@template): correct mapping.segment_user_id, or the value that is \
                            sent there.";
        const BRACES: &str = "segment_user_id.@path has braces, which count as part of the key \
                              here: write the path alone, or as {{path}} in a @template";
        let path = || json!({"@path": "$.userId"});
        #[rustfmt::skip]
        let rows = [
            (json!({"@template": "{{traits.crm_id}"}), format!("{PAIR}; {LEFT}")),
            (json!({"@template": "{traits.crm_id}}"}), format!("{PAIR}; {LEFT}")),
            (json!({"@template": "{{{traits.crm_id}}"}), PAIR.to_owned()),
            (json!({"@template": "{{traits.crm_id}}}"}), PAIR.to_owned()),
            (json!({"@template": "{{}}{{userId}}"}), PAIR.to_owned()),
            (json!({"@template": "{traits.crm_id}"}), format!("segment_user_id.@template has no placeholder, which is {{{{path}}}} or {{{{{{path}}}}}}; {ONE}")),
            (json!({"@template": "{{ }}"}), "segment_user_id.@template has an empty placeholder, which is the whole event and not a string".to_owned()),
            (json!({"@template": "{{$.userId}}"}), "segment_user_id.@template has a placeholder that begins with $, which never finds anything: only a @path may begin with $".to_owned()),
            (json!({"@liquid": "{{ userId | upcas }}"}), "segment_user_id.@liquid at line 1, column 1: there is no filter upcas, and the value stays as it is; did you mean upcase?".to_owned()),
            (json!({"@liquid": "crm"}), ONE.to_owned()),
            (json!({"@liquid": "{{ 'a' | upcase }}"}), ONE.to_owned()),
            (json!({"@liquid": "{% if true %}{% assign a = 1 %}{% capture b %}b{% endcapture %}a{% endif %}"}), ONE.to_owned()),
            (json!({"@path": "$."}), "segment_user_id rejects every event: segment_user_id must \
                                      be a string but it is an object (the whole event): correct \
                                      mapping.segment_user_id, or the value that is sent there.".to_owned()),
            (json!({"@case": {"operator": "uper", "value": path()}}), "segment_user_id.@case.operator must be lower or upper: any other string is an error".to_owned()),
            (json!({"@case": {"operator": "upper"}}), "segment_user_id.@case has no value, so the result is empty".to_owned()),
            (json!({"@path": "{{traits.crm_id}}"}), BRACES.to_owned()),
            (json!({"@path": "$"}), "segment_user_id.@path looks for a key named $: the event itself is $. with the dot".to_owned()),
            (json!({"@path": "$.traits.*"}), "segment_user_id.@path looks for a key named *: a path has no wildcards".to_owned()),
            (json!("traits.crm_id"), ONE.to_owned()),
            (json!("$.traits.crm_id"), format!("segment_user_id looks like a path but is taken literally: put it into a @path; {ONE}")),
            (json!("{{traits.crm_id}}"), "segment_user_id has placeholders but is not a \
                                          @template, so they stay as they are; segment_user_id \
                                          rejects every event: segment_user_id still has the \
                                          braces of a template, {{ or }}, which would merge \
                                          many people into one (the value in the mapping): correct \
                                          mapping.segment_user_id, or the value that is sent \
                                          there.".to_owned()),
            (json!({"@if": {"exists": "traits.vip", "then": path()}}), "segment_user_id.@if.exists is not a directive, so it is the same for every event".to_owned()),
            (json!({"@if": {"exists": path(), "then": "a", "else": "b"}}), ONE.to_owned()),
            (json!({"@if": {"exists": path(), "blank": path(), "then": path(), "els": path()}}), "segment_user_id.@if.els is not an option of this directive; did you mean else?; segment_user_id.@if.blank is ignored because exists is set".to_owned()),
            (json!({"@replace": {"value": path(), "pattern": "a", "pattern2": 5}}), "segment_user_id.@replace.pattern2 is not a string, and is ignored".to_owned()),
            (json!({"@replace": {"value": path(), "pattern": "a", "replacement2": "b"}}), "segment_user_id.@replace.replacement2 has no effect without pattern2".to_owned()),
            (json!({"@json": {"mode": "encode", "value": {"@merge": {"direction": "Right", "objects": []}}}}), "segment_user_id.@json.value.@merge.direction is neither left nor right, and counts as right".to_owned()),
            (json!({"@json": {"mode": "encode", "value": {"@flatten": {"separator": ".", "value": {"@arrayPath": ["$.*", 5]}, "omitArrays": "false"}}}}), "segment_user_id.@json.value.@flatten.value.@arrayPath.0 looks for a key named *: a path has no wildcards; segment_user_id.@json.value.@flatten.value.@arrayPath.1 is not an object, so the items stay as they are; segment_user_id.@json.value.@flatten.omitArrays is not true or false: JavaScript truthiness decides".to_owned()),
        ];
        for (json, expected) in rows {
            assert_eq!(said("segment_user_id", &json), expected, "{json}");
        }
    }

    #[test]
    fn a_field_that_rejects_every_event_is_told_why() {
        let rows = [
            (
                "traits_or_props",
                json!("traits"),
                "traits_or_props must be an object but it is a string",
            ),
            (
                "enable_batching",
                json!("yes"),
                "enable_batching must be a boolean but it is a string",
            ),
            ("audience_action", json!("add"), "audience_action must be ADD or REMOVE"),
            ("segment_computation_action", json!("trait"), "neither audience nor journey_step"),
            ("segment_audience_id", json!(""), "segment_audience_id is required and has no value"),
            ("context_kind", json!(["a", "b"]), "context_kind must be a string but it is a list"),
            ("segment_audience_id", json!({"@path": "$."}), "must be a string but it is an object"),
            (
                "segment_audience_id",
                json!({"@template": "{context.personas.computation_id}}"}),
                "still has the braces of a template, {{ or }}, which would merge many audiences into one",
            ),
            ("segment_audience_key", json!("{{key}}"), "still has the braces of a template"),
        ];
        for (field, json, expected) in rows {
            let said = said(field, &json);
            assert!(said.contains(&format!("{field} rejects every event: ")), "{field}: {said}");
            assert!(said.contains(expected), "{field}: {said}");
        }
        let fixed = said("traits_or_props", &json!({"vip": true}));
        assert!(fixed.ends_with("everybody enters, or everybody leaves"), "{fixed}");
        for constant in
            [json!("vip"), json!({"@liquid": "{{ 'vip' }}"}), json!({"@template": "vip"})]
        {
            let id = said("segment_audience_id", &constant);
            assert!(id.contains("all audiences become one segment"), "{constant}: {id}");
            let key = said("segment_audience_key", &constant);
            assert!(key.contains("all audiences get the same name"), "{constant}: {key}");
        }
    }

    #[test]
    fn that_nobody_can_be_named_is_told_where_the_rule_is_known() {
        let nothing = || json!({"@liquid": "{% assign a = 1 %}"});
        let path = || json!({"@path": "$.userId"});
        #[rustfmt::skip]
        let rows = [
            ("user_id_only", json!(""), path(), path(), Some("segment_user_id")),
            ("user_id_only", Value::Null, path(), path(), Some("segment_user_id")),
            ("user_id_only", nothing(), path(), path(), Some("segment_user_id")),
            ("user_id_only", path(), json!(""), json!(""), None),
            ("email_only", json!(""), path(), path(), None),
            ("email_only", path(), Value::Null, path(), Some("user_email")),
            ("user_id_then_anonymousId", json!(""), Value::Null, path(), None),
            ("user_id_then_anonymousId", json!(""), path(), json!(""), Some("segment_user_id, segment_anonymous_id")),
        ];
        for (rule, user_id, email, anonymous_id, expected) in rows {
            let mut mapping = Mapping::preset();
            let fields = [
                ("context_key", rule.into()),
                ("segment_user_id", user_id),
                ("user_email", email),
                ("segment_anonymous_id", anonymous_id),
            ];
            for (name, json) in &fields {
                mapping.set_field(name, json).expect("a field of the action");
            }
            let told = mapping.doubt().map(|doubt| doubt.to_string());
            let expected = expected.map(|fields| format!(
                "context_key is {rule}, but there is never a value in {fields}: no context key can be found, and every event is rejected"
            ));
            assert_eq!(told, expected, "{fields:?}");
        }
        assert_eq!(Mapping::preset().doubt(), None);
    }

    /// If warnings are often wrong, nobody reads them.
    #[test]
    fn what_may_be_meant_is_not_doubted() {
        let rows = [
            ("segment_user_id", json!({"@path": "traits.crm_id"})),
            ("segment_user_id", json!({"@path": "$.traits['first name'].k[x]"})),
            ("segment_user_id", json!({"@template": "crm-{{{traits.crm_id}}}-{{ userId }}"})),
            ("segment_user_id", json!({"@template": r#"{"id":{"of":"{{userId}}"}}"#})),
            ("segment_user_id", json!({"@literal": {"@path": "$.userId"}})),
            (
                "segment_user_id",
                json!({"@liquid": "{% if userId %}{{ userId | downcase }}{% endif %}"}),
            ),
            (
                "user_email",
                json!({"@if": {"blank": {"@path": "$.traits.email"}, "then": {"@path": "$.traits.email"}, "else": "none@example.com"}}),
            ),
            (
                "user_email",
                json!({"@replace": {"value": {"@path": "$.traits.email"}, "pattern": "{{", "replacement": "$.", "pattern2": "}}", "replacement2": null}}),
            ),
            ("segment_anonymous_id", json!("")),
            ("segment_anonymous_id", Value::Null),
            ("segment_user_id", json!("")),
            ("segment_audience_id", json!({"@template": "eu_{{context.personas.computation_id}}"})),
            ("segment_computation_action", json!("audience")),
            ("context_kind", json!("device")),
            ("context_key", json!("email_only")),
            ("traits_or_props", json!({"vip": {"@path": "$.traits.paying"}})),
            ("traits_or_props", json!({"@path": "$."})),
            ("enable_batching", json!("true")),
            ("audience_action", json!("ADD")),
        ];
        for (field, json) in rows {
            assert_eq!(said(field, &json), "", "{field}: {json}");
        }
    }
}
