//! `@case`: a text in upper or lower case; any other value unchanged.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

use super::budget::Budget;
use super::compile::Compiler;
use super::{Expression, Resolved, Unresolved};

#[derive(Clone, PartialEq)]
pub(in crate::map) struct Case {
    operator: Operator,
    value: Option<Expression>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    Lower,
    Upper,
    /// Fails for a text; other values pass unchanged, as in the hosted integration.
    Unknown,
}

impl Case {
    pub(super) fn compile(compiler: &mut Compiler, options: &Value) -> Option<Self> {
        let options = compiler.options(options, &["operator", "value"])?;
        let operator = match compiler.text_option(options, "operator") {
            Some("lower") => Operator::Lower,
            Some("upper") => Operator::Upper,
            None | Some("") => {
                if options.get("operator").is_none_or(Value::is_string) {
                    compiler.fault("needs the option operator: lower or upper");
                }
                return None;
            }
            Some(_) => Operator::Unknown,
        };
        let value = match options.get("value") {
            // An empty text counts as no value, as in the hosted integration.
            None => None,
            Some(json) if json.as_str() == Some("") => None,
            Some(json) => Some(compiler.at("value", |this| {
                let literal = |text: &str| Expression::Literal(text.into());
                this.text_or_directive(json, literal, |directive| *directive)
            })?),
        };
        Some(Self { operator, value })
    }

    /// Whether the result can depend on the event.
    pub(super) fn reads_event(&self) -> bool {
        self.value.as_ref().is_some_and(Expression::reads_event)
    }

    pub(super) fn resolve<'a>(&'a self, event: &'a Value, budget: &Budget) -> Resolved<'a> {
        let Some(value) = &self.value else { return Ok(None) };
        let value = value.within(event, budget)?;
        let Some(text) = value.as_deref().and_then(Value::as_str) else { return Ok(value) };
        let text = match self.operator {
            Operator::Lower => text.to_lowercase(),
            Operator::Upper => text.to_uppercase(),
            Operator::Unknown => {
                return Err(Unresolved::new("@case needs the operator lower or upper"));
            }
        };
        budget.spend(text.len())?;
        Ok(Some(Cow::Owned(Value::String(text))))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "@case of {value}"),
            None => f.write_str("@case"),
        }
    }
}
