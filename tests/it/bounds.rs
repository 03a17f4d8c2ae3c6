//! P6: what a sender can make the daemon store is bounded: texts of an event, bytes of a call, and
//! audiences of a destination.

use cohortd::sandbox::View;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{Cohortd, DEADLINE, ENVIRONMENT, Installation, identify, launchdarkly};

const NOW_MS: i64 = 1_750_000_000_000;
/// The longest context key and the longest audience id, in bytes.
const KEY_BYTES: usize = 8192;
const NAME_BYTES: usize = 2048;

fn key(number: usize, bytes: usize) -> String {
    format!("{number:0>5}{}", "k".repeat(bytes - 5))
}

fn entries(users: impl IntoIterator<Item = String>) -> Vec<Value> {
    users.into_iter().map(|user| identify(&user, "vip", true, NOW_MS)).collect()
}

async fn delivered(launchdarkly: &cohortd::sandbox::StandIn, audience: &str, members: usize) {
    let all = |view: &View<'_>| {
        view.segment(ENVIRONMENT, audience).is_some_and(|of| of.members.len() == members)
    };
    launchdarkly.until(DEADLINE, all).await.expect("all are delivered");
}

async fn a_text_at_its_limit_is_delivered_and_one_byte_more_is_rejected_in_words() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let (longest, audience) = (key(1, KEY_BYTES), "a".repeat(NAME_BYTES - "aud_".len()));
    let (status, answer) =
        cohortd.post(&identify(&longest, &audience, true, NOW_MS)).await.expect("an answer");
    assert_eq!(status, 200, "{answer}");
    delivered(&launchdarkly, &format!("aud_{audience}"), 1).await;
    let there =
        launchdarkly.look(|view| view.has(ENVIRONMENT, &format!("aud_{audience}"), &longest));
    assert!(there, "nothing was cut");

    let too_long = key(2, KEY_BYTES + 1);
    let said = "field_too_long: segment_user_id is longer than the limit of 8192 bytes \
                ($.userId): shorten it where it is set, or map another field.";
    let event = identify(&too_long, "vip", true, NOW_MS);
    let (status, answer) = cohortd.post(&event).await.expect("an answer");
    assert_eq!((status, &answer["rejected"][0]["reason"]), (400, &json!(said)));
    let name = identify("ada", &format!("{audience}a"), true, NOW_MS);
    let (status, answer) = cohortd.post(&name).await.expect("an answer");
    let reason = answer["rejected"][0]["reason"].as_str().expect("text");
    let id = "field_too_long: segment_audience_id is longer than the limit of 2048 bytes";
    assert!(status == 400 && reason.starts_with(id), "{status} {reason}");

    let batch = [identify("bob", "vip", true, NOW_MS), event.clone()];
    let (status, answer) = cohortd.post_batch(&batch).await.expect("an answer");
    assert_eq!(
        (status, &answer["accepted"], &answer["rejected"][0]["index"]),
        (200, &json!(1), &json!(1))
    );
    std::fs::write(installation.directory.path().join("event.json"), event.to_string())
        .expect("it is ours");
    let words = ["explain", "--json", "--file", "event.json"];
    let typed = installation.types(None, &words);
    let explained: Value = serde_json::from_str(&typed.out).expect("JSON");
    assert_eq!(typed.code, 1, "{explained}");
    assert_eq!((&explained["outcome"], &explained["reason"]), (&json!("rejected"), &json!(said)));
    // A deletion is never refused: an older version may have accepted the id.
    let deletion = json!({"type": "delete", "userId": too_long});
    let (status, answer) = cohortd.post(&deletion).await.expect("an answer");
    assert_eq!((status, &answer["accepted"]), (200, &json!(1)));
    let (_, metrics) = cohortd.metrics("text/plain").await;
    let is_counted = |line: &str| line.contains("\"field_too_long\"") && line.ends_with(" 3");
    assert!(metrics.lines().any(is_counted), "{metrics}");
}

async fn a_batch_of_long_keys_is_cut_where_its_call_would_be_too_large() {
    const MEMBERS: usize = 400;
    const MOST_BYTES: usize = 16 * 1024;
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("destinations.production.delivery.max_body_kib", "16");
    let cohortd = installation.start();
    let events = entries((0..MEMBERS).map(|number| key(number, 1024)));
    let (status, answer) = cohortd.post_batch(&events).await.expect("an answer");
    assert_eq!((status, &answer["accepted"]), (200, &json!(MEMBERS)), "{answer}");
    delivered(&launchdarkly, "aud_vip", MEMBERS).await;
    let log = launchdarkly.log();
    let largest = log.iter().map(|call| call.bytes).max().expect("there were calls");
    let most = log.iter().map(|call| call.members).max().expect("there were calls");
    note!("{} calls of at most {largest} bytes and {most} members", log.len());
    assert!(largest <= MOST_BYTES, "{largest} bytes");
    assert_eq!(most, 14, "as many as fit");

    // Short keys still fill a batch.
    let short = entries((0..100).map(|number| format!("user{number}")));
    let (status, _) = cohortd.post_batch(&short).await.expect("an answer");
    assert_eq!(status, 200);
    delivered(&launchdarkly, "aud_vip", MEMBERS + 100).await;
    let log = launchdarkly.log();
    assert!(log.iter().any(|call| call.members == 100), "in one call: they take less than 16 KiB");
}

async fn past_the_limit_a_new_audience_is_rejected_and_known_ones_go_on() {
    const MOST: usize = 3;
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("ledger.max_audiences", &MOST.to_string());
    let cohortd = installation.start();
    let mut posting = JoinSet::new();
    for number in 0..5 * MOST {
        let (poster, audience) = (cohortd.poster(), format!("a{number}"));
        posting.spawn(async move {
            let event = identify("ada", &audience, true, NOW_MS);
            let (status, answer) = poster.post(&event).await.expect("an answer");
            (audience, status, answer)
        });
    }
    let answers = posting.join_all().await;
    let known: Vec<&str> =
        answers.iter().filter(|of| of.1 == 200).map(|of| of.0.as_str()).collect();
    assert_eq!(known.len(), MOST, "{answers:?}");
    for (_, status, answer) in answers.iter().filter(|of| of.1 != 200) {
        let reason = answer["rejected"][0]["reason"].as_str().expect("text");
        assert_eq!(*status, 400);
        assert!(reason.starts_with("too_many_audiences: "), "{reason}");
        assert!(reason.contains("ledger.max_audiences"), "{reason}");
    }

    let goes_on = async |cohortd: &Cohortd, user: &str| {
        let mut events: Vec<Value> =
            known.iter().map(|audience| identify(user, audience, true, NOW_MS)).collect();
        events.insert(1, identify(user, "another", true, NOW_MS));
        let (status, answer) = cohortd.post_batch(&events).await.expect("an answer");
        let rejected = &answer["rejected"];
        assert_eq!((status, &answer["accepted"]), (200, &json!(MOST)), "{answer}");
        assert_eq!((&rejected[0]["index"], rejected[1].is_null()), (&json!(1), true), "{answer}");
    };
    goes_on(&cohortd, "bob").await;
    for audience in &known {
        delivered(&launchdarkly, &format!("aud_{audience}"), 2).await;
    }
    cohortd.kill();
    let cohortd = installation.start();
    goes_on(&cohortd, "cyd").await;
    for audience in &known {
        delivered(&launchdarkly, &format!("aud_{audience}"), 3).await;
    }

    let dropped = format!("aud_{}", known[0]);
    installation.types(Some(cohortd.admin), &["drop", "production", &dropped]).done();
    let event = identify("ada", "another", true, NOW_MS);
    let taken = async {
        // Refused as long as a call of the dropped audience is in flight.
        while cohortd.post(&event).await.expect("an answer").0 != 200 {}
    };
    tokio::time::timeout(DEADLINE, taken).await.expect("its place is free");
    delivered(&launchdarkly, "aud_another", 1).await;
    let again = identify("dan", known[0], true, NOW_MS);
    let (status, _) = cohortd.post(&again).await.expect("an answer");
    assert_eq!(status, 400, "its place is taken");
}

async fn memory_stays_bounded_however_large_the_keys_are_that_are_sent() {
    const BUDGET_MIB: u64 = 64;
    const BODY_LIMIT_MIB: u64 = 32;
    const CACHE_MIB: u64 = 48;
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation
        .set("listen.body_budget_mib", &BUDGET_MIB.to_string())
        .set("listen.body_limit_mib", &BODY_LIMIT_MIB.to_string())
        .set("listen.answer_timeout_ms", "30000")
        .set("log.level", "info");
    let cohortd = installation.start();
    // Each key appears twice in its event, which may have 1 MiB.
    let large: Vec<Value> = entries((0..120).map(|number| key(number, 450 * 1024)));
    for large in large.chunks(30) {
        let (_, answer) = cohortd.post_batch(large).await.expect("an answer");
        assert_eq!(answer["rejected"].as_array().map(Vec::len), Some(large.len()));
    }
    let allowed = entries((0..400).map(|number| key(number, KEY_BYTES)));
    let (status, _) = cohortd.post_batch(&allowed).await.expect("an answer");
    assert_eq!(status, 200);
    delivered(&launchdarkly, "aud_vip", 400).await;
    let (peak, most) =
        (cohortd.memory_kib("VmHWM:"), (BUDGET_MIB + BODY_LIMIT_MIB + CACHE_MIB + 64) * 1024);
    note!("peak of {peak} KiB, of {most} allowed");
    assert!(peak < most, "{peak} KiB");
    assert!(cohortd.stop().0.success());
}

tests![
    a_text_at_its_limit_is_delivered_and_one_byte_more_is_rejected_in_words,
    a_batch_of_long_keys_is_cut_where_its_call_would_be_too_large,
    past_the_limit_a_new_audience_is_rejected_and_known_ones_go_on,
    memory_stays_bounded_however_large_the_keys_are_that_are_sent,
];
