//! Filters that work on text. Lengths count UTF-16 units, as in JavaScript.

use serde_json::Value;

use super::super::Unresolved;
use super::super::template::is_space;
use super::filters::Arguments;
use super::value::{coerced, text};

/// Charged for every piece of a split text, on top of its characters.
const BYTES_A_PIECE: usize = 32;

pub(super) fn split(
    value: Option<&Value>,
    arguments: &Arguments<'_>,
) -> Result<Option<Value>, Unresolved> {
    let (whole, separator) = (text(value), arguments.text(0));
    let pieces = if separator.is_empty() { whole.len() } else { whole.matches(&separator).count() };
    arguments.budget.spend(pieces.saturating_mul(BYTES_A_PIECE))?;
    let mut pieces: Vec<String> = if separator.is_empty() {
        whole.chars().map(String::from).collect()
    } else {
        whole.split(&separator).map(str::to_owned).collect()
    };
    while pieces.last().is_some_and(String::is_empty) {
        pieces.pop();
    }
    Ok(Some(pieces.into()))
}

pub(super) fn replace(
    value: Option<&Value>,
    arguments: &Arguments<'_>,
) -> Result<Option<Value>, Unresolved> {
    let (whole, pattern, by) = (text(value), arguments.text(0), arguments.text(1));
    let replaced = if pattern.is_empty() {
        arguments.budget.spend(whole.len().saturating_mul(by.len()))?;
        whole.chars().map(String::from).collect::<Vec<_>>().join(&by)
    } else {
        arguments.budget.spend(whole.matches(&pattern).count().saturating_mul(by.len()))?;
        whole.replace(&pattern, &by)
    };
    Ok(Some(replaced.into()))
}

pub(super) fn replaced_last(whole: &str, pattern: &str, by: &str) -> String {
    match whole.rfind(pattern) {
        Some(at) => format!("{}{by}{}", &whole[..at], &whole[at + pattern.len()..]),
        None => whole.to_owned(),
    }
}

pub(super) fn capitalized(whole: &str) -> String {
    let mut characters = whole.chars();
    match characters.next() {
        Some(first) if first <= '\u{FFFF}' => {
            first.to_uppercase().collect::<String>() + &characters.as_str().to_lowercase()
        }
        _ => whole.to_lowercase(),
    }
}

pub(super) fn stripped(whole: &str, arguments: &Arguments<'_>, start: bool, end: bool) -> String {
    let characters = arguments.text(0);
    let out = |c: char| {
        if characters.is_empty() { is_space(c) } else { characters.contains(c) }
    };
    let whole = if start { whole.trim_start_matches(out) } else { whole };
    if end { whole.trim_end_matches(out) } else { whole }.to_owned()
}

/// The number of words.
pub(super) fn words(whole: &str) -> usize {
    whole.split(is_space).filter(|word| !word.is_empty()).count()
}

pub(super) fn normalized(whole: &str) -> String {
    let mut normal = String::with_capacity(whole.len());
    for character in whole.chars() {
        if !is_space(character) {
            normal.push(character);
        } else if !normal.ends_with(' ') {
            normal.push(' ');
        }
    }
    normal
}

/// A value that is short enough is returned unchanged, without conversion to a text.
pub(super) fn truncated(value: Option<&Value>, arguments: &Arguments<'_>) -> Option<Value> {
    let whole = text(value);
    let most = arguments.whole(0, 50);
    let end = arguments.get(1).map_or_else(|| "...".to_owned(), |end| text(Some(end)));
    let units: Vec<u16> = whole.encode_utf16().collect();
    if i64::try_from(units.len()).is_ok_and(|length| length <= most) {
        return value.cloned();
    }
    let most = usize::try_from(most).unwrap_or(0);
    let kept = most.saturating_sub(end.encode_utf16().count());
    Some((String::from_utf16_lossy(&units[..kept]) + &end).into())
}

/// `end` is appended as soon as there are as many words as allowed, even if none is cut off.
pub(super) fn truncated_words(whole: &str, arguments: &Arguments<'_>) -> String {
    if arguments.get(0).is_some_and(|most| coerced(Some(most)).is_nan()) {
        return String::new();
    }
    let most = usize::try_from(arguments.whole(0, 15)).unwrap_or(0).max(1);
    let end = arguments.get(1).map_or_else(|| "...".to_owned(), |end| text(Some(end)));
    let normal = normalized(whole);
    let words: Vec<&str> = normal.split(' ').collect();
    let mut truncated = words.iter().take(most).copied().collect::<Vec<_>>().join(" ");
    if words.len() >= most {
        truncated.push_str(&end);
    }
    truncated
}

const ESCAPES: [(char, &str); 5] =
    [('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&#34;"), ('\'', "&#39;")];

pub(super) fn escaped(whole: &str) -> String {
    let mut escaped = String::with_capacity(whole.len());
    for character in whole.chars() {
        match ESCAPES.iter().find(|(special, _)| *special == character) {
            Some((_, escape)) => escaped.push_str(escape),
            None => escaped.push(character),
        }
    }
    escaped
}

pub(super) fn unescaped(whole: &str) -> String {
    let mut unescaped = String::with_capacity(whole.len());
    let mut rest = whole;
    while let Some(at) = rest.find('&') {
        unescaped.push_str(&rest[..at]);
        rest = &rest[at..];
        let found = ESCAPES.iter().find(|(_, escape)| rest.starts_with(escape));
        let (character, length) =
            found.map_or(('&', 1), |(special, escape)| (*special, escape.len()));
        unescaped.push(character);
        rest = &rest[length..];
    }
    unescaped + rest
}

/// Removes scripts, styles and comments together with their content, and the tags around other content.
pub(super) fn without_html(whole: &str) -> String {
    let mut blocks = vec![("<script", "</script>"), ("<style", "</style>"), ("<!--", "-->")];
    let mut plain = String::with_capacity(whole.len());
    let mut rest = whole;
    while let Some(at) = rest.find('<') {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        let mut end = None;
        if let Some(block) = blocks.iter().position(|(open, _)| rest.starts_with(open)) {
            let (_, close) = blocks[block];
            end = rest.find(close).map(|at| at + close.len());
            if end.is_none() {
                // No closing mark follows further on either: search for it once only.
                blocks.remove(block);
            }
        }
        let Some(end) = end.or_else(|| rest.find('>').map(|at| at + 1)) else { break };
        rest = &rest[end..];
    }
    plain + rest
}

/// Percent-encodes the UTF-8 bytes of everything but ASCII letters, digits and the characters in `plain`.
pub(super) fn percent_encoded(whole: &str, plain: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(whole.len());
    for byte in whole.bytes() {
        let character = char::from(byte);
        if character.is_ascii_alphanumeric() || (byte.is_ascii() && plain.contains(character)) {
            encoded.push(character);
        } else {
            encoded.push('%');
            encoded.push(char::from(HEX[usize::from(byte >> 4)]));
            encoded.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    encoded
}

/// `None` if an escape is broken or the bytes are not UTF-8.
pub(super) fn percent_decoded(whole: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(whole.len());
    let mut rest = whole.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        if first == b'%' {
            bytes.extend(hex::decode(after.get(..2)?).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

pub(super) fn slug(whole: &str) -> String {
    let lower = whole.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(super) fn base64(whole: &str) -> String {
    let mut encoded = String::with_capacity(whole.len() / 3 * 4 + 4);
    for chunk in whole.as_bytes().chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let letter = BASE64[(bits >> (18 - 6 * place) & 63) as usize];
            encoded.push(if place > chunk.len() { '=' } else { char::from(letter) });
        }
    }
    encoded
}

/// Decodes base64; other characters are skipped, as in Node.
pub(super) fn from_base64(whole: &str) -> String {
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for letter in whole.bytes().take_while(|letter| *letter != b'=') {
        let letter = match letter {
            b'-' => b'+',
            b'_' => b'/',
            other => other,
        };
        let Some(value) = BASE64.iter().position(|known| *known == letter) else { continue };
        bits = bits << 6 | u32::try_from(value).unwrap_or(0);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 255) as u8);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
