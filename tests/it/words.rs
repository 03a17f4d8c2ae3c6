//! LaunchDarkly's error messages are kept and shown, whatever it answers, and the reaction depends on their
//! meaning.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cohortd::sandbox::{Fault, StandIn, View};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::{
    Cohortd, DEADLINE, ENVIRONMENT, Installation, identify, launchdarkly, production,
};

const NOW_MS: i64 = 1_750_000_000_000;
const FAILS_AGAIN_AND_AGAIN: &str =
    "calls for this audience have failed several times in a row: will retry";
const HELD: &str = "destination held: events are kept, nothing is delivered until this is fixed";

async fn enter(cohortd: &Cohortd, audience: &str, users: &[&str]) {
    let events: Vec<Value> =
        users.iter().map(|user| identify(user, audience, true, NOW_MS)).collect();
    let (status, answer) = cohortd.post_batch(&events).await.expect("an answer");
    assert_eq!((status, &answer["accepted"]), (200, &events.len().into()), "{answer}");
}

async fn until_in(launchdarkly: &StandIn, audience: &str, users: &[&str]) {
    let wanted: BTreeSet<String> = users.iter().map(ToString::to_string).collect();
    let audience = format!("aud_{audience}");
    let has = |view: &View<'_>| {
        view.segment(ENVIRONMENT, &audience).is_some_and(|of| of.members == wanted)
    };
    launchdarkly.until(DEADLINE, has).await.expect("they enter");
}

/// An answer with this status, code and message, and the id `answer-7`.
fn says(status: u16, code: &str, message: &str) -> Fault {
    let body = json!({"code": code, "message": message, "id": "answer-7"}).to_string();
    Fault::Answer { status, headers: Vec::new(), body: Some(body) }
}

/// Calls for the audience with this cohort id meet the fault.
fn fail_audience(launchdarkly: &StandIn, audience: &str, fault: Fault) {
    let audience = format!("aud_{audience}");
    launchdarkly.script(
        move |call| {
            if call.audience == audience { fault.clone() } else { Fault::None }
        },
    );
}

async fn a_conflict_that_lasts_is_said_in_launchdarklys_words_and_delays_no_other() {
    let launchdarkly = launchdarkly().await;
    let words = "a segment with this key exists already";
    fail_audience(&launchdarkly, "taken", says(409, "key_exists", words));
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    enter(&cohortd, "taken", &["user001", "user002"]).await;
    let line = cohortd.until_logged(FAILS_AGAIN_AND_AGAIN).await;
    assert_eq!((&line["level"], &line["audience.id"]), (&"WARN".into(), &"aud_taken".into()));
    assert_eq!((&line["status"], &line["what"]), (&409.into(), &"conflict".into()));
    assert_eq!((&line["code"], &line["answer.message"]), (&"key_exists".into(), &words.into()));
    assert_eq!((&line["answer.id"], &line["failures"]), (&"answer-7".into(), &3.into()));
    assert!(line["next_attempt_s"].as_u64() <= Some(5), "{line}");
    let why = line["why"].as_str().expect("text");
    assert!(why.contains("not a concurrent change"), "{why}");

    enter(&cohortd, "free", &["user001"]).await;
    until_in(&launchdarkly, "free", &["user001"]).await;
    let refused = launchdarkly.calls().refused;
    let more = |view: &View<'_>| view.calls().refused >= refused + 3;
    launchdarkly.until(DEADLINE, more).await.expect("it is tried again and again");
    assert_eq!(cohortd.count_logged(FAILS_AGAIN_AND_AGAIN), 1, "and said once a minute");
    let text = installation.types(Some(cohortd.admin), &["audiences", "production"]).done();
    for said in
        ["audience aud_taken, ", "status 409, key_exists, ", words, "answer-7", "next attempt"]
    {
        assert!(text.contains(said), "{said:?} is not in\n{text}");
    }
    assert!(!text.contains("audience aud_free, "), "{text}");
    launchdarkly.behave();
    until_in(&launchdarkly, "taken", &["user001", "user002"]).await;
    assert!(cohortd.stop().0.success());
}

async fn words_that_quote_a_member_are_not_logged() {
    let launchdarkly = launchdarkly().await;
    fail_audience(&launchdarkly, "taken", says(409, "odd", "USER001 is somewhere else"));
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    enter(&cohortd, "taken", &["user001", "user002"]).await;
    let line = cohortd.until_logged(FAILS_AGAIN_AND_AGAIN).await;
    assert_eq!((&line["code"], &line["answer.message"]), (&"odd".into(), &"".into()));
    let (status, log) = cohortd.stop();
    assert!(status.success());
    assert!(!log.iter().any(|line| line.contains("USER001")), "P8");
}

async fn the_words_of_an_outage_are_said() {
    let launchdarkly = launchdarkly().await;
    fail_audience(&launchdarkly, "vip", says(503, "maintenance", "back in an hour"));
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    enter(&cohortd, "vip", &["user001"]).await;
    for message in ["LaunchDarkly is unavailable: will retry", FAILS_AGAIN_AND_AGAIN] {
        let line = cohortd.until_logged(message).await;
        assert_eq!((&line["status"], &line["code"]), (&503.into(), &"maintenance".into()));
        assert_eq!(line["answer.message"], "back in an hour");
        assert_eq!(line["answer.id"], "answer-7");
    }
    launchdarkly.behave();
    until_in(&launchdarkly, "vip", &["user001"]).await;
    assert!(cohortd.stop().0.success());
}

async fn a_hold_says_what_the_words_mean_and_which_setting_changes_it() {
    let needs = "bypassRequiredSegmentApproval";
    for (status, code, message, what, why, remedy) in [
        (403, "forbidden", "approval is required", "approval_required", "approval", needs),
        (
            401,
            "unauthorized",
            "You do not have permission to perform this action",
            "not_permitted",
            "launchdarkly.service_token",
            "updateIncluded",
        ),
        (
            401,
            "unauthorized",
            "The access token has expired",
            "token_refused",
            "launchdarkly.service_token",
            "new service token",
        ),
        (
            404,
            "not_found",
            "Unknown environment",
            "unknown_environment",
            "launchdarkly.client_side_id",
            "launchdarkly.base_url",
        ),
    ] {
        let launchdarkly = launchdarkly().await;
        fail_audience(&launchdarkly, "vip", says(status, code, message));
        let installation = Installation::new(&launchdarkly);
        let cohortd = installation.start();
        enter(&cohortd, "vip", &["user001"]).await;
        let line = cohortd.until_logged(HELD).await;
        assert_eq!((&line["status"], &line["what"]), (&status.into(), &what.into()));
        assert_eq!((&line["code"], &line["answer.message"]), (&code.into(), &message.into()));
        assert!(line["why"].as_str().expect("text").contains(why), "{line}");
        assert!(line["remedy"].as_str().expect("text").contains(remedy), "{line}");
        let shown = cohortd.status().await;
        let shown = &shown["destinations"]["production"]["held"];
        assert_eq!(shown["why"], line["why"]);
        launchdarkly.behave();
        until_in(&launchdarkly, "vip", &["user001"]).await;
        assert!(cohortd.stop().0.success());
    }
}

async fn an_outage_is_waited_out_as_its_retry_after_says() {
    let in_three_seconds = || {
        let at = jiff::Timestamp::now() + Duration::from_secs(3);
        at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
    };
    for (retry_after, status, at_least_ms) in [
        ("1.5".to_owned(), 503, 1500),
        ("2".to_owned(), 500, 2000),
        (String::new(), 503, 1900), // a date, with whole seconds
    ] {
        let launchdarkly = launchdarkly().await;
        let arrivals = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&arrivals);
        let retry_after = retry_after.clone();
        launchdarkly.script(move |_| {
            let mut kept = kept.lock().expect("nothing panics");
            kept.push(Instant::now());
            if kept.len() > 1 {
                return Fault::None;
            }
            let asked =
                if retry_after.is_empty() { in_three_seconds() } else { retry_after.clone() };
            let headers = vec![("Retry-After".to_owned(), asked)];
            Fault::Answer { status, headers, body: Some("{}".to_owned()) }
        });
        let installation = Installation::new(&launchdarkly);
        let cohortd = installation.start();
        enter(&cohortd, "vip", &["user001"]).await;
        until_in(&launchdarkly, "vip", &["user001"]).await;
        let arrivals = arrivals.lock().expect("nothing panics").clone();
        let [first, second, ..] = arrivals[..] else { panic!("two calls") };
        let waited = second - first;
        assert!(waited >= Duration::from_millis(at_least_ms), "{status}: only {waited:?}");
        assert!(waited < Duration::from_secs(10), "{status}: {waited:?}");
        assert!(cohortd.stop().0.success());
    }
}

/// A refusal may be a transient fault, so a single member is tried once more.
async fn a_lone_member_is_parked_only_if_it_is_refused_again() {
    for (refusals, parked) in [(1, &[][..]), (2, &["user001"])] {
        let launchdarkly = launchdarkly().await;
        let refuse = says(400, "invalid_request", "no");
        let mut times = 0;
        launchdarkly.script(move |call| {
            if call.audience != "aud_vip" {
                return Fault::None;
            }
            times += 1;
            if times <= refusals { refuse.clone() } else { Fault::None }
        });
        let mut installation = Installation::new(&launchdarkly);
        installation
            .set("delivery.retry_floor_ms", "2000")
            .set("delivery.retry_ceiling_ms", "2000");
        let cohortd = installation.start();
        enter(&cohortd, "vip", &["user001"]).await;
        let asked = |view: &View<'_>| view.calls().total >= 1;
        launchdarkly.until(DEADLINE, asked).await.expect("it is asked");
        // Meanwhile other members are delivered.
        enter(&cohortd, "other", &["user002"]).await;
        until_in(&launchdarkly, "other", &["user002"]).await;
        assert!(!launchdarkly.segments(ENVIRONMENT).contains_key("aud_vip"), "it waits");
        installation.drained().await;
        let there = launchdarkly.segments(ENVIRONMENT);
        assert_eq!(there.contains_key("aud_vip"), parked.is_empty(), "{refusals} refusals");
        assert!(cohortd.stop().0.success());
        let found = installation.parked().await;
        let found: Vec<&str> = found.iter().map(|parked| parked.context_key.as_str()).collect();
        assert_eq!(found, parked, "{refusals} refusals");
        let ledger = installation.ledger();
        let members = ledger.reader().members(&production()).expect("readable");
        assert!(members.iter().all(|member| !member.pending));
    }
}

tests![
    a_conflict_that_lasts_is_said_in_launchdarklys_words_and_delays_no_other,
    words_that_quote_a_member_are_not_logged,
    the_words_of_an_outage_are_said,
    a_hold_says_what_the_words_mean_and_which_setting_changes_it,
    an_outage_is_waited_out_as_its_retry_after_says,
    a_lone_member_is_parked_only_if_it_is_refused_again,
];
