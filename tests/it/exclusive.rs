//! One daemon on one ledger, of a version that it knows, told to the environment it is for.

use cohortd::sandbox::{Account, StandIn};
use cohortd::secret::Secret;
use serde_json::Value;

use crate::harness::{DEADLINE, ENVIRONMENT, Installation, SERVICE_TOKEN, identify, launchdarkly};

const NOW_MS: i64 = 1_750_000_000_000;

/// Runs the daemon where it cannot start; its exit code and what it logged as errors.
async fn refused(installation: &Installation) -> (Option<i32>, String) {
    let mut command = tokio::process::Command::from(installation.command());
    let ending = command.kill_on_drop(true).output();
    let output = tokio::time::timeout(DEADLINE, ending).await.expect("it ends by itself");
    let output = output.expect("the daemon can be started");
    let log = String::from_utf8(output.stderr).expect("its log is text");
    let errors = log.lines().filter(|line| {
        let line: Value = serde_json::from_str(line).expect("its log is JSON");
        line["level"] == "ERROR"
    });
    (output.status.code(), errors.collect::<Vec<_>>().join("\n"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_on_a_ledger_ends_and_the_first_goes_on() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let first = installation.start();

    let (code, complaint) = refused(&installation).await;
    assert_eq!(code, Some(69), "{complaint}");
    let expected = format!(
        "cohortd ends: the ledger cannot be opened: the ledger at {} is in use by another process",
        installation.ledger_path().display()
    );
    assert!(complaint.contains(&expected), "{complaint}");

    let answer = first.post(&identify("ada", "vip", true, NOW_MS)).await;
    assert_eq!(answer.expect("the first one answers").0, 200);
    let has = |view: &cohortd::sandbox::View<'_>| view.has(ENVIRONMENT, "aud_vip", "ada");
    launchdarkly.until(DEADLINE, has).await.expect("the first one delivers");
    assert!(first.stop().0.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_daemon_leaves_no_lock_behind() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    installation.start().kill();
    assert!(installation.start().stop().0.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_of_a_newer_version_is_refused_and_not_touched() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    cohortd.post(&identify("ada", "vip", true, NOW_MS)).await.expect("an answer");
    assert!(cohortd.stop().0.success());

    let path = installation.ledger_path().join("ledger.db");
    let database = rusqlite::Connection::open(&path).expect("the ledger is there");
    database.pragma_update(None, "user_version", 1000).expect("nobody else has it");
    database.close().map_err(|(_, error)| error).expect("nothing is left to write");
    let before = std::fs::read(&path).expect("it is ours");

    let (code, complaint) = refused(&installation).await;
    assert_eq!(code, Some(70), "{complaint}");
    let expected = "the ledger has schema version 1000, this binary knows up to 4: \
                    run the version of cohortd that wrote it, or a newer one";
    assert!(complaint.contains(expected), "{complaint}");
    assert!(std::fs::read(&path).expect("it is still there") == before, "not one byte is changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_environment_is_told_everything() {
    const OTHER: &str = "64f0c0ffee-other";
    let account = |id: &str| Account {
        client_side_id: id.to_owned(),
        service_token: Secret::new(SERVICE_TOKEN),
    };
    let launchdarkly = StandIn::start(vec![account(ENVIRONMENT), account(OTHER)])
        .await
        .expect("a port on loopback is free");
    let mut installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    // Enough for several slices of a resync, in several requests.
    let events: Vec<Value> = (0..2500)
        .map(|user| {
            let audience = if user % 5 == 0 { "vip" } else { "beta_testers" };
            identify(&format!("user_{user}"), audience, user % 7 != 0, NOW_MS)
        })
        .collect();
    let (status, answer) = cohortd.post_batch(&events).await.expect("an answer");
    assert_eq!((status, &answer["accepted"]), (200, &2500.into()));
    installation.drained().await;
    assert!(cohortd.stop().0.success());
    assert!(launchdarkly.segments(OTHER).is_empty());

    installation.set("destinations.production.launchdarkly.client_side_id", OTHER);
    let cohortd = installation.start();
    let told = launchdarkly.segments(ENVIRONMENT);
    assert_eq!(told.values().map(|segment| segment.members.len()).sum::<usize>(), 2142);
    let same = |view: &cohortd::sandbox::View<'_>| view.segments(OTHER) == Some(&told);
    launchdarkly.until(DEADLINE, same).await.expect("the new environment becomes as the old");
    assert!(cohortd.stop().0.success());
    assert_eq!(launchdarkly.segments(ENVIRONMENT), told);
}
