//! `@flatten`: nested objects and lists as one flat object, whose keys are the paths.

use std::borrow::Cow;

use serde_json::Value;

use super::budget::Budget;
use super::compile::{Compiler, is_falsy};
use super::list::{List, items};
use super::merge::Merged;
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
        let mut flat = Merged::new(budget);
        self.gather(event, &mut flat)?;
        Ok(Some(Cow::Owned(Value::Object(flat.into_members()))))
    }

    /// Adds the flattened members to `flat`. A member whose value is nothing still replaces an earlier one,
    /// as in the hosted integration.
    pub(super) fn gather(&self, event: &Value, flat: &mut Merged<'_>) -> Result<(), Unresolved> {
        self.flatten_built(&self.value, String::new(), event, flat)
    }

    /// Flattens objects and lists that the mapping itself builds member by member, without building them
    /// first: list items that resolve to nothing then leave no null.
    fn flatten_built(
        &self,
        built: &Expression,
        at: String,
        event: &Value,
        flat: &mut Merged<'_>,
    ) -> Result<(), Unresolved> {
        match built {
            Expression::Object(members) => {
                for (key, member) in members {
                    self.flatten_built(member, self.below(&at, key), event, flat)?;
                }
                Ok(())
            }
            Expression::List(list) if !self.omit_arrays => {
                for (index, item) in list.iter().enumerate() {
                    self.flatten_built(item, self.below(&at, &index.to_string()), event, flat)?;
                }
                Ok(())
            }
            Expression::ArrayPath(path) if !self.omit_arrays => match path
                .list(event, flat.budget)?
            {
                List::Shaped(shape, list) => {
                    for (index, item) in items(&list).iter().enumerate() {
                        self.flatten_built(shape, self.below(&at, &index.to_string()), item, flat)?;
                    }
                    Ok(())
                }
                List::AsItIs(value) => self.flatten_found(value.as_deref(), &at, flat),
            },
            Expression::If(conditional) => match conditional.chosen(event, flat.budget)? {
                Some(chosen) => self.flatten_built(chosen, at, event, flat),
                None => self.flatten_found(None, &at, flat),
            },
            Expression::ExcludeWhenNull(inner) if matches!(**inner, Expression::List(_)) => {
                self.flatten_built(inner, at, event, flat)
            }
            other => {
                let value = other.within(event, flat.budget)?;
                self.flatten_found(value.as_deref(), &at, flat)
            }
        }
    }

    fn below(&self, at: &str, key: &str) -> String {
        if at.is_empty() { key.to_owned() } else { format!("{at}{}{key}", self.separator) }
    }

    fn flatten_found(
        &self,
        value: Option<&Value>,
        at: &str,
        flat: &mut Merged<'_>,
    ) -> Result<(), Unresolved> {
        match value {
            Some(value) => self.flatten(value, at, flat),
            None => flat.put(at, None),
        }
    }

    fn flatten(&self, value: &Value, at: &str, flat: &mut Merged<'_>) -> Result<(), Unresolved> {
        match value {
            Value::Object(members) => {
                for (key, member) in members {
                    self.flatten(member, &self.below(at, key), flat)?;
                }
            }
            Value::Array(items) if !self.omit_arrays => {
                for (index, item) in items.iter().enumerate() {
                    self.flatten(item, &self.below(at, &index.to_string()), flat)?;
                }
            }
            leaf => flat.put(at, Some(Cow::Borrowed(leaf)))?,
        }
        Ok(())
    }
}
