//! A value that a statement works with: from the event, a literal, or the result of a function.
//!
//! Terms borrow; only the result of a function is a copy. Numbers are 64-bit floats, as in Segment: `1` and
//! `1.0` are equal.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::tree::{Path, Step};

/// A value; null if the event does not have it.
#[derive(Clone, Debug)]
pub(super) enum Term<'a> {
    Null,
    Bool(bool),
    Number(f64),
    Text(Cow<'a, str>),
    List(&'a [Value]),
    /// Not a type of the language: an object equals nothing but an equal object.
    Object(&'a Map<String, Value>),
}

impl<'a> From<&'a Value> for Term<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Number(number) => number.as_f64().map_or(Self::Null, Self::Number),
            Value::String(text) => Self::Text(Cow::Borrowed(text)),
            Value::Array(items) => Self::List(items),
            Value::Object(members) => Self::Object(members),
        }
    }
}

/// Equal if type and value are equal.
impl PartialEq for Term<'_> {
    fn eq(&self, other: &Self) -> bool {
        let equal = |(left, right): (&Value, &Value)| Term::from(left) == Term::from(right);
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(left), Self::Bool(right)) => left == right,
            (Self::Number(left), Self::Number(right)) => {
                left.partial_cmp(right).is_some_and(std::cmp::Ordering::is_eq)
            }
            (Self::Text(left), Self::Text(right)) => left == right,
            (Self::List(left), Self::List(right)) => {
                left.len() == right.len() && left.iter().zip(*right).all(equal)
            }
            (Self::Object(left), Self::Object(right)) => {
                let in_right =
                    |(key, value)| right.get(key).is_some_and(|right| equal((value, right)));
                left.len() == right.len() && left.iter().all(in_right)
            }
            _ => false,
        }
    }
}

impl Term<'_> {
    /// The kind of the value, with its article, for use in a sentence.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "missing or null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// The event's value at this path. Only own keys count, except for the `length` of a text or list, which
/// Segment's editor lets customers use.
pub(super) fn find<'a>(Path(steps): &Path, event: &'a Value) -> Term<'a> {
    let mut value = event;
    for (at, step) in steps.iter().enumerate() {
        value = match stepped(step, value) {
            Some(value) => value,
            None if at + 1 == steps.len() && step.name == "length" => return length(value),
            None => return Term::Null,
        };
    }
    value.into()
}

/// The member of that name; otherwise, if the name is `list[0]`, that item of the member `list`.
fn stepped<'a>(step: &Step, value: &'a Value) -> Option<&'a Value> {
    if let Some(found) = value.get(&step.name) {
        return Some(found);
    }
    let (list, positions) = step.indexed.as_ref()?;
    let list = if list.is_empty() { value } else { value.get(list)? };
    positions.iter().try_fold(list, |list, &position| list.get(position))
}

/// The length in JavaScript: texts in UTF-16 units.
fn length(value: &Value) -> Term<'static> {
    match value {
        Value::String(text) => count(text.encode_utf16().count()),
        Value::Array(items) => count(items.len()),
        _ => Term::Null,
    }
}

/// A count as a number term.
pub(super) fn count(items: usize) -> Term<'static> {
    Term::Number(f64::from(u32::try_from(items).unwrap_or(u32::MAX)))
}
