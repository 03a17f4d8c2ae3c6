//! Segment's own SDKs, pointed at the daemon: what they flush ends in LaunchDarkly's segments.

use std::path::Path;
use std::process::{Command, Output};

use cohortd::sandbox::{StandIn, View};

use crate::harness::{Cohortd, DEADLINE, ENVIRONMENT, Installation, launchdarkly};
use crate::needs::{CHROMIUM, SEGMENT_NPM, SEGMENT_PYTHON, chromium};
use crate::{npm, python};

const WRITE_KEY: &str = "planted-write-key";

fn start(launchdarkly: &StandIn, set: impl FnOnce(&mut Installation)) -> (Installation, Cohortd) {
    let mut installation = Installation::new(launchdarkly);
    installation.set("destinations.production.segment.write_keys", WRITE_KEY);
    set(&mut installation);
    let cohortd = installation.start();
    (installation, cohortd)
}

async fn are_in(launchdarkly: &StandIn, members: &[&str]) {
    let there = |view: &View<'_>| {
        view.segment(ENVIRONMENT, "aud_vip")
            .is_some_and(|of| of.members.iter().map(String::as_str).eq(members.iter().copied()))
    };
    launchdarkly.until(DEADLINE, there).await.expect("those are in, and nobody else");
}

fn done(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn what_segments_node_sdk_flushes_ends_in_the_segments() {
    let launchdarkly = launchdarkly().await;
    let (_installation, cohortd) = start(&launchdarkly, |_| ());
    let host = format!("http://{}", cohortd.public);
    let flush =
        |key: &str| npm::SEGMENT.node(["flush.mjs", &host, key]).output().expect("node is there");
    done(&flush(WRITE_KEY));
    are_in(&launchdarkly, &["ada", "cyd"]).await;
    assert!(!flush("another-key").status.success(), "a wrong key is refused");
    assert!(cohortd.stop().0.success());
}

/// A page of another origin sends to the short routes, single events and batches, each after a preflight
/// request; without CORS the browser sends nothing.
async fn what_segments_sdk_sends_from_a_web_page_ends_in_the_segments() {
    let flush = |cohortd: &Cohortd, strategy: &str, answers: &str| {
        let host = cohortd.public.to_string();
        let mut node = npm::SEGMENT.node(["browser.mjs"]);
        node.arg(chromium().expect("it is there"));
        node.args([&host, WRITE_KEY, strategy, answers]).output().expect("node is there")
    };
    // what it sends: two people, an event and a page
    for (strategy, count, calls) in
        [("standard", "4", &["/v1/i", "/v1/t", "/v1/p"][..]), ("batching", "2", &["/v1/b"])]
    {
        let launchdarkly = launchdarkly().await;
        let (_installation, cohortd) = start(&launchdarkly, |i| {
            i.set("destinations.production.segment.cors_origins", "*");
        });
        let output = flush(&cohortd, strategy, count);
        done(&output);
        are_in(&launchdarkly, &["ada"]).await;
        let answers = String::from_utf8_lossy(&output.stdout).into_owned();
        for call in calls {
            assert!(answers.contains(&format!("POST {call} 200")), "{answers}");
        }
        assert!(cohortd.stop().0.success());
    }
    let launchdarkly = launchdarkly().await;
    let elsewhere = "https://www.example.com";
    let (_installation, cohortd) = start(&launchdarkly, |installation| {
        installation.set("destinations.production.segment.cors_origins", elsewhere);
    });
    let output = flush(&cohortd, "standard", "4");
    assert!(!output.status.success(), "a page of another origin may not");
    assert!(cohortd.stop().0.success());
}

async fn what_segments_python_sdk_flushes_ends_in_the_segments() {
    let launchdarkly = launchdarkly().await;
    let (_installation, cohortd) = start(&launchdarkly, |_| ());
    let host = format!("http://{}", cohortd.public);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/flush.py");
    let flush = |key: &str| {
        let mut flush = Command::new(python::SEGMENT.program("python"));
        flush.arg(&script).args([&*host, key]).output().expect("it was installed")
    };
    done(&flush(WRITE_KEY));
    are_in(&launchdarkly, &["ada", "cyd"]).await;
    assert!(!flush("another-key").status.success(), "a wrong key is refused");
    assert!(cohortd.stop().0.success());
}

tests![
    what_segments_node_sdk_flushes_ends_in_the_segments.needs(&SEGMENT_NPM),
    what_segments_sdk_sends_from_a_web_page_ends_in_the_segments
        .needs(&CHROMIUM)
        .needs(&SEGMENT_NPM),
    what_segments_python_sdk_flushes_ends_in_the_segments.needs(&SEGMENT_PYTHON),
];
