//! `cohortd status` against the running daemon: what it says, and the exit codes scripts act on.

use std::net::SocketAddr;

use cohortd::sandbox::Fault;

use crate::harness::{DEADLINE, ENVIRONMENT, Installation, Typed, identify, launchdarkly};

const NOW_MS: i64 = 1_750_000_000_000;

fn status(installation: &Installation, admin: SocketAddr, arguments: &[&str]) -> (i32, String) {
    let words: Vec<&str> = ["status"].into_iter().chain(arguments.iter().copied()).collect();
    let Typed { code, out, complaint } = installation.types(Some(admin), &words);
    (code, out + &complaint)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_tells_well_from_held_and_from_gone() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("admin.tokens", "planted-admin-token");
    let cohortd = installation.start();
    let told = || status(&installation, cohortd.admin, &[]);

    let (code, text) = told();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("production   ok               0           -"), "{text}");

    launchdarkly.script(|_| Fault::status(401));
    cohortd.post(&identify("ada", "vip", true, NOW_MS)).await.expect("an answer");
    let held = "destination held: events are kept, nothing is delivered until this is mended";
    cohortd.logged(held).await;
    let (code, text) = told();
    assert_eq!(code, 75, "{text}");
    assert!(text.contains("production is held since "), "{text}");
    assert!(text.contains("status 401: LaunchDarkly refuses the service token"), "{text}");
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
