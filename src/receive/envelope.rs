//! The envelope: a body is one event or an array of events. It is split into raw slices without parsing the
//! events.
//!
//! Raw, because a batch is signed over the exact bytes of its first event, and because strict parsers refuse
//! what JavaScript emits (lone surrogates): one such event must not affect the others. So this looks only at
//! strings and brackets; each slice is parsed on its own later. One pass, no recursion. Invalid JSON with
//! balanced brackets stays within its element.
//!
//! Strangers decide what is read here, so it is fuzzed as well (`tests/fuzz`, target `envelope`).

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::sorting::EVENT_LIMIT_BYTES;
use crate::json;

/// Most members of an event for which appended fields are removed: Segment's events have a dozen or two.
const MOST_MEMBERS: usize = 1000;

/// The shape of a body, and the raw text of each element without surrounding white space.
#[derive(Debug, PartialEq, Eq)]
pub enum Envelope<'a> {
    /// One event, or what should be one: only its first byte has been looked at.
    Single(&'a [u8]),
    /// The elements of an array.
    Array(Vec<&'a [u8]>),
}

/// Why a body cannot be used as a whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Unsplittable<'a> {
    /// The fault.
    pub fault: Fault,
    /// The first element of an array, if it is complete: it may still prove who sent the body.
    pub first: Option<&'a [u8]>,
}

/// Why a body cannot be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Empty, truncated, unbalanced, or followed by something else.
    NotJson,
    /// More elements than allowed.
    TooManyEvents,
}

/// Splits a body that may have at most `most_events` elements.
///
/// The limit keeps memory in proportion: 128 MiB of `0,0,0,…` would be 64 million elements. A body that is
/// not an array is not looked into: whoever parses it finds out whether it [is one value](is_one_value).
pub fn split(body: &[u8], most_events: usize) -> Result<Envelope<'_>, Unsplittable<'_>> {
    let text = json::without_mark(body).trim_ascii();
    match text.first() {
        Some(b'[') => split_array(text, most_events).map(Envelope::Array),
        Some(_) => Ok(Envelope::Single(text)),
        None => Err(Unsplittable { fault: Fault::NotJson, first: None }),
    }
}

/// The first element of an array that starts with `beginning`, if that element is complete.
pub(super) fn first_of_beginning(beginning: &[u8]) -> Option<&[u8]> {
    let text = json::without_mark(beginning).trim_ascii_start();
    let end = if text.first() == Some(&b'[') { find_stop(text, 1, Stop::Separator)? } else { 0 };
    let first = text.get(1..end)?.trim_ascii();
    (!first.is_empty()).then_some(first)
}

/// The event inside a wrapper: Extensible Webhooks send batches of `{"json": <event>}`, and may send a single
/// one.
///
/// An event has more members than this one, so the two cannot be confused.
#[must_use]
pub fn wrapped_event(element: &[u8]) -> Option<&[u8]> {
    let members = element.strip_prefix(b"{")?.trim_ascii_start();
    let value = members.strip_prefix(b"\"json\"")?.trim_ascii_start().strip_prefix(b":")?;
    let event = value.strip_suffix(b"}")?.trim_ascii();
    (event.first() == Some(&b'{') && is_one_value(event)).then_some(event)
}

/// The event as it was before these fields were appended: Webhook Audiences sign first and append afterwards.
/// `None` if none of the fields is where it would have been put.
///
/// JavaScript puts a key that is an array index before all others, in numerical order (ECMA-262, 10.1.11.1),
/// and any other key at the end.
#[must_use]
pub fn without_appended(event: &[u8], fields: &[String]) -> Option<Vec<u8>> {
    let is_event = event.len() <= EVENT_LIMIT_BYTES && event.first() == Some(&b'{');
    if fields.is_empty() || !is_event || !is_one_value(event) {
        return None;
    }
    // start of each member, and end of the last one
    let mut bounds = vec![1];
    loop {
        let from = *bounds.last()?;
        let stop = find_stop(event, from, Stop::Separator)?;
        bounds.push(stop + 1);
        if bounds.len() > MOST_MEMBERS {
            return None; // the sender is not authenticated yet (P6)
        }
        if event[stop] != b',' {
            break;
        }
    }
    let members: Vec<&[u8]> =
        bounds.windows(2).map(|bounds| &event[bounds[0]..bounds[1] - 1]).collect();
    let is_field = |key: &str| fields.iter().any(|field| field == key);
    let is_appended = |member: &[u8]| key_of(member).is_some_and(|key| is_field(&key));
    let is_index = |member: &[u8]| key_of(member).is_some_and(|key| is_array_index(&key));
    let has_index = fields.iter().any(|field| is_array_index(field));
    let indices = members.iter().take_while(|member| has_index && is_index(member)).count();
    let (in_front, others) = members.split_at(indices);
    let at_the_end = others.iter().skip(1).rev().take_while(|member| is_appended(member)).count();
    let (kept, _) = others.split_at(others.len() - at_the_end);
    let kept_in_front = in_front.iter().filter(|member| !is_appended(member));
    let all: Vec<&[u8]> = kept_in_front.chain(kept).copied().collect();
    if all.len() == members.len() || all.is_empty() {
        return None;
    }
    let mut before = all.join(&b',');
    before.truncate(before.trim_ascii_end().len());
    Some([b"{", &before[..], b"}"].concat())
}

fn key_of(member: &[u8]) -> Option<Cow<'_, str>> {
    let member = member.trim_ascii_start();
    let end = end_of_string(member, 1)?;
    json::from_slice(&member[..=end]).ok()
}

/// Whether JavaScript puts the key before others: a canonical integer below 2^32 - 1.
fn is_array_index(key: &str) -> bool {
    let is_canonical = key == "0" || !key.starts_with(['0', '+']);
    is_canonical && key.parse::<u32>().is_ok_and(|index| index < u32::MAX)
}

/// Iterates over the members of an object: passes the key of each and the raw text of its value to `take`,
/// until `take` returns `None`. Returns `None` in that case, or if the text is not one JSON object.
///
/// The whole object is read. Values are only checked to be JSON, and not even that if they are nested deeper
/// than any parser here accepts: the parser would keep a byte for each bracket ([P6](crate::design::P6)).
pub fn each_member<'a, K: Deserialize<'a>>(
    object: &'a [u8],
    mut take: impl FnMut(K, &'a [u8]) -> Option<()>,
) -> Option<()> {
    let mut members = object.trim_ascii().strip_prefix(b"{")?.trim_ascii_start();
    if members == b"}" {
        return Some(());
    }
    loop {
        let (key, behind) = members.starts_with(b"\"").then(|| json::first(members))??;
        let value = behind.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        let behind = behind_value(value)?;
        take(key, &value[..value.len() - behind.len()])?;
        match behind.trim_ascii_start().split_first()? {
            (b',', next) => members = next.trim_ascii_start(),
            (b'}', []) => return Some(()),
            _ => return None,
        }
    }
}

fn split_array(text: &[u8], most_events: usize) -> Result<Vec<&[u8]>, Unsplittable<'_>> {
    let mut elements: Vec<&[u8]> = Vec::new();
    let mut from = 1; // after the bracket
    let fault = loop {
        let Some(end) = find_stop(text, from, Stop::Separator) else { break Fault::NotJson };
        let element = text[from..end].trim_ascii();
        let is_last = text[end] == b']';
        let is_empty_array = element.is_empty() && is_last && elements.is_empty();
        if text[end] == b'}' || (element.is_empty() && !is_empty_array) {
            break Fault::NotJson;
        }
        if elements.len() == most_events {
            break Fault::TooManyEvents;
        }
        if !is_empty_array {
            elements.push(element);
        }
        if is_last {
            // the text is trimmed, so anything after the end is garbage
            if end + 1 == text.len() {
                return Ok(elements);
            }
            break Fault::NotJson;
        }
        from = end + 1;
    };
    Err(Unsplittable { fault, first: elements.first().copied() })
}

/// Whether a text is exactly one JSON value. The content of an object is not checked beyond strings and
/// brackets.
#[must_use]
pub fn is_one_value(text: &[u8]) -> bool {
    match text.first() {
        Some(b'{') => find_stop(text, 1, Stop::Closer)
            .is_some_and(|end| text[end] == b'}' && end + 1 == text.len()),
        _ => json::from_slice::<IgnoredAny>(text).is_ok(),
    }
}

/// An upper bound on the number of values in a JSON text: one after each comma and opening bracket, plus the
/// text itself, counted up to where nesting becomes too deep and the parser stops.
pub(super) fn count_values(text: &[u8]) -> usize {
    let (mut values, mut depth, mut at) = (1, 0_usize, 0);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => match end_of_string(text, at + 1) {
                Some(end) => at = end,
                None => break,
            },
            b'[' | b'{' if depth == json::DEEPEST => break,
            b'[' | b'{' => (values, depth) = (values + 1, depth + 1),
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        at += 1;
    }
    values
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// A comma or a closing bracket.
    Separator,
    /// A closing bracket.
    Closer,
}

/// The text after the value that it begins with.
fn behind_value(text: &[u8]) -> Option<&[u8]> {
    let skip = |(IgnoredAny, behind)| behind;
    let closer = match text.first()? {
        b'{' => b'}',
        b'[' => b']',
        _ => return json::first(text).map(skip),
    };
    let (mut depth, mut deepest, mut at) = (0_usize, 0, 0);
    loop {
        match *text.get(at)? {
            b'"' => at = end_of_string(text, at + 1)?,
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if depth == 1 => break,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    if deepest <= json::DEEPEST {
        return json::first(text).map(skip);
    }
    (text[at] == closer).then_some(&text[at + 1..])
}

/// The position of the next stop that is outside of strings, and of brackets opened since `from`.
fn find_stop(text: &[u8], from: usize, stop: Stop) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = from;
    loop {
        match *text.get(at)? {
            b'"' => at = end_of_string(text, at + 1)?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return Some(at),
            b'}' | b']' => depth -= 1,
            b',' if depth == 0 && stop == Stop::Separator => return Some(at),
            _ => {}
        }
        at += 1;
    }
}

/// The position of the quote that closes the string whose content starts at `from`.
fn end_of_string(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        let rest = text.get(at..)?;
        at += rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        if text[at] == b'"' {
            return Some(at);
        }
        at += 2; // the backslash and the escaped byte, which may be a quote
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "so that the tables are read in one column")]
    fn array<'a>(elements: &[&'a str]) -> Result<Envelope<'a>, Unsplittable<'a>> {
        Ok(Envelope::Array(elements.iter().map(|element| element.as_bytes()).collect()))
    }

    fn not_json(first: Option<&str>) -> Result<Envelope<'_>, Unsplittable<'_>> {
        Err(Unsplittable { fault: Fault::NotJson, first: first.map(str::as_bytes) })
    }

    #[expect(clippy::unnecessary_wraps, reason = "so that the tables are read in one column")]
    fn single(text: &str) -> Result<Envelope<'_>, Unsplittable<'_>> {
        Ok(Envelope::Single(text.as_bytes()))
    }

    #[test]
    fn fields_that_were_appended_are_cut_from_the_end_and_nowhere_else() {
        let fields = ["plan".to_owned(), "a b".to_owned(), "d\"q".to_owned()];
        let table = [
            (r#"{"a":1,"d\"q":2}"#, Some(r#"{"a":1}"#)),
            (r#"{"a":1,"\u0070lan":2}"#, Some(r#"{"a":1}"#)),
            (r#"{"a":1,plan:2}"#, None),
            (r#"{"a":1,}"#, None),
            (r#"{"a":1,"plan":2}"#, Some(r#"{"a":1}"#)),
            (r#"{"a":1,"plan":{"x":[",}"]},"a b":null}"#, Some(r#"{"a":1}"#)),
            (r#"{ "a" : 1 , "plan" : 2 }"#, Some(r#"{ "a" : 1}"#)),
            (r#"{"plan":1,"a":2,"plan":3}"#, Some(r#"{"plan":1,"a":2}"#)),
            (r#"{"a":1,"plan":2,"b":3}"#, None),
            (r#"{"a":1,"Plan":2}"#, None),
            (r#"{"a":"x,\"plan\":2"}"#, None),
            (r#"{"plan":1}"#, None),
            (r#"{"a":1}"#, None),
            ("{}", None),
            ("[1,2]", None),
            (r#"{"a":1,"plan":2"#, None),
        ];
        for (event, expected) in table {
            let cut = without_appended(event.as_bytes(), &fields);
            assert_eq!(cut.as_deref(), expected.map(str::as_bytes), "{event}");
        }
        assert_eq!(without_appended(br#"{"a":1,"plan":2}"#, &[]), None);
    }

    /// In the order in which `JSON.stringify({...event, ...extras})` writes members.
    #[test]
    fn fields_whose_names_are_indices_are_cut_from_the_front() {
        let fields = ["7", "10", "plan", "007", "4294967295"].map(str::to_owned);
        let table = [
            (r#"{"7":1,"type":"track"}"#, Some(r#"{"type":"track"}"#)),
            (r#"{"7":1,"10":2,"type":"track","plan":3}"#, Some(r#"{"type":"track"}"#)),
            // Some of the event's own members are indices too.
            (r#"{"3":0,"7":1,"9":2,"type":"track"}"#, Some(r#"{"3":0,"9":2,"type":"track"}"#)),
            // These are not array indices.
            (r#"{"type":"track","007":1,"4294967295":2}"#, Some(r#"{"type":"track"}"#)),
            (r#"{"007":1,"type":"track"}"#, None),
            (r#"{"4294967295":1,"type":"track"}"#, None),
            (r#"{"plan":1,"type":"track"}"#, None),
            (r#"{"7":1}"#, None),
            (r#"{"type":"track","a":{"7":1}}"#, None),
        ];
        for (event, expected) in table {
            let cut = without_appended(event.as_bytes(), &fields);
            assert_eq!(cut.as_deref(), expected.map(str::as_bytes), "{event}");
        }
    }

    #[test]
    fn bodies_are_split_where_json_says() {
        let table = [
            (r#"{"a":1}"#, single(r#"{"a":1}"#)),
            (" \r\n\t{ \"a\" : 1 } \n", single("{ \"a\" : 1 }")),
            (r#"{"a":[1,2],"b":"}]"}"#, single(r#"{"a":[1,2],"b":"}]"}"#)),
            ("42", single("42")),
            ("\"text\"", single("\"text\"")),
            ("[]", array(&[])),
            (" [ \n] ", array(&[])),
            (r#"[{"a":1}]"#, array(&[r#"{"a":1}"#])),
            ("[ {\"a\" : 1}\n,\t{ } ]", array(&["{\"a\" : 1}", "{ }"])),
            (
                r#"[{"a":"],[{"},{"b":"\"],\\"},3]"#,
                array(&[r#"{"a":"],[{"}"#, r#"{"b":"\"],\\"}"#, "3"]),
            ),
            (r"[[1,[2,3]],[]]", array(&["[1,[2,3]]", "[]"])),
            // what cannot be parsed stays within its element
            (r#"[{"a":"\ud800"},{"b":1}]"#, array(&[r#"{"a":"\ud800"}"#, r#"{"b":1}"#])),
            ("[nonsense,{}]", array(&["nonsense", "{}"])),
            (r#"[{"a":[}]},{}]"#, not_json(None)),
            (r#"[{"a":1}{"b":2},{}]"#, array(&[r#"{"a":1}{"b":2}"#, "{}"])),
            ("[{\"a\":tru},{}]", array(&["{\"a\":tru}", "{}"])),
            // faults of the whole body
            ("", not_json(None)),
            (" ", not_json(None)),
            ("nonsense", not_json(None)),
            ("{", not_json(None)),
            (r#"{"a":"}"#, not_json(None)),
            (r#"{"a":"\"}"#, not_json(None)),
            ("{]", not_json(None)),
            (r#"{"a":1}}"#, not_json(None)),
            (r#"{"a":1} {"b":2}"#, not_json(None)),
            (r#"{"a":1},"#, not_json(None)),
            ("[", not_json(None)),
            ("[{}", not_json(None)),
            ("[{},", not_json(Some("{}"))),
            ("[{}}", not_json(None)),
            ("[{},{}", not_json(Some("{}"))),
            ("[{},{}]x", not_json(Some("{}"))),
            ("[{},{}]]", not_json(Some("{}"))),
            ("[{},]", not_json(Some("{}"))),
            ("[,{}]", not_json(None)),
            ("[{},,{}]", not_json(Some("{}"))),
            (r#"[{},{"a":"]"#, not_json(Some("{}"))),
            (r#"[{},"\"#, not_json(Some("{}"))),
        ];
        for (body, expected) in table {
            let split = match split(body.as_bytes(), 10) {
                Ok(Envelope::Single(event)) if !is_one_value(event) => not_json(None),
                split => split,
            };
            assert_eq!(split, expected, "{body}");
        }
    }

    #[test]
    fn values_are_counted_outside_of_strings() {
        let table = [
            ("1", 1),
            ("[]", 2),
            ("[1,[2,3]]", 5),
            (r#"{"a":",[{\",","b":{"c":null}}"#, 4),
            (r#"["open, "#, 2),
        ];
        for (text, expected) in table {
            assert_eq!(count_values(text.as_bytes()), expected, "{text}");
        }
        let deep = |open: &str| open.repeat(json::DEEPEST + 1000);
        assert_eq!(count_values(deep("[").as_bytes()), 1 + json::DEEPEST, "the parser stops there");
        assert_eq!(count_values(deep("[],").as_bytes()), 1 + 2 * (json::DEEPEST + 1000));
    }

    #[test]
    fn the_first_element_is_found_in_the_beginning_of_an_array() {
        let table = [
            (r#" [ {"a":"],"} ,{"b"#, Some(r#"{"a":"],"}"#)),
            (r#"[{"a":1}]"#, Some(r#"{"a":1}"#)),
            (r#"[{"a":1}"#, None),
            ("[", None),
            ("[]", None),
            ("[,{}", None),
            (r#"{"a":[1,2],"b":3}"#, None),
            ("", None),
        ];
        for (beginning, expected) in table {
            let first = first_of_beginning(beginning.as_bytes());
            assert_eq!(first, expected.map(str::as_bytes), "{beginning}");
        }
    }

    #[test]
    fn invalid_utf8_stays_in_its_element() {
        let body = b"[{\"a\":\"\xff\xfe\"},{\"b\":1}]";
        let expected: Vec<&[u8]> = vec![b"{\"a\":\"\xff\xfe\"}", b"{\"b\":1}"];
        assert_eq!(split(body, 10), Ok(Envelope::Array(expected)));
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = "[".repeat(5_000_000) + &"]".repeat(5_000_000);
        let body = format!("[{{}},{deep}]");
        assert_eq!(split(body.as_bytes(), 10), array(&["{}", &deep]));
        assert_eq!(
            split("[".repeat(5_000_000).as_bytes(), 10),
            not_json(None),
            "an unclosed one ends too"
        );
    }

    #[test]
    fn one_element_too_many_is_refused_and_the_last_allowed_is_not() {
        assert_eq!(split(b"[1,2]", 2), array(&["1", "2"]));
        let refused = Unsplittable { fault: Fault::TooManyEvents, first: Some(&b"1"[..]) };
        assert_eq!(split(b"[1,2,3]", 2), Err(refused));
    }

    #[test]
    fn only_a_lone_json_member_with_an_object_is_a_wrapper() {
        let table = [
            (r#"{"json":{"a":1}}"#, Some(r#"{"a":1}"#)),
            ("{ \"json\" : { \"a\":1 } }", Some("{ \"a\":1 }")),
            (r#"{"json":{"a":"\ud800"}}"#, Some(r#"{"a":"\ud800"}"#)),
            (r#"{"json":{}}"#, Some("{}")),
            (r#"{"json":{},"b":{}}"#, None),
            (r#"{"json":1}"#, None),
            (r#"{"jsonx":{}}"#, None),
            (r#"{"a":{"json":{}}}"#, None),
            (r#"["json",{}]"#, None),
            ("{}", None),
        ];
        for (element, expected) in table {
            assert_eq!(wrapped_event(element.as_bytes()), expected.map(str::as_bytes), "{element}");
        }
    }

    #[test]
    fn an_object_comes_apart_into_its_members() {
        let table = [
            ("{}", Some(vec![])),
            (" { } ", Some(vec![])),
            (r#"{"a":1}"#, Some(vec![("a", "1")])),
            (
                "\n{ \"a\" : [ \"}\" ,1 ] ,\t\"\\u0061b\":{\"c\":2 },\"\":\"\\ud800\" } ",
                Some(vec![("a", "[ \"}\" ,1 ]"), ("ab", "{\"c\":2 }"), ("", "\"\\ud800\"")]),
            ),
            (r#"{"a":1,"a":null}"#, Some(vec![("a", "1"), ("a", "null")])),
            ("", None),
            ("[]", None),
            ("{", None),
            (r#"{"a"}"#, None),
            (r#"{"a":}"#, None),
            (r#"{"a":1"#, None),
            (r#"{"a":1,}"#, None),
            (r#"{,"a":1}"#, None),
            (r#"{"a":1 "b":2}"#, None),
            (r#"{"a":1}}"#, None),
            (r#"{"a":1}{}"#, None),
            (r#"{"a":tru}"#, None),
            (r#"{"a":[}]}"#, None),
            (r"{1:1}", None),
            (r#"{{"a":1}:1}"#, None),
            (r#"{"\ud800":1}"#, None),
        ];
        for (text, expected) in table {
            let mut found: Vec<(String, &[u8])> = Vec::new();
            let end = each_member(text.as_bytes(), |key: String, value| {
                found.push((key, value));
                Some(())
            });
            let found: Vec<(&str, &str)> = found
                .iter()
                .map(|(key, value)| (&**key, str::from_utf8(value).expect("as it was written")))
                .collect();
            assert_eq!(end.map(|()| found), expected, "{text}");
        }
        let (open, close) = ("[".repeat(json::DEEPEST), "]".repeat(json::DEEPEST));
        for (text, expected) in [
            (format!("{{\"a\":{open}tru{close}}}"), None),
            (format!("{{\"a\":[{open}tru{close}]}}"), Some(())), // too deep to be given to the parser
            (format!("{{\"a\":[{open}{close}}}}}"), None),
            (format!("{{\"a\":[{open}{close}"), None),
        ] {
            assert_eq!(each_member(text.as_bytes(), |_: String, _| Some(())), expected, "{text}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        let mut members = 0;
        let counted = each_member(deep.as_bytes(), |_: String, _| {
            members += 1;
            Some(())
        });
        assert_eq!((counted, members), (Some(()), 1), "depth costs no stack");
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[\\[\\]{},:\"\\\\a\u{e9}\n ]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::hash_map("[\\]},\"\\\\a]{0,4}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(crate::seeds::kept_in("tests/seeds/envelope.txt"))]

        #[test]
        fn an_array_splits_into_the_texts_it_was_joined_from(
            values in proptest::collection::vec(json(), 0..6),
            pretty in any::<bool>(),
        ) {
            let write = if pretty { serde_json::to_string_pretty } else { serde_json::to_string };
            let texts: Vec<String> =
                values.iter().map(|value| write(value).expect("a value serialises")).collect();
            let body = format!("[{}]", texts.join(if pretty { " ,\n" } else { "," }));
            let expected = texts.iter().map(String::as_bytes).collect();
            prop_assert_eq!(split(body.as_bytes(), 10), Ok(Envelope::Array(expected)));
        }

        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(
            prop_oneof![Just(b'['), Just(b']'), Just(b'{'), Just(b'}'), Just(b'"'), Just(b'\\'),
                Just(b','), any::<u8>()], 0..64)) {
            if let Ok(Envelope::Array(elements)) = split(&body, 100) {
                for element in elements {
                    let _ = wrapped_event(element);
                }
            }
        }
    }
}
