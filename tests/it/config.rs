//! What is wrong with a configuration is said at once, before anything is opened; what is right is
//! understood; and the commands end with the exit codes they promise.

use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::DEADLINE;

const GOOD: &str = r#"
[listen]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[destinations.production.segment]
shared_secrets = ["hidden-secret"]
bearer_tokens = ["hidden-bearer"]
[destinations.production.launchdarkly]
client_side_id = "known-id"
service_token = "hidden-token"
"#;

/// The real binary, in a folder of its own, with no environment but `variables`.
async fn cohortd(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cohortd"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .current_dir(folder)
        .kill_on_drop(true)
        .output()
        .await
        .expect("the binary runs")
}

fn folder(toml: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("cohortd.toml"), toml).expect("it can be written");
    folder
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ends by itself")
}

fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8(bytes.to_vec()).expect("it writes text");
    assert!(!text.contains("hidden"), "a secret is shown: {text}");
    text
}

/// A server on a free port; its address as `ip:port`.
async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

async fn run_and_check_say_all_faults_at_once_and_open_nothing() {
    let faulty = "[delivery]\nretry_ceiling_ms = 200\n[ledger]\npath = \"ledger\"\n\
                  [destinations.eu.segment]\nshared_secrets = [\"hidden\"]\nallow = true\n\
                  [destinations.eu.launchdarkly]\nclient_side_id = \"id\"\n";
    let folder = folder(faulty);
    let variables = [("COHORTD_LISTEN__ADDRESS", "here")];
    let file = folder.path().join("cohortd.toml");
    for command in ["run", "check"] {
        let output = cohortd(folder.path(), &[command], &variables).await;
        assert_eq!(code(&output), 64);
        let complaint = text(&output.stderr);
        let (problems, from) = complaint.trim_end().rsplit_once('\n').expect("lines");
        assert_eq!(from, format!("read from {} and COHORTD_LISTEN__ADDRESS", file.display()));
        assert_eq!(
            problems,
            "config: 4 problems\n  \
             listen.address = \"here\"   must be an IP address and a port, as in 127.0.0.1:8080 or \
             [::1]:8080   [COHORTD_LISTEN__ADDRESS]\n  \
             delivery.retry_ceiling_ms = 200   is below retry_floor_ms (500)   \
             [COHORTD_DELIVERY__RETRY_CEILING_MS]\n  \
             destinations.eu.segment.allow   unknown key\n  \
             destinations.eu.launchdarkly.service_token   not set; expected in \
             COHORTD_DESTINATIONS__EU__LAUNCHDARKLY__SERVICE_TOKEN or \
             COHORTD_DESTINATIONS__EU__LAUNCHDARKLY__SERVICE_TOKEN_FILE"
        );
        assert_eq!(text(&output.stdout), "");
        assert!(!folder.path().join("ledger").exists());
    }
}

async fn check_says_what_it_understood_and_no_secret() {
    let folder = folder(GOOD);
    let output = cohortd(folder.path(), &["check"], &[]).await;
    let answer = text(&output.stdout);
    assert_eq!(code(&output), 0, "{answer}{}", text(&output.stderr));
    for expected in [
        "destination production\n",
        "/segment/production on 127.0.0.1:0\n",
        "1 shared secret, 1 bearer token; any one suffices\n",
        "https://app.launchdarkly.com/, client-side ID known-id\n",
        "context kind user, context key user_id_only, if type = \"identify\" or type = \"track\"\n",
        "configuration is good\n",
    ] {
        assert!(answer.contains(expected), "{expected}\n{answer}");
    }
}

async fn the_file_is_the_named_one_then_that_of_the_variable_then_the_one_that_is_there() {
    let folder = folder("in_place = 1");
    for name in ["named", "variable"] {
        std::fs::write(folder.path().join(name), format!("in_{name} = 1")).expect("it is ours");
    }
    let variable = ("COHORTD_CONFIG", "variable");
    let set = [variable];
    let cases = [
        (&["check", "--config", "named"][..], &set[..], "in_named   unknown key"),
        (&["check"], &set, "in_variable   unknown key"),
        (&["check"], &[("COHORTD_CONFIG", "")], "in_place   unknown key"),
        (&["check"], &[], "in_place   unknown key"),
        (&["--config", "none", "check"], &[], "none   cannot be read: No such file"),
    ];
    for (arguments, variables, expected) in cases {
        let output = cohortd(folder.path(), arguments, variables).await;
        assert_eq!(code(&output), 64);
        let complaint = text(&output.stderr);
        assert!(complaint.contains(expected), "{arguments:?} {expected}\n{complaint}");
    }
}

/// The file may be read from anywhere: what it names is where it is.
async fn paths_in_the_file_begin_there_and_those_of_variables_here() {
    let relative = "[listen]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
                    [ledger]\npath = \"data\"\n[destinations.eu.segment]\n\
                    shared_secrets_file = \"secret\"\n[destinations.eu.launchdarkly]\n\
                    client_side_id = \"id\"\nservice_token_file = \"token\"\n";
    let (around, elsewhere) = (folder(relative), tempfile::tempdir().expect("a temporary folder"));
    for name in ["secret", "token"] {
        std::fs::write(around.path().join(name), "hidden-0123456789").expect("it is ours");
    }
    let file = around.path().join("cohortd.toml").display().to_string();
    let ledger = around.path().join("data").display().to_string();
    let check = ["--config", &file, "check"];
    let output = cohortd(elsewhere.path(), &check, &[]).await;
    let answer = text(&output.stdout);
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert!(
        answer.starts_with(&format!("file: {file}\nvariables: none\nledger: {ledger} (none yet")),
        "{answer}"
    );

    let variables = [("COHORTD_LEDGER__PATH", "here"), ("COHORTD_LOG__LEVEL", "hidden=info")];
    let answer = text(&cohortd(elsewhere.path(), &check, &variables).await.stdout);
    let here = elsewhere.path().join("here").display().to_string();
    let expected = format!("variables: COHORTD_LEDGER__PATH, COHORTD_LOG__LEVEL\nledger: {here} (");
    assert!(answer.contains(&expected), "{answer}");

    // It was there once that the file's own began.
    let output = cohortd(elsewhere.path(), &["--config", &file, "check"], &[]).await;
    assert_eq!(code(&output), 0);
    std::fs::create_dir(elsewhere.path().join("data")).expect("it is ours");
    std::fs::write(elsewhere.path().join("data/ledger.db"), "").expect("it is ours");
    let old = elsewhere.path().join("data").display().to_string();
    for command in [&["run"][..], &["check"], &["ledger", "check"], &["ledger", "restore", "x"]] {
        let arguments = [&["--config", &file], command].concat();
        let output = cohortd(elsewhere.path(), &arguments, &[]).await;
        let said = text(&output.stdout) + &text(&output.stderr).replace("\\\"", "\"");
        assert_eq!(code(&output), 64, "{command:?}: {said}");
        assert!(said.contains(&format!("Set ledger.path = \"{old}\", or move")), "{said}");
        assert!(!around.path().join("data").exists());
    }
    // A secret that was once found so is told too.
    std::fs::rename(around.path().join("token"), elsewhere.path().join("token")).expect("ours");
    let output = cohortd(elsewhere.path(), &check, &[]).await;
    let complaint = text(&output.stderr);
    assert!(complaint.contains("are relative to the file: there is "), "{complaint}");
}

async fn check_tries_the_place_of_the_ledger_and_speaks_to_programs() {
    let folder = folder(GOOD);
    let said = |output: &Output| -> Value {
        serde_json::from_str(&text(&output.stdout)).expect("one JSON value")
    };
    let output = cohortd(folder.path(), &["check", "--json"], &[]).await;
    let good = said(&output);
    assert_eq!((code(&output), &good["good"], &good["faults"]), (0, &true.into(), &json!([])));
    let file = folder.path().join("cohortd.toml").display().to_string();
    assert_eq!(good["read_from"]["file"], file);
    assert_eq!(good["ledger"]["path"], folder.path().join("data/ledger").display().to_string());
    assert_eq!(good["destinations"][0]["path"], "/segment/production");

    let unusable = [("COHORTD_LEDGER__PATH", "cohortd.toml/ledger")];
    let output = cohortd(folder.path(), &["check"], &unusable).await;
    assert_eq!(code(&output), 69);
    assert!(text(&output.stdout).contains("cohortd.toml is not a directory"));
    let output = cohortd(folder.path(), &["check", "--json"], &unusable).await;
    assert_eq!((code(&output), &said(&output)["ledger"]["usable"]), (69, &false.into()));
    assert_eq!(std::fs::read_dir(folder.path()).expect("it is ours").count(), 1, "nothing is made");

    let wrong = [("COHORTD_LISTEN__ADDRESS", "here")];
    let output = cohortd(folder.path(), &["check", "--json"], &wrong).await;
    let faulty = said(&output);
    assert_eq!((code(&output), &faulty["good"]), (64, &false.into()));
    assert_eq!(faulty["faults"][0]["key"], "listen.address");
    assert_eq!(faulty["read_from"]["variables"], json!(["COHORTD_LISTEN__ADDRESS"]));
    assert_eq!(text(&output.stderr), "");
}

/// Whoever is in the wrong folder reads where the file was looked for.
async fn without_a_file_it_is_said_where_one_was_looked_for() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for arguments in [&["run"][..], &["check"], &["status"], &["ledger", "check"], &["explain"]] {
        let nobody = [("COHORTD_ADMIN__ADDRESS", "127.0.0.1:1")];
        let output = cohortd(folder.path(), arguments, &nobody).await;
        let complaint = text(&output.stderr);
        assert_ne!(code(&output), 0, "{arguments:?}");
        let here = folder.path().join("cohortd.toml");
        let places = format!("there is no {} and no /etc/cohortd/cohortd.toml", here.display());
        assert!(complaint.contains(&places), "{arguments:?}: {complaint}");
    }
}

async fn a_wrong_command_line_is_64_and_help_is_an_answer() {
    let folder = folder(GOOD);
    let cases: [(&[&str], i32); 8] = [
        (&["--help"], 0),
        (&["send", "--help"], 0),
        (&["--version"], 0),
        (&[], 64),
        (&["fly"], 64),
        (&["check", "--offline"], 64),
        (&["send", "--user", "ada"], 64),
        (&["send", "nowhere", "--user", "ada", "--audience", "vip", "--enter"], 64),
    ];
    for (arguments, expected) in cases {
        let output = cohortd(folder.path(), arguments, &[]).await;
        assert_eq!(code(&output), expected, "{arguments:?}");
        assert_eq!(output.stdout.is_empty(), expected != 0, "{arguments:?}");
        assert_eq!(output.stderr.is_empty(), expected == 0, "{arguments:?}");
    }
}

/// Nobody writes into it: whoever read it would wait for ever.
async fn a_configuration_that_is_no_regular_file_is_refused_at_once() {
    let folder = folder(GOOD);
    let pipe = folder.path().join("pipe");
    let owner = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, owner, 0)
        .expect("a pipe");
    let secret = [("COHORTD_DESTINATIONS__PRODUCTION__SEGMENT__WRITE_KEYS_FILE", "pipe")];
    let cases = [
        (&["check", "--config", "pipe"][..], &[][..]),
        (&["run", "--config", "pipe"], &[]),
        (&["ledger", "check", "--config", "pipe"], &[]),
        (&["check"], &[("COHORTD_CONFIG", "pipe")]),
        (&["check"], &secret),
        (&["run"], &secret),
    ];
    for (arguments, variables) in cases {
        let ending = cohortd(folder.path(), arguments, variables);
        let output = tokio::time::timeout(DEADLINE, ending).await.expect("it waits for nobody");
        let complaint = text(&output.stderr);
        assert_eq!(code(&output), 64, "{arguments:?}: {complaint}");
        let why = "cannot be read: it is a pipe; a regular file is expected";
        assert!(complaint.contains(why), "{arguments:?}: {complaint}");
    }
}

/// `LaunchDarkly`'s two answers to a question about credentials.
async fn launchdarkly(request: Request) -> StatusCode {
    let token = request.headers().get("authorization").map(axum::http::HeaderValue::as_bytes);
    match (request.method(), request.uri().path(), token) {
        (&Method::HEAD, "/sdk/goals/known-id", None)
        | (&Method::GET, "/api/v2/versions", Some(b"hidden-token")) => StatusCode::OK,
        (&Method::GET, "/api/v2/versions", _) => StatusCode::UNAUTHORIZED,
        _ => StatusCode::NOT_FOUND,
    }
}

async fn check_online_asks_for_both_credentials() {
    let folder = folder(GOOD);
    let address = serve(Router::new().fallback(launchdarkly)).await;
    let url = format!("http://{address}");
    let prefix = "COHORTD_DESTINATIONS__PRODUCTION__LAUNCHDARKLY__";
    let names = ["BASE_URL", "CLIENT_SDK_URL", "CLIENT_SIDE_ID", "SERVICE_TOKEN"]
        .map(|name| format!("{prefix}{name}"));
    let moved =
        serve(Router::new().fallback(async move || {
            (StatusCode::FOUND, [("location", "http://127.0.0.1:9/hidden")])
        }))
        .await;
    let moved = format!("http://{moved}");
    let nobody = "http://127.0.0.1:1";
    #[rustfmt::skip]
    let cases = [
        (&url[..], "known-id", "hidden-token", 0, ["client-side ID known\n", "service token  accepted; "]),
        (&url, "other", "hidden-token", 69, ["client-side ID refused by LaunchDarkly (404): ", "service token  accepted; "]),
        (&url, "known-id", "hidden-other", 69, ["client-side ID known\n", "service token  refused by LaunchDarkly (401): "]),
        (&moved, "known-id", "hidden-token", 69, ["client-side ID unclear: ", "answered 302"]),
        (nobody, "known-id", "hidden-token", 69, ["client-side ID unclear: ", "cannot be reached"]),
    ];
    for (url, id, token, expected, texts) in cases {
        let values = [url, url, id, token];
        let variables: Vec<(&str, &str)> =
            names.iter().map(String::as_str).zip(values).chain([("HTTP_PROXY", nobody)]).collect();
        let output = cohortd(folder.path(), &["check", "--online"], &variables).await;
        let answer = text(&output.stdout);
        assert_eq!(code(&output), expected, "{answer}");
        for expected in texts {
            assert!(answer.contains(expected), "{expected}\n{answer}");
        }
        assert!(answer.contains("configuration is good\n"), "{answer}");
    }
}

async fn healthcheck_needs_no_good_configuration_but_a_daemon_that_is_ready() {
    let folder = folder("[destinations.eu]\nnonsense = true\n");
    let well = serve(Router::new().route("/healthz", axum::routing::get(async || ""))).await;
    let unwell = StatusCode::SERVICE_UNAVAILABLE;
    let unwell = serve(Router::new().fallback(async move || unwell)).await;
    let cases = [
        (well.replace("127.0.0.1", "0.0.0.0"), 0, ""),
        (well, 0, ""),
        (unwell, 69, "503 Service Unavailable"),
        ("127.0.0.1:1".to_owned(), 69, "not ready: http://127.0.0.1:1/healthz: "),
        ("here".to_owned(), 64, "listen.address = \"here\""),
    ];
    for (address, expected, complaint) in cases {
        let variables = [("COHORTD_LISTEN__ADDRESS", &address[..])];
        let output = cohortd(folder.path(), &["healthcheck"], &variables).await;
        assert_eq!(code(&output), expected, "{address}");
        assert!(text(&output.stderr).contains(complaint), "{address} {complaint}");
    }
}

async fn send_posts_what_segment_would_and_tells_the_answer() {
    let folder = folder(GOOD);
    std::fs::write(folder.path().join("events"), "[ {\"a\": 1}, {\"b\":2} ]").expect("it is ours");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    let app = Router::new()
        .route(
            "/segment/production",
            axum::routing::post(async move |headers: HeaderMap, body: Bytes| {
                notes.lock().expect("no handler panics").push((headers, body));
                "{\"accepted\":2,\"ignored\":0,\"rejected\":[]}\n"
            }),
        )
        .route("/busy", axum::routing::post(async || StatusCode::SERVICE_UNAVAILABLE));
    let address = serve(app).await;
    let variables = [("COHORTD_LISTEN__ADDRESS", &address[..])];

    let output = cohortd(folder.path(), &["send", "--file", "events"], &variables).await;
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    let answer = "200 OK\n{\"accepted\":2,\"ignored\":0,\"rejected\":[]}\n";
    assert_eq!(text(&output.stdout), answer);
    let (headers, body) = seen.lock().expect("no handler panics").remove(0);
    assert_eq!(body, "[{\"a\": 1},{\"b\":2}]");
    // HMAC-SHA1 of `{"a": 1}` under `hidden-secret`, computed with OpenSSL.
    assert_eq!(headers["x-signature"], "e3177bccf62f2791faddcc1d8bebf99fce84a191");
    assert_eq!(headers["authorization"], "Bearer hidden-bearer");

    let flags = ["send", "production", "--user", "ada", "--audience", "vip", "--exit", "--track"];
    assert_eq!(code(&cohortd(folder.path(), &flags, &variables).await), 0);
    let (_, body) = seen.lock().expect("no handler panics").remove(0);
    let event: serde_json::Value = serde_json::from_slice(&body).expect("an event is JSON");
    assert_eq!((&event["userId"], &event["properties"]["vip"]), (&"ada".into(), &false.into()));

    for (url, expected) in [
        (format!("http://{address}/busy"), 69),
        (format!("http://{address}/elsewhere"), 64),
        ("http://127.0.0.1:1".to_owned(), 69),
    ] {
        let arguments = ["send", "--file", "events", "--url", &url];
        assert_eq!(code(&cohortd(folder.path(), &arguments, &[]).await), expected, "{url}");
    }
}

tests![
    run_and_check_say_all_faults_at_once_and_open_nothing,
    check_says_what_it_understood_and_no_secret,
    paths_in_the_file_begin_there_and_those_of_variables_here,
    check_tries_the_place_of_the_ledger_and_speaks_to_programs,
    without_a_file_it_is_said_where_one_was_looked_for,
    a_configuration_that_is_no_regular_file_is_refused_at_once,
    the_file_is_the_named_one_then_that_of_the_variable_then_the_one_that_is_there,
    a_wrong_command_line_is_64_and_help_is_an_answer,
    check_online_asks_for_both_credentials,
    healthcheck_needs_no_good_configuration_but_a_daemon_that_is_ready,
    send_posts_what_segment_would_and_tells_the_answer,
];
