//! `@arrayPath`: a list whose items are each put through a mapping.

use std::borrow::Cow;

use serde_json::Value;

use super::budget::Budget;
use super::compile::Compiler;
use super::path::Path;
use super::{Expression, Resolved, Unresolved};

#[derive(Clone, PartialEq)]
pub(in crate::map) struct ArrayPath {
    list: Expression,
    /// The mapping of an item; its paths begin at the item.
    shape: Option<Expression>,
}

impl ArrayPath {
    pub(super) fn compile(compiler: &mut Compiler, options: &Value) -> Option<Self> {
        let Some(options) = options.as_array() else {
            compiler.wrong("a list of a path and the shape of an item", options);
            return None;
        };
        let Some(list) = options.first() else {
            compiler.fault("needs a path as its first item");
            return None;
        };
        let list = compiler.at("0", |this| {
            let path = |text: &str| Expression::Path(Path::parse(text));
            this.text_or_directive(list, path, |directive| *directive)
        });
        let shape = options.get(1).map(|shape| {
            let shaping = shape.as_object().is_some_and(|members| !members.is_empty());
            (shaping, compiler.at("1", |this| this.expression(shape)))
        });
        // An empty shape, or one that is not an object, leaves the list unchanged.
        let shape = shape.and_then(|(shaping, shape)| shaping.then_some(shape));
        Some(Self { list: list?, shape })
    }

    pub(super) fn resolve<'a>(&'a self, event: &'a Value, budget: &Budget) -> Resolved<'a> {
        let (shape, list) = match self.list(event, budget)? {
            List::Shaped(shape, list) => (shape, list),
            List::AsItIs(list) => return Ok(list),
        };
        let items = items(&list);
        let mut shaped = Vec::with_capacity(items.len());
        for item in items {
            let value = shape.within(item, budget)?;
            shaped.push(value.map_or(Ok(Value::Null), |value| budget.own(value))?);
        }
        Ok(Some(Cow::Owned(Value::Array(shaped))))
    }

    /// The list, before its items are shaped.
    pub(super) fn list<'a>(
        &'a self,
        event: &'a Value,
        budget: &Budget,
    ) -> Result<List<'a>, Unresolved> {
        let list = self.list.within(event, budget)?;
        Ok(match (list, &self.shape) {
            (Some(list), Some(shape)) if list.is_array() || list.is_object() => {
                List::Shaped(shape, list)
            }
            (list, _) => List::AsItIs(list),
        })
    }
}

/// What an `@arrayPath` finds.
pub(super) enum List<'a> {
    /// The list's [`items`] are to be put through this mapping.
    Shaped(&'a Expression, Cow<'a, Value>),
    /// The value is used unchanged.
    AsItIs(Option<Cow<'a, Value>>),
}

/// The items to shape; a single object counts as a list of one.
pub(super) fn items(list: &Value) -> &[Value] {
    match list {
        Value::Array(items) => items,
        single => std::slice::from_ref(single),
    }
}
