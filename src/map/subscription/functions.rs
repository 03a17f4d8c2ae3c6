//! Functions of one value. (`contains` and `match` are conditions: see `evaluate`.)
//!
//! | function | of | gives |
//! | --- | --- | --- |
//! | `length` | text, list | number of bytes, number of items; 0 for null |
//! | `lowercase`, `uppercase` | text | the text in that case |
//! | `snakecase`, `kebabcase` | text | the text with `_`, `-` in place of white space |
//! | `titlecase` | text | the text with the first letter of each word in upper case |
//! | `typeof` | anything | `"string"`, `"number"`, `"list"`, `"bool"`, `"null"` (and `"object"`) |
//! | `bool` | anything | false for null, `false`, 0, empty values and the text `false`; else true |
//! | `string` | anything but null | the text; a list or an object as JSON |
//! | `number` | number, text | the number; the whole text must be a number |
//!
//! In all other cases the result is null: a function never fails. No result is larger than a small multiple
//! of its argument.

use std::borrow::Cow;

use serde_json::Number;

use super::term::{Term, count};

/// A function of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Length,
    Lowercase,
    Uppercase,
    Snakecase,
    Kebabcase,
    Titlecase,
    Typeof,
    Bool,
    String,
    Number,
}

impl Function {
    pub(super) const ALL: [Self; 10] = [
        Self::Length,
        Self::Lowercase,
        Self::Uppercase,
        Self::Snakecase,
        Self::Kebabcase,
        Self::Titlecase,
        Self::Typeof,
        Self::Bool,
        Self::String,
        Self::Number,
    ];

    /// The name in a statement.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Lowercase => "lowercase",
            Self::Uppercase => "uppercase",
            Self::Snakecase => "snakecase",
            Self::Kebabcase => "kebabcase",
            Self::Titlecase => "titlecase",
            Self::Typeof => "typeof",
            Self::Bool => "bool",
            Self::String => "string",
            Self::Number => "number",
        }
    }

    /// The function of this name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|function| function.name() == name)
    }

    /// Applies the function to a value.
    pub(super) fn of(self, term: Term<'_>) -> Term<'_> {
        match self {
            Self::Length => length(&term),
            Self::Lowercase => changed(&term, str::to_lowercase),
            Self::Uppercase => changed(&term, str::to_uppercase),
            Self::Snakecase => changed(&term, |text| text.replace(char::is_whitespace, "_")),
            Self::Kebabcase => changed(&term, |text| text.replace(char::is_whitespace, "-")),
            Self::Titlecase => changed(&term, titlecase),
            Self::Typeof => Term::Text(Cow::Borrowed(type_name(&term))),
            Self::Bool => Term::Bool(is_true(&term)),
            Self::String => text(term),
            Self::Number => number(term),
        }
    }
}

fn length(term: &Term<'_>) -> Term<'static> {
    match term {
        Term::Null => count(0),
        Term::Text(text) => count(text.len()),
        Term::List(items) => count(items.len()),
        _ => Term::Null,
    }
}

fn changed(term: &Term<'_>, change: impl Fn(&str) -> String) -> Term<'static> {
    match term {
        Term::Text(text) => Term::Text(Cow::Owned(change(text))),
        _ => Term::Null,
    }
}

fn titlecase(text: &str) -> String {
    let mut title = String::with_capacity(text.len());
    let mut word_starts = true;
    for character in text.chars() {
        if word_starts {
            title.extend(character.to_uppercase());
        } else {
            title.push(character);
        }
        word_starts = character.is_whitespace();
    }
    title
}

fn type_name(term: &Term<'_>) -> &'static str {
    match term {
        Term::Null => "null",
        Term::Bool(_) => "bool",
        Term::Number(_) => "number",
        Term::Text(_) => "string",
        Term::List(_) => "list",
        Term::Object(_) => "object",
    }
}

fn is_true(term: &Term<'_>) -> bool {
    match term {
        Term::Null => false,
        Term::Bool(flag) => *flag,
        Term::Number(number) => number.abs() > 0.0,
        Term::Text(text) => !matches!(text.as_ref(), "" | "false"),
        Term::List(items) => !items.is_empty(),
        Term::Object(members) => !members.is_empty(),
    }
}

/// The value as a text; null stays null.
pub(super) fn text(term: Term<'_>) -> Term<'_> {
    Term::Text(match term {
        Term::Null => return Term::Null,
        Term::Text(text) => text,
        Term::Bool(flag) => Cow::Borrowed(if flag { "true" } else { "false" }),
        Term::Number(number) => Cow::Owned(as_javascript(number)),
        Term::List(items) => Cow::Owned(json(items)),
        Term::Object(members) => Cow::Owned(json(members)),
    })
}

fn number(term: Term<'_>) -> Term<'_> {
    match term {
        Term::Text(text) => parse_number(&text).map_or(Term::Null, Term::Number),
        Term::Number(_) => term,
        _ => Term::Null,
    }
}

/// A number as statements may contain it: digits, neither `inf` nor `nan`, and within the range of a float.
pub(super) fn parse_number(text: &str) -> Option<f64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let spelled = digits.starts_with(|first: char| first.is_ascii_digit());
    text.parse().ok().filter(|number: &f64| spelled && number.is_finite())
}

/// The text that JavaScript prints for a number.
pub(super) fn number_text(number: &Number) -> String {
    number.as_f64().map_or_else(|| number.to_string(), as_javascript)
}

fn as_javascript(number: f64) -> String {
    ryu_js::Buffer::new().format(number).to_owned()
}

fn json(value: &(impl serde::Serialize + ?Sized)) -> String {
    serde_json::to_string(value).unwrap_or_default() // cannot fail: all keys are texts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn functions_of_values() {
        let null = || json!(null);
        let rows = [
            (Function::Length, json!("abc"), json!(3.0)),
            (Function::Length, json!("ア"), json!(3.0)),
            (Function::Length, json!(["a", 1]), json!(2.0)),
            (Function::Length, null(), json!(0.0)),
            (Function::Length, json!(7), null()),
            (Function::Length, json!({"a": 1}), null()),
            (Function::Lowercase, json!("Żółć ABC"), json!("żółć abc")),
            (Function::Lowercase, null(), null()),
            (Function::Lowercase, json!(7), null()),
            (Function::Uppercase, json!("straße"), json!("STRASSE")),
            (Function::Snakecase, json!("Test  string"), json!("Test__string")),
            (Function::Kebabcase, json!("test string"), json!("test-string")),
            (Function::Titlecase, json!("test string"), json!("Test String")),
            (Function::Titlecase, json!(" eNd  ß"), json!(" ENd  SS")),
            (Function::Titlecase, json!(""), json!("")),
            (Function::Typeof, json!("a"), json!("string")),
            (Function::Typeof, json!(1), json!("number")),
            (Function::Typeof, json!([]), json!("list")),
            (Function::Typeof, json!(true), json!("bool")),
            (Function::Typeof, null(), json!("null")),
            (Function::Typeof, json!({}), json!("object")),
            (Function::Bool, null(), json!(false)),
            (Function::Bool, json!(false), json!(false)),
            (Function::Bool, json!(true), json!(true)),
            (Function::Bool, json!(0), json!(false)),
            (Function::Bool, json!(-0.5), json!(true)),
            (Function::Bool, json!(""), json!(false)),
            (Function::Bool, json!("false"), json!(false)),
            (Function::Bool, json!("no"), json!(true)),
            (Function::Bool, json!([]), json!(false)),
            (Function::Bool, json!([0]), json!(true)),
            (Function::String, null(), null()),
            (Function::String, json!("a"), json!("a")),
            (Function::String, json!(1.0), json!("1")),
            (Function::String, json!(1e21), json!("1e+21")),
            (Function::String, json!(true), json!("true")),
            (Function::String, json!(["a", 1]), json!("[\"a\",1]")),
            (Function::Number, json!("49.5"), json!(49.5)),
            (Function::Number, json!("-1e3"), json!(-1000.0)),
            (Function::Number, json!(7), json!(7.0)),
            (Function::Number, json!(" 7"), null()),
            (Function::Number, json!("7 apples"), null()),
            (Function::Number, json!("inf"), null()),
            (Function::Number, json!("NaN"), null()),
            (Function::Number, json!("1e999"), null()),
            (Function::Number, json!(""), null()),
            (Function::Number, json!(true), null()),
            (Function::Number, null(), null()),
        ];
        for (function, value, expected) in rows {
            let found = function.of(Term::from(&value));
            assert_eq!(found, Term::from(&expected), "{}({value})", function.name());
        }
    }

    #[test]
    fn every_function_has_its_own_name() {
        for function in Function::ALL {
            assert_eq!(Function::from_name(function.name()), Some(function));
        }
    }
}
