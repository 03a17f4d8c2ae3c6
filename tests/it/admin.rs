//! Access to the admin listener: tokens for read access, guesses that are slowed down and reported, and
//! answers that no cache may store.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cohortd::sandbox::View;
use http::{HeaderMap, Method};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{
    Cohortd, DEADLINE, ENVIRONMENT, Installation, SHARED_SECRET, identify, launchdarkly,
};

const NOW_MS: i64 = 1_750_000_000_000;
const TOKEN: &str = "planted-admin-token";
const READ_TOKEN: &str = "planted-read-token";
const WRONG: &str = "planted-wrong-token";
const LINE: &str = "wrong tokens were sent to the admin listener";

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().expect("a plain client")
}

/// One answer of the admin listener.
struct Answered {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answered {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("JSON: {}", self.text))
    }
}

/// Asks the admin listener, with this text as `Authorization`.
async fn ask(
    admin: SocketAddr,
    method: &str,
    path: &str,
    authorization: Option<&str>,
    body: Option<&Value>,
) -> Answered {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let mut request = client().request(method, format!("http://{admin}{path}"));
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    if let Some(body) = body {
        request = request.json(body);
    }
    let answer = request.send().await.expect("an answer");
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    Answered { status, headers, text: answer.text().await.expect("text") }
}

/// Every operation of the OpenAPI document that the daemon serves: method, path with its parameters filled
/// in, and the operation itself.
async fn operations(cohortd: &Cohortd) -> Vec<(String, String, Value)> {
    let bearer = format!("Bearer {TOKEN}");
    let document = ask(cohortd.admin, "GET", "/api/v1/openapi.json", Some(&bearer), None).await;
    let document = document.json();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        let filled = path
            .replace("{destination}", "production")
            .replace("{key}", "ada")
            .replace("{id}", "1");
        for (method, operation) in item.as_object().expect("operations") {
            all.push((method.to_uppercase(), filled.clone(), operation.clone()));
        }
    }
    assert!(all.len() > 20, "{}", all.len());
    all
}

/// A daemon with a member in `vip` and a rejected event.
async fn scene() -> (cohortd::sandbox::StandIn, Installation, Cohortd) {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("admin.tokens", TOKEN).set("admin.read_tokens", READ_TOKEN);
    installation.set("ledger.tombstone_ttl_s", "315360000");
    let cohortd = installation.start();
    let (status, _) = cohortd.post(&identify("ada", "vip", true, NOW_MS)).await.expect("an answer");
    assert_eq!(status, 200);
    let mut eve = identify("eve", "vip", true, NOW_MS);
    eve["userId"] = Value::Null;
    eve["traits"]["email"] = json!("planted@example.com");
    assert_eq!(cohortd.post(&eve).await.expect("an answer").0, 400);
    let is_in = |view: &View<'_>| view.has(ENVIRONMENT, "aud_vip", "ada");
    launchdarkly.until(DEADLINE, is_in).await.expect("she is in");
    installation.drained().await;
    (launchdarkly, installation, cohortd)
}

async fn whoever_may_only_read_sees_what_is_there_and_changes_nothing() {
    let (launchdarkly, _installation, cohortd) = scene().await;
    let (all, look) = (format!("Bearer {TOKEN}"), format!("Bearer {READ_TOKEN}"));
    let admin = cohortd.admin;
    let event = identify("bob", "vip", true, NOW_MS);
    let calls = launchdarkly.calls().total;
    let (mut looked, mut refused) = (0, 0);
    for (method, path, operation) in operations(&cohortd).await {
        // A body for a change that would be carried out, such as forgetting or dropping.
        let body = (method == "POST").then(|| match path.rsplit('/').next() {
            Some("events" | "explain") => event.clone(),
            Some("forget") => json!({"user_id": "ada"}),
            _ => json!({}),
        });
        let with = async |token: &str| {
            let answer = ask(admin, &method, &path, Some(token), body.as_ref()).await;
            (answer.status, answer.text)
        };
        let (status, text) = with(&look).await;
        let may = method == "GET" || path.ends_with("/explain");
        assert_eq!(status == 403, !may, "{method} {path}: {status} {text}");
        let of_the_document = operation["security"].to_string();
        let is_open = of_the_document == "[{}]";
        assert_eq!(of_the_document.contains("read_token") || is_open, may, "{method} {path}");
        if may {
            assert!(status == 200, "{method} {path}: {status} {text}");
            looked += 1;
        } else {
            let problem: Value = serde_json::from_str(&text).expect("a problem document");
            let detail = problem["detail"].as_str().expect("a sentence");
            assert!(detail.contains("admin.read_tokens"), "{text}");
            refused += 1;
        }
        if !is_open {
            let (status, _) = with(&format!("Bearer {WRONG}")).await;
            assert_eq!(status, 401, "{method} {path}");
        }
    }
    assert!(looked > 10 && refused > 10, "{looked} {refused}");
    for (method, path, expected) in [
        ("GET", "/actions/manifest", 200),
        ("POST", "/actions/authenticate", 403),
        ("POST", "/actions/syncAudience", 403),
        ("POST", "/actions/syncAudience?dry_run", 403),
        ("DELETE", "/status", 403),
        ("GET", "/nowhere", 404),
        ("HEAD", "/status", 200),
    ] {
        let body = (method == "POST").then(|| json!({}));
        let answer = ask(admin, method, path, Some(&look), body.as_ref()).await;
        assert_eq!(answer.status, expected, "{method} {path}");
    }

    // Nobody's membership has changed.
    let of_ada = "/api/v1/destinations/production/members/ada";
    let ada = ask(admin, "GET", of_ada, Some(&look), None).await.json();
    assert_eq!((&ada[0]["included"], &ada[0]["told"]), (&json!(true), &json!(true)));
    let bob = ask(admin, "GET", "/api/v1/destinations/production/members/bob", Some(&look), None);
    assert_eq!(bob.await.json(), json!([]));
    assert_eq!(launchdarkly.calls().total, calls);
    let status = ask(admin, "GET", "/status", Some(&look), None).await.json();
    assert_eq!(status["destinations"]["production"]["paused_since"], Value::Null);

    // Kept events are only for operators with full access.
    let kept = "/api/v1/destinations/production/rejected";
    for path in [kept, &format!("{kept}/1")] {
        let shown = ask(admin, "GET", path, Some(&look), None).await.text;
        assert!(shown.contains("no_context_key") && !shown.contains("planted@"), "{shown}");
        let whole = ask(admin, "GET", path, Some(&all), None).await.text;
        assert!(whole.contains("planted@example.com"), "{whole}");
    }
    for (token, power) in [(&all, "operate"), (&look, "read")] {
        let access = ask(admin, "GET", "/api/v1/access", Some(token), None).await.json();
        assert_eq!(access, json!({"power": power}));
    }
}

async fn a_read_token_is_taken_and_taken_back_by_a_reload() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let tokens = |read: &str| format!("[admin]\ntokens = [\"{TOKEN}\"]\n{read}");
    installation.write_config(&tokens(""));
    let cohortd = installation.start();
    let bearer = format!("Bearer {TOKEN}");
    let look = format!("Bearer {READ_TOKEN}");
    let status = async || ask(cohortd.admin, "GET", "/status", Some(&look), None).await.status;
    assert_eq!(status().await, 401);
    for (config, expected) in
        [(tokens(&format!("read_tokens = [\"{READ_TOKEN}\"]\n")), 200), (tokens(""), 401)]
    {
        installation.write_config(&config);
        let path = "/api/v1/reload";
        let reloaded = ask(cohortd.admin, "POST", path, Some(&bearer), Some(&json!({}))).await;
        assert_eq!((reloaded.status, &reloaded.json()["needs_restart"]), (200, &json!([])));
        assert_eq!(status().await, expected);
    }
}

async fn the_scheme_may_be_written_in_any_case_wherever_one_is_read() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("admin.tokens", TOKEN);
    installation.set("destinations.production.segment.bearer_tokens", "planted-bearer-token");
    installation.set("destinations.production.segment.write_keys", "planted-write-key");
    let cohortd = installation.start();
    let event = identify("ada", "vip", true, NOW_MS);
    let basic = "cGxhbnRlZC13cml0ZS1rZXk6"; // `planted-write-key:`
    for (admin, webhook, tracking) in [
        ("Bearer", "Bearer", "Basic"),
        ("bearer", "bearer", "basic"),
        ("BEARER", "BEARER", "BASIC"),
        ("bEaReR", "bEaReR", "bAsIc"),
    ] {
        let token = format!("{admin} {TOKEN}");
        let answer = ask(cohortd.admin, "GET", "/status", Some(&token), None).await;
        assert_eq!(answer.status, 200, "{admin}");
        let webhook = format!("{webhook} planted-bearer-token");
        let path = "/segment/production";
        let answer = ask(cohortd.public, "POST", path, Some(&webhook), Some(&event)).await;
        assert_eq!(answer.status, 200, "{webhook}");
        let tracking = format!("{tracking} {basic}");
        let answer =
            ask(cohortd.public, "POST", "/v1/identify", Some(&tracking), Some(&event)).await;
        assert_eq!(answer.status, 200, "{tracking}");
    }
}

async fn no_answer_is_stored_or_taken_for_what_it_is_not() {
    let (_launchdarkly, _installation, cohortd) = scene().await;
    let bearer = format!("Bearer {TOKEN}");
    let mut all: Vec<(String, String)> =
        operations(&cohortd).await.into_iter().map(|(method, path, _)| (method, path)).collect();
    let others = [
        ("GET", "/actions/manifest"),
        ("POST", "/actions/authenticate"),
        ("POST", "/actions/syncAudience"),
        ("GET", "/nowhere"),
        ("GET", "/assets/none.js"),
        ("PUT", "/status"),
        ("PUT", "/livez"),
    ];
    all.extend(others.map(|(method, path)| (method.to_owned(), path.to_owned())));
    let mut seen = std::collections::BTreeSet::new();
    for (method, path) in all {
        for token in [None, Some(bearer.as_str())] {
            // Without a body nothing is changed: a request that would need one is refused.
            let Answered { status, headers, .. } =
                ask(cohortd.admin, &method, &path, token, None).await;
            assert_eq!(headers["cache-control"], "no-store", "{method} {path}: {status}");
            assert_eq!(headers["x-content-type-options"], "nosniff", "{method} {path}: {status}");
            seen.insert(status);
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [200, 401, 404, 405, 415]);
    for path in ["/", "/assets/app.js"] {
        let Answered { status, headers, .. } = ask(cohortd.admin, "GET", path, None, None).await;
        assert_eq!(status, 200);
        assert_eq!(headers["cache-control"], "no-cache", "{path} holds no data");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
    }
}

/// How long the tests below keep guessing.
const A_WHILE: Duration = Duration::from_secs(3);

const GUESSERS: usize = 100;

/// Many clients guess at once, each on its own connection, while an operator works with a valid token.
async fn guesses_are_slowed_and_told_of_once_while_an_operator_works_on() {
    let (_launchdarkly, _installation, cohortd) = scene().await;
    let admin = cohortd.admin;
    let bearer = format!("Bearer {TOKEN}");
    let (answers, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut guessers = JoinSet::new();
    for _ in 0..GUESSERS {
        let (answers, is_over) = (Arc::clone(&answers), Arc::clone(&is_over));
        guessers.spawn(async move {
            let client = client();
            while !is_over.load(Ordering::Relaxed) {
                let guess = client.get(format!("http://{admin}/status")).bearer_auth(WRONG);
                // No answer: the connection was closed in favour of another one.
                let Ok(answer) = guess.send().await else { continue };
                assert_eq!(answer.status(), 401);
                answers.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let since = Instant::now();
    cohortd.until_logged(LINE).await;
    let (began, before) = (Instant::now(), answers.load(Ordering::Relaxed));
    let (mut took, worker) = (Vec::new(), client());
    while began.elapsed() < A_WHILE {
        for of in [&worker, &client()] {
            let asked = Instant::now();
            let request = of.get(format!("http://{admin}/status"));
            let answer = request.header("authorization", &bearer).send().await;
            assert_eq!(answer.expect("an answer").status(), 200);
            took.push(asked.elapsed());
        }
    }
    let answered = answers.load(Ordering::Relaxed) - before;
    is_over.store(true, Ordering::Relaxed);
    took.sort();
    let (rounds, p99) = (took.len(), took[took.len() * 99 / 100]);
    note!(
        "{answered} guesses answered in {:?}; the operator {rounds}, p99 {p99:?}",
        began.elapsed()
    );
    // The first log line may come before the last of the guesses that are answered at once.
    let most = 10 + 5 * usize::try_from(began.elapsed().as_secs() + 1).expect("a few");
    assert!(answered <= most, "{answered} in {:?}", began.elapsed());
    assert!(rounds > 5 && p99 < Duration::from_secs(5), "{rounds} {p99:?}");
    let minutes = || usize::try_from(since.elapsed().as_secs() / 60).expect("a few");
    assert!(cohortd.count_logged(LINE) <= 1 + minutes(), "a line a minute");
    let (_, metrics) = {
        let request = worker.get(format!("http://{admin}/metrics")).bearer_auth(READ_TOKEN);
        let answer = request.send().await.expect("an answer");
        (answer.status(), answer.text().await.expect("text"))
    };
    let counted = metrics
        .lines()
        .find_map(|line| {
            line.strip_prefix("cohortd_admin_refused_requests_total{reason=\"wrong_token\"} ")
        })
        .and_then(|count| count.parse::<usize>().ok());
    assert!(counted >= Some(GUESSERS), "{metrics}");

    // Delayed answers do not keep the daemon from stopping.
    let asked = Instant::now();
    let (status, log) = cohortd.stop();
    assert!(status.success());
    assert!(asked.elapsed() < Duration::from_secs(7), "not the whole grace period");
    let lines: Vec<Value> = log
        .iter()
        .filter(|line| line.contains(LINE))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert!(lines.len() >= 2, "at once, and the rest when it ends: {lines:?}");
    assert!(lines.len() <= 2 + minutes(), "{lines:?}");
    for line in &lines {
        let (count, from) = (line["count"].as_u64(), line["from"].as_str());
        assert_eq!(line["level"], "WARN");
        assert_eq!(from, Some(format!("127.0.0.1 ({})", count.expect("a number")).as_str()));
    }
    assert!(!log.concat().contains("planted-"), "no token is told");
}

/// More connections than the listener allows: authenticated clients keep theirs.
async fn guesses_on_more_connections_than_there_are_do_not_crowd_out_an_operator() {
    let (_launchdarkly, _installation, cohortd) = scene().await;
    let admin = cohortd.admin;
    let worker = client();
    let work = async || {
        let request = worker.get(format!("http://{admin}/status")).bearer_auth(TOKEN);
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
    };
    work().await;
    let mut guessers = JoinSet::new();
    for _ in 0..600 {
        guessers.spawn(async move {
            let guess = client().get(format!("http://{admin}/status")).bearer_auth(WRONG);
            let _ = guess.send().await; // most connections are closed in favour of others
        });
    }
    let began = Instant::now();
    while began.elapsed() < A_WHILE {
        work().await;
    }
    guessers.abort_all();
    while guessers.join_next().await.is_some() {}
    work().await;
}

async fn of_a_wrong_token_it_is_told_where_it_came_from_and_nothing_else() {
    let (_launchdarkly, _installation, cohortd) = scene().await;
    for token in [SHARED_SECRET, WRONG, "", "planted-admin-toke"] {
        let bearer = format!("Bearer {token}");
        let answer = ask(cohortd.admin, "GET", "/status", Some(&bearer), None).await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        assert!(!answer.text.contains("planted"), "{}", answer.text);
    }
    let line = cohortd.until_logged(LINE).await;
    assert!(line["from"].as_str().is_some_and(|from| from.starts_with("127.0.0.1 (")), "{line}");
    let log = cohortd.log().concat();
    assert!(!log.contains(WRONG) && !log.contains(TOKEN) && !log.contains(SHARED_SECRET), "{log}");
}

tests![
    whoever_may_only_read_sees_what_is_there_and_changes_nothing,
    a_read_token_is_taken_and_taken_back_by_a_reload,
    the_scheme_may_be_written_in_any_case_wherever_one_is_read,
    no_answer_is_stored_or_taken_for_what_it_is_not,
    guesses_are_slowed_and_told_of_once_while_an_operator_works_on,
    guesses_on_more_connections_than_there_are_do_not_crowd_out_an_operator,
    of_a_wrong_token_it_is_told_where_it_came_from_and_nothing_else,
];
