//! The guard against the running daemon: an audience that is emptied at once, and what operators say of it.

use cohortd::clock::{Clock, SystemClock};
use cohortd::sandbox::StandIn;
use serde_json::Value;

use crate::harness::{Cohortd, ENVIRONMENT, Installation, identify, launchdarkly};

const MEMBERS: usize = 100_000;
/// What `guard.max_exits_percent` lets pass by default.
const SHARE: usize = MEMBERS / 2;
/// Events in one request.
const AT_ONCE: usize = 1000;

fn person(number: usize) -> String {
    format!("user{number:06}")
}

fn of(status: &Value) -> Value {
    status["destinations"]["production"].clone()
}

/// All members of an audience enter or leave it now.
async fn all(cohortd: &Cohortd, enters: bool) {
    let poster = cohortd.poster();
    for first in (0..MEMBERS).step_by(AT_ONCE) {
        let now_ms = SystemClock.now().0 / 1000;
        let events: Vec<Value> = (first..first + AT_ONCE)
            .map(|number| identify(&person(number), "vip", enters, now_ms))
            .collect();
        let (status, answer) = poster.post_batch(&events).await.expect("an answer");
        assert_eq!((status, &answer["accepted"]), (200, &AT_ONCE.into()), "{answer}");
    }
}

fn told(launchdarkly: &StandIn) -> usize {
    launchdarkly.look(|view| {
        view.segment(ENVIRONMENT, "aud_vip").map_or(0, |segment| segment.members.len())
    })
}

async fn until_held(cohortd: &Cohortd) -> Value {
    let is_held = |status: &Value| {
        let of = of(status);
        of["state"] == "held" && of["calls_in_flight"] == 0
    };
    of(&cohortd.until_status(is_held).await)
}

async fn an_audience_that_is_emptied_within_a_minute_is_told_of_its_share_and_no_more() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    all(&cohortd, true).await;
    installation.drained().await;
    assert_eq!(told(&launchdarkly), MEMBERS, "a first fill is not held");

    all(&cohortd, false).await;
    let held = until_held(&cohortd).await;
    let concern = &held["concerns"][0];
    assert_eq!((&concern["kind"], &concern["count"]), (&"guard".into(), &1.into()), "{held}");
    let why = concern["why"].as_str().expect("a sentence");
    assert!(why.contains("aud_vip") && why.contains("usually at most 0"), "{why}");
    let left = MEMBERS - told(&launchdarkly);
    note!("of {MEMBERS} exits LaunchDarkly was told of {left}");
    assert!(left <= SHARE, "{left}");
    let message = "the guard holds an audience: more of its members changed than usual; cohortd guard release or \
                   cohortd guard discard decides";
    cohortd.logged(message).await;

    // Neither a restart nor a kill lets more pass, while others go on.
    cohortd.kill();
    let cohortd = installation.start();
    let now_ms = SystemClock.now().0 / 1000;
    let other = identify("ada", "other", true, now_ms);
    assert_eq!(cohortd.post(&other).await.expect("an answer").0, 200);
    cohortd.until_status(|_| launchdarkly.look(|of| of.has(ENVIRONMENT, "aud_other", "ada"))).await;
    until_held(&cohortd).await;
    assert!(MEMBERS - told(&launchdarkly) <= SHARE);
    let admin = Some(cohortd.admin);
    assert_eq!(installation.types(admin, &["status"]).code, 75);
    let list = installation.types(admin, &["guard", "list"]).done();
    assert!(list.contains("aud_vip") && !list.contains("aud_other"), "{list}");
    let audiences = installation.types(admin, &["audiences"]).done();
    let row = audiences.lines().find(|line| line.contains("aud_vip")).expect("it is known");
    assert!(row.contains("held by the guard since 20"), "{audiences}");
    assert_eq!(audiences.matches("held by the guard").count(), 1, "{audiences}");
    // Whoever is deleted is removed all the same.
    let stayed = launchdarkly.look(|view| {
        let told = &view.segment(ENVIRONMENT, "aud_vip").expect("it is there").members;
        (0..MEMBERS).map(person).find(|key| told.contains(key)).expect("half of them")
    });
    installation.types(admin, &["forget", "production", &stayed]).done();
    let is_gone = |_: &Value| !launchdarkly.look(|of| of.has(ENVIRONMENT, "aud_vip", &stayed));
    cohortd.until_status(is_gone).await;
    until_held(&cohortd).await;
    let metrics = cohortd.metrics("text/plain").await.1;
    let sample = "cohortd_guard_held_audiences{destination=\"production\"} 1";
    assert!(metrics.contains(sample), "{metrics}");

    let plan = installation.types(admin, &["guard", "discard", "--dry-run"]).done();
    assert!(plan.contains("nothing was done"), "{plan}");
    installation.types(admin, &["guard", "discard", "production", "aud_vip"]).done();
    cohortd.until_status(|status| of(status)["state"] == "ok").await;
    installation.drained().await;
    assert_eq!(told(&launchdarkly), MEMBERS - 1, "everybody but who was deleted is in again");

    all(&cohortd, false).await;
    until_held(&cohortd).await;
    assert!(MEMBERS - told(&launchdarkly) <= SHARE);
    let said = installation.types(admin, &["guard", "release", "aud_vip"]).done();
    assert!(said.contains("1 held audience"), "{said}");
    installation.drained().await;
    assert_eq!(told(&launchdarkly), 0, "it was meant");
    let list = installation.types(admin, &["guard", "list"]).done();
    assert!(list.contains("holds no audience"), "{list}");
    assert!(cohortd.stop().0.success());
}

tests![an_audience_that_is_emptied_within_a_minute_is_told_of_its_share_and_no_more];
