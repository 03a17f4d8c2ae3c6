//! Explains why a statement does not select an event, in the terms of the statement.
//!
//! Says which comparison decided and what kind of value it found, never the value itself
//! ([P8](crate::design::P8)).

use serde_json::Value;

use super::tree::{Condition, Operand};

/// How many sides of an `or` are explained.
const TOLD: usize = 4;

impl Condition {
    /// Why the condition does not hold; called only if it does not.
    pub(super) fn reason(&self, event: &Value) -> String {
        match self {
            Self::All(conditions) => {
                let verdicts = || conditions.iter().map(|condition| condition.holds(event));
                let decisive = verdicts().position(|holds| holds == Some(false));
                let decisive = decisive.or_else(|| verdicts().position(|holds| holds.is_none()));
                decisive.map_or_else(String::new, |at| conditions[at].reason(event))
            }
            Self::Any(conditions) => {
                let mut reasons: Vec<_> =
                    conditions.iter().take(TOLD).map(|condition| condition.reason(event)).collect();
                if conditions.len() > TOLD {
                    reasons.push(format!(
                        "{} more conditions do not hold either",
                        conditions.len() - TOLD
                    ));
                }
                reasons.join("; ")
            }
            Self::Not(condition) if condition.holds(event).is_none() => condition.reason(event),
            Self::Not(condition) => format!("{self} does not hold{}", condition.met(event)),
            _ => format!("{self} does not hold{}", self.met(event)),
        }
    }

    /// The fields of a comparison, and what kind of value each has.
    fn met(&self, event: &Value) -> String {
        let mut fields = Vec::new();
        match self {
            Self::Compare { left, right, .. } => {
                left.fields(&mut fields);
                right.fields(&mut fields);
            }
            Self::In { item, list } => {
                item.fields(&mut fields);
                list.fields(&mut fields);
            }
            Self::Holds(operand) => operand.fields(&mut fields),
            Self::All(_) | Self::Any(_) | Self::Not(_) => {}
        }
        if fields.is_empty() {
            return String::new();
        }
        let kinds: Vec<_> =
            fields.iter().map(|field| format!("{field} is {}", field.term(event).kind())).collect();
        format!(" ({})", kinds.join(", "))
    }
}

impl Operand {
    fn fields<'a>(&'a self, found: &mut Vec<&'a Operand>) {
        match self {
            Self::Path(_) => found.push(self),
            Self::Literal(_) => {}
            Self::Call(_, operand) | Self::Match { text: operand, .. } => operand.fields(found),
            Self::Contains { text, part } => {
                text.fields(found);
                part.fields(found);
            }
        }
    }
}
