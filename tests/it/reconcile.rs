//! `cohortd reconcile`: a file becomes the truth of an audience at its time (P2, P4), or is refused with the
//! reason.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::Duration;

use cohortd::sandbox::{Fault, StandIn, View};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::harness::{
    Cohortd, DEADLINE, ENVIRONMENT, Installation, identify, iso, launchdarkly, send,
};

const NOW_MS: i64 = 1_750_000_000_000;
/// Events are of a time that the daemon still remembers leavers of.
pub const MEMORY: &str = "315360000";

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

pub async fn until_members(launchdarkly: &StandIn, people: &BTreeSet<String>) {
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

/// Events of any time before, during and after; the daemon is killed in between, and the same command typed again.
async fn killed_at_any_point_and_typed_again_it_is_as_the_model() {
    let seed: u64 = rand::random();
    note!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (launchdarkly, installation, cohortd) = running().await;
    let as_of_ms = NOW_MS + 10_000;
    let mut some = |count: usize| -> Vec<(String, bool, i64)> {
        let mut one = || {
            let who = format!("p{}", random.random_range(0..6000));
            // Never at the time of the file itself: there the later arrival wins, and nobody knows which that is.
            let at = as_of_ms + 2 * random.random_range(-5_000..15_000_i64) + 1;
            (who, random.random_bool(0.7), at)
        };
        (0..count).map(|_| one()).collect()
    };
    let (before, during, after) = (some(6000), some(1500), some(1500));
    let file: BTreeSet<String> = some(5000).into_iter().map(|(who, ..)| who).collect();
    let pause = std::time::Duration::from_millis(random.random_range(0..600));
    happens(&cohortd, &before).await;
    let keys: Vec<&str> = file.iter().map(String::as_str).collect();
    installation.write("keys", &(keys.join("\n") + "\n"));

    let as_of = iso(as_of_ms);
    let words = ["reconcile", "aud_vip", "--file", "keys", "--as-of", &as_of, "--yes"];
    let mut line = installation.line(Some(cohortd.admin), &words);
    let mut child = line.stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("it runs");
    // The point of the kill is random, so this is a time and no event.
    let _ = tokio::time::timeout(pause, happens(&cohortd, &during)).await;
    cohortd.kill();
    child.wait().expect("it is our child");

    let cohortd = installation.start();
    happens(&cohortd, &during).await; // Segment repeats what was not answered
    installation.drained().await; // what was in the ledger goes on, so another one has to wait
    installation.types(Some(cohortd.admin), &words).done();
    happens(&cohortd, &after).await;
    // The file says who was in at its time, and the latest event behind that who is in since.
    let mut model: BTreeMap<&str, (bool, i64)> =
        file.iter().map(|who| (who.as_str(), (true, as_of_ms))).collect();
    for (who, enters, at) in before.iter().chain(&during).chain(&after) {
        let known = model.entry(who).or_insert((false, as_of_ms));
        if *at >= known.1 {
            *known = (*enters, *at);
        }
    }
    let is_in = |(who, (is_in, _)): (&&str, &(bool, i64))| is_in.then(|| (*who).to_owned());
    let expected: BTreeSet<String> = model.iter().filter_map(is_in).collect();
    installation.drained().await;
    until_members(&launchdarkly, &expected).await;
    assert!(cohortd.stop().0.success());
}

/// An event that is older than the file changes nobody once the file was taken in, whoever it is about.
async fn what_is_older_than_the_file_and_arrives_after_it_has_lost() {
    let (launchdarkly, installation, cohortd) = running().await;
    let event = |who: &str, enters, at| (who.to_owned(), enters, NOW_MS + at);
    happens(&cohortd, &[event("stays", true, 0), event("left", false, 0)]).await;
    installation.write("keys", "stays\nnew\n");
    let as_of = iso(NOW_MS + 10);
    let words = ["reconcile", "aud_vip", "--file", "keys", "--as-of", &as_of];
    installation.types(Some(cohortd.admin), &words).done();
    let late = [
        event("stays", false, 5),
        event("new", false, 5),
        event("left", true, 5),
        event("unknown", true, 5),
        event("later", true, 15),
    ];
    happens(&cohortd, &late).await;
    installation.drained().await;
    until_members(&launchdarkly, &set(&["stays", "new", "later"])).await;

    let earlier = iso(NOW_MS + 9);
    let words = ["reconcile", "aud_vip", "--file", "keys", "--as-of", &earlier, "--yes"];
    let refused = installation.types(Some(cohortd.admin), &words);
    let said = format!("follows a file of {}", iso(NOW_MS + 10).replace(".010Z", ""));
    assert_ne!(refused.code, 0);
    assert!(refused.complaint.contains(&said), "{}", refused.complaint);
}

/// To be in the file is to have entered, so entries that expire do so counted from its time.
async fn a_file_renews_entries_where_they_expire() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("ledger.tombstone_ttl_s", MEMORY);
    let expires = "destinations.production.mapping.audiences.brief.expires_after_s";
    installation.set(expires, MEMORY);
    let cohortd = installation.start();
    for audience in ["vip", "brief"] {
        for who in ["ada", "bob"] {
            let event = identify(who, audience, true, NOW_MS);
            assert_eq!(cohortd.post(&event).await.expect("an answer").0, 200);
        }
    }
    installation.write("keys", "ada\nbob\n");
    let as_of = iso(NOW_MS + 10_000);
    for audience in ["aud_vip", "aud_brief"] {
        let words = ["reconcile", audience, "--file", "keys", "--as-of", &as_of];
        let done = installation.types(Some(cohortd.admin), &words).done();
        assert!(done.contains("0 members enter, 0 leave, 2 stay"), "{done}");
    }
    let shown = installation.types(Some(cohortd.admin), &["member", "bob", "--json"]).done();
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    let times: BTreeMap<&str, &str> = shown
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|of| Some((of["audience"].as_str()?, of["event_at"].as_str()?)))
        .collect();
    let expected = [("aud_brief", iso(NOW_MS + 10_000)), ("aud_vip", iso(NOW_MS))];
    let expected = expected.iter().map(|(id, at)| (*id, at.as_str())).collect();
    assert_eq!(times, expected, "{shown}");
}

/// Members in the file: more than may wait while it is recorded.
const MANY: u64 = 20_000;

/// Waits until a list of the destination shows it, as this replica does.
async fn until_listed<T>(
    cohortd: &Cohortd,
    list: &str,
    shown: impl Fn(&[Value]) -> Option<T>,
) -> T {
    let url = format!("http://{}/api/v1/destinations/production/{list}", cohortd.admin);
    let client = reqwest::Client::builder().no_proxy().build().expect("a plain client");
    let looking = async {
        let mut looks = tokio::time::interval(std::time::Duration::from_millis(20));
        loop {
            looks.tick().await;
            let answer = client.get(&url).send().await.expect("an answer");
            let list: Value = answer.json().await.expect("JSON");
            if let Some(shown) = list["items"].as_array().and_then(|items| shown(items)) {
                return shown;
            }
        }
    };
    tokio::time::timeout(DEADLINE, looking).await.expect("it never shows that")
}

/// Waits until a reconciliation has begun to record, and for so many changes; how many it has to make in all.
pub async fn until_recorded(cohortd: &Cohortd, at_least: u64) -> (u64, u64) {
    let shown = |items: &[Value]| {
        let found = items.iter().find(|item| item["kind"] == "reconcile")?;
        let (done, total) = (found["done"].as_u64()?, found["total"].as_u64()?);
        (done >= at_least).then_some((done, total))
    };
    until_listed(cohortd, "progress", shown).await
}

/// Waits until the latest reconciliation is as wanted.
pub async fn until_reconciling(cohortd: &Cohortd, holds: impl Fn(&Value) -> bool) {
    let shown = |items: &[Value]| items.last().filter(|latest| holds(latest)).map(|_| ());
    until_listed(cohortd, "reconcile", shown).await;
}

/// The audit line of the latest of so many reconciliations.
pub async fn audited(cohortd: &Cohortd, count: usize) -> Value {
    const AUDIT: &str = "operator: audience reconciled with a snapshot";
    let looking = async {
        let mut looks = tokio::time::interval(std::time::Duration::from_millis(20));
        while cohortd.count_logged(AUDIT) < count {
            looks.tick().await;
        }
    };
    tokio::time::timeout(DEADLINE, looking).await.expect("it is never logged");
    let lines = cohortd.log();
    let line = lines.iter().rfind(|line| line.contains(AUDIT)).expect("it was counted");
    serde_json::from_str(line).expect("JSON")
}

async fn broken_off_by_anybody_it_goes_on_where_it_was_and_delivery_goes_first() {
    let (launchdarkly, installation, cohortd) = running().await;
    let people: BTreeSet<String> = (0..MANY).map(|number| format!("p{number:05}")).collect();
    let keys: Vec<&str> = people.iter().map(String::as_str).collect();
    installation.write("keys", &(keys.join("\n") + "\n"));
    let as_of = iso(NOW_MS);
    let words = |file: &'static str, as_of: &'static str| {
        ["reconcile", "aud_vip", "--file", file, "--as-of", as_of, "--audience-key", "vip"]
    };
    let as_of: &'static str = as_of.leak();
    // Nothing is delivered, so what is recorded waits, and no more is recorded than may wait.
    launchdarkly.script(|_| Fault::status(503));
    let begun = |cohortd: &Cohortd, file| {
        let mut line = installation.line(Some(cohortd.admin), &words(file, as_of));
        let keys = std::fs::File::open(installation.directory.path().join("keys"));
        line.stdin(keys.expect("it was written")).stdout(Stdio::null()).stderr(Stdio::piped());
        line.spawn().expect("it runs")
    };
    let ended = |child: std::process::Child| {
        let output = child.wait_with_output().expect("it is our child");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    let child = begun(&cohortd, "-");
    let (_, total) = until_recorded(&cohortd, 5000).await;
    assert_eq!(total, MANY);
    let dropped = installation.types(Some(cohortd.admin), &["drop", "aud_vip", "--yes"]);
    assert_ne!(dropped.code, 0, "whoever is in the file would come back");
    assert!(dropped.complaint.contains("a reconcile is under way"), "{}", dropped.complaint);

    // Ctrl-C, and then SIGTERM.
    let mut first = 0;
    let mut child = Some(child);
    for (signal, lines) in [(Signal::INT, 1), (Signal::TERM, 2)] {
        let child = child.take().unwrap_or_else(|| begun(&cohortd, "keys"));
        let (_, total) = until_recorded(&cohortd, 0).await;
        assert_eq!(total, MANY - first, "only what is left");
        send(signal, child.id());
        let (code, said) = ended(child);
        assert_eq!(code, Some(130), "{said}");
        assert!(said.contains("the same command does what is left"), "{said}");
        let line = audited(&cohortd, lines).await;
        first += line["entered"].as_u64().expect("a number");
        assert_eq!(line["complete"], false);
        assert!((5000..MANY - 5000).contains(&first), "it did not hold back: {first}");
    }

    // The daemon stops: the ledger has the rest, and nobody types anything again.
    let child = begun(&cohortd, "keys");
    let (_, total) = until_recorded(&cohortd, 0).await;
    assert_eq!(total, MANY - first, "only what is left");
    assert!(cohortd.stop().0.success());
    let (code, said) = ended(child);
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("it goes on by itself once the daemon runs again"), "{said}");
    assert!(said.contains("it need not be typed again"), "{said}");

    launchdarkly.behave();
    let cohortd = installation.start();
    let line = cohortd.until_logged("operator: audience reconciled with a snapshot").await;
    let last = line["entered"].as_u64().expect("a number");
    assert_eq!((&line["complete"], last), (&json!(true), MANY - first), "{line}");
    assert_eq!(line["from"], "127.0.0.1", "who asked is known after a restart");
    until_members(&launchdarkly, &people).await;
    installation.drained().await;
    let calls = launchdarkly.calls().members;
    assert!(calls <= MANY + 2, "{calls} members were told of {MANY}");
}

async fn while_delivery_is_paused_all_of_a_file_is_recorded() {
    let (launchdarkly, installation, cohortd) = running().await;
    let people: BTreeSet<String> = (0..MANY).map(|number| format!("p{number:05}")).collect();
    let keys: Vec<&str> = people.iter().map(String::as_str).collect();
    installation.write("keys", &(keys.join("\n") + "\n"));
    let as_of = iso(NOW_MS);
    let line =
        ["reconcile", "aud_vip", "--file", "keys", "--as-of", &as_of, "--audience-key", "vip"];
    installation.types(Some(cohortd.admin), &["pause"]).done();
    installation.types(Some(cohortd.admin), &line).done();
    assert_eq!(audited(&cohortd, 1).await["entered"], MANY);
    assert_eq!(launchdarkly.calls().taken, 0, "delivery is paused");
    installation.types(Some(cohortd.admin), &["resume"]).done();
    until_members(&launchdarkly, &people).await;
}

/// Killed in the middle, it goes on at the next start; until then its ledger is sound, and is not copied elsewhere.
async fn killed_in_the_middle_it_goes_on_by_itself_at_the_next_start() {
    let (launchdarkly, installation, cohortd) = running().await;
    let stay: Vec<_> = (0..500).map(|number| (format!("stays{number}"), true, NOW_MS)).collect();
    let leave: Vec<_> = (0..500).map(|number| (format!("leaves{number}"), true, NOW_MS)).collect();
    happens(&cohortd, &[&stay[..], &leave[..]].concat()).await;
    installation.drained().await;
    let newcomers = (0..MANY).map(|number| format!("p{number:05}"));
    let people: BTreeSet<String> = stay.iter().map(|of| of.0.clone()).chain(newcomers).collect();
    let keys: Vec<&str> = people.iter().map(String::as_str).collect();
    installation.write("keys", &(keys.join("\n") + "\n"));
    let as_of = iso(NOW_MS + 10);
    let words = ["reconcile", "aud_vip", "--file", "keys", "--as-of", &as_of, "--yes"];
    launchdarkly.script(|_| Fault::status(503));
    let mut line = installation.line(Some(cohortd.admin), &words);
    let child = line.stderr(Stdio::null()).stdout(Stdio::null()).spawn();
    let mut child = child.expect("it runs");
    until_recorded(&cohortd, 3000).await;
    child.kill().expect("it is our child");
    child.wait().expect("it is our child");
    cohortd.kill();

    installation.types(None, &["ledger", "check"]).done();
    let database = format!("@{}", installation.directory.path().join("no-url").display());
    installation.write("no-url", "postgres://nobody@127.0.0.1:9/none?sslmode=disable");
    let ledger = installation.ledger_path().display().to_string();
    let copy = installation.types(None, &["ledger", "copy", "--from", &ledger, "--to", &database]);
    assert_eq!(copy.code, 69, "{}", copy.complaint);
    assert!(
        copy.complaint.contains("a reconciliation in it is not finished"),
        "{}",
        copy.complaint
    );

    let cohortd = installation.start();
    let (_, total) = until_recorded(&cohortd, 3000).await;
    assert_eq!(total, MANY + 500);
    let again = installation.types(Some(cohortd.admin), &words);
    assert_eq!(again.code, 69, "one only has to wait: {}", again.complaint);
    assert!(again.complaint.contains("another reconcile of this audience is under way"));
    let dropped = installation.types(Some(cohortd.admin), &["drop", "aud_vip", "--yes"]);
    assert_eq!(dropped.code, 69, "{}", dropped.complaint);
    launchdarkly.behave();
    let line = cohortd.until_logged("operator: audience reconciled with a snapshot").await;
    let said = ["entered", "left", "complete"].map(|name| line[name].clone());
    assert_eq!(said, [json!(MANY), json!(500), json!(true)], "{line}");
    until_members(&launchdarkly, &people).await;
    installation.drained().await;
    assert!(cohortd.stop().0.success());
    let db = rusqlite::Connection::open(installation.ledger_path().join("ledger.db"));
    let db = db.expect("it is stopped");
    let left = "SELECT count(*) FROM reconciliation_piece";
    assert_eq!(db.query_row(left, [], |row| row.get(0)), Ok(0_u64));

    // One whose process died before all was in the ledger is not gone on with, and whoever reads the log knows it.
    db.execute_batch(
        "INSERT INTO reconciliation (destination, audience_id, process, stage, about, since, total, done, entered, left)
         VALUES ('production', 'aud_vip', 1, 'staging', '', 1, 0, 0, 0, 0)",
    )
    .expect("it is stopped");
    drop(db);
    let cohortd = installation.start();
    let warning = "a reconcile was broken off before the ledger had all that it changes: give the same command again";
    let line = cohortd.until_logged(warning).await;
    assert_eq!(line["audience"], "aud_vip", "{line}");
    installation.drained().await;
    let later = iso(NOW_MS + 20);
    let words = ["reconcile", "aud_vip", "--file", "keys", "--as-of", &later, "--yes"];
    installation.types(Some(cohortd.admin), &words).done();
}

/// One that is still being sent, and changes nothing, while others are typed.
async fn a_dry_run_keeps_no_other_out_and_a_refusal_that_passes_says_so() {
    let (launchdarkly, installation, cohortd) = running().await;
    let as_of = iso(NOW_MS);
    let path = format!(
        "/api/v1/destinations/production/reconcile?audience=aud_vip&audience_key=vip&as_of={as_of}&dry_run=true"
    );
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/octet-stream\r\n\
         content-length: 1000\r\n\r\nada\n"
    );
    let mut sender = TcpStream::connect(cohortd.admin).await.expect("it listens");
    sender.write_all(head.as_bytes()).await.expect("it reads");
    let client = reqwest::Client::builder().no_proxy().build().expect("a plain client");
    let url = format!("http://{}{path}", cohortd.admin);
    let refused = async {
        let mut tries = tokio::time::interval(Duration::from_millis(20));
        loop {
            tries.tick().await;
            let asked = client.post(&url).header("content-type", "application/octet-stream");
            let answer = asked.body("ada\n").send().await.expect("an answer");
            if answer.status() == 409 {
                return answer;
            }
        }
    };
    let refused = tokio::time::timeout(DEADLINE, refused).await.expect("two dry runs at a time");
    assert!(refused.headers().contains_key("retry-after"), "{refused:?}");
    installation.write("keys", "ada\n");
    let words =
        ["reconcile", "aud_vip", "--file", "keys", "--as-of", &as_of, "--audience-key", "vip"];
    let again = installation.types(Some(cohortd.admin), &[&words[..], &["--dry-run"]].concat());
    assert_eq!(again.code, 69, "{}", again.complaint);
    assert!(again.complaint.contains("another dry run of a reconcile"), "{}", again.complaint);
    installation.types(Some(cohortd.admin), &words).done();
    until_members(&launchdarkly, &set(&["ada"])).await;
    drop(sender);
}

/// Whoever of its file was deleted meanwhile would be taken for somebody new.
async fn one_that_waits_for_longer_than_deletions_are_remembered_is_given_up() {
    const MEMORY_S: i64 = 2;
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("ledger.tombstone_ttl_s", &MEMORY_S.to_string());
    let cohortd = installation.start();
    let people: BTreeSet<String> = (0..MANY).map(|number| format!("p{number:05}")).collect();
    let keys: Vec<&str> = people.iter().map(String::as_str).collect();
    installation.write("keys", &(keys.join("\n") + "\n"));
    launchdarkly.script(|_| Fault::status(503));
    let as_of = iso(NOW_MS);
    let words = [
        "reconcile",
        "aud_vip",
        "--file",
        "keys",
        "--as-of",
        &as_of,
        "--audience-key",
        "vip",
        "--yes",
    ];
    let mut line = installation.line(Some(cohortd.admin), &words);
    let child = line.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
    until_reconciling(&cohortd, |of| {
        let since = of["since"].as_str().and_then(|since| since.parse::<jiff::Timestamp>().ok());
        let age = since.map(|since| jiff::Timestamp::now().duration_since(since).as_secs());
        of["stage"] == "recording" && age.is_some_and(|age| age > MEMORY_S)
    })
    .await;
    launchdarkly.behave();
    let line = cohortd
        .until_logged(
            "a reconcile cannot go on: what was recorded stays; give the same command again",
        )
        .await;
    let why = line["why"].as_str().expect("a reason");
    assert!(why.contains("ledger.tombstone_ttl_s"), "{line}");
    let ended = child.wait_with_output().expect("it is our child");
    let said = String::from_utf8(ended.stderr).expect("it writes text");
    assert_eq!(ended.status.code(), Some(64), "{said}");
    assert!(said.contains("the same again does what is left"), "{said}");
    until_reconciling(&cohortd, |of| of["stage"] == "stopped").await;
}

tests![
    a_file_becomes_the_truth_at_its_time_and_what_is_newer_stays,
    what_looks_like_a_mistake_is_refused_and_changes_nothing,
    an_audience_that_the_ledger_has_lost_comes_back,
    what_is_older_than_the_file_and_arrives_after_it_has_lost,
    a_file_renews_entries_where_they_expire,
    broken_off_by_anybody_it_goes_on_where_it_was_and_delivery_goes_first,
    while_delivery_is_paused_all_of_a_file_is_recorded,
    killed_in_the_middle_it_goes_on_by_itself_at_the_next_start,
    a_dry_run_keeps_no_other_out_and_a_refusal_that_passes_says_so,
    one_that_waits_for_longer_than_deletions_are_remembered_is_given_up,
    killed_at_any_point_and_typed_again_it_is_as_the_model,
];
