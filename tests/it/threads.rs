//! A thread that ends by itself ends the daemon, with its cause: half a daemon is worse than none.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use crate::harness::{DEADLINE, Installation, identify, launchdarkly};
use crate::needs::STRACE;

const NOW_MS: i64 = 1_750_000_000_000;
const TOGETHER: usize = 100;

fn people(batch: usize) -> impl Iterator<Item = String> {
    (batch * TOGETHER..(batch + 1) * TOGETHER).map(|number| format!("user{number}"))
}

/// The kernel reports more bytes written than it was given. The journal does not handle that as an error:
/// its thread panics on a slice out of range.
async fn p7_a_panic_in_the_thread_of_the_journal_ends_the_daemon_and_loses_nothing() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    assert!(installation.start().stop().0.success());
    let journal = installation.ledger_path().join("journal-1").display().to_string();
    let trace = installation.directory.path().join("trace").display().to_string();
    let tracer = [
        "strace",
        "-D",
        "-f",
        "-P",
        &journal,
        "-e",
        "trace=pwrite64",
        "-e",
        "inject=pwrite64:retval=99999999",
        "-o",
        &trace,
    ];
    let cohortd = Arc::new(installation.start_as(installation.wrapped(&tracer)));
    let mut answered = BTreeSet::new();
    for wave in 0..10 {
        // The journal is used when many requests come at once.
        let mut posts = tokio::task::JoinSet::new();
        for batch in wave * 60..(wave + 1) * 60 {
            let cohortd = Arc::clone(&cohortd);
            let events: Vec<Value> =
                people(batch).map(|user| identify(&user, "vip", true, NOW_MS)).collect();
            posts.spawn(async move { (batch, cohortd.post_batch(&events).await) });
        }
        let answers = tokio::time::timeout(DEADLINE, posts.join_all()).await.expect("it ends");
        let taken = |answer: &Option<(u16, Value)>| answer.as_ref().is_some_and(|of| of.0 == 200);
        let ok = answers.iter().filter(|(_, answer)| taken(answer));
        answered.extend(ok.flat_map(|(batch, _)| people(*batch)));
        if answers.iter().any(|(_, answer)| !taken(answer)) {
            break;
        }
    }
    let (status, log) = Arc::into_inner(cohortd).expect("nobody else has it").wait();
    let log = log.join("\n");
    assert_eq!(status.code(), Some(70), "{log}");
    let line = |words: &[&str]| log.lines().any(|line| words.iter().all(|of| line.contains(of)));
    assert!(line(&["\"panicked\"", "\"thread\":\"journal\"", "location"]), "{log}");
    assert!(line(&["cohortd ends", "journal", "panicked"]), "{log}");
    note!("{} answered before it", answered.len());

    let cohortd = installation.start();
    installation.drained().await;
    assert!(cohortd.stop().0.success());
    let exported = installation.types(None, &["ledger", "export"]).done();
    let there: BTreeSet<String> = exported
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"))
        .map(|line| line["context_key"].as_str().expect("a key").to_owned())
        .collect();
    assert!(there.is_superset(&answered), "{} of {}", there.len(), answered.len());
}

tests![p7_a_panic_in_the_thread_of_the_journal_ends_the_daemon_and_loses_nothing.needs(&STRACE),];
