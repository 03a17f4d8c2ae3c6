//! Converts the JSON value that a field resolves to into the type of the field.
//!
//! As Segment's hosted integration does it (recorded in `tests/conformance`): numbers and booleans become
//! text; a list of one item counts as that item, unless an object is needed; objects and other lists do not
//! fit. Two departures, both on purpose:
//! * An empty text is no value, for a single event and in a batch alike.
//! * An integer keeps all its digits. Rounding it to a 64-bit float first, as JavaScript does, would merge
//!   two people into one member. An integer beyond 64 bits arrives here as a text ([`super::Event`]).

use std::borrow::Cow;

use serde_json::{Map, Value};

/// The value exists but cannot be converted to the type of the field; says what it is instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unfit(pub(super) &'static str);

/// A text; `None` if the value is null or empty.
pub(super) fn text(value: &Value) -> Result<Option<Cow<'_, str>>, Unfit> {
    let text = match only_item(value) {
        Value::Null => return Ok(None),
        Value::String(text) => Cow::Borrowed(text.as_str()),
        Value::Bool(flag) => Cow::Borrowed(if *flag { "true" } else { "false" }),
        Value::Number(number) => Cow::Owned(number_text(number)),
        other => return Err(Unfit(kind(other))),
    };
    Ok((!text.is_empty()).then_some(text))
}

/// An object; `None` if the value is null or an empty text.
pub(super) fn object(value: &Value) -> Result<Option<&Map<String, Value>>, Unfit> {
    match value {
        Value::Object(members) => Ok(Some(members)),
        other if is_nothing(other) => Ok(None),
        other => Err(Unfit(kind(other))),
    }
}

/// A boolean; `None` if the value is null or an empty text.
pub(super) fn boolean(value: &Value) -> Result<Option<bool>, Unfit> {
    let value = only_item(value);
    match value {
        Value::Bool(flag) => Ok(Some(*flag)),
        Value::String(text) if text == "true" => Ok(Some(true)),
        Value::String(text) if text == "false" => Ok(Some(false)),
        Value::Number(number) if number.as_f64() == Some(1.0) => Ok(Some(true)),
        Value::Number(number) if number.as_f64() == Some(0.0) => Ok(Some(false)),
        other if is_nothing(other) => Ok(None),
        other => Err(Unfit(kind(other))),
    }
}

/// The type of a JSON value, with its article, for use in a sentence.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn only_item(value: &Value) -> &Value {
    match value {
        Value::Array(items) if items.len() == 1 => &items[0],
        other => other,
    }
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}

/// Integers with all their digits; any other number as JavaScript prints it.
pub(super) fn number_text(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => ryu_js::Buffer::new().format(float).to_owned(),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str) -> Value {
        serde_json::from_str(json).expect("the tables hold JSON")
    }

    #[test]
    fn texts() {
        let rows: [(&str, Result<Option<&str>, Unfit>); 28] = [
            (r#""u1""#, Ok(Some("u1"))),
            (r#"" u1 ""#, Ok(Some(" u1 "))),
            (r#""""#, Ok(None)),
            ("null", Ok(None)),
            ("true", Ok(Some("true"))),
            ("false", Ok(Some("false"))),
            ("0", Ok(Some("0"))),
            ("-0", Ok(Some("0"))),
            ("-7", Ok(Some("-7"))),
            ("12.0", Ok(Some("12"))),
            ("1.5", Ok(Some("1.5"))),
            ("1e21", Ok(Some("1e+21"))),
            ("1e-7", Ok(Some("1e-7"))),
            ("0.000001", Ok(Some("0.000001"))),
            ("5.67e20", Ok(Some("567000000000000000000"))),
            // Comes out one digit off unless floats are parsed exactly.
            ("31.245270191439438", Ok(Some("31.245270191439438"))),
            ("9007199254740993", Ok(Some("9007199254740993"))),
            ("18446744073709551615", Ok(Some("18446744073709551615"))),
            ("-9223372036854775808", Ok(Some("-9223372036854775808"))),
            ("123456789012345678901234", Ok(Some("1.2345678901234569e+23"))),
            (r#"["u1"]"#, Ok(Some("u1"))),
            ("[7]", Ok(Some("7"))),
            (r#"[""]"#, Ok(None)),
            ("[null]", Ok(None)),
            ("[]", Err(Unfit("a list"))),
            (r#"["a","b"]"#, Err(Unfit("a list"))),
            (r#"[["a"]]"#, Err(Unfit("a list"))),
            (r#"{"id":"u1"}"#, Err(Unfit("an object"))),
        ];
        for (json, expected) in rows {
            assert_eq!(text(&parsed(json)), expected.map(|t| t.map(Cow::Borrowed)), "{json}");
        }
    }

    #[test]
    fn objects() {
        let rows = [
            ("{}", Ok(true)),
            (r#"{"a":1}"#, Ok(true)),
            ("[{}]", Err(Unfit("a list"))),
            ("null", Ok(false)),
            (r#""""#, Ok(false)),
            (r#""text""#, Err(Unfit("a string"))),
            ("true", Err(Unfit("a boolean"))),
            ("1", Err(Unfit("a number"))),
            ("[]", Err(Unfit("a list"))),
        ];
        for (json, expected) in rows {
            assert_eq!(object(&parsed(json)).map(|o| o.is_some()), expected, "{json}");
        }
    }

    #[test]
    fn booleans() {
        let rows = [
            ("true", Ok(Some(true))),
            ("false", Ok(Some(false))),
            (r#""true""#, Ok(Some(true))),
            (r#""false""#, Ok(Some(false))),
            ("1", Ok(Some(true))),
            ("0", Ok(Some(false))),
            ("[true]", Ok(Some(true))),
            ("null", Ok(None)),
            (r#""""#, Ok(None)),
            (r#""yes""#, Err(Unfit("a string"))),
            ("2", Err(Unfit("a number"))),
            ("{}", Err(Unfit("an object"))),
        ];
        for (json, expected) in rows {
            assert_eq!(boolean(&parsed(json)), expected, "{json}");
        }
    }
}
