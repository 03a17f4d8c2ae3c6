//! Reads "entered" or "left" from the value that an event has under the audience's key.
//!
//! Segment's hosted integration applies JavaScript truthiness to any value, so that a missing value removes
//! and the text `"false"` adds. A flag in production should not depend on a guess: here only a plain value
//! counts, unless the operator asks for the old behaviour. A journey triggered by an event sends no value: it
//! can only be entered, and Segment's own code treats its steps as entries.

use serde_json::Value;

use super::coercion;
use super::rejection::{Reason, Rejection};
use crate::membership::Membership;

/// How a membership value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MembershipRule {
    /// `true`, `false` and their texts; anything else is rejected.
    Strict,
    /// JavaScript truthiness, as in Segment's hosted integration; a missing value removes.
    Reference,
}

/// The kind of computation that an event reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ComputationClass {
    /// `audience`
    Audience,
    /// `journey_step`: journeys triggered by an event report no value.
    JourneyStep,
}

impl ComputationClass {
    /// The two classes that are memberships, spelled exactly like this.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "audience" => Some(Self::Audience),
            "journey_step" => Some(Self::JourneyStep),
            _ => None,
        }
    }
}

/// A destination's two rules about membership values.
#[derive(Clone, Copy, Debug)]
pub(super) struct ValueRules {
    pub(super) membership: MembershipRule,
    /// A journey step without a value (or with null) counts as an entry, under either rule.
    pub(super) journey_step_without_value_enters: bool,
}

impl ValueRules {
    /// Whether an event of this class is valid without a value.
    pub(super) fn needs_none(self, class: ComputationClass) -> bool {
        class == ComputationClass::JourneyStep && self.journey_step_without_value_enters
    }

    /// Entered or left; `None` and null are both "no value".
    pub(super) fn read(
        self,
        class: ComputationClass,
        value: Option<&Value>,
    ) -> Result<Membership, Rejection> {
        let value = value.filter(|value| !value.is_null());
        match (value, self.membership) {
            (None, _) if self.needs_none(class) => Ok(Membership::In),
            (value, MembershipRule::Reference) => {
                Ok(Membership::from_bool(value.is_some_and(truthy)))
            }
            (Some(value), MembershipRule::Strict) => plain(value).ok_or_else(|| {
                let kind = coercion::kind(value);
                unknown(format!(
                    "The value under the audience's key in traits_or_props is {kind}, and neither true nor \
                     false: correct mapping.traits_or_props, or set mapping.membership to \"reference\"."
                ))
            }),
            (None, MembershipRule::Strict) if class == ComputationClass::JourneyStep => Err(unknown(
                "There is no value under the audience's key in traits_or_props: for a journey step, \
                 mapping.journey_step_without_value = \"enter\" takes it as an entry.",
            )),
            (None, MembershipRule::Strict) => Err(unknown(
                "There is no value under the audience's key in traits_or_props: correct \
                 mapping.traits_or_props, or set mapping.membership to \"reference\".",
            )),
        }
    }
}

fn unknown(detail: impl Into<String>) -> Rejection {
    Rejection::new(Reason::MembershipUnknown, detail)
}

fn plain(value: &Value) -> Option<Membership> {
    match value {
        Value::Bool(flag) => Some(Membership::from_bool(*flag)),
        Value::String(text) if text == "true" => Some(Membership::In),
        Value::String(text) if text == "false" => Some(Membership::Out),
        _ => None,
    }
}

fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_by_rule() {
        use Membership::{In, Out};
        let rows = [
            (Some(json!(true)), Some(In), In),
            (Some(json!(false)), Some(Out), Out),
            (Some(json!("true")), Some(In), In),
            (Some(json!("false")), Some(Out), In),
            (Some(json!("TRUE")), None, In),
            (Some(json!("")), None, Out),
            (Some(json!(0)), None, Out),
            (Some(json!(-0.0)), None, Out),
            (Some(json!(1)), None, In),
            (Some(json!([])), None, In),
            (Some(json!({})), None, In),
            (Some(json!(null)), None, Out),
            (None, None, Out),
        ];
        for (value, strict, reference) in rows {
            for class in [ComputationClass::Audience, ComputationClass::JourneyStep] {
                let read = |membership| {
                    ValueRules { membership, journey_step_without_value_enters: false }
                        .read(class, value.as_ref())
                };
                assert_eq!(read(MembershipRule::Strict).ok(), strict, "strict {value:?}");
                assert_eq!(read(MembershipRule::Reference).ok(), Some(reference), "{value:?}");
            }
        }
    }

    #[test]
    fn a_journey_step_without_value_enters_where_that_is_asked_for() {
        for membership in [MembershipRule::Strict, MembershipRule::Reference] {
            let rules = ValueRules { membership, journey_step_without_value_enters: true };
            for nothing in [None, Some(json!(null))] {
                let step = rules.read(ComputationClass::JourneyStep, nothing.as_ref());
                assert_eq!(step, Ok(Membership::In), "{membership:?}");
                let audience = rules.read(ComputationClass::Audience, nothing.as_ref());
                assert_ne!(audience, Ok(Membership::In), "{membership:?}");
            }
            let left = rules.read(ComputationClass::JourneyStep, Some(&json!(false)));
            assert_eq!(left, Ok(Membership::Out), "a value that is there counts");
        }
    }
}
