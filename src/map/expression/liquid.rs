//! `@liquid`: a text in the Liquid template language, as liquidjs renders it for Segment. See why it is
//! [our own](crate::design::decisions::liquid).
//!
//! Segment switches off loops and many filters, and ignores unknown variables and filters. What is left is
//! small and uses JavaScript's numbers and truthiness, so it is implemented here: the Liquid crates reject
//! unknown names and compute with integers, and would have to be overruled everywhere.
//!
//! # What always holds
//! * A template that cannot be parsed, or that names a tag or filter that is switched off, is a fault at
//!   compile time.
//! * Rendering takes time bounded by the template and the event (there are no loops) and memory
//!   bounded by the [`Budget`].
//! # What does not
//! `sample` is random and therefore refused: one event would yield different members.

mod dates;
mod filters;
mod lexer;
mod parser;
mod reader;
mod render;
mod texts;
mod value;

use std::fmt;

use serde_json::Value;

use super::budget::Budget;
use super::{Resolved, Unresolved, built_value};
use parser::Node;
use render::Renderer;

/// [Segment's limit](crate::design::segment::directives), in UTF-16 units.
const LONGEST: usize = 1000;

/// A compiled template.
#[derive(Clone, PartialEq)]
pub(in crate::map) struct LiquidTemplate(Vec<Node>);

impl LiquidTemplate {
    /// Errors: a sentence that says where the fault is.
    pub(super) fn compile(text: &str) -> Result<Self, String> {
        if text.encode_utf16().count() > LONGEST {
            return Err(format!("may have at most {LONGEST} characters"));
        }
        parser::parse(text).map(Self)
    }

    /// Warnings about filters that do not exist, which leave the value unchanged.
    pub(super) fn doubts(&self) -> Vec<String> {
        parser::unknown_filters(&self.0)
    }

    /// Whether the result can depend on the event.
    pub(super) fn reads_event(&self) -> bool {
        self.0.iter().any(Node::reads_event)
    }

    pub(super) fn resolve<'a>(&'a self, event: &'a Value, budget: &Budget) -> Resolved<'a> {
        let mut renderer = Renderer::new(event, budget);
        renderer.nodes(&self.0)?;
        built_value(Value::String(renderer.finish()))
    }
}

/// Hides the text: a template may contain somebody's email ([P8](crate::design::P8)).
impl fmt::Debug for LiquidTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LiquidTemplate")
    }
}

fn cannot(what: &str) -> Unresolved {
    Unresolved::new(format!("@liquid cannot be rendered: {what}"))
}

#[cfg(test)]
mod tests;
