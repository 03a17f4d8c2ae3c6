//! Numbers that a 64-bit float would change, kept as texts of their digits.
//!
//! `serde_json` reads an integer beyond 64 bits as a float, and likewise one that is written with a fraction
//! or an exponent: the users 117000000000000000001 and …002 would become one. Its feature
//! `arbitrary_precision` is not an option (see [`crate::json`]). A text that contains such a number is
//! therefore parsed twice: as it is, for comparisons, and with strings in place of those numbers, for values
//! that become text.
//!
//! # What is exact
//! * An integer written in digits, of any size: `117000000000000000001`.
//! * An integer written with a fraction of zeros or with an exponent, if it is below 1e21 (up to there
//!   JavaScript writes integers in digits): `117000000000000000001.0` and `1.17000000000000000001e20` are the
//!   same id.
//!
//! Any other number is a float, and its text is what JavaScript prints for it: `1e21` is `1e+21`, and `0.1`
//! followed by twenty more digits is `0.1`. A number that overflows a float (`1e400`) is valid JSON that
//! `serde_json` refuses: it compares like the largest float, and its text is JavaScript's `Infinity`. Only
//! texts that failed to parse are searched for such numbers.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde_json::{Error, Value};

/// Fewest significant digits at which a float can lose one; fewer are always exact.
const LEAST_DIGITS: usize = 16;

/// Most digits before the decimal point that JavaScript writes out; larger numbers get an exponent.
const MOST_PADDED: usize = 21;

/// Digits before the decimal point of the largest float.
const MOST_DIGITS: usize = f64::MAX_10_EXP as usize + 1;

/// What JavaScript prints for a number that overflows a float.
const INFINITY: &str = "Infinity";
const MINUS_INFINITY: &str = "-Infinity";

/// A parsed value that lost no digit. Not `Debug`: it may be an event ([P8](crate::design::P8)).
#[derive(Clone, Default)]
pub struct Exact {
    value: Value,
    /// The same value with strings in place of numbers that parsing changed; `None` if it changed none.
    texts: Option<Value>,
}

impl Exact {
    /// Parses a text that is exactly one value.
    ///
    /// # Errors
    /// The text is not one valid JSON value.
    pub fn read(text: &[u8]) -> Result<Self, Error> {
        let (value, texts) = match value_of(text) {
            Ok(value) if may_be_inexact(text) => (value, replaced(text, inexact)),
            Ok(value) => (value, None),
            Err(error) => match replaced(text, largest_for) {
                Some(bounded) => (value_of(&bounded)?, replaced(text, inexact)),
                None => return Err(error),
            },
        };
        let texts = texts.map(|text| super::from_slice(&text)).transpose()?;
        Ok(Self { value, texts })
    }

    /// The value with strings in place of numbers that parsing changed.
    #[must_use]
    pub fn into_texts(self) -> Value {
        self.texts.unwrap_or(self.value)
    }

    /// Whether parsing changed no number, so that one tree serves both purposes.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.texts.is_none()
    }

    /// The value with numbers as `serde_json` parsed them.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The value with strings in place of numbers that parsing changed.
    #[must_use]
    pub fn texts(&self) -> &Value {
        self.texts.as_ref().unwrap_or(&self.value)
    }

    /// Applies `change` to both trees.
    pub fn each(&mut self, mut change: impl FnMut(&mut Value)) {
        change(&mut self.value);
        self.texts.as_mut().map(change);
    }

    /// Applies `change` to both trees, each together with the corresponding tree of `other`.
    pub fn with(&mut self, other: &Self, mut change: impl FnMut(&mut Value, &Value)) {
        if other.texts.is_some() && self.texts.is_none() {
            self.texts = Some(self.value.clone());
        }
        change(&mut self.value, &other.value);
        if let Some(texts) = &mut self.texts {
            change(texts, other.texts());
        }
    }

    /// The value as JSON, each number with the digits it was parsed from.
    #[must_use]
    pub fn to_json(&self) -> String {
        let Some(texts) = &self.texts else { return self.value.to_string() };
        let mut json = String::new();
        write(&self.value, texts, &mut json);
        json
    }
}

fn value_of(text: &[u8]) -> Result<Value, Error> {
    match str::from_utf8(text) {
        Ok(text) => super::from_str(text), // validates UTF-8 once, not for every string
        Err(_) => super::from_slice(text),
    }
}

fn write(value: &Value, texts: &Value, json: &mut String) {
    match (value, texts) {
        (Value::Number(_), Value::String(text)) if text == INFINITY => json.push_str("1e999"),
        (Value::Number(_), Value::String(text)) if text == MINUS_INFINITY => {
            json.push_str("-1e999");
        }
        (Value::Number(_), Value::String(digits)) => json.push_str(digits),
        (Value::Array(items), Value::Array(texts)) => {
            json.push('[');
            for (index, (item, text)) in items.iter().zip(texts).enumerate() {
                json.push_str(if index == 0 { "" } else { "," });
                write(item, text, json);
            }
            json.push(']');
        }
        (Value::Object(members), Value::Object(texts)) => {
            json.push('{');
            for (index, ((key, member), text)) in members.iter().zip(texts.values()).enumerate() {
                json.push_str(if index == 0 { "" } else { "," });
                json.push_str(&Value::from(key.as_str()).to_string());
                json.push(':');
                write(member, text, json);
            }
            json.push('}');
        }
        (value, _) => json.push_str(&value.to_string()),
    }
}

/// A valid JSON text with strings in place of numbers that parsing would change; `None` if there is none.
#[must_use]
pub fn with_texts(text: &[u8]) -> Option<Vec<u8>> {
    let is_likely = may_be_inexact(text) || may_be_beyond_floats(text);
    if is_likely { replaced(text, inexact) } else { None }
}

/// A JSON text in which `other` replaces some numbers; `None` if it replaces none. Invalid JSON stays
/// invalid.
fn replaced(text: &[u8], other: impl Fn(&str) -> Option<Cow<'_, str>>) -> Option<Vec<u8>> {
    let mut changed = Vec::new();
    let (mut copied, mut at) = (0, 0);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => at = behind_string(text, at),
            b'-' | b'0'..=b'9' => {
                let is_part =
                    |byte: &&u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let end = at + text[at..].iter().take_while(is_part).count();
                let number = str::from_utf8(&text[at..end]).ok();
                if let Some(other) = number.and_then(&other) {
                    changed.extend_from_slice(&text[copied..at]);
                    changed.extend_from_slice(other.as_bytes());
                    copied = end;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    if copied == 0 {
        return None;
    }
    changed.extend_from_slice(&text[copied..]);
    Some(changed)
}

/// Whether the text contains a run of digits long enough for a float to lose one. Looks at a fraction of the
/// bytes only, because most texts contain no such run.
#[must_use]
pub fn may_be_inexact(text: &[u8]) -> bool {
    const STEP: usize = LEAST_DIGITS / 2; // so that every run of LEAST_DIGITS is sampled twice
    let is_part = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    let mut at = STEP;
    while let Some(byte) = text.get(at) {
        if is_part(*byte) && is_part(text[at - STEP]) && is_long(text, at - STEP) {
            return true;
        }
        at += STEP;
    }
    false
}

/// Whether the text contains an exponent large enough to overflow a float with few digits. Looks at every
/// byte.
#[must_use]
pub fn may_be_beyond_floats(text: &[u8]) -> bool {
    text.windows(4).enumerate().any(|(at, window)| {
        let [b'e' | b'E', first, second, third] = window else { return false };
        let signed = || *first == b'+' && text.get(at + 4).is_some_and(u8::is_ascii_digit);
        (first.is_ascii_digit() || signed()) && second.is_ascii_digit() && third.is_ascii_digit()
    })
}

/// Whether at least [`LEAST_DIGITS`] digits surround `place`, with nothing but a decimal point between them.
fn is_long(text: &[u8], place: usize) -> bool {
    let is_part = |byte: &&u8| byte.is_ascii_digit() || **byte == b'.';
    let before = text[..place].iter().rev().take(LEAST_DIGITS).take_while(is_part);
    let behind = text[place..].iter().take(2 * LEAST_DIGITS).take_while(is_part);
    before.chain(behind).filter(|byte| **byte != b'.').count() >= LEAST_DIGITS
}

/// The position after the string that begins at `start`.
fn behind_string(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

/// The JSON string that replaces a number, if parsing would change the number.
fn inexact(number: &str) -> Option<Cow<'_, str>> {
    let text = inexact_integer(number).or_else(|| {
        let held = beyond_floats(number)?;
        Some(Cow::Borrowed(if held < 0.0 { MINUS_INFINITY } else { INFINITY }))
    })?;
    Some(Cow::Owned(format!("\"{text}\"")))
}

/// The largest float with the same sign, as JSON, for a number that overflows a float.
fn largest_for(number: &str) -> Option<Cow<'_, str>> {
    let held = beyond_floats(number)?;
    Some(Cow::Owned(Value::from(f64::MAX.copysign(held)).to_string()))
}

/// The infinity that JavaScript reads for a number that overflows a float; `None` for any other number.
fn beyond_floats(number: &str) -> Option<f64> {
    if number.len() <= MOST_DIGITS && !number.contains(['e', 'E']) {
        return None;
    }
    let held: f64 = number.parse().ok()?;
    // Rust's parser accepts more than JSON does
    (held.is_infinite() && super::from_str::<IgnoredAny>(number).is_ok()).then_some(held)
}

/// The digits of an integer, if parsing would change the number.
fn inexact_integer(number: &str) -> Option<Cow<'_, str>> {
    if number.len() < LEAST_DIGITS {
        return None;
    }
    let (sign, unsigned) = number.strip_prefix('-').map_or(("", number), |rest| ("-", rest));
    if unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        let is_held = number.parse::<u64>().is_ok() || number.parse::<i64>().is_ok();
        return (!is_held).then_some(Cow::Borrowed(number));
    }
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent: i64 = exponent.parse().ok()?;
    let digits = [whole, fraction].concat();
    let significant = digits.trim_start_matches('0');
    let leading_zeros = digits.len() - significant.len();
    let significant = significant.trim_end_matches('0');
    let before_point = i64::try_from(whole.len()).ok()?.checked_add(exponent)?;
    let before_point = before_point.checked_sub(i64::try_from(leading_zeros).ok()?)?;
    let before_point =
        usize::try_from(before_point).ok().filter(|so_many| *so_many <= MOST_PADDED)?;
    if significant.is_empty() || significant.len() > before_point {
        return None; // zero, or not an integer
    }
    let integer = format!("{sign}{significant:0<before_point$}");
    let held: f64 = number.parse().ok()?;
    (held.to_string() != integer).then_some(Cow::Owned(integer))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_integer_that_a_float_would_change_is_a_text_of_its_digits() {
        let rows = [
            ("117000000000000000001", Some("117000000000000000001")),
            ("-117000000000000000002", Some("-117000000000000000002")),
            ("18446744073709551615", None), // 64 bits
            ("18446744073709551616", Some("18446744073709551616")),
            ("-9223372036854775808", None),
            ("-9223372036854775809", Some("-9223372036854775809")),
            ("1000000000000000000000000", Some("1000000000000000000000000")),
            ("117000000000000000001.0", Some("117000000000000000001")),
            ("1.17000000000000000001e20", Some("117000000000000000001")),
            ("1.17000000000000000001E+20", Some("117000000000000000001")),
            ("11700000000000000000.10e1", Some("117000000000000000001")),
            ("1170000000000000000010e-1", Some("117000000000000000001")),
            ("0.0117000000000000000001e22", Some("117000000000000000001")),
            ("9007199254740993.0", Some("9007199254740993")),
            ("-9007199254740993.0", Some("-9007199254740993")),
            ("9007199254740992.0", None), // exact in a float
            ("1.170000000000000000e20", None),
            ("117000000000000000000.0", None),
            ("1.0000000000000000000001e22", None), // JavaScript would write an exponent
            ("1.0000000000000000000001e9999999999999999999", Some("Infinity")),
            ("0.10000000000000000555", None), // not an integer
            ("117000000000000000001.5", None),
            ("0.0000000000000000", None),
            ("1e20", None),
            ("7", None),
        ];
        for (number, expected) in rows {
            let in_json = expected.map(|text| format!("\"{text}\""));
            assert_eq!(inexact(number).as_deref(), in_json.as_deref(), "{number}");
            for (before, behind) in [("", ""), ("[", "]"), (r#"{"a\"1":["#, r#"], "b": 1}"#)] {
                let text = format!("{before}{number}{behind}");
                let changed = expected.map(|digits| format!("{before}\"{digits}\"{behind}"));
                assert_eq!(with_texts(text.as_bytes()), changed.map(String::into_bytes), "{text}");
            }
        }
        let texts =
            r#"{"117000000000000000001":"117000000000000000001","a":"\"117000000000000000001"}"#;
        assert_eq!(with_texts(texts.as_bytes()), None, "texts are left alone");
    }

    #[test]
    fn both_are_changed_alike_and_written_with_every_digit() {
        let read = |text: &str| Exact::read(text.as_bytes()).expect("JSON");
        let mut one = read(r#"{"id":117000000000000000001,"a":[1.0,{"\n":null}],"c":"x"}"#);
        assert_eq!(one.value()["id"], json!(117_000_000_000_000_000_000.0));
        assert_eq!(one.texts()["id"], "117000000000000000001");
        one.each(|value| drop(value.as_object_mut().expect("an object").remove("c")));
        assert_eq!(one.to_json(), r#"{"id":117000000000000000001,"a":[1.0,{"\n":null}]}"#);
        let mut plain = read(r#"{"b":1}"#);
        plain.with(&one, |value, other| value["one"] = other.clone());
        let expected = r#"{"b":1,"one":{"id":117000000000000000001,"a":[1.0,{"\n":null}]}}"#;
        assert_eq!(plain.to_json(), expected);
        one.with(&read("7"), |value, other| value["id"] = other.clone());
        assert_eq!((&one.value()["id"], &one.texts()["id"]), (&json!(7), &json!(7)));
        assert!(Exact::read(b"{117000000000000000001:1}").is_err(), "no more is JSON than before");
    }

    #[test]
    fn a_number_that_no_float_holds_costs_no_event() {
        let long = |last: char| format!("{}{last}", "9".repeat(400));
        let (one, other) = (long('1'), long('2'));
        let rows = [
            (&one[..], &one[..], 1.0),
            (&other, &other, 1.0),
            (&format!("-{one}"), &format!("-{one}"), -1.0),
            ("1e400", "Infinity", 1.0),
            ("-1.5E+400", "-Infinity", -1.0),
            ("1e99999999999999999999", "Infinity", 1.0),
            (&format!("{one}.5"), "Infinity", 1.0),
        ];
        for (number, text, sign) in rows {
            let json = format!(r#"{{"a":"1e400","b":[{number}],"c":1e300}}"#);
            let read = Exact::read(json.as_bytes()).expect(number);
            assert_eq!(read.value()["b"][0], json!(f64::MAX * sign), "{number}");
            assert_eq!(read.texts()["b"][0], text, "{number}");
            assert_eq!((&read.texts()["a"], &read.texts()["c"]), (&json!("1e400"), &json!(1e300)));
            let again = Exact::read(read.to_json().as_bytes()).expect(number);
            assert_eq!((again.value(), again.texts()), (read.value(), read.texts()), "{number}");
            let rewritten: Value =
                crate::json::from_slice(&with_texts(json.as_bytes()).expect(number)).expect(number);
            assert_eq!(&rewritten, read.texts(), "{number}");
        }
        for number in ["0e99999999999999999999", "1e308", "1e-400", "-0e400"] {
            let read = Exact::read(format!("[{number}]").as_bytes()).expect(number);
            assert!(read.is_plain(), "{number}");
        }
        for text in [
            "[01e400]",
            "[1.e400]",
            "[.5e400]",
            "[+1e400]",
            "[1e400e5]",
            "[1e]",
            "{1e400:1}",
            "[1e400",
            "[1e400,]",
        ] {
            assert!(Exact::read(text.as_bytes()).is_err(), "{text}");
        }
        let deep = format!("{}1e400{}", "[".repeat(200), "]".repeat(200));
        assert!(Exact::read(deep.as_bytes()).is_err(), "the bound on the depth holds");
    }

    #[test]
    fn an_exponent_that_may_go_beyond_floats_is_seen() {
        for text in ["1e400", "[1E+400]", "1e0309 "] {
            assert!(may_be_beyond_floats(text.as_bytes()), "{text}");
        }
        for text in ["", "1e99", "1e-400", "e+12", "seen 100", "e12"] {
            assert!(!may_be_beyond_floats(text.as_bytes()), "{text}");
        }
    }

    proptest! {
        /// Writing gives back the text that was read, and texts exist exactly where a float would lose
        /// digits.
        #[test]
        fn no_digit_is_lost(whole in "-?[1-9][0-9]{0,30}", others in "[a-z0-9.\\-: ]{0,40}") {
            let text = format!(r#"{{"a":"{others}","b":[{whole}],"c":"{others}"}}"#);
            let read = Exact::read(text.as_bytes()).expect("JSON");
            prop_assert_eq!(read.to_json(), text);
            let number = &read.texts()["b"][0];
            let is_held = whole.parse::<i64>().is_ok() || whole.parse::<u64>().is_ok();
            prop_assert_eq!(number.is_number(), is_held);
            prop_assert_eq!(number.as_str().map_or_else(|| number.to_string(), str::to_owned), whole);
        }
    }
}
