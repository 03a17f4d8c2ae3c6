//! Parses the text of a statement into its syntax tree.
//!
//! Lowest precedence first: `or`, `and`, a comparison or `!`; parentheses around any of them. Every rule
//! decides by the next character, so that the first thing that does not fit is reported as the fault, with
//! its place.
//!
//! As in Segment: a text ends at the next quote of its kind, without escapes; white space is required between
//! a field and `<` or `>`, and after `!=`, `<=` and `>=`.
//!
//! # What always holds
//! * A statement is at most [`LONGEST`] bytes long and [`DEEPEST`] levels deep, so that no recursion over the
//!   tree can exhaust the stack.

use std::borrow::Cow;

use serde_json::{Number, Value};
use winnow::ascii::digit1;
use winnow::combinator::{
    alt, cut_err, delimited, eof, opt, peek, preceded, separated, terminated,
};
use winnow::error::{AddContext, ErrMode, ParserError};
use winnow::prelude::*;
use winnow::stream::{Stateful, Stream};
use winnow::token::{any, one_of, take_till, take_while};

use super::fault::SubscriptionFault;
use super::functions::{self, Function};
use super::pattern::Pattern;
use super::tree::{Comparison, Condition, Operand, Path, Step, is_field, is_plain};

/// Most bytes in a statement.
pub(super) const LONGEST: usize = 16 * 1024;
/// Deepest nesting of parentheses, negations and functions.
pub(super) const DEEPEST: usize = 64;

/// The rest of the statement, and the current nesting depth.
type Input<'s> = Stateful<&'s str, usize>;
type Parsed<T> = ModalResult<T, Wanted>;

/// What was expected where parsing stopped.
#[derive(Debug)]
struct Wanted(Cow<'static, str>);

impl ParserError<Input<'_>> for Wanted {
    type Inner = Self;

    fn from_input(_: &Input<'_>) -> Self {
        Self(Cow::Borrowed(""))
    }

    fn into_inner(self) -> Result<Self, Self> {
        Ok(self)
    }
}

/// The innermost rule knows best what was expected.
impl<'s> AddContext<Input<'s>> for Wanted {
    fn add_context(
        self,
        _: &Input<'s>,
        _: &<Input<'s> as Stream>::Checkpoint,
        context: &'static str,
    ) -> Self {
        if self.0.is_empty() { Self(Cow::Borrowed(context)) } else { self }
    }
}

fn wanted<T>(what: impl Into<Cow<'static, str>>) -> Parsed<T> {
    Err(ErrMode::Cut(Wanted(what.into())))
}

/// Parses a whole statement.
pub(super) fn parse(statement: &str) -> Result<Condition, SubscriptionFault> {
    if statement.len() > LONGEST {
        let expected = format!("at most {LONGEST} bytes, and it has {}", statement.len());
        return Err(SubscriptionFault::new(statement, 0, expected));
    }
    let mut input = Input { input: statement, state: 0 };
    let whole =
        delimited(blank, disjunction, (blank, eof.context("and, or, or the end of the statement")))
            .parse_next(&mut input);
    whole.map_err(|error| {
        let Wanted(what) = error.into_inner().unwrap_or(Wanted(Cow::Borrowed("")));
        let place = statement.len() - input.input.len();
        SubscriptionFault::new(statement, place, what.into_owned())
    })
}

fn disjunction(input: &mut Input<'_>) -> Parsed<Condition> {
    let conditions: Vec<_> = separated(1.., conjunction, keyword("or")).parse_next(input)?;
    Ok(only(conditions).unwrap_or_else(Condition::Any))
}

fn conjunction(input: &mut Input<'_>) -> Parsed<Condition> {
    let conditions: Vec<_> = separated(1.., condition, keyword("and")).parse_next(input)?;
    Ok(only(conditions).unwrap_or_else(Condition::All))
}

/// `Ok` with the only condition, or `Err` with all of them.
fn only(mut conditions: Vec<Condition>) -> Result<Condition, Vec<Condition>> {
    match (conditions.pop(), conditions.is_empty()) {
        (Some(condition), true) => Ok(condition),
        (last, _) => {
            conditions.extend(last);
            Err(conditions)
        }
    }
}

fn condition(input: &mut Input<'_>) -> Parsed<Condition> {
    match next(input) {
        Some('!') => {
            let negated = deeper(input, |input| preceded(('!', blank), negated).parse_next(input))?;
            Ok(Condition::Not(Box::new(negated)))
        }
        Some('(') => deeper(input, group),
        _ => comparison(input),
    }
}

/// What may follow `!`. A comparison needs parentheses, so that the negation cannot be misread.
fn negated(input: &mut Input<'_>) -> Parsed<Condition> {
    if matches!(next(input), Some('!' | '(')) {
        return condition(input);
    }
    let start = input.checkpoint();
    let operand = operand(input)?;
    if operand.can_hold() {
        return Ok(Condition::Holds(operand));
    }
    input.reset(&start);
    wanted(
        "something that can be negated: parentheses, contains(), match(), bool() or a boolean \
         field",
    )
}

fn group(input: &mut Input<'_>) -> Parsed<Condition> {
    let end = cut_err((blank, ')')).context("and, or, or a closing parenthesis");
    delimited(('(', blank), disjunction, end).parse_next(input)
}

fn comparison(input: &mut Input<'_>) -> Parsed<Condition> {
    let left = operand(input)?;
    let start = input.checkpoint();
    let space = blank(input)?;
    let comparison = opt(alt((
        "!=".value(Comparison::NotEqual),
        "<=".value(Comparison::AtMost),
        ">=".value(Comparison::AtLeast),
        '='.value(Comparison::Equal),
        '<'.value(Comparison::Less),
        '>'.value(Comparison::Greater),
    )))
    .parse_next(input)?;
    let Some(comparison) = comparison else {
        return if opt(terminated("in", word_ends)).parse_next(input)?.is_some() {
            let list = preceded(blank, operand).parse_next(input)?;
            Ok(Condition::In { item: left, list })
        } else if left.can_hold() {
            input.reset(&start); // leave the white space to the rule that follows
            Ok(Condition::Holds(left))
        } else {
            wanted("an operator: =, !=, <, <=, >, >= or in")
        };
    };
    let two_characters =
        matches!(comparison, Comparison::NotEqual | Comparison::AtMost | Comparison::AtLeast);
    if two_characters && !next(input).is_none_or(is_blank) {
        return wanted("white space after an operator of two characters");
    }
    let by_size = !matches!(comparison, Comparison::Equal | Comparison::NotEqual);
    if by_size && space.is_empty() && matches!(left, Operand::Path(_)) {
        input.reset(&start);
        return wanted("white space between a field and < or >");
    }
    let right = preceded(blank, operand).parse_next(input)?;
    Ok(Condition::Compare { left, comparison, right })
}

fn operand(input: &mut Input<'_>) -> Parsed<Operand> {
    match next(input) {
        Some('[') => list(input).map(Operand::Literal),
        Some('"' | '\'') => text(input).map(|text| Operand::Literal(Value::from(text))),
        Some('+' | '-' | '0'..='9') => number(input).map(Operand::Literal),
        Some(first) if first == '_' || first == '\\' || first.is_ascii_alphabetic() => named(input),
        _ => wanted("a field, a value or a function"),
    }
}

/// An operand that starts with a name: a field, a function, or `true`, `false` or `null`.
fn named(input: &mut Input<'_>) -> Parsed<Operand> {
    let start = input.checkpoint();
    let rest = input.input;
    let name = step(input)?;
    let escaped = rest[..rest.len() - input.input.len()].contains('\\');
    match name.as_str() {
        _ if escaped || next(input) == Some('.') => {}
        "true" => return Ok(Operand::Literal(Value::Bool(true))),
        "false" => return Ok(Operand::Literal(Value::Bool(false))),
        "null" => return Ok(Operand::Literal(Value::Null)),
        function if opt(preceded(blank, peek('('))).parse_next(input)?.is_some() => {
            let function = function.to_owned();
            return deeper(input, |input| call(&function, &start, input));
        }
        _ => {}
    }
    if !escaped && !is_field(&name) {
        input.reset(&start);
        return wanted(format!(
            "a field that Segment's events have, such as type, event, userId, context, properties \
             or traits (for any other field, put a backslash before it: \\{name})"
        ));
    }
    let mut steps = vec![Step::new(name)];
    while opt('.').parse_next(input)?.is_some() {
        steps.push(Step::new(step(input)?));
    }
    match next(input) {
        None | Some('=' | '!' | '<' | '>' | ',' | ')' | ']') => {}
        Some(character) if is_blank(character) => {}
        Some(_) => {
            return wanted(
                "white space after the field, or a backslash before a character of its name that \
                 is not a letter from a to z, a digit, _ or -",
            );
        }
    }
    Ok(Operand::Path(Path(steps)))
}

/// One name of a path, with its escapes removed.
fn step(input: &mut Input<'_>) -> Parsed<String> {
    let mut name = String::new();
    loop {
        name.push_str(take_while(0.., is_plain).parse_next(input)?);
        if opt('\\').parse_next(input)?.is_none() {
            break;
        }
        name.push(cut_err(any).context("a character after the backslash").parse_next(input)?);
    }
    if name.is_empty() { wanted("a name after the dot") } else { Ok(name) }
}

fn call<'s>(
    name: &str,
    start: &<Input<'s> as Stream>::Checkpoint,
    input: &mut Input<'s>,
) -> Parsed<Operand> {
    let comma = || cut_err((blank, ',', blank)).context("a comma and another argument");
    (blank, '(', blank).parse_next(input)?;
    let called = if let Some(function) = Function::from_name(name) {
        Operand::Call(function, Box::new(operand(input)?))
    } else if name == "contains" {
        let (text, part) = (terminated(operand, comma()), operand).parse_next(input)?;
        Operand::Contains { text: Box::new(text), part: Box::new(part) }
    } else if name == "match" {
        let text = terminated(operand, comma()).parse_next(input)?;
        Operand::Match { text: Box::new(text), pattern: pattern(input)? }
    } else {
        input.reset(start);
        return wanted(
            "a function: contains, match, length, lowercase, uppercase, snakecase, kebabcase, \
             titlecase, typeof, bool, string or number",
        );
    };
    cut_err((blank, ')')).context("a closing parenthesis after the arguments").parse_next(input)?;
    Ok(called)
}

/// A pattern is always a literal of the statement: it is checked once, and never comes from an event.
fn pattern(input: &mut Input<'_>) -> Parsed<Pattern> {
    let start = input.checkpoint();
    if !matches!(next(input), Some('"' | '\'')) {
        return wanted("a pattern in quotes");
    }
    Pattern::new(text(input)?).or_else(|fault| {
        input.reset(&start);
        wanted(format!("a pattern, but {fault}"))
    })
}

fn list(input: &mut Input<'_>) -> Parsed<Value> {
    ('[', blank).parse_next(input)?;
    if opt(']').parse_next(input)?.is_some() {
        return Ok(Value::Array(Vec::new()));
    }
    let items = separated(1.., item, (blank, ',', blank));
    let end = cut_err((blank, ']')).context("a comma or a closing bracket");
    terminated(items, end).map(Value::Array).parse_next(input)
}

fn item(input: &mut Input<'_>) -> Parsed<Value> {
    let start = input.checkpoint();
    let expected = match next(input) {
        Some('[') => "a value: lists cannot contain lists",
        Some(']') => "a value after the comma",
        _ => match operand(input)? {
            Operand::Literal(value) => return Ok(value),
            _ => "a value: a list cannot contain fields or functions",
        },
    };
    input.reset(&start);
    wanted(expected)
}

fn text<'s>(input: &mut Input<'s>) -> Parsed<&'s str> {
    let start = input.checkpoint();
    let quote = one_of(['"', '\'']).parse_next(input)?;
    let text = take_till(0.., quote).parse_next(input)?;
    if opt(quote).parse_next(input)?.is_none() {
        input.reset(&start);
        return wanted("a closing quote for this one");
    }
    value_ends(
        input,
        "white space, a comma or a bracket after the string (put a string that contains quotes \
         between quotes of the other kind)",
    )?;
    Ok(text)
}

fn number(input: &mut Input<'_>) -> Parsed<Value> {
    let start = input.checkpoint();
    let sign = || opt(one_of(['+', '-']));
    let spelled = (
        sign(),
        cut_err(digit1).context("a digit after the sign"),
        opt(('.', digit1)),
        opt((one_of(['e', 'E']), sign(), digit1)),
    );
    let spelled = spelled.take().parse_next(input)?;
    value_ends(input, "white space, a comma or a bracket after the number")?;
    let Some(number) = functions::parse_number(spelled).and_then(Number::from_f64) else {
        input.reset(&start);
        return wanted("a number that is not too large to be compared");
    };
    Ok(Value::Number(number))
}

fn value_ends(input: &Input<'_>, what: &'static str) -> Parsed<()> {
    match next(input) {
        None | Some(',' | ')' | ']' | '=' | '!' | '<' | '>') => Ok(()),
        Some(character) if is_blank(character) => Ok(()),
        Some(_) => wanted(what),
    }
}

/// `and` or `or` with the white space around it.
fn keyword<'s>(word: &'static str) -> impl Parser<Input<'s>, (), ErrMode<Wanted>> {
    (blank, word, word_ends, blank).void()
}

fn word_ends(input: &mut Input<'_>) -> Parsed<()> {
    match next(input) {
        Some(character) if is_plain(character) || matches!(character, '.' | '\\') => {
            Err(ErrMode::Backtrack(Wanted(Cow::Borrowed(""))))
        }
        _ => Ok(()),
    }
}

/// Parses one level deeper, unless that exceeds [`DEEPEST`].
fn deeper<'s, T>(
    input: &mut Input<'s>,
    parse: impl FnOnce(&mut Input<'s>) -> Parsed<T>,
) -> Parsed<T> {
    if input.state == DEEPEST {
        return wanted(format!("at most {DEEPEST} levels of parentheses, negations and functions"));
    }
    input.state += 1;
    let parsed = parse(input)?;
    input.state -= 1;
    Ok(parsed)
}

fn blank<'s>(input: &mut Input<'s>) -> Parsed<&'s str> {
    take_while(0.., is_blank).parse_next(input)
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

fn next(input: &Input<'_>) -> Option<char> {
    input.input.chars().next()
}
