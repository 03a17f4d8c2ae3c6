//! Authentication: who may post to a destination.
//!
//! `X-Signature` is the lower-case hex HMAC-SHA1, keyed with a shared secret, of the text that
//! Segment serialised (`wire.md`, section 1): the whole body of a single event, the raw first
//! element of a batch, or that element's `json` value where elements are wrapped. A signature over
//! the whole body of a batch is good too. `Authorization: Bearer` carries a fixed token.
//!
//! Comparisons take constant time, and every secret is tried whichever matched, so that the time
//! of an answer tells nothing about a secret nor which of several is in use. (The length of a
//! bearer token may show.)

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, header};
use sha1::Sha1;
use subtle::{Choice, ConstantTimeEq};

use crate::secret::Secret;

const SIGNATURE_BYTES: usize = 20;

/// What proves that a request comes from Segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// `X-Signature` under one of the shared secrets.
    Signature,
    /// `Authorization: Bearer` with one of the tokens.
    Bearer,
}

/// What a destination asks of its requests. Several of a kind are valid at once, for rotation.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Keys of `X-Signature`.
    pub shared_secrets: Vec<Secret>,
    /// Values of `Authorization: Bearer`.
    pub bearer_tokens: Vec<Secret>,
    /// All of these must be good; if empty, any one that is configured.
    pub require: Vec<Credential>,
    /// A request that presents nothing passes, unless `require` names something. One that
    /// presents something wrong does not pass.
    pub allow_unauthenticated: bool,
}

/// The credentials of one destination, ready to be checked.
pub(super) struct Gate {
    /// Keyed once: a signature then costs the text only.
    signers: Vec<Hmac<Sha1>>,
    bearer_tokens: Vec<Secret>,
    require: Vec<Credential>,
    allow_unauthenticated: bool,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("require", &self.require).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Not presented, or of a kind this destination does not know.
    Absent,
    Wrong,
    Good,
}

/// What the head of a request says about its sender.
#[derive(Clone, Copy, Debug)]
pub(super) struct Presented {
    signature: Claim,
    bearer: Verdict,
}

#[derive(Clone, Copy, Debug)]
enum Claim {
    Absent,
    /// Not 40 lower-case hex digits: Segment sends nothing else.
    Malformed,
    Signature([u8; SIGNATURE_BYTES]),
}

impl Gate {
    pub(super) fn new(credentials: &Credentials) -> Self {
        let signer = |secret: &Secret| {
            Hmac::new_from_slice(secret.expose().as_bytes())
                .expect("HMAC takes a key of any length")
        };
        Self {
            signers: credentials.shared_secrets.iter().map(signer).collect(),
            bearer_tokens: credentials.bearer_tokens.clone(),
            require: credentials.require.clone(),
            allow_unauthenticated: credentials.allow_unauthenticated,
        }
    }

    /// Reads what a request presents. `None` if no body could make it pass: such a request is
    /// refused before its body costs anything.
    pub(super) fn inspect(&self, headers: &HeaderMap) -> Option<Presented> {
        let signature = if self.signers.is_empty() { Claim::Absent } else { claim(headers) };
        let bearer = if self.bearer_tokens.is_empty() {
            Verdict::Absent
        } else {
            self.judge_bearer(headers)
        };
        let at_best = match signature {
            Claim::Absent => Verdict::Absent,
            Claim::Malformed => Verdict::Wrong,
            Claim::Signature(_) => Verdict::Good,
        };
        self.passes(at_best, bearer).then_some(Presented { signature, bearer })
    }

    /// Whether the request passes, given the texts its sender may have signed.
    pub(super) fn admits<'a>(
        &self,
        presented: &Presented,
        signed: impl IntoIterator<Item = &'a [u8]>,
    ) -> bool {
        let signature = match presented.signature {
            Claim::Absent => Verdict::Absent,
            Claim::Malformed => Verdict::Wrong,
            // the token alone is enough, so that the texts need not be hashed
            Claim::Signature(_) if self.passes(Verdict::Wrong, presented.bearer) => Verdict::Wrong,
            // which text was signed is no secret: stop at the first
            Claim::Signature(signature) => {
                let good = signed.into_iter().any(|text| self.is_signature(text, &signature));
                if good { Verdict::Good } else { Verdict::Wrong }
            }
        };
        self.passes(signature, presented.bearer)
    }

    fn passes(&self, signature: Verdict, bearer: Verdict) -> bool {
        let of = |credential: &Credential| match credential {
            Credential::Signature => signature,
            Credential::Bearer => bearer,
        };
        if !self.require.is_empty() {
            return self.require.iter().all(|credential| of(credential) == Verdict::Good);
        }
        let nothing = signature == Verdict::Absent && bearer == Verdict::Absent;
        signature == Verdict::Good
            || bearer == Verdict::Good
            || (nothing && self.allow_unauthenticated)
    }

    fn is_signature(&self, text: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        let any = self.signers.iter().fold(Choice::from(0), |any, signer| {
            let expected = signer.clone().chain_update(text).finalize().into_bytes();
            any | expected.as_slice().ct_eq(signature)
        });
        any.into()
    }

    fn judge_bearer(&self, headers: &HeaderMap) -> Verdict {
        let Some(token) =
            headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes()))
        else {
            return Verdict::Absent;
        };
        let any = self
            .bearer_tokens
            .iter()
            .fold(Choice::from(0), |any, expected| any | expected.expose().as_bytes().ct_eq(token));
        if any.into() { Verdict::Good } else { Verdict::Wrong }
    }
}

fn claim(headers: &HeaderMap) -> Claim {
    let Some(value) = headers.get("x-signature") else { return Claim::Absent };
    let mut signature = [0; SIGNATURE_BYTES];
    let is_lower_case = !value.as_bytes().iter().any(u8::is_ascii_uppercase);
    match hex::decode_to_slice(value.as_bytes(), &mut signature) {
        Ok(()) if is_lower_case => Claim::Signature(signature),
        _ => Claim::Malformed,
    }
}

/// The token of a `Bearer` value; the scheme's name is case-insensitive (RFC 9110, 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked("bearer".len())?;
    (scheme.eq_ignore_ascii_case(b"bearer") && rest.first() == Some(&b' '))
        .then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    // both made with `openssl dgst -sha1 -hmac`
    const EVENT: &[u8] = br#"{"type":"identify","userId":"u1"}"#;
    const UNDER_OLD: &str = "09b3c51a6fa938cf8a28618c0b986b773b65d871";
    const UNDER_NEW: &str = "5720a7801000a6dd48c709691db50bad6a745ea9";

    fn secrets(texts: &[&str]) -> Vec<Secret> {
        texts.iter().map(|text| Secret::new(*text)).collect()
    }

    fn passes(
        credentials: &Credentials,
        headers: &[(&'static str, &str)],
        signed: &[&[u8]],
    ) -> bool {
        let headers = headers
            .iter()
            .map(|(name, value)| {
                let value = HeaderValue::from_str(value).expect("a header value");
                (http::HeaderName::from_static(name), value)
            })
            .collect();
        let gate = Gate::new(credentials);
        gate.inspect(&headers)
            .is_some_and(|presented| gate.admits(&presented, signed.iter().copied()))
    }

    #[test]
    fn signatures_are_hmac_sha1_in_lower_case_hex() {
        let credentials =
            Credentials { shared_secrets: secrets(&["old", "new"]), ..Credentials::default() };
        // RFC 2202, test case 2
        let rfc = Credentials { shared_secrets: secrets(&["Jefe"]), ..Credentials::default() };
        let rfc_text: &[u8] = b"what do ya want for nothing?";
        assert!(passes(
            &rfc,
            &[("x-signature", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79")],
            &[rfc_text]
        ));

        let upper = UNDER_OLD.to_uppercase();
        let longer = format!("{UNDER_OLD}00");
        let spaced = format!("sha1={UNDER_OLD}");
        let table: [(&str, &[&[u8]], bool); 11] = [
            (UNDER_OLD, &[EVENT], true),
            (UNDER_NEW, &[EVENT], true),
            (UNDER_OLD, &[b"other", EVENT], true),
            (UNDER_OLD, &[b"{\"type\":\"identify\",\"userId\":\"u2\"}"], false),
            (UNDER_OLD, &[b"{\"type\":\"identify\", \"userId\":\"u1\"}"], false),
            (UNDER_OLD, &[], false),
            (&UNDER_OLD[..38], &[EVENT], false),
            (&longer, &[EVENT], false),
            (&upper, &[EVENT], false),
            (&spaced, &[EVENT], false),
            ("", &[EVENT], false),
        ];
        for (signature, signed, expected) in table {
            assert_eq!(
                passes(&credentials, &[("x-signature", signature)], signed),
                expected,
                "{signature}"
            );
        }
        let other = Credentials { shared_secrets: secrets(&["other"]), ..Credentials::default() };
        assert!(!passes(&other, &[("x-signature", UNDER_OLD)], &[EVENT]));
        assert!(!passes(&credentials, &[], &[EVENT]), "missing");
    }

    #[test]
    fn bearer_tokens_are_compared_whole() {
        let credentials =
            Credentials { bearer_tokens: secrets(&["first", "second"]), ..Credentials::default() };
        let table = [
            ("Bearer first", true),
            ("bearer second", true),
            ("Bearer  first", true),
            ("Bearer firs", false),
            ("Bearer firsts", false),
            ("Bearer First", false),
            ("Bearer ", false),
            ("Bearer", false),
            ("Bearerfirst", false),
            ("Basic first", false),
            ("first", false),
        ];
        for (value, expected) in table {
            assert_eq!(
                passes(&credentials, &[("authorization", value)], &[EVENT]),
                expected,
                "{value}"
            );
        }
    }

    #[test]
    fn what_is_required_decides() {
        use Credential::{Bearer, Signature};
        let good_signature = ("x-signature", UNDER_OLD);
        let wrong_signature = ("x-signature", "0000000000000000000000000000000000000000");
        let good_bearer = ("authorization", "Bearer token");
        let wrong_bearer = ("authorization", "Bearer wrong");
        let presented: [&[(&'static str, &str)]; 8] = [
            &[],
            &[good_signature],
            &[good_bearer],
            &[wrong_signature],
            &[wrong_bearer],
            &[good_signature, good_bearer],
            &[wrong_signature, good_bearer],
            &[good_signature, wrong_bearer],
        ];
        let (yes, no) = (true, false);
        #[rustfmt::skip]
        let table: [(&[Credential], bool, [bool; 8]); 6] = [
            // required           open  none  sig  bear  !sig  !bear both  !sig+ sig+!
            (&[],                  no,  [no,  yes, yes,  no,   no,   yes,  yes,  yes]),
            (&[],                  yes, [yes, yes, yes,  no,   no,   yes,  yes,  yes]),
            (&[Signature],         no,  [no,  yes, no,   no,   no,   yes,  no,   yes]),
            (&[Bearer],            no,  [no,  no,  yes,  no,   no,   yes,  yes,  no]),
            (&[Signature, Bearer], no,  [no,  no,  no,   no,   no,   yes,  no,   no]),
            (&[Signature, Bearer], yes, [no,  no,  no,   no,   no,   yes,  no,   no]),
        ];
        for (require, allow_unauthenticated, expected) in table {
            let credentials = Credentials {
                shared_secrets: secrets(&["old"]),
                bearer_tokens: secrets(&["token"]),
                require: require.to_vec(),
                allow_unauthenticated,
            };
            let actual = presented.map(|headers| passes(&credentials, headers, &[EVENT]));
            assert_eq!(actual, expected, "{require:?}, open: {allow_unauthenticated}");
        }
    }

    #[test]
    fn a_destination_without_credentials_is_open_only_if_it_says_so() {
        let closed = Credentials::default();
        assert!(!passes(&closed, &[], &[EVENT]));
        assert!(!passes(&closed, &[("x-signature", UNDER_OLD)], &[EVENT]));
        let open = Credentials { allow_unauthenticated: true, ..Credentials::default() };
        assert!(passes(&open, &[], &[EVENT]));
        assert!(passes(&open, &[("x-signature", "unknown here")], &[EVENT]));
    }

    #[test]
    fn secrets_do_not_show() {
        let credentials = Credentials {
            shared_secrets: secrets(&["sesame"]),
            bearer_tokens: secrets(&["sesame"]),
            ..Credentials::default()
        };
        let shown = format!("{credentials:?} {:?}", Gate::new(&credentials));
        assert!(!shown.contains("sesame"), "{shown}");
    }
}
