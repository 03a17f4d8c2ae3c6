//! A naive interpreter of directives, written as their description reads: it evaluates the JSON for each
//! event, without regard for speed. It handles valid mappings only, and neither `@liquid` nor a budget.

use serde_json::{Map, Value, json};

type Found = Result<Option<Value>, ()>;

pub(super) fn resolve(mapping: &Value, event: &Value) -> Found {
    match mapping {
        Value::Array(items) => {
            let items = items.iter().map(|item| Ok(resolve(item, event)?.unwrap_or(Value::Null)));
            Ok(Some(Value::Array(items.collect::<Result<_, ()>>()?)))
        }
        Value::Object(members) => {
            if let Some((name, options)) = members.iter().find(|(key, _)| key.starts_with('@')) {
                return run(name, options, event);
            }
            Ok(Some(Value::Object(
                resolved_members(members, event)?
                    .into_iter()
                    .filter_map(|(key, value)| Some((key, value?)))
                    .collect(),
            )))
        }
        scalar => Ok(Some(scalar.clone())),
    }
}

fn resolved_members(
    members: &Map<String, Value>,
    event: &Value,
) -> Result<Vec<(String, Option<Value>)>, ()> {
    members.iter().map(|(key, value)| Ok((key.clone(), resolve(value, event)?))).collect()
}

fn run(name: &str, options: &Value, event: &Value) -> Found {
    let option = |key: &str| options.get(key).map_or(Ok(None), |option| resolve(option, event));
    match name {
        "@path" => match resolve(options, event)? {
            Some(Value::String(path)) => Ok(get(event, &path.replacen("$.", "", 1))),
            _ => Err(()),
        },
        "@template" => match resolve(options, event)? {
            Some(Value::String(template)) => render(&template, event).map(|text| Some(text.into())),
            _ => Err(()),
        },
        "@literal" => resolve(options, event),
        "@excludeWhenNull" => Ok(resolve(options, event)?.and_then(clean)),
        "@if" => {
            let holds = if options.get("exists").is_some() {
                option("exists")?.is_some_and(|value| !value.is_null())
            } else {
                option("blank")?.is_some_and(|value| !loosely_empty(&value))
            };
            if holds {
                option("then")
            } else if truthy(&options["else"]) {
                option("else")
            } else {
                Ok(None)
            }
        }
        "@case" if !truthy(&options["value"]) => Ok(None),
        "@case" => match (option("value")?, options["operator"].as_str()) {
            (Some(Value::String(text)), Some("upper")) => Ok(Some(text.to_uppercase().into())),
            (Some(Value::String(text)), Some("lower")) => Ok(Some(text.to_lowercase().into())),
            (Some(Value::String(_)), _) => Err(()),
            (value, _) => Ok(value),
        },
        "@replace" if options["value"] == json!("") => Ok(None),
        "@replace" => replace(options, option("value")?),
        "@arrayPath" => {
            let list = match &options[0] {
                Value::String(path) => get(event, &path.replacen("$.", "", 1)),
                directive => resolve(directive, event)?,
            };
            let shape = options[1].as_object().filter(|shape| !shape.is_empty());
            let items = match (&list, shape) {
                (Some(Value::Array(items)), Some(_)) => items.clone(),
                (Some(object @ Value::Object(_)), Some(_)) => vec![object.clone()],
                _ => return Ok(list),
            };
            let items =
                items.iter().map(|item| Ok(resolve(&options[1], item)?.unwrap_or(Value::Null)));
            Ok(Some(Value::Array(items.collect::<Result<_, ()>>()?)))
        }
        "@flatten" => {
            let mut flat = flattened(options, event)?;
            flat.retain(|_, value| *value != json!(HOLE));
            Ok(Some(Value::Object(flat)))
        }
        "@json" => Ok(match (options["mode"].as_str(), option("value")?) {
            (Some("encode"), Some(value)) => Some(encode(&value).into()),
            (_, Some(Value::String(text))) => {
                Some(serde_json::from_str(&text).unwrap_or(Value::String(text)))
            }
            (_, value) => value,
        }),
        "@merge" => {
            let mut objects = options["objects"].as_array().cloned().unwrap_or_default();
            if options["direction"] == "left" {
                objects.reverse();
            }
            let mut merged: Vec<(String, Option<Value>)> = Vec::new();
            for object in &objects {
                let members = built(object, event)?;
                // As in `Object.assign`, a replaced member keeps its position.
                for (key, value) in members {
                    match merged.iter_mut().find(|(other, _)| *other == key) {
                        Some((_, before)) => *before = value,
                        None => merged.push((key, value)),
                    }
                }
            }
            let there = merged.into_iter().filter_map(|(key, value)| Some((key, value?)));
            Ok(Some(Value::Object(there.collect())))
        }
        "@transform" if !event.is_object() => Err(()),
        "@transform" => match option("apply")? {
            Some(applied) => resolve(&options["mapping"], &applied),
            None => resolve(&options["mapping"], &json!({})),
        },
        _ => Err(()),
    }
}

/// The members to merge, including those that are nothing.
fn built(object: &Value, event: &Value) -> Result<Vec<(String, Option<Value>)>, ()> {
    let Some(members) = object.as_object() else {
        return Ok(spread_holes(with_holes(object, event, false)?));
    };
    let directive = members.iter().find(|(key, _)| key.starts_with('@'));
    match directive.map(|(key, options)| (key.as_str(), options)) {
        None => resolved_members(members, event),
        Some(("@literal", inside)) => built(inside, event),
        Some(("@flatten", options)) => {
            Ok(spread_holes(Some(Value::Object(flattened(options, event)?))))
        }
        Some(("@arrayPath", _)) => Ok(spread_holes(with_holes(object, event, false)?)),
        Some(("@if", options)) => match built_branch(options, event)? {
            Some(branch) => built(&options[branch], event),
            None => Ok(Vec::new()),
        },
        Some(("@merge", options)) => {
            let mut objects = options["objects"].as_array().cloned().unwrap_or_default();
            if options["direction"] == "left" {
                objects.reverse();
            }
            let all = objects.iter().map(|object| built(object, event));
            Ok(all.collect::<Result<Vec<_>, ()>>()?.concat())
        }
        Some(("@excludeWhenNull", inside)) if is_list(inside) => built(inside, event),
        Some(("@excludeWhenNull", inside)) => match resolve(inside, event)? {
            Some(Value::Object(members)) => {
                Ok(members.into_iter().map(|(key, value)| (key, clean(value))).collect())
            }
            Some(other) => Ok(spread(Some(other))),
            None => Ok(Vec::new()),
        },
        Some(_) => Ok(spread(resolve(object, event)?)),
    }
}

/// The result of `@flatten`, including the keys that are nothing.
fn flattened(options: &Value, event: &Value) -> Result<Map<String, Value>, ()> {
    let mut flat = Map::new();
    let separator = options["separator"].as_str().unwrap_or_default();
    let omit = truthy(&options["omitArrays"]);
    let value = with_holes(&options["value"], event, omit)?.unwrap_or_else(|| HOLE.into());
    flatten(&value, "", separator, omit, &mut flat);
    Ok(flat)
}

/// The branch that an `@if` takes.
fn built_branch(options: &Value, event: &Value) -> Result<Option<&'static str>, ()> {
    let mut which = options.clone();
    which["then"] = json!("then");
    which["else"] = json!("else");
    let takes_then = resolve(&json!({ "@if": which }), event)? == Some(json!("then"));
    Ok(if takes_then {
        options.get("then").map(|_| "then")
    } else {
        truthy(&options["else"]).then_some("else")
    })
}

/// Whether the mapping is a list some of whose items are directives, possibly inside a `@literal`.
fn is_list(mapping: &Value) -> bool {
    mapping.is_array() || mapping.get("@literal").is_some_and(is_list)
}

fn spread_holes(value: Option<Value>) -> Vec<(String, Option<Value>)> {
    let mut members = spread(value);
    for (_, value) in &mut members {
        *value = value.take().filter(|value| *value != json!(HOLE)).map(without_holes);
    }
    members
}

fn without_holes(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(without_holes).collect(),
        Value::Object(members) => Value::Object(
            members.into_iter().map(|(key, value)| (key, without_holes(value))).collect(),
        ),
        hole if hole == json!(HOLE) => Value::Null,
        other => other,
    }
}

/// Marks a list item that resolved to nothing.
const HOLE: &str = "\u{E001}";

/// Like `resolve`, but marks holes in the lists that the mapping itself builds, unless lists are leaves.
fn with_holes(mapping: &Value, event: &Value, lists_are_leaves: bool) -> Found {
    match mapping {
        Value::Array(items) if !lists_are_leaves => {
            let items = items.iter().map(|item| {
                Ok(with_holes(item, event, lists_are_leaves)?.unwrap_or_else(|| HOLE.into()))
            });
            Ok(Some(Value::Array(items.collect::<Result<_, ()>>()?)))
        }
        Value::Object(members) if !members.keys().any(|key| key.starts_with('@')) => {
            let mut resolved = Map::new();
            for (key, member) in members {
                let member = with_holes(member, event, lists_are_leaves)?;
                resolved.insert(key.clone(), member.unwrap_or_else(|| HOLE.into()));
            }
            Ok(Some(Value::Object(resolved)))
        }
        Value::Object(members) if members.contains_key("@if") => {
            let options = &members["@if"];
            match built_branch(options, event)? {
                Some(branch) => with_holes(&options[branch], event, lists_are_leaves),
                None => Ok(None),
            }
        }
        Value::Object(members) if members.contains_key("@arrayPath") && !lists_are_leaves => {
            let [list, shape] = [0, 1].map(|at| &members["@arrayPath"][at]);
            let whole = resolve(&json!({"@arrayPath": [list]}), event)?;
            let items = match whole {
                Some(Value::Array(items)) => items,
                Some(Value::Object(single)) => vec![Value::Object(single)],
                other => return Ok(other),
            };
            if shape.as_object().is_none_or(Map::is_empty) {
                return resolve(mapping, event);
            }
            let items = items.iter().map(|item| {
                Ok(with_holes(shape, item, lists_are_leaves)?.unwrap_or_else(|| HOLE.into()))
            });
            Ok(Some(Value::Array(items.collect::<Result<_, ()>>()?)))
        }
        Value::Object(members) if members.get("@excludeWhenNull").is_some_and(is_list) => {
            with_holes(&members["@excludeWhenNull"], event, lists_are_leaves)
        }
        Value::Object(members) if members.len() == 1 && members.contains_key("@literal") => {
            with_holes(&members["@literal"], event, lists_are_leaves)
        }
        other => resolve(other, event),
    }
}

fn truthy(value: &Value) -> bool {
    !(value.is_null()
        || *value == json!(false)
        || *value == json!("")
        || value.as_f64() == Some(0.0))
}

fn loosely_empty(value: &Value) -> bool {
    match value {
        Value::Array(_) => joined(value).is_ok_and(|text| text.is_empty()) && !has_object(value),
        Value::Object(_) => false,
        other => !truthy(other),
    }
}

fn has_object(value: &Value) -> bool {
    value.is_object() || value.as_array().is_some_and(|items| items.iter().any(has_object))
}

fn get(event: &Value, path: &str) -> Option<Value> {
    let chars: Vec<char> = path.chars().collect();
    let of_index = |c: Option<&char>| c.is_some_and(|c| c.is_ascii_digit() || "'\"".contains(*c));
    let (mut marked, mut closes) = (String::new(), false);
    for (at, &c) in chars.iter().enumerate() {
        closes = c == ']' && (closes || at > 0 && of_index(chars.get(at - 1)));
        let opens = c == '[' && of_index(chars.get(at + 1));
        marked.push(if c == '.' || opens || closes { '\u{E002}' } else { c });
    }
    let keys: Vec<String> = marked
        .split('\u{E002}')
        .filter(|key| !key.is_empty())
        .map(|key| key.replace(['"', '\''], ""))
        .collect();
    let mut here = event.clone();
    for (at, key) in keys.iter().enumerate() {
        let last = at + 1 == keys.len();
        let index = key.parse::<usize>().ok().filter(|index| index.to_string() == *key);
        here = match &here {
            Value::Null => Value::Null,
            Value::Object(members) => members.get(key)?.clone(),
            Value::Array(items) if key == "length" && last => json!(items.len()),
            Value::Array(items) => items.get(index?)?.clone(),
            Value::String(text) if key == "length" && last => json!(text.encode_utf16().count()),
            Value::String(text) => {
                let unit = text.encode_utf16().nth(index?)?;
                String::from_utf16(&[unit]).ok()?.into()
            }
            _ => return None,
        };
    }
    Some(here)
}

fn joined(value: &Value) -> Result<String, ()> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Array(items) => {
            Ok(items.iter().map(joined).collect::<Result<Vec<_>, ()>>()?.join(","))
        }
        Value::Object(_) => Err(()),
        scalar => Ok(encode(scalar)),
    }
}

/// Three braces before two. A private-use character stands for each inserted value, so that the second round
/// does not search it.
fn render(template: &str, event: &Value) -> Result<String, ()> {
    let mut brought = Vec::new();
    let mut text = template.to_owned();
    for braces in [3, 2] {
        let (open, close) = ("{".repeat(braces), "}".repeat(braces));
        let mut from = 0;
        while let Some(start) = text[from..].find(&open).map(|at| at + from) {
            let inside = &text[start + braces..];
            let end = inside.find('}').unwrap_or(inside.len());
            let hidden = inside[..end].contains('\u{E000}');
            if end == 0 || hidden || !inside[end..].starts_with(&close) {
                from = start + 1;
                continue;
            }
            let value = get(
                event,
                inside[..end]
                    .trim_matches(|c: char| c == '\u{FEFF}' || c != '\u{85}' && c.is_whitespace()),
            )
            .map_or(Ok(String::new()), |v| joined(&v))?;
            brought.push(value);
            let after = start + braces + end + braces;
            text.replace_range(start..after, "\u{E000}");
            let mark = start;
            from = mark + '\u{E000}'.len_utf8();
            // In the order of the text, whichever round inserted the value.
            let position = text[..mark].matches('\u{E000}').count();
            let value = brought.pop().expect("just pushed");
            brought.insert(position, value);
        }
    }
    let mut parts = text.split('\u{E000}');
    let mut rendered = parts.next().unwrap_or_default().to_owned();
    for (value, part) in brought.iter().zip(parts) {
        rendered += value;
        rendered += part;
    }
    Ok(rendered)
}

fn clean(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(members) => {
            let members = members.into_iter().filter_map(|(key, value)| Some((key, clean(value)?)));
            Some(Value::Object(members.collect()))
        }
        other => Some(other),
    }
}

fn replace(options: &Value, value: Option<Value>) -> Found {
    let text = match value {
        Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => {
            return Ok(Some("".into()));
        }
        Some(scalar) => joined(&scalar)?,
    };
    let (pattern, by) =
        (options["pattern"].as_str().ok_or(())?, options["replacement"].as_str().ok_or(())?);
    let fold = |text: &str| -> Vec<String> {
        let one = |c: char| {
            let upper = c.to_uppercase().to_string();
            let usable = upper.chars().count() == 1
                && c <= '\u{FFFF}'
                && (c.is_ascii() || !upper.is_ascii());
            if options["ignorecase"] == true && usable { upper } else { c.to_string() }
        };
        text.chars().map(one).collect()
    };
    let (folded, wanted) = (fold(&text), fold(pattern));
    let chars: Vec<char> = text.chars().collect();
    let part = |range: std::ops::Range<usize>| chars[range].iter().collect::<String>();
    let (mut out, mut at) = (String::new(), 0);
    let mut done = false;
    while at < chars.len() {
        if !done && folded[at..].starts_with(&wanted) {
            let end = at + wanted.len();
            let mut by = by.chars().peekable();
            while let Some(c) = by.next() {
                let special = if c == '$' { by.peek().copied() } else { None };
                let text = match special {
                    Some('$') => "$".to_owned(),
                    Some('&') => part(at..end),
                    Some('`') => part(0..at),
                    Some('\'') => part(end..chars.len()),
                    _ => {
                        out.push(c);
                        continue;
                    }
                };
                by.next();
                out += &text;
            }
            at = end;
            done = options["global"] == false;
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    Ok(Some(out.into()))
}

fn flatten(value: &Value, at: &str, separator: &str, omit: bool, flat: &mut Map<String, Value>) {
    let below = |key: String| if at.is_empty() { key } else { format!("{at}{separator}{key}") };
    match value {
        Value::Object(members) => members
            .iter()
            .for_each(|(key, value)| flatten(value, &below(key.clone()), separator, omit, flat)),
        Value::Array(items) if !omit => items.iter().enumerate().for_each(|(index, value)| {
            flatten(value, &below(index.to_string()), separator, omit, flat);
        }),
        leaf => {
            flat.insert(at.to_owned(), leaf.clone());
        }
    }
}

fn spread(value: Option<Value>) -> Vec<(String, Option<Value>)> {
    let numbered = |values: Vec<Value>| {
        values
            .into_iter()
            .enumerate()
            .map(|(index, value)| (index.to_string(), Some(value)))
            .collect()
    };
    match value {
        Some(Value::Object(members)) => {
            members.into_iter().map(|(key, value)| (key, Some(value))).collect()
        }
        Some(Value::Array(items)) => numbered(items),
        Some(Value::String(text)) => numbered(
            text.encode_utf16()
                .map(|unit| String::from_utf16(&[unit]).unwrap_or_default().into())
                .collect(),
        ),
        _ => Vec::new(),
    }
}

fn encode(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => {
            ryu_js::Buffer::new().format(number.as_f64().unwrap_or_default()).to_owned()
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(encode).collect::<Vec<_>>().join(","))
        }
        Value::Object(members) => {
            let members =
                members.iter().map(|(key, value)| format!("{}:{}", json!(key), encode(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        scalar => scalar.to_string(),
    }
}
