//! Why a statement is invalid: where parsing stopped, and what was expected there.
//!
//! The line is shown with a caret under that place. Statements come from the configuration and contain no
//! secrets.

use std::fmt::{self, Display, Formatter};

/// How many characters of the line are shown before, and after, the place.
const SHOWN: usize = 60;

/// The statement is not valid FQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionFault {
    line: usize,
    column: usize,
    /// The line, or the part around the place if the line is long.
    shown: String,
    /// How many characters of `shown` precede the place.
    before: usize,
    expected: String,
}

impl SubscriptionFault {
    /// `offset` is in bytes, on a character boundary.
    pub(super) fn new(statement: &str, offset: usize, expected: String) -> Self {
        let (before, after) = statement.split_at(offset);
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let before_place = &before[start..];
        let column = before_place.chars().count();
        let shown_before = before_place.chars().skip(column.saturating_sub(SHOWN));
        let mut shown: String = shown_before.collect();
        if column > SHOWN {
            shown.insert(0, '…');
        }
        let before_shown = shown.chars().count();
        let mut rest = after.lines().next().unwrap_or_default().chars();
        shown.extend(rest.by_ref().take(SHOWN));
        if rest.next().is_some() {
            shown.push('…');
        }
        Self {
            line: before.matches('\n').count() + 1,
            column: column + 1,
            shown,
            before: before_shown,
            expected,
        }
    }

    /// Counted from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// Counted from 1, in characters.
    #[must_use]
    pub fn column(&self) -> usize {
        self.column
    }

    /// What was expected there.
    #[must_use]
    pub fn expected(&self) -> &str {
        &self.expected
    }
}

impl Display for SubscriptionFault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { line, column, shown, before, expected } = self;
        // Tabs are kept, so that the caret is under its place however wide tabs are displayed.
        let tab_or_blank = |character| if character == '\t' { '\t' } else { ' ' };
        let indent: String = shown.chars().take(*before).map(tab_or_blank).collect();
        write!(f, "line {line}, column {column}: expected {expected}\n  {shown}\n  {indent}^")
    }
}

impl std::error::Error for SubscriptionFault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_shown() {
        let rows = [
            ("abc", 1, "line 1, column 2: expected x\n  abc\n   ^"),
            ("abc", 3, "line 1, column 4: expected x\n  abc\n     ^"),
            ("", 0, "line 1, column 1: expected x\n  \n  ^"),
            ("a\nżółć\nc", 6, "line 2, column 3: expected x\n  żółć\n    ^"),
            ("\ta b", 3, "line 1, column 4: expected x\n  \ta b\n  \t  ^"),
            ("a\r\nb", 3, "line 2, column 1: expected x\n  b\n  ^"),
        ];
        for (statement, offset, expected) in rows {
            let fault = SubscriptionFault::new(statement, offset, "x".to_owned());
            assert_eq!(fault.to_string(), expected);
        }
    }

    #[test]
    fn of_a_long_line_a_part_is_shown() {
        let line = format!("{}!{}", "a".repeat(1000), "b".repeat(1000));
        let fault = SubscriptionFault::new(&line, 1000, "x".to_owned());
        let expected = format!(
            "line 1, column 1001: expected x\n  …{}!{}…\n  {}^",
            "a".repeat(60),
            "b".repeat(59),
            " ".repeat(61)
        );
        assert_eq!(fault.to_string(), expected);
    }
}
