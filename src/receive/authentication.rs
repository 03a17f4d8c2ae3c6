//! Authentication: who may send events to a destination.
//!
//! `X-Signature` is the lower-case hex HMAC-SHA1, keyed with a shared secret, of the text that
//! [Segment serialised](crate::design::segment::signature): the whole body of a single event, the raw first
//! element of a batch, or, if the event or that element is wrapped, its `json` value. A signature over the
//! whole body of a batch is good too. `Authorization: Bearer` carries a fixed token, `Basic` a write key as
//! the user name.
//!
//! # What always holds
//! * A request passes only if a credential that counts was proven good (the tables below; from outside
//!   tests/it/signatures.rs; fuzzed against another HMAC in `tests/fuzz`, target `signature`).
//! * A signature is checked over the raw bytes as they were sent, never over re-serialised text.
//!
//! Comparisons take constant time, and every secret is tried even after a match, so that response times
//! reveal neither a secret nor which of several is in use. (The length of a bearer token may show.)

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use subtle::{Choice, ConstantTimeEq};

use super::envelope::{self, Envelope, Unsplittable};
use super::refused::{Doubt, Kind};
use super::sorting::MOST_EVENTS;
use crate::json;
use crate::secret::Secret;

/// Length of a signature in hex.
const SIGNATURE_DIGITS: usize = 40;

/// What proves that a request comes from Segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Credential {
    /// `X-Signature` under one of the shared secrets.
    Signature,
    /// `Authorization: Bearer` with one of the tokens.
    Bearer,
    /// `Authorization: Basic` with one of the write keys as the user name.
    WriteKey,
}

/// What a destination requires of its requests. Several credentials of a kind are valid at once, for
/// rotation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Keys of `X-Signature`.
    pub shared_secrets: Vec<Secret>,
    /// Values of `Authorization: Bearer`.
    pub bearer_tokens: Vec<Secret>,
    /// User names of `Authorization: Basic`. In the Tracking API they also select the destination.
    pub write_keys: Vec<Secret>,
    /// All of these must be good; if empty, any one of the configured credentials suffices.
    pub require: Vec<Credential>,
    /// A request that presents no credential passes, unless `require` names one. A request that presents a
    /// wrong one does not pass.
    pub allow_unauthenticated: bool,
}

impl Credentials {
    /// Whether head and body prove that Segment sent the request: the complete check of
    /// `/segment/{destination}`. `extra_fields` are fields that are appended to an event after it was signed.
    #[must_use]
    pub fn admit(&self, headers: &HeaderMap, body: &[u8], extra_fields: &[String]) -> bool {
        let gate = Gate::new(self);
        gate.inspect(headers).is_some_and(|presented| {
            gate.admits(&presented, body, &envelope::split(body, MOST_EVENTS), extra_fields)
        })
    }
}

/// The credentials of one destination, ready to be checked.
pub(super) struct Gate {
    /// Keyed once, so that checking a signature only hashes the text.
    signers: Vec<Hmac<Sha1>>,
    shared_secrets: Vec<Secret>,
    bearer_tokens: Vec<Secret>,
    write_keys: Vec<Secret>,
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
    /// Not presented, or of a kind that is not configured for this destination.
    Absent,
    Wrong,
    Good,
}

/// The credentials in the head of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Presented {
    signature: Claim,
    bearer: Verdict,
    write_key: Verdict,
}

#[derive(Clone, Copy, Debug)]
enum Claim {
    Absent,
    /// Not 40 lower-case hex digits: Segment sends nothing else.
    Malformed,
    Signature([u8; SIGNATURE_DIGITS]),
}

impl Gate {
    pub(super) fn new(credentials: &Credentials) -> Self {
        let signer = |secret: &Secret| {
            Hmac::new_from_slice(secret.expose().as_bytes())
                .expect("HMAC takes a key of any length")
        };
        Self {
            signers: credentials.shared_secrets.iter().map(signer).collect(),
            shared_secrets: credentials.shared_secrets.clone(),
            bearer_tokens: credentials.bearer_tokens.clone(),
            write_keys: credentials.write_keys.clone(),
            require: credentials.require.clone(),
            allow_unauthenticated: credentials.allow_unauthenticated,
        }
    }

    /// Reads the credentials of a request. `None` if it cannot pass whatever its body: such a request is
    /// refused before its body costs anything.
    pub(super) fn inspect(&self, headers: &HeaderMap) -> Option<Presented> {
        let judge = |secrets: &[Secret], shown: Option<&[u8]>| match shown {
            Some(shown) if !secrets.is_empty() && is_among(shown, secrets) => Verdict::Good,
            Some(_) if !secrets.is_empty() => Verdict::Wrong,
            _ => Verdict::Absent,
        };
        let authorization = headers.get(header::AUTHORIZATION).map(http::HeaderValue::as_bytes);
        let write_key = basic_user(headers);
        let presented = Presented {
            signature: if self.signers.is_empty() { Claim::Absent } else { claim(headers) },
            bearer: judge(&self.bearer_tokens, authorization.and_then(bearer)),
            write_key: judge(&self.write_keys, write_key.as_deref().map(str::as_bytes)),
        };
        let at_best = match presented.signature {
            Claim::Absent => Verdict::Absent,
            Claim::Malformed => Verdict::Wrong,
            Claim::Signature(_) => Verdict::Good,
        };
        self.passes(at_best, &presented).then_some(presented)
    }

    /// Why a request with this head is not authenticated, given that it could not pass whatever its body.
    pub(super) fn doubt(&self, headers: &HeaderMap) -> Doubt {
        let authorization = headers.get(header::AUTHORIZATION).map(http::HeaderValue::as_bytes);
        let token = authorization.and_then(bearer);
        let write_key = basic_user(headers);
        let is_good = |credential: Credential| match credential {
            Credential::Signature => matches!(claim(headers), Claim::Signature(_)),
            Credential::Bearer => token.is_some_and(|token| is_among(token, &self.bearer_tokens)),
            Credential::WriteKey => {
                write_key.as_deref().is_some_and(|key| self.knows_write_key(key))
            }
        };
        let has_signature = headers.contains_key("x-signature");
        if !has_signature && authorization.is_none() {
            return Doubt::Nothing;
        }
        let shown = match authorization {
            None => Kind::None,
            Some(_) if token.is_some() => Kind::Bearer,
            Some(_) if write_key.is_some() => Kind::Basic,
            Some(_) => Kind::Other,
        };
        let of_authorization = match shown {
            Kind::Bearer if !self.bearer_tokens.is_empty() => Doubt::Wrong(Kind::Bearer),
            Kind::Basic if !self.write_keys.is_empty() => Doubt::Wrong(Kind::Basic),
            other => Doubt::Unexpected(other),
        };
        if let Some(lacks) = self.require.iter().find(|credential| !is_good(**credential)) {
            return match lacks {
                Credential::Signature if has_signature => Doubt::Malformed,
                Credential::Bearer if matches!(shown, Kind::Bearer | Kind::Other) => {
                    of_authorization
                }
                Credential::WriteKey if matches!(shown, Kind::Basic | Kind::Other) => {
                    of_authorization
                }
                lacks => Doubt::Lacks(*lacks),
            };
        }
        match (has_signature, self.signers.is_empty()) {
            (true, false) => Doubt::Malformed, // a well-formed one would be compared with the body
            (true, true) if shown == Kind::None => Doubt::Unexpected(Kind::Signature),
            _ => of_authorization,
        }
    }

    /// Whether a request without a credential may pass.
    pub(super) fn admits_strangers(&self) -> bool {
        self.allow_unauthenticated
    }

    /// Whether the text is one of the secrets.
    pub(super) fn is_secret(&self, text: &[u8]) -> bool {
        let all = [&self.shared_secrets, &self.bearer_tokens, &self.write_keys];
        all.into_iter().any(|secrets| is_among(text, secrets))
    }

    /// Whether the request's signature is a signature of this text.
    pub(super) fn is_signed(&self, presented: &Presented, text: &[u8]) -> bool {
        matches!(presented.signature, Claim::Signature(signature) if self.is_signature(text, &signature))
    }

    /// Whether the request passes, given its body and the result of splitting it.
    pub(super) fn admits(
        &self,
        presented: &Presented,
        body: &[u8],
        split: &Result<Envelope<'_>, Unsplittable<'_>>,
        extra_fields: &[String],
    ) -> bool {
        let (first, single) = match split {
            Ok(Envelope::Array(elements)) => (elements.first().copied(), None),
            Ok(Envelope::Single(event)) => (None, Some(*event)),
            Err(unsplittable) => (unsplittable.first, None),
        };
        let wrapped = first.or(single).and_then(envelope::wrapped_event);
        // most likely texts first, which are also the shortest; a byte order mark is sent with the body, but
        // may not have been signed
        let unmarked = Some(json::without_mark(body)).filter(|text| text.len() < body.len());
        let signed = wrapped.into_iter().chain(first).chain([body]).chain(unmarked);
        if self.admits_any(presented, signed) {
            return true;
        }
        let event = first.or(single).unwrap_or(body);
        let before = envelope::without_appended(event, extra_fields);
        before.is_some_and(|before| self.admits_any(presented, [&before[..]]))
    }

    /// Whether the request passes without a good signature.
    pub(super) fn admits_without_signature(&self, presented: &Presented) -> bool {
        match presented.signature {
            Claim::Absent => self.passes(Verdict::Absent, presented),
            Claim::Malformed | Claim::Signature(_) => self.passes(Verdict::Wrong, presented),
        }
    }

    /// Whether the request passes by the first event of a batch that starts with `beginning`; `None` if that
    /// event is not complete in it.
    pub(super) fn admits_by_first(
        &self,
        presented: &Presented,
        beginning: &[u8],
        extra_fields: &[String],
    ) -> Option<bool> {
        envelope::first_of_beginning(beginning).map(|first| {
            self.admits(presented, first, &Ok(Envelope::Array(vec![first])), extra_fields)
        })
    }

    /// For a text that arrives in pieces. `None` if no signature over it would let the request pass.
    pub(super) fn whole_text(&self, presented: &Presented) -> Option<WholeText> {
        let Claim::Signature(signature) = presented.signature else { return None };
        let passes = self.passes(Verdict::Good, presented);
        passes.then(|| WholeText { signers: self.signers.clone(), signature })
    }

    /// Whether the request passes, given the texts that the sender may have signed.
    fn admits_any<'a>(
        &self,
        presented: &Presented,
        signed: impl IntoIterator<Item = &'a [u8]>,
    ) -> bool {
        let signature = match presented.signature {
            Claim::Absent => Verdict::Absent,
            Claim::Malformed => Verdict::Wrong,
            // other credentials suffice, so the texts need not be hashed
            Claim::Signature(_) if self.passes(Verdict::Wrong, presented) => Verdict::Wrong,
            // which text was signed is not secret: stop at the first match
            Claim::Signature(signature) => {
                let good = signed.into_iter().any(|text| self.is_signature(text, &signature));
                if good { Verdict::Good } else { Verdict::Wrong }
            }
        };
        self.passes(signature, presented)
    }

    /// Whether any write key is configured.
    pub(super) fn has_write_keys(&self) -> bool {
        !self.write_keys.is_empty()
    }

    /// Whether this is one of the write keys.
    pub(super) fn knows_write_key(&self, write_key: &str) -> bool {
        is_among(write_key.as_bytes(), &self.write_keys)
    }

    fn passes(&self, signature: Verdict, presented: &Presented) -> bool {
        let Presented { bearer, write_key, .. } = *presented;
        let of = |credential: &Credential| match credential {
            Credential::Signature => signature,
            Credential::Bearer => bearer,
            Credential::WriteKey => write_key,
        };
        if !self.require.is_empty() {
            return self.require.iter().all(|credential| of(credential) == Verdict::Good);
        }
        let all = [signature, bearer, write_key];
        all.contains(&Verdict::Good) || (self.allow_unauthenticated && all == [Verdict::Absent; 3])
    }

    fn is_signature(&self, text: &[u8], signature: &[u8; SIGNATURE_DIGITS]) -> bool {
        is_one_of(self.signers.iter().map(|signer| signer.clone().chain_update(text)), signature)
    }
}

impl Presented {
    /// Whether the head alone proves that the sender knows a secret.
    pub(super) fn shows_a_secret(&self) -> bool {
        [self.bearer, self.write_key].contains(&Verdict::Good)
    }
}

/// A text that arrives in pieces, and its signature.
pub(super) struct WholeText {
    signers: Vec<Hmac<Sha1>>,
    signature: [u8; SIGNATURE_DIGITS],
}

impl WholeText {
    /// Adds the next piece.
    pub(super) fn add(&mut self, piece: &[u8]) {
        for signer in &mut self.signers {
            signer.update(piece);
        }
    }

    /// Whether the text, now complete, has this signature.
    pub(super) fn proves_itself(self) -> bool {
        is_one_of(self.signers, &self.signature)
    }
}

/// Compares with every candidate, so that timing does not reveal which one matches.
fn is_one_of(
    signed: impl IntoIterator<Item = Hmac<Sha1>>,
    signature: &[u8; SIGNATURE_DIGITS],
) -> bool {
    let any = signed.into_iter().fold(Choice::from(0), |any, signed| {
        let mut expected = [0; SIGNATURE_DIGITS];
        let code = signed.finalize().into_bytes();
        hex::encode_to_slice(code, &mut expected).expect("two digits a byte");
        any | expected.ct_eq(signature)
    });
    any.into()
}

/// Compares with every secret, so that timing does not reveal which one matches.
fn is_among(shown: &[u8], secrets: &[Secret]) -> bool {
    let any = secrets
        .iter()
        .fold(Choice::from(0), |any, secret| any | secret.expose().as_bytes().ct_eq(shown));
    any.into()
}

fn claim(headers: &HeaderMap) -> Claim {
    let Some(value) = headers.get("x-signature") else { return Claim::Absent };
    // no branch per digit: digits cannot be predicted
    let is_digit = |byte: &u8| byte.is_ascii_digit() | matches!(byte, b'a'..=b'f');
    match <[u8; SIGNATURE_DIGITS]>::try_from(value.as_bytes()) {
        Ok(signature) if signature.iter().fold(true, |all, byte| all & is_digit(byte)) => {
            Claim::Signature(signature)
        }
        _ => Claim::Malformed,
    }
}

/// The token of a `Bearer` value of `Authorization`; the scheme's name is case-insensitive (RFC 9110,
/// 11.1).
#[must_use]
pub fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked("bearer".len())?;
    (scheme.eq_ignore_ascii_case(b"bearer") && rest.first() == Some(&b' '))
        .then(|| rest.trim_ascii())
}

/// The user name of HTTP Basic authentication; the password is ignored.
pub(super) fn basic_user(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, _) = decoded.split_once(':')?;
    Some(user.to_owned())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    // both computed with `openssl dgst -sha1 -hmac`
    const EVENT: &[u8] = br#"{"type":"identify","userId":"u1"}"#;
    const UNDER_OLD: &str = "09b3c51a6fa938cf8a28618c0b986b773b65d871";
    const UNDER_NEW: &str = "5720a7801000a6dd48c709691db50bad6a745ea9";

    fn secrets(texts: &[&str]) -> Vec<Secret> {
        texts.iter().map(|text| Secret::new(*text)).collect()
    }

    fn headers(headers: &[(&'static str, &str)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, &str)| {
            let value = HeaderValue::from_str(value).expect("a header value");
            (http::HeaderName::from_static(name), value)
        };
        headers.iter().map(header).collect()
    }

    fn passes(
        credentials: &Credentials,
        headers: &[(&'static str, &str)],
        signed: &[&[u8]],
    ) -> bool {
        let gate = Gate::new(credentials);
        gate.inspect(&self::headers(headers))
            .is_some_and(|presented| gate.admits_any(&presented, signed.iter().copied()))
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
    fn a_secret_that_is_configured_twice_is_as_good_as_once() {
        let credentials = Credentials {
            shared_secrets: secrets(&["old", "old"]),
            bearer_tokens: secrets(&["token", "token"]),
            ..Credentials::default()
        };
        assert!(passes(&credentials, &[("x-signature", UNDER_OLD)], &[EVENT]));
        assert!(passes(&credentials, &[("authorization", "Bearer token")], &[EVENT]));
    }

    #[test]
    fn a_write_key_opens_only_where_it_is_configured() {
        let keyless = Gate::new(&Credentials::default());
        assert!(!keyless.has_write_keys() && !keyless.knows_write_key(""));
        let write_keys = secrets(&["key", "other"]);
        let gate = Gate::new(&Credentials { write_keys, ..Credentials::default() });
        assert!(gate.has_write_keys() && gate.knows_write_key("other"));
        assert!(!gate.knows_write_key("othe") && !gate.knows_write_key(""));
    }

    #[test]
    fn what_is_required_decides() {
        use Credential::{Bearer, Signature, WriteKey};
        let good_signature = ("x-signature", UNDER_OLD);
        let wrong_signature = ("x-signature", "0000000000000000000000000000000000000000");
        let good_bearer = ("authorization", "Bearer token");
        let wrong_bearer = ("authorization", "Bearer wrong");
        let good_key = ("authorization", "Basic a2V5Og=="); // `key:`
        let wrong_key = ("authorization", "Basic a2V4Og==");
        let presented: [&[(&'static str, &str)]; 12] = [
            &[],
            &[good_signature],
            &[good_bearer],
            &[good_key],
            &[wrong_signature],
            &[wrong_bearer],
            &[wrong_key],
            &[good_signature, good_bearer],
            &[good_signature, good_key],
            &[wrong_signature, good_bearer],
            &[wrong_signature, good_key],
            &[good_signature, wrong_bearer],
        ];
        let (yes, no) = (true, false);
        #[rustfmt::skip]
        let table: [(&[Credential], bool, [bool; 12]); 8] = [
            // required              open  none  s    b    k    !s   !b   !k   sb   sk   !sb  !sk  s!b
            (&[],                    no,  [no,  yes, yes, yes, no,  no,  no,  yes, yes, yes, yes, yes]),
            (&[],                    yes, [yes, yes, yes, yes, no,  no,  no,  yes, yes, yes, yes, yes]),
            (&[Signature],           no,  [no,  yes, no,  no,  no,  no,  no,  yes, yes, no,  no,  yes]),
            (&[Bearer],              no,  [no,  no,  yes, no,  no,  no,  no,  yes, no,  yes, no,  no]),
            (&[WriteKey],            no,  [no,  no,  no,  yes, no,  no,  no,  no,  yes, no,  yes, no]),
            (&[Signature, Bearer],   no,  [no,  no,  no,  no,  no,  no,  no,  yes, no,  no,  no,  no]),
            (&[Signature, WriteKey], no,  [no,  no,  no,  no,  no,  no,  no,  no,  yes, no,  no,  no]),
            (&[Signature, Bearer],   yes, [no,  no,  no,  no,  no,  no,  no,  yes, no,  no,  no,  no]),
        ];
        for (require, allow_unauthenticated, expected) in table {
            let credentials = Credentials {
                shared_secrets: secrets(&["old"]),
                bearer_tokens: secrets(&["token"]),
                write_keys: secrets(&["other", "key"]),
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
        // nothing of these kinds is configured, so they are not looked at
        let ignored = [
            ("x-signature", "unknown here"),
            ("authorization", "Bearer unknown"),
            ("authorization", "Basic a2V5Og=="),
        ];
        for header in ignored {
            assert!(passes(&open, &[header], &[EVENT]), "{header:?}");
            assert!(!passes(&closed, &[header], &[EVENT]), "{header:?}");
        }
    }

    /// A batch is proven by its first event, a single event by itself, and either as a whole.
    #[test]
    fn a_request_is_proven_by_the_text_that_its_sender_has_signed() {
        let event = std::str::from_utf8(EVENT).expect("it is text");
        let (other, appended) = (r#"{"userId":"u2"}"#, event.replace('}', r#","plan":"pro"}"#));
        let batch_of_other = format!("[{other},{event}]");
        let table: [(String, bool); 10] = [
            (event.to_owned(), true),
            (format!("[{event},{other}]"), true),
            (format!(r#"[{{"json":{event}}},{other}]"#), true),
            (format!("\u{feff}{event}"), true), // signed without the mark
            (appended.clone(), true),
            (format!("[{appended}]"), true),
            (batch_of_other, false),
            (other.to_owned(), false),
            ("[]".to_owned(), false),
            (String::new(), false),
        ];
        let credentials =
            Credentials { shared_secrets: secrets(&["old"]), ..Credentials::default() };
        let signed = headers(&[("x-signature", UNDER_OLD)]);
        for (body, expected) in table {
            let extra_fields = ["plan".to_owned()];
            let is_admitted =
                |headers: &HeaderMap| credentials.admit(headers, body.as_bytes(), &extra_fields);
            assert_eq!(is_admitted(&signed), expected, "{body}");
            assert!(!is_admitted(&HeaderMap::new()), "{body}");
        }
    }

    /// A text that arrives in pieces is hashed only if its signature can make a difference.
    #[test]
    fn a_text_in_pieces_is_proven_as_a_whole() {
        type Pieces<'a> = &'a [&'a [u8]];
        let both = [Credential::Signature, Credential::Bearer];
        let table: [(&[Credential], Pieces<'_>, Option<bool>); 5] = [
            (&[], &[EVENT], Some(true)),
            (&[], &[&EVENT[..9], b"", &EVENT[9..]], Some(true)),
            (&[], &[&EVENT[..9]], Some(false)),
            (&[], &[EVENT, b" "], Some(false)),
            (&both, &[EVENT], None), // no token is shown
        ];
        for (require, pieces, expected) in table {
            let gate = Gate::new(&Credentials {
                shared_secrets: secrets(&["new", "old"]),
                bearer_tokens: secrets(&["token"]),
                require: require.to_vec(),
                ..Credentials::default()
            });
            let presented = Presented {
                signature: claim(&headers(&[("x-signature", UNDER_OLD)])),
                bearer: Verdict::Absent,
                write_key: Verdict::Absent,
            };
            let whole = gate.whole_text(&presented).map(|mut whole| {
                for piece in pieces {
                    whole.add(piece);
                }
                whole.proves_itself()
            });
            assert_eq!(whole, expected, "{require:?}, {} pieces", pieces.len());
        }
    }

    /// What the head of a request proves decides how much is done for it before its body is read.
    #[test]
    fn a_head_alone_proves_something_or_nothing() {
        let (good, wrong, absent) = (Verdict::Good, Verdict::Wrong, Verdict::Absent);
        let (none, some) = (Claim::Absent, Claim::Signature([b'0'; SIGNATURE_DIGITS]));
        let (any, signed) = (&[][..], &[Credential::Signature][..]);
        #[rustfmt::skip]
        let table = [
            // required, open,  signature, bearer, write key; shows a secret, passes without a signature
            (any,        false, none,      absent, absent,    false,          false),
            (any,        true,  none,      absent, absent,    false,          true),
            (any,        true,  some,      absent, absent,    false,          false),
            (any,        true,  none,      wrong,  absent,    false,          false),
            (any,        false, none,      good,   absent,    true,           true),
            (any,        false, some,      absent, good,      true,           true),
            (any,        false, Claim::Malformed, good, absent, true,         true),
            (signed,     false, some,      good,   absent,    true,           false),
        ];
        for (require, allow_unauthenticated, signature, bearer, write_key, shows, passes) in table {
            let gate = Gate::new(&Credentials {
                require: require.to_vec(),
                allow_unauthenticated,
                ..Credentials::default()
            });
            let presented = Presented { signature, bearer, write_key };
            let case = format!("{require:?}, open: {allow_unauthenticated}, {presented:?}");
            assert_eq!(presented.shows_a_secret(), shows, "{case}");
            assert_eq!(gate.admits_without_signature(&presented), passes, "{case}");
            assert_eq!(gate.admits_strangers(), allow_unauthenticated);
        }
    }

    #[test]
    fn the_first_event_of_a_batch_proves_it_before_the_rest_is_there() {
        let gate =
            Gate::new(&Credentials { shared_secrets: secrets(&["old"]), ..Credentials::default() });
        let presented =
            gate.inspect(&headers(&[("x-signature", UNDER_OLD)])).expect("it may be good");
        let event = std::str::from_utf8(EVENT).expect("it is text");
        let table = [
            (format!(r#"[{event},{{"userId":"u"#), Some(true)),
            (format!(r#"[{{"userId":"u2"}},{event}"#), Some(false)),
            (format!("[{}", &event[..9]), None),
        ];
        for (beginning, expected) in table {
            let admits = gate.admits_by_first(&presented, beginning.as_bytes(), &[]);
            assert_eq!(admits, expected, "{beginning}");
        }
        assert!(gate.is_signed(&presented, EVENT) && !gate.is_signed(&presented, b"other"));
        let unsigned = Presented { signature: Claim::Absent, ..presented };
        assert!(!gate.is_signed(&unsigned, EVENT));
    }

    /// Which of several causes the sender is told.
    #[test]
    fn the_reason_of_a_refusal_is_the_credential_that_failed() {
        type Head<'a> = &'a [(&'static str, &'a str)];
        use Credential::{Bearer, Signature, WriteKey};
        let malformed = ("x-signature", "sha1=09b3");
        let no_hex = format!("ZZ{}", &UNDER_OLD[2..]);
        let signed = ("x-signature", UNDER_OLD);
        let (token, wrong_token) =
            (("authorization", "Bearer token"), ("authorization", "Bearer wrong"));
        let (key, wrong_key) =
            (("authorization", "Basic a2V5Og=="), ("authorization", "Basic a2V4Og=="));
        let digest = ("authorization", "Digest username=u");
        // which kinds are configured, what is required, the head, why it is refused
        let all = &[Signature, Bearer, WriteKey][..];
        let table: [(&[Credential], &[Credential], Head<'_>, Doubt); 22] = [
            (all, &[], &[], Doubt::Nothing),
            (all, &[Bearer], &[], Doubt::Nothing),
            (all, &[], &[malformed], Doubt::Malformed),
            (all, &[], &[("x-signature", &no_hex)], Doubt::Malformed),
            (all, &[], &[malformed, wrong_token], Doubt::Malformed),
            (all, &[], &[wrong_token], Doubt::Wrong(Kind::Bearer)),
            (all, &[], &[wrong_key], Doubt::Wrong(Kind::Basic)),
            (all, &[], &[digest], Doubt::Unexpected(Kind::Other)),
            (&[Signature], &[], &[wrong_token], Doubt::Unexpected(Kind::Bearer)),
            (&[Signature], &[], &[wrong_key], Doubt::Unexpected(Kind::Basic)),
            (&[Bearer], &[], &[signed], Doubt::Unexpected(Kind::Signature)),
            (&[Bearer], &[], &[signed, wrong_token], Doubt::Wrong(Kind::Bearer)),
            (all, &[Signature], &[token], Doubt::Lacks(Signature)),
            (all, &[Signature], &[malformed, token], Doubt::Malformed),
            (all, &[Bearer], &[signed], Doubt::Lacks(Bearer)),
            (all, &[Bearer], &[signed, wrong_token], Doubt::Wrong(Kind::Bearer)),
            (all, &[Bearer], &[signed, key], Doubt::Lacks(Bearer)),
            (all, &[Bearer], &[digest], Doubt::Unexpected(Kind::Other)),
            (all, &[WriteKey], &[signed, token], Doubt::Lacks(WriteKey)),
            (all, &[WriteKey], &[wrong_key], Doubt::Wrong(Kind::Basic)),
            (all, &[WriteKey], &[digest], Doubt::Unexpected(Kind::Other)),
            (all, &[Signature, Bearer], &[token], Doubt::Lacks(Signature)),
        ];
        for (configured, require, head, expected) in table {
            let of = |kind, text: &str| {
                if configured.contains(&kind) { secrets(&[text]) } else { Vec::new() }
            };
            let gate = Gate::new(&Credentials {
                shared_secrets: of(Signature, "old"),
                bearer_tokens: of(Bearer, "token"),
                write_keys: of(WriteKey, "key"),
                require: require.to_vec(),
                allow_unauthenticated: false,
            });
            assert!(gate.inspect(&headers(head)).is_none(), "{head:?} waits for its body");
            assert_eq!(
                gate.doubt(&headers(head)),
                expected,
                "{configured:?}, {require:?}, {head:?}"
            );
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let credentials = Credentials {
            shared_secrets: secrets(&["sesame"]),
            bearer_tokens: secrets(&["sesame"]),
            ..Credentials::default()
        };
        let shown = format!("{credentials:?} {:?}", Gate::new(&credentials));
        assert!(shown.contains("Gate") && !shown.contains("sesame"), "{shown}");
    }
}
