//! `@if`: one of two values, depending on whether a third exists or is blank.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

use super::budget::Budget;
use super::compile::{Compiler, is_falsy};
use super::{Expression, Resolved, Unresolved};

#[derive(Clone, PartialEq)]
pub(in crate::map) struct Conditional {
    condition: Condition,
    then: Option<Expression>,
    otherwise: Option<Expression>,
}

#[derive(Clone, PartialEq)]
enum Condition {
    /// `exists`: the value is present and not null.
    Exists(Expression),
    /// `blank`, whose `then` applies if the value is *not* blank, as in the hosted integration.
    NotBlank(Expression),
}

impl Conditional {
    pub(super) fn first_of(preferred: Expression, fallback: Expression) -> Self {
        Self {
            condition: Condition::Exists(preferred.clone()),
            then: Some(preferred),
            otherwise: Some(fallback),
        }
    }

    pub(super) fn compile(compiler: &mut Compiler, options: &Value) -> Option<Self> {
        let options = compiler.options(options, &["exists", "blank", "then", "else"])?;
        let exists = compiler.option(options, "exists");
        let blank = compiler.option(options, "blank");
        let then = compiler.option(options, "then");
        let otherwise = compiler.option(options, "else");
        let is_there = |key: &str| options.get(key).is_some_and(|json| !is_falsy(json));
        if !is_there("exists") && !is_there("blank") {
            compiler.fault("needs the option exists or blank");
            return None;
        }
        // If both options are given, `exists` counts, whatever its value, as in the hosted integration.
        let condition = exists.map(Condition::Exists).or_else(|| blank.map(Condition::NotBlank))?;
        // An `else` that is literally false, zero, empty or null counts as absent, as in the hosted
        // integration.
        Some(Self { condition, then, otherwise: otherwise.filter(|_| is_there("else")) })
    }

    /// Whether the result can depend on the event.
    pub(super) fn reads_event(&self) -> bool {
        let reads =
            |branch: &Option<Expression>| branch.as_ref().is_some_and(Expression::reads_event);
        reads(&self.then) || reads(&self.otherwise)
    }

    pub(super) fn resolve<'a>(&'a self, event: &'a Value, budget: &Budget) -> Resolved<'a> {
        match self.chosen(event, budget)? {
            Some(chosen) => chosen.within(event, budget),
            None => Ok(None),
        }
    }

    /// What the `else` resolves to for this event, whatever the condition.
    pub(super) fn fallback<'a>(&'a self, event: &'a Value, budget: &Budget) -> Resolved<'a> {
        self.otherwise.as_ref().map_or(Ok(None), |otherwise| otherwise.within(event, budget))
    }

    /// The branch taken for this event, if there is one.
    pub(super) fn chosen(
        &self,
        event: &Value,
        budget: &Budget,
    ) -> Result<Option<&Expression>, Unresolved> {
        let holds = match &self.condition {
            Condition::Exists(exists) => {
                exists.within(event, budget)?.is_some_and(|value| !value.is_null())
            }
            Condition::NotBlank(blank) => {
                blank.within(event, budget)?.is_some_and(|value| !is_blank(&value))
            }
        };
        Ok(if holds { &self.then } else { &self.otherwise }.as_ref())
    }
}

/// Whether the value is null, or equal to an empty text by JavaScript's `==`.
fn is_blank(value: &Value) -> bool {
    match value {
        Value::Array(items) => match &items[..] {
            [] | [Value::Null] => true,
            [Value::String(text)] => text.is_empty(),
            [list @ Value::Array(_)] => is_blank(list),
            _ => false,
        },
        other => is_falsy(other),
    }
}

impl fmt::Display for Conditional {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.then, &self.otherwise) {
            (Some(then), Some(otherwise)) => write!(f, "{then}, else {otherwise}"),
            (Some(only), None) | (None, Some(only)) => write!(f, "{only}"),
            (None, None) => f.write_str("@if"),
        }
    }
}

/// The empty text, for directives that return it where there is no value.
pub(super) fn nothing<'a>() -> Cow<'a, Value> {
    Cow::Owned(Value::String(String::new()))
}
