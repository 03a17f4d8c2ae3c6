//! P8: secrets and personal data stay out of logs, answers, status and metrics, at the most verbose log
//! level and in every situation of an event or a call.

use cohortd::sandbox::{Apply, Fault, View, sign};
use cohortd::secret::Secret;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{
    Cohortd, DEADLINE, ENVIRONMENT, Installation, SERVICE_TOKEN, SHARED_SECRET, identify,
    launchdarkly,
};

const NOW_MS: i64 = 1_750_000_000_000;
const BEARER: &str = "planted-bearer-token";
const WRITE_KEY: &str = "planted-write-key";
const USER: &str = "planted-user-id";
const REFUSED_USER: &str = "planted-refused-user";
const EMAIL: &str = "planted@example.com";
const ANONYMOUS_ID: &str = "planted-anonymous-id";
const TRAIT: &str = "planted-trait-value";
/// Texts that must appear nowhere.
const PLANTED: [&str; 10] = [
    SERVICE_TOKEN,
    SHARED_SECRET,
    BEARER,
    WRITE_KEY,
    USER,
    REFUSED_USER,
    EMAIL,
    ANONYMOUS_ID,
    TRAIT,
    "planted", // any other part of them
];

/// Paths of the admin listener whose answers are not about a named person.
const IMPERSONAL: [&str; 8] = [
    "/",
    "/status",
    "/metrics",
    "/api/v1/history",
    "/api/v1/openapi.json",
    "/api/v1/destinations",
    "/api/v1/destinations/production/audiences",
    "/api/v1/destinations/production/progress",
];

fn event(user: &str, enters: bool, at_ms: i64) -> Value {
    let mut event = identify(user, "vip", enters, at_ms);
    event["traits"]["email"] = EMAIL.into();
    event["traits"]["note"] = TRAIT.into();
    event["anonymousId"] = ANONYMOUS_ID.into();
    event
}

/// Everything that was output.
#[derive(Default)]
struct Heard(Vec<String>);

impl Heard {
    /// Sends raw bytes and records the whole answer.
    async fn ask(&mut self, to: std::net::SocketAddr, request: String) -> u16 {
        let mut stream = TcpStream::connect(to).await.expect("the daemon listens");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = Vec::new();
        let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer));
        read.await.expect("it answers").expect("it closes well");
        let answer = String::from_utf8(answer).expect("answers are text");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        self.0.push(answer);
        status.expect("an answer has a status")
    }

    async fn post(&mut self, cohortd: &Cohortd, path: &str, headers: &str, body: &str) -> u16 {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        self.ask(cohortd.public, request).await
    }

    async fn post_signed(&mut self, cohortd: &Cohortd, body: &str) -> u16 {
        let signature = sign(&Secret::new(SHARED_SECRET), body.as_bytes());
        let headers = format!("X-Signature: {signature}\r\n");
        self.post(cohortd, "/segment/production", &headers, body).await
    }

    /// Reads everything that operators can read without naming a person.
    async fn look(&mut self, cohortd: &Cohortd) {
        for path in IMPERSONAL {
            assert_eq!(self.get(cohortd, path).await, 200, "{path}");
        }
    }

    async fn get(&mut self, cohortd: &Cohortd, path: &str) -> u16 {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        self.ask(cohortd.admin, request).await
    }

    /// Requests a change and records the answer.
    async fn change(&mut self, cohortd: &Cohortd, verb: &str, body: &str) -> u16 {
        let length = body.len();
        let request = format!(
            "POST /api/v1/destinations/{verb} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.ask(cohortd.admin, request).await
    }

    /// Changes that name a person, and mistaken requests that do.
    async fn steer(&mut self, cohortd: &Cohortd) {
        let key = format!("{{\"audience\": \"aud_vip\", \"context_key\": \"{REFUSED_USER}\"}}");
        let rejected = unusable_bodies().swap_remove(4); // this event is kept, and must not be quoted
        let unreadable = format!("{{\"user_id\": \"{USER}\", \"email\": \"{EMAIL}\"}}");
        let nowhere = format!("{USER}/forget");
        let table: [(&str, &str, u16); 12] = [
            ("production/parked/requeue", &key, 200),
            ("production/parked/discard", &key, 200),
            ("production/rejected/replay", "{\"force\": true}", 200),
            ("production/events", &rejected, 200),
            ("production/events", &rejected[..40], 400),
            ("production/explain", &rejected[..40], 400),
            ("production/forget", &unreadable, 422),
            ("production/forget", &unreadable[..30], 400),
            ("production/resync", &format!("{{\"audience\": \"aud_vip\", \"{USER}\": 1}}"), 422),
            ("production/drop", &format!("[\"{USER}\"]"), 422),
            ("production/pause", &format!("\"{USER}\""), 422),
            (&nowhere, &unreadable, 404),
        ];
        for (verb, body, status) in table {
            assert_eq!(self.change(cohortd, verb, body).await, status, "{verb} {body}");
        }
        let lost = format!("/api/v1/destinations/production/{USER}?email={EMAIL}");
        assert_eq!(self.get(cohortd, &lost).await, 404);
        let asked = format!("/api/v1/destinations/production/rejected?{USER}={EMAIL}");
        assert_eq!(self.get(cohortd, &asked).await, 400);
    }

    fn holds_nothing_planted(&self) {
        for text in &self.0 {
            for planted in PLANTED {
                assert!(!text.contains(planted), "{planted} is in {text}");
            }
        }
    }
}

/// Bodies that are unusable, each in a different way.
fn unusable_bodies() -> Vec<String> {
    let enters = event(USER, true, NOW_MS).to_string();
    let mut perhaps = event(USER, true, NOW_MS);
    perhaps["traits"]["vip"] = TRAIT.into();
    let mut no_user = event(USER, true, NOW_MS);
    no_user["userId"] = Value::Null;
    let mut odd_user = event(USER, true, NOW_MS);
    odd_user["userId"] = json!({"id": USER});
    let mut odd_class = event(USER, true, NOW_MS);
    odd_class["context"]["personas"]["computation_class"] = TRAIT.into();
    let lone = enters.replace(USER, &format!(r"{USER}\ud800"));
    vec![
        enters[..enters.len() - 5].to_owned(), // truncated
        format!("{{\"{USER}\": {EMAIL}}}"),
        format!("\"{USER}\""),
        format!("[\"{USER}\", \"{EMAIL}\"]"),
        perhaps.to_string(),
        no_user.to_string(),
        odd_user.to_string(),
        odd_class.to_string(),
        lone,
        format!("{{\"type\": \"delete\", \"email\": \"{EMAIL}\", \"userId\": null}}"),
    ]
}

/// Answers that quote the person and the token, and unanswered calls.
fn quoting_faults() -> Vec<Fault> {
    let quote = json!({
        "code": format!("not a code: {USER}"),
        "message": format!("{EMAIL} {SERVICE_TOKEN}"),
        "id": format!("not an id: {TRAIT}"),
    });
    let headers = vec![
        ("location".to_owned(), format!("http://{USER}.example/{SERVICE_TOKEN}")),
        ("x-note".to_owned(), EMAIL.to_owned()),
    ];
    let quoting =
        |status| Fault::Answer { status, headers: headers.clone(), body: Some(quote.to_string()) };
    let page = Fault::Answer {
        status: 200,
        headers: vec![("content-type".to_owned(), "text/html".to_owned())],
        body: Some(format!("<p>{EMAIL}</p>")),
    };
    let faults = [302, 401, 403, 404, 409, 413, 418, 429, 500, 502, 503].map(quoting);
    let silent = [
        Fault::Hang { apply: Apply::Now },
        Fault::Reset { apply: Apply::No },
        Fault::AnswerAfterApply { status: 500, headers: vec![], body: Some(EMAIL.to_owned()) },
        page,
    ];
    faults.into_iter().chain(silent).collect()
}

async fn nothing_planted_is_logged_answered_or_shown() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("log.level", "trace");
    installation.set("destinations.production.segment.bearer_tokens", BEARER);
    installation.set("destinations.production.segment.write_keys", WRITE_KEY);
    let cohortd = installation.start();
    let mut heard = Heard::default();
    let has = |user: &'static str| move |view: &View<'_>| view.has(ENVIRONMENT, "aud_vip", user);

    // Accepted and delivered, with either credential.
    let enters = event(USER, true, NOW_MS).to_string();
    assert_eq!(heard.post_signed(&cohortd, &enters).await, 200);
    let bearer = format!("Authorization: Bearer {BEARER}\r\n");
    assert_eq!(heard.post(&cohortd, "/segment/production", &bearer, &enters).await, 200);
    launchdarkly.until(DEADLINE, has(USER)).await.expect("delivered");

    // Strangers, wrong and malformed credentials, unknown paths.
    let wrong = format!("X-Signature: {}\r\n", sign(&Secret::new("no"), enters.as_bytes()));
    let mangled = format!("X-Signature: {SHARED_SECRET}\r\n");
    let almost = format!("Authorization: Bearer {BEARER}x\r\n");
    let basic = format!("Authorization: Basic {BEARER}\r\n");
    for headers in ["", &wrong, &mangled, &almost, &basic] {
        assert_eq!(heard.post(&cohortd, "/segment/production", headers, &enters).await, 401);
    }
    let lost = format!("/segment/{USER}?email={EMAIL}");
    assert_eq!(heard.post(&cohortd, &lost, &bearer, &enters).await, 404);
    let lost = format!("/{USER}/{EMAIL}");
    assert_eq!(heard.post(&cohortd, &lost, &bearer, &enters).await, 404);
    let get = format!(
        "GET /segment/production?user={USER} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{bearer}\r\n"
    );
    assert_eq!(heard.ask(cohortd.public, get).await, 405);
    let not_http = format!("{USER} {EMAIL} {BEARER}\r\n\r\n");
    assert_eq!(heard.ask(cohortd.public, not_http).await, 400);

    // Unusable bodies.
    for body in unusable_bodies() {
        assert_eq!(heard.post_signed(&cohortd, &body).await, 400, "{body}");
    }
    let page = format!("{{\"type\": \"page\", \"userId\": \"{USER}\"}}");
    assert_eq!(heard.post_signed(&cohortd, &page).await, 200);
    heard.look(&cohortd).await;

    // LaunchDarkly refuses a member and quotes it.
    launchdarkly.refuse_members(|user| user == REFUSED_USER);
    let refused = event(REFUSED_USER, true, NOW_MS).to_string();
    assert_eq!(heard.post_signed(&cohortd, &refused).await, 200);
    cohortd.until_logged("members refused: parked; the latest is shown").await;
    heard.look(&cohortd).await;
    heard.steer(&cohortd).await;
    launchdarkly.refuse_members(|_| false);

    // Operators see the people they ask about; the log does not.
    for words in [
        &["member", "production", USER][..],
        &["member", "production", EMAIL],
        &["parked", "list"],
        &["parked", "requeue", "--audience", "aud_vip", "--key", REFUSED_USER],
        &["rejected", "list", "--json"],
        &["rejected", "replay"],
        &["forget", "production", REFUSED_USER],
    ] {
        installation.types(Some(cohortd.admin), words).done();
    }
    heard.0.push(installation.types(Some(cohortd.admin), &["status"]).done());
    assert_eq!(installation.types(Some(cohortd.admin), &["forget", EMAIL, USER]).code, 64);

    // The Tracking API, with a valid and an invalid key.
    for (key, status) in [(WRITE_KEY, 200), (BEARER, 401)] {
        let mut message = event(USER, true, NOW_MS);
        message["writeKey"] = serde_json::Value::from(key);
        let body = message.to_string();
        assert_eq!(heard.post(&cohortd, "/v1/identify", "", &body).await, status);
    }

    // LaunchDarkly fails in every other way.
    let mut at_ms = NOW_MS;
    for fault in quoting_faults() {
        let parks = matches!(&fault, Fault::Answer { status: 413, .. });
        let first = launchdarkly.calls().total + 1;
        launchdarkly.script(
            move |call| {
                if call.call_number <= first { fault.clone() } else { Fault::None }
            },
        );
        at_ms += 1;
        let enters = at_ms % 2 == 0;
        let body = event(USER, enters, at_ms).to_string();
        assert_eq!(heard.post_signed(&cohortd, &body).await, 200);
        heard.look(&cohortd).await;
        let done = |view: &View<'_>| {
            let calls = view.calls().total;
            calls > first || (parks && calls == first)
        };
        launchdarkly.until(DEADLINE, done).await.expect("tried again");
        installation.drained().await;
    }

    // A deletion of the person, and the end.
    let deletion = format!("{{\"type\": \"delete\", \"userId\": \"{USER}\"}}");
    assert_eq!(heard.post_signed(&cohortd, &deletion).await, 200);
    installation.drained().await;
    heard.look(&cohortd).await;
    let (status, log) = cohortd.stop();
    assert!(status.success());
    assert!(
        log.iter().any(|line| line.contains("\"level\":\"TRACE\"")),
        "it was the loudest level"
    );
    assert!(log.iter().any(|line| line.contains("\"delivered\"")));
    let said = heard.0.len();
    heard.0.extend(log);
    assert!(said > 30 && heard.0.len() > 200, "{said} answers, {} in all", heard.0.len());
    heard.holds_nothing_planted();
}

/// Faults of the configuration are printed at start-up.
async fn a_configuration_that_cannot_be_used_is_described_without_its_secrets() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("log.level", "trace");
    installation.set("destinations.production.segment.bearer_tokens", BEARER);
    installation.set("destinations.production.launchdarkly.service_token", "planted\u{7}token");
    installation.set("destinations.production.launchdarkly.proxy", "planted://planted:planted@x");
    installation.set("destinations.production.launchdarkly.concurrency", "planted");
    let output = installation.command().output().expect("the daemon can be started");
    assert_eq!(output.status.code(), Some(64));
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(text.contains("destinations.production"), "{text}");
    assert!(!text.contains(BEARER) && !text.contains(SHARED_SECRET), "{text}");
    assert!(!text.contains("planted\u{7}token"), "{text}");
}

tests![
    nothing_planted_is_logged_answered_or_shown,
    a_configuration_that_cannot_be_used_is_described_without_its_secrets,
];
