//! The pattern of `match`: a glob, a notation that Segment's editor does not know.
//!
//! For "starts with" and "ends with" the editor puts a star after or before what the customer typed, without
//! escaping, and Segment takes the rest literally. So `"[VIP]*"` has two readings, and both count: a text
//! matches if it matches the glob or starts with `[VIP]`.

use crate::map::glob::{Glob, GlobFault};

/// A pattern with its one or two readings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    text: String,
    /// `None` if only the editor's reading is valid.
    glob: Option<Glob>,
    editors: Option<Affix>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Affix {
    StartsWith(String),
    EndsWith(String),
}

impl Pattern {
    pub(super) fn new(text: &str) -> Result<Self, GlobFault> {
        let editors = Affix::of(text);
        let glob = match Glob::new(text) {
            Err(fault) if editors.is_none() => return Err(fault),
            glob => glob.ok(),
        };
        Ok(Self { text: text.to_owned(), glob, editors })
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        self.glob.as_ref().is_some_and(|glob| glob.matches(text))
            || self.editors.as_ref().is_some_and(|affix| affix.matches(text))
    }

    /// The pattern as it was written.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}

impl Affix {
    /// The editor's reading, if it differs from the glob.
    fn of(text: &str) -> Option<Self> {
        let affix = match (text.strip_suffix('*'), text.strip_prefix('*')) {
            (Some(start), _) if !start.contains('*') => Self::StartsWith(start.to_owned()),
            (None, Some(end)) if !end.contains('*') => Self::EndsWith(end.to_owned()),
            _ => return None,
        };
        text.contains(['?', '[', '\\']).then_some(affix)
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::StartsWith(start) => text.starts_with(start),
            Self::EndsWith(end) => text.ends_with(end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_readings_count() {
        let rows = [
            ("Audience *", "Audience Entered", true),
            ("Audience *", "Audience", false),
            ("[VIP]*", "[VIP] joined", true),
            ("[VIP]*", "V joined", true),
            ("[VIP]*", "joined", false),
            ("*[1]", "list[1]", true),
            ("*[1]", "list1", true),
            ("[1,*", "[1,2]", true),
            ("[1,*", "1,2", false),
            (r"C:\*", r"C:\dir", true),
            (r"C:\*", "C:*", true),
            (r"*\", r"C:\", true),
            (r"*\", "C:", false),
            ("Why?*", "Why? Because", true),
            // Not written by the editor: only a glob.
            ("*[ab]*", "[ab]", true),
            ("*[ab]*", "[c]", false),
            ("[ab]", "[ab]", false),
            (r"a\*", r"a\b", true),
        ];
        for (pattern, text, expected) in rows {
            let compiled = Pattern::new(pattern).expect("these are patterns");
            assert_eq!(compiled.matches(text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn what_makes_sense_in_neither_reading_is_refused() {
        for pattern in ["[a", "*[a*", r"a\", "[!a]"] {
            Pattern::new(pattern).expect_err(pattern);
        }
    }
}
