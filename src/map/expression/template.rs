//! `@template`: a text with placeholders, `{{path}}` or `{{{path}}}`.
//!
//! Placeholders are found as in the hosted integration, three braces before two, except that inserted text is
//! not searched again: the text of an event is not a template.

use std::fmt;

use serde_json::Value;

use super::super::coercion::number_text;
use super::Unresolved;
use super::budget::Budget;
use super::path::Path;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::map) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Placeholder(Path),
}

impl Template {
    pub(super) fn parse(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut plain = |text: &str, pieces: &mut Vec<Piece>| {
            let rest = placeholders(text, 2, pieces, |text, pieces| {
                pieces.push(Piece::Text(text.to_owned()));
            });
            pieces.push(Piece::Text(rest.to_owned()));
        };
        let rest = placeholders(text, 3, &mut pieces, &mut plain);
        plain(rest, &mut pieces);
        pieces.retain(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()));
        Self(pieces)
    }

    /// Whether the template contains a placeholder, so that the result can depend on the event.
    pub(super) fn has_placeholder(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Placeholder(_)))
    }

    /// A warning if the template surely does not do what was meant.
    pub(super) fn doubt(&self) -> Option<&'static str> {
        let of_text = |piece: &Piece| match piece {
            Piece::Text(text) => Some(text.clone()),
            Piece::Placeholder(_) => None,
        };
        let texts: Vec<String> = self.0.iter().filter_map(of_text).collect();
        let count =
            |brace: char| texts.iter().map(|text| text.matches(brace).count()).sum::<usize>();
        let is_left = texts.iter().any(|text| text.contains("{{")) || count('{') != count('}');
        let mut in_a_key = false;
        for piece in &self.0 {
            let Piece::Placeholder(path) = piece else { continue };
            if path.is_whole() {
                return Some("has an empty placeholder, which is the whole event and not a string");
            }
            if path.keys().next() == Some("$") {
                return Some(
                    "has a placeholder that begins with $, which never finds anything: only a \
                     @path may begin with $",
                );
            }
            in_a_key |= path.keys().any(|key| key.contains('{'));
        }
        if is_left || in_a_key {
            return Some("has unbalanced braces: a placeholder is {{path}} or {{{path}}}");
        }
        (!self.has_placeholder() && count('{') > 0)
            .then_some("has no placeholder, which is {{path}} or {{{path}}}")
    }

    pub(super) fn render(&self, event: &Value, budget: &Budget) -> Result<Value, Unresolved> {
        let mut rendered = String::new();
        for piece in &self.0 {
            let before = rendered.len();
            match piece {
                Piece::Text(text) => rendered.push_str(text),
                Piece::Placeholder(path) => {
                    if let Some(value) = path.walk(event) {
                        write(&value, &mut rendered)?;
                    }
                }
            }
            budget.spend(rendered.len() - before)?;
        }
        Ok(Value::String(rendered))
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("@template")?;
        let mut before = " of ";
        for piece in &self.0 {
            if let Piece::Placeholder(path) = piece {
                write!(f, "{before}{path}")?;
                before = ", ";
            }
        }
        Ok(())
    }
}

/// Cuts `text` at its placeholders of `braces` braces; passes the text between them to `between` and returns
/// the text after the last. A placeholder may contain anything but a closing brace.
fn placeholders<'t>(
    text: &'t str,
    braces: usize,
    pieces: &mut Vec<Piece>,
    mut between: impl FnMut(&str, &mut Vec<Piece>),
) -> &'t str {
    let (open, close) = (&"{{{"[..braces], &"}}}"[..braces]);
    let (mut rest, mut from) = (text, 0);
    while let Some(found) = rest[from..].find(open) {
        let start = from + found;
        let inside = &rest[start + braces..];
        let end = inside.find('}').unwrap_or(inside.len());
        if end > 0 && inside[end..].starts_with(close) {
            between(&rest[..start], pieces);
            let path = inside[..end].trim_matches(is_space);
            pieces.push(Piece::Placeholder(Path::without_root(path)));
            (rest, from) = (&inside[end + braces..], 0);
        } else {
            from = start + 1;
        }
    }
    rest
}

/// Whether JavaScript's `trim` removes the character.
pub(super) fn is_space(character: char) -> bool {
    character == '\u{FEFF}' || character != '\u{85}' && character.is_whitespace()
}

/// Appends a value as JavaScript writes it into a text. An object, for which JavaScript writes
/// `[object Object]`, is an error: two people must not become one.
fn write(value: &Value, to: &mut String) -> Result<(), Unresolved> {
    match value {
        Value::Null => {}
        Value::Bool(flag) => to.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => to.push_str(&number_text(number)),
        Value::String(text) => to.push_str(text),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    to.push(',');
                }
                write(item, to)?;
            }
        }
        Value::Object(_) => {
            return Err(Unresolved::new("@template needs strings and found an object"));
        }
    }
    Ok(())
}
