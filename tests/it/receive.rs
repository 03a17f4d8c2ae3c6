//! From a webhook to a segment, through the running daemon.

use crate::harness::{DEADLINE, ENVIRONMENT, Installation, identify, launchdarkly};

const NOW_MS: i64 = 1_750_000_000_000;

async fn an_event_ends_in_its_segment_and_its_opposite_takes_it_out() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();

    let answer = cohortd.post(&identify("ada", "beta_testers", true, NOW_MS)).await;
    assert_eq!(answer.expect("an answer").0, 200);
    let has = |user: &'static str| {
        move |view: &cohortd::sandbox::View<'_>| view.has(ENVIRONMENT, "aud_beta_testers", user)
    };
    launchdarkly.until(DEADLINE, has("ada")).await.expect("ada enters");
    let segment = launchdarkly.segments(ENVIRONMENT).remove("aud_beta_testers").expect("made");
    assert_eq!((segment.name.as_str(), segment.context_kind.as_str()), ("Beta testers", "user"));

    cohortd.post(&identify("ada", "beta_testers", false, NOW_MS + 1)).await.expect("an answer");
    let gone = |view: &cohortd::sandbox::View<'_>| !has("ada")(view);
    launchdarkly.until(DEADLINE, gone).await.expect("ada leaves");
    let (status, _) = cohortd.stop();
    assert!(status.success());
}

tests![an_event_ends_in_its_segment_and_its_opposite_takes_it_out,];
