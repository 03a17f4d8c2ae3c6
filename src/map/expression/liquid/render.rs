//! Renders a parsed template against one event.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;

use serde_json::Value;

use super::super::Unresolved;
use super::super::budget::Budget;
use super::cannot;
use super::filters::Arguments;
use super::parser::{Condition, Filtered, Node, Operand, Operator, Step};
use super::value::{self, Found};

/// Most items in a range; naming a member needs fewer.
const LONGEST_RANGE: i64 = 1000;

/// The state of rendering one template.
pub(super) struct Renderer<'a> {
    event: &'a Value,
    budget: &'a Budget,
    variables: HashMap<String, Value>,
    counters: HashMap<String, f64>,
    cycles: HashMap<String, usize>,
    rendered: String,
    stopped: bool,
}

/// An operand of an operator.
enum Side<'a> {
    Value(Found<'a>),
    /// The word `nil`, which is neither greater nor less than anything.
    Nil,
    Empty,
    Blank,
}

impl<'a> Renderer<'a> {
    pub(super) fn new(event: &'a Value, budget: &'a Budget) -> Self {
        Self {
            event,
            budget,
            variables: HashMap::new(),
            counters: HashMap::new(),
            cycles: HashMap::new(),
            rendered: String::new(),
            stopped: false,
        }
    }

    pub(super) fn finish(self) -> String {
        self.rendered
    }

    pub(super) fn nodes(&mut self, nodes: &[Node]) -> Result<(), Unresolved> {
        for node in nodes {
            if self.stopped {
                break;
            }
            self.node(node)?;
        }
        Ok(())
    }

    fn node(&mut self, node: &Node) -> Result<(), Unresolved> {
        match node {
            Node::Text(text) => self.write(text)?,
            Node::Output(filtered) => {
                let text = value::text(self.filtered(filtered)?.as_deref());
                self.write(&text)?;
            }
            Node::Branches(branches) => {
                for (condition, nodes) in branches {
                    let holds = match condition {
                        Condition::If(of) => self.holds(of)?,
                        Condition::Unless(of) => !self.holds(of)?,
                        Condition::Always => true,
                    };
                    if holds {
                        return self.nodes(nodes);
                    }
                }
            }
            Node::Assign(name, filtered) => {
                let value = self.filtered(filtered)?.unwrap_or(Cow::Owned(Value::Null));
                let value = self.budget.own(value)?;
                self.variables.insert(name.clone(), value);
            }
            Node::Capture(name, nodes) => {
                let outside = std::mem::take(&mut self.rendered);
                self.nodes(nodes)?;
                let captured = std::mem::replace(&mut self.rendered, outside);
                self.variables.insert(name.clone(), captured.into());
            }
            Node::Count { name, up } => {
                // The counter starts from the event's number of the same name, if there is one.
                let begin = || self.event.get(name).filter(|value| value.is_number());
                let counter = self
                    .counters
                    .entry(name.clone())
                    .or_insert_with(|| begin().and_then(Value::as_f64).unwrap_or_default());
                let shown = if *up { *counter } else { *counter - 1.0 };
                *counter += if *up { 1.0 } else { -1.0 };
                self.write(&value::text(Some(&value::number(shown))))?;
            }
            Node::Cycle { group, candidates } => {
                let turn = self.cycles.entry(group.clone()).or_default();
                let candidate = candidates.get(*turn % candidates.len().max(1));
                *turn += 1;
                if let Some(candidate) = candidate {
                    let text = value::text(self.operand(candidate)?.as_deref());
                    self.write(&text)?;
                }
            }
            Node::Stop => self.stopped = true,
        }
        Ok(())
    }

    fn write(&mut self, text: &str) -> Result<(), Unresolved> {
        self.budget.spend(text.len())?;
        self.rendered.push_str(text);
        Ok(())
    }

    fn filtered(&self, filtered: &Filtered) -> Result<Found<'_>, Unresolved> {
        let mut value = self.expression(&filtered.value)?;
        for call in &filtered.filters {
            let arguments: Vec<Found<'_>> =
                call.arguments.iter().map(|of| self.operand(of)).collect::<Result<_, _>>()?;
            let arguments =
                Arguments { values: arguments, allow_false: call.allow_false, budget: self.budget };
            value = call.filter.apply(value.as_deref(), &arguments)?;
        }
        Ok(value)
    }

    /// Whether a condition holds. The words `empty` and `blank` on their own are true.
    fn holds(&self, condition: &Filtered) -> Result<bool, Unresolved> {
        if let ([Step::Push(Operand::Empty | Operand::Blank)], []) =
            (&condition.value[..], &condition.filters[..])
        {
            return Ok(true);
        }
        Ok(value::is_true(self.filtered(condition)?.as_deref()))
    }

    /// Evaluates a postfix expression. If several operands are left, the first is the result, as in liquidjs.
    fn expression(&self, steps: &[Step]) -> Result<Found<'_>, Unresolved> {
        let mut stack: Vec<Side<'_>> = Vec::new();
        for step in steps {
            let side = match step {
                Step::Push(Operand::Empty) => Side::Empty,
                Step::Push(Operand::Blank) => Side::Blank,
                Step::Push(Operand::Literal(Value::Null)) => Side::Nil,
                Step::Push(operand) => Side::Value(self.operand(operand)?),
                Step::Apply(operator) => {
                    let right = stack.pop().unwrap_or(Side::Value(None));
                    let left = match operator {
                        Operator::Not => Side::Value(None),
                        _ => stack.pop().unwrap_or(Side::Value(None)),
                    };
                    apply(*operator, &left, &right)
                }
            };
            stack.push(side);
        }
        Ok(match stack.into_iter().next() {
            Some(Side::Value(value)) => value,
            Some(Side::Nil) => Some(Cow::Owned(Value::Null)),
            _ => None,
        })
    }

    fn operand(&self, operand: &Operand) -> Result<Found<'_>, Unresolved> {
        Ok(match operand {
            Operand::Literal(value) => Some(Cow::Owned(value.clone())),
            Operand::Empty | Operand::Blank => None,
            Operand::Path(keys) => self.path(keys)?,
            Operand::Range(ends) => {
                let (from, to) = (self.whole(&ends.0)?, self.whole(&ends.1)?);
                if to.saturating_sub(from) >= LONGEST_RANGE {
                    return Err(cannot("a range is too long"));
                }
                Some(Cow::Owned((from..=to).map(Value::from).collect()))
            }
        })
    }

    fn whole(&self, operand: &Operand) -> Result<i64, Unresolved> {
        let number = value::to_number(self.operand(operand)?.as_deref());
        #[expect(clippy::cast_possible_truncation, reason = "it saturates, and is bounded after")]
        Ok(number as i64)
    }

    fn path(&self, keys: &[Operand]) -> Result<Found<'_>, Unresolved> {
        let Some((first, rest)) = keys.split_first() else { return Ok(None) };
        let name = value::text(self.operand(first)?.as_deref());
        let mut here = match (self.variables.get(&name), self.counters.get(&name)) {
            (Some(value), _) => Cow::Borrowed(value),
            (None, Some(counter)) => Cow::Owned(value::number(*counter)),
            (None, None) => match self.event.get(&name) {
                Some(value) => Cow::Borrowed(value),
                None => return Ok(None),
            },
        };
        for key in rest {
            let Some(key) = self.operand(key)? else { return Ok(None) };
            match value::property(here, &key) {
                Some(value) => here = value,
                None => return Ok(None),
            }
        }
        Ok(Some(here))
    }
}

fn apply(operator: Operator, left: &Side<'_>, right: &Side<'_>) -> Side<'static> {
    let compare = |wanted: &[Ordering]| match (left, right) {
        (Side::Value(left), Side::Value(right)) => {
            value::compare(left.as_deref(), right.as_deref()).is_some_and(|is| wanted.contains(&is))
        }
        _ => false,
    };
    let truth = |side: &Side<'_>| match side {
        Side::Value(value) => value::is_true(value.as_deref()),
        Side::Nil => false,
        Side::Empty | Side::Blank => true,
    };
    let holds = match operator {
        Operator::Equal => equal(left, right),
        Operator::Unequal => !equal(left, right),
        Operator::Greater => compare(&[Ordering::Greater]),
        Operator::GreaterOrEqual => compare(&[Ordering::Greater, Ordering::Equal]),
        Operator::Less => compare(&[Ordering::Less]),
        Operator::LessOrEqual => compare(&[Ordering::Less, Ordering::Equal]),
        Operator::Contains => contains(left, right),
        Operator::Not => !truth(right),
        Operator::And => truth(left) && truth(right),
        Operator::Or => truth(left) || truth(right),
    };
    Side::Value(Some(Cow::Owned(Value::Bool(holds))))
}

fn contains(whole: &Side<'_>, part: &Side<'_>) -> bool {
    let nothing = Value::String(String::new());
    let whole = match whole {
        Side::Value(whole) => whole.as_deref(),
        Side::Nil => None,
        Side::Empty | Side::Blank => Some(&nothing),
    };
    match (whole, part) {
        (whole, Side::Value(part)) => value::contains(whole, part.as_deref()),
        (whole, Side::Nil) => value::contains(whole, None),
        // Every text contains the empty text.
        (Some(Value::String(_)), Side::Empty | Side::Blank) => true,
        (Some(Value::Array(items)), Side::Empty) => {
            items.iter().any(|item| value::is_empty(Some(item)))
        }
        (Some(Value::Array(items)), Side::Blank) => {
            items.iter().any(|item| value::is_blank(Some(item)))
        }
        _ => false,
    }
}

fn equal(left: &Side<'_>, right: &Side<'_>) -> bool {
    match (left, right) {
        (Side::Nil, Side::Value(value)) | (Side::Value(value), Side::Nil) => {
            matches!(value.as_deref(), None | Some(Value::Null))
        }
        (Side::Nil | Side::Blank, Side::Nil) => true,
        (Side::Value(left), Side::Value(right)) => value::equal(left.as_deref(), right.as_deref()),
        (Side::Empty, Side::Value(value)) | (Side::Value(value), Side::Empty) => {
            value::is_empty(value.as_deref())
        }
        (Side::Blank, Side::Value(value)) | (Side::Value(value), Side::Blank) => {
            value::is_blank(value.as_deref())
        }
        _ => false,
    }
}
