//! Requests that the public listener refuses are reported if they look like Segment's, and only counted if
//! they are a scanner's. A request without any Segment event does not count as a success (P7).

use std::collections::BTreeSet;

use cohortd::sandbox::{StandIn, sign};
use cohortd::secret::Secret;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Cohortd, Installation, SHARED_SECRET, identify, launchdarkly};

const NOW_MS: i64 = 1_750_000_000_000;
const REFUSED: &str = "requests that look like Segment's were refused; Segment will not retry them";
const WHERE_IT_GOES: &str = "production";

/// A change to the usual configuration.
type Change<'a> = &'a dyn Fn(&mut Installation);

fn event() -> String {
    identify("ada", "vip", true, NOW_MS).to_string()
}

/// The log lines about refused requests so far.
fn lines(cohortd: &Cohortd) -> Vec<Value> {
    let lines = cohortd.log();
    let parsed = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    parsed.filter(|line| line["message"] == REFUSED).collect()
}

/// The exposed samples of a metric.
async fn samples(cohortd: &Cohortd, name: &str) -> Vec<String> {
    let (_, metrics) = cohortd.metrics("text/plain").await;
    let begins = format!("{name}{{");
    metrics.lines().filter(|line| line.starts_with(&begins)).map(str::to_owned).collect()
}

fn started(launchdarkly: &StandIn) -> Cohortd {
    Installation::new(launchdarkly).start()
}

async fn a_wrong_secret_is_said_once_with_its_remedy_and_counted() {
    let launchdarkly = launchdarkly().await;
    let cohortd = started(&launchdarkly);
    for _ in 0..40 {
        let posted =
            cohortd.poster().post_as("another-secret", WHERE_IT_GOES, event(), &event()).await;
        assert_eq!(posted.expect("an answer").0, 401);
    }
    let line = cohortd.until_logged(REFUSED).await;
    assert_eq!(line["level"], "WARN");
    assert_eq!(line["path"], "/segment/production");
    assert_eq!(line["reason"], "unauthenticated");
    assert_eq!(line["credential"], "signature");
    assert_eq!(line["why"], "The X-Signature matches none of the shared secrets.");
    let remedy = line["remedy"].as_str().expect("a sentence");
    assert!(remedy.contains("destinations.production.segment.shared_secrets"), "{remedy}");
    let counted = samples(&cohortd, "cohortd_refused_requests_total").await;
    let labels = r#"path="/segment/production",reason="unauthenticated",credential="signature""#;
    assert_eq!(counted, [format!("cohortd_refused_requests_total{{{labels}}} 40")]);
    let (_, log) = cohortd.stop();
    let said = log.iter().filter(|line| line.contains(REFUSED)).count();
    assert!(said <= 2, "one, and the rest at the end: {said}");
    assert!(log.iter().all(|line| !line.contains(SHARED_SECRET) && !line.contains("\"ada\"")));
}

async fn a_path_that_nobody_has_is_named_with_the_nearest_one() {
    let launchdarkly = launchdarkly().await;
    let cohortd = started(&launchdarkly);
    for _ in 0..20 {
        let posted = cohortd.post_to("prodution", event(), &event()).await;
        assert_eq!(posted.expect("an answer").0, 404);
    }
    let line = cohortd.until_logged(REFUSED).await;
    assert_eq!(line["path"], "/segment/prodution");
    assert_eq!(line["reason"], "unknown_destination");
    let remedy = line["remedy"].as_str().expect("a sentence");
    assert!(remedy.contains("/segment/production"), "{remedy}");
    let counted = samples(&cohortd, "cohortd_refused_requests_total").await;
    let labels = r#"path="-",reason="unknown_destination",credential="signature""#;
    assert_eq!(counted, [format!("cohortd_refused_requests_total{{{labels}}} 20")]);
}

async fn each_slip_of_a_credential_is_told_from_the_others() {
    let launchdarkly = launchdarkly().await;
    let both = |installation: &mut Installation| {
        installation.set("destinations.production.segment.bearer_tokens", "planted-bearer-token");
    };
    let demands = |installation: &mut Installation| {
        installation.set("destinations.production.segment.bearer_tokens", "planted-bearer-token");
        installation.set("destinations.production.segment.require", "signature\nbearer");
    };
    let nothing = |_: &mut Installation| {};
    let signature = sign(&Secret::new(SHARED_SECRET), event().as_bytes());
    let upper = signature.to_uppercase();
    let basic = "Basic cGxhbnRlZC1iZWFyZXItdG9rZW46";
    // configuration, header, value, credential, reason
    let table: [(Change<'_>, &str, &str, &str, &str); 7] = [
        (&nothing, "x-other", "1", "none", "carries no credential"),
        (&nothing, "x-signature", &upper, "signature", "40 lower-case hexadecimal digits"),
        (
            &nothing,
            "authorization",
            "Bearer one",
            "bearer",
            "a bearer token, and none is configured",
        ),
        (&both, "authorization", "Bearer one", "bearer", "bearer token is not one of"),
        (&both, "authorization", basic, "basic", "HTTP Basic, and none is configured"),
        (&both, "authorization", "planted-bearer-token", "other", "an unknown scheme"),
        (&demands, "x-signature", &signature, "none", "lacks a bearer token"),
    ];
    for (configure, name, value, credential, why) in table {
        let mut installation = Installation::new(&launchdarkly);
        configure(&mut installation);
        let cohortd = installation.start();
        let url = format!("http://{}/segment/production", cohortd.public);
        let request = reqwest::Client::new().post(url).header(name, value).body(event());
        assert_eq!(request.send().await.expect("an answer").status(), 401, "{why}");
        let line = cohortd.until_logged(REFUSED).await;
        assert_eq!(line["credential"], credential, "{line}");
        assert!(line["why"].as_str().is_some_and(|said| said.contains(why)), "{why}: {line}");
        let (_, log) = cohortd.stop();
        assert!(log.iter().all(|line| !line.contains("planted-bearer-token")));
    }
}

async fn a_body_that_a_proxy_has_rewritten_is_told_from_a_wrong_secret() {
    let launchdarkly = launchdarkly().await;
    let signed = event();
    let parsed: Value = serde_json::from_str(&signed).expect("JSON");
    let pretty = serde_json::to_string_pretty(&parsed).expect("JSON");
    for body in [pretty.clone(), format!("[{pretty}]"), format!("[{{\"json\": {pretty}}}]")] {
        let cohortd = started(&launchdarkly);
        let posted = cohortd.post_signed(body, &signed).await;
        assert_eq!(posted.expect("an answer").0, 401);
        let line = cohortd.until_logged(REFUSED).await;
        let why = line["why"].as_str().expect("a sentence");
        assert!(why.contains("rewritten the body"), "{why}");
    }
}

async fn a_secret_with_what_an_editor_put_around_it_is_read_as_meant() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.write("secret", &format!("\u{feff}{SHARED_SECRET} \r\n"));
    installation.unset("destinations.production.segment.shared_secrets");
    let path = installation.directory.path().join("secret").display().to_string();
    installation.set("destinations.production.segment.shared_secrets_file", &path);
    let cohortd = installation.start();
    let posted = cohortd.post_signed(event(), &event()).await.expect("an answer");
    assert_eq!(posted.0, 200, "{}", posted.1);
    assert!(cohortd.log().iter().any(|line| line.contains("byte order mark")));

    installation.unset("destinations.production.segment.shared_secrets_file");
    installation.set(
        "destinations.production.segment.shared_secrets",
        &format!("\u{200b} {SHARED_SECRET}\u{a0}"),
    );
    drop(cohortd);
    let cohortd = installation.start();
    let posted = cohortd.post_signed(event(), &event()).await.expect("an answer");
    assert_eq!(posted.0, 200, "{}", posted.1);
    assert!(cohortd.log().iter().any(|line| line.contains("has white space around it")));
}

async fn what_is_no_event_of_segments_is_rejected_with_the_setting_that_made_it_so() {
    let launchdarkly = launchdarkly().await;
    let cohortd = started(&launchdarkly);
    let event = identify("ada", "vip", true, NOW_MS);
    let without_type = json!({"userId": "ada", "traits": {"vip": true}});
    // body, status, start of the reason, what it names
    let table = [
        (json!({}), 400, "not_an_event: ", "$."),
        (without_type, 400, "not_an_event: ", "mapping.subscribe"),
        (json!({"type": "Identify"}), 400, "not_an_event: ", "mapping.subscribe"),
        (json!({"batch": [event]}), 400, "not_an_event: ", "/v1/batch"),
        (json!({"data": [event]}), 400, "not_an_event: ", "data"),
        (json!({"payload": event}), 400, "not_an_event: ", "payload"),
        (json!([{"body": "type=track&userId=ada"}]), 400, "not_an_event: ", "application/json"),
        (json!({"type": "audiencelist", "userId": "ada"}), 400, "not_an_event: ", "another vendor"),
        (json!({"type": "page", "userId": "ada"}), 200, "", ""),
        (json!({"type": "group", "groupId": "acme"}), 200, "", ""),
        (json!({"json": event}), 200, "", ""),
        (json!([{"json": event}]), 200, "", ""),
    ];
    for (body, status, reason, names) in table {
        let text = body.to_string();
        let signed = match body {
            Value::Array(_) => body[0].to_string(),
            _ => text.clone(),
        };
        let (found, answer) = cohortd.post_signed(text, &signed).await.expect("an answer");
        assert_eq!(found, status, "{body}: {answer}");
        if status == 400 {
            let said = answer["rejected"][0]["reason"].as_str().expect("a reason");
            assert!(said.starts_with(reason) && said.contains(names), "{body}: {said}");
        }
    }
    // signed as by Segment: over the inner event
    let wrapped = json!({"json": event}).to_string();
    let (status, answer) =
        cohortd.post_signed(wrapped, &event.to_string()).await.expect("an answer");
    assert_eq!((status, &answer["accepted"]), (200, &json!(1)), "{answer}");
    let kept = cohortd.status().await["destinations"]["production"]["rejected"].clone();
    assert_eq!(kept, 0, "they are counted, not kept");
}

async fn what_the_operators_own_subscription_selects_is_mapped_whatever_its_type() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("destinations.production.subscribe", "type = 'membership'");
    let cohortd = installation.start();
    let mut event = identify("ada", "vip", true, NOW_MS);
    event["type"] = json!("membership");
    let (status, answer) = cohortd.post(&event).await.expect("an answer");
    assert_eq!((status, &answer["accepted"]), (200, &json!(1)), "{answer}");
}

/// A stranger who imitates misconfigured senders fills all the space for them, before and after.
async fn a_slip_of_segments_is_shown_whatever_strangers_send() {
    let launchdarkly = launchdarkly().await;
    let cohortd = started(&launchdarkly);
    let strangers = async |from: usize| {
        for number in from..from + 30 {
            let name = format!("production{number}");
            let posted = cohortd.poster().post_as("a guess", &name, event(), &event()).await;
            assert_eq!(posted.expect("an answer").0, 404);
        }
    };
    let batch = |large: usize| {
        let mut first = identify("ada", "vip", true, NOW_MS);
        first["context"]["large"] = json!("x".repeat(1000));
        let first = first.to_string();
        (format!("[{}]", vec![&first[..]; large].join(",")), first)
    };
    strangers(0).await;
    for (name, large) in [("prodution", 1), ("productoin", 3), ("producton", 500)] {
        let (body, first) = batch(large);
        assert_eq!(cohortd.post_to(name, body, &first).await.expect("an answer").0, 404);
    }
    strangers(30).await;
    let status = cohortd.status().await;
    let shown = status["destinations"]["production"]["refused"].as_array().expect("a list").clone();
    for name in ["prodution", "productoin", "producton"] {
        let path = format!("/segment/{name}");
        let found = shown.iter().find(|of| of["path"] == path[..]);
        let found = found.unwrap_or_else(|| panic!("{path} is not in {shown:?}"));
        assert!(
            found["remedy"].as_str().is_some_and(|words| words.contains("/segment/production"))
        );
    }
    assert!(shown.len() <= 17, "{}", shown.len());
}

/// Thousands of requests for paths that scanners try.
async fn a_scanner_fills_nothing_and_says_nothing() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("log.level", "info");
    let cohortd = installation.start();
    let before = cohortd.log().len();
    let client = reqwest::Client::new();
    let methods = [
        Method::GET,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::OPTIONS,
        Method::HEAD,
        Method::PATCH,
    ];
    let known = ["/", "/segment/", "/v1/batch", "/v1/track", "/.env", "/wp-login.php", "/livez"];
    for number in 0..3000_usize {
        let path = match number % 4 {
            0 => known[number / 4 % known.len()].to_owned(),
            1 => format!("/segment/name{number}"),
            2 => format!("/segment/name{number}/audiences/create"),
            _ => format!("/{number}/x{}", number * 7919 % 997),
        };
        let url = format!("http://{}{path}", cohortd.public);
        let request = client.request(methods[number % methods.len()].clone(), url).body("x=1");
        request.send().await.expect("an answer");
    }
    // nothing of the above is logged with, or before, what looks like Segment's
    let posted = cohortd.poster().post_as("another-secret", WHERE_IT_GOES, event(), &event()).await;
    assert_eq!(posted.expect("an answer").0, 401);
    cohortd.until_logged(REFUSED).await;
    let said = lines(&cohortd);
    assert!(said.len() == 1 && said[0]["path"] == "/segment/production", "{said:?}");
    assert!(cohortd.log().len() <= before + 1 + 2);
    let counted = samples(&cohortd, "cohortd_refused_requests_total").await;
    let distinct: BTreeSet<_> = counted.iter().filter_map(|line| line.split('}').next()).collect();
    assert!(distinct.len() == counted.len() && counted.len() < 12, "{counted:?}");
    assert!(counted.iter().all(|line| !line.contains("name")), "{counted:?}");
}

tests![
    a_wrong_secret_is_said_once_with_its_remedy_and_counted,
    a_path_that_nobody_has_is_named_with_the_nearest_one,
    each_slip_of_a_credential_is_told_from_the_others,
    a_body_that_a_proxy_has_rewritten_is_told_from_a_wrong_secret,
    a_secret_with_what_an_editor_put_around_it_is_read_as_meant,
    what_is_no_event_of_segments_is_rejected_with_the_setting_that_made_it_so,
    what_the_operators_own_subscription_selects_is_mapped_whatever_its_type,
    a_slip_of_segments_is_shown_whatever_strangers_send,
    a_scanner_fills_nothing_and_says_nothing.workers(4),
];
