//! Memberships that end: where `mapping.audiences.<key>.expires_after_s` is set, an entry lasts so long by event time,
//! whatever happens to the daemon meanwhile, and people can see it.

use cohortd::clock::{Clock, SystemClock};
use cohortd::sandbox::{StandIn, View};
use serde_json::{Value, json};

use crate::harness::{Cohortd, DEADLINE, ENVIRONMENT, Installation, identify, launchdarkly};

const ADA: &str = "ada.lovelace";
const JOURNEY: &str = "aud_journey";
const EXPIRES_AFTER: &str = "destinations.production.mapping.audiences.journey.expires_after_s";

fn now_ms() -> i64 {
    SystemClock.now().0 / 1000
}

fn enters(user: &str, at_ms: i64) -> Value {
    identify(user, "journey", true, at_ms)
}

async fn post(cohortd: &Cohortd, events: &[Value]) {
    let (status, answer) = cohortd.post_batch(events).await.expect("an answer");
    assert_eq!((status, &answer["accepted"]), (200, &json!(events.len())), "{answer}");
}

/// Waits until exactly these are in the segment.
async fn until_in(launchdarkly: &StandIn, users: &[&str]) {
    let is_so = |view: &View<'_>| {
        let segment = view.segments(ENVIRONMENT).and_then(|of| of.get(JOURNEY));
        segment.is_some_and(|of| of.members.iter().map(String::as_str).eq(users.iter().copied()))
    };
    launchdarkly.until(DEADLINE, is_so).await.expect("they are in, and nobody else");
}

fn shown(installation: &Installation, cohortd: &Cohortd, user: &str) -> Value {
    let told = installation.types(Some(cohortd.admin), &["member", "production", user, "--json"]);
    serde_json::from_str::<Value>(&told.done()).expect("it is JSON")[0].clone()
}

async fn an_entry_expires_is_told_and_shown_and_a_repeat_renews() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set(EXPIRES_AFTER, "3600");
    let cohortd = installation.start();
    // Ada's hour is over in a moment; bob entered with her, and again lately.
    let (now, hour) = (now_ms(), 3_600_000);
    let soon = now - hour + 8_000;
    post(&cohortd, &[enters(ADA, soon), enters("bob", soon), enters("bob", now)]).await;
    post(&cohortd, &[identify(ADA, "vip", true, soon)]).await;
    until_in(&launchdarkly, &[ADA, "bob"]).await;
    let told = installation.types(Some(cohortd.admin), &["member", ADA]).done();
    assert!(told.contains("in until "), "{told}");

    until_in(&launchdarkly, &["bob"]).await;
    let ada = shown(&installation, &cohortd, ADA);
    assert_eq!((&ada["included"], &ada["expired"]), (&json!(false), &json!(true)), "{ada}");
    assert_eq!(ada["audience"], JOURNEY);
    let bob = shown(&installation, &cohortd, "bob");
    assert_eq!((&bob["included"], &bob["expired"]), (&json!(true), &json!(false)), "{bob}");
    assert!(bob["expires_at"].as_str() > ada["expires_at"].as_str(), "{ada} {bob}");
    let told = installation.types(Some(cohortd.admin), &["member", ADA]).done();
    assert!(told.contains("out (expired at "), "{told}");
    let vip = |view: &View<'_>| view.has(ENVIRONMENT, "aud_vip", ADA);
    launchdarkly.until(DEADLINE, vip).await.expect("other audiences are left alone");

    let told = installation.types(Some(cohortd.admin), &["audiences"]).done();
    assert!(told.contains("aud_journey: entries expire 3600 s after their event time"), "{told}");
    let status = cohortd.status().await;
    assert_eq!(status["destinations"]["production"]["entries_expired"], 1, "{status}");
    let (_, metrics) = cohortd.metrics("text/plain").await;
    let counted = "cohortd_entries_expired_total{destination=\"production\"} 1";
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");
    let told = installation.types(Some(cohortd.admin), &["status"]).out;
    assert!(told.contains("1 members left since the start because their entries"), "{told}");
    cohortd.logged("members left: their entries have expired").await;
    assert!(cohortd.log().iter().all(|line| !line.contains(ADA)), "nobody is named");

    // What is older, and the same again, does not bring her back; a later entry does.
    post(&cohortd, &[enters(ADA, soon - 1), enters(ADA, soon), enters("cyd", now)]).await;
    until_in(&launchdarkly, &["bob", "cyd"]).await;
    post(&cohortd, &[enters(ADA, now_ms())]).await;
    until_in(&launchdarkly, &[ADA, "bob", "cyd"]).await;
}

async fn an_entry_expires_across_a_kill_and_a_reload_changes_the_setting() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let setting = |seconds: i64| {
        installation.write_config(&format!(
            "[destinations.production.mapping.audiences.journey]\nexpires_after_s = {seconds}\n"
        ));
    };
    setting(3600);
    let cohortd = installation.start();
    let now = now_ms();
    post(&cohortd, &[enters(ADA, now - 3_592_000), enters("bob", now)]).await;
    until_in(&launchdarkly, &[ADA, "bob"]).await;
    cohortd.kill();
    let cohortd = installation.start();
    until_in(&launchdarkly, &["bob"]).await;

    let half_an_hour_ago = now - 1_800_000;
    post(&cohortd, &[enters("cyd", half_an_hour_ago)]).await;
    until_in(&launchdarkly, &["bob", "cyd"]).await;
    let reload = || installation.types(Some(cohortd.admin), &["reload"]).done();
    setting(1000);
    reload();
    until_in(&launchdarkly, &["bob"]).await;
    post(&cohortd, &[enters("cyd", half_an_hour_ago), enters("dan", now)]).await;
    until_in(&launchdarkly, &["bob", "dan"]).await;
    setting(3600);
    reload();
    post(&cohortd, &[enters("cyd", half_an_hour_ago)]).await;
    until_in(&launchdarkly, &["bob", "cyd", "dan"]).await;
}

tests![
    an_entry_expires_is_told_and_shown_and_a_repeat_renews,
    an_entry_expires_across_a_kill_and_a_reload_changes_the_setting,
];
