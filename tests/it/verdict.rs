//! The verdict never says that all is well when it is not: each situation as shown by the log,
//! `cohortd status`, `/status` and the metric (P7).

use std::fmt::Write;

use cohortd::clock::{Clock, SystemClock};
use cohortd::sandbox::{Fault, StandIn};
use serde_json::{Value, json};

use crate::harness::{Cohortd, Installation, Poster, identify, iso, launchdarkly};

const NOW_MS: i64 = 1_750_000_000_000;

fn says(status: u16, code: &str, message: &str) -> Fault {
    let body = json!({"code": code, "message": message, "id": "answer-7"}).to_string();
    Fault::Answer { status, headers: Vec::new(), body: Some(body) }
}

fn of(status: &Value) -> Value {
    status["destinations"]["production"].clone()
}

/// What must be shown in a situation.
struct Expected<'a> {
    state: &'a str,
    exit: i32,
    /// The kind of the first concern; empty if there is none.
    concern: &'a str,
    /// Text in the output of `cohortd status`.
    said: &'a [&'a str],
    /// The message in the log; empty if there is none.
    logged: &'a str,
}

/// Waits for the verdict and checks it everywhere it is shown.
async fn seen(installation: &Installation, cohortd: &Cohortd, case: &str, expected: &Expected<'_>) {
    let Expected { state, exit, concern, said, logged } = *expected;
    let shown = cohortd
        .until_status(|status| {
            let of = of(status);
            let first = of["concerns"][0]["kind"].as_str().unwrap_or_default();
            of["state"] == state && first == concern
        })
        .await;
    let of = of(&shown);
    for part in of["concerns"].as_array().expect("a list") {
        for words in [&part["why"], &part["remedy"]] {
            assert!(words.as_str().is_some_and(|words| words.len() > 10), "{case}: {part}");
        }
    }
    assert!(of["since"].is_string() || !["ok", "held", "behind"].contains(&state), "{case}: {of}");
    let typed = installation.types(Some(cohortd.admin), &["status"]);
    let text = typed.out + &typed.complaint;
    assert_eq!(typed.code, exit, "{case}: {text}");
    for words in [&[state], said].concat() {
        assert!(text.contains(words), "{case}: {words:?} is not in\n{text}");
    }
    let metrics = cohortd.metrics("text/plain").await.1;
    let sample =
        format!("cohortd_destination_state{{destination=\"production\",state=\"{state}\"}} 1");
    assert!(metrics.contains(&sample), "{case}");
    let line = if logged.is_empty() { Value::Null } else { cohortd.until_logged(logged).await };
    let mut shown = String::new();
    let _ = writeln!(shown, "{case}: {state}\n  log: {line}\n{text}"); // memory does not fail
    note!("{shown}");
}

async fn enter(poster: &Poster, user: &str) {
    let (status, answer) =
        poster.post(&identify(user, "vip", true, NOW_MS)).await.expect("an answer");
    assert_eq!((status, &answer["accepted"]), (200, &1.into()), "{answer}");
}

struct Scene {
    launchdarkly: StandIn,
    installation: Installation,
    cohortd: Cohortd,
}

impl Scene {
    async fn new(fault: Fault) -> Self {
        let launchdarkly = launchdarkly().await;
        launchdarkly.script(move |_| fault.clone());
        let installation = Installation::new(&launchdarkly);
        let cohortd = installation.start();
        Self { launchdarkly, installation, cohortd }
    }

    async fn seen(&self, case: &str, expected: Expected<'_>) {
        seen(&self.installation, &self.cohortd, case, &expected).await;
    }

    async fn has_since(&self) {
        let of = of(&self.cohortd.status().await);
        assert!(of["since"].is_string() && of["concerns"][0]["since"].is_string(), "{of}");
    }
}

async fn before_the_first_event_it_says_what_to_put_into_segment() {
    let scene = Scene::new(Fault::None).await;
    let said = &["/segment/production", "X-Signature with one of segment.shared_secrets"];
    let expected =
        Expected { state: "waiting for the first event", exit: 0, concern: "", said, logged: "" };
    scene.seen("never an event", expected).await;
    enter(&scene.cohortd.poster(), "ada").await;
    let well = scene.cohortd.until_status(|status| of(status)["state"] == "ok").await;
    assert_eq!(of(&well)["setup"], Value::Null);
}

async fn a_wrong_secret_needs_attention_until_that_path_succeeds_again() {
    let scene = Scene::new(Fault::None).await;
    let event = identify("ada", "vip", true, NOW_MS).to_string();
    let poster = scene.cohortd.poster();
    enter(&poster, "bea").await;
    for _ in 0..40 {
        let answer = poster.post_as("another", "production", event.clone(), &event);
        assert_eq!(answer.await.expect("an answer").0, 401);
    }
    let said = &["40 requests were refused at /segment/production", "shared_secrets"];
    let logged = "requests that look like Segment's were refused; Segment will not retry them";
    let expected = Expected { state: "attention", exit: 0, concern: "refused", said, logged };
    scene.seen("wrong secret", expected).await;
    enter(&poster, "ada").await;
    scene.cohortd.until_status(|status| of(status)["state"] == "ok").await;
}

async fn a_restart_forgets_no_trouble_and_no_success() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let event = identify("ada", "vip", true, NOW_MS).to_string();
    enter(&cohortd.poster(), "bea").await;
    for _ in 0..40 {
        let answer = cohortd.poster().post_as("another", "production", event.clone(), &event).await;
        assert_eq!(answer.expect("an answer").0, 401);
    }
    let (status, _) = cohortd.post(&json!({"foo": 1})).await.expect("an answer");
    assert_eq!(status, 400);
    cohortd.stop();

    let cohortd = installation.start();
    let said = &[
        "40 requests were refused at /segment/production",
        "shared_secrets",
        "1 event could not be applied",
        "not_an_event",
    ];
    let expected = Expected { state: "attention", exit: 0, concern: "refused", said, logged: "" };
    seen(&installation, &cohortd, "after a restart", &expected).await;
    enter(&cohortd.poster(), "ada").await;
    cohortd.until_status(|status| of(status)["concerns"][0]["kind"] == "not_kept").await;
    cohortd.stop();

    // events that the previous mapping could not apply say nothing about this one
    installation.set("destinations.production.mapping.subscribe", "type = \"identify\"");
    let cohortd = installation.start();
    let well = cohortd.until_status(|status| of(status)["state"] == "ok").await;
    assert_eq!(of(&well)["concerns"], json!([]));

    // everybody is erased, but there was a first event all the same
    installation.types(Some(cohortd.admin), &["drop", "production", "aud_vip"]).done();
    cohortd.stop();
    let cohortd = installation.start();
    let state = of(&cohortd.status().await)["state"].clone();
    assert_eq!(state, "ok");
}

/// The note is written within five seconds. What a kill loses before that is not claimed afterwards:
/// neither that all was well nor that it was not.
async fn after_a_kill_nothing_is_claimed_that_is_not_known() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let event = identify("ada", "vip", true, NOW_MS).to_string();
    let wrong = async |cohortd: &Cohortd| {
        let answer = cohortd.poster().post_as("another", "production", event.clone(), &event).await;
        assert_eq!(answer.expect("an answer").0, 401);
    };
    enter(&cohortd.poster(), "bea").await;
    cohortd.until_status(|status| of(status)["state"] == "ok").await;
    wrong(&cohortd).await;
    cohortd.kill();

    // trouble that was not noted: nothing is said about the time before this process
    let before = iso(SystemClock.now().0 / 1000);
    let cohortd = installation.start();
    let status = cohortd.until_status(|status| of(status)["state"] == "ok").await;
    let well = of(&status);
    assert_eq!(well["concerns"], json!([]), "{well}");
    assert!(well["since"].as_str().is_none_or(|since| since >= &before[..]), "{well}");
    for unknown in ["last_event_at", "last_success_at", "refused"] {
        assert_eq!(well[unknown], Value::Null, "{well}");
    }

    // trouble that was noted, and a success that was not
    wrong(&cohortd).await;
    let is_noted = || {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        let path = installation.ledger_path().join("ledger.db");
        let db = rusqlite::Connection::open_with_flags(path, flags).expect("the ledger is there");
        let note =
            "SELECT count(*) FROM meta WHERE name = 'note' AND value LIKE '%Unauthenticated%'";
        db.query_row(note, [], |row| row.get::<_, u64>(0)).expect("it can be read") == 1
    };
    cohortd.until_status(|_| is_noted()).await;
    enter(&cohortd.poster(), "ada").await;
    cohortd.until_status(|status| of(status)["state"] == "ok").await;
    cohortd.kill();

    let cohortd = installation.start();
    let said = &["1 request was refused at /segment/production", "in its last minute is unknown"];
    let expected = Expected { state: "attention", exit: 0, concern: "refused", said, logged: "" };
    seen(&installation, &cohortd, "after a kill", &expected).await;
    assert!(cohortd.stop().0.success());

    // a stop in between adds no knowledge
    let cohortd = installation.start();
    seen(&installation, &cohortd, "after a kill and a restart", &expected).await;
    enter(&cohortd.poster(), "cleo").await;
    cohortd.until_status(|status| of(status)["state"] == "ok").await;
    wrong(&cohortd).await;
    let refused = cohortd.until_status(|status| of(status)["state"] == "attention").await;
    let why = of(&refused)["concerns"][0]["why"].as_str().expect("text").to_owned();
    assert!(!why.contains("is not known"), "{why}");
}

/// A note of another version: the parts that are understood count, and the rest is reported once.
async fn a_note_of_another_version_is_taken_as_far_as_it_is_understood() {
    let forgotten = "the record of refused and unusable requests was written by another version \
                     and is only partly understood: the rest is not reported until it happens \
                     again";
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let event = identify("ada", "vip", true, NOW_MS).to_string();
    for (secret, name) in [("another", "production"), ("another", "prodution")] {
        let answer = cohortd.poster().post_as(secret, name, event.clone(), &event).await;
        assert!(answer.expect("an answer").0 > 400);
    }
    let (status, _) = cohortd.post(&json!({"foo": 1})).await.expect("an answer");
    assert_eq!(status, 400);
    assert!(cohortd.stop().0.success());
    let of_another = |note: &str| {
        let odd = note.replacen("Unauthenticated", "Bewildered", 1);
        assert_ne!(odd, note);
        odd.replacen("\"refused\":", "\"mood\":\"blue\",\"refused\":", 1)
    };
    installation.replace_note(of_another).await;
    let cohortd = installation.start();
    let line = cohortd.until_logged(forgotten).await;
    assert!(line["level"] == "WARN" && line["lost"] == 1, "{line}");
    let status = cohortd.status().await;
    let kinds: Vec<_> = of(&status)["concerns"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|of| of["kind"].clone())
        .collect();
    assert_eq!(kinds, ["refused", "only_rejected"], "{status}");
    assert_eq!(of(&status)["refused"][0]["path"], "/segment/prodution");
    assert_eq!(cohortd.count_logged(forgotten), 1);
    assert!(cohortd.stop().0.success());
    let cohortd = installation.start();
    assert_eq!(cohortd.count_logged(forgotten), 0, "it is left as this version writes it");
}

async fn a_wrong_path_needs_attention_and_names_the_nearest() {
    let scene = Scene::new(Fault::None).await;
    let event = identify("ada", "vip", true, NOW_MS).to_string();
    let posted = scene.cohortd.post_to("prodution", event.clone(), &event).await;
    assert_eq!(posted.expect("an answer").0, 404);
    let said = &["refused", "/segment/production"];
    let logged = "requests that look like Segment's were refused; Segment will not retry them";
    let expected = Expected { state: "attention", exit: 0, concern: "refused", said, logged };
    scene.seen("wrong path", expected).await;
}

async fn what_is_only_ignored_needs_attention() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("destinations.production.mapping.subscribe", "type = \"track\"");
    let cohortd = installation.start();
    let event = identify("ada", "vip", true, NOW_MS);
    let (status, answer) = cohortd.post(&event).await.expect("an answer");
    assert_eq!((status, &answer["ignored"]), (200, &1.into()), "{answer}");
    let said = &["no subscription selects", "ignored so far: identify", "mapping.subscribe"];
    let logged = "destination needs attention";
    let expected = Expected { state: "attention", exit: 0, concern: "only_ignored", said, logged };
    seen(&installation, &cohortd, "only ignored", &expected).await;
}

async fn what_is_rejected_or_parked_needs_attention() {
    let scene = Scene::new(Fault::None).await;
    let poster = scene.cohortd.poster();
    enter(&poster, "ada").await;
    let mut event = identify("ada", "vip", true, NOW_MS);
    event["userId"] = Value::Null;
    let (status, answer) = scene.cohortd.post(&event).await.expect("an answer");
    assert_eq!(status, 400, "{answer}");
    let said = &["rejected", "cohortd rejected list production"];
    let logged = "destination needs attention";
    let expected = Expected { state: "attention", exit: 0, concern: "rejected", said, logged };
    scene.seen("rejected", expected).await;
    scene.has_since().await;

    let scene = Scene::new(says(400, "invalid_request", "no")).await;
    enter(&scene.cohortd.poster(), "ada").await;
    let said = &["LaunchDarkly refused 1 member", "cohortd parked requeue production"];
    let logged = "members refused: parked; the latest is shown";
    let expected = Expected { state: "attention", exit: 0, concern: "parked", said, logged };
    scene.seen("parked", expected).await;
    scene.has_since().await;
}

async fn what_is_rejected_and_not_kept_needs_attention_however_much_was_taken_before() {
    let scene = Scene::new(Fault::None).await;
    let poster = scene.cohortd.poster();
    enter(&poster, "ada").await;
    let none = json!({"foo": 1});
    let batch = [identify("bea", "vip", true, NOW_MS), none.clone()];
    let (status, answer) = poster.post_batch(&batch).await.expect("an answer");
    assert_eq!((status, &answer["accepted"]), (200, &1.into()), "{answer}");
    let said = &["1 event could not be applied", "not kept", "not_an_event", "cohortd explain"];
    let logged = "destination needs attention";
    let expected = Expected { state: "attention", exit: 0, concern: "not_kept", said, logged };
    scene.seen("not kept", expected).await;
    scene.has_since().await;

    // a request of which nothing is accepted does not end what was refused at its path
    let scene = Scene::new(Fault::None).await;
    let poster = scene.cohortd.poster();
    enter(&poster, "ada").await;
    let event = identify("ada", "vip", true, NOW_MS).to_string();
    let refused = poster.post_as("another", "production", event.clone(), &event).await;
    assert_eq!(refused.expect("an answer").0, 401);
    assert_eq!(poster.post(&none).await.expect("an answer").0, 400);
    let said = &["1 request was refused at /segment/production"];
    let expected = Expected { state: "attention", exit: 0, concern: "refused", said, logged: "" };
    scene.seen("refused, then rejected", expected).await;
}

async fn what_is_switched_off_is_shown() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("destinations.production.enabled", "false");
    let cohortd = installation.start();
    let event = identify("ada", "vip", true, NOW_MS);
    assert_eq!(cohortd.post(&event).await.expect("an answer").0, 503);
    let said = &["enabled = false", "destinations.production.enabled = true"];
    let expected = Expected { state: "paused", exit: 0, concern: "disabled", said, logged: "" };
    seen(&installation, &cohortd, "disabled", &expected).await;
}

async fn a_hold_says_which_it_is() {
    let held = "destination held: events are kept, nothing is delivered until this is fixed";
    for (case, fault, said) in [
        ("held by 401", says(401, "unauthorized", "invalid token"), "a new service token"),
        (
            "held by approval",
            says(403, "forbidden", "approval is required"),
            "bypassRequiredSegmentApproval",
        ),
    ] {
        let scene = Scene::new(fault).await;
        enter(&scene.cohortd.poster(), "ada").await;
        let said = &[said];
        let expected = Expected { state: "held", exit: 75, concern: "held", said, logged: held };
        scene.seen(case, expected).await;
        scene.launchdarkly.behave();
        scene.cohortd.until_status(|status| of(status)["state"] == "ok").await;
    }
}

/// A LaunchDarkly that accepts nothing is not being caught up with, nor is a single failing audience for
/// ever.
async fn what_is_not_taken_is_behind() {
    let again = "calls for this audience have failed several times in a row: will retry";
    let limited = Fault::Answer {
        status: 429,
        headers: vec![("retry-after".to_owned(), "1".to_owned())],
        body: None,
    };
    for (case, fault, said) in [
        ("LaunchDarkly down", says(503, "maintenance", "soon"), "status 503"),
        ("rate limited", limited, "is rate limiting calls"),
        ("a conflict that lasts", says(409, "key_exists", "it is there"), "key_exists"),
    ] {
        let scene = Scene::new(fault).await;
        enter(&scene.cohortd.poster(), "ada").await;
        let said = &[said, "aud_vip"];
        let concern = "audience_failing";
        let expected = Expected { state: "behind", exit: 75, concern, said, logged: again };
        scene.seen(case, expected).await;
        scene.launchdarkly.behave();
        scene.cohortd.until_status(|status| of(status)["state"] == "ok").await;
    }
}

async fn a_refused_configuration_is_said_until_it_is_mended() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    installation.write_config("[delivery]\nlinger_ms = 500\n");
    let cohortd = installation.start();
    enter(&cohortd.poster(), "ada").await;
    installation.write_config("[delivery]\nlingre_ms = 500\n");
    let shown = cohortd.until_status(|status| status["configuration"].is_object()).await;
    assert!(shown["configuration"]["faults"].to_string().contains("lingre_ms"), "{shown}");
    let text = installation.types(Some(cohortd.admin), &["status"]).done();
    assert!(text.contains("THE CONFIGURATION ON DISK IS REFUSED"), "{text}");
    assert!(text.contains("lingre_ms") && text.contains("production   ok"), "{text}");
    let metrics = cohortd.metrics("text/plain").await.1;
    assert!(metrics.contains("cohortd_config_refused 1"), "{metrics}");
    installation.write_config("[delivery]\nlinger_ms = 500\n");
    let is_well = |status: &Value| status["ready"] == true && status["configuration"].is_null();
    cohortd.until_status(is_well).await;
    let metrics = cohortd.metrics("text/plain").await.1;
    assert!(metrics.contains("cohortd_config_refused 0"), "{metrics}");
}

/// Random paths and methods without credentials: every public server is scanned.
async fn a_scanner_turns_nothing_red() {
    let scene = Scene::new(Fault::None).await;
    enter(&scene.cohortd.poster(), "ada").await;
    scene.cohortd.until_status(|status| of(status)["state"] == "ok").await;
    let (client, lines) = (reqwest::Client::new(), scene.cohortd.log().len());
    let methods = [
        reqwest::Method::GET,
        reqwest::Method::POST,
        reqwest::Method::PUT,
        reqwest::Method::DELETE,
    ];
    for number in 0..400 {
        let url = format!("http://{}/x{number}/wp-login.php", scene.cohortd.public);
        let method = methods[number % methods.len()].clone();
        let answer = client.request(method, url).body("{}").send().await.expect("an answer");
        assert!(answer.status().is_client_error());
    }
    let status = scene.cohortd.status().await;
    assert_eq!(of(&status)["state"], "ok", "{status}");
    assert!(scene.cohortd.log().len() <= lines + 2 + 4, "beside what was delivered");
    let metrics = scene.cohortd.metrics("text/plain").await.1;
    let samples =
        metrics.lines().filter(|line| line.starts_with("cohortd_refused_requests_total{"));
    assert!(samples.count() <= 8);
}

tests![
    before_the_first_event_it_says_what_to_put_into_segment,
    a_wrong_secret_needs_attention_until_that_path_succeeds_again,
    a_restart_forgets_no_trouble_and_no_success,
    after_a_kill_nothing_is_claimed_that_is_not_known,
    a_note_of_another_version_is_taken_as_far_as_it_is_understood,
    a_wrong_path_needs_attention_and_names_the_nearest,
    what_is_only_ignored_needs_attention,
    what_is_rejected_or_parked_needs_attention,
    what_is_rejected_and_not_kept_needs_attention_however_much_was_taken_before,
    what_is_switched_off_is_shown,
    a_hold_says_which_it_is,
    what_is_not_taken_is_behind,
    a_refused_configuration_is_said_until_it_is_mended,
    a_scanner_turns_nothing_red,
];
