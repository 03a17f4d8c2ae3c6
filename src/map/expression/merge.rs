//! `@merge`: several objects as one.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::budget::Budget;
use super::compile::Compiler;
use super::{Expression, Resolved, Unresolved};

#[derive(Clone, PartialEq)]
pub(in crate::map) struct Merge {
    /// In the order in which they are put on top of each other.
    objects: Vec<Expression>,
}

impl Merge {
    pub(super) fn compile(compiler: &mut Compiler, options: &Value) -> Option<Self> {
        let options = compiler.options(options)?;
        let json = compiler.needed(options, "objects")?;
        let objects = compiler.at("objects", |this| {
            let Some(items) = json.as_array() else {
                this.wrong("a list of objects and directives", json);
                return None;
            };
            let expressions = items.iter().enumerate().map(|(index, item)| {
                this.at(&index.to_string(), |this| {
                    if !item.is_object() {
                        this.wrong("an object or a directive", item);
                    }
                    this.expression(item)
                })
            });
            Some(expressions.collect::<Vec<Expression>>())
        });
        compiler.needed(options, "direction")?;
        let direction = compiler.text_option(options, "direction")?;
        let mut objects = objects?;
        // Any other spelling of either is "right" to the hosted integration.
        if direction == "left" {
            objects.reverse();
        } else if !["left", "right"].contains(&direction.to_lowercase().as_str()) {
            compiler.at("direction", |this| this.fault("must be left or right"));
        }
        Some(Self { objects })
    }

    pub(super) fn resolve<'a>(&'a self, event: &'a Value, budget: &Budget) -> Resolved<'a> {
        let mut merged = Map::new();
        for object in &self.objects {
            if let Expression::Object(members) = object {
                for (key, member) in members {
                    match member.within(event, budget)? {
                        Some(value) => put(&mut merged, key, value, budget)?,
                        // What resolves to nothing still takes the place of what was there.
                        None => drop(merged.shift_remove(key)),
                    }
                }
                continue;
            }
            match object.within(event, budget)?.as_deref() {
                Some(Value::Object(members)) => {
                    for (key, member) in members {
                        put(&mut merged, key, Cow::Borrowed(member), budget)?;
                    }
                }
                Some(Value::Array(items)) => {
                    for (index, item) in items.iter().enumerate() {
                        put(&mut merged, &index.to_string(), Cow::Borrowed(item), budget)?;
                    }
                }
                Some(Value::String(text)) => {
                    for (index, unit) in text.encode_utf16().enumerate() {
                        let character = char::from_u32(unit.into());
                        let character = Value::String(character.into_iter().collect());
                        put(&mut merged, &index.to_string(), Cow::Owned(character), budget)?;
                    }
                }
                _ => {}
            }
        }
        Ok(Some(Cow::Owned(Value::Object(merged))))
    }
}

fn put(
    merged: &mut Map<String, Value>,
    key: &str,
    value: Cow<'_, Value>,
    budget: &Budget,
) -> Result<(), Unresolved> {
    budget.spend(key.len())?;
    merged.insert(key.to_owned(), budget.own(value)?);
    Ok(())
}
