//! The table of the filters that Segment leaves switched on, and those that work on numbers and lists.

use std::borrow::Cow;

use serde_json::Value;

use super::super::Unresolved;
use super::super::budget::Budget;
use super::super::json::encoded;
use super::value::{Found, coerced, equal, is_true, number, text, to_number};
use super::{cannot, dates, texts};

/// Filters of liquidjs that Segment switches off.
const DISABLED: [&str; 20] = [
    "array_to_sentence_string",
    "concat",
    "find",
    "find_exp",
    "find_index",
    "find_index_exp",
    "group_by",
    "group_by_exp",
    "has",
    "has_exp",
    "map",
    "newline_to_br",
    "reject",
    "reject_exp",
    "reverse",
    "sort",
    "sort_natural",
    "uniq",
    "where_exp",
    "type",
];

/// The function of a filter; the value is `None` if the event has none.
type Apply = fn(Option<&Value>, &Arguments<'_>) -> Result<Option<Value>, Unresolved>;

/// Name, number of required arguments as in liquidjs, and function.
type Entry = (&'static str, usize, Apply);

/// A filter named in a template.
#[derive(Clone, Copy)]
pub(super) struct Filter(&'static Entry);

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.0.0 == other.0.0
    }
}

/// The arguments after the colon.
pub(super) struct Arguments<'a> {
    pub(super) values: Vec<Found<'a>>,
    pub(super) allow_false: bool,
    pub(super) budget: &'a Budget,
}

impl Arguments<'_> {
    pub(super) fn get(&self, index: usize) -> Option<&Value> {
        self.values.get(index)?.as_deref()
    }

    /// The first argument as an item of a list; null if it is absent.
    fn item(&self) -> Value {
        self.get(0).cloned().unwrap_or(Value::Null)
    }

    pub(super) fn text(&self, index: usize) -> String {
        text(self.get(index))
    }

    /// An argument as a whole number, or `default` if it is absent.
    pub(super) fn whole(&self, index: usize, default: i64) -> i64 {
        #[expect(clippy::cast_possible_truncation, reason = "it saturates")]
        self.get(index).map_or(default, |value| to_number(Some(value)) as i64)
    }
}

impl Filter {
    /// `None` for a filter that liquidjs does not know; an error for one that must not be used.
    pub(super) fn named(name: &str, arguments: usize) -> Result<Option<Self>, String> {
        if DISABLED.contains(&name) {
            return Err(format!("the filter {name} is switched off in Segment"));
        }
        if name == "sample" {
            return Err("the filter sample is random, which a membership must not be".to_owned());
        }
        let Some(entry) = FILTERS.iter().find(|(known, _, _)| *known == name) else {
            return Ok(None);
        };
        if arguments > 1 && matches!(name, "append" | "prepend") {
            return Err(format!("the filter {name} takes one argument"));
        }
        if arguments < entry.1 {
            return Err(format!("the filter {name} needs {}", ["", "an argument"][entry.1.min(1)]));
        }
        Ok(Some(Self(entry)))
    }

    /// The names of all filters that can be used.
    pub(super) fn names() -> Vec<&'static str> {
        FILTERS.iter().map(|(name, _, _)| *name).collect()
    }

    pub(super) fn apply<'a>(
        self,
        value: Option<&Value>,
        arguments: &Arguments<'_>,
    ) -> Result<Found<'a>, Unresolved> {
        let (_, _, apply) = self.0;
        let result = apply(value, arguments)?;
        if let Some(result) = &result {
            arguments.budget.weigh(result)?;
        }
        Ok(result.map(Cow::Owned))
    }
}

const FILTERS: &[Entry] = &[
    ("abs", 0, |v, _| math(to_number(v).abs())),
    ("at_least", 1, |v, a| math(to_number(v).max(to_number(a.get(0))))),
    ("at_most", 1, |v, a| math(to_number(v).min(to_number(a.get(0))))),
    ("ceil", 0, |v, _| math(to_number(v).ceil())),
    ("floor", 0, |v, _| math(to_number(v).floor())),
    ("plus", 1, |v, a| math(to_number(v) + to_number(a.get(0)))),
    ("minus", 1, |v, a| math(to_number(v) - to_number(a.get(0)))),
    ("times", 1, |v, a| math(to_number(v) * to_number(a.get(0)))),
    ("modulo", 1, |v, a| math(modulo(to_number(v), to_number(a.get(0))))),
    ("divided_by", 1, |v, a| {
        let quotient = to_number(v) / to_number(a.get(0));
        math(if is_true(a.get(1)) { quotient.floor() } else { quotient })
    }),
    ("round", 0, |v, a| math(round(to_number(v), to_number(a.get(0))))),
    ("to_integer", 0, |v, _| math(coerced(v))),
    ("default", 0, default),
    ("json", 0, json),
    ("jsonify", 0, json),
    ("inspect", 0, json),
    ("raw", 0, |v, _| Ok(v.cloned())),
    ("size", 0, |v, _| Ok(Some(length(v).into()))),
    ("first", 0, |v, _| Ok(item(v, 0))),
    ("last", 0, |v, _| Ok(item(v, length(v).saturating_sub(1)))),
    ("join", 0, join),
    ("compact", 0, |v, _| Ok(Some(list(v).into_iter().filter(|item| !item.is_null()).collect()))),
    ("sum", 0, sum),
    ("slice", 1, slice),
    ("push", 1, |v, a| Ok(Some(list(v).into_iter().chain([a.item()]).collect()))),
    ("unshift", 1, |v, a| Ok(Some([a.item()].into_iter().chain(list(v)).collect()))),
    ("pop", 0, |v, _| {
        let mut items = list(v);
        items.pop();
        Ok(Some(items.into()))
    }),
    ("shift", 0, |v, _| Ok(Some(list(v).into_iter().skip(1).collect()))),
    ("where", 1, |v, a| Ok(Some(selected(v, a)))),
    ("split", 1, texts::split),
    ("append", 1, |v, a| done(text(v) + &a.text(0))),
    ("prepend", 1, |v, a| done(a.text(0) + &text(v))),
    ("upcase", 0, |v, _| done(text(v).to_uppercase())),
    ("downcase", 0, |v, _| done(text(v).to_lowercase())),
    ("capitalize", 0, |v, _| done(texts::capitalized(&text(v)))),
    ("strip", 0, |v, a| done(texts::stripped(&text(v), a, true, true))),
    ("lstrip", 0, |v, a| done(texts::stripped(&text(v), a, true, false))),
    ("rstrip", 0, |v, a| done(texts::stripped(&text(v), a, false, true))),
    ("strip_newlines", 0, |v, _| done(text(v).replace("\r\n", "").replace('\n', ""))),
    ("normalize_whitespace", 0, |v, _| done(texts::normalized(&text(v)))),
    ("number_of_words", 0, |v, _| Ok(Some(texts::words(&text(v)).into()))),
    ("remove", 1, |v, a| done(text(v).replace(&a.text(0), ""))),
    ("remove_first", 1, |v, a| done(text(v).replacen(&a.text(0), "", 1))),
    ("remove_last", 1, |v, a| done(texts::replaced_last(&text(v), &a.text(0), ""))),
    ("replace", 1, texts::replace),
    ("replace_first", 1, |v, a| done(text(v).replacen(&a.text(0), &a.text(1), 1))),
    ("replace_last", 1, |v, a| done(texts::replaced_last(&text(v), &a.text(0), &a.text(1)))),
    ("truncate", 0, |v, a| Ok(texts::truncated(v, a))),
    ("truncatewords", 0, |v, a| done(texts::truncated_words(&text(v), a))),
    ("escape", 0, |v, _| done(texts::escaped(&text(v)))),
    ("xml_escape", 0, |v, _| done(texts::escaped(&text(v)))),
    ("escape_once", 0, |v, _| done(texts::escaped(&texts::unescaped(&text(v))))),
    ("strip_html", 0, |v, _| done(texts::without_html(&text(v)))),
    ("url_encode", 0, |v, _| {
        done(texts::percent_encoded(&text(v), "-_.!~*'()").replace("%20", "+"))
    }),
    ("cgi_escape", 0, |v, _| done(texts::percent_encoded(&text(v), "-_.~").replace("%20", "+"))),
    ("uri_escape", 0, |v, _| done(texts::percent_encoded(&text(v), ";,/?:@&=+$-_.!~*'()#[]"))),
    ("url_decode", 0, |v, _| {
        let decoded = texts::percent_decoded(&text(v));
        done(
            decoded
                .ok_or_else(|| cannot("url_decode found an invalid escape sequence"))?
                .replace('+', " "),
        )
    }),
    ("sha256", 0, |v, _| {
        done(hex::encode(ring::digest::digest(&ring::digest::SHA256, text(v).as_bytes())))
    }),
    ("hmac_sha256", 0, |v, a| {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, a.text(0).as_bytes());
        done(hex::encode(ring::hmac::sign(&key, text(v).as_bytes())))
    }),
    ("slugify", 0, |v, _| done(texts::slug(&text(v)))),
    ("base64_encode", 0, |v, _| done(texts::base64(&text(v)))),
    ("base64_decode", 0, |v, _| done(texts::from_base64(&text(v)))),
    ("date", 0, |v, a| dates::formatted(v, a.get(0))),
    ("date_to_xmlschema", 0, |v, _| dates::formatted(v, Some(&"%Y-%m-%dT%H:%M:%S%:z".into()))),
    ("date_to_rfc822", 0, |v, _| dates::formatted(v, Some(&"%a, %d %b %Y %H:%M:%S %z".into()))),
    ("date_to_string", 0, |v, _| dates::formatted(v, Some(&"%d %b %Y".into()))),
    ("date_to_long_string", 0, |v, _| dates::formatted(v, Some(&"%d %B %Y".into()))),
];

#[expect(clippy::unnecessary_wraps, reason = "filters may fail, and the table has one type")]
fn done(text: String) -> Result<Option<Value>, Unresolved> {
    Ok(Some(Value::String(text)))
}

#[expect(clippy::unnecessary_wraps, reason = "filters may fail, and the table has one type")]
fn math(result: f64) -> Result<Option<Value>, Unresolved> {
    Ok(Some(number(result)))
}

fn modulo(value: f64, by: f64) -> f64 {
    ((value % by) + by) % by
}

/// Rounds as liquidjs does: 1.005 to two digits is 1.01.
fn round(value: f64, digits: f64) -> f64 {
    let scale = 10_f64.powf(digits);
    ((value * scale) * (1.0 + f64::EPSILON) + 0.5).floor() / scale
}

#[expect(clippy::unnecessary_wraps, reason = "filters may fail, and the table has one type")]
fn default(value: Option<&Value>, arguments: &Arguments<'_>) -> Result<Option<Value>, Unresolved> {
    let stays = match value {
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Bool(false)) => arguments.allow_false,
        value => is_true(value),
    };
    Ok(if stays { value.cloned() } else { arguments.get(0).cloned() })
}

fn json(value: Option<&Value>, arguments: &Arguments<'_>) -> Result<Option<Value>, Unresolved> {
    let Some(value) = value else { return Ok(None) };
    Ok(Some(encoded(value, arguments.budget)?.into()))
}

fn length(value: Option<&Value>) -> usize {
    match value {
        Some(Value::String(text)) => text.encode_utf16().count(),
        Some(Value::Array(items)) => items.len(),
        _ => 0,
    }
}

fn item(value: Option<&Value>, at: usize) -> Option<Value> {
    match value {
        Some(Value::Array(items)) => items.get(at).cloned(),
        Some(Value::String(text)) => {
            let unit = text.encode_utf16().nth(at)?;
            char::from_u32(unit.into()).map(|character| character.to_string().into())
        }
        _ => Some("".into()),
    }
}

/// A value that is not a list counts as a list of one; nil counts as an empty list.
fn list(value: Option<&Value>) -> Vec<Value> {
    match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => items.clone(),
        Some(other) => vec![other.clone()],
    }
}

fn join(value: Option<&Value>, arguments: &Arguments<'_>) -> Result<Option<Value>, Unresolved> {
    let separator = arguments.get(0).map_or_else(|| " ".to_owned(), |value| text(Some(value)));
    let items: Vec<String> = list(value).iter().map(|item| text(Some(item))).collect();
    arguments.budget.spend(items.len().saturating_mul(separator.len()))?;
    done(items.join(&separator))
}

fn sum(value: Option<&Value>, arguments: &Arguments<'_>) -> Result<Option<Value>, Unresolved> {
    let property = arguments.get(0).map(|name| text(Some(name)));
    let of = |item: &Value| match &property {
        Some(name) => to_number(item.get(name)),
        None => to_number(Some(item)),
    };
    math(list(value).iter().map(of).sum())
}

#[expect(clippy::unnecessary_wraps, reason = "filters may fail, and the table has one type")]
fn slice(value: Option<&Value>, arguments: &Arguments<'_>) -> Result<Option<Value>, Unresolved> {
    // Without a start, the end is NaN in JavaScript and the slice is empty.
    let Some(first) = arguments.get(0) else {
        let is_list = matches!(value, None | Some(Value::Null | Value::Array(_)));
        return Ok(Some(if is_list { Value::Array(Vec::new()) } else { "".into() }));
    };
    let (begin, mut count) = (arguments.whole(0, 0), arguments.whole(1, 1));
    // If the start is a text, JavaScript appends the count to it instead of adding the two.
    if let Value::String(begin) = first
        && let Ok(end) = format!("{begin}{count}").parse::<f64>()
    {
        #[expect(clippy::cast_possible_truncation, reason = "it saturates")]
        let end = end as i64;
        count = end.saturating_sub(arguments.whole(0, 0)).max(0);
    } else if first.is_string() {
        count = 0;
    }
    // A start before the beginning yields nothing, even if the end lies after the beginning.
    let range = |length: usize| {
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        let from = if begin < 0 { length.saturating_add(begin) } else { begin };
        if from < 0 || count < 0 {
            return 0..0;
        }
        let bounded = |at: i64| usize::try_from(at.clamp(0, length)).unwrap_or(0);
        let to = from.saturating_add(count);
        bounded(from)..bounded(to).max(bounded(from))
    };
    Ok(Some(match value {
        None | Some(Value::Null) => Value::Array(Vec::new()),
        Some(Value::Array(items)) => items[range(items.len())].to_vec().into(),
        other => {
            let units: Vec<u16> = text(other).encode_utf16().collect();
            String::from_utf16_lossy(&units[range(units.len())]).into()
        }
    }))
}

fn selected(value: Option<&Value>, arguments: &Arguments<'_>) -> Value {
    let (name, wanted) = (arguments.text(0), arguments.get(1));
    let fits = |item: &Value| match wanted {
        Some(wanted) => equal(item.get(&name), Some(wanted)),
        None => is_true(item.get(&name)),
    };
    list(value).into_iter().filter(fits).collect()
}
