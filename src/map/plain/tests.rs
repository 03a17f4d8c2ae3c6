use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::*;
use crate::json::exact::Exact;
use crate::map::{AudienceOverride, AudienceRules, Glob, Mappings, Outcome, Subscription};

const ARRIVAL: Timestamp = Timestamp(1_741_850_595_000_000);

/// Values to put where a text, a flag, an object or a time is expected.
const VALUES: [&str; 31] = [
    "null",
    "true",
    "false",
    "\"\"",
    "\"ada\"",
    "\"a\\u0064a\"",
    "\"\\ud83d\\ude00\"",
    "\"\\ud800\"",
    "\"{{userId}\"",
    "\"ada}}\"",
    "\"true\"",
    "\"vip\"",
    "\"identify\"",
    "\"track\"",
    "\"audience\"",
    "\"journey_step\"",
    "\"2025-03-13T07:23:14Z\"",
    "\"2025-03-13T09:23:14Z\"",
    "\"2025-03-13 07:23:14 UTC\"",
    "\"Thu, 13 Mar 2025 07:23:14 GMT\"",
    "\"1970-01-01T00:00:00Z\"",
    "\"1741850594\"",
    "1741850594",
    "1741850594029",
    "117000000000000000001",
    "7",
    "1e999",
    "[\"ada\"]",
    "[]",
    "{}",
    "{\"vip\":true,\"email\":\"eve@example.com\",\"vip\":\"x\",\"b\":[{\"c\":null}]}",
];

const USUAL: [(&str, &str); 9] = [
    ("type", "\"identify\""),
    ("userId", "\"ada\""),
    ("anonymousId", "\"anon-1\""),
    ("timestamp", "\"2025-03-13T07:23:14Z\""),
    ("receivedAt", "\"2025-03-13T07:23:15Z\""),
    (
        "context.personas",
        "{\"computation_class\":\"audience\",\"computation_id\":\"aud_1\",\"computation_key\":\"vip\"}",
    ),
    ("context.traits", "{\"email\":\"ada@example.com\"}"),
    ("traits", "{\"vip\":true,\"email\":\"ada@example.com\"}"),
    ("messageId", "\"m\""),
];

/// The usual event with some members replaced, left out, repeated or added.
fn events() -> impl Strategy<Value = String> {
    let paths = vec![
        "type",
        "userId",
        "anonymousId",
        "timestamp",
        "originalTimestamp",
        "receivedAt",
        "sentAt",
        "context.personas",
        "context.traits",
        "context.personas.computation_class",
        "context.personas.computation_id",
        "context.personas.computation_key",
        "traits",
        "traits.vip",
        "traits.email",
        "properties",
        "properties.vip",
        "context.ip",
        "messageId",
    ];
    let change = (select(paths), proptest::option::weighted(0.8, select(VALUES.to_vec())));
    let changes = proptest::collection::vec(change, 0..4);
    (changes, any::<prop::sample::Index>(), select(vec!["", " ", "\n"])).prop_map(
        |(changes, turn, space)| {
            let mut root = Node::default();
            for (path, json) in USUAL {
                root.set(path, Some(json));
            }
            for (path, json) in changes {
                root.set(path, json);
            }
            let at = turn.index(root.members.len());
            root.members.rotate_left(at);
            root.text(space)
        },
    )
}

/// A JSON object that may contain a key twice.
#[derive(Default)]
struct Node {
    members: Vec<(String, Result<Node, String>)>,
}

impl Node {
    fn set(&mut self, path: &str, json: Option<&str>) {
        let (key, rest) =
            path.split_once('.').map_or((path, None), |(key, rest)| (key, Some(rest)));
        let found = self.members.iter_mut().rev().find(|(name, _)| name == key);
        match (rest, found, json) {
            (Some(rest), Some((_, Ok(below))), json) => below.set(rest, json),
            (Some(_), Some((_, Err(_))), None) => {}
            (Some(rest), _, json) => {
                let mut below = Self::default();
                below.set(rest, json);
                self.members.push((key.to_owned(), Ok(below)));
            }
            // A replaced value stays in front of the new one, so that the key is repeated.
            (None, _, Some(json)) => self.members.push((key.to_owned(), Err(json.to_owned()))),
            (None, _, None) => self.members.retain(|(name, _)| name != key),
        }
    }

    fn text(&self, space: &str) -> String {
        let members = self.members.iter().map(|(key, value)| {
            let value = match value {
                Ok(below) => below.text(space),
                Err(json) => json.clone(),
            };
            format!("{space}\"{key}\":{space}{value}{space}")
        });
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    }
}

/// Mappings that the fast path can handle.
fn mappings() -> Vec<Mappings> {
    let with = |kind: &str, rule: &str, audiences: AudienceRules| {
        let mut mapping = Mapping::preset();
        mapping.set_field("context_kind", &json!(kind)).expect("a field");
        mapping.set_field("context_key", &json!(rule)).expect("a field");
        mapping.set_audiences(audiences);
        Mappings::from(mapping)
    };
    let particular = AudienceOverride {
        context_kind: ContextKind::new("device"),
        context_key: Some(ContextKeyRule::UserIdThenAnonymousId),
    };
    let overrides = [("vip".to_owned(), particular)].into();
    let denied = vec![Glob::new("v*").expect("a glob")];
    vec![
        Mappings::from(Mapping::preset()),
        with("account", "email_only", AudienceRules::default()),
        with("user", "user_id_then_email", AudienceRules::default()),
        with("user", "user_id_only", AudienceRules { overrides, ..AudienceRules::default() }),
        with("user", "user_id_only", AudienceRules { deny: denied, ..AudienceRules::default() }),
    ]
}

fn whole(mappings: &Mappings, text: &str) -> Option<Outcome> {
    let event = Exact::read(text.as_bytes()).ok()?;
    Some(mappings.map(&event, ARRIVAL))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..crate::seeds::kept_in("tests/seeds/plain.txt") })]

    #[test]
    fn both_ways_agree(text in events()) {
        for mappings in mappings() {
            if let Some(delta) = mappings.map_plain(text.as_bytes(), ARRIVAL) {
                let expected = Outcome::Accepted { deltas: vec![delta], rejection: None };
                prop_assert_eq!(whole(&mappings, &text), Some(expected), "{}", text);
            }
        }
    }
}

#[test]
fn usual_events_are_read_in_the_plain_way() {
    let identify = |changes: &[(&str, &str)]| {
        let mut root = Node::default();
        USUAL.iter().chain(changes).for_each(|(path, json)| root.set(path, Some(json)));
        root.text("")
    };
    let track = identify(&[
        ("type", "\"track\""),
        ("traits", "null"),
        ("properties", "{\"vip\":false,\"audience_key\":\"vip\"}"),
    ]);
    let web = identify(&[("context.page", "{\"url\":\"https://example.com\",\"n\":[1,2.5]}")]);
    for text in [identify(&[]), track, web] {
        assert!(mappings()[0].map_plain(text.as_bytes(), ARRIVAL).is_some(), "{text}");
    }
    // Read one by one, the elements of the list would pass for members.
    let list = format!("[{}]", identify(&[]));
    assert_eq!(mappings()[0].map_plain(list.as_bytes(), ARRIVAL), None);
}

#[test]
fn a_mapping_that_says_more_is_not_plain() {
    let says = |name: &str, json: &Value| {
        let mut mapping = Mapping::preset();
        mapping.set_field(name, json).expect("a field of the action");
        Plain::of(&mapping).is_some()
    };
    assert!(says("context_kind", &json!("device")));
    assert!(says("segment_user_id", &json!({"@path": "$.userId"})), "the preset, spelled out");
    assert!(!says("segment_user_id", &json!({"@path": "$.traits.id"})));
    assert!(!says("context_kind", &json!({"@path": "$.kind"})));
    assert!(!says("enable_batching", &json!(false)));
    let mut mapping = Mapping::preset();
    mapping.subscribe(Subscription::parse("type = 'identify'").expect("a statement"));
    assert!(Plain::of(&mapping).is_none());
}
