//! The meaning of an answer: a pure function of status, headers and body, so that the reaction table of
//! [answers](crate::design::launchdarkly::answers) can be read, and tested, as a table.

use std::fmt;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::limits::RateLimits;

use crate::json;

/// The result of one call.
#[derive(Debug)]
pub struct Answer {
    /// What it means for the batch.
    pub outcome: Outcome,
    /// The rate limits in its headers; empty if there was no answer.
    pub limits: RateLimits,
    /// The status, if there was an answer.
    pub status: Option<u16>,
}

/// What an answer means for the batch: one variant per reaction, not per status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 2xx: LaunchDarkly has the batch.
    Taken,
    /// 400, 422: LaunchDarkly will never take some member, or the whole body.
    Refused(Refusal),
    /// 401, and 403 with a message about the token: nothing will be taken until somebody changes it.
    TokenRefused(Refusal),
    /// 401 with a message about permissions, and any other 403: the token is valid, but its role does
    /// not allow the call.
    NotPermitted(Refusal),
    /// 401, 403 with a message about an approval: segment changes require one, unless the role has the
    /// action `bypassRequiredSegmentApproval`.
    ApprovalRequired(Refusal),
    /// 404: nothing will be taken until somebody corrects the client-side ID or the base URL.
    UnknownEnvironment(Refusal),
    /// 409: something else changed the segment at the same time; if it lasts, something that a person
    /// must resolve.
    Conflict(Refusal),
    /// 413: a smaller batch may be taken.
    TooLarge(Refusal),
    /// 429: the same batch may be taken later.
    RateLimited {
        /// How long to wait at least; `None` if the answer has no `Retry-After`: then the windows in
        /// [`Answer::limits`] tell.
        retry_after: Option<Duration>,
        /// LaunchDarkly's error.
        refusal: Refusal,
    },
    /// No answer, an answer that is not LaunchDarkly's, or an outage: the same bytes may be taken
    /// later.
    Unavailable {
        /// Why, for operators: contains no token, key or URL.
        cause: String,
        /// Whether the call may still be applied.
        fate: Fate,
        /// The error in the answer, if there was an answer with one.
        refusal: Option<Refusal>,
    },
    /// Any other 4xx. Its meaning is unknown, so nothing may be parked for it: the destination is held,
    /// as for a refused token.
    Unexpected(Refusal),
}

impl Outcome {
    /// Whether every call would get this answer until somebody corrects the configuration or the
    /// account.
    #[must_use]
    pub fn is_of_the_destination(&self) -> bool {
        matches!(
            self,
            Self::TokenRefused(_)
                | Self::NotPermitted(_)
                | Self::ApprovalRequired(_)
                | Self::UnknownEnvironment(_)
                | Self::Unexpected(_)
        )
    }

    /// LaunchDarkly's error, if there was an answer that took nothing.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Taken => None,
            Self::Unavailable { refusal, .. } => refusal.as_ref(),
            Self::Refused(refusal)
            | Self::TokenRefused(refusal)
            | Self::NotPermitted(refusal)
            | Self::ApprovalRequired(refusal)
            | Self::UnknownEnvironment(refusal)
            | Self::Conflict(refusal)
            | Self::TooLarge(refusal)
            | Self::RateLimited { refusal, .. }
            | Self::Unexpected(refusal) => Some(refusal),
        }
    }
}

/// Whether a call that was not taken may still be applied *after* a later call of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It cannot: it never reached LaunchDarkly, or LaunchDarkly has answered it.
    Over,
    /// It may: there was no answer, so the call may still be under way and be applied after its
    /// successor.
    Open,
}

/// LaunchDarkly's error for a call that it did not take.
///
/// `code` and `id` are kept only if they look like identifiers, so they may be logged. The message may
/// quote what we sent: it is for operators who look at a parked member, and is not part of `Debug`
/// ([P8](crate::design::P8)).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// LaunchDarkly's error code; may be empty.
    pub code: String,
    /// LaunchDarkly's ID of the answer, which its support asks for; may be empty.
    pub id: String,
    message: String,
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusal")
            .field("status", &self.status)
            .field("code", &self.code)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The longest message that is kept, in bytes.
const MESSAGE_BYTES: usize = 1024;
/// The longest code or id that is kept, in bytes.
const IDENTIFIER_BYTES: usize = 128;

impl Refusal {
    /// LaunchDarkly's message. May contain personal data: show it to operators, never log it.
    #[must_use]
    pub fn message_with_personal_data(&self) -> &str {
        &self.message
    }

    /// Reads `{"code","message","id"}`; a body of another shape becomes the message.
    fn read(status: StatusCode, body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct ErrorBody {
            #[serde(default)]
            code: serde_json::Value,
            #[serde(default)]
            message: serde_json::Value,
            #[serde(default)]
            id: serde_json::Value,
        }
        let status = status.as_u16();
        match json::from_slice(body) {
            Ok(ErrorBody { code, message, id }) => Self {
                status,
                code: identifier(&code),
                id: identifier(&id),
                message: shortened(message.as_str().unwrap_or_default()),
            },
            Err(_) => Self {
                status,
                message: shortened(String::from_utf8_lossy(body).trim()),
                ..Self::default()
            },
        }
    }
}

fn identifier(value: &serde_json::Value) -> String {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_-.:".contains(&b);
    match value.as_str() {
        Some(text) if text.len() <= IDENTIFIER_BYTES && text.bytes().all(allowed) => text.into(),
        _ => String::new(),
    }
}

fn shortened(text: &str) -> String {
    let mut end = text.len().min(MESSAGE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// The meaning of a 401 or 403, which LaunchDarkly uses for several faults: code and message tell
/// them apart.
fn unauthorized(refusal: Refusal) -> Outcome {
    const OF_THE_TOKEN: [&str; 5] = ["expired", "revoked", "invalid", "unknown", "not found"];
    const OF_RIGHTS: [&str; 8] = [
        "permission",
        "permitted",
        "denied",
        "not allowed",
        "not authorized",
        "not authorised",
        "rights",
        "forbidden",
    ];
    let words = format!("{} {}", refusal.code, refusal.message).to_ascii_lowercase();
    let says = |any: &[&str]| any.iter().any(|word| words.contains(word));
    if words.contains("approval") {
        Outcome::ApprovalRequired(refusal)
    } else if refusal.message.to_ascii_lowercase().contains("token") && says(&OF_THE_TOKEN) {
        Outcome::TokenRefused(refusal)
    } else if refusal.status == 403 || says(&OF_RIGHTS) {
        Outcome::NotPermitted(refusal)
    } else {
        Outcome::TokenRefused(refusal)
    }
}

/// Whether the body of an answer with this status has a meaning.
pub(super) fn body_matters(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// Tells what an answer means. `body` may be cut off; it matters for a 4xx or 5xx only.
///
/// ```
/// use cohortd::launchdarkly::{Outcome, classify};
/// use http::{HeaderMap, StatusCode};
///
/// let taken = classify(StatusCode::NO_CONTENT, &HeaderMap::new(), b"");
/// assert_eq!(taken.outcome, Outcome::Taken);
///
/// let body = br#"{"code":"forbidden","message":"approval is required","id":"7"}"#;
/// let refused = classify(StatusCode::FORBIDDEN, &HeaderMap::new(), body);
/// assert!(matches!(refused.outcome, Outcome::ApprovalRequired(_)));
/// ```
#[must_use]
pub fn classify(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Answer {
    let limits = RateLimits::read(headers);
    let refusal = || Refusal::read(status, body);
    let unavailable = |fate, cause: String| {
        let refusal = body_matters(status).then(refusal);
        Outcome::Unavailable { cause, fate, refusal }
    };
    let outcome = match status.as_u16() {
        // a login page of some proxy or portal, not LaunchDarkly
        code @ 200..300 if is_html(headers) => unavailable(
            Fate::Over,
            format!("answered {code} with a web page: this is not LaunchDarkly's API"),
        ),
        200..300 => Outcome::Taken,
        code @ 300..400 => {
            unavailable(Fate::Over, format!("answered {code}, a redirect, which is never followed"))
        }
        400 | 422 => Outcome::Refused(refusal()),
        401 | 403 => unauthorized(refusal()),
        404 => Outcome::UnknownEnvironment(refusal()),
        409 => Outcome::Conflict(refusal()),
        413 => Outcome::TooLarge(refusal()),
        429 => Outcome::RateLimited { retry_after: limits.retry_after, refusal: refusal() },
        code @ (408 | 425) => unavailable(Fate::Over, format!("answered {code}")),
        400..500 => Outcome::Unexpected(refusal()),
        // a gateway's word that it did not hear from the server behind it (52x: Cloudflare's)
        code @ (502 | 504 | 520 | 524) => unavailable(Fate::Open, format!("answered {code}")),
        code @ 500..600 => unavailable(Fate::Over, format!("answered {code}")),
        code => unavailable(Fate::Open, format!("answered {code}, which is not a final status")),
    };
    Answer { outcome, limits, status: Some(status.as_u16()) }
}

fn is_html(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    value.get(..9).is_some_and(|start| start.eq_ignore_ascii_case(b"text/html"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    /// The reaction table of [answers](crate::design::launchdarkly::answers), by name of the reaction.
    #[test]
    fn every_status_has_its_reaction() {
        let (destination, batch) = (true, false);
        // statuses, reaction, and whether every call of the destination would get that answer
        let table: [(&[u16], &str, bool); 13] = [
            (&[200, 201, 202, 204, 299], "taken", batch),
            (&[300, 301, 302, 304, 307, 308, 399], "unavailable, over", batch),
            (&[400, 422], "refused", batch),
            (&[401], "token refused", destination),
            (&[403], "not permitted", destination),
            (&[404], "unknown environment", destination),
            (&[409], "conflict", batch),
            (&[413], "too large", batch),
            (&[429], "rate limited", batch),
            (&[408, 425], "unavailable, over", batch),
            (
                &[402, 405, 406, 407, 410, 411, 412, 414, 415, 418, 426, 451, 499],
                "unexpected",
                destination,
            ),
            (&[500, 501, 503, 505, 507, 521, 599], "unavailable, over", batch),
            (&[100, 101, 502, 504, 520, 524, 600, 999], "unavailable, open", batch),
        ];
        for (statuses, expected, is_of_the_destination) in table {
            for &code in statuses {
                let status = StatusCode::from_u16(code).expect("100 to 999 are statuses");
                let answer = classify(status, &HeaderMap::new(), b"");
                assert_eq!(answer.outcome.is_of_the_destination(), is_of_the_destination, "{code}");
                let reaction = match answer.outcome {
                    Outcome::Taken => "taken",
                    Outcome::Refused(_) => "refused",
                    Outcome::TokenRefused(_) => "token refused",
                    Outcome::NotPermitted(_) => "not permitted",
                    Outcome::ApprovalRequired(_) => "approval required",
                    Outcome::UnknownEnvironment(_) => "unknown environment",
                    Outcome::Conflict(_) => "conflict",
                    Outcome::TooLarge(_) => "too large",
                    Outcome::RateLimited { .. } => "rate limited",
                    Outcome::Unavailable { fate: Fate::Over, .. } => "unavailable, over",
                    Outcome::Unavailable { fate: Fate::Open, .. } => "unavailable, open",
                    Outcome::Unexpected(_) => "unexpected",
                };
                assert_eq!(reaction, expected, "{code}");
                assert_eq!(answer.status, Some(code));
            }
        }
    }

    #[test]
    fn a_web_page_is_not_launchdarkly() {
        for (content_type, taken) in [
            ("text/html", false),
            ("Text/HTML; charset=utf-8", false),
            ("application/json", true),
            ("text/plain", true),
            ("text", true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            let outcome = classify(StatusCode::OK, &headers, b"").outcome;
            assert_eq!(outcome == Outcome::Taken, taken, "{content_type}");
        }
    }

    #[test]
    fn a_rate_limit_says_how_long() {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", HeaderValue::from_static("7"));
        let answer = classify(StatusCode::TOO_MANY_REQUESTS, &headers, b"");
        let retry_after = Some(Duration::from_secs(7));
        let Outcome::RateLimited { retry_after: told, .. } = answer.outcome else { panic!() };
        assert_eq!(told, retry_after);
        assert_eq!(answer.limits.retry_after, retry_after);
    }

    #[test]
    fn the_words_of_a_refusal_are_read_from_any_body() {
        let long = "é".repeat(5000);
        let long_body = format!(r#"{{"code":"{long}","message":"{long}","id":"{long}"}}"#);
        let cut = "é".repeat(MESSAGE_BYTES / 2);
        let table: [(&[u8], [&str; 3]); 9] = [
            (
                br#"{"code":"invalid_request","message":"no","id":"a-1"}"#,
                ["invalid_request", "no", "a-1"],
            ),
            (br#"{"message":"no"}"#, ["", "no", ""]),
            (br#"{"code":7,"message":null,"id":["x"]}"#, ["", "", ""]),
            (br#"{"code":"ada@example.com","id":"a b"}"#, ["", "", ""]),
            (b"{}", ["", "", ""]),
            (b"", ["", "", ""]),
            (b" Unauthorized\n", ["", "Unauthorized", ""]),
            (b"\xff\xfe", ["", "\u{fffd}\u{fffd}", ""]),
            (long_body.as_bytes(), ["", &cut, ""]),
        ];
        for (body, [code, message, id]) in table {
            let refusal = Refusal::read(StatusCode::BAD_REQUEST, body);
            assert_eq!(refusal.status, 400);
            assert_eq!(refusal.code, code);
            assert_eq!(refusal.id, id);
            assert_eq!(refusal.message_with_personal_data(), message);
        }
    }

    #[test]
    fn a_long_message_is_cut_before_a_character_that_does_not_fit() {
        let table = [
            ("x".repeat(1024), 1024),
            ("x".repeat(1025), 1024),
            (format!("x{}", "é".repeat(600)), 1023),
            (format!("x{}", "🦀".repeat(300)), 1021),
        ];
        for (message, kept) in table {
            let refusal = Refusal::read(StatusCode::BAD_REQUEST, message.as_bytes());
            assert_eq!(refusal.message_with_personal_data(), &message[..kept]);
        }
    }

    #[test]
    fn the_words_tell_a_bad_token_from_missing_rights_and_from_an_approval() {
        let table = [
            (401, "unauthorized", "Invalid access token", "token_refused"),
            (401, "unauthorized", "", "token_refused"),
            (401, "", "Unauthorized", "token_refused"),
            (401, "unauthorized", "the token has expired", "token_refused"),
            (403, "forbidden", "invalid token", "token_refused"),
            (401, "unauthorized", "You do not have permission for this call", "not_permitted"),
            (401, "unauthorized", "access denied to proj/*:env/*:segment/*", "not_permitted"),
            (401, "unauthorized", "token not authorized to updateIncluded", "not_permitted"),
            (403, "forbidden", "this token is not allowed to createSegment", "not_permitted"),
            (403, "", "", "not_permitted"),
            (403, "forbidden", "approval is required", "approval_required"),
            (403, "forbidden", "Approval is required.", "approval_required"),
            (401, "approval_required", "", "approval_required"),
        ];
        for (status, code, message, expected) in table {
            let body = format!(r#"{{"code":"{code}","message":"{message}","id":"a-1"}}"#);
            let status = StatusCode::from_u16(status).expect("a status");
            let outcome = classify(status, &HeaderMap::new(), body.as_bytes()).outcome;
            let reaction = match outcome {
                Outcome::TokenRefused(_) => "token_refused",
                Outcome::NotPermitted(_) => "not_permitted",
                Outcome::ApprovalRequired(_) => "approval_required",
                ref other => panic!("{other:?}"),
            };
            assert_eq!(reaction, expected, "{status} {code} {message}");
            assert!(outcome.is_of_the_destination());
        }
    }

    #[test]
    fn every_answer_that_took_nothing_keeps_its_words() {
        let body = br#"{"code":"some_code","message":"some words","id":"a-1"}"#;
        for code in (400..600).chain([600]) {
            let status = StatusCode::from_u16(code).expect("a status");
            let outcome = classify(status, &HeaderMap::new(), body).outcome;
            let kept = outcome.refusal().map(|kept| (&kept.code[..], &kept.id[..], kept.status));
            assert_eq!(kept, (code < 600).then_some(("some_code", "a-1", code)), "{code}");
        }
    }

    #[test]
    fn the_message_is_not_printed() {
        let body = br#"{"code":"bad","message":"ada@example.com is odd","id":"a-1"}"#;
        let printed = format!("{:?}", classify(StatusCode::BAD_REQUEST, &HeaderMap::new(), body));
        assert!(printed.contains("a-1") && !printed.contains("ada"), "{printed}");
    }
}
