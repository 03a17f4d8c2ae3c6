//! `@transform`: a mapping of what another mapping made of the event.

use std::borrow::Cow;

use serde_json::Value;

use super::super::coercion::kind;
use super::budget::Budget;
use super::compile::Compiler;
use super::{Expression, Resolved, Unresolved};

#[derive(Clone, PartialEq)]
pub(in crate::map) struct Transform {
    apply: Expression,
    mapping: Expression,
}

impl Transform {
    pub(super) fn compile(compiler: &mut Compiler, options: &Value) -> Option<Self> {
        let options = compiler.options(options)?;
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

    pub(super) fn resolve<'a>(&'a self, event: &'a Value, budget: &Budget) -> Resolved<'a> {
        let applied = self.apply.within(event, budget)?;
        let found = match applied.as_deref() {
            Some(object @ Value::Object(_)) => {
                let mapped = self.mapping.within(object, budget)?;
                let mapped = mapped.map(|value| budget.own(value)).transpose()?;
                return Ok(mapped.map(Cow::Owned));
            }
            Some(other) => kind(other),
            None => "nothing",
        };
        Err(Unresolved::new(format!("@transform needs an object from apply and found {found}")))
    }
}
