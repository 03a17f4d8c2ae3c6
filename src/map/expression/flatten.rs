//! `@flatten`: nested objects and lists as one object, whose keys are the paths.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::budget::Budget;
use super::compile::{Compiler, is_falsy};
use super::{Expression, Resolved, Unresolved};

#[derive(Clone, PartialEq)]
pub(in crate::map) struct Flatten {
    value: Expression,
    separator: String,
    omit_arrays: bool,
}

impl Flatten {
    pub(super) fn compile(compiler: &mut Compiler, options: &Value) -> Option<Self> {
        let options = compiler.options(options)?;
        compiler.needed(options, "value")?;
        let value = compiler.option(options, "value")?;
        compiler.needed(options, "separator")?;
        let separator = compiler.text_option(options, "separator")?.to_owned();
        if separator.is_empty() {
            compiler.at("separator", |this| this.fault("must not be empty"));
        }
        let omit_arrays = options.get("omitArrays").is_some_and(|flag| !is_falsy(flag));
        Some(Self { value, separator, omit_arrays })
    }

    pub(super) fn resolve<'a>(&'a self, event: &'a Value, budget: &Budget) -> Resolved<'a> {
        let mut flat = Map::new();
        if let Some(value) = self.value.within(event, budget)? {
            self.flatten(&value, String::new(), &mut flat, budget)?;
        }
        Ok(Some(Cow::Owned(Value::Object(flat))))
    }

    fn flatten(
        &self,
        value: &Value,
        at: String,
        flat: &mut Map<String, Value>,
        budget: &Budget,
    ) -> Result<(), Unresolved> {
        let below = |key: &str| {
            if at.is_empty() { key.to_owned() } else { format!("{at}{}{key}", self.separator) }
        };
        match value {
            Value::Object(members) => {
                for (key, member) in members {
                    self.flatten(member, below(key), flat, budget)?;
                }
            }
            Value::Array(items) if !self.omit_arrays => {
                for (index, item) in items.iter().enumerate() {
                    self.flatten(item, below(&index.to_string()), flat, budget)?;
                }
            }
            leaf => {
                budget.spend(at.len())?;
                flat.insert(at, budget.own(Cow::Borrowed(leaf))?);
            }
        }
        Ok(())
    }
}
