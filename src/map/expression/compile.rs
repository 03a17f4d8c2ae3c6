//! Compiles the JSON of Segment's mapping editor into an expression, and collects every fault in it.

use std::fmt;

use serde_json::{Map, Value};

use super::super::coercion::kind;
use super::Expression;
use super::case::Case;
use super::conditional::Conditional;
use super::flatten::Flatten;
use super::json::Json;
use super::liquid::LiquidTemplate;
use super::list::ArrayPath;
use super::merge::Merge;
use super::path::Path;
use super::replace::Replace;
use super::template::Template;
use super::transform::Transform;

/// Deepest nesting of directives and objects; far more than anybody writes.
pub(super) const DEEPEST: usize = 64;

/// Notes that the editor keeps beside a directive; they do not affect the value.
pub(super) const NOTES: &str = "_metadata";

/// A fault in a mapping, whatever the event. It names keys and directives, never values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingFault {
    /// Its place in the mapping, such as `user_email.@if.then`.
    pub path: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl fmt::Display for MappingFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, problem } = self;
        write!(f, "{path} {problem}")
    }
}

pub(super) fn compile(json: &Value, at: &str) -> Result<Expression, Vec<MappingFault>> {
    let mut compiler = Compiler { path: vec![at.to_owned()], faults: Vec::new() };
    let expression = compiler.expression(json);
    if compiler.faults.is_empty() { Ok(expression) } else { Err(compiler.faults) }
}

/// Walks a mapping and collects every fault. A faulty part compiles to a placeholder, which [`compile`] does
/// not return.
pub(super) struct Compiler {
    path: Vec<String>,
    faults: Vec<MappingFault>,
}

impl Compiler {
    pub(super) fn fault(&mut self, problem: impl Into<String>) {
        let path = self.path.join(".");
        self.faults.push(MappingFault { path, problem: problem.into() });
    }

    /// Runs `compile` with `key` appended to the current path.
    pub(super) fn at<T>(&mut self, key: &str, compile: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(key.to_owned());
        let compiled = compile(self);
        self.path.pop();
        compiled
    }

    pub(super) fn expression(&mut self, json: &Value) -> Expression {
        if self.path.len() > DEEPEST {
            self.fault(format!("is nested more than {DEEPEST} levels deep"));
            return Expression::Literal(Value::Null);
        }
        match json {
            Value::Object(members) if members.keys().any(|key| key.starts_with('@')) => {
                self.directive(members)
            }
            Value::Object(members) => {
                let compiled = members
                    .iter()
                    .map(|(key, value)| (key.clone(), self.at(key, |this| this.expression(value))));
                object(compiled.collect())
            }
            Value::Array(items) => {
                let compiled = items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| self.at(&index.to_string(), |this| this.expression(item)));
                list(compiled.collect())
            }
            scalar => Expression::Literal(scalar.clone()),
        }
    }

    fn directive(&mut self, members: &Map<String, Value>) -> Expression {
        let mut directives = members.iter().filter(|(key, _)| *key != NOTES);
        let (Some((name, options)), None) = (directives.next(), directives.next()) else {
            self.fault("has a directive, which must be the only key");
            return Expression::Literal(Value::Null);
        };
        let compiled = self.at(name, |this| match name.as_str() {
            "@path" => this.text_or_directive(
                options,
                |text| Expression::Path(Path::parse(text)),
                Expression::PathFrom,
            ),
            "@template" => this.text_or_directive(
                options,
                |text| Expression::Template(Template::parse(text)),
                Expression::TemplateFrom,
            ),
            "@literal" => Some(this.expression(options)),
            "@excludeWhenNull" => {
                Some(Expression::ExcludeWhenNull(Box::new(this.expression(options))))
            }
            "@if" => Conditional::compile(this, options).map(Box::new).map(Expression::If),
            "@case" => Case::compile(this, options).map(Box::new).map(Expression::Case),
            "@replace" => Replace::compile(this, options).map(Box::new).map(Expression::Replace),
            "@arrayPath" => {
                ArrayPath::compile(this, options).map(Box::new).map(Expression::ArrayPath)
            }
            "@flatten" => Flatten::compile(this, options).map(Box::new).map(Expression::Flatten),
            "@json" => Json::compile(this, options).map(Box::new).map(Expression::Json),
            "@merge" => Merge::compile(this, options).map(Box::new).map(Expression::Merge),
            "@transform" => {
                Transform::compile(this, options).map(Box::new).map(Expression::Transform)
            }
            "@liquid" => this.liquid(options),
            _ => {
                this.fault("is not a directive");
                None
            }
        });
        compiled.unwrap_or(Expression::Literal(Value::Null))
    }

    fn liquid(&mut self, options: &Value) -> Option<Expression> {
        let text = self.text(options)?;
        match LiquidTemplate::compile(text) {
            Ok(template) => Some(Expression::Liquid(Box::new(template))),
            Err(problem) => {
                self.fault(problem);
                None
            }
        }
    }

    /// A text that is compiled now, or a directive that yields a text for each event.
    pub(super) fn text_or_directive(
        &mut self,
        json: &Value,
        compile: impl FnOnce(&str) -> Expression,
        from: impl FnOnce(Box<Expression>) -> Expression,
    ) -> Option<Expression> {
        match json {
            Value::String(text) => Some(compile(text)),
            json if is_directive(json) => Some(from(Box::new(self.expression(json)))),
            other => {
                self.wrong("a string or a directive", other);
                None
            }
        }
    }

    pub(super) fn text<'a>(&mut self, json: &'a Value) -> Option<&'a str> {
        if !json.is_string() {
            self.wrong("a string", json);
        }
        json.as_str()
    }

    /// The options of a directive, or a fault if `json` is not an object of options. Unknown options are
    /// still compiled, for their faults, as in the hosted integration; `known` names the options that the
    /// directive compiles itself.
    pub(super) fn options<'a>(
        &mut self,
        json: &'a Value,
        known: &[&str],
    ) -> Option<&'a Map<String, Value>> {
        match json {
            Value::Object(options) if !is_directive(json) => {
                for (key, json) in options.iter().filter(|(key, _)| !known.contains(&key.as_str()))
                {
                    self.at(key, |this| this.expression(json));
                }
                Some(options)
            }
            other => {
                self.wrong("an object with the options of the directive", other);
                None
            }
        }
    }

    /// A required option; it may be null.
    pub(super) fn needed<'a>(
        &mut self,
        options: &'a Map<String, Value>,
        key: &str,
    ) -> Option<&'a Value> {
        let value = options.get(key);
        if value.is_none() {
            self.fault(format!("needs the option {key}"));
        }
        value
    }

    /// An optional option that is an expression.
    pub(super) fn option(&mut self, options: &Map<String, Value>, key: &str) -> Option<Expression> {
        let json = options.get(key)?;
        Some(self.at(key, |this| this.expression(json)))
    }

    /// An optional option that must be a text.
    pub(super) fn text_option<'a>(
        &mut self,
        options: &'a Map<String, Value>,
        key: &str,
    ) -> Option<&'a str> {
        let json = options.get(key)?;
        self.at(key, |this| this.text(json))
    }

    pub(super) fn wrong(&mut self, wanted: &str, found: &Value) {
        let found = if is_directive(found) { "a directive" } else { kind(found) };
        self.fault(format!("must be {wanted} but it is {found}"));
    }
}

/// A literal if all members are literals, so that nothing has to be built for each event.
fn object(members: Vec<(String, Expression)>) -> Expression {
    let plain = members.iter().map(|(key, member)| Some((key.clone(), member.literal()?.clone())));
    match plain.collect::<Option<Map<_, _>>>() {
        Some(plain) => Expression::Literal(Value::Object(plain)),
        None => Expression::Object(members),
    }
}

fn list(items: Vec<Expression>) -> Expression {
    match items.iter().map(|item| item.literal().cloned()).collect::<Option<Vec<_>>>() {
        Some(plain) => Expression::Literal(Value::Array(plain)),
        None => Expression::List(items),
    }
}

pub(super) fn is_directive(json: &Value) -> bool {
    json.as_object().is_some_and(|members| members.keys().any(|key| key.starts_with('@')))
}

/// Falsy as in JavaScript: the hosted integration treats such an option as absent.
pub(super) fn is_falsy(json: &Value) -> bool {
    match json {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}
