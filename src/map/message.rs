//! Identifies the message of an event whose time depends on when it arrives.
//!
//! A repeated message says the same thing about the same member. What it says is therefore part of its
//! identity, so that a sender that reuses an id (a counter that restarts with its process) loses nothing.
//!
//! Saying twice in the same words that somebody enters can be intended, as they may have left in between, so
//! an event without a message id is not identified at all. A deletion may have been recorded by an attacker
//! who replays it with its signature: without an id it is identified by its text.

use std::borrow::Cow;

use serde_json::Value;
use sha1::{Digest, Sha1};

use super::coercion::number_text;
use crate::membership::{MembershipDelta, Message, MessageHash};

/// Segment's id of a message: unique, and unchanged when the message is sent again.
pub(super) const MESSAGE_ID: &str = "messageId";

/// A message that has an id, and whose event time depends on when it arrives, or may have done so before.
#[derive(Debug)]
pub(super) struct Named<'a> {
    pub(super) id: Cow<'a, str>,
    /// As in [`Message::moves`].
    pub(super) moves: bool,
}

impl Named<'_> {
    /// The message's identity for what it says about one member.
    pub(super) fn saying(&self, delta: &MembershipDelta) -> Message {
        let mut digest = Sha1::new().chain_update(b"change\0");
        for text in [&*self.id, delta.audience.as_str(), delta.context_key.as_str()] {
            digest.update((text.len() as u64).to_be_bytes());
            digest.update(text);
        }
        digest.update([u8::from(delta.membership.as_bool())]);
        Message { hash: shortened(digest), moves: self.moves }
    }
}

/// The event's message id, if it has one.
pub(super) fn id(event: &Value) -> Option<Cow<'_, str>> {
    match event.get(MESSAGE_ID)? {
        Value::String(id) => (!id.is_empty()).then_some(Cow::Borrowed(id)),
        Value::Number(number) => Some(Cow::Owned(number_text(number))),
        _ => None,
    }
}

/// Identified by its message id, else by the whole event, which is the same when it is posted again.
pub(super) fn hash_of_deletion(event: &Value) -> MessageHash {
    match id(event) {
        Some(id) => hash_of(b"id", &id),
        None => hash_of(b"event", &event.to_string()),
    }
}

fn hash_of(what: &[u8], text: &str) -> MessageHash {
    shortened(Sha1::new().chain_update(what).chain_update([0]).chain_update(text))
}

fn shortened(digest: Sha1) -> MessageHash {
    let digest = digest.finalize();
    let mut hash = [0; 16];
    hash.copy_from_slice(&digest[..16]);
    MessageHash(hash)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::map::Mapping;
    use crate::membership::Timestamp;

    #[test]
    fn a_message_is_its_id_and_a_deletion_without_one_all_that_it_says() {
        let same = [
            (json!({"messageId": "m", "sentAt": 1}), json!({"sentAt": 2, "messageId": "m"})),
            (json!({"a": 1}), json!({"a": 1})),
            (json!({"messageId": "", "a": 1}), json!({"messageId": "", "a": 1})),
            (json!({"messageId": 5, "a": 1}), json!({"messageId": 5, "a": 2})),
            (json!({"messageId": 5}), json!({"messageId": "5"})),
        ];
        for (one, other) in same {
            assert_eq!(hash_of_deletion(&one), hash_of_deletion(&other), "{one}");
        }
        let different = [
            (json!({"messageId": "m"}), json!({"messageId": "n"})),
            (json!({"messageId": "m"}), json!({"messageId": null})),
            (json!({"a": 1}), json!({"a": 2})),
            (json!({"messageId": 5}), json!({"messageId": 6})),
            (json!({"messageId": "{}"}), json!({})),
        ];
        for (one, other) in different {
            assert_ne!(hash_of_deletion(&one), hash_of_deletion(&other), "{one}");
        }
        for (named, expected) in [(json!("m"), "m"), (json!(5), "5"), (json!(0.5), "0.5")] {
            assert_eq!(id(&json!({"messageId": named})).as_deref(), Some(expected));
        }
        for nameless in [json!(null), json!(""), json!(true), json!(["m"]), json!({})] {
            assert_eq!(id(&json!({"messageId": nameless})), None, "{nameless}");
        }
        assert_eq!(id(&json!({"a": 1})), None);
    }

    #[test]
    fn an_id_that_is_used_again_is_another_message_if_it_says_something_else() {
        let delta = |user: &str, audience: &str, enters: bool| {
            let event = json!({
                "type": "identify", "userId": user, "traits": {"k": enters},
                "context": {"personas": {
                    "computation_class": "audience", "computation_id": audience, "computation_key": "k",
                }},
            });
            let delta = Mapping::preset().map(&event, Timestamp::EPOCH);
            delta.expect("it maps").expect("it is selected")
        };
        let said = |id: &'static str, delta: &MembershipDelta| {
            Named { id: id.into(), moves: true }.saying(delta).hash
        };
        let first = said("m", &delta("ada", "aud_1", true));
        assert_eq!(said("m", &delta("ada", "aud_1", true)), first);
        let others = [
            ("n", delta("ada", "aud_1", true)),
            ("m", delta("bob", "aud_1", true)),
            ("m", delta("ada", "aud_2", true)),
            ("m", delta("ada", "aud_1", false)),
            ("ma", delta("da", "aud_1", true)),
            ("m", delta("1ada", "aud_", true)),
        ];
        for (id, other) in others {
            assert_ne!(said(id, &other), first, "{id} {other:?}");
        }
    }
}
