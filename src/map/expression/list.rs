//! `@arrayPath`: a list, with each item put through a mapping of its own.

use std::borrow::Cow;

use serde_json::Value;

use super::budget::Budget;
use super::compile::Compiler;
use super::path::Path;
use super::{Expression, Resolved};

#[derive(Clone, PartialEq)]
pub(in crate::map) struct ArrayPath {
    list: Expression,
    /// Of an item; its paths begin at the item.
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
        // An empty shape, or one that is no object, leaves the list as it is.
        let shape = shape.and_then(|(shaping, shape)| shaping.then_some(shape));
        Some(Self { list: list?, shape })
    }

    pub(super) fn resolve<'a>(&'a self, event: &'a Value, budget: &Budget) -> Resolved<'a> {
        let list = self.list.within(event, budget)?;
        let (Some(found), Some(shape)) = (&list, &self.shape) else { return Ok(list) };
        let items = match &**found {
            Value::Array(items) => &items[..],
            single @ Value::Object(_) => std::slice::from_ref(single),
            _ => return Ok(list),
        };
        let mut shaped = Vec::with_capacity(items.len());
        for item in items {
            let value = shape.within(item, budget)?;
            shaped.push(value.map_or(Ok(Value::Null), |value| budget.own(value))?);
        }
        Ok(Some(Cow::Owned(Value::Array(shaped))))
    }
}
