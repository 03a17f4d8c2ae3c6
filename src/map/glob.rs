//! Globs: shell-like patterns that match a whole text.
//!
//! | in a pattern | matches |
//! | --- | --- |
//! | `*` | any number of characters, also none |
//! | `?` | one character |
//! | `[abc]`, `[a-z]` | one of these characters, one of this range |
//! | `\x` | the character `x` itself, also within brackets |
//! | anything else | itself; letters are case-sensitive |
//!
//! # What always holds
//! * Matching takes at most pattern length times text length steps, needs no memory and does not recurse:
//!   only the latest star is ever retried.
//! * Syntax on which shells disagree (`[!a]`, `[^a]`, unclosed brackets) is refused.

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    pieces: Vec<Piece>,
}

/// Why a pattern is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobFault {
    /// Nothing follows the backslash.
    #[error("the pattern ends in a backslash, which needs a character to escape")]
    NothingEscaped,
    /// `[` without `]`.
    #[error(r"a [ in the pattern is never closed; write \[ for the character itself")]
    Unclosed,
    /// `[]` matches nothing.
    #[error(r"the brackets [] in the pattern are empty; write \[ for the character itself")]
    Empty,
    /// Some shells negate a set like this, others do not.
    #[error(r"a character class in the pattern starts with ! or ^; write \! or \^ for the character itself")]
    Negated,
    /// `[z-a]` matches nothing.
    #[error("a range in the pattern runs backwards")]
    Backwards,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Star,
    AnyOne,
    Exactly(char),
    /// Ranges, both ends included; a single character is a range of one.
    OneOf(Vec<(char, char)>),
}

impl Piece {
    fn takes(&self, character: char) -> bool {
        match self {
            Self::Star => false,
            Self::AnyOne => true,
            Self::Exactly(wanted) => *wanted == character,
            Self::OneOf(ranges) => {
                ranges.iter().any(|&(from, to)| (from..=to).contains(&character))
            }
        }
    }
}

impl Glob {
    /// Compiles a pattern.
    pub fn new(pattern: &str) -> Result<Self, GlobFault> {
        let mut pieces = Vec::new();
        let mut characters = pattern.chars();
        while let Some(character) = characters.next() {
            pieces.push(match character {
                // Consecutive stars count as one.
                '*' if pieces.last() == Some(&Piece::Star) => continue,
                '*' => Piece::Star,
                '?' => Piece::AnyOne,
                '[' => Piece::OneOf(ranges(&mut characters)?),
                '\\' => Piece::Exactly(characters.next().ok_or(GlobFault::NothingEscaped)?),
                itself => Piece::Exactly(itself),
            });
        }
        Ok(Self { pieces })
    }

    /// Whether the pattern matches the whole text.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let mut rest = text.chars();
        let mut at = 0;
        // For retrying the latest star: the piece after it, and the text that the star has not consumed.
        let mut star = None;
        loop {
            if self.pieces.get(at) == Some(&Piece::Star) {
                at += 1;
                star = Some((at, rest.clone()));
                continue;
            }
            match (rest.next(), self.pieces.get(at)) {
                (None, None) => return true,
                (Some(character), Some(piece)) if piece.takes(character) => at += 1,
                (next, _) => {
                    // Let the star consume one more character, and retry the pieces after it.
                    let Some((after, left)) = &mut star else { return false };
                    if next.is_none() || left.next().is_none() {
                        return false;
                    }
                    (at, rest) = (*after, left.clone());
                }
            }
        }
    }
}

/// Parses the content of brackets up to and including the closing one; the opening one is already consumed.
fn ranges(characters: &mut std::str::Chars<'_>) -> Result<Vec<(char, char)>, GlobFault> {
    let mut ranges = Vec::new();
    loop {
        let from = match characters.next().ok_or(GlobFault::Unclosed)? {
            ']' if ranges.is_empty() => return Err(GlobFault::Empty),
            ']' => return Ok(ranges),
            '!' | '^' if ranges.is_empty() => return Err(GlobFault::Negated),
            character => unescaped(character, characters)?,
        };
        let mut ahead = characters.clone();
        let to = match (ahead.next(), ahead.next()) {
            // A dash before the closing bracket stands for itself.
            (Some('-'), Some(to)) if to != ']' => {
                *characters = ahead;
                unescaped(to, characters)?
            }
            _ => from,
        };
        if to < from {
            return Err(GlobFault::Backwards);
        }
        ranges.push((from, to));
    }
}

fn unescaped(character: char, rest: &mut std::str::Chars<'_>) -> Result<char, GlobFault> {
    if character == '\\' { rest.next().ok_or(GlobFault::Unclosed) } else { Ok(character) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_whole_texts() {
        let rows = [
            ("", "", true),
            ("", "a", false),
            ("a", "", false),
            ("*", "", true),
            ("*", "anything at all", true),
            ("**", "", true),
            ("a*d", "abcd", true),
            ("a*d", "ad", true),
            ("ab", "abc", false),
            ("bc", "abc", false),
            ("a??d", "abcd", true),
            ("a?d", "abcd", false),
            ("?", "ż", true),
            ("??", "ż", false),
            ("*d", "abcd", true),
            ("a*", "abcd", true),
            ("*b*", "abc", true),
            ("*b*", "acc", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*ab", "aab", true),
            ("*.dev.*", "web.dev.eu", true),
            (r"ab\*d", "ab*d", true),
            (r"ab\*d", "abcd", false),
            (r"\\", r"\", true),
            (r"\a", "a", true),
            ("ab[cC]d", "abCd", true),
            ("ab[cC]d", "abxd", false),
            ("ab[a-z]d", "abcd", true),
            ("ab[A-Z]d", "abcd", false),
            ("[a-c1-3]", "2", true),
            ("[a-c1-3]", "d", false),
            ("[a-]", "-", true),
            ("[-a]", "-", true),
            ("[a-]", "b", false),
            (r"[\]]", "]", true),
            (r"[\!a]", "!", true),
            (r"[a\-z]", "-", true),
            (r"[a\-z]", "b", false),
            ("[*?]", "*", true),
            ("[*?]", "a", false),
            ("]", "]", true),
            ("[а-я]", "ж", true),
            ("Audience *", "Audience Entered", true),
            ("audience *", "Audience Entered", false),
        ];
        for (pattern, text, expected) in rows {
            let glob = Glob::new(pattern).expect("these are patterns");
            assert_eq!(glob.matches(text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn what_shells_do_not_agree_on_is_refused() {
        let rows = [
            (r"a\", GlobFault::NothingEscaped),
            ("[", GlobFault::Unclosed),
            ("[ab", GlobFault::Unclosed),
            ("[a-", GlobFault::Unclosed),
            (r"[\]", GlobFault::Unclosed),
            (r"[\", GlobFault::Unclosed),
            ("[]", GlobFault::Empty),
            ("[]a]", GlobFault::Empty),
            ("[!a]", GlobFault::Negated),
            ("[^a]", GlobFault::Negated),
            ("[z-a]", GlobFault::Backwards),
        ];
        for (pattern, fault) in rows {
            assert_eq!(Glob::new(pattern).expect_err("no pattern"), fault, "{pattern}");
        }
    }

    /// If stars were retried against each other, this would take longer than the age of the universe.
    #[test]
    fn many_stars_do_not_explode() {
        let glob = Glob::new(&"a*".repeat(200)).expect("a pattern");
        assert!(!glob.matches(&("a".repeat(5_000) + "b")[..199]));
        let glob = Glob::new(&("*a".repeat(200) + "b")).expect("a pattern");
        assert!(!glob.matches(&"a".repeat(5_000)));
    }

    /// The table above, implemented literally and without regard for speed.
    fn plainly(pieces: &[Piece], text: &[char]) -> bool {
        match (pieces.split_first(), text.split_first()) {
            (None, _) => text.is_empty(),
            (Some((Piece::Star, after)), _) => {
                (0..=text.len()).any(|taken| plainly(after, &text[taken..]))
            }
            (Some((piece, after)), Some((first, rest))) => {
                piece.takes(*first) && plainly(after, rest)
            }
            (Some(_), None) => false,
        }
    }

    proptest! {
        #![proptest_config(crate::seeds::kept_in("tests/seeds/glob.txt"))]

        #[test]
        fn matching_agrees_with_the_plain_rule(pattern in "[ab*?]{0,7}", text in "[ab]{0,9}") {
            let glob = Glob::new(&pattern).expect("no brackets, no faults");
            let characters: Vec<_> = text.chars().collect();
            prop_assert_eq!(glob.matches(&text), plainly(&glob.pieces, &characters));
        }

        #[test]
        fn compiling_and_matching_never_panic(pattern in ".{0,20}|[a\\[\\]\\\\!^*?-]{0,12}", text in ".{0,20}") {
            if let Ok(glob) = Glob::new(&pattern) {
                let _ = glob.matches(&text);
            }
        }
    }
}
