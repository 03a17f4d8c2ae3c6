//! Parses the content of one output or tag: names, values, operators and filters.

use serde_json::Value;

use super::filters::Filter;
use super::lexer::Place;
use super::parser::{DEEPEST, FilterCall, Filtered, Operand, Operator, Step};
use super::value;
use crate::nearest::nearest;

/// A parser over the content of one output or tag.
pub(super) struct Reader<'t> {
    rest: &'t str,
    place: Place,
    depth: usize,
}

impl<'t> Reader<'t> {
    pub fn new(text: &'t str, place: Place) -> Self {
        Self { rest: text, place, depth: 0 }
    }

    pub fn is_at_end(&mut self) -> bool {
        self.rest = self.rest.trim_start();
        self.rest.is_empty()
    }

    pub fn take(&mut self, text: &str) -> bool {
        self.rest = self.rest.trim_start();
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    pub fn needed(&mut self, text: &str) -> Result<(), String> {
        if self.take(text) { Ok(()) } else { Err(self.place.fault(format!("{text} is missing"))) }
    }

    fn identifier(&mut self) -> Option<&'t str> {
        self.rest = self.rest.trim_start();
        let usable = |c: char| c.is_ascii_alphanumeric() || "_-?".contains(c) || !c.is_ascii();
        let end = self.rest.find(|c| !usable(c)).unwrap_or(self.rest.len());
        let (identifier, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!identifier.is_empty()).then_some(identifier)
    }

    pub fn needed_identifier(&mut self) -> Result<String, String> {
        let identifier = self.identifier().map(str::to_owned);
        identifier.ok_or_else(|| self.place.fault("a name is missing"))
    }

    pub fn filtered(&mut self) -> Result<Filtered, String> {
        let value = self.expression()?;
        if value.is_empty() {
            return Err(self.place.fault("a value is missing"));
        }
        let (mut filters, mut unknown) = (Vec::new(), Vec::new());
        while !self.is_at_end() {
            if !self.take("|") {
                return Err(self.place.fault("a | is missing before a filter"));
            }
            if self.is_at_end() {
                break;
            }
            match self.filter()? {
                Ok(filter) => filters.push(filter),
                Err(doubt) => unknown.push(doubt),
            }
        }
        Ok(Filtered { value, filters, unknown })
    }

    /// The inner error is a warning about a filter that liquidjs does not know: the value passes unchanged.
    fn filter(&mut self) -> Result<Result<FilterCall, String>, String> {
        let name = self.identifier().ok_or_else(|| self.place.fault("a filter has no name"))?;
        let (mut arguments, mut allow_false) = (Vec::new(), false);
        if self.take(":") {
            while !self.is_at_end() && !self.rest.starts_with('|') {
                let keyword = self.keyword();
                let operand = self.needed_operand()?;
                match keyword {
                    Some(keyword) => {
                        let is_true = operand == Operand::Literal(Value::Bool(true));
                        allow_false |= keyword == "allow_false" && is_true;
                    }
                    None => arguments.push(operand),
                }
                self.take(",");
            }
        }
        let filter = Filter::named(name, arguments.len());
        let filter = filter.map_err(|problem| self.place.fault(problem))?;
        Ok(if let Some(filter) = filter {
            Ok(FilterCall { filter, arguments, allow_false })
        } else {
            let hint = nearest(name, &Filter::names())
                .map_or_else(String::new, |known| format!("; did you mean {known}?"));
            Err(self
                .place
                .doubt(format!("there is no filter {name}, and the value stays as it is{hint}")))
        })
    }

    /// The name of a named argument, if one follows.
    fn keyword(&mut self) -> Option<&'t str> {
        let before = self.rest;
        if let Some(name) = self.identifier()
            && self.take(":")
        {
            return Some(name);
        }
        self.rest = before;
        None
    }

    /// Parses operands and operators, up to anything else, into postfix order.
    fn expression(&mut self) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        let mut waiting: Vec<Operator> = Vec::new();
        loop {
            if let Some(operator) = self.operator() {
                while waiting.last().is_some_and(|top| top.precedence() > operator.precedence()) {
                    steps.extend(waiting.pop().map(Step::Apply));
                }
                waiting.push(operator);
            } else if let Some(operand) = self.operand()? {
                steps.push(Step::Push(operand));
            } else {
                break;
            }
        }
        steps.extend(waiting.into_iter().rev().map(Step::Apply));
        Ok(steps)
    }

    fn operator(&mut self) -> Option<Operator> {
        const SYMBOLS: [(&str, Operator); 6] = [
            ("==", Operator::Equal),
            ("!=", Operator::Unequal),
            (">=", Operator::GreaterOrEqual),
            ("<=", Operator::LessOrEqual),
            (">", Operator::Greater),
            ("<", Operator::Less),
        ];
        if let Some((_, operator)) = SYMBOLS.iter().find(|(symbol, _)| self.take(symbol)) {
            return Some(*operator);
        }
        let before = self.rest;
        let operator = match self.identifier() {
            Some("contains") => Some(Operator::Contains),
            Some("not") => Some(Operator::Not),
            Some("and") => Some(Operator::And),
            Some("or") => Some(Operator::Or),
            _ => None,
        };
        if operator.is_none() {
            self.rest = before;
        }
        operator
    }

    pub fn needed_operand(&mut self) -> Result<Operand, String> {
        self.operand()?.ok_or_else(|| self.place.fault("a value is missing"))
    }

    fn operand(&mut self) -> Result<Option<Operand>, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(self.place.fault("values are nested too deeply"));
        }
        let operand = self.operand_at_depth();
        self.depth -= 1;
        operand
    }

    fn operand_at_depth(&mut self) -> Result<Option<Operand>, String> {
        self.rest = self.rest.trim_start();
        if let Some(text) = self.quoted() {
            return Ok(Some(Operand::Literal(text.into())));
        }
        if let Some(number) = self.number() {
            return Ok(Some(Operand::Literal(number)));
        }
        if self.take("(") {
            let from = self.needed_operand()?;
            self.needed("..")?;
            let to = self.needed_operand()?;
            self.needed(")")?;
            return Ok(Some(Operand::Range(Box::new((from, to)))));
        }
        let mut keys = Vec::new();
        let begins_below = self.rest.starts_with('.') && !self.rest.starts_with("..");
        if !self.rest.starts_with('[') && !begins_below {
            match self.identifier() {
                Some(name) => keys.push(Operand::Literal(name.into())),
                None => return Ok(None),
            }
        }
        loop {
            if self.rest.starts_with("..") {
                break;
            } else if let Some(rest) = self.rest.strip_prefix('[') {
                self.rest = rest;
                keys.push(self.needed_operand()?);
                self.needed("]")?;
            } else if let Some(rest) = self.rest.strip_prefix('.') {
                self.rest = rest;
                keys.push(Operand::Literal(self.needed_identifier()?.into()));
            } else {
                break;
            }
        }
        if let [Operand::Literal(Value::String(word))] = &keys[..] {
            match word.as_str() {
                "true" => return Ok(Some(Operand::Literal(true.into()))),
                "false" => return Ok(Some(Operand::Literal(false.into()))),
                "nil" | "null" => return Ok(Some(Operand::Literal(Value::Null))),
                "empty" => return Ok(Some(Operand::Empty)),
                "blank" => return Ok(Some(Operand::Blank)),
                _ => {}
            }
        }
        Ok(Some(Operand::Path(keys)))
    }

    fn number(&mut self) -> Option<Value> {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let sign = usize::from(self.rest.starts_with('-'));
        let whole = digits(&self.rest[sign..]);
        if whole == 0 {
            return None;
        }
        let mut end = sign + whole;
        if let Some(fraction) = self.rest[end..].strip_prefix('.')
            && digits(fraction) > 0
        {
            end += 1 + digits(fraction);
        }
        let (text, rest) = self.rest.split_at(end);
        // A name may begin with a digit; then this is not a number.
        if rest.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            return None;
        }
        let number = value::number(text.parse().ok()?);
        self.rest = rest;
        Some(number)
    }

    pub fn quoted(&mut self) -> Option<String> {
        self.rest = self.rest.trim_start();
        let quote = self.rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let mut text = String::new();
        let mut characters = self.rest[1..].char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => match characters.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, 'r')) => text.push('\r'),
                    Some((_, other)) => text.push(other),
                    None => return None,
                },
                character if character == quote => {
                    self.rest = &self.rest[at + 2..];
                    return Some(text);
                }
                character => text.push(character),
            }
        }
        None
    }
}
