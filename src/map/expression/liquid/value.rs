//! Values as JavaScript sees them: texts, truthiness, numbers, comparison and properties.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use super::super::super::coercion::number_text;
use super::super::template::is_space;

/// A value, or `None` if there is none; both `None` and null are nil.
pub(super) type Found<'a> = Option<Cow<'a, Value>>;

/// The text that an output writes for a value.
pub(super) fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(Value::Number(number)) => number_text(number),
        Some(Value::Array(items)) => items.iter().map(|item| text(Some(item))).collect(),
        Some(Value::Object(_)) => "[object Object]".to_owned(),
    }
}

/// Whether a value is truthy in Liquid: everything is but false and nil.
pub(super) fn is_true(value: Option<&Value>) -> bool {
    !matches!(value, None | Some(Value::Null | Value::Bool(false)))
}

/// A number for arithmetic; anything that is not a number counts as zero.
pub(super) fn to_number(value: Option<&Value>) -> f64 {
    let number = coerced(value);
    if number.is_nan() { 0.0 } else { number }
}

/// JavaScript's `Number(…)`.
pub(super) fn coerced(value: Option<&Value>) -> f64 {
    match value {
        Some(Value::Null) => 0.0,
        Some(Value::Bool(flag)) => f64::from(u8::from(*flag)),
        Some(Value::Number(number)) => number.as_f64().unwrap_or(f64::NAN),
        Some(Value::String(text)) => parsed(text.trim_matches(is_space)).unwrap_or(f64::NAN),
        Some(list @ Value::Array(_)) => coerced(Some(&Value::String(joined(list)))),
        None | Some(Value::Object(_)) => f64::NAN,
    }
}

/// Parses a trimmed text as JavaScript's `Number` does: an empty text is zero, and a prefix may select
/// another base.
fn parsed(text: &str) -> Option<f64> {
    const BASES: [(&str, u32); 6] =
        [("0x", 16), ("0X", 16), ("0o", 8), ("0O", 8), ("0b", 2), ("0B", 2)];
    if text.is_empty() {
        return Some(0.0);
    }
    let based = |(prefix, base): &(&str, u32)| Some((text.strip_prefix(prefix)?, *base));
    if let Some((digits, base)) = BASES.iter().find_map(based) {
        let add =
            |sum: f64, digit: char| Some(sum * f64::from(base) + f64::from(digit.to_digit(base)?));
        return if digits.is_empty() { None } else { digits.chars().try_fold(0.0, add) };
    }
    match text.strip_prefix(['+', '-']).unwrap_or(text) {
        // Of the words that Rust parses as numbers, JavaScript knows only this one, in this spelling.
        unsigned
            if unsigned.contains(|c: char| c.is_ascii_alphabetic() && !matches!(c, 'e' | 'E')) =>
        {
            (unsigned == "Infinity").then(|| text.parse().ok())?
        }
        _ => text.parse().ok(),
    }
}

/// The text of a value where JavaScript needs a primitive: the items of a list are joined with commas.
fn joined(value: &Value) -> String {
    match value {
        Value::Array(items) => items.iter().map(joined).collect::<Vec<_>>().join(","),
        other => text(Some(other)),
    }
}

/// A JSON number, without a fraction if it is whole; what JSON cannot represent becomes the text that
/// JavaScript writes.
pub(super) fn number(number: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and small enough")]
        return Value::from(number as i64);
    }
    let special = if number.is_nan() {
        "NaN"
    } else if number > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    serde_json::Number::from_f64(number).map_or_else(|| special.into(), Value::Number)
}

pub(super) fn equal(a: Option<&Value>, b: Option<&Value>) -> bool {
    match (a, b) {
        (None | Some(Value::Null), None | Some(Value::Null)) => true,
        (Some(Value::Number(a)), Some(Value::Number(b))) => a == b || a.as_f64() == b.as_f64(),
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(Some(a), Some(b)))
        }
        // Two objects are equal only if they are the same object.
        (Some(Value::Object(a)), Some(Value::Object(b))) => std::ptr::eq(a, b),
        (a, b) => a == b,
    }
}

/// `None` if the values cannot be ordered.
pub(super) fn compare(a: Option<&Value>, b: Option<&Value>) -> Option<Ordering> {
    let as_text = |value: Option<&Value>| match value {
        Some(value @ (Value::String(_) | Value::Array(_) | Value::Object(_))) => {
            Some(joined(value))
        }
        _ => None,
    };
    if let (Some(a), Some(b)) = (as_text(a), as_text(b)) {
        return Some(a.encode_utf16().cmp(b.encode_utf16()));
    }
    coerced(a).partial_cmp(&coerced(b))
}

pub(super) fn contains(whole: Option<&Value>, part: Option<&Value>) -> bool {
    match whole {
        // JavaScript would look for the word "undefined" or "null".
        Some(Value::String(_)) if matches!(part, None | Some(Value::Null)) => false,
        Some(Value::String(whole)) => whole.contains(&text(part)),
        Some(Value::Array(items)) => items.iter().any(|item| equal(Some(item), part)),
        _ => false,
    }
}

pub(super) fn is_empty(value: Option<&Value>) -> bool {
    match value {
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(members)) => members.is_empty(),
        _ => false,
    }
}

pub(super) fn is_blank(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => true,
        Some(Value::String(text)) => text.chars().all(is_space),
        other => is_empty(other),
    }
}

/// The value under a key; also `first` and `last` of lists, and `size` of lists, texts and objects.
pub(super) fn property<'a>(of: Cow<'a, Value>, key: &Value) -> Found<'a> {
    let name = text(Some(key));
    match of {
        Cow::Borrowed(Value::Object(members)) if members.contains_key(&name) => {
            members.get(&name).map(Cow::Borrowed)
        }
        Cow::Borrowed(Value::Array(items)) => {
            if let Some(at) = position(key, &name, items.len()) {
                return items.get(at).map(Cow::Borrowed);
            }
            size(&name, items.len())
        }
        Cow::Owned(Value::Object(mut members)) if members.contains_key(&name) => {
            members.swap_remove(&name).map(Cow::Owned)
        }
        Cow::Owned(Value::Array(mut items)) => {
            let length = items.len();
            match position(key, &name, length) {
                Some(at) => (at < length).then(|| Cow::Owned(items.swap_remove(at))),
                None => size(&name, length),
            }
        }
        of => match &*of {
            Value::Object(members) if name == "size" => Some(Cow::Owned(members.len().into())),
            Value::String(of) => match name.parse::<usize>() {
                Ok(at) if at.to_string() == name => {
                    let unit = of.encode_utf16().nth(at)?;
                    let character = char::from_u32(unit.into())?;
                    Some(Cow::Owned(character.to_string().into()))
                }
                _ => size(&name, of.encode_utf16().count()),
            },
            _ => None,
        },
    }
}

fn size<'a>(name: &str, size: usize) -> Found<'a> {
    matches!(name, "size" | "length").then(|| Cow::Owned(size.into()))
}

/// The index that a key means in a list of this length. Negative keys count from the end, but only if they
/// are numbers.
fn position(key: &Value, name: &str, length: usize) -> Option<usize> {
    match name {
        "first" => Some(0),
        "last" => Some(length.saturating_sub(1)),
        _ => match name.parse::<i64>() {
            Ok(at) if at.to_string() != name => None,
            Ok(at) if at < 0 && !key.is_number() => None,
            Ok(at) if at < 0 => length.checked_sub(usize::try_from(at.unsigned_abs()).ok()?),
            Ok(at) => usize::try_from(at).ok(),
            Err(_) => None,
        },
    }
}
