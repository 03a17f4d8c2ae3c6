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
use serde::Deserialize;
use serde_json::value::RawValue;

static CREDENTIALS: LazyLock<Credentials> = LazyLock::new(|| Credentials {
    shared_secrets: vec![Secret::new("first"), Secret::new("second")],
    ..Credentials::default()
});

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wrapper<'a> {
    #[serde(borrow)]
    json: &'a RawValue,
}

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
    let Ok(elements) = serde_json::from_slice::<Vec<&RawValue>>(body) else { return Some(body) };
    let first = elements.first()?.get();
    let wrapped = serde_json::from_str::<Wrapper<'_>>(first).ok();
    let wrapped = wrapped.map(|wrapper| wrapper.json.get()).filter(|json| json.starts_with('{'));
    Some(wrapped.unwrap_or(first).as_bytes())
}

// The first byte says which byte of the body is changed, the second to what; the rest is the body.
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
