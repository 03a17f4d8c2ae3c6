//! Secrets of the configuration: either in the key itself or in the file that `<key>_file` names.
//!
//! Anything odd about a secret is warned about, once for each oddity and without quoting a character of the
//! secret ([P8](crate::design::P8)). Most oddities are copying mistakes, which would show much later, as a
//! 401.

use super::section::Section;
use super::source::quoted;
use crate::secret::Secret;

/// A key that holds a secret, and the key that names a file with it.
pub(super) type SecretKey = (&'static str, &'static str);

/// Shorter secrets can be guessed or are incomplete.
const FEW_CHARACTERS: usize = 16;

/// What stands in place of secrets in the manual and in the files below config/.
const PLACEHOLDERS: [&str; 2] = ["replace-with-", "…"];

const BYTE_ORDER_MARK: char = '\u{feff}';
/// Invisible characters that copying from a web page may include.
const INVISIBLE: [char; 3] = [BYTE_ORDER_MARK, '\u{200b}', '\u{2060}'];

const MADE_UP: &str = "has fewer than 16 characters and can be guessed; `openssl rand -hex 32` \
                       makes a good one";
const GIVEN: &str = "has fewer than 16 characters; LaunchDarkly's have more: is it complete?";

/// Reads a required secret that LaunchDarkly has issued.
pub(super) fn one(section: &mut Section<'_>, keys: SecretKey) -> Option<Secret> {
    let (text, key) = set(section, keys)?;
    tell_oddities(section, key, "", &text, GIVEN);
    Some(Secret::new(trimmed(&text)))
}

/// Reads a required text that holds a secret among other things; beside it, the key that it was read from.
pub(super) fn text(section: &mut Section<'_>, keys: SecretKey) -> Option<(String, &'static str)> {
    let (text, key) = set(section, keys)?;
    Some((trimmed(&text).to_owned(), key))
}

/// The text of a required secret, and the key that it was read from.
fn set(section: &mut Section<'_>, (key, file_key): SecretKey) -> Option<(String, &'static str)> {
    section.know([key, file_key]);
    let (text, key) = match (section.has(key), section.has(file_key)) {
        (false, false) => {
            section.missing(key, Some(file_key), "");
            return None;
        }
        (true, true) => {
            both_set(section, (key, file_key));
            return None;
        }
        (true, false) => {
            section.warn_if_exposed(key, file_key);
            (section.text(key)?, key)
        }
        (false, true) => {
            let text = read(section, file_key)?;
            (text.trim_end_matches(['\r', '\n']).to_owned(), file_key)
        }
    };
    if trimmed(&text).is_empty() {
        let problem = if key == file_key { "names an empty file" } else { "is empty" };
        section.fault(key, None, problem);
        return None;
    }
    Some((text, key))
}

/// Reads a list of secrets that the operator chose; empty if it is not set, `None` if it is faulty.
pub(super) fn many(section: &mut Section<'_>, keys: SecretKey) -> Option<Vec<Secret>> {
    let (texts, key) = listed(section, keys)?;
    let is_alone = texts.len() == 1;
    let mut secrets = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let which = if is_alone { String::new() } else { format!("item {index} ") };
        let meant = trimmed(text);
        if meant.is_empty() {
            section.fault(key, None, format!("item {index} is empty"));
            return None;
        }
        tell_oddities(section, key, &which, text, MADE_UP);
        secrets.push(Secret::new(meant));
    }
    Some(secrets)
}

/// Reads lines that contain a secret, such as headers, unchanged. `None` if they are faulty.
pub(super) fn lines(section: &mut Section<'_>, keys: SecretKey) -> Option<Vec<Secret>> {
    let (texts, _) = listed(section, keys)?;
    Some(texts.into_iter().map(Secret::new).collect())
}

/// The items, and the key that they were read from.
fn listed(
    section: &mut Section<'_>,
    (key, file_key): SecretKey,
) -> Option<(Vec<String>, &'static str)> {
    section.know([key, file_key]);
    match (section.has(key), section.has(file_key)) {
        (false, false) => Some((Vec::new(), key)),
        (true, true) => {
            both_set(section, (key, file_key));
            None
        }
        (true, false) => {
            section.warn_if_exposed(key, file_key);
            Some((section.list(key)?, key))
        }
        (false, true) => {
            let text = read(section, file_key)?;
            Some((section.lines(file_key, &text)?, file_key))
        }
    }
}

/// The intended text, without spaces and invisible characters that an editor or copying has added.
fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || INVISIBLE.contains(&c))
}

/// Warns about a secret that is probably not what the operator intended.
fn tell_oddities(section: &Section<'_>, key: &str, which: &str, text: &str, short: &'static str) {
    for oddity in oddities(text, short) {
        section.warn(key, &format!("{which}{oddity}"));
    }
}

/// The oddities of a secret; `short` is the warning for a short one.
fn oddities(text: &str, short: &'static str) -> Vec<&'static str> {
    let mut found = Vec::new();
    if text.contains(BYTE_ORDER_MARK) {
        found.push("begins with a byte order mark, which is ignored; save the file without one");
    } else if trimmed(text) != text {
        found.push("has white space around it, which is ignored");
    }
    let text = trimmed(text);
    let scheme = "bearer ";
    let has_scheme =
        text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let is_quoted = |quote| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
    if is_placeholder(text) {
        found.push("is the placeholder from the documentation; replace it with your own");
        return found; // its length is irrelevant
    }
    if is_quoted('"') || is_quoted('\'') {
        found.push("is in quotes, which count as part of it; remove them");
    }
    if has_scheme {
        found.push("begins with `Bearer `, which counts as part of it; remove that");
    }
    if text.chars().count() < FEW_CHARACTERS {
        found.push(short);
    }
    found
}

/// Whether a text is one of the documentation's placeholders.
pub(super) fn is_placeholder(text: &str) -> bool {
    PLACEHOLDERS.iter().any(|placeholder| text.contains(placeholder))
}

fn both_set(section: &mut Section<'_>, (key, file_key): SecretKey) {
    section.fault(key, None, format!("is set, and so is {file_key}: keep one of them"));
    section.discard(key);
    section.discard(file_key);
}

fn read(section: &mut Section<'_>, file_key: &'static str) -> Option<String> {
    let named = section.path(file_key)?;
    let path = &named.path;
    match section.read_text(file_key, path) {
        Ok(text) => {
            section.warn_of_file(file_key, path);
            Some(text)
        }
        Err(_) if looks_like_a_secret(&named.text) => {
            section.fault(file_key, None, "looks like the secret itself; a path is expected");
            None
        }
        Err(error) => {
            section.fault(file_key, Some(quoted(path)), named.cannot_be_read(&error));
            None
        }
    }
}

/// Whether the text looks like one of LaunchDarkly's credentials, which must not be printed.
pub(super) fn looks_like_a_secret(text: &str) -> bool {
    ["api-", "sdk-", "mob-"].iter().any(|prefix| text.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manual::TOPICS;

    const LONG: &str = "0123456789abcdef";

    #[test]
    fn each_slip_is_told_and_a_good_secret_is_not_spoken_of() {
        let begins = |text: &str| {
            oddities(text, MADE_UP).iter().map(|told| told[..14].to_owned()).collect::<Vec<_>>()
        };
        let (mark, blanks, quotes, scheme, short) = (
            "begins with a ",
            "has white spac",
            "is in quotes, ",
            "begins with `B",
            "has fewer than",
        );
        let placeholder = "is the placeho";
        let table: [(String, &[&str]); 16] = [
            (LONG.into(), &[]),
            (LONG[1..].into(), &[short]),
            ("ä".repeat(16), &[]),
            (format!("{LONG} in it"), &[]),
            (format!("\u{feff}{LONG}"), &[mark]),
            (format!(" {LONG}"), &[blanks]),
            (format!("{LONG}\u{a0}"), &[blanks]),
            (format!("\u{200b}{LONG}"), &[blanks]),
            (format!("\"{LONG}\""), &[quotes]),
            (format!("'{LONG}'"), &[quotes]),
            (format!("\"{LONG}"), &[]),
            (format!("Bearer {LONG}"), &[scheme]),
            (format!("bearer {LONG}"), &[scheme]),
            (" \"Bearer x\" ".into(), &[blanks, quotes, short]),
            ("api-replace-with-a-token".into(), &[placeholder]),
            ("…".into(), &[placeholder]),
        ];
        for (text, expected) in table {
            assert_eq!(begins(&text), expected, "{text:?}");
        }
    }

    /// Every placeholder that the documentation uses in place of a secret is recognised.
    #[test]
    fn the_placeholders_of_the_documentation_are_known() {
        let files = [
            include_str!("../../README.md"),
            include_str!("../../config/example.toml"),
            include_str!("../../config/default.toml"),
        ];
        let pages = TOPICS.iter().map(|topic| topic.text);
        let keys = ["shared_secrets", "bearer_tokens", "write_keys", "tokens", "service_token"];
        let is_of_a_key = |line: &str| {
            let line = line.trim_start_matches(['#', ' ']);
            keys.iter().any(|key| {
                line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
            })
        };
        let mut found = 0;
        for line in pages.chain(files).flat_map(str::lines).filter(|line| is_of_a_key(line)) {
            for secret in line.split('"').skip(1).step_by(2) {
                assert!(is_placeholder(secret), "{line}");
                found += 1;
            }
        }
        assert!(found >= 4, "{found}");
    }
}
