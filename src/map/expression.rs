//! What the mapping says about one field, compiled once: a small tree that is resolved for each event.
//!
//! It is compiled from the JSON that Segment's mapping editor writes: plain values stand for
//! themselves, an object with one key that starts with `@` is a directive. `@path`, `@literal` and
//! `@if` with `exists` are known; any other directive is refused when compiled, never guessed at.
//!
//! Resolving borrows from the event or from the mapping and copies only where it must build a value.

use std::borrow::Cow;
use std::fmt;

use serde_json::{Map, Value};

/// Where the value of a field comes from.
#[derive(Clone, PartialEq)]
pub(super) enum Expression {
    /// The same for every event.
    Literal(Value),
    /// What the event has under these keys; none of them is the whole event.
    Path(Vec<String>),
    /// One of two, by whether a value is there and not null (`@if` with `exists`).
    IfExists {
        /// The value that must be there.
        condition: Box<Expression>,
        /// Used where it is.
        then: Box<Expression>,
        /// Used where it is not; without it the field has no value.
        otherwise: Option<Box<Expression>>,
    },
    /// An object some of whose values are directives; what resolves to nothing is left out.
    Object(Vec<(String, Expression)>),
}

/// Why a mapping cannot be compiled. The texts name directives, never values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// The action has no such field.
    #[error("the action has no such field")]
    UnknownField,
    /// A directive, or a form of it, that this version does not resolve.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// Not what Segment's mapping editor writes.
    #[error("{0}")]
    Malformed(&'static str),
}

impl Expression {
    /// A path from the root of the event.
    pub(super) fn path(keys: &[&str]) -> Self {
        Self::Path(keys.iter().map(|&key| key.to_owned()).collect())
    }

    /// The first of two paths that exists, as the defaults of the action say it.
    pub(super) fn first_of(preferred: &[&str], fallback: &[&str]) -> Self {
        Self::IfExists {
            condition: Box::new(Self::path(preferred)),
            then: Box::new(Self::path(preferred)),
            otherwise: Some(Box::new(Self::path(fallback))),
        }
    }

    /// Compiles the JSON of one field.
    pub(super) fn compile(json: &Value) -> Result<Self, MappingError> {
        match json {
            Value::Object(members) if members.keys().any(|key| key.starts_with('@')) => {
                let mut members = members.iter();
                match (members.next(), members.next()) {
                    (Some((name, options)), None) => Self::directive(name, options),
                    _ => Err(MappingError::Malformed("a directive must be the only key")),
                }
            }
            Value::Object(members) if members.values().any(has_directive) => {
                let compiled = members
                    .iter()
                    .map(|(key, value)| Ok((key.clone(), Self::compile(value)?)))
                    .collect::<Result<_, MappingError>>()?;
                Ok(Self::Object(compiled))
            }
            Value::Array(_) if has_directive(json) => {
                Err(MappingError::Unsupported("a directive inside a list".to_owned()))
            }
            plain => Ok(Self::Literal(plain.clone())),
        }
    }

    fn directive(name: &str, options: &Value) -> Result<Self, MappingError> {
        match (name, options) {
            ("@path", Value::String(text)) => compile_path(text),
            ("@literal", value) if !has_directive(value) => Ok(Self::Literal(value.clone())),
            ("@if", Value::Object(options)) => compile_if(options),
            _ => Err(MappingError::Unsupported(name.to_owned())),
        }
    }

    /// The value for this event, if there is one. A path that meets null yields null.
    pub(super) fn resolve<'a>(&'a self, event: &'a Value) -> Option<Cow<'a, Value>> {
        match self {
            Self::Literal(value) => Some(Cow::Borrowed(value)),
            Self::Path(keys) => walk(keys, event).map(Cow::Borrowed),
            Self::IfExists { condition, then, otherwise } => {
                if condition.resolve(event).is_some_and(|value| !value.is_null()) {
                    then.resolve(event)
                } else {
                    otherwise.as_ref()?.resolve(event)
                }
            }
            Self::Object(members) => {
                let built: Map<String, Value> = members
                    .iter()
                    .filter_map(|(key, member)| {
                        Some((key.clone(), member.resolve(event)?.into_owned()))
                    })
                    .collect();
                Some(Cow::Owned(Value::Object(built)))
            }
        }
    }
}

fn has_directive(json: &Value) -> bool {
    match json {
        Value::Object(members) => {
            members.iter().any(|(key, value)| key.starts_with('@') || has_directive(value))
        }
        Value::Array(items) => items.iter().any(has_directive),
        _ => false,
    }
}

/// `$.a.b` or `a.b`; brackets, quotes and escapes are refused rather than read half right.
fn compile_path(text: &str) -> Result<Expression, MappingError> {
    if text.contains(['[', ']', '\'', '"', '\\']) {
        return Err(MappingError::Unsupported("brackets, quotes or escapes in @path".to_owned()));
    }
    let keys = text.strip_prefix("$.").unwrap_or(text).split('.');
    Ok(Expression::Path(keys.filter(|key| !key.is_empty()).map(str::to_owned).collect()))
}

fn compile_if(options: &Map<String, Value>) -> Result<Expression, MappingError> {
    if options.keys().any(|key| !matches!(key.as_str(), "exists" | "then" | "else")) {
        return Err(MappingError::Unsupported("@if with anything but exists".to_owned()));
    }
    let part = |name: &str| {
        options.get(name).map(|json| Expression::compile(json).map(Box::new)).transpose()
    };
    let missing = MappingError::Malformed("@if needs exists and then");
    Ok(Expression::IfExists {
        condition: part("exists")?.ok_or_else(|| missing.clone())?,
        then: part("then")?.ok_or(missing)?,
        otherwise: part("else")?,
    })
}

/// Own keys only: an event has no `constructor` unless it says so.
fn walk<'a>(keys: &[String], event: &'a Value) -> Option<&'a Value> {
    keys.iter().try_fold(event, |value, key| match value {
        Value::Object(members) => members.get(key),
        Value::Array(items) => items.get(key.parse::<usize>().ok()?),
        Value::Null => Some(value),
        _ => None,
    })
}

/// Says where the value is looked for, for the reason of a rejection; a literal is not shown.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(_) | Self::Object(_) => f.write_str("the value in the mapping"),
            Self::Path(keys) if keys.is_empty() => f.write_str("the whole event"),
            Self::Path(keys) => write!(f, "$.{}", keys.join(".")),
            Self::IfExists { then, otherwise: Some(otherwise), .. } => {
                write!(f, "{then}, else {otherwise}")
            }
            Self::IfExists { then, .. } => write!(f, "{then}"),
        }
    }
}

/// As `Display`: a mapping may hold somebody's email as a literal (P8).
impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn directives_resolve_against_the_event() {
        let event = json!({"a": {"b": 1, "n": null, "l": [{"x": 2}]}, "t": "text", "": 3});
        let rows = [
            (json!("plain"), Some(json!("plain"))),
            (json!(null), Some(json!(null))),
            (json!({"k": [1]}), Some(json!({"k": [1]}))),
            (json!({"@path": "$.a.b"}), Some(json!(1))),
            (json!({"@path": "a.b"}), Some(json!(1))),
            (json!({"@path": "$.a.l.0.x"}), Some(json!(2))),
            (json!({"@path": "$.a.n"}), Some(json!(null))),
            (json!({"@path": "$.a.n.deeper"}), Some(json!(null))),
            (json!({"@path": "$.a.c"}), None),
            (json!({"@path": "$.t.length"}), None),
            (json!({"@path": "$.a.constructor"}), None),
            (json!({"@path": "$."}), Some(event.clone())),
            (json!({"@literal": {"k": 1}}), Some(json!({"k": 1}))),
            (
                json!({"@if": {"exists": {"@path": "$.a.b"}, "then": "y", "else": "n"}}),
                Some(json!("y")),
            ),
            (
                json!({"@if": {"exists": {"@path": "$.a.n"}, "then": "y", "else": "n"}}),
                Some(json!("n")),
            ),
            (json!({"@if": {"exists": {"@path": "$.a.c"}, "then": "y"}}), None),
            (json!({"k": {"@path": "$.a.b"}, "m": {"@path": "$.a.c"}}), Some(json!({"k": 1}))),
        ];
        for (mapping, expected) in rows {
            let compiled = Expression::compile(&mapping).expect("all of these are known");
            assert_eq!(compiled.resolve(&event).map(Cow::into_owned), expected, "{mapping}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_when_compiled() {
        let rows = [
            (json!({"@template": "{{a}}"}), "@template is not supported"),
            (json!({"@path": 5}), "@path is not supported"),
            (json!({"@path": "$.a[0]"}), "brackets, quotes or escapes in @path is not supported"),
            (json!({"@path": "$.a", "extra": 1}), "a directive must be the only key"),
            (json!({"@literal": {"@path": "$.a"}}), "@literal is not supported"),
            (
                json!({"@if": {"blank": 1, "then": 2}}),
                "@if with anything but exists is not supported",
            ),
            (json!({"@if": {"exists": 1}}), "@if needs exists and then"),
            (json!([{"@path": "$.a"}]), "a directive inside a list is not supported"),
            (json!({"k": {"@liquid": ""}}), "@liquid is not supported"),
        ];
        for (mapping, text) in rows {
            let error = Expression::compile(&mapping).expect_err("none of these is known");
            assert_eq!(error.to_string(), text, "{mapping}");
        }
    }

    #[test]
    fn debug_shows_places_and_not_values() {
        let literal = Expression::Literal(json!("ada@example.com"));
        assert_eq!(format!("{literal:?}"), "the value in the mapping");
        let email = Expression::first_of(&["traits", "email"], &["context", "traits", "email"]);
        assert_eq!(format!("{email:?}"), "$.traits.email, else $.context.traits.email");
    }
}
