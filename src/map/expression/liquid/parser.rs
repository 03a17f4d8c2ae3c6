//! Turns tokens into nodes: outputs, and tags with the content between them.

use serde_json::Value;

use super::filters::Filter;
use super::lexer::{Place, Token, tokens};
use super::reader::Reader;

/// A part of a template that can be rendered.
#[derive(Clone, PartialEq)]
pub(super) enum Node {
    Text(String),
    Output(Filtered),
    /// Renders the first branch whose condition holds; the last branch may be unconditional.
    Branches(Vec<(Condition, Vec<Node>)>),
    Assign(String, Filtered),
    Capture(String, Vec<Node>),
    /// Prints the counter before incrementing it, or after decrementing it.
    Count {
        name: String,
        up: bool,
    },
    Cycle {
        group: String,
        candidates: Vec<Operand>,
    },
    /// `break` or `continue`: outside of a loop, either ends the template.
    Stop,
}

impl Node {
    /// Whether it names a variable. Variables that the template assigned itself are not distinguished from
    /// those of the event.
    pub(super) fn reads_event(&self) -> bool {
        match self {
            Self::Text(_) | Self::Count { .. } | Self::Stop => false,
            Self::Output(value) | Self::Assign(_, value) => value.reads_event(),
            Self::Branches(branches) => branches.iter().any(|(condition, nodes)| {
                condition.reads_event() || nodes.iter().any(Self::reads_event)
            }),
            Self::Capture(_, nodes) => nodes.iter().any(Self::reads_event),
            Self::Cycle { candidates, .. } => candidates.iter().any(Operand::reads_event),
        }
    }
}

impl Condition {
    fn reads_event(&self) -> bool {
        match self {
            Self::If(value) | Self::Unless(value) => value.reads_event(),
            Self::Always => false,
        }
    }
}

impl Filtered {
    fn reads_event(&self) -> bool {
        let mut steps = self.value.iter();
        steps.any(|step| matches!(step, Step::Push(operand) if operand.reads_event()))
            || self.filters.iter().flat_map(|call| &call.arguments).any(Operand::reads_event)
    }
}

impl Operand {
    fn reads_event(&self) -> bool {
        match self {
            Self::Literal(_) | Self::Empty | Self::Blank => false,
            Self::Path(_) => true,
            Self::Range(ends) => ends.0.reads_event() || ends.1.reads_event(),
        }
    }
}

#[derive(Clone, PartialEq)]
pub(super) enum Condition {
    If(Filtered),
    Unless(Filtered),
    Always,
}

/// A value and the filters applied to it.
#[derive(Clone, PartialEq)]
pub(super) struct Filtered {
    /// Operands and operators in postfix order.
    pub(super) value: Vec<Step>,
    pub(super) filters: Vec<FilterCall>,
    /// A warning for each filter that liquidjs does not know.
    pub(super) unknown: Vec<String>,
}

#[derive(Clone, PartialEq)]
pub(super) struct FilterCall {
    pub(super) filter: Filter,
    pub(super) arguments: Vec<Operand>,
    /// `default: …, allow_false: true`
    pub(super) allow_false: bool,
}

#[derive(Clone, PartialEq)]
pub(super) enum Step {
    Push(Operand),
    Apply(Operator),
}

#[derive(Clone, PartialEq)]
pub(super) enum Operand {
    Literal(Value),
    Empty,
    Blank,
    /// The keys from the root down.
    Path(Vec<Operand>),
    Range(Box<(Operand, Operand)>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    Unequal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Contains,
    Not,
    And,
    Or,
}

impl Operator {
    pub(super) fn precedence(self) -> u8 {
        match self {
            Self::And | Self::Or => 0,
            Self::Not => 1,
            _ => 2,
        }
    }
}

/// Tags of liquidjs that Segment [switches off](crate::design::segment::directives).
const DISABLED: [&str; 6] = ["case", "for", "include", "layout", "render", "tablerow"];

/// Deepest nesting of blocks, and of operands; a template has at most a thousand characters.
pub(super) const DEEPEST: usize = 32;

pub(super) fn parse(template: &str) -> Result<Vec<Node>, String> {
    let tokens = tokens(template)?;
    let mut parser = Parser { tokens: tokens.into_iter(), depth: 0 };
    match parser.block(&[])? {
        (nodes, None) => Ok(nodes),
        (_, Some(end)) => Err(end.place.fault(format!("{} has no matching opening tag", end.name))),
    }
}

/// The warnings about filters that liquidjs does not know.
pub(super) fn unknown_filters(nodes: &[Node]) -> Vec<String> {
    let of_node = |node: &Node| match node {
        Node::Output(of) | Node::Assign(_, of) => of.unknown.clone(),
        Node::Capture(_, nodes) => unknown_filters(nodes),
        Node::Branches(branches) => {
            let of_branch = |(condition, nodes): &(Condition, Vec<Node>)| {
                let mut unknown = match condition {
                    Condition::If(of) | Condition::Unless(of) => of.unknown.clone(),
                    Condition::Always => Vec::new(),
                };
                unknown.extend(unknown_filters(nodes));
                unknown
            };
            branches.iter().flat_map(of_branch).collect()
        }
        Node::Text(_) | Node::Count { .. } | Node::Cycle { .. } | Node::Stop => Vec::new(),
    };
    nodes.iter().flat_map(of_node).collect()
}

struct Parser<'t> {
    tokens: std::vec::IntoIter<Token<'t>>,
    depth: usize,
}

/// The tag that ended a block.
struct End<'t> {
    name: &'t str,
    args: &'t str,
    place: Place,
}

impl<'t> Parser<'t> {
    /// Parses up to one of the tags in `ends`, or to the end of the template.
    fn block(&mut self, ends: &[&str]) -> Result<(Vec<Node>, Option<End<'t>>), String> {
        let mut nodes = Vec::new();
        while let Some(token) = self.tokens.next() {
            match token {
                Token::Text(text) => nodes.push(Node::Text(text.to_owned())),
                Token::Output(text, place) => nodes.push(Node::Output(filtered(text, place)?)),
                Token::Tag(name, args, place) if ends.contains(&name) => {
                    return Ok((nodes, Some(End { name, args, place })));
                }
                Token::Tag(name, args, place) => nodes.extend(self.tag(name, args, place)?),
            }
        }
        Ok((nodes, None))
    }

    fn tag(&mut self, name: &str, args: &str, place: Place) -> Result<Option<Node>, String> {
        Ok(Some(match name {
            "#" => return Ok(None),
            "echo" => Node::Output(filtered(args, place)?),
            "if" => self.branches(Condition::If(filtered(args, place)?), "endif", place)?,
            "unless" => {
                self.branches(Condition::Unless(filtered(args, place)?), "endunless", place)?
            }
            "assign" => {
                let mut reader = Reader::new(args, place);
                let variable = reader.needed_identifier()?;
                reader.needed("=")?;
                Node::Assign(variable, reader.filtered()?)
            }
            "capture" => {
                let mut reader = Reader::new(args, place);
                let variable = match reader.quoted() {
                    Some(name) => name,
                    None => reader.needed_identifier()?,
                };
                Node::Capture(variable, self.until("endcapture", place)?)
            }
            "increment" | "decrement" => {
                let name_of_counter = Reader::new(args, place).needed_identifier()?;
                Node::Count { name: name_of_counter, up: name == "increment" }
            }
            "cycle" => cycle(args, place)?,
            "break" | "continue" => Node::Stop,
            _ if DISABLED.contains(&name) => {
                return Err(place.fault(format!("the tag {name} is switched off in Segment")));
            }
            _ => return Err(place.fault(format!("there is no tag {name}"))),
        }))
    }

    fn until(&mut self, end: &str, place: Place) -> Result<Vec<Node>, String> {
        self.deeper(place)?;
        let (nodes, found) = self.block(&[end])?;
        self.depth -= 1;
        found.map(|_| nodes).ok_or_else(|| place.fault(format!("{end} is missing")))
    }

    fn branches(&mut self, first: Condition, end: &str, place: Place) -> Result<Node, String> {
        self.deeper(place)?;
        let mut branches = Vec::new();
        let mut condition = first;
        loop {
            let (nodes, found) = self.block(&["elsif", "else", end])?;
            branches.push((condition, nodes));
            match found {
                Some(found) if found.name == "elsif" => {
                    condition = Condition::If(filtered(found.args, found.place)?);
                }
                Some(found) if found.name == "else" => condition = Condition::Always,
                Some(_) => {
                    self.depth -= 1;
                    return Ok(Node::Branches(branches));
                }
                None => return Err(place.fault(format!("{end} is missing"))),
            }
        }
    }

    fn deeper(&mut self, place: Place) -> Result<(), String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(place.fault(format!("blocks are nested more than {DEEPEST} levels deep")));
        }
        Ok(())
    }
}

fn filtered(text: &str, place: Place) -> Result<Filtered, String> {
    Reader::new(text, place).filtered()
}

fn cycle(args: &str, place: Place) -> Result<Node, String> {
    let mut reader = Reader::new(args, place);
    let first = reader.needed_operand()?;
    let group = match &first {
        Operand::Literal(Value::String(group)) if reader.take(":") => Some(group.clone()),
        _ => None,
    };
    let mut candidates = if group.is_some() { Vec::new() } else { vec![first] };
    while !reader.is_at_end() {
        reader.take(",");
        candidates.push(reader.needed_operand()?);
    }
    Ok(Node::Cycle { group: group.unwrap_or_else(|| args.to_owned()), candidates })
}
