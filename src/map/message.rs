//! Which message an event is, for those whose time depends on when they arrive.
//!
//! Who says twice in the same words that somebody enters may mean it: they may have left in between. So
//! that event has its message id or no name at all. A deletion may have been taken down by a stranger who
//! posts it again as it was signed: without an id it is known by its text.

use serde_json::Value;
use sha1::{Digest, Sha1};

use crate::membership::MessageHash;

/// Segment's id of a message: unique, and the same when it is sent again.
pub(super) const MESSAGE_ID: &str = "messageId";

/// By its message id, if it has one.
pub(super) fn hash(event: &Value) -> Option<MessageHash> {
    let id = event.get(MESSAGE_ID).and_then(Value::as_str);
    id.filter(|id| !id.is_empty()).map(hash_of_id)
}

/// By its message id, else by all that it says: posted again, it says the same.
pub(super) fn hash_of_deletion(event: &Value) -> MessageHash {
    hash(event).unwrap_or_else(|| hash_of(b"event", &event.to_string()))
}

/// By a message id that is not empty.
pub(super) fn hash_of_id(id: &str) -> MessageHash {
    hash_of(b"id", id)
}

fn hash_of(what: &[u8], text: &str) -> MessageHash {
    let digest = Sha1::new().chain_update(what).chain_update([0]).chain_update(text).finalize();
    let mut hash = [0; 16];
    hash.copy_from_slice(&digest[..16]);
    MessageHash(hash)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_its_id_and_a_deletion_without_one_all_that_it_says() {
        let same = [
            (json!({"messageId": "m", "sentAt": 1}), json!({"sentAt": 2, "messageId": "m"})),
            (json!({"a": 1}), json!({"a": 1})),
            (json!({"messageId": "", "a": 1}), json!({"messageId": "", "a": 1})),
        ];
        for (one, other) in same {
            assert_eq!(hash_of_deletion(&one), hash_of_deletion(&other), "{one}");
        }
        let different = [
            (json!({"messageId": "m"}), json!({"messageId": "n"})),
            (json!({"messageId": "m"}), json!({"messageId": null})),
            (json!({"a": 1}), json!({"a": 2})),
            (json!({"messageId": 5, "a": 1}), json!({"messageId": 5, "a": 2})),
            (json!({"messageId": "{}"}), json!({})),
        ];
        for (one, other) in different {
            assert_ne!(hash_of_deletion(&one), hash_of_deletion(&other), "{one}");
        }
        assert_eq!(hash(&json!({"messageId": "m"})), Some(hash_of_id("m")));
        for nameless in [json!({"a": 1}), json!({"messageId": ""}), json!({"messageId": 5})] {
            assert_eq!(hash(&nameless), None, "{nameless}");
        }
    }
}
