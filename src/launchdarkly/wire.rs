//! The body of a [synced-segment call](crate::design::launchdarkly::synced_segments), both to write and
//! to read, so that the sandbox's stand-in for LaunchDarkly reads what the client writes.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::membership::{AudienceId, ContextKey, ContextKind, Membership};

/// The route, below the base URL.
pub const PATH: &str = "/api/v2/segment-targets/segment-audiences";

/// The API version of the body below, sent in the header `LD-API-Version`.
pub const API_VERSION: &str = "20240415";

/// The `User-Agent` of every call.
pub const USER_AGENT: &str = concat!("cohortd/", env!("CARGO_PKG_VERSION"));

/// The body of a call. The fields are in the order in which Segment's hosted integration writes them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncRequest<'a> {
    /// The client-side ID, which identifies one project and environment.
    #[serde(borrow)]
    pub environment_id: Cow<'a, str>,
    /// The kind of every context in the batch.
    #[serde(borrow)]
    pub context_kind: Cow<'a, str>,
    /// One entry per member.
    #[serde(borrow)]
    pub batch: Vec<SyncMember<'a>>,
}

/// One context that enters or leaves one cohort.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyncMember<'a> {
    /// The context key.
    #[serde(borrow)]
    pub user_id: Cow<'a, str>,
    /// The display name of the segment.
    #[serde(borrow)]
    pub cohort_name: Cow<'a, str>,
    /// Segment's ID of the audience; LaunchDarkly derives the key of its segment from it.
    #[serde(borrow)]
    pub cohort_id: Cow<'a, str>,
    /// Whether the context is in the cohort.
    pub value: bool,
}

impl std::fmt::Debug for SyncMember<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // the context key is personal data
        f.debug_struct("SyncMember").field("cohort_id", &self.cohort_id).finish_non_exhaustive()
    }
}

/// Bytes of a body without its texts and members.
const BODY_FRAME_BYTES: usize = r#"{"environmentId":,"contextKind":,"batch":[]}"#.len();
/// Bytes of one member without its key, name and ID, but with the comma before it.
const MEMBER_FRAME_BYTES: usize = r#",{"userId":,"cohortName":,"cohortId":,"value":false}"#.len();

/// Upper bound of the bytes of a body without members, as [`encode`] writes it.
#[must_use]
pub fn body_bytes(client_side_id: &str, kind: &ContextKind) -> usize {
    BODY_FRAME_BYTES + text_bytes(client_side_id) + text_bytes(kind.as_str())
}

/// Upper bound of the bytes of a member in a body, without the [`text_bytes`] of its context key.
#[must_use]
pub fn member_bytes(audience: &AudienceId, segment_name: &str) -> usize {
    MEMBER_FRAME_BYTES + text_bytes(segment_name) + text_bytes(audience.as_str())
}

/// Upper bound of the bytes of a text as a JSON string: a quote or backslash takes two bytes, a control
/// character at most six.
#[must_use]
pub fn text_bytes(text: &str) -> usize {
    let control = text.bytes().filter(|byte| *byte < b' ').count();
    let quoted = text.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count();
    2 + text.len() + 5 * control + quoted
}

/// Writes the body of a call with `members` of one audience, as a [`SyncRequest`].
///
/// # Panics
/// Never: the JSON of text and booleans cannot fail to be written to memory.
#[must_use]
pub fn encode<'a>(
    client_side_id: &str,
    kind: &ContextKind,
    audience: &AudienceId,
    segment_name: &str,
    members: impl ExactSizeIterator<Item = (&'a ContextKey, Membership)> + Clone,
) -> Bytes {
    // Allocated once, unless many characters of the keys are escaped: growing would copy the body and
    // double its memory.
    let keys: usize = members.clone().map(|(key, _)| key.as_str().len() + 2).sum();
    let beside_keys = members.len() * member_bytes(audience, segment_name);
    let mut body = Vec::with_capacity(body_bytes(client_side_id, kind) + beside_keys + keys);
    put(&mut body, br#"{"environmentId":"#, client_side_id);
    put(&mut body, br#","contextKind":"#, kind.as_str());
    body.extend_from_slice(br#","batch":["#);
    // The same for every member, so it is encoded once.
    let mut audience_of_all = Vec::new();
    put(&mut audience_of_all, br#","cohortName":"#, segment_name);
    put(&mut audience_of_all, br#","cohortId":"#, audience.as_str());
    for (position, (key, membership)) in members.enumerate() {
        let begin: &[u8] = if position == 0 { br#"{"userId":"# } else { br#",{"userId":"# };
        put(&mut body, begin, key.as_str());
        body.extend_from_slice(&audience_of_all);
        let end: &[u8] =
            if membership.as_bool() { br#","value":true}"# } else { br#","value":false}"# };
        body.extend_from_slice(end);
    }
    body.extend_from_slice(b"]}");
    body.into()
}

/// Appends `before`, then `text` as a JSON string.
fn put(body: &mut Vec<u8>, before: &[u8], text: &str) {
    body.extend_from_slice(before);
    serde_json::to_writer(body, text).expect("text is always JSON");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> ContextKey {
        ContextKey::new(text).expect("test keys are not empty")
    }

    fn body(members: &[(&ContextKey, Membership)]) -> Bytes {
        encode(
            "env1",
            &ContextKind::new("user").expect("user is a context kind"),
            &AudienceId::new("aud_1").expect("not empty"),
            "High value users",
            members.iter().copied(),
        )
    }

    #[test]
    fn a_body_is_written_as_the_hosted_integration_writes_it() {
        let (ada, odd) = (key("ada"), key("q\"\u{1F600}\n"));
        let written = body(&[(&ada, Membership::In), (&odd, Membership::Out)]);
        assert_eq!(
            std::str::from_utf8(&written).expect("JSON is UTF-8"),
            concat!(
                r#"{"environmentId":"env1","contextKind":"user","batch":["#,
                r#"{"userId":"ada","cohortName":"High value users","cohortId":"aud_1","value":true},"#,
                r#"{"userId":"q\""#,
                "\u{1F600}",
                r#"\n","cohortName":"High value users","cohortId":"aud_1","value":false}]}"#
            )
        );
    }

    /// Each row has the texts of a body with two members and by how many bytes it is overestimated: one
    /// for each `true`, one for the comma before the first member, and more for short escapes.
    #[test]
    fn a_body_is_no_larger_than_it_is_counted() {
        let rows = [
            (["env1", "aud_1", "High value users", "ada", "bob"], 2),
            (["e\"1", "a\\1", "\u{1F600}", "ж", "\u{7f}\u{2028}"], 2),
            (["env1", "aud_1", "n", "\u{0}", "\u{1f}"], 2),
            (["env1", "aud_1", "n", "\n\t", "b"], 10),
        ];
        let kind = ContextKind::new("user").expect("user is a context kind");
        for ([environment, audience, name, one, other], too_much) in rows {
            let audience = AudienceId::new(audience).expect("not empty");
            let members = [(key(one), Membership::In), (key(other), Membership::Out)];
            let given = members.iter().map(|(key, membership)| (key, *membership));
            let written = encode(environment, &kind, &audience, name, given).len();
            let of = |(key, _): &(ContextKey, Membership)| {
                member_bytes(&audience, name) + text_bytes(key.as_str())
            };
            let counted = body_bytes(environment, &kind) + members.iter().map(of).sum::<usize>();
            assert_eq!(counted - written, too_much, "{environment} {name} {one} {other}");
        }
    }

    #[test]
    fn what_is_written_can_be_read_back_and_is_not_printed() {
        let ada = key("ada@example.com");
        let written = body(&[(&ada, Membership::In)]);
        let read: SyncRequest<'_> = serde_json::from_slice(&written).expect("our own words");
        assert_eq!(read.batch[0].user_id, "ada@example.com");
        assert!(read.batch[0].value);
        assert!(!format!("{read:?}").contains("ada"));
    }
}
