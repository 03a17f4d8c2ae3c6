//! `cohortd reconcile`: a file becomes the truth of an audience at its time (P2, P4), or is refused with the
//! reason.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use cohortd::sandbox::{StandIn, View};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::harness::{Cohortd, DEADLINE, ENVIRONMENT, Installation, identify, iso, launchdarkly};

const NOW_MS: i64 = 1_750_000_000_000;
/// Events are of a time that the daemon still remembers leavers of.
const MEMORY: &str = "315360000";

async fn running() -> (StandIn, Installation, Cohortd) {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("ledger.tombstone_ttl_s", MEMORY);
    let cohortd = installation.start();
    (launchdarkly, installation, cohortd)
}

async fn happens(cohortd: &Cohortd, events: &[(String, bool, i64)]) {
    for part in events.chunks(500) {
        let event = |(who, enters, at): &(String, bool, i64)| identify(who, "vip", *enters, *at);
        let part: Vec<Value> = part.iter().map(event).collect();
        assert_eq!(cohortd.post_batch(&part).await.expect("an answer").0, 200);
    }
}

async fn until_members(launchdarkly: &StandIn, people: &BTreeSet<String>) {
    let as_wanted = |view: &View<'_>| {
        view.segment(ENVIRONMENT, "aud_vip").is_some_and(|of| of.members.iter().eq(people.iter()))
    };
    launchdarkly.until(DEADLINE, as_wanted).await.expect("the segment is as the model");
}

fn set(people: &[&str]) -> BTreeSet<String> {
    people.iter().map(|who| (*who).to_owned()).collect()
}

async fn a_file_becomes_the_truth_at_its_time_and_what_is_newer_stays() {
    let (launchdarkly, installation, cohortd) = running().await;
    let event = |who: &str, enters, at| (who.to_owned(), enters, NOW_MS + at);
    let events = [
        event("stays", true, 0),
        event("missed", true, 0),
        event("later", true, 20),
        event("gone", false, 0),
        event("left-later", false, 20),
        event("ada", true, 0),
        event("bob", true, 0),
        event("cyd", true, 0),
    ];
    happens(&cohortd, &events).await;
    installation.drained().await;
    let rows = "stays,true,1\r\ngone,TRUE,2\r\nleft-later,1,3\r\nnew,t,4\r\nada,t,\r\nbob,t,\r\ncyd,t,\r\nmissed,false,5\r\n";
    installation.write("vip.csv", &format!("\u{feff}\"user_id\",vip,n\r\n{rows}"));
    let as_of = iso(NOW_MS + 10);
    let words = ["reconcile", "aud_vip", "--file", "vip.csv", "--as-of", &as_of];
    let type_in = |more: &[&str]| {
        let words: Vec<&str> = words.iter().chain(more).copied().collect();
        installation.types(Some(cohortd.admin), &words)
    };
    let before = set(&["stays", "missed", "later", "ada", "bob", "cyd"]);

    let dry = type_in(&["--dry-run"]).done();
    let counts = "2 members would enter, 1 would leave, 4 stay, 2 changed later";
    assert!(dry.contains(counts), "{dry}");
    assert!(dry.contains("would enter, for example: gone, new"), "{dry}");
    assert!(dry.contains("would leave, for example: missed"), "{dry}");
    installation.drained().await;
    until_members(&launchdarkly, &before).await;
    assert_eq!(cohortd.count_logged("operator: audience reconciled with a snapshot"), 0);

    let done: Value = serde_json::from_str(&type_in(&["--json"]).done()).expect("JSON");
    let counts = ["enter", "leave", "stay", "newer"].map(|name| done[name].as_u64());
    assert_eq!(counts, [Some(2), Some(1), Some(4), Some(2)], "{done}");
    let after = set(&["stays", "later", "ada", "bob", "cyd", "gone", "new"]);
    until_members(&launchdarkly, &after).await;
    let line = cohortd.until_logged("operator: audience reconciled with a snapshot").await;
    let said = ["audit", "audience", "entered", "left", "complete"].map(|name| line[name].clone());
    let expected = [json!(true), json!("aud_vip"), json!(2), json!(1), json!(true)];
    assert_eq!(said, expected, "{line}");
    // Again: nothing is left to do.
    installation.drained().await;
    let calls = launchdarkly.calls().members;
    let again: Value = serde_json::from_str(&type_in(&["--json"]).done()).expect("JSON");
    assert_eq!((&again["enter"], &again["leave"]), (&0.into(), &0.into()), "{again}");
    installation.drained().await;
    assert_eq!(launchdarkly.calls().members, calls);
}

async fn what_looks_like_a_mistake_is_refused_and_changes_nothing() {
    let (launchdarkly, installation, cohortd) = running().await;
    let people = ["ada", "bob", "cyd", "dan"];
    let events: Vec<_> = people.map(|who| (who.to_owned(), true, NOW_MS)).into();
    happens(&cohortd, &events).await;
    installation.drained().await;
    let as_of = iso(NOW_MS + 10);
    let rows: &[(&str, &str, &[&str], &str)] = &[
        ("", "aud_vip", &[], "the file is empty"),
        ("ada\nbob\ncyd\nda", "aud_vip", &[], "ends within line 4"),
        ("user_id,note\nada,\"begun\n", "aud_vip", &[], "ends within line 3"),
        ("user_id,x\nada,1\n", "aud_vip", &["--column", "crm"], "no column of the name"),
        ("eve\nfay\n", "aud_vip", &[], "another audience's file"),
        ("ada\nbob\ncyd\n", "aud_vip", &[], "1 of 4 members would leave, more than 20 %"),
        ("ada\n", "aud_other", &[], "the ledger has no members of aud_other"),
        ("ada\n", "production", &[], "is a destination"),
        ("ada\n", "aud_vip", &["--as-of", "2999-01-01T00:00:00Z"], "lies in the future"),
        ("ada\n", "aud_vip", &["--as-of", "yesterday"], "is no time"),
    ];
    for (text, audience, more, expected) in rows {
        installation.write("file", text);
        let mut words = vec!["reconcile", audience, "--file", "file"];
        words.extend(*more);
        if !more.contains(&"--as-of") {
            words.extend(["--as-of", &as_of]);
        }
        let refused = installation.types(Some(cohortd.admin), &words);
        assert_eq!(refused.code, 64, "{text:?}: {}{}", refused.out, refused.complaint);
        assert!(refused.complaint.contains(expected), "{text:?}: {}", refused.complaint);
    }
    let words = ["reconcile", "aud_vip", "--file", "-"];
    let timeless = installation.types(Some(cohortd.admin), &words);
    assert!(timeless.complaint.contains("--as-of TIME"), "{}", timeless.complaint);
    until_members(&launchdarkly, &set(&people)).await;

    // Who has looked at it may want just that.
    installation.write("file", "ada\nbob\ncyd\n");
    let words = ["reconcile", "aud_vip", "--file", "file", "--as-of", &as_of, "--max-exits", "25"];
    installation.types(Some(cohortd.admin), &words).done();
    until_members(&launchdarkly, &set(&["ada", "bob", "cyd"])).await;
    installation.write("file", "eve\n");
    let later = iso(NOW_MS + 20);
    let words = ["reconcile", "aud_vip", "--file", "file", "--as-of", &later, "--yes"];
    installation.types(Some(cohortd.admin), &words).done();
    until_members(&launchdarkly, &set(&["eve"])).await;
}

async fn an_audience_that_the_ledger_has_lost_comes_back() {
    let (launchdarkly, installation, cohortd) = running().await;
    let as_of = iso(NOW_MS);
    installation.write("keys.jsonl", "{\"user_id\":\"ada\"}\n{\"user_id\":\"bob\"}\n");
    let words = ["reconcile", "aud_vip", "--file", "keys.jsonl", "--as-of", &as_of];
    let words: Vec<&str> = words.into_iter().chain(["--audience-key", "vip"]).collect();
    installation.types(Some(cohortd.admin), &words).done();
    until_members(&launchdarkly, &set(&["ada", "bob"])).await;
    // A deletion finds who came this way.
    installation.types(Some(cohortd.admin), &["forget", "bob", "--yes"]).done();
    until_members(&launchdarkly, &set(&["ada"])).await;
}

/// Events before, during and after; the daemon is killed in between, and the same command typed again.
async fn killed_at_any_point_and_typed_again_it_is_as_the_model() {
    let seed: u64 = rand::random();
    note!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (launchdarkly, installation, cohortd) = running().await;
    let mut model: BTreeMap<String, (bool, i64)> = BTreeMap::new();
    let mut apply = |events: &[(String, bool, i64)]| {
        for (who, enters, at) in events {
            let known = model.entry(who.clone()).or_insert((*enters, *at));
            if *at >= known.1 {
                *known = (*enters, *at);
            }
        }
        model.clone()
    };
    let mut some = |count: usize, times: std::ops::Range<i64>| -> Vec<(String, bool, i64)> {
        let mut one = || {
            let who = format!("p{}", random.random_range(0..6000));
            (who, random.random_bool(0.7), NOW_MS + random.random_range(times.clone()))
        };
        (0..count).map(|_| one()).collect()
    };
    let before = some(6000, 0..20_000);
    apply(&before);
    happens(&cohortd, &before).await;
    let file: BTreeSet<String> = some(5000, 0..1).into_iter().map(|(who, ..)| who).collect();
    let keys: Vec<&str> = file.iter().map(String::as_str).collect();
    installation.write("keys", &(keys.join("\n") + "\n"));
    let as_of_ms = 10_000;
    let during = some(1500, as_of_ms + 1..40_000);
    let after = some(500, as_of_ms + 1..40_000);
    let pause = std::time::Duration::from_millis(some(1, 0..600)[0].2.unsigned_abs() % 600);

    let as_of = iso(NOW_MS + as_of_ms);
    let words = ["reconcile", "aud_vip", "--file", "keys", "--as-of", &as_of, "--yes"];
    let mut line = installation.line(Some(cohortd.admin), &words);
    let mut child = line.stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("it runs");
    // The point of the kill is random, so this is a time and no event.
    let _ = tokio::time::timeout(pause, happens(&cohortd, &during)).await;
    cohortd.kill();
    child.wait().expect("it is our child");

    let cohortd = installation.start();
    happens(&cohortd, &during).await; // Segment repeats what was not answered
    installation.types(Some(cohortd.admin), &words).done();
    happens(&cohortd, &after).await;
    apply(&during);
    let mut model = apply(&after);
    for who in &file {
        model.entry(who.clone()).or_insert((true, NOW_MS + as_of_ms));
    }
    let is_in = |(who, (is_in, at)): (&String, &(bool, i64))| {
        let decided = if *at <= NOW_MS + as_of_ms { file.contains(who) } else { *is_in };
        decided.then(|| who.clone())
    };
    let expected: BTreeSet<String> = model.iter().filter_map(is_in).collect();
    installation.drained().await;
    until_members(&launchdarkly, &expected).await;
    assert!(cohortd.stop().0.success());
}

tests![
    a_file_becomes_the_truth_at_its_time_and_what_is_newer_stays,
    what_looks_like_a_mistake_is_refused_and_changes_nothing,
    an_audience_that_the_ledger_has_lost_comes_back,
    killed_at_any_point_and_typed_again_it_is_as_the_model,
];
