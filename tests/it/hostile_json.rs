//! JSON disguised as JSON within JSON (P5): keys to which `serde_json`'s features `raw_value` and
//! `arbitrary_precision` give a special meaning are ordinary keys here. Otherwise texts nested in texts
//! under such a key would overflow the stack and end the process, from 21 KB on. Each test covers one
//! input.

use std::io::Write;
use std::process::{Command, Stdio};

use cohortd::sandbox::{Fault, StandIn, View};
use serde_json::{Value, json};

use crate::harness::{Cohortd, DEADLINE, ENVIRONMENT, Installation, identify, launchdarkly};

const NOW_MS: i64 = 1_750_000_000_000;
const WRITE_KEY: &str = "planted-write-key";
const RAW_VALUE: &str = "$serde_json::private::RawValue";
const NUMBER: &str = "$serde_json::private::Number";

/// Brackets around each text: few enough for a parser that starts counting anew in each text.
const BRACKETS: usize = 110;

/// Some 260 KB; 16,000 levels deep for a parser that also reads the texts, which is more than the largest
/// stack here can take.
fn nested() -> String {
    texts_in_texts(150)
}

/// A value that is 111 levels deep, plus as many again for each nested text.
fn texts_in_texts(texts: usize) -> String {
    let mut text = "0".to_owned();
    for _ in 0..texts {
        // Each of these escapes grows by 5 bytes a level, where `\\` would double.
        let inside = text.replace('\\', "\\u005c").replace('"', "\\u0022");
        let (open, close) = ("[".repeat(BRACKETS), "]".repeat(BRACKETS));
        text = format!("{open}{{\"{RAW_VALUE}\":\"{inside}\"}}{close}");
    }
    text
}

/// An event whose user id is [`nested`]: the mapping's fast path does not apply to it.
fn hostile() -> String {
    let event = identify("PLACE", "vip", true, NOW_MS).to_string();
    event.replace("\"PLACE\"", &nested())
}

fn hostile_value() -> Value {
    // Kept as text, so that this process would not parse it if the features were ever enabled again.
    Value::String(hostile())
}

async fn running() -> (StandIn, Installation, Cohortd) {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("destinations.production.segment.write_keys", WRITE_KEY);
    installation.set("ledger.tombstone_ttl_s", "315360000");
    let cohortd = installation.start();
    (launchdarkly, installation, cohortd)
}

/// Checks that an honest sender is still served and that the daemon stops cleanly.
async fn goes_on(launchdarkly: &StandIn, cohortd: Cohortd) {
    let (status, answer) =
        cohortd.post(&identify("honest", "vip", true, NOW_MS)).await.expect("an answer");
    assert_eq!((status, &answer["accepted"]), (200, &json!(1)), "{answer}");
    for user in ["honest", "neighbour"] {
        let has = |view: &View<'_>| view.has(ENVIRONMENT, "aud_vip", user);
        launchdarkly.until(DEADLINE, has).await.expect("the member arrives");
    }
    let nobody = |view: &View<'_>| {
        view.segment(ENVIRONMENT, "aud_vip").is_some_and(|segment| segment.members.len() == 2)
    };
    assert!(launchdarkly.look(nobody), "nobody else is in");
    let (status, log) = cohortd.stop();
    assert!(status.success(), "{status}");
    assert!(!log.iter().any(|line| line.contains("panic")), "{}", log.join("\n"));
}

async fn neighbour(cohortd: &Cohortd) {
    let event = identify("neighbour", "vip", true, NOW_MS);
    assert_eq!(cohortd.post(&event).await.expect("an answer").0, 200);
}

async fn post(url: String, key: Option<&str>, body: String) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build();
    let mut request =
        client.expect("a client").post(url).header("content-type", "application/json");
    if let Some(key) = key {
        request = request.basic_auth(key, Some(""));
    }
    let answer = request.body(body).send().await.expect("it answers, and does not end");
    let status = answer.status().as_u16();
    (status, answer.json().await.expect("JSON"))
}

async fn in_the_unsigned_tail_of_a_batch() {
    let (launchdarkly, _installation, cohortd) = running().await;
    let first = identify("neighbour", "vip", true, NOW_MS).to_string();
    let victim = |key: &str, text: &str| {
        let mut event = identify("", "vip", true, NOW_MS);
        event["userId"] = json!({ key: text });
        event.to_string()
    };
    let tail = [hostile(), victim(RAW_VALUE, "\"victim\""), victim(NUMBER, "7")];
    let body = format!("[{first},{}]", tail.join(","));
    let (status, answer) = cohortd.post_signed(body, &first).await.expect("an answer");
    assert_eq!((status, &answer["accepted"]), (200, &json!(1)), "{answer}");
    let rejected = answer["rejected"].as_array().expect("a list");
    let of = |entry: &Value| {
        let reason = entry["reason"].as_str().unwrap_or_default().to_owned();
        (entry["index"].as_u64().unwrap_or_default(), reason)
    };
    let rejected: Vec<(u64, String)> = rejected.iter().map(of).collect();
    assert_eq!(rejected.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2, 3]);
    for (index, found) in [(0, "a list"), (1, "an object"), (2, "an object")] {
        assert!(rejected[index].1.contains(found), "it is what it is: {rejected:?}");
    }
    goes_on(&launchdarkly, cohortd).await;
}

async fn through_the_tracking_api() {
    let (launchdarkly, _installation, cohortd) = running().await;
    let url = |call: &str| format!("http://{}/v1/{call}", cohortd.public);
    let honest = identify("neighbour", "vip", true, NOW_MS).to_string();
    let (hostile, nested) = (hostile(), nested());
    // The shared context is the base of the message's own context.
    let shared = format!(r#"{{"context":{{"x":{nested}}},"batch":[{honest}]}}"#);
    for (call, body) in [
        ("identify", hostile.clone()),
        ("batch", format!(r#"{{"batch":[{hostile},{honest},{hostile}]}}"#)),
        ("import", shared.clone()),
        ("batch", shared),
        ("batch", format!(r#"{{"integrations":{nested},"other":{nested},"batch":[{honest}]}}"#)),
    ] {
        let (status, answer) = post(url(call), Some(WRITE_KEY), body).await;
        assert_eq!((status, &answer), (200, &json!({"success": true})), "{call}");
    }
    // Read for its write key, without any credential.
    let (status, _) = post(url("identify"), None, hostile).await;
    assert_eq!(status, 401);
    goes_on(&launchdarkly, cohortd).await;
}

async fn in_what_an_operator_hands_in() {
    let (launchdarkly, _installation, cohortd) = running().await;
    neighbour(&cohortd).await;
    let (hostile, nested) = (hostile(), nested());
    let api = "api/v1/destinations/production";
    let settings = format!(r#"{{"clientId":"{ENVIRONMENT}","apiKey":"x"}}"#);
    for (path, body, expected) in [
        (format!("{api}/explain"), hostile.clone(), 200),
        (format!("{api}/events"), hostile.clone(), 200),
        (format!("{api}/rejected/replay"), format!(r#"{{"after":{nested}}}"#), 422),
        (format!("{api}/resync"), format!(r#"{{"audience":{nested}}}"#), 422),
        (format!("{api}/forget"), format!(r#"{{"user_id":{{"{RAW_VALUE}":"\"ada\""}}}}"#), 422),
        (
            "actions/syncAudience".to_owned(),
            format!(r#"{{"payload":{hostile},"settings":{settings},"mapping":{{}}}}"#),
            200,
        ),
        (
            "actions/syncAudience?dry_run".to_owned(),
            format!(
                r#"{{"payload":{{}},"settings":{settings},"mapping":{{"user_email":{nested}}}}}"#
            ),
            200,
        ),
        ("actions/authenticate".to_owned(), format!(r#"{{"clientId":{nested}}}"#), 200),
    ] {
        let url = format!("http://{}/{path}", cohortd.admin);
        let (status, answer) = post(url, None, body).await;
        assert_eq!(status, expected, "{path}: {answer}");
    }
    goes_on(&launchdarkly, cohortd).await;
}

async fn in_an_event_that_is_kept_and_replayed() {
    let (launchdarkly, installation, cohortd) = running().await;
    neighbour(&cohortd).await;
    let body = hostile();
    let (status, answer) = cohortd.post_signed(body.clone(), &body).await.expect("an answer");
    assert_eq!(status, 400, "{answer}");
    let said = |words: &[&str]| -> Value {
        let out = installation.types(Some(cohortd.admin), words).done();
        serde_json::from_str(&out).expect("one JSON value")
    };
    let replayed = said(&["rejected", "replay", "--json"]);
    assert_eq!(replayed["rejected"].as_array().map(Vec::len), Some(1), "{replayed}");
    let out = installation.types(Some(cohortd.admin), &["rejected", "list", "--json"]).done();
    assert!(out.contains("invalid_field"), "{out}");
    goes_on(&launchdarkly, cohortd).await;
}

async fn in_an_answer_of_launchdarkly() {
    let (launchdarkly, installation, cohortd) = running().await;
    // As much of an answer as is read; some 7,000 levels.
    let body = format!(r#"{{"code":{}}}"#, texts_in_texts(65));
    assert!(body.len() < 64 * 1024, "{} bytes", body.len());
    launchdarkly.script(move |call| match call.audience {
        "aud_refused" => {
            Fault::Answer { status: 400, headers: Vec::new(), body: Some(body.clone()) }
        }
        _ => Fault::None,
    });
    let event = identify("ada", "refused", true, NOW_MS);
    assert_eq!(cohortd.post(&event).await.expect("an answer").0, 200);
    neighbour(&cohortd).await;
    let parked = |status: &Value| status["destinations"]["production"]["parked"] == json!(1);
    cohortd.until_status(parked).await;
    goes_on(&launchdarkly, cohortd).await;
    // The next start is not affected either.
    let cohortd = installation.start();
    goes_on(&launchdarkly, cohortd).await;
}

async fn in_what_the_commands_are_given() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    installation.write("event.json", &hostile());
    let words = ["explain", "--json", "--file", "event.json"];
    let explained = installation.types(None, &words);
    assert!(explained.out.contains(r#""outcome":"rejected""#), "{}", explained.out);
    assert_eq!(explained.code, 1);
    let (hostile, nested) = (hostile(), nested());
    for (what, line) in [
        ("mapping", format!(r#"{{"mapping":{{"@path":"$.x"}},"payload":{{"x":{nested}}}}}"#)),
        ("mapping", format!(r#"{{"mapping":{nested},"payload":{{}}}}"#)),
        ("subscription", format!(r#"{{"fql":"type = \"identify\"","event":{hostile}}}"#)),
        ("sync", format!(r#"{{"settings":{{"apiKey":"x","clientId":"y"}},"events":[{hostile}]}}"#)),
        // Parsing JSON in a text is what `@json` is for.
        (
            "mapping",
            json!({
                "mapping": {"@json": {"mode": "decode", "value": {"@path": "$.x"}}},
                "payload": {"x": hostile_value()},
            })
            .to_string(),
        ),
    ] {
        let mut eval = Command::new(env!("CARGO_BIN_EXE_cohortd"));
        eval.args(["eval", what]).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = eval.spawn().expect("the binary runs");
        let mut stdin = child.stdin.take().expect("it is piped");
        writeln!(stdin, "{line}\n{{}}").expect("it reads");
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{what}: {}", output.status);
        let lines = String::from_utf8(output.stdout).expect("text");
        assert_eq!(lines.lines().count(), 2, "an answer for each line: {lines}");
    }
}

tests![
    in_the_unsigned_tail_of_a_batch,
    through_the_tracking_api,
    in_what_an_operator_hands_in,
    in_an_event_that_is_kept_and_replayed,
    in_an_answer_of_launchdarkly,
    in_what_the_commands_are_given,
];
