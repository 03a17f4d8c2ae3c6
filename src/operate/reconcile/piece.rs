//! A piece of what a snapshot changes, as bytes: so it is kept in the ledger until it is recorded. Personal data.

use super::comparison::Finding;
use super::spool::Entry;
use crate::membership::ContextKey;

const LEAVES: u8 = 0;
const ENTERS: u8 = 1;
const STAYS: u8 = 2;

/// The bytes of these findings; those that change nobody are left out.
pub(in crate::operate) fn encode(findings: &[Finding]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for finding in findings {
        let (kind, key, user_id) = match finding {
            Finding::Enters(entry) => (ENTERS, &entry.key[..], entry.user_id.as_deref()),
            Finding::Leaves(key) => (LEAVES, key.as_str(), None),
            Finding::Stays { entry, .. } => (STAYS, &entry.key[..], entry.user_id.as_deref()),
            Finding::StaysOut(_) | Finding::Newer { .. } => continue,
        };
        bytes.push(kind);
        for text in [key, user_id.unwrap_or_default()] {
            bytes.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// The findings of which these are the bytes; `None`: they are nothing that [`encode`] makes.
pub(in crate::operate) fn decode(mut bytes: &[u8]) -> Option<Vec<Finding>> {
    let mut findings = Vec::new();
    while let Some((kind, rest)) = bytes.split_first() {
        bytes = rest;
        let mut text = || {
            let (length, rest) = bytes.split_first_chunk()?;
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            let (text, rest) = rest.split_at_checked(length)?;
            bytes = rest;
            std::str::from_utf8(text).ok()
        };
        let (key, user_id) = (text()?.to_owned(), text()?);
        let user_id = (!user_id.is_empty()).then(|| user_id.to_owned());
        findings.push(match *kind {
            ENTERS => Finding::Enters(Entry { key, user_id }),
            STAYS => Finding::Stays { entry: Entry { key, user_id }, is_older: true },
            LEAVES => Finding::Leaves(ContextKey::new(&key)?),
            _ => return None,
        });
    }
    Some(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_of_a_piece_is_read_again_and_nothing_else_is() {
        let entry = |key: &str, user_id: Option<&str>| Entry {
            key: key.to_owned(),
            user_id: user_id.map(str::to_owned),
        };
        let key = |key| ContextKey::new(key).expect("not empty");
        let findings = [
            Finding::Enters(entry("ada", None)),
            Finding::Enters(entry("b\u{0}\u{fc}b", Some("7"))),
            Finding::Leaves(key("c\nd")),
            Finding::Stays { entry: entry("eve", Some("e")), is_older: true },
        ];
        let none = [Finding::StaysOut(key("x")), Finding::Newer { key: key("y"), is_in: true }];
        let bytes = encode(&[&findings[..], &none[..]].concat());
        assert!(decode(&bytes).is_some_and(|read| read == findings));
        assert!(decode(&[]).is_some_and(|read| read.is_empty()));
        let first = encode(&findings[..1]).len();
        for cut in 1..first {
            assert!(decode(&bytes[..cut]).is_none(), "{cut}");
        }
        let not_text = [ENTERS, 1, 0, 0, 0, 0xff, 0, 0, 0, 0];
        let of_no_kind = [9, 1, 0, 0, 0, b'a', 0, 0, 0, 0];
        assert!(decode(&not_text).is_none() && decode(&of_no_kind).is_none());
    }
}
