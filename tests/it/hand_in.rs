//! Events handed in by an operator: the API explains and accepts them just as `cohortd explain` and the
//! webhook do.

use cohortd::sandbox::View;
use serde_json::{Value, json};

use crate::harness::{Cohortd, DEADLINE, ENVIRONMENT, Installation, Typed, identify, launchdarkly};

const NOW_MS: i64 = 1_750_000_000_000;

async fn post(cohortd: &Cohortd, path: &str, body: &str) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a plain client");
    let url = format!("http://{}/api/v1/destinations/production/{path}", cohortd.admin);
    let request = client.post(url).header("content-type", "application/json");
    let answer = request.body(body.to_owned()).send().await.expect("an answer");
    let status = answer.status().as_u16();
    (status, answer.json().await.expect("JSON"))
}

async fn an_event_is_explained_as_the_command_explains_it_and_nobody_is_told() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let mut nobody = identify("ada", "vip", true, NOW_MS);
    nobody["userId"] = Value::Null;
    let file = installation.directory.path().join("event.json");
    for event in [
        identify("ada", "vip", true, NOW_MS),
        nobody,
        json!({"type": "page"}),
        json!({"type": "delete", "userId": "ada"}),
    ] {
        std::fs::write(&file, event.to_string()).expect("it is ours");
        let words = ["explain", "--json", "--file", "event.json"];
        let Typed { code, out, .. } = installation.types(None, &words);
        let typed: Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(code == 1, typed["outcome"] == "rejected", "{code}: {typed}");
        let (status, answered) = post(&cohortd, "explain", &event.to_string()).await;
        assert_eq!((status, &answered), (200, &typed), "{event}");
        assert!(answered["outcome"].is_string());
    }
    assert_eq!(launchdarkly.calls().total, 0);
    let view = cohortd.status().await;
    assert_eq!(view["destinations"]["production"]["waiting"], 0, "nothing is kept");
}

async fn an_event_is_taken_as_if_it_had_been_posted() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let mut nobody = identify("ada", "vip", true, NOW_MS);
    nobody["userId"] = Value::Null;
    let wrapped = json!({"json": identify("bob", "vip", true, NOW_MS)});
    for (event, accepted, ignored, word) in [
        (identify("ada", "vip", true, NOW_MS), 1, 0, None),
        (wrapped, 1, 0, None),
        (json!({"userId": "ada"}), 0, 0, Some("not_an_event: ")),
        (identify("bob", "vip", true, NOW_MS), 1, 0, None),
        (json!({"type": "page"}), 0, 1, None),
        (nobody, 0, 0, Some("no_context_key: ")),
        (json!({"type": "identify"}), 0, 0, Some("not_an_audience: ")),
    ] {
        let (status, account) = post(&cohortd, "events", &event.to_string()).await;
        assert_eq!(status, 200, "{account}");
        assert_eq!(
            (&account["accepted"], &account["ignored"]),
            (&json!(accepted), &json!(ignored))
        );
        let reason = account["rejected"][0]["reason"].as_str();
        assert_eq!(reason.is_some(), word.is_some(), "{account}");
        assert!(
            reason.is_none_or(|reason| reason.starts_with(word.unwrap_or_default())),
            "{account}"
        );
        // The webhook's answer to the same event.
        let (_, posted) = cohortd.post(&event).await.expect("an answer");
        assert_eq!(posted, account, "{event}");
    }
    let both =
        |view: &View<'_>| ["ada", "bob"].iter().all(|who| view.has(ENVIRONMENT, "aud_vip", who));
    launchdarkly.until(DEADLINE, both).await.expect("delivered");
    let line = cohortd.until_logged("operator: event recorded").await;
    assert_eq!((&line["audience"], &line["accepted"]), (&json!("aud_vip"), &json!(1)));
    assert!(!line.to_string().contains("ada"), "{line}");

    // Here too an audience keeps its context kind, and rejected events are kept.
    for (body, status) in [("[]", 422), ("7", 422), ("{", 400), ("nonsense", 400)] {
        assert_eq!(post(&cohortd, "events", body).await.0, status, "{body}");
        assert_eq!(post(&cohortd, "explain", body).await.0, status, "{body}");
    }
    assert!(cohortd.stop().0.success());
    installation.set("destinations.production.mapping.context_kind", "device");
    let cohortd = installation.start();
    let event = identify("cyd", "vip", true, NOW_MS).to_string();
    let (status, account) = post(&cohortd, "events", &event).await;
    assert_eq!((status, &account["accepted"]), (200, &json!(0)));
    let reason = account["rejected"][0]["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("context_kind_conflict: "), "{reason}");
    let kept = installation.types(Some(cohortd.admin), &["rejected", "list"]).done();
    assert!(kept.contains("context_kind_conflict"), "{kept}");
    assert!(cohortd.stop().0.success());

    installation.set("destinations.production.enabled", "false");
    let cohortd = installation.start();
    let (status, problem) = post(&cohortd, "events", &event).await;
    assert_eq!(status, 409, "{problem}");
    assert_eq!(post(&cohortd, "explain", &event).await.0, 200);
}

tests![
    an_event_is_explained_as_the_command_explains_it_and_nobody_is_told,
    an_event_is_taken_as_if_it_had_been_posted,
];
