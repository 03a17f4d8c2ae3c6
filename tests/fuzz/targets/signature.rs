//! A body, and what becomes of its signature. What Segment would sign passes, under either secret;
//! a changed byte of it does not; and what passes at all was signed by somebody who has a secret.
//! Two implementations of HMAC are compared: the daemon's and that of another crate.

#![no_main]

use std::sync::LazyLock;

use cohortd::receive::Credentials;
use cohortd::secret::Secret;
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use ring::hmac;

mod raw;

static CREDENTIALS: LazyLock<Credentials> = LazyLock::new(|| Credentials {
    shared_secrets: vec![Secret::new("first"), Secret::new("second")],
    ..Credentials::default()
});

fn signature(secret: &str, text: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    hmac::sign(&key, text).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn passes(signature: &str, body: &[u8]) -> bool {
    let mut headers = HeaderMap::new();
    let Ok(value) = signature.parse() else { return false };
    headers.insert("x-signature", value);
    CREDENTIALS.admit(&headers, body, &["plan".to_owned()])
}

/// What Segment signs of a body, as a parser that is not the daemon's finds it.
fn signed(body: &[u8]) -> Option<&[u8]> {
    let Some(elements) = raw::elements(body) else { return Some(body) };
    let first = *elements.first()?;
    Some(wrapped(first).unwrap_or(first))
}

/// The object in `{"json": {…}}`.
fn wrapped(element: &[u8]) -> Option<&[u8]> {
    let member = element.strip_prefix(b"{")?.trim_ascii_start().strip_prefix(b"\"json\"")?;
    let value = member.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let (value, rest) = value.split_at(raw::end_of_first(value)?);
    (value.starts_with(b"{") && rest.trim_ascii() == b"}").then_some(value)
}

// Which byte of what is signed is changed, how, and the body.
fuzz_target!(|input: (u16, u8, &[u8])| {
    let (at, change, body) = input;
    if let Some(signed) = signed(body) {
        assert!(passes(&signature("first", signed), body));
        assert!(passes(&signature("second", signed), body));
        let good = signature("second", signed);
        assert!(!passes(&signature("third", signed), body));
        assert!(!passes(&good[..38], body) && !passes(&format!("{good}00"), body));
        let upper = good.to_uppercase();
        assert!(upper == good || !passes(&upper, body));

        // The signature goes on standing for its text, and for no other.
        let mut changed = body.to_vec();
        let offset = signed.as_ptr() as usize - body.as_ptr() as usize;
        if !signed.is_empty() && change != 0 {
            changed[offset + usize::from(at) % signed.len()] ^= change;
            let still = self::signed(&changed).is_some_and(|text| text == signed);
            assert!(still || !passes(&good, &changed) || contains(&changed, signed));
        }
    }
    // Without a secret nothing passes, whatever the body says.
    assert!(!passes(&String::from_utf8_lossy(body), body));
});

/// A text that still stands somewhere in the body may have become its first element.
fn contains(body: &[u8], text: &[u8]) -> bool {
    body.windows(text.len()).any(|window| window == text)
}
