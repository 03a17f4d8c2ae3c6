//! A clock that was once ahead is reported, and the times it left in the ledger can be reset.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cohortd::clock::{Clock, ManualClock, SystemClock};
use cohortd::ledger::{DestinationSettings, EmbeddedLedger, GuardLimits, Retention, Settings};
use cohortd::membership::DestinationName;
use cohortd::sandbox::View;
use serde_json::json;

use crate::harness::{DEADLINE, ENVIRONMENT, Installation, identify, launchdarkly};

const DAY: Duration = Duration::from_secs(86_400);

/// Advances the ledger's clock by a day while no daemon runs.
async fn a_day_ahead(installation: &Installation) {
    let kept = Retention { max_age: DAY, max_count: 1000, max_bytes: 1 << 20 };
    let settings = Settings {
        path: installation.ledger_path(),
        disk_reserve_bytes: 0,
        cache_kib: 2048,
        tombstone_ttl: DAY * 7,
        rejected: kept,
        parked: kept,
        check_every: DAY,
        max_audiences: 1000,
        destinations: Vec::new(),
    };
    // Configuring a new destination writes to the ledger, and records the arrival with it.
    let elsewhere = DestinationSettings {
        name: DestinationName::new("elsewhere").expect("not empty"),
        environment: "nowhere".to_owned(),
        repeat_window: DAY,
        reassert_after: DAY,
        expires_after: BTreeMap::new(),
        guard: GuardLimits::default(),
    };
    let clock = ManualClock::at(SystemClock.now().after(DAY));
    let (ledger, writer) = EmbeddedLedger::open(settings, Arc::new(clock)).expect("it is closed");
    let writing = tokio::task::spawn_blocking(move || writer.run());
    ledger.configure(vec![elsewhere]).await.expect("there is space");
    ledger.close().await;
    writing.await.expect("no panic").expect("there is space");
}

async fn p2_an_arrival_that_is_ahead_is_said_everywhere_and_reset_by_the_operator() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let reset = || installation.types(None, &["ledger", "reset-clock"]);
    assert_eq!(reset().code, 69, "there is no ledger yet");
    let cohortd = installation.start();
    let refused = reset();
    assert_eq!(refused.code, 69, "{}", refused.complaint);
    assert!(cohortd.status().await.get("clock").is_none());
    assert!(cohortd.stop().0.success());
    a_day_ahead(&installation).await;

    // New events get an arrival a day ahead.
    let cohortd = installation.start();
    let said = cohortd.until_logged("the clock of the ledger is ahead").await;
    assert_eq!(said["level"], "ERROR");
    assert!(said["remedy"].as_str().is_some_and(|of| of.contains("reset-clock")), "{said}");
    let now_ms = || SystemClock.now().0 / 1000;
    let mut enters = identify("ada", "vip", true, 0);
    enters.as_object_mut().expect("an object").remove("timestamp");
    let forgotten = json!({"type": "delete", "userId": "bob", "messageId": "delete-bob"});
    for event in [&enters, &identify("bob", "vip", true, now_ms()), &forgotten] {
        let (status, answer) = cohortd.post(event).await.expect("an answer");
        assert_eq!(status, 200, "{answer}");
    }
    installation.drained().await;
    let status = cohortd.status().await;
    let ahead_ms = status["clock"]["ahead_ms"].as_u64().expect("it is said");
    assert!(ahead_ms > 86_000_000, "{status}");
    let of = &status["destinations"]["production"];
    assert_eq!(
        (&of["state"], &of["concerns"][0]["kind"]),
        (&"attention".into(), &"clock_ahead".into())
    );
    let (_, metrics) = cohortd.metrics("text/plain").await;
    let line = metrics.lines().find(|line| line.starts_with("cohortd_ledger_clock_ahead_seconds "));
    let seconds: f64 = line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("it is");
    assert!(seconds > 86_000.0, "{seconds}");
    let told = installation.types(Some(cohortd.admin), &["status"]);
    assert_eq!(told.code, 75, "somebody should look");
    assert!(told.out.contains("reset-clock"), "{}", told.out);
    // A member that leaves now stays in, although its event was accepted.
    let leaves = identify("ada", "vip", false, now_ms());
    assert_eq!(cohortd.post(&leaves).await.expect("an answer").0, 200);
    installation.drained().await;
    let is_in = |user: &str| {
        let segments = launchdarkly.segments(ENVIRONMENT);
        segments.get("aud_vip").is_some_and(|of| of.members.contains(user))
    };
    assert!(is_in("ada"));
    assert!(cohortd.stop().0.success());

    let done = reset().done();
    assert!(done.contains(" s ahead and no longer is"), "{done}");
    assert!(done.contains("1 deletions"), "{done}");
    assert_eq!(installation.types(None, &["ledger", "check"]).code, 0);
    let again = reset().done();
    assert!(again.contains("corrected: 0 members, 0 deletions, 0 audiences"), "{again}");

    let cohortd = installation.start();
    for event in [identify("ada", "vip", false, now_ms()), identify("bob", "vip", true, now_ms())] {
        assert_eq!(cohortd.post(&event).await.expect("an answer").0, 200);
    }
    let right = |view: &View<'_>| {
        view.segment(ENVIRONMENT, "aud_vip")
            .is_some_and(|of| of.members.contains("bob") && !of.members.contains("ada"))
    };
    launchdarkly.until(DEADLINE, right).await.expect("who leaves is out, and who returns is in");
    assert!(cohortd.status().await.get("clock").is_none());
    assert_eq!(cohortd.count_logged("the clock of the ledger is ahead"), 0);
    assert!(cohortd.stop().0.success());
}

tests![p2_an_arrival_that_is_ahead_is_said_everywhere_and_reset_by_the_operator,];
