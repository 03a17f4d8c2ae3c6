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
        let options = compiler.options(options, &["value", "separator"])?;
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
        self.flatten_built(&self.value, String::new(), &mut flat, (event, budget))?;
        Ok(Some(Cow::Owned(Value::Object(flat))))
    }

    /// What the mapping itself builds is flattened as it is built: what resolves to nothing in a
    /// list leaves no null then.
    fn flatten_built(
        &self,
        built: &Expression,
        at: String,
        flat: &mut Map<String, Value>,
        (event, budget): (&Value, &Budget),
    ) -> Result<(), Unresolved> {
        match built {
            Expression::Object(members) => {
                for (key, member) in members {
                    self.flatten_built(member, self.below(&at, key), flat, (event, budget))?;
                }
            }
            Expression::List(items) if !self.omit_arrays => {
                for (index, item) in items.iter().enumerate() {
                    let at = self.below(&at, &index.to_string());
                    self.flatten_built(item, at, flat, (event, budget))?;
                }
            }
            other => {
                if let Some(value) = other.within(event, budget)? {
                    self.flatten(&value, at, flat, budget)?;
                }
            }
        }
        Ok(())
    }

    fn below(&self, at: &str, key: &str) -> String {
        if at.is_empty() { key.to_owned() } else { format!("{at}{}{key}", self.separator) }
    }

    fn flatten(
        &self,
        value: &Value,
        at: String,
        flat: &mut Map<String, Value>,
        budget: &Budget,
    ) -> Result<(), Unresolved> {
        match value {
            Value::Object(members) => {
                for (key, member) in members {
                    self.flatten(member, self.below(&at, key), flat, budget)?;
                }
            }
            Value::Array(items) if !self.omit_arrays => {
                for (index, item) in items.iter().enumerate() {
                    self.flatten(item, self.below(&at, &index.to_string()), flat, budget)?;
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
