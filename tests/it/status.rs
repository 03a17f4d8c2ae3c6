//! `cohortd status` against the running daemon: what it says, and the exit codes scripts act on.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::Stdio;

use cohortd::sandbox::Fault;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{DEADLINE, ENVIRONMENT, Installation, Typed, identify, launchdarkly, send};

const NOW_MS: i64 = 1_750_000_000_000;

fn status(installation: &Installation, admin: SocketAddr, arguments: &[&str]) -> (i32, String) {
    let words: Vec<&str> = ["status"].into_iter().chain(arguments.iter().copied()).collect();
    let Typed { code, out, complaint } = installation.types(Some(admin), &words);
    (code, out + &complaint)
}

async fn status_tells_well_from_held_and_from_gone() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("admin.tokens", "planted-admin-token");
    let cohortd = installation.start();
    let told = || status(&installation, cohortd.admin, &[]);

    let (code, text) = told();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("production   waiting for the first event"), "{text}");

    launchdarkly.script(|_| Fault::status(401));
    cohortd.post(&identify("ada", "vip", true, NOW_MS)).await.expect("an answer");
    let held = "destination held: events are kept, nothing is delivered until this is fixed";
    cohortd.logged(held).await;
    let (code, text) = told();
    assert_eq!(code, 75, "{text}");
    assert!(text.contains("production   held  "), "{text}");
    assert!(text.contains(": LaunchDarkly refuses the service token"), "{text}");
    assert!(text.contains("(status 401"), "{text}");
    assert!(text.contains("what to do: create a new service token"), "{text}");
    let (code, json) = status(&installation, cohortd.admin, &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).expect("one JSON object");
    assert_eq!((code, &json["destinations"]["production"]["state"]), (75, &"held".into()));

    launchdarkly.script(|_| Fault::None);
    let has = |view: &cohortd::sandbox::View<'_>| view.has(ENVIRONMENT, "aud_vip", "ada");
    launchdarkly.until(DEADLINE, has).await.expect("it recovers by itself");
    cohortd.logged("destination no longer held").await;
    assert_eq!(told().0, 0);

    installation.set("admin.tokens", "another");
    let (code, text) = status(&installation, cohortd.admin, &[]);
    assert_eq!(code, 64, "{text}");
    assert!(text.contains("send one of admin.tokens"), "{text}");

    let address = cohortd.admin;
    cohortd.kill();
    let (code, text) = status(&installation, address, &[]);
    assert_eq!(code, 69, "{text}");
    assert!(text.contains("is the daemon running?"), "{text}");
}

async fn status_is_shown_again_and_again_until_ctrl_c_also_over_a_restart() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let first = cohortd.log().remove(0);
    let first: Value = serde_json::from_str(&first).expect("a line of JSON");
    assert_eq!(first["message"], "configuration read", "{first}");
    assert_eq!(first["ledger.path"], installation.ledger_path().display().to_string());
    let variables = first["variables"].as_str().expect("their names");
    assert!(
        variables.contains("COHORTD_LEDGER__PATH") && !variables.contains("planted"),
        "{first}"
    );

    let mut line = installation.line(Some(cohortd.admin), &["status", "--watch", "1"]);
    let mut child = line.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut shown = || {
        lines.by_ref().find(|line| line.as_ref().is_ok_and(|line| line.starts_with("production ")))
    };
    assert!(shown().is_some() && shown().is_some());
    let admin = cohortd.admin.to_string();
    assert!(cohortd.stop().0.success());
    let mut complaint = BufReader::new(child.stderr.take().expect("it is piped")).lines();
    let complaint = complaint.next().expect("a line").expect("text");
    assert!(complaint.contains("is the daemon running?"), "{complaint}");
    installation.set("admin.address", &admin);
    let _cohortd = installation.start();
    assert!(shown().is_some());
    send(Signal::INT, child.id());
    assert_eq!(child.wait().expect("it is our child").code(), Some(130));
}

/// What people and programs see while LaunchDarkly is down, while delivery is paused, and when all is well
/// again.
async fn status_says_how_far_behind_a_destination_is_and_what_the_last_error_was() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let typed = |arguments: &[&str]| status(&installation, cohortd.admin, arguments);
    let production = |status: &Value| status["destinations"]["production"].clone();

    let answer = json!({"code": "overloaded", "message": "ada", "id": "answer-7"}).to_string();
    launchdarkly.script(move |_| Fault::Answer {
        status: 409,
        headers: vec![("x-ratelimit-global-remaining".to_owned(), "4".to_owned())],
        body: Some(answer.clone()),
    });
    let at_first = cohortd.status().await;
    assert_eq!((&at_first["ready"], &at_first["version"]), (&true.into(), &"0.1.0".into()));
    assert_eq!(production(&at_first)["last_event_at"], Value::Null);
    cohortd.post(&identify("ada", "vip", true, NOW_MS)).await.expect("an answer");
    let behind = cohortd
        .until_status(|status| {
            let of = production(status);
            of["last_error"]["status"] == 409 && of["oldest_pending_ms"].as_u64() > Some(0)
        })
        .await;
    let of = production(&behind);
    assert!(of["state"] == "ok" || of["state"] == "attention", "not late yet: {of}");
    assert_eq!(of["pending"], 1, "{of}");
    assert_eq!(of["last_error"]["what"], "conflict");
    assert_eq!(of["rate_limits"]["global"]["remaining"], 4);
    assert!(of["last_event_at"].is_string() && of["last_success_at"].is_null(), "{of}");
    assert_eq!(typed(&[]).0, 0, "it has not waited for five minutes");
    let (code, text) = typed(&["--behind-s", "0"]);
    assert_eq!(code, 75, "{text}");
    assert!(text.contains("production   behind"), "{text}");

    // Someone who pauses it and forgets is reminded.
    assert_eq!(installation.types(Some(cohortd.admin), &["pause", "production"]).code, 0);
    let (code, text) = typed(&["--behind-s", "0"]);
    assert_eq!(code, 75, "{text}");
    assert!(text.contains("production   paused"), "{text}");
    let remedy = "cohortd resume production resumes it";
    assert!(text.contains(remedy) && text.contains("status 409"), "{text}");

    // It restarts, and the waiting time continues.
    let waited = production(&cohortd.status().await)["oldest_pending_ms"].as_u64();
    assert!(cohortd.stop().0.success());
    let cohortd = installation.start();
    let of = production(&cohortd.status().await);
    assert!(of["oldest_pending_ms"].as_u64() > waited, "{of}");
    launchdarkly.behave();
    assert_eq!(installation.types(Some(cohortd.admin), &["resume", "production"]).code, 0);
    installation.drained().await;
    let well = cohortd.until_status(|status| production(status)["since"].is_string()).await;
    let of = production(&well);
    assert_eq!((&of["state"], &of["pending"]), (&"ok".into(), &0.into()), "{of}");
    assert!(of["last_success_at"].is_string() && of["last_error"].is_null(), "{of}");
    assert_eq!(status(&installation, cohortd.admin, &["--behind-s", "0"]).0, 0);
}

tests![
    status_tells_well_from_held_and_from_gone,
    status_is_shown_again_and_again_until_ctrl_c_also_over_a_restart,
    status_says_how_far_behind_a_destination_is_and_what_the_last_error_was,
];
