//! Erased is erased: after a deletion and a clean stop, nothing of the person remains in any file of the
//! ledger or in a later backup. How soon this holds while the daemon runs:
//! `ledger::embedded::tests::erased`.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Cohortd, Installation, identify, launchdarkly};

const NOW_MS: i64 = 1_750_000_000_000;
const USER: &str = "planted-user-0001";
const TRAIT: &str = "planted-trait-of-a-rejected-event";

/// Which of the planted texts stand in which files of a directory.
fn found(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(directory).expect("it is there") {
        let path = file.expect("it is there").path();
        let bytes = std::fs::read(&path).expect("it is ours");
        for text in [USER, TRAIT] {
            if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(format!("{text} in {}", path.display()));
            }
        }
    }
    found
}

async fn post_all(cohortd: &Cohortd, events: &[Value]) {
    let answer = cohortd.post_batch(events).await.expect("an answer");
    assert_eq!(answer.0, 200, "{}", answer.1);
}

async fn nothing_of_a_deleted_person_outlives_a_clean_stop() {
    let launchdarkly = launchdarkly().await;
    // Their member is refused and parked with a message that names them.
    launchdarkly.refuse_members(|who| who == USER);
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let others = |round: i64| {
        let other = |number: i64| format!("other_{round}_{number:03}");
        let events =
            (0..300).map(move |number| identify(&other(number), "vip", true, NOW_MS + round));
        events.collect::<Vec<_>>()
    };
    let mut nobody = identify(USER, "vip", true, NOW_MS);
    (nobody["timestamp"], nobody["traits"]["vip"]) = (json!("no time"), json!(TRAIT.repeat(300)));
    for round in 0..20 {
        let mut events = others(round);
        events.insert(100, identify(USER, "vip", true, NOW_MS + round));
        events.insert(200, identify(USER, "beta", round % 2 == 0, NOW_MS + round));
        events.push(nobody.clone());
        post_all(&cohortd, &events).await;
    }
    installation.drained().await;
    assert!(!found(&installation.ledger_path()).is_empty(), "they are planted");
    launchdarkly.behave();
    launchdarkly.refuse_members(|_| false);
    let deletion = json!({"type": "delete", "messageId": "d1", "userId": USER});
    assert_eq!(cohortd.post(&deletion).await.expect("an answer").0, 200);
    installation.drained().await;
    let copies = installation.directory.path().join("copies");
    std::fs::create_dir(&copies).expect("it is new");
    let copy = copies.join("copy").display().to_string();
    installation.types(None, &["ledger", "backup", &copy]).done();
    assert_eq!(found(&copies), [""; 0]);
    let (status, log) = cohortd.stop();
    assert!(status.success(), "{}", log.join("\n"));
    assert_eq!(found(&installation.ledger_path()), [""; 0]);
    installation.types(None, &["ledger", "check"]).done();
}

tests![nothing_of_a_deleted_person_outlives_a_clean_stop,];
