//! The first look: `cohortd sandbox` reports the comparison correctly, and can tell when the segments are
//! wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;

use cohortd::sandbox::{Difference, SegmentState, differences};
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command};

use crate::harness::{DEADLINE, send};

fn sandbox(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cohortd"));
    command.arg("sandbox").args(arguments).env_clear().kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The number after `label` in the summary.
fn number<T: FromStr<Err: std::fmt::Debug>>(summary: &str, label: &str) -> T {
    let line = summary.lines().find_map(|line| line.trim().strip_prefix(label));
    let line = line.unwrap_or_else(|| panic!("there is no {label:?} in:\n{summary}"));
    line.trim().replace(',', "").parse().expect("a number")
}

async fn counted_events_end_in_segments_that_are_equal_and_in_fewer_calls() {
    for (events, calls) in [(500, 1..50), (1, 1..2), (0, 0..1)] {
        let output =
            tokio::time::timeout(DEADLINE, sandbox(&["--events", &events.to_string()]).output())
                .await
                .expect("it ends by itself")
                .expect("the binary runs");
        let shown = String::from_utf8(output.stdout).expect("it writes text");
        assert!(output.status.success(), "{shown}{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(
            String::from_utf8_lossy(&output.stderr),
            "",
            "the daemon has nothing to warn of"
        );

        let (_, summary) = shown.split_once("\nsummary\n").expect("there is a summary");
        assert_eq!(number::<u32>(summary, "events sent"), events);
        assert_eq!(number::<u32>(summary, "accepted"), events);
        let told: u32 = number(summary, "members told");
        let called: u32 = number(summary, "API calls");
        assert!(calls.contains(&called), "{summary}");
        assert!(told <= events.div_ceil(2), "each change comes twice: {summary}");
        if events > 0 {
            let per_call = f64::from(events) / f64::from(called);
            let shown: f64 = number(summary, "events per API call");
            assert!((shown - per_call).abs() < 0.06, "{summary}");
            assert!(told >= 1, "{summary}");
        }
        assert!(summary.ends_with("  the segments are equal to what Segment said\n"), "{summary}");
    }
}

/// Reads lines until one satisfies `right`.
async fn line(lines: &mut Lines<BufReader<ChildStdout>>, right: impl Fn(&str) -> bool) -> String {
    let reading = async {
        loop {
            let line = lines.next_line().await.expect("it writes text");
            let line = line.expect("it goes on until it is told to stop");
            if right(&line) {
                return line;
            }
        }
    };
    tokio::time::timeout(DEADLINE, reading).await.expect("the line comes")
}

/// The text between two others.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text.split_once(before).expect("it begins somewhere");
    rest.split_once(after).expect("it ends somewhere").0
}

async fn the_line_to_try_by_hand_works_and_a_signal_ends_with_the_summary() {
    let mut child = sandbox(&[]).spawn().expect("the binary runs");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let curl = line(&mut lines, |line| line.starts_with("curl ")).await;
    let url = between(&curl, "curl -i ", " ");
    let signature = between(&curl, "-H 'X-Signature: ", "'");
    let event = between(&curl, "-d '", "'").to_owned();

    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build();
    let client = client.expect("a plain client can be built");
    let post = client.post(url).header("X-Signature", signature).body(event);
    let answer = post.send().await.expect("it answers");
    assert_eq!(answer.status(), 200);
    let answer = answer.text().await.expect("it answers in text");
    assert_eq!(answer.trim_end(), r#"{"accepted":1,"ignored":0,"rejected":[]}"#);
    line(&mut lines, |line| line.contains("Beta testers 1")).await;

    send(Signal::INT, child.id().expect("it runs"));
    line(&mut lines, |line| line == "summary").await;
    let mut rest = String::new();
    lines.into_inner().read_to_string(&mut rest).await.expect("it writes text");
    let status = tokio::time::timeout(DEADLINE, child.wait()).await.expect("it ends");
    assert!(status.expect("it is our child").success(), "{rest}");
    assert!(rest.contains("Beta testers: 1 member\n"), "{rest}");
    assert!(rest.ends_with("  the segments are equal to what Segment said\n"), "{rest}");
}

/// Members that LaunchDarkly refuses on purpose are delivered before the end, whenever it comes.
async fn a_signal_amid_an_outage_drains_before_it_compares() {
    let mut child = sandbox(&[]).spawn().expect("the binary runs");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    line(&mut lines, |line| line.starts_with("1. LaunchDarkly is down")).await;
    line(&mut lines, |line| line.contains("waiting") && !line.contains(" 0 waiting")).await;
    send(Signal::INT, child.id().expect("it runs"));
    line(&mut lines, |line| line == "summary").await;
    line(&mut lines, |line| line == "  the segments are equal to what Segment said").await;
    let status = tokio::time::timeout(DEADLINE, child.wait()).await.expect("it ends");
    assert!(status.expect("it is our child").success());
}

fn members(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

fn a_segment_that_is_not_its_audience_is_found_with_counts() {
    let truth = BTreeMap::from([
        ("equal".to_owned(), members(&["ada", "bob"])),
        ("never told".to_owned(), members(&["ada", "bob"])),
        ("both ways".to_owned(), members(&["ada", "bob", "eve"])),
        ("emptied".to_owned(), members(&[])),
        ("never used".to_owned(), members(&[])),
    ]);
    let told = [
        ("equal", &["ada", "bob"][..]),
        ("both ways", &["bob", "mallory"]),
        ("emptied", &["ada"]),
        ("by hand", &["ada"]),
    ];
    let segment = |(id, names): (&str, &[&str])| {
        (id.to_owned(), SegmentState { members: members(names), ..SegmentState::default() })
    };
    let difference = |audience: &str, missing, unexpected| Difference {
        audience: audience.to_owned(),
        missing,
        unexpected,
    };
    assert_eq!(
        differences(&truth, &told.map(segment).into()),
        [
            difference("both ways", 2, 1),
            difference("emptied", 0, 1),
            difference("never told", 2, 0)
        ]
    );
}

tests![
    counted_events_end_in_segments_that_are_equal_and_in_fewer_calls,
    the_line_to_try_by_hand_works_and_a_signal_ends_with_the_summary,
    a_signal_amid_an_outage_drains_before_it_compares,
    a_segment_that_is_not_its_audience_is_found_with_counts,
];
