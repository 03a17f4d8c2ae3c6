//! Renders Markdown for a terminal: bold headings, wrapped text, and tables in columns.

use std::io::{Result, Write};

use pulldown_cmark::{Event, Tag, TagEnd};
use unicode_width::UnicodeWidthStr;

use crate::manual::Leads;

/// How to render.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Width of a line, in columns.
    pub width: usize,
    /// Whether to use bold and underline; if not, Markdown's own marks are kept.
    pub styled: bool,
}

const BOLD: &str = "\x1b[1m";
const UNDERLINED: &str = "\x1b[4m";
const PLAIN: &str = "\x1b[0m";
/// Space between two columns of a table.
const GAP: usize = 2;
/// Narrower columns are unreadable.
const NARROWEST: usize = 12;

/// Words with their markup, each with its width on the screen.
#[derive(Clone, Debug, Default)]
struct Words {
    words: Vec<(String, usize)>,
    /// Whether the next text continues the last word.
    joined: bool,
}

impl Words {
    /// Appends a text. Each of its words is enclosed in `before` and `behind`, which take no space on the
    /// screen.
    fn push(&mut self, text: &str, (before, behind): (&str, &str)) {
        if text.starts_with(char::is_whitespace) {
            self.joined = false;
        }
        for word in text.split_whitespace() {
            let styled = format!("{before}{word}{behind}");
            match self.words.last_mut() {
                Some((last, width)) if self.joined => {
                    last.push_str(&styled);
                    *width += word.width();
                }
                _ => self.words.push((styled, word.width())),
            }
            self.joined = false;
        }
        self.joined = !text.is_empty() && !text.ends_with(char::is_whitespace);
    }

    fn space(&mut self) {
        self.joined = false;
    }

    /// The width if all words are on one line.
    fn width(&self) -> usize {
        let gaps = self.words.len().saturating_sub(1);
        self.words.iter().map(|(_, width)| width).sum::<usize>() + gaps
    }

    fn widest(&self) -> usize {
        self.words.iter().map(|(_, width)| *width).max().unwrap_or_default()
    }

    /// The words as lines of at most this width, each with its actual width; a wider word gets a line of
    /// its own.
    fn wrapped(&self, width: usize) -> Vec<(String, usize)> {
        let mut lines: Vec<(String, usize)> = Vec::new();
        for (word, wide) in &self.words {
            match lines.last_mut() {
                Some((line, used)) if *used + 1 + wide <= width => {
                    line.push(' ');
                    line.push_str(word);
                    *used += 1 + wide;
                }
                _ => lines.push((word.clone(), *wide)),
            }
        }
        lines
    }
}

/// The state of the renderer while it goes through a page.
struct Setter<'w, W: Write> {
    out: &'w mut W,
    look: Look,
    /// The words of the current paragraph, heading or cell.
    words: Words,
    /// The open styles, the innermost last, each with its opening and closing mark.
    styles: Vec<(&'static str, &'static str)>,
    /// The open lists: the number of the next item, or `None` for a bulleted list.
    lists: Vec<Option<u64>>,
    /// The bullet or number to print before the item's first line.
    mark: Option<String>,
    /// Whether the next item is the first of its list, which is preceded by an empty line.
    apart: bool,
    rows: Vec<Vec<Words>>,
    /// The target of the open link.
    link: Option<String>,
    code: Option<String>,
    is_first: bool,
    /// Whether an image is open; its alternative text is not shown.
    picture: bool,
}

/// Prints a page.
pub(super) fn print<'a>(
    page: impl Iterator<Item = Event<'a>>,
    look: Look,
    out: &mut impl Write,
) -> Result<()> {
    let mut setter = Setter {
        out,
        look,
        words: Words::default(),
        styles: Vec::new(),
        lists: Vec::new(),
        mark: None,
        apart: false,
        rows: Vec::new(),
        link: None,
        code: None,
        is_first: true,
        picture: false,
    };
    page.into_iter().try_for_each(|part| setter.take(part))
}

impl<W: Write> Setter<'_, W> {
    fn take(&mut self, part: Event<'_>) -> Result<()> {
        match part {
            Event::Start(Tag::List(from)) => {
                self.paragraph()?; // text of the item that contains the list
                self.apart = self.lists.is_empty();
                self.lists.push(from);
            }
            Event::Start(tag) => self.begin(tag),
            Event::End(end) => return self.end(end),
            Event::Text(_) | Event::Code(_) if self.picture => {}
            Event::Text(text) => match &mut self.code {
                Some(code) => code.push_str(&text),
                None => self.words.push(&text, self.style()),
            },
            Event::Code(text) if self.look.styled => {
                self.words.push(&text, (BOLD, PLAIN));
            }
            Event::Code(text) => self.words.push(&format!("`{text}`"), ("", "")),
            Event::SoftBreak | Event::HardBreak => self.words.space(),
            _ => {}
        }
        Ok(())
    }

    fn style(&self) -> (&'static str, &'static str) {
        self.styles.last().copied().unwrap_or(("", ""))
    }

    fn begin(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Heading { level, .. } if !self.look.styled => {
                self.words.push(&"#".repeat(level as usize), ("", ""));
                self.words.space();
            }
            Tag::Heading { .. } => self.styles.push((BOLD, PLAIN)),
            Tag::Strong if self.look.styled => self.styles.push((BOLD, PLAIN)),
            Tag::Emphasis if self.look.styled => self.styles.push((UNDERLINED, PLAIN)),
            Tag::Strong => self.words.push("**", ("", "")),
            Tag::Emphasis => self.words.push("*", ("", "")),
            Tag::Item => {
                self.mark = Some(match self.lists.last_mut() {
                    Some(Some(number)) => {
                        *number += 1;
                        format!("{}. ", *number - 1)
                    }
                    _ => "- ".to_owned(),
                });
            }
            Tag::CodeBlock(_) => self.code = Some(String::new()),
            Tag::TableHead | Tag::TableRow => self.rows.push(Vec::new()),
            Tag::Link { dest_url, .. } => self.link = Some(dest_url.into_string()),
            Tag::Image { .. } => self.picture = true,
            _ => {}
        }
    }

    fn end(&mut self, end: TagEnd) -> Result<()> {
        match end {
            TagEnd::Heading(_) => {
                self.styles.clear();
                self.gap()?;
                self.paragraph()?;
            }
            TagEnd::Paragraph => {
                if self.lists.is_empty() && !self.words.words.is_empty() {
                    self.gap()?;
                }
                self.paragraph()?;
            }
            TagEnd::Item => self.paragraph()?,
            TagEnd::List(_) => {
                self.lists.pop();
            }
            TagEnd::Strong | TagEnd::Emphasis if self.look.styled => {
                self.styles.pop();
            }
            TagEnd::Strong => self.close("**"),
            TagEnd::Emphasis => self.close("*"),
            TagEnd::Link => self.lead(),
            TagEnd::Image => self.picture = false,
            TagEnd::CodeBlock => {
                let code = self.code.take().unwrap_or_default();
                self.gap()?;
                for line in code.lines() {
                    writeln!(self.out, "{}", format!("    {line}").trim_end())?;
                }
            }
            TagEnd::TableCell => {
                let cell = std::mem::take(&mut self.words);
                if let Some(row) = self.rows.last_mut() {
                    row.push(cell);
                }
            }
            TagEnd::Table => {
                let rows = std::mem::take(&mut self.rows);
                self.gap()?;
                self.table(&rows)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Appends a mark to the last word.
    fn close(&mut self, mark: &str) {
        self.words.joined = true;
        self.words.push(mark, ("", ""));
    }

    /// Appends the open link's target in parentheses, unless it leads to the same page.
    fn lead(&mut self) {
        let target = self.link.take().unwrap_or_default();
        let said = match Leads::of(&target) {
            Leads::Topic(topic, _) => format!("(cohortd help {})", topic.name),
            Leads::Web(url) => format!("({url})"),
            Leads::Source(path) => format!("({path})"),
            Leads::Here(_) => return,
        };
        self.words.space();
        self.words.push(&said, self.style());
    }

    /// Prints an empty line, except before the first block.
    fn gap(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.is_first) {
            writeln!(self.out)?;
        }
        Ok(())
    }

    /// Prints the words so far, after the mark of their list item if there is one.
    fn paragraph(&mut self) -> Result<()> {
        let words = std::mem::take(&mut self.words);
        if words.words.is_empty() {
            return Ok(());
        }
        let depth = self.lists.len();
        let indent = if depth == 0 { 0 } else { 2 * depth };
        let mark = self.mark.take().filter(|_| depth > 0);
        if std::mem::take(&mut self.apart) {
            self.gap()?;
        }
        let first = mark.as_ref().map_or(indent, |mark| indent - 2 + mark.len());
        let hanging = " ".repeat(first);
        for (number, (line, _)) in
            words.wrapped(self.look.width.saturating_sub(first)).iter().enumerate()
        {
            match (number, &mark) {
                (0, Some(mark)) => writeln!(self.out, "{}{mark}{line}", " ".repeat(indent - 2))?,
                _ => writeln!(self.out, "{hanging}{line}")?,
            }
        }
        Ok(())
    }

    fn table(&mut self, rows: &[Vec<Words>]) -> Result<()> {
        let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
        let of = |column: usize, width: fn(&Words) -> usize| {
            rows.iter().filter_map(|row| row.get(column)).map(width).max().unwrap_or_default()
        };
        let natural: Vec<usize> = (0..columns).map(|column| of(column, Words::width)).collect();
        let least: Vec<usize> = (0..columns).map(|column| of(column, Words::widest)).collect();
        let room = self.look.width.saturating_sub(GAP * columns.saturating_sub(1));
        let widths = fitted(&natural, &least, room);
        for (number, row) in rows.iter().enumerate() {
            let cells: Vec<Vec<(String, usize)>> =
                row.iter().zip(&widths).map(|(cell, width)| cell.wrapped(*width)).collect();
            for line in 0..cells.iter().map(Vec::len).max().unwrap_or_default() {
                let (mut text, mut used, mut at) = (String::new(), 0_usize, 0_usize);
                for (cell, width) in cells.iter().zip(&widths) {
                    if let Some((words, wide)) = cell.get(line) {
                        // a word that is wider than its column pushes the next column to the right
                        let gap = if at == 0 { 0 } else { at.saturating_sub(used).max(1) };
                        text.push_str(&" ".repeat(gap));
                        let is_heading = number == 0 && self.look.styled;
                        let (bold, plain) = if is_heading { (BOLD, PLAIN) } else { ("", "") };
                        text.extend([bold, words, plain]);
                        used += gap + wide;
                    }
                    at += width + GAP;
                }
                writeln!(self.out, "{text}")?;
            }
        }
        Ok(())
    }
}

/// Column widths that fit into `room`: the widest columns shrink first. No column shrinks below its widest
/// word unless they cannot all fit otherwise.
fn fitted(natural: &[usize], least: &[usize], room: usize) -> Vec<usize> {
    let mut widths = natural.to_vec();
    for floors in [least.to_vec(), vec![NARROWEST; least.len()]] {
        while widths.iter().sum::<usize>() > room {
            let may = |(column, width): &(usize, &usize)| **width > floors[*column];
            let widest = widths.iter().enumerate().filter(may).max_by_key(|(_, width)| **width);
            let Some((column, _)) = widest else { break };
            widths[column] -= 1;
        }
    }
    widths
}

#[cfg(test)]
mod tests {
    use pulldown_cmark::{Options, Parser};

    use super::*;

    const PAGE: &str = "\
# A page

Some *emphasis*, `code of words`, and a [link](security.md#limits).

- one, with more words than fit
- two
  1. nested

Then

    typed as it stands, however long the line is

| key | |
| --- | --- |
| `a.b` | what it means, in many words |
| `c` | short |

## Behind

![picture](x.svg)

End.
";

    fn set(width: usize, styled: bool) -> String {
        let mut out = Vec::new();
        let page = Parser::new_ext(PAGE, Options::ENABLE_TABLES);
        print(page, Look { width, styled }, &mut out).expect("memory");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn through_a_pipe_it_is_plain_text_of_that_width() {
        let expected = "\
# A page

Some *emphasis*, `code of words`, and a
link (cohortd help security).

- one, with more words than fit
- two
  1. nested

Then

    typed as it stands, however long the line is

key    
`a.b`  what it means, in many words
`c`    short

## Behind

End.
";
        let expected = expected.replace("key    \n", "key\n");
        assert_eq!(set(40, false), expected);
        let narrow = set(30, false);
        assert!(
            narrow.contains("`a.b`  what it means, in many\n       words\n`c`    short"),
            "{narrow}"
        );
        assert!(narrow.contains("- one, with more words than\n  fit\n- two\n"), "{narrow}");
    }

    #[test]
    fn on_a_terminal_headings_and_code_are_bold() {
        let text = set(60, true);
        assert!(text.starts_with("\x1b[1mA\x1b[0m \x1b[1mpage\x1b[0m\n"), "{text:?}");
        assert!(text.contains("\x1b[4memphasis\x1b[0m,"), "{text:?}");
        assert!(text.contains("\x1b[1mwords\x1b[0m,"), "{text:?}");
        assert!(text.contains("\x1b[1ma.b\x1b[0m  what it means, in many words"), "{text:?}");
    }
}
