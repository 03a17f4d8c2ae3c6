//! `@path`: the place of a value in the event.
//!
//! Paths are read as the hosted integration reads them: a `$.` is dropped; `a.b`, `a[0]`, `a['b']` and
//! `a["b"]` descend; empty keys are skipped; quotes are not part of a key. A key that itself contains a dot
//! or a quote therefore cannot be named. Brackets that hold neither an index nor quotes are part of the key:
//! `k[x]` is one key.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

/// The keys from the root down; no keys mean the whole event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::map) struct Path(Vec<String>);

impl Path {
    pub(super) fn of(keys: &[&str]) -> Self {
        Self(keys.iter().map(|&key| key.to_owned()).collect())
    }

    /// The path of a `@path`: the first `$.` is dropped, wherever it is.
    pub(super) fn parse(text: &str) -> Self {
        Self::without_root(&text.replacen("$.", "", 1))
    }

    /// The path of a placeholder, in which `$.` has no special meaning.
    pub(super) fn without_root(text: &str) -> Self {
        let is_of_index = |c: &u8| c.is_ascii_digit() || matches!(c, b'\'' | b'"');
        let bytes = text.as_bytes();
        let mut keys = Vec::new();
        let (mut from, mut at) = (0, 0);
        while at < bytes.len() {
            let separator = match bytes[at] {
                b'.' => 1,
                b'[' if bytes.get(at + 1).is_some_and(is_of_index) => 1,
                b']' if bytes[..at].last().is_some_and(is_of_index) => {
                    bytes[at..].iter().take_while(|byte| **byte == b']').count()
                }
                _ => {
                    at += 1;
                    continue;
                }
            };
            keys.push(&text[from..at]);
            at += separator;
            from = at;
        }
        keys.push(&text[from..]);
        let unquoted = |key: &&str| key.replace(['\'', '"'], "");
        // A key of nothing but quotes is the empty key.
        Self(keys.iter().filter(|key| !key.is_empty()).map(unquoted).collect())
    }

    /// Whether the path is the whole event.
    pub(super) fn is_whole(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys from the root down.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The value at this path. Only own keys count: an event has no `constructor` unless it contains one.
    /// Below null there is null; below any other value without keys there is nothing.
    pub(super) fn walk<'a>(&self, event: &'a Value) -> Option<Cow<'a, Value>> {
        let mut here = event;
        for (position, key) in self.0.iter().enumerate() {
            here = match here {
                Value::Object(members) => members.get(key)?,
                Value::Null => here,
                Value::Array(items) => match index(key) {
                    Some(index) => items.get(index)?,
                    None => return self.measure(position, items.len()),
                },
                Value::String(text) => match index(key) {
                    Some(index) => return self.of_character(position, character(text, index)?),
                    None => return self.measure(position, text.encode_utf16().count()),
                },
                Value::Bool(_) | Value::Number(_) => return None,
            };
        }
        Some(Cow::Borrowed(here))
    }

    /// What a path finds from `position` on, below a single character: the character itself, or its length.
    fn of_character<'a>(&self, position: usize, character: Value) -> Option<Cow<'a, Value>> {
        let mut rest = self.0[position + 1..].iter().skip_while(|key| *key == "0");
        match (rest.next().map(String::as_str), rest.next()) {
            (None, _) => Some(Cow::Owned(character)),
            (Some("length"), None) => Some(Cow::Owned(Value::from(1))),
            _ => None,
        }
    }

    /// `length` at the end of a path, which JavaScript gives for texts and lists.
    fn measure<'a>(&self, position: usize, length: usize) -> Option<Cow<'a, Value>> {
        let asked = self.0[position] == "length" && position + 1 == self.0.len();
        asked.then(|| Cow::Owned(Value::from(length)))
    }
}

/// As JavaScript spells an index: no sign, no leading zero.
fn index(key: &str) -> Option<usize> {
    let plain = key == "0" || key.starts_with(|c: char| c.is_ascii_digit() && c != '0');
    if plain { key.parse().ok() } else { None }
}

/// The character at an index that counts UTF-16 units; `None` for half of a surrogate pair.
fn character(text: &str, index: usize) -> Option<Value> {
    let unit = text.encode_utf16().nth(index)?;
    let character = char::from_u32(unit.into())?;
    Some(Value::String(character.into()))
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the whole event");
        }
        write!(f, "$.{}", self.0.join("."))
    }
}
