//! The parts of LaunchDarkly's error answers that may be shown in a log or a status
//! ([P8](crate::design::P8)). Pure ([P9](crate::design::P9)).

use crate::launchdarkly::{Outcome, Refusal};
use crate::membership::ContextKey;

/// What an answer that took nothing said, without personal data; each text may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// LaunchDarkly's error code.
    pub code: String,
    /// Its message, unless the message may quote what was sent.
    pub message: String,
    /// Its `id` of the answer, which LaunchDarkly's support asks for.
    pub answer_id: String,
}

/// A longer message is unlikely to be a single sentence, and may be cut off.
const LONGEST: usize = 300;

impl Words {
    /// From the answer to a call with these members; empty if the call was taken or not answered.
    pub(super) fn of<'a>(
        outcome: &Outcome,
        members: impl IntoIterator<Item = &'a ContextKey>,
    ) -> Self {
        let Some(refusal) = outcome.refusal() else { return Self::default() };
        Self {
            code: refusal.code.clone(),
            message: message_to_show(refusal, members),
            answer_id: refusal.id.clone(),
        }
    }
}

/// The message if it is safe to show, else an empty string. It is safe if it can only be a short
/// sentence about the call: no context key that was sent (in any case), no e-mail address, no markup as
/// in a proxy's error page, no control character, and not too long.
fn message_to_show<'a>(
    refusal: &Refusal,
    sent: impl IntoIterator<Item = &'a ContextKey>,
) -> String {
    let message = refusal.message_with_personal_data();
    let may_quote = message.len() > LONGEST
        || message.contains('@')
        || message.contains("%40")
        || message.contains('<')
        || message.chars().any(char::is_control);
    if message.is_empty() || may_quote {
        return String::new();
    }
    let folded = message.to_lowercase();
    let is_quoted = |key: &ContextKey| {
        message.contains(key.as_str()) || folded.contains(&key.as_str().to_lowercase())
    };
    if sent.into_iter().any(is_quoted) { String::new() } else { message.to_owned() }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::launchdarkly::classify;

    #[test]
    fn a_message_is_shown_unless_it_may_quote_what_was_sent() {
        let (long, longest) = ("x".repeat(LONGEST + 1), "x".repeat(LONGEST));
        let cases = [
            ("a sentence", "a segment with this key exists", &["ada", "bob"][..], true),
            ("no members", "approval is required", &[], true),
            ("a key", "userId ada is odd", &["bob", "ada"], false),
            ("a key in other case", "userId ADA is odd", &["bob", "ada"], false),
            ("a key that was sent in upper case", "userId ada is odd", &["ADA"], false),
            ("a part of a word", "cannot be adapted", &["ada"], false),
            ("somebody's address", "owned by eve@example.com", &["ada"], false),
            ("an encoded address", "eve%40example.com", &["ada"], false),
            ("a page", "<h1>Bad gateway</h1>", &["ada"], false),
            ("more than a line", "one\ntwo", &["ada"], false),
            ("too long", &long, &["ada"], false),
            ("as long as may be", &longest, &["ada"], true),
        ];
        for (case, message, sent, is_shown) in cases {
            let body = serde_json::json!({"code": "c", "message": message, "id": "a-1"});
            let status = StatusCode::CONFLICT;
            let outcome = classify(status, &HeaderMap::new(), body.to_string().as_bytes()).outcome;
            let sent: Vec<ContextKey> =
                sent.iter().map(|key| ContextKey::new(key).expect("not empty")).collect();
            let expected = Words {
                code: "c".to_owned(),
                message: if is_shown { message.to_owned() } else { String::new() },
                answer_id: "a-1".to_owned(),
            };
            assert_eq!(Words::of(&outcome, &sent), expected, "{case}");
        }
        assert_eq!(Words::of(&Outcome::Taken, &[]), Words::default());
    }
}
