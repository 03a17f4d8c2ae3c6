//! `@transform`: applies a mapping to the result of another mapping of the event.

use std::borrow::Cow;

use serde_json::Value;

use super::super::coercion::kind;
use super::budget::Budget;
use super::compile::{self, Compiler};
use super::{Expression, Resolved, Unresolved};
use crate::json;

/// The depth of the deepest event that can arrive, inside the deepest mapping.
const MADE_DEEPEST: usize = json::DEEPEST + compile::DEEPEST;

#[derive(Clone, PartialEq)]
pub(in crate::map) struct Transform {
    apply: Expression,
    mapping: Expression,
}

impl Transform {
    pub(super) fn compile(compiler: &mut Compiler, options: &Value) -> Option<Self> {
        let options = compiler.options(options, &["apply", "mapping"])?;
        let mut part = |key: &str| {
            let json = compiler.needed(options, key)?;
            Some(compiler.at(key, |this| {
                if !json.is_object() {
                    this.wrong("an object or a directive", json);
                }
                this.expression(json)
            }))
        };
        let (apply, mapping) = (part("apply"), part("mapping"));
        Some(Self { apply: apply?, mapping: mapping? })
    }

    /// The event must be an object, as in the hosted integration; the result of `apply` may be anything.
    pub(super) fn resolve<'a>(&'a self, event: &'a Value, budget: &Budget) -> Resolved<'a> {
        if !event.is_object() {
            let found = kind(event);
            return Err(Unresolved::new(format!("@transform needs an object and found {found}")));
        }
        let applied = self.apply.within(event, budget)?;
        // Without a limit, nested transforms could each wrap the event a little deeper.
        if applied.as_deref().is_some_and(|applied| json::is_deeper_than(MADE_DEEPEST, applied)) {
            return Err(Unresolved::new("what @transform builds first is nested too deeply"));
        }
        let nothing = Value::Object(serde_json::Map::new());
        let mapped = self.mapping.within(applied.as_deref().unwrap_or(&nothing), budget)?;
        let mapped = mapped.map(|value| budget.own(value)).transpose()?;
        Ok(mapped.map(Cow::Owned))
    }
}
