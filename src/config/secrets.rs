//! Secrets of the configuration: in the key itself, or in the file that `<key>_file` names.

use super::section::Section;
use crate::secret::Secret;

/// A key that holds a secret and the key that names a file which does.
pub(super) type SecretKey = (&'static str, &'static str);

/// One secret that must be set.
pub(super) fn one(section: &mut Section<'_>, (key, file_key): SecretKey) -> Option<Secret> {
    section.know([key, file_key]);
    match (section.has(key), section.has(file_key)) {
        (false, false) => {
            section.missing(key, Some(file_key), "");
            None
        }
        (true, true) => {
            both_set(section, (key, file_key));
            None
        }
        (true, false) => section.text(key).map(Secret::new),
        (false, true) => {
            let text = read(section, file_key)?;
            let text = text.trim_end_matches(['\r', '\n']);
            if text.is_empty() {
                section.fault(file_key, None, "names an empty file");
                return None;
            }
            Some(Secret::new(text))
        }
    }
}

/// A list of secrets, none if it is not set. `None` if it is faulty.
pub(super) fn many(section: &mut Section<'_>, (key, file_key): SecretKey) -> Option<Vec<Secret>> {
    section.know([key, file_key]);
    let texts = match (section.has(key), section.has(file_key)) {
        (false, false) => Some(Vec::new()),
        (true, true) => {
            both_set(section, (key, file_key));
            None
        }
        (true, false) => section.list(key),
        (false, true) => {
            let text = read(section, file_key)?;
            section.lines(file_key, &text)
        }
    };
    texts.map(|texts| texts.into_iter().map(Secret::new).collect())
}

fn both_set(section: &mut Section<'_>, (key, file_key): SecretKey) {
    section.fault(key, None, format!("is set, and so is {file_key}: keep one of them"));
    section.discard(key);
    section.discard(file_key);
}

fn read(section: &mut Section<'_>, file_key: &'static str) -> Option<String> {
    let path = section.text(file_key)?;
    match section.read_text(file_key, &path) {
        Ok(text) => Some(text),
        Err(_) if looks_like_a_secret(&path) => {
            section.fault(file_key, None, "looks like the secret itself; a path is expected");
            None
        }
        Err(error) => {
            section.fault(file_key, Some(format!("{path:?}")), format!("cannot be read: {error}"));
            None
        }
    }
}

/// Whether the text has the shape of one of LaunchDarkly's credentials, which must not be printed.
pub(super) fn looks_like_a_secret(text: &str) -> bool {
    ["api-", "sdk-", "mob-"].iter().any(|prefix| text.starts_with(prefix))
}
