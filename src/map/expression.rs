//! The mapping of one field, compiled once into a small tree that is resolved for each event.
//!
//! It is compiled from the JSON that Segment's mapping editor writes: plain values stand for themselves; an
//! object with a key that starts with `@` is a directive. Anything that is wrong whatever the event is a
//! [`MappingFault`] at compile time.
//!
//! Resolving borrows from the event or from the mapping, and copies only where a value has to be built.
//!
//! # What always holds
//! * Resolving never panics; the size of what it builds is bounded by the [`Budget`], its depth by that of
//!   the mapping.
//! * No fault and no [`Unresolved`] contains a value of the mapping or of the event
//!   ([P8](crate::design::P8)).

mod budget;
mod case;
mod compile;
mod conditional;
mod doubts;
mod flatten;
mod json;
mod liquid;
mod list;
mod merge;
mod path;
mod replace;
mod template;
mod transform;

use std::borrow::Cow;
use std::fmt;

use serde_json::{Map, Value};

pub use compile::MappingFault;

use budget::Budget;
use case::Case;
use conditional::Conditional;
use flatten::Flatten;
use json::Json;
pub use json::stringified;
use liquid::LiquidTemplate;
use list::ArrayPath;
use merge::Merge;
use path::Path;
use replace::Replace;
use template::Template;
use transform::Transform;

/// Where the value of a field comes from.
#[derive(Clone, PartialEq)]
pub(super) enum Expression {
    /// The same for every event.
    Literal(Value),
    /// An object some of whose values are directives; members that resolve to nothing are left out.
    Object(Vec<(String, Expression)>),
    /// A list some of whose items are directives; items that resolve to nothing become null.
    List(Vec<Expression>),
    /// `@path`
    Path(Path),
    /// `@path` whose text comes from the event.
    PathFrom(Box<Expression>),
    /// `@template`
    Template(Template),
    /// `@template` whose text comes from the event.
    TemplateFrom(Box<Expression>),
    /// `@if`
    If(Box<Conditional>),
    /// `@case`
    Case(Box<Case>),
    /// `@replace`
    Replace(Box<Replace>),
    /// `@arrayPath`
    ArrayPath(Box<ArrayPath>),
    /// `@flatten`
    Flatten(Box<Flatten>),
    /// `@json`
    Json(Box<Json>),
    /// `@merge`
    Merge(Box<Merge>),
    /// `@transform`
    Transform(Box<Transform>),
    /// `@excludeWhenNull`
    ExcludeWhenNull(Box<Expression>),
    /// `@liquid`
    Liquid(Box<LiquidTemplate>),
}

/// What an expression resolves to for an event, if anything.
type Resolved<'a> = Result<Option<Cow<'a, Value>>, Unresolved>;

/// Why an expression cannot be resolved for an event: a sentence that contains no values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unresolved(Cow<'static, str>);

impl Unresolved {
    fn new(sentence: impl Into<Cow<'static, str>>) -> Self {
        Self(sentence.into())
    }
}

impl Expression {
    /// A path from the root of the event.
    pub(super) fn path(keys: &[&str]) -> Self {
        Self::Path(Path::of(keys))
    }

    /// The first of two paths that exists, as in the defaults of the action.
    pub(super) fn first_of(preferred: &[&str], fallback: &[&str]) -> Self {
        Self::If(Box::new(Conditional::first_of(Self::path(preferred), Self::path(fallback))))
    }

    /// Compiles the JSON of one field; `at` is its place in the mapping.
    pub(super) fn compile(json: &Value, at: &str) -> Result<Self, Vec<MappingFault>> {
        compile::compile(json, at)
    }

    /// Warnings about the JSON of one field that compiles but surely does not do what was meant; `at` is its
    /// place in the mapping.
    pub(super) fn doubts(json: &Value, at: &str) -> Vec<MappingFault> {
        doubts::doubts(json, at)
    }

    /// Whether the result can depend on the event.
    pub(super) fn reads_event(&self) -> bool {
        match self {
            Self::Literal(_) => false,
            Self::Object(members) => members.iter().any(|(_, member)| member.reads_event()),
            Self::List(items) => items.iter().any(Self::reads_event),
            Self::Template(template) => template.has_placeholder(),
            Self::If(conditional) => conditional.reads_event(),
            Self::Case(case) => case.reads_event(),
            Self::Replace(replace) => replace.reads_event(),
            Self::ExcludeWhenNull(inner) => inner.reads_event(),
            Self::Liquid(template) => template.reads_event(),
            Self::Path(_)
            | Self::PathFrom(_)
            | Self::TemplateFrom(_)
            | Self::ArrayPath(_)
            | Self::Flatten(_)
            | Self::Json(_)
            | Self::Merge(_)
            | Self::Transform(_) => true,
        }
    }

    /// Whether the result is the event itself, which is an object and not a text.
    pub(super) fn is_whole_event(&self) -> bool {
        match self {
            Self::Path(path) => path.is_whole(),
            Self::ExcludeWhenNull(inner) => inner.is_whole_event(),
            _ => false,
        }
    }

    /// The value, if it is the same for every event.
    pub(super) fn literal(&self) -> Option<&Value> {
        match self {
            Self::Literal(value) => Some(value),
            _ => None,
        }
    }

    /// The value for this event, if there is one. A path that meets null yields null.
    pub(super) fn resolve<'a>(&'a self, event: &'a Value) -> Resolved<'a> {
        self.within(event, &Budget::default())
    }

    /// What the `else` of an `@if` resolves to for this event, whatever the condition; nothing for any other
    /// expression.
    pub(super) fn fallback<'a>(&'a self, event: &'a Value) -> Resolved<'a> {
        match self {
            Self::If(conditional) => conditional.fallback(event, &Budget::default()),
            _ => Ok(None),
        }
    }

    fn within<'a>(&'a self, event: &'a Value, budget: &Budget) -> Resolved<'a> {
        match self {
            Self::Literal(value) => Ok(Some(Cow::Borrowed(value))),
            Self::Path(path) => Ok(path.walk(event)),
            Self::Object(members) => {
                let mut built = Map::new();
                for (key, member) in members {
                    if let Some(value) = member.within(event, budget)? {
                        built.insert(key.clone(), budget.own(value)?);
                    }
                }
                built_value(Value::Object(built))
            }
            Self::List(items) => {
                let mut built = Vec::with_capacity(items.len());
                for item in items {
                    let value = item.within(event, budget)?;
                    built.push(value.map_or(Ok(Value::Null), |value| budget.own(value))?);
                }
                built_value(Value::Array(built))
            }
            Self::PathFrom(text) => {
                let text = text.text_within(event, budget, "@path")?;
                Ok(Path::parse(&text).walk(event))
            }
            Self::Template(template) => template.render(event, budget).and_then(built_value),
            Self::TemplateFrom(text) => {
                let text = text.text_within(event, budget, "@template")?;
                Template::parse(&text).render(event, budget).and_then(built_value)
            }
            Self::If(conditional) => conditional.resolve(event, budget),
            Self::Case(case) => case.resolve(event, budget),
            Self::Replace(replace) => replace.resolve(event, budget),
            Self::ArrayPath(path) => path.resolve(event, budget),
            Self::Flatten(flatten) => flatten.resolve(event, budget),
            Self::Json(json) => json.resolve(event, budget),
            Self::Merge(merge) => merge.resolve(event, budget),
            Self::Transform(transform) => transform.resolve(event, budget),
            Self::ExcludeWhenNull(inner) => Ok(match inner.within(event, budget)? {
                Some(value) if has_null(&value) => {
                    without_nulls(budget.own(value)?).map(Cow::Owned)
                }
                value => value,
            }),
            Self::Liquid(template) => template.resolve(event, budget),
        }
    }

    /// Resolves to a text that a directive needs.
    fn text_within<'a>(
        &'a self,
        event: &'a Value,
        budget: &Budget,
        directive: &str,
    ) -> Result<Cow<'a, str>, Unresolved> {
        let found = match self.within(event, budget)? {
            Some(Cow::Borrowed(Value::String(text))) => return Ok(Cow::Borrowed(text)),
            Some(Cow::Owned(Value::String(text))) => return Ok(Cow::Owned(text)),
            Some(other) => super::coercion::kind(&other),
            None => "nothing",
        };
        Err(Unresolved::new(format!("{directive} needs a string and found {found}")))
    }
}

#[expect(clippy::unnecessary_wraps, reason = "it ends the arms of a match that can fail")]
fn built_value<'a>(value: Value) -> Resolved<'a> {
    Ok(Some(Cow::Owned(value)))
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(members) => members.values().any(has_null),
        _ => false,
    }
}

/// Removes null members of objects; nulls in lists stay, as in the hosted integration.
fn without_nulls(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(members) => Some(Value::Object(
            members
                .into_iter()
                .filter_map(|(key, member)| Some((key, without_nulls(member)?)))
                .collect(),
        )),
        other => Some(other),
    }
}

/// Says where the value is looked for, for the reason of a rejection; the value of a literal is not shown.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directive = match self {
            Self::Literal(_) | Self::Object(_) | Self::List(_) => "the value in the mapping",
            Self::Path(path) => return path.fmt(f),
            Self::If(conditional) => return conditional.fmt(f),
            Self::ExcludeWhenNull(inner) => return inner.fmt(f),
            Self::Template(template) => return template.fmt(f),
            Self::Case(case) => return case.fmt(f),
            Self::Replace(replace) => return replace.fmt(f),
            Self::PathFrom(_) => "@path",
            Self::TemplateFrom(_) => "@template",
            Self::ArrayPath(_) => "@arrayPath",
            Self::Flatten(_) => "@flatten",
            Self::Json(_) => "@json",
            Self::Merge(_) => "@merge",
            Self::Transform(_) => "@transform",
            Self::Liquid(_) => "@liquid",
        };
        f.write_str(directive)
    }
}

/// The same text as `Display`: a mapping may contain somebody's email as a literal ([P8](crate::design::P8)).
impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests;
