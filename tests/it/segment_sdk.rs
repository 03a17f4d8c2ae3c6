//! Segment's own Node SDK, pointed at the daemon: what it flushes ends in LaunchDarkly's segments.

use std::path::Path;
use std::process::Command;

use cohortd::sandbox::View;

use crate::harness::{DEADLINE, ENVIRONMENT, Installation, launchdarkly};

const WRITE_KEY: &str = "planted-write-key";

/// What npm says when it cannot reach its registry.
const UNREACHED: [&str; 5] = ["ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH"];

/// Installs the SDK into a folder of its own. `false`: there is no npm on this machine, or no way to
/// its registry.
fn installed(folder: &Path) -> bool {
    if Command::new("npm").arg("--version").output().is_err() {
        return false;
    }
    for (name, text) in [
        ("package.json", include_str!("../sdk/package.json")),
        ("flush.mjs", include_str!("../sdk/flush.mjs")),
    ] {
        std::fs::write(folder.join(name), text).expect("it is ours");
    }
    let install = ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0"];
    let output = Command::new("npm").args(install).current_dir(folder).output();
    let output = output.expect("npm is there");
    let complaint = String::from_utf8_lossy(&output.stderr);
    let unreached = UNREACHED.iter().any(|code| complaint.contains(code));
    assert!(output.status.success() || unreached, "{complaint}");
    output.status.success()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_segments_node_sdk_flushes_ends_in_the_segments() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    if !installed(folder.path()) {
        println!("Segment's SDK cannot be installed here, and nothing is shown");
        return;
    }
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("destinations.production.segment.write_keys", WRITE_KEY);
    let cohortd = installation.start();
    let host = format!("http://{}", cohortd.public);
    let flush = |key: &str| {
        let words = ["flush.mjs", &host, key];
        Command::new("node").args(words).current_dir(folder.path()).output().expect("node is there")
    };
    let output = flush(WRITE_KEY);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let there = |view: &View<'_>| {
        view.segment(ENVIRONMENT, "aud_vip")
            .is_some_and(|of| of.members.iter().map(String::as_str).eq(["ada", "cyd"]))
    };
    launchdarkly.until(DEADLINE, there).await.expect("two are in, and one has left");
    assert!(!flush("another-key").status.success(), "a wrong key is refused");
    assert!(cohortd.stop().0.success());
}
