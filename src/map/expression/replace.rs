//! `@replace`: a text with one or two patterns replaced. Patterns are plain texts, not regular expressions.

use std::borrow::Cow;
use std::fmt;

use serde_json::{Map, Value};

use super::super::coercion::number_text;
use super::budget::Budget;
use super::compile::Compiler;
use super::conditional::nothing;
use super::{Expression, Resolved, Unresolved};

/// Most UTF-16 units of a pattern and of a replacement ([Segment's limit](crate::design::segment::directives)).
const LONGEST: usize = 10;

pub(super) const OPTIONS: [&str; 7] =
    ["value", "pattern", "replacement", "pattern2", "replacement2", "ignorecase", "global"];

#[derive(Clone, PartialEq)]
pub(in crate::map) struct Replace {
    /// `None` for an empty text in the mapping, which resolves to nothing in the hosted integration.
    value: Option<Expression>,
    replacements: Vec<Replacement>,
    ignore_case: bool,
    everywhere: bool,
}

#[derive(Clone, PartialEq, Eq)]
struct Replacement {
    pattern: Vec<char>,
    by: String,
}

impl Replace {
    pub(super) fn compile(compiler: &mut Compiler, options: &Value) -> Option<Self> {
        let options = compiler.options(options, &OPTIONS)?;
        let value = compiler.needed(options, "value").and_then(|json| {
            if json.as_str() == Some("") {
                return Some(None);
            }
            compiler.at("value", |this| {
                let literal = |text: &str| Expression::Literal(text.into());
                this.text_or_directive(json, literal, |directive| *directive).map(Some)
            })
        });
        let pattern = compiler.needed(options, "pattern").and_then(|json| {
            compiler.at("pattern", |this| {
                let text = short_text(this, json)?;
                if text.is_empty() {
                    this.fault("must not be empty");
                }
                Some(text)
            })
        });
        let by = options
            .get("replacement")
            .map_or(Some(""), |json| compiler.at("replacement", |this| short_text(this, json)));
        let (pattern2, by2) = second(compiler, options).unwrap_or_default();
        let ignore_case = flag(compiler, options, "ignorecase", false);
        let everywhere = flag(compiler, options, "global", true);
        let replacements = [(pattern?, by?), (pattern2, by2)]
            .into_iter()
            .filter(|(pattern, _)| !pattern.is_empty())
            .map(|(pattern, by)| Replacement {
                pattern: pattern.chars().collect(),
                by: by.to_owned(),
            })
            .collect();
        Some(Self { value: value?, replacements, ignore_case, everywhere })
    }

    /// Whether the result can depend on the event.
    pub(super) fn reads_event(&self) -> bool {
        self.value.as_ref().is_some_and(Expression::reads_event)
    }

    /// A value that is not a text, number or boolean becomes an empty text, as in the hosted integration.
    pub(super) fn resolve<'a>(&'a self, event: &'a Value, budget: &Budget) -> Resolved<'a> {
        let Some(value) = &self.value else { return Ok(None) };
        let value = value.within(event, budget)?;
        let mut text = match value.as_deref() {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number_text(number),
            Some(Value::Bool(flag)) => flag.to_string(),
            _ => return Ok(Some(nothing())),
        };
        for replacement in &self.replacements {
            budget.spend(text.len())?;
            text = self.replaced(replacement, &text, budget)?;
        }
        Ok(Some(Cow::Owned(Value::String(text))))
    }

    fn replaced(
        &self,
        Replacement { pattern, by }: &Replacement,
        text: &str,
        budget: &Budget,
    ) -> Result<String, Unresolved> {
        let mut replaced = String::with_capacity(text.len());
        let mut from = 0;
        while let Some((start, end)) = self.find(pattern, text, from) {
            replaced.push_str(&text[from..start]);
            let before = replaced.len();
            insert(by, &mut replaced, (&text[..start], &text[start..end], &text[end..]));
            budget.spend(replaced.len() - before)?;
            from = end;
            if !self.everywhere {
                break;
            }
        }
        replaced.push_str(&text[from..]);
        Ok(replaced)
    }

    /// The byte offsets at which the first occurrence at or after `from` starts and ends.
    fn find(&self, pattern: &[char], text: &str, from: usize) -> Option<(usize, usize)> {
        let same = |a: char, b: char| a == b || (self.ignore_case && folded(a) == folded(b));
        text[from..].char_indices().find_map(|(offset, _)| {
            let start = from + offset;
            let mut characters = text[start..].char_indices();
            for wanted in pattern {
                let (_, found) = characters.next()?;
                if !same(found, *wanted) {
                    return None;
                }
            }
            let length = characters.next().map_or(text.len() - start, |(length, _)| length);
            Some((start, start + length))
        })
    }
}

impl fmt::Display for Replace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "@replace of {value}"),
            None => f.write_str("@replace"),
        }
    }
}

/// Appends a replacement, with its `$$`, `$&`, `` $` `` and `$'` expanded as in JavaScript.
fn insert(by: &str, to: &mut String, (before, matched, after): (&str, &str, &str)) {
    let mut rest = by;
    while let Some(at) = rest.find('$') {
        to.push_str(&rest[..at]);
        let (text, length) = match rest.as_bytes().get(at + 1) {
            Some(b'$') => ("$", 2),
            Some(b'&') => (matched, 2),
            Some(b'`') => (before, 2),
            Some(b'\'') => (after, 2),
            _ => ("$", 1),
        };
        to.push_str(text);
        rest = &rest[at + length..];
    }
    to.push_str(rest);
}

/// Folds case like a JavaScript regular expression without the unicode flag: to the upper case of a single
/// character of the basic multilingual plane, and never from outside ASCII into ASCII.
fn folded(character: char) -> char {
    if character > '\u{FFFF}' {
        return character;
    }
    let mut upper = character.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(upper), None) if character.is_ascii() || !upper.is_ascii() => upper,
        _ => character,
    }
}

fn short_text<'a>(compiler: &mut Compiler, json: &'a Value) -> Option<&'a str> {
    let text = compiler.text(json)?;
    if text.encode_utf16().count() > LONGEST {
        compiler.fault(format!("may have at most {LONGEST} characters"));
    }
    Some(text)
}

/// The second pattern and its replacement. If one of them is not a text, both are ignored, as in the hosted
/// integration.
fn second<'a>(
    compiler: &mut Compiler,
    options: &'a Map<String, Value>,
) -> Option<(&'a str, &'a str)> {
    let given = |key: &str| options.get(key).filter(|json| !json.is_null());
    let (pattern, by) = (given("pattern2"), given("replacement2"));
    let used = pattern.is_some_and(|json| json.as_str().is_some_and(|text| !text.is_empty()))
        && by.is_none_or(Value::is_string);
    if !used {
        // A directive in them must still be valid.
        for key in ["pattern2", "replacement2"] {
            let json = options.get(key);
            json.map(|json| compiler.at(key, |this| this.expression(json)));
        }
        return None;
    }
    let pattern = compiler.at("pattern2", |this| short_text(this, pattern?));
    let by = by.map_or(Some(""), |json| compiler.at("replacement2", |this| short_text(this, json)));
    pattern.zip(by)
}

fn flag(compiler: &mut Compiler, options: &Map<String, Value>, key: &str, default: bool) -> bool {
    match options.get(key) {
        None => default,
        Some(Value::Bool(flag)) => *flag,
        Some(other) => compiler.at(key, |this| {
            this.wrong("true or false", other);
            default
        }),
    }
}
