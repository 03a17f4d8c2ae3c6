//! Custom mappings through the running daemon: pasted from Segment, several of them, and how `explain`
//! describes them.

use std::io::Write;
use std::process::{Command, Stdio};

use cohortd::sandbox::View;
use serde_json::{Value, json};

use crate::harness::{Cohortd, DEADLINE, ENVIRONMENT, Installation, launchdarkly};
use crate::pages;

const PASTED: &str = r#"{
    "segment_user_id": {"@template": "crm-{{traits.crm_id}}"},
    "user_email": {"@case": {"operator": "lower", "value": {"@path": "$.traits.email"}}},
    "context_key": "user_id_only",
    "enable_batching": true,
    "batch_size": 1000
}"#;

const CONFIGURATION: &str = r#"
[[destinations.production.mapping]]
mapping_file = "pasted.json"
subscribe = 'type = "identify" and traits.crm_id != null'
deny_audiences = ["test_*"]
[destinations.production.mapping.audiences.newsletter]
context_key = "email_only"

[[destinations.production.mapping]]
subscribe = 'type = "group"'
context_kind = "account"
segment_user_id = { "@path" = "$.groupId" }

[[destinations.production.mapping]]
enabled = false
subscribe = 'type = "page"'
"#;

fn event(kind: &str, audience: &str, more: &Value) -> Value {
    let mut event = json!({
        "type": kind, "userId": "ada", "timestamp": "2025-06-15T15:06:40Z",
        "traits": {audience: true, "email": "Ada@Example.com"},
        "context": {"personas": {
            "computation_class": "audience", "computation_id": format!("aud_{audience}"),
            "computation_key": audience,
        }},
    });
    for (key, value) in more.as_object().expect("what is added is an object") {
        if key == "crm_id" {
            event["traits"]["crm_id"] = value.clone();
        } else {
            event[key] = value.clone();
        }
    }
    event
}

/// The manual's mapping for events in the shape of `RudderStack`'s Python SDK.
async fn traits_in_the_context_are_read_by_the_mapping_that_the_manual_has_for_them() {
    let mapping = pages::file_with("json", "$.context.traits");
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.write("rudderstack.json", mapping);
    installation.set("destinations.production.mapping.mapping_file", "rudderstack.json");
    let cohortd = installation.start();
    let personas = json!({
        "computation_class": "audience", "computation_id": "aud_vip", "computation_key": "vip",
    });
    let identify = json!({
        "type": "identify", "userId": "ada", "anonymousId": null, "integrations": {},
        "timestamp": "2025-06-15T15:06:40Z",
        "context": {"personas": personas, "traits": {"vip": true}},
    });
    let track = json!({
        "type": "track", "userId": "bob", "event": "Audience Entered",
        "timestamp": "2025-06-15T15:06:40Z",
        "context": {"personas": personas, "traits": {"vip": false}}, "properties": {"vip": true},
    });
    for event in [identify, track, event("identify", "vip", &json!({"userId": "cyd"}))] {
        assert_eq!(post(&cohortd, &event).await, (200, [1, 0, 0]), "{event}");
    }
    let there = |view: &View<'_>| {
        ["ada", "bob", "cyd"].iter().all(|who| view.has(ENVIRONMENT, "aud_vip", who))
    };
    launchdarkly.until(DEADLINE, there).await.expect("all are in");
    assert!(cohortd.stop().0.success());
}

/// Posts an event. Returns the status, and how many events were accepted, ignored and rejected.
async fn post(cohortd: &Cohortd, event: &Value) -> (u16, [u64; 3]) {
    let (status, answer) = cohortd.post(event).await.expect("an answer");
    let rejected = answer["rejected"].as_array().map_or(0, Vec::len) as u64;
    let count = |key: &str| answer[key].as_u64().expect("a number");
    (status, [count("accepted"), count("ignored"), rejected])
}

async fn a_pasted_mapping_and_one_for_accounts_fill_their_segments() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let folder = installation.directory.path();
    std::fs::write(folder.join("pasted.json"), PASTED).expect("the folder is ours");
    std::fs::write(folder.join("cohortd.toml"), CONFIGURATION).expect("the folder is ours");
    let cohortd = installation.start();

    let crm = json!({"crm_id": 7});
    let group = json!({"groupId": "acme"});
    #[rustfmt::skip]
    let rows = [
        (event("identify", "vip", &crm), (200, [1, 0, 0]), Some(("aud_vip", "crm-7", "user"))),
        (event("identify", "newsletter", &crm), (200, [1, 0, 0]), Some(("aud_newsletter", "ada@example.com", "user"))),
        (event("group", "accounts", &group), (200, [1, 0, 0]), Some(("aud_accounts", "acme", "account"))),
        // No subscription selects these, and this audience is denied.
        (event("identify", "vip", &json!({})), (200, [0, 1, 0]), None),
        (event("page", "vip", &crm), (200, [0, 1, 0]), None),
        (event("identify", "test_1", &crm), (200, [0, 1, 0]), None),
        (event("group", "accounts", &json!({})), (400, [0, 0, 1]), None),
        (event("identify", "vip", &json!({"crm_id": {"k": 1}})), (400, [0, 0, 1]), None),
    ];
    for (event, answer, member) in rows {
        assert_eq!(post(&cohortd, &event).await, answer, "{event}");
        let explained = explain(&installation, &event);
        let outcome = ["accepted", "ignored", "rejected"]
            [answer.1.iter().position(|n| *n == 1).expect("one")];
        assert_eq!(explained["outcome"], outcome, "{event}");
        let Some((audience, key, kind)) = member else { continue };
        let has = |view: &View<'_>| view.has(ENVIRONMENT, audience, key);
        launchdarkly.until(DEADLINE, has).await.expect("the member arrives");
        assert_eq!(launchdarkly.segments(ENVIRONMENT)[audience].context_kind, kind);
        let mappings = explained["mappings"].as_array().expect("a list");
        let delta = mappings.iter().find_map(|mapping| mapping.get("delta")).expect("a delta");
        assert_eq!((&delta["context_key"], &delta["context_kind"]), (&key.into(), &kind.into()));
    }
    assert_eq!(launchdarkly.segments(ENVIRONMENT).len(), 3);
}

/// Two mappings make two members from an event; if they would conflict, the first one wins.
async fn an_event_that_one_of_two_mappings_can_apply_is_accepted() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let configuration = "[[destinations.production.mapping]]\n\
        [[destinations.production.mapping]]\ncontext_kind = 'device'\n\
        [[destinations.production.mapping]]\nsegment_user_id = { '@path' = '$.traits.crm_id' }\n";
    let file = installation.directory.path().join("cohortd.toml");
    std::fs::write(file, configuration).expect("the folder is ours");
    let cohortd = installation.start();

    let event = event("identify", "vip", &json!({"crm_id": "7"}));
    assert_eq!(post(&cohortd, &event).await, (200, [1, 0, 0]));
    for key in ["ada", "7"] {
        let has = |view: &View<'_>| view.has(ENVIRONMENT, "aud_vip", key);
        launchdarkly.until(DEADLINE, has).await.expect("the member arrives");
    }
    assert_eq!(launchdarkly.segments(ENVIRONMENT)["aud_vip"].context_kind, "user");
}

/// Such a mapping would turn everybody into one user without any error.
async fn a_mapping_that_is_surely_wrong_is_warned_about_and_makes_nobody_one() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let pasted = json!({
        "segment_user_id": {"@template": "{{traits.crm_id}"},
        "user_email": {"@liquid": "{{ traits.email | downcas }}"},
        "user_emial": {"@path": "$.traits.email"},
        "segment_external_id": {"@newer": true},
    });
    installation.write("pasted.json", &pasted.to_string());
    let configuration = "[destinations.production]\nmapping_file = 'pasted.json'\n\
        [destinations.production.mapping]\n\
        segment_anonymous_id = { '@case' = { operator = 'uper', value = { '@path' = '$.anonymousId' } } }\n";
    installation.write_config(configuration);

    let checked = installation.types(None, &["check"]).done();
    let cohortd = installation.start();
    let log = cohortd.log().join("\n");
    for (key, expected) in [
        ("mapping_file", "segment_user_id.@template has unbalanced braces"),
        ("mapping_file", "user_email.@liquid at line 1, column 1: there is no filter downcas"),
        (
            "mapping_file",
            "user_emial is not a field of the action, and is ignored; did you mean user_email?",
        ),
        ("mapping_file", "segment_external_id is not a field of the action, and is ignored"),
        (
            "mapping.segment_anonymous_id",
            "segment_anonymous_id.@case.operator must be lower or upper",
        ),
    ] {
        let warning = format!("destinations.production.{key}: {expected}");
        assert!(checked.contains(&format!("warning: {warning}")), "{warning}\n{checked}");
        assert!(log.contains(&warning), "{warning}\n{log}");
    }

    let event = event("identify", "vip", &json!({"crm_id": 7}));
    let (status, answer) = cohortd.post(&event).await.expect("an answer");
    let reason = answer["rejected"][0]["reason"].as_str().expect("a reason");
    assert_eq!(status, 400);
    assert!(reason.starts_with("invalid_field: segment_user_id still has the braces"), "{reason}");
    assert!(
        reason.ends_with("correct mapping.segment_user_id, or the value that is sent there."),
        "{reason}"
    );
}

fn explain(installation: &Installation, event: &Value) -> Value {
    let command: Command = installation.command();
    let program = command.get_program().to_owned();
    let mut explain = Command::new(program);
    explain.args(["explain", "--json"]).env_clear();
    explain.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    explain.current_dir(installation.directory.path());
    explain.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = explain.spawn().expect("the binary runs");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(event.to_string().as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let explained: Value = serde_json::from_slice(&output.stdout).expect("it prints JSON");
    let is_rejected = explained["outcome"] == "rejected";
    assert_eq!(output.status.code(), Some(i32::from(is_rejected)), "{explained}");
    explained
}

tests![
    traits_in_the_context_are_read_by_the_mapping_that_the_manual_has_for_them,
    a_pasted_mapping_and_one_for_accounts_fill_their_segments,
    an_event_that_one_of_two_mappings_can_apply_is_accepted,
    a_mapping_that_is_surely_wrong_is_warned_about_and_makes_nobody_one,
];
