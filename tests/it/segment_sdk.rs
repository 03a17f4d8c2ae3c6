//! Segment's own Node SDK, pointed at the daemon: what it flushes ends in LaunchDarkly's segments.

use std::process::Command;

use cohortd::sandbox::View;

use crate::harness::{DEADLINE, ENVIRONMENT, Installation, launchdarkly};
use crate::npm::installed;

const WRITE_KEY: &str = "planted-write-key";

const FILES: [(&str, &str); 2] = [
    ("package.json", include_str!("../sdk/package.json")),
    ("flush.mjs", include_str!("../sdk/flush.mjs")),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_segments_node_sdk_flushes_ends_in_the_segments() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    if !installed(folder.path(), &FILES, "what Segment's SDK flushes") {
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
