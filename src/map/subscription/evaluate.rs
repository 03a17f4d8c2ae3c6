//! Whether a condition holds for an event, in three-valued logic: true, false or unknown.
//!
//! An operation that needs a number or a text and finds neither is unknown, and so is its negation:
//! `properties.total > 5`, `properties.total != 5`, `!contains(name, "x")` and `!properties.gift` do not
//! select an event without these fields, as in Segment. `and` and `or` treat unknown as SQL does: the result
//! is known if the other side alone decides it. A statement that is unknown does not select the event.
//!
//! `=` and `!=` compare type and value and are never unknown, except against a number literal, which needs a
//! number. `in` needs a list.

use serde_json::Value;

use super::functions;
use super::term::{self, Term};
use super::tree::{Comparison, Condition, Operand};

impl Condition {
    /// `None`: unknown.
    pub(super) fn holds(&self, event: &Value) -> Option<bool> {
        match self {
            Self::All(conditions) => decided(conditions, event, false),
            Self::Any(conditions) => decided(conditions, event, true),
            Self::Not(condition) => condition.holds(event).map(|holds| !holds),
            Self::Compare { left, comparison, right } => {
                let (left_term, right_term) = (left.term(event), right.term(event));
                let wants_number = left.is_number_literal() || right.is_number_literal();
                comparison.holds(&left_term, &right_term, wants_number)
            }
            Self::In { item, list } => match list.term(event) {
                Term::List(items) => {
                    let item = item.term(event);
                    Some(items.iter().any(|value| Term::from(value) == item))
                }
                _ => None,
            },
            Self::Holds(operand) => operand.holds(event),
        }
    }
}

/// `decisive` if one condition has that value, the opposite if all have the opposite, otherwise unknown.
fn decided(conditions: &[Condition], event: &Value, decisive: bool) -> Option<bool> {
    let mut all_said = true;
    for condition in conditions {
        match condition.holds(event) {
            Some(holds) if holds == decisive => return Some(decisive),
            Some(_) => {}
            None => all_said = false,
        }
    }
    all_said.then_some(!decisive)
}

impl Comparison {
    fn holds(self, left: &Term<'_>, right: &Term<'_>, wants_number: bool) -> Option<bool> {
        let numbers = match (left, right) {
            (Term::Number(left), Term::Number(right)) => left.partial_cmp(right),
            _ => None,
        };
        match self {
            Self::Less => numbers.map(std::cmp::Ordering::is_lt),
            Self::AtMost => numbers.map(std::cmp::Ordering::is_le),
            Self::Greater => numbers.map(std::cmp::Ordering::is_gt),
            Self::AtLeast => numbers.map(std::cmp::Ordering::is_ge),
            Self::Equal | Self::NotEqual if wants_number && numbers.is_none() => None,
            Self::Equal => Some(left == right),
            Self::NotEqual => Some(left != right),
        }
    }
}

impl Operand {
    /// The operand's value for this event.
    pub(super) fn term<'a>(&'a self, event: &'a Value) -> Term<'a> {
        match self {
            Self::Path(path) => term::find(path, event),
            Self::Literal(value) => value.into(),
            Self::Call(function, operand) => function.of(operand.term(event)),
            // As values, these are false where they are unknown.
            Self::Contains { .. } | Self::Match { .. } => {
                Term::Bool(self.holds(event).unwrap_or(false))
            }
        }
    }

    /// The operand as a condition.
    fn holds(&self, event: &Value) -> Option<bool> {
        match self {
            Self::Contains { text, part } => contains(&text.term(event), part.term(event)),
            Self::Match { text, pattern } => match text.term(event) {
                Term::Text(text) => Some(pattern.matches(&text)),
                _ => None,
            },
            _ => match self.term(event) {
                Term::Bool(flag) => Some(flag),
                _ => None,
            },
        }
    }
}

/// A `part` that is a number or a boolean counts as its text, since Segment's editor may write it that way.
fn contains(text: &Term<'_>, part: Term<'_>) -> Option<bool> {
    match (text, functions::text(part)) {
        (Term::Text(text), Term::Text(part)) => Some(text.contains(part.as_ref())),
        _ => None,
    }
}
