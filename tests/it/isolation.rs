//! P5: one bad event, member, audience or destination delays no other.

use std::time::Duration;

use cohortd::sandbox::{Fault, StandIn, View};
use serde_json::{Value, json};

use crate::harness::{
    Cohortd, DEADLINE, ENVIRONMENT, Installation, SHARED_SECRET, identify, launchdarkly,
    launchdarkly_with,
};

const NOW_MS: i64 = 1_750_000_000_000;
const OTHER_ENVIRONMENT: &str = "64f0decaf";
const OTHER_TOKEN: &str = "api-other-service-token";

fn entries(audience: &str, users: std::ops::Range<usize>) -> Vec<Value> {
    let enters = |user| identify(&format!("user{user:05}"), audience, true, NOW_MS);
    users.map(enters).collect()
}

async fn post(cohortd: &Cohortd, events: &[Value]) {
    let (status, answer) = cohortd.post_batch(events).await.expect("an answer");
    assert_eq!((status, &answer["accepted"]), (200, &events.len().into()), "{answer}");
}

fn size(view: &View<'_>, environment: &str, audience: &str) -> usize {
    view.segment(environment, audience).map_or(0, |segment| segment.members.len())
}

async fn a_change_waits_a_few_turns_behind_another_audiences_backfill() {
    let launchdarkly = launchdarkly().await;
    launchdarkly.set_latency(Duration::from_millis(20));
    let mut installation = Installation::new(&launchdarkly);
    installation.set("delivery.max_batch", "10").set("delivery.linger_ms", "0");
    let cohortd = installation.start();
    post(&cohortd, &entries("backfill", 0..4000)).await; // 400 calls
    for (calls, audience) in [(0, "one"), (30, "two"), (60, "three")] {
        let enough = |view: &View<'_>| view.calls().total > calls;
        launchdarkly.until(DEADLINE, enough).await.expect("the backfill is under way");
        post(&cohortd, &entries(audience, 0..1)).await;
        let before = launchdarkly.calls().total;
        let id = format!("aud_{audience}");
        let there = |view: &View<'_>| size(view, ENVIRONMENT, &id) == 1;
        launchdarkly.until(DEADLINE, there).await.expect("the change is delivered");
        let log = launchdarkly.log();
        let call = log.iter().find(|call| call.audience == id).expect("it was called");
        // Four are in flight, and one is next.
        assert!(call.number <= before + 8, "call {} after {before}", call.number);
        let left = 4000 - launchdarkly.segments(ENVIRONMENT)["aud_backfill"].members.len();
        assert!(left > 1000, "the backfill is not over: {left} left");
    }
    let all = |view: &View<'_>| size(view, ENVIRONMENT, "aud_backfill") == 4000;
    launchdarkly.until(DEADLINE, all).await.expect("the backfill ends");
    assert_eq!(launchdarkly.overlaps(), 0);
}

async fn an_audience_that_fails_delays_no_other() {
    for fault in [Fault::status(500), Fault::status(409), Fault::status(502)] {
        let launchdarkly = launchdarkly().await;
        let scripted = fault.clone();
        launchdarkly.script(move |call| {
            if call.audience == "aud_bad" { scripted.clone() } else { Fault::None }
        });
        let mut installation = Installation::new(&launchdarkly);
        // Long enough to notice a change that waits for the failing audience's pauses.
        installation.set("delivery.retry_floor_ms", "60000");
        installation.set("delivery.retry_ceiling_ms", "120000");
        let cohortd = installation.start();
        post(&cohortd, &entries("bad", 0..5)).await;
        launchdarkly.until(DEADLINE, |view| view.calls().refused > 0).await.expect("it fails");
        for users in 1..=10 {
            post(&cohortd, &entries("good", users - 1..users)).await;
            let there = |view: &View<'_>| size(view, ENVIRONMENT, "aud_good") == users;
            let soon = Duration::from_secs(20);
            launchdarkly.until(soon, there).await.expect("the good audience is up to date");
        }
        assert!(!launchdarkly.segments(ENVIRONMENT).contains_key("aud_bad"), "{fault:?}");
    }
}

/// A stand-in with two environments, and a daemon that delivers to both.
async fn two_destinations() -> (StandIn, Installation) {
    let launchdarkly = launchdarkly_with(&[(OTHER_ENVIRONMENT, OTHER_TOKEN)]).await;
    let mut installation = Installation::new(&launchdarkly);
    let base_url = launchdarkly.url().to_string();
    for (key, value) in [
        ("segment.shared_secrets", SHARED_SECRET),
        ("launchdarkly.client_side_id", OTHER_ENVIRONMENT),
        ("launchdarkly.service_token", OTHER_TOKEN),
        ("launchdarkly.base_url", &base_url),
    ] {
        installation.set(&format!("destinations.other.{key}"), value);
    }
    (launchdarkly, installation)
}

async fn a_destination_that_is_held_limited_or_silent_delays_no_other() {
    let limited = Fault::Answer {
        status: 429,
        headers: vec![("Retry-After".to_owned(), "600".to_owned())],
        body: None,
    };
    let silent = Fault::Hang { apply: cohortd::sandbox::Apply::No };
    for fault in [Fault::status(401), limited, silent, Fault::status(503)] {
        let (launchdarkly, mut installation) = two_destinations().await;
        installation.set("destinations.production.delivery.request_timeout_ms", "60000");
        let scripted = fault.clone();
        launchdarkly.script(move |call| {
            if call.client_side_id == ENVIRONMENT { scripted.clone() } else { Fault::None }
        });
        let cohortd = installation.start();
        post(&cohortd, &entries("vip", 0..5)).await;
        let called = |view: &View<'_>| view.calls().total > 0;
        launchdarkly.until(DEADLINE, called).await.expect("production is called");
        for users in 1..=5 {
            let event = entries("vip", users - 1..users).remove(0).to_string();
            let answer = cohortd.post_to("other", event.clone(), &event).await;
            assert_eq!(answer.expect("an answer").0, 200);
            let there = |view: &View<'_>| size(view, OTHER_ENVIRONMENT, "aud_vip") == users;
            let soon = Duration::from_secs(20);
            launchdarkly.until(soon, there).await.expect("the other destination is up to date");
        }
        let status = cohortd.status().await;
        assert_eq!(status["destinations"]["other"]["state"], "ok", "{fault:?}");
        assert!(launchdarkly.segments(ENVIRONMENT).is_empty(), "{fault:?}");
    }
}

async fn one_bad_event_spoils_neither_its_batch_nor_its_order() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let good = |user: &str| identify(user, "vip", true, NOW_MS).to_string();
    let mut nobody = identify("nobody", "vip", true, NOW_MS);
    nobody["userId"] = Value::Null;
    let mut perhaps = identify("perhaps", "vip", true, NOW_MS);
    perhaps["traits"]["vip"] = "perhaps".into();
    let lone_surrogate = good("lone").replace("lone", r"\ud800");
    let body = [
        good("first"),
        nobody.to_string(),
        lone_surrogate.clone(),
        good("second"),
        perhaps.to_string(),
        json!({"type": "page"}).to_string(),
        good("third"),
    ];
    let answer = cohortd.post_signed(format!("[{}]", body.join(",")), &body[0]).await;
    let (status, answer) = answer.expect("an answer");
    assert_eq!((status, &answer["accepted"], &answer["ignored"]), (200, &3.into(), &1.into()));
    let rejected: Vec<(u64, &str)> = answer["rejected"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|rejected| {
            let reason = rejected["reason"].as_str().expect("text");
            let word = reason.split(':').next().unwrap_or_default();
            (rejected["index"].as_u64().expect("a number"), word)
        })
        .collect();
    assert_eq!(
        rejected,
        [(1, "no_context_key"), (2, "unreadable_event"), (4, "membership_unknown")]
    );

    let there = |view: &View<'_>| size(view, ENVIRONMENT, "aud_vip") == 3;
    launchdarkly.until(DEADLINE, there).await.expect("the good ones are delivered");
    assert!(cohortd.stop().0.success());
    let kept = installation.rejected().await;
    let kept: Vec<(&str, &[u8])> =
        kept.iter().map(|kept| (kept.reason.as_str(), &kept.body[..])).collect();
    assert_eq!(
        kept,
        [
            ("no_context_key", nobody.to_string().as_bytes()),
            ("unreadable_event", lone_surrogate.as_bytes()),
            ("membership_unknown", perhaps.to_string().as_bytes()),
        ]
    );
}

tests![
    a_change_waits_a_few_turns_behind_another_audiences_backfill,
    an_audience_that_fails_delays_no_other,
    a_destination_that_is_held_limited_or_silent_delays_no_other,
    one_bad_event_spoils_neither_its_batch_nor_its_order,
];
