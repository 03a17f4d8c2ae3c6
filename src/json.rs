//! Reading JSON from outside: from a webhook, an operator, a file, or LaunchDarkly.
//!
//! All such bytes are parsed here (`.clippy.toml` bans the other ways), so that nesting depth is bounded in
//! [one place](crate::design::decisions::json_in_one_place): `serde_json` stops at [`DEEPEST`] levels, and
//! the code that walks, compares, writes and drops a parsed value recurses no deeper than that.
//!
//! The bound holds only while `serde_json` is built without its features `raw_value` and
//! `arbitrary_precision`. With them, an object whose key is `$serde_json::private::RawValue` or `…::Number`
//! is not read as an object: its text is parsed in turn, with a new depth count. [`crate::receive::envelope`]
//! takes raw slices without them. Because features are unified, any dependency could switch them on (axum's
//! `json` does); the tests below then fail. They see every feature of a normal build, since dev-dependencies
//! can only add to it.

mod answer;
pub mod exact;

use serde::Deserialize;
use serde_json::{Error, Value};

pub use answer::Json;

/// The deepest nesting of arrays and objects that is read.
///
/// ```
/// use cohortd::json::{DEEPEST, from_str};
/// use serde_json::Value;
///
/// let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
/// assert!(from_str::<Value>(&nested(DEEPEST)).is_ok());
/// assert!(from_str::<Value>(&nested(DEEPEST + 1)).is_err());
/// ```
pub const DEEPEST: usize = 127;

/// The byte order mark that Windows programs put at the start of a text.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Strips a leading byte order mark, which a parser may ignore (RFC 8259, 8.1).
#[must_use]
pub fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK.as_bytes()).unwrap_or(text)
}

/// Parses a text that is exactly one value, with or without a byte order mark.
#[expect(clippy::disallowed_methods, reason = "the one place that may")]
pub fn from_slice<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(without_mark(text))
}

/// Parses a text that is exactly one value, with or without a byte order mark.
#[expect(clippy::disallowed_methods, reason = "the one place that may")]
pub fn from_str<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Error> {
    serde_json::from_str(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text))
}

/// Parses the first value of a text; also returns the bytes after it.
#[expect(clippy::disallowed_methods, reason = "the one place that may")]
#[must_use]
pub fn first<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Option<(T, &'a [u8])> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter();
    let value = values.next()?.ok()?;
    Some((value, &text[values.byte_offset()..]))
}

/// Whether arrays and objects are nested more than `most` levels deep. For values that were built, not
/// parsed.
#[must_use]
pub fn is_deeper_than(most: usize, value: &Value) -> bool {
    let inside = |value| most == 0 || is_deeper_than(most - 1, value);
    match value {
        Value::Array(items) => most == 0 || items.iter().any(inside),
        Value::Object(members) => most == 0 || members.values().any(inside),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::de::IgnoredAny;
    use serde_json::json;

    use super::*;

    fn arrays(depth: usize) -> String {
        format!("{}{}", "[".repeat(depth), "]".repeat(depth))
    }

    fn objects(depth: usize) -> String {
        format!("{}0{}", "{\"a\":".repeat(depth), "}".repeat(depth))
    }

    /// If this fails, see which dependency switches the feature on: `cargo tree -e features -i serde_json`.
    #[test]
    fn no_key_has_a_meaning_of_its_own() {
        for name in ["RawValue", "Number"] {
            let key = format!("$serde_json::private::{name}");
            for text in ["7", "[1]", "\"victim\"", "null", "{", ""] {
                let expected = Value::Object([(key.clone(), text.into())].into_iter().collect());
                let written = expected.to_string();
                let (read, _) = first::<Value>(written.as_bytes()).expect(&written);
                assert_eq!(read, expected);
                assert_eq!(from_str::<Value>(&written).expect(&written), expected);
                assert_eq!(from_slice::<Value>(written.as_bytes()).expect(&written), expected);
                assert!(from_str::<String>(&written).is_err(), "{written} is no text");
                let map: BTreeMap<String, Value> = from_str(&written).expect(&written);
                assert_eq!(map[&key], text);
                let back: Value = serde_json::from_value(expected.clone()).expect(&written);
                assert_eq!(back, expected);
            }
        }
    }

    #[test]
    fn what_is_too_deep_is_not_read_and_what_is_left_out_may_be_any_depth() {
        for text in [arrays, objects] {
            let (deep, deeper) = (text(DEEPEST), text(DEEPEST + 1));
            let value: Value = from_str(&deep).expect("it is not too deep");
            assert!(!is_deeper_than(DEEPEST, &value));
            assert!(is_deeper_than(DEEPEST - 1, &value));
            assert!(from_slice::<Value>(deep.as_bytes()).is_ok());
            assert!(from_str::<Value>(&deeper).is_err());
            assert!(from_slice::<Value>(deeper.as_bytes()).is_err());
            assert!(first::<Value>(deeper.as_bytes()).is_none());
            let within = format!("{{\"a\":{deep}}}");
            assert!(from_str::<BTreeMap<String, Value>>(&within).is_err(), "all of it counts");
            assert!(from_str::<IgnoredAny>(&text(1_000_000)).is_ok());
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_text() {
        let marked = "\u{feff}{\"a\":\"\u{feff}\"}";
        for value in [from_str::<Value>(marked), from_slice(marked.as_bytes())] {
            assert_eq!(value.expect("JSON"), json!({"a": "\u{feff}"}));
        }
        for text in ["\u{feff}\u{feff}7", " \u{feff}7", "7\u{feff}", "\u{feff}"] {
            assert!(from_str::<Value>(text).is_err(), "{text:?}");
            assert!(from_slice::<Value>(text.as_bytes()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_first_value_ends_where_it_ends() {
        let table = [
            ("{\"a\":[1]} , 2", json!({"a": [1]}), " , 2"),
            (" \"a\":1", json!("a"), ":1"),
            ("12,", json!(12), ","),
            ("[]]", json!([]), "]"),
        ];
        for (text, value, rest) in table {
            assert_eq!(first(text.as_bytes()), Some((value, rest.as_bytes())), "{text}");
        }
        for text in ["", " ", "tru", "[", "\"", "1x"] {
            assert_eq!(first::<Value>(text.as_bytes()), None, "{text}");
        }
    }
}
