//! `@merge`: merges several objects into one.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::{Map, Value};

use super::budget::Budget;
use super::compile::Compiler;
use super::list::{List, items};
use super::{Expression, Resolved, Unresolved, without_nulls};

#[derive(Clone, PartialEq)]
pub(in crate::map) struct Merge {
    /// In order of precedence: later objects override earlier ones.
    objects: Vec<Expression>,
}

impl Merge {
    pub(super) fn compile(compiler: &mut Compiler, options: &Value) -> Option<Self> {
        let options = compiler.options(options, &["objects", "direction"])?;
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
        // To the hosted integration, any other capitalisation of either word is "right".
        if direction == "left" {
            objects.reverse();
        } else if !["left", "right"].contains(&direction.to_lowercase().as_str()) {
            compiler.at("direction", |this| this.fault("must be left or right"));
        }
        Some(Self { objects })
    }

    pub(super) fn resolve<'a>(&'a self, event: &'a Value, budget: &Budget) -> Resolved<'a> {
        let mut merged = Merged::new(budget);
        self.objects.iter().try_for_each(|object| merged.gather(object, event))?;
        Ok(Some(Cow::Owned(Value::Object(merged.into_members()))))
    }
}

/// The result of merging so far. A member that resolves to nothing still overrides an earlier one, and
/// reserves its position for a later one: to the `Object.assign` of the hosted integration it is `undefined`.
pub(super) struct Merged<'a> {
    members: Map<String, Value>,
    /// The keys of the members that are nothing.
    nothing: HashSet<String>,
    pub(super) budget: &'a Budget,
}

impl<'a> Merged<'a> {
    /// An empty result.
    pub(super) fn new(budget: &'a Budget) -> Self {
        Self { members: Map::new(), nothing: HashSet::new(), budget }
    }
}

impl Merged<'_> {
    /// Merges what an expression builds. Objects and lists that the mapping itself builds are merged member
    /// by member, so that members that resolve to nothing count.
    fn gather(&mut self, object: &Expression, event: &Value) -> Result<(), Unresolved> {
        match object {
            Expression::Object(members) => {
                for (key, member) in members {
                    self.put(key, member.within(event, self.budget)?)?;
                }
            }
            Expression::List(list) => {
                for (index, item) in list.iter().enumerate() {
                    self.put(&index.to_string(), item.within(event, self.budget)?)?;
                }
            }
            Expression::ArrayPath(path) => match path.list(event, self.budget)? {
                List::Shaped(shape, list) => {
                    for (index, item) in items(&list).iter().enumerate() {
                        self.put(&index.to_string(), shape.within(item, self.budget)?)?;
                    }
                }
                List::AsItIs(Some(value)) => self.spread(&value)?,
                List::AsItIs(None) => {}
            },
            Expression::Flatten(flatten) => flatten.gather(event, self)?,
            Expression::If(conditional) => {
                if let Some(chosen) = conditional.chosen(event, self.budget)? {
                    self.gather(chosen, event)?;
                }
            }
            Expression::Merge(merge) => {
                merge.objects.iter().try_for_each(|object| self.gather(object, event))?;
            }
            Expression::ExcludeWhenNull(inner) if matches!(**inner, Expression::List(_)) => {
                self.gather(inner, event)?;
            }
            // A null that `@excludeWhenNull` removes still overrides.
            Expression::ExcludeWhenNull(inner) => {
                match inner.within(event, self.budget)?.as_deref() {
                    Some(Value::Object(members)) => {
                        for (key, member) in members {
                            let member = without_nulls(self.budget.own(Cow::Borrowed(member))?);
                            self.put(key, member.map(Cow::Owned))?;
                        }
                    }
                    Some(other) => self.spread(other)?,
                    None => {}
                }
            }
            other => {
                if let Some(value) = other.within(event, self.budget)? {
                    self.spread(&value)?;
                }
            }
        }
        Ok(())
    }

    /// Merges the members of an object, or what `Object.assign` makes of a list or a text.
    fn spread(&mut self, value: &Value) -> Result<(), Unresolved> {
        match value {
            Value::Object(members) => {
                for (key, member) in members {
                    self.put(key, Some(Cow::Borrowed(member)))?;
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.put(&index.to_string(), Some(Cow::Borrowed(item)))?;
                }
            }
            Value::String(text) => {
                for (index, unit) in text.encode_utf16().enumerate() {
                    let character = char::from_u32(unit.into());
                    let character = Value::String(character.into_iter().collect());
                    self.put(&index.to_string(), Some(Cow::Owned(character)))?;
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        Ok(())
    }

    /// Sets one member, overriding an earlier value.
    pub(super) fn put(
        &mut self,
        key: &str,
        value: Option<Cow<'_, Value>>,
    ) -> Result<(), Unresolved> {
        self.budget.spend(key.len())?;
        let value = if let Some(value) = value {
            self.nothing.remove(key);
            self.budget.own(value)?
        } else {
            self.nothing.insert(key.to_owned());
            Value::Null
        };
        self.members.insert(key.to_owned(), value);
        Ok(())
    }

    /// The merged object, without the members that are nothing.
    pub(super) fn into_members(mut self) -> Map<String, Value> {
        if !self.nothing.is_empty() {
            self.members.retain(|key, _| !self.nothing.contains(key));
        }
        self.members
    }
}
