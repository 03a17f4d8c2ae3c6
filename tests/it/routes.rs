//! One path whose events go to several destinations, in one transaction.

use cohortd::sandbox::{StandIn, View};
use serde_json::{Value, json};

use crate::harness::{
    Cohortd, DEADLINE, ENVIRONMENT, Installation, SHARED_SECRET, identify, launchdarkly_with,
};

const NOW_MS: i64 = 1_750_000_000_000;
const INNER_ENVIRONMENT: &str = "64f0decaf";
const INNER_TOKEN: &str = "api-inner-service-token";
const WRITE_KEY: &str = "planted-route-key";

/// `production`, which has a path of its own, `inner`, which has none and uses emails as keys, and the
/// route `all` to both.
async fn installation() -> (StandIn, Installation) {
    let launchdarkly = launchdarkly_with(&[(INNER_ENVIRONMENT, INNER_TOKEN)]).await;
    let mut installation = Installation::new(&launchdarkly);
    let base_url = launchdarkly.url().to_string();
    for (key, value) in [
        ("destinations.inner.launchdarkly.client_side_id", INNER_ENVIRONMENT),
        ("destinations.inner.launchdarkly.service_token", INNER_TOKEN),
        ("destinations.inner.launchdarkly.base_url", &base_url),
        ("destinations.inner.mapping.context_key", "email_only"),
        ("routes.all.destinations", "production\ninner"),
        ("routes.all.segment.shared_secrets", SHARED_SECRET),
        ("routes.all.segment.write_keys", WRITE_KEY),
        ("ledger.tombstone_ttl_s", "315360000"),
    ] {
        installation.set(key, value);
    }
    (launchdarkly, installation)
}

fn event(who: &str, email: Option<&str>) -> Value {
    let mut event = identify(who, "vip", true, NOW_MS);
    event["traits"]["email"] = json!(email);
    event
}

async fn post(cohortd: &Cohortd, name: &str, events: &[Value]) -> (u16, Value) {
    let texts: Vec<String> = events.iter().map(Value::to_string).collect();
    let body = format!("[{}]", texts.join(","));
    cohortd.post_to(name, body, &texts[0]).await.expect("an answer")
}

async fn until_members(launchdarkly: &StandIn, environment: &str, wanted: &[&str]) {
    let as_wanted = |view: &View<'_>| {
        let members = view.segment(environment, "aud_vip").map(|of| &of.members);
        members.is_some_and(|of| of.iter().map(String::as_str).eq(wanted.iter().copied()))
    };
    launchdarkly.until(DEADLINE, as_wanted).await.expect("the members are as wanted");
}

fn rejected(installation: &Installation, cohortd: &Cohortd, destination: &str) -> Vec<String> {
    let words = ["rejected", "list", destination, "--json"];
    let lines = installation.types(Some(cohortd.admin), &words).done();
    let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    events.map(|event| event["reason"].as_str().expect("a word").to_owned()).collect()
}

async fn events_go_to_every_destination_of_the_route_and_rejections_are_kept_for_each() {
    let (launchdarkly, installation) = installation().await;
    let cohortd = installation.start();
    let nobody = event("x", None).to_string().replace("\"x\"", "null");
    let nobody: Value = serde_json::from_str(&nobody).expect("JSON");
    let events =
        [event("ada", Some("ada@b.c")), event("bob", None), nobody, json!({"type": "page"})];
    let (status, answer) = post(&cohortd, "all", &events).await;
    assert_eq!((status, &answer["accepted"], &answer["ignored"]), (200, &json!(2), &json!(1)));
    let refused = answer["rejected"].as_array().expect("a list");
    assert_eq!((refused.len(), &refused[0]["index"]), (1, &json!(2)), "{answer}");
    until_members(&launchdarkly, ENVIRONMENT, &["ada", "bob"]).await;
    until_members(&launchdarkly, INNER_ENVIRONMENT, &["ada@b.c"]).await;
    assert_eq!(rejected(&installation, &cohortd, "production"), ["no_context_key"]);
    assert_eq!(rejected(&installation, &cohortd, "inner"), ["no_context_key", "no_context_key"]);

    // The destination's own path is not the route's.
    assert_eq!(post(&cohortd, "production", &[event("cyd", Some("cyd@b.c"))]).await.0, 200);
    until_members(&launchdarkly, ENVIRONMENT, &["ada", "bob", "cyd"]).await;
    assert_eq!(post(&cohortd, "inner", &[event("cyd", None)]).await.0, 404, "it has none");

    // A deletion goes to all of them.
    let delete = json!({"type": "delete", "userId": "ada"});
    let (status, answer) = post(&cohortd, "all", &[delete]).await;
    assert_eq!((status, &answer["accepted"]), (200, &json!(1)));
    until_members(&launchdarkly, ENVIRONMENT, &["bob", "cyd"]).await;
    until_members(&launchdarkly, INNER_ENVIRONMENT, &[]).await;
    installation.drained().await;
    assert_eq!(launchdarkly.overlaps(), 0);
    assert!(cohortd.stop().0.success());
}

async fn the_other_shapes_know_routes_too() {
    let (launchdarkly, installation) = installation().await;
    let cohortd = installation.start();
    let client = reqwest::Client::builder().no_proxy().build().expect("a plain client");
    let url = |path: &str| format!("http://{}{path}", cohortd.public);

    let message = event("ada", Some("ada@b.c"));
    let posted = client.post(url("/v1/identify")).basic_auth(WRITE_KEY, Some("")).json(&message);
    let answer: Value = posted.send().await.expect("an answer").json().await.expect("it is JSON");
    assert_eq!(answer, json!({"success": true}));
    until_members(&launchdarkly, ENVIRONMENT, &["ada"]).await;
    until_members(&launchdarkly, INNER_ENVIRONMENT, &["ada@b.c"]).await;

    let create = async |name: &str| {
        let call = client.post(url(&format!("/segment/{name}/audiences/create")));
        let answer = call.json(&json!({"audienceName": "VIP"})).send().await.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.expect("JSON")["externalId"].clone())
    };
    let (status, of_route) = create("all").await;
    assert_eq!(status, 200);
    assert_ne!(of_route, create("production").await.1, "the path is a part of it");
    assert_eq!(create("inner").await.0, 404);
}

async fn one_that_is_paused_keeps_its_events_and_one_that_is_disabled_closes_the_route() {
    let (launchdarkly, mut installation) = installation().await;
    let cohortd = installation.start();
    installation.types(Some(cohortd.admin), &["pause", "inner"]).done();
    assert_eq!(post(&cohortd, "all", &[event("ada", Some("ada@b.c"))]).await.0, 200);
    until_members(&launchdarkly, ENVIRONMENT, &["ada"]).await;
    assert!(!launchdarkly.segments(INNER_ENVIRONMENT).contains_key("aud_vip"));
    installation.types(Some(cohortd.admin), &["resume", "inner"]).done();
    until_members(&launchdarkly, INNER_ENVIRONMENT, &["ada@b.c"]).await;
    assert!(cohortd.stop().0.success());

    installation.set("destinations.inner.enabled", "false");
    let cohortd = installation.start();
    let bob = [event("bob", Some("bob@b.c"))];
    assert_eq!(post(&cohortd, "all", &bob).await.0, 503, "nobody would send it again");
    assert_eq!(post(&cohortd, "production", &bob).await.0, 200);
}

async fn the_commands_know_routes() {
    let (launchdarkly, installation) = installation().await;
    let checked = installation.types(None, &["check"]).done();
    for expected in [
        "destination inner\n  receives       only what a route brings\n",
        "route all\n  receives at    /segment/all on 127.0.0.1:0\n",
        "  authenticates  1 shared secret, 1 write key; any one suffices\n",
        "  feeds          production, inner\n",
    ] {
        assert!(checked.contains(expected), "{expected}\n{checked}");
    }
    std::fs::write(
        installation.directory.path().join("event.json"),
        event("ada", None).to_string(),
    )
    .expect("it is ours");
    let explained = installation.types(None, &["explain", "all", "--file", "event.json"]).done();
    assert!(explained.contains("so user ada enters \"Vip\""), "{explained}");
    assert!(explained.contains("rejected: no_context_key"), "{explained}");
    assert!(explained.ends_with("\nroute all: accepted\n"), "{explained}");
    let json = ["explain", "all", "--file", "event.json", "--json"];
    let json: Value = serde_json::from_str(&installation.types(None, &json).done()).expect("JSON");
    assert_eq!((&json["route"], &json["outcome"]), (&json!("all"), &json!("accepted")));
    assert_eq!(json["destinations"][1]["outcome"], "rejected");

    let cohortd = installation.start();
    let url = format!("http://{}/segment/all", cohortd.public);
    let send = ["send", "all", "--url", &url, "--user", "ada", "--email", "ada@b.c"];
    let words: Vec<&str> = send.into_iter().chain(["--audience", "vip", "--enter"]).collect();
    let answer = installation.types(None, &words).done();
    assert!(answer.contains("\"accepted\":1"), "{answer}");
    until_members(&launchdarkly, INNER_ENVIRONMENT, &["ada@b.c"]).await;
    for (name, expected) in [
        ("inner", "inner is reached by a route only: all"),
        ("nobody", "no destination or route \"nobody\"; there are: inner, production, all"),
    ] {
        let refused = installation.types(None, &["send", name, "--file", "event.json"]);
        assert_eq!(refused.code, 64);
        assert!(refused.complaint.contains(expected), "{}", refused.complaint);
    }
    let unnamed = installation.types(None, &["send", "--file", "event.json"]);
    let expected = "say which destination or route: inner, production, all";
    assert!(unnamed.complaint.contains(expected), "{}", unnamed.complaint);
    assert_eq!(unnamed.code, 64);
}

tests![
    events_go_to_every_destination_of_the_route_and_rejections_are_kept_for_each,
    the_other_shapes_know_routes_too,
    one_that_is_paused_keeps_its_events_and_one_that_is_disabled_closes_the_route,
    the_commands_know_routes,
];
