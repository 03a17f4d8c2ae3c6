//! `@path`: where a value stands in the event.
//!
//! Paths are read as the hosted integration reads them: `$.` in front is dropped, `a.b`, `a[0]`,
//! `a['b']` and `a["b"]` go down, empty keys are skipped and quotes are no part of a key. So a key
//! that has a dot or a quote of its own cannot be named.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

/// The keys on the way down; none of them is the whole event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::map) struct Path(Vec<String>);

impl Path {
    pub(super) fn of(keys: &[&str]) -> Self {
        Self(keys.iter().map(|&key| key.to_owned()).collect())
    }

    /// The path of a `@path`, where the first `$.` is dropped, wherever it stands.
    pub(super) fn parse(text: &str) -> Self {
        Self::without_root(&text.replacen("$.", "", 1))
    }

    /// The path of a placeholder, which knows no `$.`.
    pub(super) fn without_root(text: &str) -> Self {
        let mut keys = vec![String::new()];
        let mut before = None;
        for character in text.chars() {
            let key = keys.last_mut().expect("it starts with one and only grows");
            match character {
                '.' | '[' => keys.push(String::new()),
                ']' if before
                    .is_some_and(|c: char| c.is_ascii_digit() || c == '\'' || c == '"') => {}
                '\'' | '"' => {}
                character => key.push(character),
            }
            before = Some(character);
        }
        keys.retain(|key| !key.is_empty());
        Self(keys)
    }

    /// What stands there. Own keys only: an event has no `constructor` unless it says so. Past
    /// null there is null; past any other value that has no keys there is nothing.
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
                    Some(index) if position + 1 == self.0.len() => return character(text, index),
                    _ => return self.measure(position, text.encode_utf16().count()),
                },
                Value::Bool(_) | Value::Number(_) => return None,
            };
        }
        Some(Cow::Borrowed(here))
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

/// The character at an index that counts UTF-16 units; half a character is none.
fn character<'a>(text: &str, index: usize) -> Option<Cow<'a, Value>> {
    let unit = text.encode_utf16().nth(index)?;
    let character = char::from_u32(unit.into())?;
    Some(Cow::Owned(Value::String(character.into())))
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the whole event");
        }
        write!(f, "$.{}", self.0.join("."))
    }
}
