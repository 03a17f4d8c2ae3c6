//! Splits a template into plain text, outputs and tags, and trims white space where a tag asks for it.

/// A piece of a template.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token<'t> {
    Text(&'t str),
    /// The content between `{{` and `}}`.
    Output(&'t str, Place),
    /// The name of a tag, and the rest of the content between `{%` and `%}`.
    Tag(&'t str, &'t str, Place),
}

/// Where a piece begins. Line and column both count from one, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    line: usize,
    column: usize,
}

impl Place {
    fn of(template: &str, offset: usize) -> Self {
        let before = &template[..offset];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// A warning about this place.
    pub(super) fn doubt(self, problem: impl AsRef<str>) -> String {
        format!("at line {}, column {}: {}", self.line, self.column, problem.as_ref())
    }

    /// A fault at this place.
    pub(super) fn fault(self, problem: impl AsRef<str>) -> String {
        format!(
            "is not a valid template at line {}, column {}: {}",
            self.line,
            self.column,
            problem.as_ref()
        )
    }
}

pub(super) fn tokens(template: &str) -> Result<Vec<Token<'_>>, String> {
    let mut tokens = Vec::new();
    let (mut at, mut trim) = (0, false);
    loop {
        let rest = &template[at..];
        let open = rest.find("{{").into_iter().chain(rest.find("{%")).min();
        let Some(open) = open.map(|open| open + at) else {
            push_text(&mut tokens, rest, trim, false);
            return Ok(tokens);
        };
        let piece = cut(template, open)?;
        push_text(&mut tokens, &template[at..open], trim, piece.trims_before);
        (at, trim) = (piece.end, piece.trims_after);
        let place = Place::of(template, open);
        if piece.is_output {
            tokens.push(Token::Output(piece.inside, place));
            continue;
        }
        let (name, args) = name_of(piece.inside);
        match name {
            "raw" | "comment" => {
                let end = closing(template, at, &format!("end{name}"))
                    .ok_or_else(|| place.fault(format!("{name} is never closed")))?;
                if name == "raw" {
                    push_text(&mut tokens, &template[at..end.start], trim, end.trims_before);
                }
                (at, trim) = (end.end, end.trims_after);
            }
            // Each line of its content is a tag.
            "liquid" => {
                for line in args.lines().map(str::trim).filter(|line| !line.is_empty()) {
                    let (name, args) = name_of(line);
                    tokens.push(Token::Tag(name, args, place));
                }
            }
            _ => tokens.push(Token::Tag(name, args, place)),
        }
    }
}

struct Piece<'t> {
    is_output: bool,
    inside: &'t str,
    start: usize,
    end: usize,
    trims_before: bool,
    trims_after: bool,
}

/// The output or tag that begins at `start`.
fn cut(template: &str, start: usize) -> Result<Piece<'_>, String> {
    let is_output = template[start..].starts_with("{{");
    let (what, close) = if is_output { ("the output", "}}") } else { ("the tag", "%}") };
    let inside = start + 2;
    let length = end_of(&template[inside..], close)
        .ok_or_else(|| Place::of(template, start).fault(format!("{what} is never closed")))?;
    let (mut text, end) = (&template[inside..inside + length], inside + length + 2);
    let trims_before = text.starts_with('-');
    text = text.strip_prefix('-').unwrap_or(text);
    let trims_after = text.ends_with('-');
    text = text.strip_suffix('-').unwrap_or(text);
    Ok(Piece { is_output, inside: text.trim(), start, end, trims_before, trims_after })
}

/// The position of the first `close` outside of quotes.
fn end_of(text: &str, close: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), character) if character == open => quote = None,
            (None, '"' | '\'') => quote = Some(character),
            (None, _) if text[at..].starts_with(close) => return Some(at),
            _ => {}
        }
    }
    // A quote that is never closed does not hide the closing mark.
    quote.and_then(|_| text.find(close))
}

fn closing<'t>(template: &'t str, from: usize, name: &str) -> Option<Piece<'t>> {
    let mut at = from;
    while let Some(open) = template[at..].find("{%").map(|open| open + at) {
        match cut(template, open) {
            Ok(piece) if piece.inside == name => return Some(piece),
            _ => at = open + 2,
        }
    }
    None
}

/// The name of a tag and what follows it.
pub(super) fn name_of(inside: &str) -> (&str, &str) {
    if let Some(rest) = inside.strip_prefix('#') {
        return ("#", rest);
    }
    let end = inside.find(|c: char| !(c.is_alphanumeric() || "_-?".contains(c)));
    let (name, rest) = inside.split_at(end.unwrap_or(inside.len()));
    (name, rest.trim_start())
}

fn push_text<'t>(tokens: &mut Vec<Token<'t>>, text: &'t str, trim_start: bool, trim_end: bool) {
    let text = if trim_start { text.trim_start() } else { text };
    let text = if trim_end { text.trim_end() } else { text };
    if !text.is_empty() {
        tokens.push(Token::Text(text));
    }
}
