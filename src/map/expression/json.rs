//! `@json`: encodes a value as JSON text, or decodes a JSON text.

use std::borrow::Cow;
use std::io;

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};

use super::budget::Budget;
use super::compile::{Compiler, is_falsy};
use super::{Expression, Resolved, Unresolved};

use crate::json::exact::Exact;

#[derive(Clone, PartialEq)]
pub(in crate::map) struct Json {
    mode: Mode,
    value: Expression,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Encode,
    Decode,
}

impl Json {
    pub(super) fn compile(compiler: &mut Compiler, options: &Value) -> Option<Self> {
        let options = compiler.options(options, &["mode", "value"])?;
        let value = compiler.needed(options, "value");
        if value.is_some_and(is_falsy) {
            compiler.at("value", |this| {
                this.fault("is empty, null, false or 0, and cannot be encoded or decoded");
            });
        }
        let value = compiler.option(options, "value");
        compiler.needed(options, "mode")?;
        let mode = match compiler.text_option(options, "mode")? {
            "encode" => Mode::Encode,
            "decode" => Mode::Decode,
            _ => {
                compiler.at("mode", |this| this.fault("must be encode or decode"));
                return None;
            }
        };
        Some(Self { mode, value: value? })
    }

    pub(super) fn resolve<'a>(&'a self, event: &'a Value, budget: &Budget) -> Resolved<'a> {
        let Some(value) = self.value.within(event, budget)? else { return Ok(None) };
        Ok(Some(match (self.mode, &*value) {
            (Mode::Encode, value) => Cow::Owned(Value::String(encoded(value, budget)?)),
            (Mode::Decode, Value::String(text)) => {
                // The decoded value takes many times the bytes of its text.
                budget.spend(text.len().saturating_mul(8))?;
                // A text that is not JSON stays a text.
                let read = Exact::read(text.as_bytes()).map(Exact::into_texts);
                read.map_or(value, Cow::Owned)
            }
            (Mode::Decode, _) => value,
        }))
    }
}

pub(super) fn encoded(value: &Value, budget: &Budget) -> Result<String, Unresolved> {
    let mut bytes = Vec::new();
    let too_long = || Unresolved::new("its result as JSON is too long");
    let mut serializer =
        Serializer::with_formatter(Spending { to: &mut bytes, budget }, JavaScript);
    value.serialize(&mut serializer).map_err(|_| too_long())?;
    String::from_utf8(bytes).map_err(|_| too_long())
}

/// A value as compact JSON, with numbers as JavaScript writes them; `None` if it cannot be serialised.
#[must_use]
pub fn stringified(value: &impl Serialize) -> Option<String> {
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut bytes, JavaScript)).ok()?;
    String::from_utf8(bytes).ok()
}

/// Writes numbers as JavaScript does, without white space.
struct JavaScript;

impl Formatter for JavaScript {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(ryu_js::Buffer::new().format_finite(value).as_bytes())
    }
}

/// A writer that fails once the budget is spent.
struct Spending<'a> {
    to: &'a mut Vec<u8>,
    budget: &'a Budget,
}

impl io::Write for Spending<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.budget.spend(bytes.len()).map_err(io::Error::other)?;
        self.to.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
