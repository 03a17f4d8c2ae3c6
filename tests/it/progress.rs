//! Long work shows how far it is and when it will be over: in the API, and in the commands that wait
//! for it. Whoever stops looking does not stop it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use cohortd::sandbox::View;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Cohortd, DEADLINE, Installation, identify, launchdarkly, send};

const NOW_MS: i64 = 1_750_000_000_000;
/// More than the ledger lets wait at once while something is done to all of them.
const CROWD: usize = 7_000;

async fn crowd(cohortd: &Cohortd) {
    for part in 0..CROWD / 1000 {
        let who = (0..1000).map(|number| format!("p{part}-{number}"));
        let events: Vec<Value> = who.map(|who| identify(&who, "vip", true, NOW_MS)).collect();
        assert_eq!(cohortd.post_batch(&events).await.expect("an answer").0, 200);
    }
}

struct Steering {
    client: reqwest::Client,
    base: String,
}

impl Steering {
    fn of(cohortd: &Cohortd) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().expect("a plain client");
        Self { client, base: format!("http://{}/api/v1/destinations/production", cohortd.admin) }
    }

    async fn post(&self, verb: &str, body: Value) -> Value {
        let request = self.client.post(format!("{}/{verb}", self.base)).json(&body);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "{verb}");
        answer.json().await.expect("JSON")
    }

    async fn progress(&self) -> Vec<Value> {
        let answer = self.client.get(format!("{}/progress", self.base)).send().await;
        let list: Value = answer.expect("an answer").json().await.expect("JSON");
        list["items"].as_array().expect("a list").clone()
    }

    /// Waits until what is under way is as wanted.
    async fn until(&self, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let looking = async {
            let mut looks = tokio::time::interval(std::time::Duration::from_millis(50));
            loop {
                looks.tick().await;
                let items = self.progress().await;
                if holds(&items) {
                    return items;
                }
            }
        };
        tokio::time::timeout(DEADLINE, looking).await.expect("the progress is never as wanted")
    }
}

/// Waits until `cohortd audiences` says this.
async fn until_listed(words: &str, installation: &Installation, cohortd: &Cohortd) {
    let mut listed = String::new();
    let looking = async {
        let mut looks = tokio::time::interval(std::time::Duration::from_millis(50));
        loop {
            looks.tick().await;
            listed = installation.types(Some(cohortd.admin), &["audiences"]).done();
            if listed.contains(words) {
                break;
            }
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, looking).await;
    assert!(in_time.is_ok(), "it is never listed so, but {listed}");
}

/// A command that waits, and what it has said first.
fn waiting(installation: &Installation, cohortd: &Cohortd, words: &[&str]) -> (Child, String) {
    let mut command = installation.line(Some(cohortd.admin), words);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    let first = next_line(&mut child);
    (child, first)
}

/// The next line that it says; empty once it has ended.
fn next_line(child: &mut Child) -> String {
    let mut line = String::new();
    let stderr = child.stderr.as_mut().expect("it is piped");
    // Byte by byte, so that nothing of what comes later is kept back.
    for byte in BufReader::with_capacity(1, stderr).bytes() {
        match byte.expect("it can be read") {
            b'\n' => break,
            byte => line.push(byte.into()),
        }
    }
    line
}

/// How it ended, and the rest of what it said.
fn ended(mut child: Child) -> (i32, String) {
    let stderr = child.stderr.take().expect("it is piped");
    let lines: Vec<String> = BufReader::new(stderr).lines().map_while(Result::ok).collect();
    let code = child.wait().expect("it is our child").code();
    (code.expect("it ends by itself"), lines.join("\n"))
}

async fn a_resync_shows_how_far_it_is_and_who_waits_for_it_sees_its_end() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    crowd(&cohortd).await;
    installation.drained().await;
    let told = launchdarkly.calls().members;
    let steering = Steering::of(&cohortd);
    assert_eq!(steering.progress().await, Vec::<Value>::new());

    steering.post("pause", json!({})).await;
    let words = ["resync", "aud_vip", "--wait"];
    let (impatient, line) = waiting(&installation, &cohortd, &words);
    assert!(line.contains("of 7000, paused: cohortd resume production"), "{line}");
    send(Signal::INT, impatient.id());
    let (code, words) = ended(impatient);
    assert_eq!(code, 130, "{words}");
    let said = " of 7000, paused: cohortd resume production resumes it; no longer waiting: `";
    assert!(words.contains(said), "{words}");

    let items = steering.until(|items| items.iter().any(|item| item["kind"] == "resync")).await;
    let [item] = &items[..] else { panic!("one work: {items:?}") };
    assert_eq!((&item["audience"], &item["total"]), (&json!("aud_vip"), &json!(CROWD)));
    assert!(item["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{item}");
    assert!(item["done"].as_u64().is_some_and(|done| done < CROWD as u64), "{item}");
    assert!(item["remaining_s"].is_null() || item["remaining_s"].is_u64(), "{item}");
    // It has come past as many as may wait at once, and none of them has been told.
    until_listed("resync: 5000 of 7000", &installation, &cohortd).await;

    // A restart goes on where it was, and knows how far that is.
    assert!(cohortd.stop().0.success());
    let cohortd = installation.start();
    let steering = Steering::of(&cohortd);
    let again = steering.progress().await;
    assert_eq!((&again[0]["total"], &again[0]["since"]), (&item["total"], &item["since"]));
    until_listed("resync: 5000 of 7000", &installation, &cohortd).await;

    let words = ["resync", "aud_vip", "--wait"];
    let (patient, line) = waiting(&installation, &cohortd, &words);
    assert!(line.contains("of 7000, paused"), "{line}");
    steering.post("resume", json!({})).await;
    let (code, words) = ended(patient);
    assert_eq!(code, 0, "{words}");
    let all_again = |view: &View<'_>| view.calls().members >= told + CROWD as u64;
    assert!(
        launchdarkly.until(std::time::Duration::ZERO, all_again).await.is_ok(),
        "it waited until everybody was told"
    );
    assert_eq!(steering.progress().await, Vec::<Value>::new());
}

/// All of a small audience waits as soon as it is asked for: the end is when nobody does any more.
/// Whoever waits for what cannot come is told so.
async fn who_waits_for_a_disabled_destination_is_told_that_it_is() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    cohortd.post(&identify("ada", "vip", true, NOW_MS)).await.expect("an answer");
    installation.drained().await;
    assert!(cohortd.stop().0.success());
    installation.set("destinations.production.enabled", "false");
    let cohortd = installation.start();
    let (mut waits, line) = waiting(&installation, &cohortd, &["resync", "--all", "--wait"]);
    assert_eq!(line, "0 of 1, nothing is delivered to production: the destination is disabled");
    waits.kill().expect("it is our child");
    waits.wait().expect("it is our child");
    assert!(cohortd.stop().0.success());
}

async fn who_waits_for_few_waits_until_they_are_told() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let people = ["ada", "bob"].map(|who| identify(who, "vip", true, NOW_MS));
    cohortd.post_batch(&people).await.expect("an answer");
    installation.drained().await;
    let steering = Steering::of(&cohortd);
    steering.post("pause", json!({})).await;
    let (mut patient, line) = waiting(&installation, &cohortd, &["resync", "--all", "--wait"]);
    assert!(line.contains("0 of 2, paused"), "{line}");
    steering.until(|items| items.iter().all(|item| item["kind"] != "resync")).await;
    let line = next_line(&mut patient);
    assert!(line.contains("0 of 2, paused"), "it is over, and they are not told: {line}");
    steering.post("resume", json!({})).await;
    let (code, words) = ended(patient);
    assert_eq!(code, 0, "{words}");
    assert_eq!(words.lines().last(), Some("2 of 2, no member is waiting"), "{words}");
    assert_eq!(launchdarkly.calls().members, 4);

    // Whoever loses the daemon meanwhile is told how far it was, and what becomes of the rest.
    steering.post("pause", json!({})).await;
    let (impatient, line) = waiting(&installation, &cohortd, &["resync", "--all", "--wait"]);
    assert!(line.contains("0 of 2, paused"), "{line}");
    assert!(cohortd.stop().0.success());
    let (code, words) = ended(impatient);
    assert_eq!(code, 69, "{words}");
    let said = "resumes it; the daemon continues with the rest once it runs again: http";
    assert!(words.contains("0 of 2, paused: ") && words.contains(said), "{words}");
}

async fn a_retraction_that_is_waited_for_leaves_nobody() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    crowd(&cohortd).await;
    installation.drained().await;
    let words = ["drop", "production", "--retract", "--wait"];
    installation.types(Some(cohortd.admin), &words).done();
    let nobody = |view: &View<'_>| {
        view.segment(crate::harness::ENVIRONMENT, "aud_vip").is_some_and(|of| of.members.is_empty())
    };
    let there = launchdarkly.until(std::time::Duration::ZERO, nobody).await;
    assert!(there.is_ok(), "it waited until everybody had left");
}

async fn a_backlog_that_lasts_and_a_replay_in_parts_are_long_work_too() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let steering = Steering::of(&cohortd);
    let nobody = |number: usize| {
        let mut event =
            identify("nobody", "vip", true, NOW_MS + i64::try_from(number).expect("few"));
        event["userId"] = Value::Null;
        event
    };
    let events: Vec<Value> = (0..600).map(nobody).collect();
    assert_eq!(cohortd.post_batch(&events).await.expect("an answer").0, 400);
    let part = steering.post("rejected/replay", json!({"force": true})).await;
    assert_eq!(part["rejected"].as_array().map(Vec::len), Some(500));
    let items = steering.progress().await;
    assert_eq!(items[0]["kind"], "replay");
    assert_eq!((&items[0]["done"], &items[0]["total"]), (&json!(500), &json!(600)));
    assert!(items[0]["audience"].is_null());
    steering.post("rejected/replay", json!({"force": true, "after": part["next_after"]})).await;
    assert_eq!(steering.progress().await, Vec::<Value>::new());

    steering.post("pause", json!({})).await;
    let people = ["ada", "bob"].map(|who| identify(who, "vip", true, NOW_MS));
    cohortd.post_batch(&people).await.expect("an answer");
    let items = steering.until(|items| !items.is_empty()).await;
    assert_eq!((&items[0]["kind"], &items[0]["total"]), (&json!("drain"), &json!(2)));
    assert_eq!((&items[0]["done"], &items[0]["remaining_s"]), (&json!(0), &Value::Null));
    steering.post("resume", json!({})).await;
    steering.until(<[Value]>::is_empty).await;
}

tests![
    a_resync_shows_how_far_it_is_and_who_waits_for_it_sees_its_end,
    who_waits_for_a_disabled_destination_is_told_that_it_is,
    who_waits_for_few_waits_until_they_are_told,
    a_retraction_that_is_waited_for_leaves_nobody,
    a_backlog_that_lasts_and_a_replay_in_parts_are_long_work_too,
];
