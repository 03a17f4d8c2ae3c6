//! `cohortd status` against the running daemon: what it says, and the exit codes scripts act on.

use std::net::SocketAddr;
use std::process::{Command, Output};

use cohortd::sandbox::Fault;

use crate::harness::{DEADLINE, ENVIRONMENT, Installation, identify, launchdarkly};

const NOW_MS: i64 = 1_750_000_000_000;

/// `cohortd status` as the operator of the daemon types it.
fn status(installation: &Installation, admin: SocketAddr, arguments: &[&str]) -> Output {
    let daemon = installation.command();
    let mut command = Command::new(daemon.get_program());
    command.arg("status").args(arguments).env_clear();
    command.envs(daemon.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("COHORTD_ADMIN__ADDRESS", admin.to_string());
    command.current_dir(installation.directory.path()).output().expect("the binary runs")
}

fn code_and_text(output: &Output) -> (i32, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.code().expect("it ends by itself"), String::from_utf8(text).expect("text"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_tells_well_from_held_and_from_gone() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("admin.tokens", "planted-admin-token");
    let cohortd = installation.start();
    let told = || status(&installation, cohortd.admin, &[]);

    let (code, text) = code_and_text(&told());
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("production   ok               0           -"), "{text}");

    launchdarkly.script(|_| Fault::status(401));
    cohortd.post(&identify("ada", "vip", true, NOW_MS)).await.expect("an answer");
    let held = "destination held: events are kept, nothing is delivered until this is mended";
    cohortd.logged(held).await;
    let (code, text) = code_and_text(&told());
    assert_eq!(code, 75, "{text}");
    assert!(text.contains("production is held since "), "{text}");
    assert!(text.contains("status 401: LaunchDarkly refuses the service token"), "{text}");
    let (code, json) = code_and_text(&status(&installation, cohortd.admin, &["--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).expect("one JSON object");
    assert_eq!((code, &json["destinations"]["production"]["state"]), (75, &"held".into()));

    launchdarkly.script(|_| Fault::None);
    let has = |view: &cohortd::sandbox::View<'_>| view.has(ENVIRONMENT, "aud_vip", "ada");
    launchdarkly.until(DEADLINE, has).await.expect("it recovers by itself");
    cohortd.logged("destination no longer held").await;
    assert_eq!(code_and_text(&told()).0, 0);

    installation.set("admin.tokens", "another");
    let (code, text) = code_and_text(&status(&installation, cohortd.admin, &[]));
    assert_eq!(code, 64, "{text}");
    assert!(text.contains("wants another one of admin.tokens"), "{text}");

    let address = cohortd.admin;
    cohortd.kill();
    let (code, text) = code_and_text(&status(&installation, address, &[]));
    assert_eq!(code, 69, "{text}");
    assert!(text.contains("is the daemon running?"), "{text}");
}
