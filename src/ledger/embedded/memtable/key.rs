//! A context key in few bytes: very many are held.

use std::fmt;

use smol_str::SmolStr;
use uuid::Uuid;

use crate::membership::ContextKey;

/// A [`ContextKey`]. UUIDs and texts of up to 23 bytes need no heap memory.
#[derive(PartialEq, Eq)]
pub(crate) enum Key {
    /// A UUID in its canonical form, with hyphens and in lower case, from which the text can be restored.
    Uuid(Uuid),
    Text(SmolStr),
}

const _: () = assert!(size_of::<Option<Key>>() == 24, "one word more than the pointer to a text");

/// Heap overhead of a text (allocator and reference counts), and the least that a text on the heap takes.
const ALLOCATION_BYTES: usize = 32;
const LEAST_ELSEWHERE_BYTES: usize = 64;

/// Length of a UUID in that form.
const UUID_BYTES: usize = uuid::fmt::Hyphenated::LENGTH;

impl Key {
    pub fn of(key: &ContextKey) -> Self {
        let text = key.as_str();
        if text.len() == UUID_BYTES
            && let Ok(uuid) = Uuid::try_parse(text)
        {
            let key = Self::Uuid(uuid);
            if key.is(text) {
                return key;
            }
        }
        Self::Text(SmolStr::new(text))
    }

    /// Passes the text to `to`.
    pub fn show<T>(&self, to: impl FnOnce(&str) -> T) -> T {
        match self {
            Self::Uuid(uuid) => to(uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer())),
            Self::Text(text) => to(text),
        }
    }

    /// Whether this is the text of the key.
    pub fn is(&self, text: &str) -> bool {
        self.show(|own| own == text)
    }

    pub fn context_key(&self) -> ContextKey {
        self.show(ContextKey::new).expect("a key is not empty")
    }

    /// About how many bytes of the heap the text takes, with overhead.
    pub fn bytes_elsewhere(&self) -> usize {
        match self {
            Self::Text(text) if text.is_heap_allocated() => {
                (text.len() + ALLOCATION_BYTES).max(LEAST_ELSEWHERE_BYTES)
            }
            _ => 0,
        }
    }
}

/// Personal data: never printed.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_what_it_was_and_most_have_no_memory_of_their_own() {
        let rows = [
            ("018f4e2a-7c1d-7b3e-9f00-3a5b6c7d8e9f", false),
            ("00000000-0000-0000-0000-000000000000", false),
            ("018F4E2A-7C1D-7B3E-9F00-3A5B6C7D8E9F", true),
            ("018f4e2A-7c1d-7b3e-9f00-3a5b6c7d8e9f", true),
            ("018f4e2a7c1d7b3e9f003a5b6c7d8e9f", true),
            ("{018f4e2a-7c1d-7b3e-9f00-3a5b6c7d8e9f}", true),
            ("urn:uuid:018f4e2a-7c1d-7b3e-9f00-3a5b6c7d8e9f", true),
            ("018f4e2a-7c1d-7b3e-9f00-3a5b6c7d8e9g", true),
            ("018f4e2a-7c1d-7b3e-9f00-3a5b6c7d8e9", true),
            (" 018f4e2a-7c1d-7b3e-9f00-3a5b6c7d8e9f", true),
            ("u", false),
            ("é", false),
            ("twenty-three bytes long", false),
            ("twenty-four bytes it is!", true),
        ];
        for (text, is_elsewhere) in rows {
            let context_key = ContextKey::new(text).expect("not empty");
            let key = Key::of(&context_key);
            let bytes = if is_elsewhere { (text.len() + 32).max(64) } else { 0 };
            assert_eq!(key.bytes_elsewhere(), bytes, "{text}");
            assert_eq!(key.context_key(), context_key);
            assert!(key.is(text) && key.show(|shown| shown == text), "{text}");
            for (other, _) in rows.iter().filter(|(other, _)| *other != text) {
                assert!(!key.is(other), "{text} is not {other}");
            }
            assert_eq!(format!("{key:?}"), "***");
        }
    }
}
