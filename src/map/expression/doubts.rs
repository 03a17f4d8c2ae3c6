//! Warnings, with their place, about a mapping that compiles but surely does not do what was meant.
//!
//! The hosted integration accepts such a mapping as well. Most of them give everybody the same key, or nobody
//! any key, and nothing shows it until a flag is wrong.
//!
//! # What does not hold
//! That everything else is meant. Only what no owner of a mapping can want is reported: if warnings are often
//! wrong, nobody reads them.

use serde_json::{Map, Value};

use super::compile::{MappingFault, NOTES, is_directive};
use super::liquid::LiquidTemplate;
use super::path::Path;
use super::replace;
use super::template::Template;
use crate::nearest::nearest;

/// Warnings about the JSON of one field; `at` is its place in the mapping.
pub(super) fn doubts(json: &Value, at: &str) -> Vec<MappingFault> {
    let mut doubts = Doubts { path: vec![at.to_owned()], found: Vec::new() };
    doubts.expression(json);
    doubts.found
}

struct Doubts {
    path: Vec<String>,
    found: Vec<MappingFault>,
}

impl Doubts {
    fn doubt(&mut self, problem: impl Into<String>) {
        self.found.push(MappingFault { path: self.path.join("."), problem: problem.into() });
    }

    fn at(&mut self, key: &str, look: impl FnOnce(&mut Self)) {
        self.path.push(key.to_owned());
        look(self);
        self.path.pop();
    }

    fn expression(&mut self, json: &Value) {
        match json {
            Value::Object(members) => {
                for (key, member) in members.iter().filter(|(key, _)| *key != NOTES) {
                    self.at(key, |this| match member {
                        _ if key.starts_with('@') => this.directive(key, member),
                        _ => this.expression(member),
                    });
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.at(&index.to_string(), |this| this.expression(item));
                }
            }
            Value::String(text) => self.plain(text),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn directive(&mut self, name: &str, of: &Value) {
        match (name, of) {
            ("@path", Value::String(text)) => self.path(text),
            ("@template", Value::String(text)) => {
                if let Some(problem) = Template::parse(text).doubt() {
                    self.doubt(problem);
                }
            }
            ("@liquid", Value::String(text)) => {
                if let Ok(template) = LiquidTemplate::compile(text) {
                    template.doubts().into_iter().for_each(|problem| self.doubt(problem));
                }
            }
            // The directive itself says that the text is meant literally.
            ("@literal", Value::String(_)) => {}
            ("@if", Value::Object(options)) => self.conditional(options),
            ("@case", Value::Object(options)) => {
                self.options(options, &["operator", "value"], &["operator"]);
                let operator = options.get("operator").and_then(Value::as_str);
                if !matches!(operator, Some("lower" | "upper")) {
                    self.at("operator", |this| {
                        this.doubt("must be lower or upper: any other string is an error");
                    });
                }
                if options.get("value").is_none_or(|value| value == "") {
                    self.doubt("has no value, so the result is empty");
                }
            }
            ("@replace", Value::Object(options)) => self.replace(options),
            ("@flatten", Value::Object(options)) => {
                self.options(
                    options,
                    &["value", "separator", "omitArrays"],
                    &["separator", "omitArrays"],
                );
                if options.get("omitArrays").is_some_and(|flag| !flag.is_boolean()) {
                    self.at("omitArrays", |this| {
                        this.doubt("is not true or false: JavaScript truthiness decides");
                    });
                }
            }
            ("@json", Value::Object(options)) => {
                self.options(options, &["mode", "value"], &["mode"]);
            }
            ("@merge", Value::Object(options)) => {
                self.options(options, &["objects", "direction"], &["direction"]);
                let direction = options.get("direction").and_then(Value::as_str);
                if !matches!(direction, Some("left" | "right")) {
                    self.at("direction", |this| {
                        this.doubt("is neither left nor right, and counts as right");
                    });
                }
            }
            ("@transform", Value::Object(options)) => {
                self.options(options, &["apply", "mapping"], &[]);
            }
            ("@arrayPath", Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.at(&index.to_string(), |this| match item {
                        Value::String(path) if index == 0 => this.path(path),
                        shape if index == 1 && !shape.is_object() => {
                            this.doubt("is not an object, so the items stay as they are");
                        }
                        item => this.expression(item),
                    });
                }
            }
            (_, other) => self.expression(other),
        }
    }

    /// Reports options that the directive does not have, and checks the values of all others except those in
    /// `words`, which are plain words.
    fn options(&mut self, options: &Map<String, Value>, known: &[&str], words: &[&str]) {
        for (key, option) in options.iter().filter(|(key, _)| *key != NOTES) {
            if !known.contains(&key.as_str()) {
                let hint = nearest(key, known)
                    .map_or_else(String::new, |known| format!("; did you mean {known}?"));
                self.at(key, |this| {
                    this.doubt(format!("is not an option of this directive{hint}"));
                });
            } else if !words.contains(&key.as_str()) {
                self.at(key, |this| this.expression(option));
            }
        }
    }

    fn conditional(&mut self, options: &Map<String, Value>) {
        self.options(options, &["exists", "blank", "then", "else"], &["exists", "blank"]);
        for key in ["exists", "blank"] {
            let Some(condition) = options.get(key) else { continue };
            self.at(key, |this| {
                if is_directive(condition) {
                    this.expression(condition);
                } else {
                    this.doubt("is not a directive, so it is the same for every event");
                }
            });
        }
        if options.contains_key("exists") && options.contains_key("blank") {
            self.at("blank", |this| this.doubt("is ignored because exists is set"));
        }
    }

    fn replace(&mut self, options: &Map<String, Value>) {
        let words: Vec<&str> =
            replace::OPTIONS.into_iter().filter(|option| *option != "value").collect();
        self.options(options, &replace::OPTIONS, &words);
        for key in ["pattern2", "replacement2"] {
            if options.get(key).is_some_and(|part| !part.is_string() && !part.is_null()) {
                self.at(key, |this| this.doubt("is not a string, and is ignored"));
            }
        }
        let has = |key: &str| {
            options.get(key).and_then(Value::as_str).is_some_and(|text| !text.is_empty())
        };
        if has("replacement2") && !has("pattern2") {
            self.at("replacement2", |this| this.doubt("has no effect without pattern2"));
        }
    }

    fn path(&mut self, text: &str) {
        let path = Path::parse(text);
        let problem = if text.contains("{{") || text.contains("}}") {
            "has braces, which count as part of the key here: write the path alone, or as \
             {{path}} in a @template"
        } else if path.keys().next() == Some("$") {
            "looks for a key named $: the event itself is $. with the dot"
        } else if path.keys().any(|key| key == "*") {
            "looks for a key named *: a path has no wildcards"
        } else {
            return;
        };
        self.doubt(problem);
    }

    /// A text outside a directive, which stands for itself.
    fn plain(&mut self, text: &str) {
        if text.contains("{{") && text.contains("}}") {
            self.doubt("has placeholders but is not a @template, so they stay as they are");
        } else if text.starts_with("$.") {
            self.doubt("looks like a path but is taken literally: put it into a @path");
        }
    }
}
