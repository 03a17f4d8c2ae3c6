//! What resolving one field may build: directives can multiply what an event holds.

use std::borrow::Cow;
use std::cell::Cell;

use serde_json::Value;

use super::Unresolved;

/// Far more than any field of an event of Segment's needs, which has 32 KB itself.
const BYTES: usize = 1024 * 1024;
/// What a value takes beside its texts.
const BYTES_A_VALUE: usize = 32;

/// Bytes that may still be built.
pub(super) struct Budget(Cell<usize>);

impl Default for Budget {
    fn default() -> Self {
        Self(Cell::new(BYTES))
    }
}

impl Budget {
    /// To be asked before the bytes are built.
    pub(super) fn spend(&self, bytes: usize) -> Result<(), Unresolved> {
        let left = self.0.get().checked_sub(bytes);
        let left =
            left.ok_or_else(|| Unresolved::new("the mapping makes more than 1 MiB of it"))?;
        self.0.set(left);
        Ok(())
    }

    /// To be asked after a value was built whose parts were bounded before.
    pub(super) fn weigh(&self, value: &Value) -> Result<(), Unresolved> {
        self.spend(weight(value))
    }

    /// A value of one's own, paid for if it has to be copied.
    pub(super) fn own(&self, value: Cow<'_, Value>) -> Result<Value, Unresolved> {
        if let Cow::Borrowed(value) = value {
            self.weigh(value)?;
        }
        Ok(value.into_owned())
    }
}

fn weight(value: &Value) -> usize {
    let inside: usize = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(members) => {
            members.iter().map(|(key, member)| key.len() + weight(member)).sum()
        }
    };
    BYTES_A_VALUE + inside
}
