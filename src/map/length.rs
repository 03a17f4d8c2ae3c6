//! Limits on the length of texts of an event that are stored with every member or audience
//! ([P6](crate::design::P6)).
//!
//! An event that exceeds a limit is rejected, since a truncated text would identify somebody else. Members
//! and audiences that an older version recorded with longer texts stay as they are, and a deletion finds its
//! person however long the user id is.

/// Most bytes of a context key, and of a user id. LaunchDarkly documents no limit, and the hosted integration
/// is recorded to deliver 5,000 bytes; an email address has at most 254. A longer text is data in the wrong
/// place, not an id.
pub(super) const KEY_BYTES: usize = 8 * 1024;

/// Most bytes of an audience's id, of its key and of its context kind. LaunchDarkly recommends 128 characters
/// for a `cohortId`, and the hosted integration is recorded to deliver 2,004 bytes. All three are held in
/// memory for each audience, and a call repeats id and name for every member.
pub(super) const NAME_BYTES: usize = 2 * 1024;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::map::{Mapping, Mappings, Outcome};
    use crate::membership::Timestamp;

    const ARRIVAL: Timestamp = Timestamp(1_750_000_000_000_000);

    fn event(pointer: &str, text: &str) -> Value {
        let mut event = json!({
            "type": "identify", "userId": "ada", "anonymousId": "a-1",
            "timestamp": "2025-06-15T12:00:00Z",
            "traits": {"vip": true, "email": "ada@example.com"},
            "context": {"personas": {
                "computation_class": "audience", "computation_id": "aud_1", "computation_key": "vip",
            }},
        });
        *event.pointer_mut(pointer).expect("a pointer into the sample") = text.into();
        event["traits"][text] = true.into(); // so that a long audience key finds its value
        event
    }

    fn with(rule: &str) -> Mappings {
        let mut mapping = Mapping::preset();
        mapping.set_field("context_key", &json!(rule)).expect("a rule");
        mapping.into()
    }

    /// The result of reading an event on the fast and on the slow path: `None`, or why it is rejected.
    fn outcome(mappings: &Mappings, event: &Value) -> Option<String> {
        let plain = mappings.map_plain(event.to_string().as_bytes(), ARRIVAL);
        match mappings.map(event, ARRIVAL) {
            Outcome::Accepted { deltas, rejection: None, .. } => {
                assert_eq!(plain.as_ref(), deltas.first(), "{event}");
                None
            }
            Outcome::Rejected(rejection) => {
                assert_eq!(plain, None, "{event}");
                Some(rejection.to_string())
            }
            other => panic!("{event} gave {other:?}"),
        }
    }

    #[test]
    fn a_text_at_its_limit_passes_and_one_byte_more_is_rejected() {
        let rows = [
            ("user_id_only", "/userId", KEY_BYTES, "segment_user_id", "$.userId"),
            ("email_only", "/userId", KEY_BYTES, "userId", "$.userId"),
            (
                "email_only",
                "/traits/email",
                KEY_BYTES,
                "user_email",
                "$.traits.email, else $.context.traits.email",
            ),
            (
                "user_id_only",
                "/context/personas/computation_id",
                NAME_BYTES,
                "segment_audience_id",
                "$.context.personas.computation_id",
            ),
            (
                "user_id_only",
                "/context/personas/computation_key",
                NAME_BYTES,
                "segment_audience_key",
                "$.context.personas.computation_key",
            ),
        ];
        for (rule, pointer, most, field, from) in rows {
            for letter in ["x", "ж", "\u{1F600}"] {
                let mappings = with(rule);
                let longest = letter.repeat(most / letter.len());
                assert_eq!(outcome(&mappings, &event(pointer, &longest)), None, "{rule} {pointer}");
                let said = outcome(&mappings, &event(pointer, &format!("{longest}x")));
                let expected = format!(
                    "field_too_long: {field} is longer than the limit of {most} bytes ({from}): \
                     shorten it where it is set, or map another field."
                );
                assert_eq!(said, Some(expected), "{rule} {pointer}");
            }
        }
    }

    #[test]
    fn what_is_not_kept_may_be_long() {
        let long = "x".repeat(KEY_BYTES + 1);
        let by_user = with("user_id_only");
        for pointer in ["/anonymousId", "/traits/email"] {
            assert_eq!(outcome(&by_user, &event(pointer, &long)), None, "{pointer}");
        }
        // A deletion is never refused: its person may be in a ledger that accepted longer ids.
        let deletion = json!({"type": "delete", "userId": long});
        assert!(matches!(by_user.map(&deletion, ARRIVAL), Outcome::Deletion(_)));
    }

    #[test]
    fn a_kind_from_the_event_is_no_longer_than_a_name() {
        let mut mapping = Mapping::preset();
        mapping.set_field("context_kind", &json!({"@path": "$.anonymousId"})).expect("a path");
        let mappings = Mappings::from(mapping);
        for (bytes, is_taken) in [(NAME_BYTES, true), (NAME_BYTES + 1, false)] {
            let event = event("/anonymousId", &"k".repeat(bytes));
            let taken = matches!(mappings.map(&event, ARRIVAL), Outcome::Accepted { .. });
            assert_eq!(taken, is_taken, "{bytes}");
        }
    }
}
