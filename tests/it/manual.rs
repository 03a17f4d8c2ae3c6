//! The commands and files in the README and the manual: a file is loaded and a command is run against a
//! running daemon, or it is listed here with the reason why not. Anything else fails the test.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use cohortd::config::Config;
use cohortd::manual::TOPICS;
use cohortd::sandbox::View;
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use serde_json::Value;

use crate::harness::{Cohortd, DEADLINE, ENVIRONMENT, Installation, identify, launchdarkly};
use crate::needs::{CURL, SH};
use crate::pages;

/// Commands with these beginnings are not run, and why.
const NOT_TYPED: [(&str, &str); 30] = [
    ("cargo build ", "builds for minutes; tests/it/containers.rs builds the same within the image"),
    ("cargo run ", "builds for minutes; tests/it/sandbox.rs runs the sandbox"),
    ("cargo test", "is what runs this"),
    ("cargo bench ", "measures for minutes"),
    ("cohortd check --online", "asks LaunchDarkly; tests/it/config.rs has it ask another"),
    ("cohortd ledger backup /root/", "tests/it/booted.rs types it, where root is another one's"),
    ("cohortd ledger copy ", "wants no daemon, and a server of PostgreSQL; tests/it/copying.rs"),
    ("cohortd ledger restore ", "wants no daemon; tests/it/restore.rs"),
    ("cohortd run", "is the daemon that all others ask"),
    ("cohortd sandbox", "tests/it/sandbox.rs"),
    ("LEDGER_PASSWORD_FILE=", "wants a server of PostgreSQL that is not used for anything else"),
    ("createdb ", "wants a server of PostgreSQL, as the line below it"),
    ("printf ", "tests/it/deployment.rs types it"),
    ("echo CLIENT_SIDE_ID=", "is read by the line below it; tests/it/containers.rs types it"),
    ("docker ", "tests/it/containers.rs types it where there is an engine"),
    (
        "install -D target/dist/",
        "needs the build before it; so does tests/it/booted.rs, which installs the same",
    ),
    ("install -d ", "tests/it/containers.rs and booted.rs type it"),
    ("install -m ", "tests/it/containers.rs and booted.rs type it"),
    ("kubectl apply ", "wants a cluster; tests/it/deployment.rs validates the files"),
    ("kubectl create ", "wants a cluster; tests/it/deployment.rs compares what it makes"),
    ("kubectl exec ", "wants a cluster"),
    ("kubectl port-forward ", "wants a cluster"),
    ("kubectl rollout ", "wants a cluster"),
    ("openssl rand -hex 32 > ", "tests/it/containers.rs types it"),
    ("openssl rand -hex 32 | install ", "tests/it/containers.rs types it"),
    ("sed 's|", "tests/it/booted.rs types it"),
    ("ssh ", "wants another machine"),
    ("systemctl ", "tests/it/booted.rs types it"),
    ("umask ", "tests/it/containers.rs types it"),
    ("api=", "is typed together with the lines below it"),
];

/// Files that contain this are not loaded, and why.
const NOT_LOADED: [(&str, &str, &str); 5] = [
    ("json", "\"createSegment\"", "is for LaunchDarkly, which reads it"),
    ("js", "new Analytics(", "tests/it/segment_sdk.rs runs Segment's SDK like this"),
    ("js", "AnalyticsBrowser.load(", "wants a browser and Segment's script"),
    ("ini", "AmbientCapabilities=", "tests/it/booted.rs has systemd read it"),
    ("ini", "LoadCredential=ledger-url:", "tests/it/deployment.rs makes a configuration of it"),
];

/// A code block or code span of a page.
struct Snippet {
    page: &'static str,
    /// Empty for commands.
    language: String,
    text: String,
}

fn snippets() -> Vec<Snippet> {
    let mut found: Vec<Snippet> = Vec::new();
    for (page, text) in pages::all() {
        let mut is_code = false;
        for part in Parser::new_ext(text, Options::ENABLE_TABLES) {
            match part {
                Event::Start(Tag::CodeBlock(kind)) => {
                    let language = match kind {
                        CodeBlockKind::Fenced(language) => language.into_string(),
                        CodeBlockKind::Indented => String::new(),
                    };
                    found.push(Snippet { page, language, text: String::new() });
                    is_code = true;
                }
                Event::End(TagEnd::CodeBlock) => is_code = false,
                Event::Text(text) if is_code => {
                    found.last_mut().expect("one is open").text.push_str(&text);
                }
                _ => {}
            }
        }
    }
    found
}

/// The commands of a block as a shell reads them, with continued lines joined.
fn commands(block: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in block.lines() {
        match commands.last_mut().filter(|_| goes_on) {
            Some(command) => *command = format!("{command}\n{line}"),
            None => commands.push(line.to_owned()),
        }
        let all = commands.last().map_or("", String::as_str);
        // also within quotes; comments contain none
        let typed = all.split(" #").next().unwrap_or(all);
        goes_on = line.ends_with('\\') || typed.matches('\'').count() % 2 == 1;
    }
    commands
}

fn why_not_typed(command: &str) -> Option<&'static str> {
    NOT_TYPED.iter().find(|(begins, _)| command.starts_with(begins)).map(|(begins, _)| *begins)
}

/// Replaces a page's placeholders with this test's values.
fn filled(command: &str) -> String {
    let words = [
        ("[DESTINATION] [AUDIENCE_ID]", "production aud_vip"),
        ("[DESTINATION]", "production"),
        ("AUDIENCE_ID", "aud_vip"),
        ("backup FILE", "backup copy"),
        ("KEY ", "ada "),
        ("USER_ID", "ada"),
        ("--file FILE", "--file keys --audience-key vip"), // another line may have dropped it
        ("help TOPIC", "help security"),
        ("replace-with-the-client-side-id", ENVIRONMENT),
    ];
    words.iter().fold(command.to_owned(), |line, (word, is)| line.replace(word, is))
}

/// An operator's shell on the daemon's host.
fn shell(installation: &Installation, cohortd: &Cohortd, script: &str) -> Command {
    let mut sh = Command::new("sh");
    let line = installation.line(Some(cohortd.admin), &[]);
    let variables = line.get_envs().filter_map(|(name, value)| Some((name, value?)));
    sh.args(["-ec", script]).env_clear().envs(variables);
    let binary = Path::new(env!("CARGO_BIN_EXE_cohortd")).parent().expect("a folder");
    sh.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", binary.display()));
    sh.env("COHORTD_LISTEN__ADDRESS", cohortd.public.to_string());
    sh.current_dir(installation.directory.path());
    sh
}

async fn every_line_is_typed_against_a_daemon_or_listed_with_the_reason() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("destinations.production.segment.allow_batches", "false");
    let event = identify("ada", "vip", true, 1_750_000_000_000);
    installation.write("event.json", &event.to_string());
    installation.write("keys", "ada\ngrace\n");
    let environment = tempfile::tempdir().expect("a temporary directory");
    for file in ["segment-secret", "segment-bearer", "launchdarkly-token"] {
        let secret = "0123456789abcdef0123456789abcdef";
        std::fs::write(environment.path().join(file), secret).expect("it is ours");
    }
    let cohortd = installation.start();
    assert_eq!(cohortd.post(&event).await.expect("an answer").0, 200);
    // who stays when ada is forgotten: an audience without members is gone
    let stays = identify("grace", "vip", true, 1_750_000_000_000);
    assert_eq!(cohortd.post(&stays).await.expect("an answer").0, 200);
    let are_in =
        |view: &View<'_>| ["ada", "grace"].iter().all(|key| view.has(ENVIRONMENT, "aud_vip", key));
    launchdarkly.until(DEADLINE, are_in).await.expect("both are in");

    let (mut typed, mut not_typed) = (BTreeSet::new(), BTreeSet::new());
    for Snippet { page, language, text } in snippets() {
        if !language.is_empty() {
            continue;
        }
        let mut before = String::new();
        for command in commands(&text) {
            if let Some(begins) = why_not_typed(&command) {
                not_typed.insert(begins);
                if begins == "api=" {
                    before = format!("{command}\n");
                }
                continue;
            }
            let of_daemon =
                ["cohortd ", "curl ", "COHORTD_"].iter().any(|of| command.starts_with(of));
            assert!(of_daemon, "{page}: this is neither typed nor listed: {command}");
            let script = filled(&format!("{before}{command}"))
                .replace("127.0.0.1:8081", &cohortd.admin.to_string())
                .replace("curl ", "curl -sS --fail-with-body ");
            let mut sh = shell(&installation, &cohortd, &script);
            if command.starts_with("COHORTD_") {
                // the file is not needed, and no other variable is set
                let path = sh.get_envs().find(|(name, _)| *name == "PATH");
                let path = path.and_then(|(_, value)| value).expect("it is set").to_owned();
                sh.env_clear().env("PATH", path).current_dir(environment.path());
            }
            let output = sh.output().expect("a shell");
            let said =
                [output.stdout, output.stderr].map(|of| String::from_utf8_lossy(&of).into_owned());
            assert!(output.status.success(), "{page}: {script}\n{}{}", said[0], said[1]);
            typed.insert(command);
        }
    }
    let stale: Vec<_> =
        NOT_TYPED.iter().filter(|(begins, _)| !not_typed.contains(begins)).collect();
    assert!(stale.is_empty(), "listed, and nobody is told to type it: {stale:?}");
    assert!(typed.len() > 30, "{typed:?}");
    assert!(cohortd.stop().0.success());
}

/// Loads a configuration, with what a file of the manual takes for granted.
fn load(folder: &Path, toml: &str) -> Result<Config, String> {
    let file = folder.join("cohortd.toml");
    std::fs::write(&file, toml).expect("it is ours");
    let mut variables: Vec<(String, &str)> = Vec::new();
    for name in ["PRODUCTION", "STAGING"] {
        let is_named =
            toml.contains(&format!("destinations.{}.launchdarkly]", name.to_lowercase()));
        let is_routed = toml.contains("\"staging\"") || name == "PRODUCTION";
        if !is_named && is_routed {
            let of = format!("COHORTD_DESTINATIONS__{name}__LAUNCHDARKLY__");
            variables.push((format!("{of}CLIENT_SIDE_ID"), name));
            variables.push((format!("{of}SERVICE_TOKEN"), "0123456789abcdef"));
        }
    }
    if !toml.contains("segment]") {
        let key = "COHORTD_DESTINATIONS__PRODUCTION__SEGMENT__SHARED_SECRETS";
        variables.push((key.to_owned(), "0123456789abcdef"));
    }
    Config::load_from(Some(&file), variables).map_err(|faults| faults.to_string())
}

fn every_file_is_loaded_or_listed_with_the_reason() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("it is ours");
    };
    for file in ["segment-secret", "segment-bearer", "launchdarkly-token"] {
        write(file, "0123456789abcdef0123456789abcdef");
    }
    write("mapping.json", pages::file_with("json", "$.traits.crm_id"));
    let certified =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    write("fullchain.pem", &certified.cert.pem());
    write("privkey.pem", &certified.signing_key.serialize_pem());

    let (mut loaded, mut not_loaded) = (0, BTreeSet::new());
    for Snippet { page, language, text } in snippets() {
        let listed = NOT_LOADED.iter().find(|(of, has, _)| *of == language && text.contains(has));
        if let Some((_, has, _)) = listed {
            not_loaded.insert(*has);
            continue;
        }
        match &*language {
            // commands and output
            "" | "text" => continue,
            "toml" => {
                let result = load(folder.path(), &text);
                assert!(result.is_ok(), "{page}: {text}\n{}", result.expect_err("it is faulty"));
            }
            "json" => {
                write("pasted.json", &text);
                let toml = "[destinations.production]\nmapping_file = \"pasted.json\"\n";
                let config = load(folder.path(), toml);
                let config = config.unwrap_or_else(|faults| panic!("{page}: {text}\n{faults}"));
                let doubts = config.warnings.iter().filter(|of| of.contains("mapping"));
                assert_eq!(doubts.collect::<Vec<_>>(), [""; 0], "{page}: {text}");
            }
            other => panic!("{page}: {other} is neither loaded nor listed: {text}"),
        }
        loaded += 1;
    }
    let stale: Vec<_> = NOT_LOADED.iter().filter(|(_, has, _)| !not_loaded.contains(has)).collect();
    assert!(stale.is_empty(), "listed, and in no page: {stale:?}");
    assert!(loaded > 8, "{loaded}");
}

/// The error messages in the pages are those that are printed.
fn a_fault_is_shown_as_it_is_said() {
    let shown = pages::file_with("text", "user_email.@case.value.@path must be");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mapping = r#"{"user_email": {"@case": {"operator": "lower", "value": {"@path": 7}}}}"#;
    std::fs::write(folder.path().join("mapping.json"), mapping).expect("it is ours");
    let toml = "[destinations.production]\nmapping_file = \"mapping.json\"\n";
    let faults = load(folder.path(), toml).expect_err("it is faulty");
    assert!(faults.contains(shown.trim()), "{faults}");
}

async fn a_page_is_read_in_a_terminal_and_in_a_browser() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let printed = installation.types(None, &["help", "troubleshooting"]).done();
    assert!(printed.contains("\n## Segment says 401\n\n- *You see* 401"), "{printed}");
    let widest = printed.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(100), "{widest:?}");

    let list = installation.types(None, &["help"]).done();
    for topic in &TOPICS {
        assert!(list.contains(&format!("  {} ", topic.name)), "{list}");
    }
    let unknown = installation.types(None, &["help", "secruity"]);
    assert_eq!(unknown.code, 64);
    assert!(unknown.complaint.contains("did you mean security?"), "{}", unknown.complaint);
    let of_command = installation.types(None, &["help", "parked", "requeue"]).done();
    assert!(of_command.contains("Usage: cohortd parked requeue"), "{of_command}");

    let status = cohortd.status().await;
    let state = status["destinations"]["production"]["manual"].as_str().expect("a path");
    let (path, anchor) = state.split_once('#').expect("a heading");
    let page = format!("http://{}{path}", cohortd.admin);
    let text = reqwest::get(page).await.expect("an answer").text().await.expect("text");
    assert!(text.contains(&format!(" id=\"{anchor}\"")), "{state}");
    assert!(cohortd.stop().0.success());
}

/// In the form of `/status`, where users read it.
async fn every_concern_says_where_the_manual_has_more() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let unsigned = cohortd.post_to("production", "{}".to_owned(), "").await.expect("an answer");
    assert_eq!(unsigned.0, 401);
    let is_refused = |status: &Value| {
        status["destinations"]["production"]["concerns"][0]["manual"]
            == "/manual/troubleshooting#requests-are-refused"
    };
    cohortd.until_status(is_refused).await;
    assert!(cohortd.stop().0.success());
}

tests![
    every_line_is_typed_against_a_daemon_or_listed_with_the_reason.needs(&SH).needs(&CURL),
    every_file_is_loaded_or_listed_with_the_reason,
    a_fault_is_shown_as_it_is_said,
    a_page_is_read_in_a_terminal_and_in_a_browser,
    every_concern_says_where_the_manual_has_more,
];
