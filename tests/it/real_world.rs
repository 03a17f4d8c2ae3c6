//! Events as real senders write them: journeys, times, clocks, ids that are large numbers, byte order
//! marks, broken compression, a trailing slash, and extra fields that JavaScript moves to the front.

use std::io::Write;

use cohortd::clock::{Clock, SystemClock};
use cohortd::sandbox::{StandIn, View};
use serde_json::{Value, json};

use crate::harness::{Cohortd, DEADLINE, ENVIRONMENT, Installation, identify, iso, launchdarkly};

const WRITE_KEY: &str = "planted-write-key";

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().expect("a client")
}

fn now_ms() -> i64 {
    SystemClock.now().0 / 1000
}

/// The event's JSON with `"ID"` replaced by a literal that a `Value` cannot hold.
fn written(event: &Value, id: &str) -> String {
    event.to_string().replace("\"ID\"", id)
}

fn members(launchdarkly: &StandIn, audience: &str) -> Vec<String> {
    let segments = launchdarkly.segments(ENVIRONMENT);
    segments.get(audience).map(|of| of.members.iter().cloned().collect()).unwrap_or_default()
}

async fn until_members(launchdarkly: &StandIn, audience: &str, expected: &[&str]) {
    let is_so = |view: &View<'_>| {
        view.segment(ENVIRONMENT, audience)
            .is_some_and(|of| of.members.iter().map(String::as_str).eq(expected.iter().copied()))
    };
    let there = launchdarkly.until(DEADLINE, is_so).await;
    assert!(
        there.is_ok(),
        "{audience}: {:?} instead of {expected:?}",
        members(launchdarkly, audience)
    );
}

/// Posts a body of the Tracking API.
async fn track(cohortd: &Cohortd, path: &str, body: String) -> u16 {
    let url = format!("http://{}{path}", cohortd.public);
    let request = client().post(url).basic_auth(WRITE_KEY, Some("")).body(body);
    request.send().await.expect("an answer").status().as_u16()
}

async fn counted(cohortd: &Cohortd, metric: &str) -> u64 {
    let (_, metrics) = cohortd.metrics("text/plain").await;
    let line = metrics.lines().find(|line| line.starts_with(&format!("{metric} ")));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
}

fn journey_step(user: &str) -> Value {
    let mut event = identify(user, "trial", true, now_ms());
    event["context"]["personas"]["computation_class"] = json!("journey_step");
    event["traits"] = json!({"email": "ada@example.com"});
    event
}

async fn a_journey_that_an_event_triggers_is_entered_unless_that_is_refused() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let (status, answer) = cohortd.post(&journey_step("ada")).await.expect("an answer");
    assert_eq!((status, &answer["accepted"]), (200, &json!(1)), "{answer}");
    until_members(&launchdarkly, "aud_trial", &["ada"]).await;
    assert!(cohortd.stop().0.success());

    installation.set("destinations.production.mapping.journey_step_without_value", "reject");
    let cohortd = installation.start();
    let (status, answer) = cohortd.post(&journey_step("bob")).await.expect("an answer");
    assert_eq!(status, 400, "{answer}");
    let reason = answer["rejected"][0]["reason"].as_str().expect("text");
    assert!(reason.starts_with("membership_unknown: "), "{reason}");
    assert!(cohortd.stop().0.success());
}

/// A time that cannot be read counts as the arrival, so that a later exit would lose against it.
async fn times_are_read_as_senders_write_them_and_what_is_not_believed_is_counted() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let then_ms = (now_ms() - 3_600_000) / 1000 * 1000;
    let then = jiff::Timestamp::from_millisecond(then_ms).expect("a time of our days");
    let form = |format: &str| json!(then.strftime(format).to_string());
    let forms = [
        json!(then_ms),
        json!(then_ms / 1000),
        json!(then_ms.to_string()),
        form("%Y-%m-%dT%H:%M:%S.029:Z"),
        form("%Y-%m-%d %H:%M:%S UTC"),
        form("%Y-%m-%d %H:%M:%S GMT"),
        form("%Y-%m-%d %H:%M:%S +0000"),
        form("%Y-%m-%dT%H:%M:%S+0000"),
        form("%a, %d %b %Y %H:%M:%S +0000"),
        form("%a, %d %b %Y %H:%M:%S GMT"),
        form("%a %b %d %Y %H:%M:%S GMT+0000 (Coordinated Universal Time)"),
    ];
    // An hour ago in this format, then half an hour ago in the usual one: the later one wins only if the
    // earlier one was parsed.
    for (index, form) in forms.iter().enumerate() {
        let user = format!("user-{index:02}");
        let mut enters = identify(&user, "vip", true, then_ms);
        enters["timestamp"] = form.clone();
        for event in [enters, identify(&user, "vip", false, then_ms + 1_800_000)] {
            let (status, answer) = cohortd.post(&event).await.expect("an answer");
            assert_eq!(status, 200, "{answer}");
        }
    }
    let usual = identify("usual", "vip", true, now_ms());
    assert_eq!(cohortd.post(&usual).await.expect("an answer").0, 200);
    until_members(&launchdarkly, "aud_vip", &["usual"]).await;
    installation.drained().await;
    assert_eq!(members(&launchdarkly, "aud_vip"), ["usual"], "each one has left");

    // A time that is not believed counts as the arrival, is counted, and is explained.
    let of = |reason: &str| {
        format!(
            "cohortd_event_times_doubted_total{{destination=\"production\",reason=\"{reason}\"}}"
        )
    };
    let rows = [
        (json!("soon"), "unreadable", "it cannot be read as a time"),
        (json!([2025]), "unreadable", "it cannot be read as a time"),
        (json!("0001-01-01T00:00:00Z"), "too_early", "it is before 2010"),
        (json!("1970-01-01T00:00:00Z"), "too_early", "it is before 2010"),
        (json!(0), "too_early", "it is before 2010"),
        (json!(iso(now_ms() + 3_600_000)), "ahead", "it is more than five minutes ahead"),
    ];
    for (timestamp, reason, why) in rows {
        let before = counted(&cohortd, &of(reason)).await;
        let mut event = identify("usual", "vip", false, now_ms());
        event["timestamp"] = timestamp.clone();
        let (status, answer) = cohortd.post(&event).await.expect("an answer");
        assert_eq!(status, 200, "{answer}");
        assert_eq!(counted(&cohortd, &of(reason)).await, before + 1, "{timestamp}");
        installation.write("event.json", &event.to_string());
        let json = installation.types(None, &["explain", "--json", "--file", "event.json"]).done();
        let report: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(report["time"]["from"], "arrival", "{report}");
        let doubt = report["time"]["doubt"].as_str().expect("text");
        assert!(doubt.starts_with("timestamp is not used, because "), "{doubt}");
        assert!(doubt.contains(why) && doubt.ends_with("; arrival is used instead"), "{doubt}");
        let told = installation.types(None, &["explain", "--file", "event.json"]).done();
        assert!(told.contains(doubt), "{told}");
    }
    until_members(&launchdarkly, "aud_vip", &[]).await;
    let status = cohortd.status().await;
    let doubted = &status["destinations"]["production"]["times_doubted"];
    assert_eq!(doubted, &json!({"unreadable": 2, "too_early": 3, "ahead": 1}), "{status}");
    assert!(cohortd.stop().0.success());
}

/// A clock that is an hour ahead: without a correction, a member that enters stays in for an hour, whatever
/// follows.
async fn p2_a_senders_clock_is_set_right_and_a_message_never_counts_later_than_its_first_attempt() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("destinations.production.segment.write_keys", WRITE_KEY);
    let cohortd = installation.start();
    let ahead_ms = 240_000; // not enough to be disbelieved
    let batch = |message: &Value, sent_ms: i64| {
        json!({"batch": [message], "sentAt": iso(sent_ms)}).to_string()
    };
    let at = |by: &str| {
        format!("cohortd_event_times_corrected_total{{destination=\"production\",clock=\"{by}\"}}")
    };
    let begun_ms = now_ms();
    // Both times by the clock that is ahead: the entry is two seconds older than its sending.
    let enters = identify("ada", "vip", true, begun_ms + ahead_ms - 2000);
    let enters = batch(&enters, begun_ms + ahead_ms);
    assert_eq!(track(&cohortd, "/v1/batch", enters.clone()).await, 200);
    until_members(&launchdarkly, "aud_vip", &["ada"]).await;
    assert_eq!(counted(&cohortd, &at("ahead")).await, 1);
    // By a correct clock.
    let leaves = batch(&identify("ada", "vip", false, now_ms()), now_ms());
    assert_eq!(track(&cohortd, "/v1/batch", leaves).await, 200);
    until_members(&launchdarkly, "aud_vip", &[]).await;
    assert_eq!(counted(&cohortd, &at("ahead")).await, 1, "a clock that is right is left alone");
    // The first message again, unchanged, and once more by a clock that was corrected in the meantime.
    let mut again = identify("ada", "vip", true, begun_ms + ahead_ms - 2000);
    again["sentAt"] = json!(iso(now_ms()));
    let again = json!({"batch": [again]}).to_string();
    for body in [enters, again] {
        assert_eq!(track(&cohortd, "/v1/batch", body).await, 200);
    }
    installation.drained().await;
    assert_eq!(members(&launchdarkly, "aud_vip"), Vec::<String>::new(), "it counts as it did");
    assert!(cohortd.stop().0.success());

    // An hour behind: by its own clock, a member that leaves now left before it entered.
    for (corrects, expected) in [("false", &["bob"][..]), ("true", &[])] {
        installation.set("destinations.production.segment.correct_clocks_behind", corrects);
        let cohortd = installation.start();
        let behind_ms = 3_600_000;
        let enters = batch(&identify("bob", "late", true, now_ms() - 1000), now_ms());
        assert_eq!(track(&cohortd, "/v1/batch", enters).await, 200);
        until_members(&launchdarkly, "aud_late", &["bob"]).await;
        let leaves = identify("bob", "late", false, now_ms() - behind_ms);
        let leaves = batch(&leaves, now_ms() - behind_ms);
        assert_eq!(track(&cohortd, "/v1/batch", leaves).await, 200);
        installation.drained().await;
        assert_eq!(members(&launchdarkly, "aud_late"), expected, "{corrects}");
        let corrected = u64::from(corrects == "true");
        assert_eq!(counted(&cohortd, &at("behind")).await, corrected);
        if corrects == "true" {
            // A message by a correct clock, posted again later: it looks as if the clock were behind.
            let first_ms = now_ms() - 50_000;
            let enters = batch(&identify("eve", "late", true, first_ms), now_ms());
            assert_eq!(track(&cohortd, "/v1/batch", enters).await, 200);
            let leaves = batch(&identify("eve", "late", false, first_ms + 1000), now_ms());
            assert_eq!(track(&cohortd, "/v1/batch", leaves).await, 200);
            let old_ms = now_ms() - 600_000;
            let again = batch(&identify("eve", "late", true, first_ms), old_ms);
            assert_eq!(track(&cohortd, "/v1/batch", again).await, 200);
            installation.drained().await;
            assert_eq!(members(&launchdarkly, "aud_late"), Vec::<String>::new());
        }
        assert!(cohortd.stop().0.success());
    }
}

/// 117000000000000000001 and …002 are the same 64-bit float, but two people.
async fn an_id_that_is_a_large_number_is_one_person_on_every_way() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("destinations.production.segment.write_keys", WRITE_KEY);
    let cohortd = installation.start();
    let large = |last: u8| format!("11700000000000000000{last}");
    let mut event = identify("ID", "vip", true, now_ms());
    event.as_object_mut().expect("an object").remove("messageId");

    // The webhook: a single event and a batch.
    let one = written(&event, &large(1));
    assert_eq!(cohortd.post_signed(one.clone(), &one).await.expect("an answer").0, 200);
    let two = written(&event, &format!("{}.0", large(2)));
    let batch = format!("[{two},{}]", written(&event, "1.17000000000000000003e20"));
    assert_eq!(cohortd.post_signed(batch, &two).await.expect("an answer").0, 200);
    // The Tracking API.
    let body = format!("{{\"batch\":[{}]}}", written(&event, &large(4)));
    assert_eq!(track(&cohortd, "/v1/batch", body).await, 200);
    let body = written(&event, &large(5));
    assert_eq!(track(&cohortd, "/v1/identify", body).await, 200);
    let all: Vec<String> = (1..=5).map(large).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    until_members(&launchdarkly, "aud_vip", &all).await;

    // What commands print and post.
    installation.write("event.json", &written(&event, &large(6)));
    let json = installation.types(None, &["explain", "--json", "--file", "event.json"]).done();
    let report: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(report["mappings"][0]["delta"]["context_key"], large(6), "{report}");
    let url = format!("http://{}/segment/production", cohortd.public);
    installation.types(None, &["send", "--url", &url, "--file", "event.json"]).done();

    // An event that was rejected, and is replayed once the mapping accepts it.
    let mut perhaps = event.clone();
    perhaps["traits"]["vip"] = json!("perhaps");
    let webhook = written(&perhaps, &large(7));
    assert_eq!(cohortd.post_signed(webhook.clone(), &webhook).await.expect("an answer").0, 400);
    let tracked = format!("{{\"batch\":[{}]}}", written(&perhaps, &large(8)));
    assert_eq!(track(&cohortd, "/v1/batch", tracked).await, 200);
    assert!(cohortd.stop().0.success());
    installation.set("destinations.production.mapping.membership", "reference");
    let cohortd = installation.start();
    installation.types(Some(cohortd.admin), &["rejected", "replay"]).done();
    // A deletion removes one of them and nobody else.
    let delete = written(&json!({"type": "delete", "userId": "ID"}), &large(2));
    assert_eq!(cohortd.post_signed(delete.clone(), &delete).await.expect("an answer").0, 200);
    let left: Vec<String> = [1, 3, 4, 5, 6, 7, 8].map(large).into();
    let left: Vec<&str> = left.iter().map(String::as_str).collect();
    until_members(&launchdarkly, "aud_vip", &left).await;
    assert!(cohortd.stop().0.success());
}

async fn a_byte_order_mark_or_a_slash_too_many_costs_no_event() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("destinations.production.segment.write_keys", WRITE_KEY);
    installation.write("pasted.json", "\u{feff}{\"context_key\": \"user_id_only\"}");
    installation.set("destinations.production.mapping_file", "pasted.json");
    let cohortd = installation.start();
    let event = |user: &str| identify(user, "vip", true, now_ms()).to_string();

    // The signature covers the event, or everything that was sent.
    let marked = format!("\u{feff}{}", event("nine"));
    let unmarked = marked.trim_start_matches('\u{feff}').to_owned();
    let (status, answer) = cohortd.post_signed(marked, &unmarked).await.expect("an answer");
    assert_eq!((status, &answer["accepted"]), (200, &json!(1)), "{answer}");
    let marked = format!("\u{feff}{}", event("one"));
    let (status, answer) = cohortd.post_signed(marked.clone(), &marked).await.expect("an answer");
    assert_eq!((status, &answer["accepted"]), (200, &json!(1)), "{answer}");
    let first = event("two");
    let batch = format!("\u{feff}[{first},{}]", event("three"));
    let (status, answer) = cohortd.post_signed(batch, &first).await.expect("an answer");
    assert_eq!((status, &answer["accepted"]), (200, &json!(2)), "{answer}");
    let batch = format!("\u{feff}{{\"batch\":[{}]}}", event("four"));
    assert_eq!(track(&cohortd, "/v1/batch", batch).await, 200);
    let marked = format!("\u{feff}{}", event("five"));
    assert_eq!(track(&cohortd, "/v1/identify", marked).await, 200);
    installation.write("event.json", &format!("\u{feff}{}", event("six")));
    let explained = installation.types(None, &["explain", "--file", "event.json"]).done();
    assert!(explained.contains("\naccepted"), "{explained}");
    // With a trailing slash, as people write URLs.
    let url = format!("http://{}/segment/production/", cohortd.public);
    installation.types(None, &["send", "--url", &url, "--file", "event.json"]).done();
    assert_eq!(track(&cohortd, "/v1/identify/", event("seven")).await, 200);
    let batch = format!("{{\"batch\":[{}]}}", event("eight"));
    assert_eq!(track(&cohortd, "/v1/import/", batch).await, 200);
    let all = ["eight", "five", "four", "nine", "one", "seven", "six", "three", "two"];
    until_members(&launchdarkly, "aud_vip", &all).await;
    let get = |path: &str| client().get(format!("http://{}{path}", cohortd.public)).send();
    for (path, expected) in
        [("/livez/", 200), ("/readyz/", 200), ("/healthz/", 200), ("/segment/production/", 405)]
    {
        assert_eq!(get(path).await.expect("an answer").status().as_u16(), expected, "{path}");
    }
    assert!(cohortd.stop().0.success());
}

async fn a_packed_body_is_taken_under_either_name_and_a_broken_one_said_to_be_what_it_is() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("destinations.production.segment.write_keys", WRITE_KEY);
    let cohortd = installation.start();
    let event = identify("ada", "vip", true, now_ms()).to_string();
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    writer.write_all(event.as_bytes()).expect("memory takes it");
    let packed = writer.finish().expect("memory takes it");
    let mut checksum = packed.clone();
    let place = checksum.len() - 8;
    checksum[place] ^= 1;
    let post = async |encoding: &str, body: Vec<u8>| {
        let url = format!("http://{}/v1/identify", cohortd.public);
        let request = client().post(url).basic_auth(WRITE_KEY, Some(""));
        let answer = request.header("content-encoding", encoding).body(body).send().await;
        let answer = answer.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    };
    for encoding in ["gzip", "x-gzip"] {
        assert_eq!(post(encoding, packed.clone()).await.0, 200, "{encoding}");
    }
    until_members(&launchdarkly, "aud_vip", &["ada"]).await;
    let rows = [
        ("gzip", packed[..packed.len() / 2].to_vec(), "packed_short: "),
        ("gzip", checksum, "packed_broken: "),
        ("gzip", event.clone().into_bytes(), "not_packed: "),
        ("deflate", packed, "not_packed: "),
    ];
    for (encoding, body, expected) in rows {
        let (status, answer) = post(encoding, body).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer.contains(expected) && !answer.contains("broke off"), "{answer}");
    }
    assert!(cohortd.stop().0.success());
}

/// `JSON.stringify({...event, ...extras})` moves keys that are integers to the front, whenever they were
/// set.
async fn an_extra_field_whose_name_is_a_number_does_not_break_the_signature() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("destinations.production.segment.extra_fields", "7\nplan\n12");
    let cohortd = installation.start();
    let event = identify("ada", "vip", true, now_ms()).to_string();
    let members = event.trim_start_matches('{').trim_end_matches('}');
    assert!(event.ends_with("}}"), "its last member is an object");
    let members = format!("{members}}}");
    let body = format!(r#"{{"7":"x","12":[1],{members},"plan":"pro"}}"#);
    let (status, answer) = cohortd.post_signed(body.clone(), &event).await.expect("an answer");
    assert_eq!((status, &answer["accepted"]), (200, &json!(1)), "{answer}");
    let batch = format!("[{body}]");
    assert_eq!(cohortd.post_signed(batch, &event).await.expect("an answer").0, 200);
    let another = body.replace(r#""7":"#, r#""8":"#);
    assert_eq!(cohortd.post_signed(another, &event).await.expect("an answer").0, 401);
    assert!(cohortd.stop().0.success());
}

tests![
    a_journey_that_an_event_triggers_is_entered_unless_that_is_refused,
    times_are_read_as_senders_write_them_and_what_is_not_believed_is_counted,
    p2_a_senders_clock_is_set_right_and_a_message_never_counts_later_than_its_first_attempt,
    an_id_that_is_a_large_number_is_one_person_on_every_way,
    a_byte_order_mark_or_a_slash_too_many_costs_no_event,
    a_packed_body_is_taken_under_either_name_and_a_broken_one_said_to_be_what_it_is,
    an_extra_field_whose_name_is_a_number_does_not_break_the_signature,
];
