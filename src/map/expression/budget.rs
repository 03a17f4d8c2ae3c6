//! Limits how much resolving one field may build: directives can multiply what an event contains.

use std::borrow::Cow;
use std::cell::Cell;

use serde_json::Value;

use super::Unresolved;

/// Far more than any field needs: an event of Segment has at most 32 KB.
const BYTES: usize = 1024 * 1024;
/// Charged for every value, on top of its texts.
const BYTES_A_VALUE: usize = 32;

/// The bytes that may still be built.
pub(super) struct Budget(Cell<usize>);

impl Default for Budget {
    fn default() -> Self {
        Self(Cell::new(BYTES))
    }
}

impl Budget {
    /// Spends bytes; called before they are built.
    pub(super) fn spend(&self, bytes: usize) -> Result<(), Unresolved> {
        let left = self.0.get().checked_sub(bytes);
        let left =
            left.ok_or_else(|| Unresolved::new("the mapping's result is larger than 1 MiB"))?;
        self.0.set(left);
        Ok(())
    }

    /// Spends the size of a value that was already built from bounded parts.
    pub(super) fn weigh(&self, value: &Value) -> Result<(), Unresolved> {
        self.spend(weight(value))
    }

    /// An owned value; its size is spent if it has to be copied.
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
