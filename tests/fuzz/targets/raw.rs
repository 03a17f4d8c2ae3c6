//! Raw texts as a parser finds them that is not the daemon's.

use serde::de::IgnoredAny;
use serde_json::Deserializer;

/// Where the value ends that a text begins with.
pub fn end_of_first(text: &[u8]) -> Option<usize> {
    let mut values = Deserializer::from_slice(text).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    Some(values.byte_offset())
}

/// The elements of an array; `None`: the text is none.
pub fn elements(text: &[u8]) -> Option<Vec<&[u8]>> {
    let count = serde_json::from_slice::<Vec<IgnoredAny>>(text).ok()?.len();
    let mut rest = text.trim_ascii().strip_prefix(b"[")?;
    let mut elements = Vec::with_capacity(count);
    while elements.len() < count {
        let (element, behind) = rest.split_at(end_of_first(rest)?);
        elements.push(element.trim_ascii());
        rest = behind.trim_ascii_start().strip_prefix(b",").unwrap_or(behind);
    }
    Some(elements)
}
