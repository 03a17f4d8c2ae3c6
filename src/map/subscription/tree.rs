//! The syntax tree of a statement, and its printed form.
//!
//! The printed form is canonical FQL: one space around operators, double quotes where possible, parentheses
//! only where they change the meaning. It parses into the same tree.

use std::fmt::{self, Display, Formatter};

use serde_json::Value;

use super::functions::Function;
use super::pattern::Pattern;

/// A condition on an event.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    /// `and` between two or more.
    All(Vec<Condition>),
    /// `or` between two or more.
    Any(Vec<Condition>),
    /// `!`.
    Not(Box<Condition>),
    /// Two operands with an operator between them.
    Compare {
        /// To the left of the operator.
        left: Operand,
        /// The operator.
        comparison: Comparison,
        /// To the right of the operator.
        right: Operand,
    },
    /// `item in list`.
    In {
        /// The value looked for.
        item: Operand,
        /// The list that is searched.
        list: Operand,
    },
    /// An operand that is a condition by itself.
    Holds(Operand),
}

/// The operators between two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// `=`.
    Equal,
    /// `!=`.
    NotEqual,
    /// `<`.
    Less,
    /// `<=`.
    AtMost,
    /// `>`.
    Greater,
    /// `>=`.
    AtLeast,
}

/// Something that has a value for an event.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    /// A field of the event.
    Path(Path),
    /// Null, a boolean, a number, a text, or a list of these, written in the statement.
    Literal(Value),
    /// A function of one value.
    Call(Function, Box<Operand>),
    /// Whether a text contains another.
    Contains {
        /// The text.
        text: Box<Operand>,
        /// What it should contain.
        part: Box<Operand>,
    },
    /// Whether a text matches a pattern.
    Match {
        /// The text.
        text: Box<Operand>,
        /// The pattern.
        pattern: Pattern,
    },
}

/// The path of a field; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path(pub(super) Vec<Step>);

/// One name of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The name, with its escapes removed.
    pub(super) name: String,
    /// The name parsed as `list[0]`: the part before the brackets, and the positions in them.
    pub(super) indexed: Option<(String, Vec<usize>)>,
}

/// The fields at the root of Segment's events. Any other name is more likely a mistake than a field; to use
/// it, put a backslash before it.
const FIELDS: [&str; 19] = [
    "anonymousId",
    "category",
    "channel",
    "context",
    "event",
    "groupId",
    "integrations",
    "messageId",
    "name",
    "originalTimestamp",
    "previousId",
    "properties",
    "receivedAt",
    "sentAt",
    "timestamp",
    "traits",
    "type",
    "userId",
    "version",
];

/// Whether Segment's events have a field of this name at their root.
pub(super) fn is_field(name: &str) -> bool {
    FIELDS.contains(&name)
}

/// Whether the character needs no backslash in a path.
pub(super) fn is_plain(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-')
}

impl Step {
    pub(super) fn new(name: String) -> Self {
        Self { indexed: indexed(&name), name }
    }
}

/// Splits `list[2][0]` into `list` and its positions.
fn indexed(name: &str) -> Option<(String, Vec<usize>)> {
    let (list, positions) = name.split_once('[')?;
    let positions = positions.strip_suffix(']')?.split("][");
    Some((list.to_owned(), positions.map(|at| at.parse().ok()).collect::<Option<_>>()?))
}

impl Operand {
    /// Whether it can be a condition without a comparison. The fields at the root of every event are texts or
    /// objects, never true or false.
    pub(super) fn can_hold(&self) -> bool {
        match self {
            Self::Path(Path(steps)) => steps.len() > 1 || !is_field(&steps[0].name),
            Self::Contains { .. } | Self::Match { .. } | Self::Call(Function::Bool, _) => true,
            Self::Literal(_) | Self::Call(..) => false,
        }
    }

    /// Whether it is a number written in the statement.
    pub(super) fn is_number_literal(&self) -> bool {
        matches!(self, Self::Literal(Value::Number(_)))
    }
}

impl Comparison {
    fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Greater => ">",
            Self::AtLeast => ">=",
        }
    }
}

impl Display for Condition {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(conditions) => {
                separated(f, " and ", conditions, |f, condition| match condition {
                    Self::All(_) | Self::Any(_) => write!(f, "({condition})"),
                    _ => write!(f, "{condition}"),
                })
            }
            Self::Any(conditions) => {
                separated(f, " or ", conditions, |f, condition| match condition {
                    Self::Any(_) => write!(f, "({condition})"),
                    _ => write!(f, "{condition}"),
                })
            }
            Self::Not(condition) => match condition.as_ref() {
                Self::Not(_) | Self::Holds(_) => write!(f, "!{condition}"),
                _ => write!(f, "!({condition})"),
            },
            Self::Compare { left, comparison, right } => {
                write!(f, "{left} {} {right}", comparison.symbol())
            }
            Self::In { item, list } => write!(f, "{item} in {list}"),
            Self::Holds(operand) => write!(f, "{operand}"),
        }
    }
}

impl Display for Operand {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{path}"),
            Self::Literal(value) => literal(f, value),
            Self::Call(function, operand) => write!(f, "{}({operand})", function.name()),
            Self::Contains { text, part } => write!(f, "contains({text}, {part})"),
            Self::Match { text, pattern } => {
                write!(f, "match({text}, ")?;
                quoted(f, pattern.as_str())?;
                f.write_str(")")
            }
        }
    }
}

impl Display for Path {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (at, Step { name, .. }) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(".")?;
            }
            for (position, character) in name.chars().enumerate() {
                let meant = at == 0 && position == 0 && !is_field(name);
                if meant || !is_plain(character) {
                    f.write_str("\\")?;
                }
                write!(f, "{character}")?;
            }
        }
        Ok(())
    }
}

fn literal(f: &mut Formatter<'_>, value: &Value) -> fmt::Result {
    match value {
        Value::String(text) => quoted(f, text),
        Value::Number(number) => f.write_str(&super::functions::number_text(number)),
        Value::Array(items) => {
            f.write_str("[")?;
            separated(f, ", ", items, literal)?;
            f.write_str("]")
        }
        other => write!(f, "{other}"),
    }
}

/// Texts have no escapes, so none contains both kinds of quotes.
fn quoted(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    if text.contains('"') { write!(f, "'{text}'") } else { write!(f, "\"{text}\"") }
}

fn separated<T>(
    f: &mut Formatter<'_>,
    separator: &str,
    items: &[T],
    print: impl Fn(&mut Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            f.write_str(separator)?;
        }
        print(f, item)?;
    }
    Ok(())
}
