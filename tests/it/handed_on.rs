//! What an operator has begun on one replica, which is then killed, goes on at another. Run with the ledger in a
//! database, see `postgresql`.

use std::time::Instant;

use serde_json::Value;

use crate::fleet::{REPLICAS, owner_of};
use crate::harness::{Cohortd, ENVIRONMENT, Installation, identify, launchdarkly};
use crate::postgresql;

/// More than a walk looks at in one slice.
const MEMBERS: i64 = 4_000;
const NOW_MS: i64 = 1_750_000_000_000;

/// Kills the replica that delivers just after it was told something, and starts another in its place.
async fn told_and_killed(installation: &Installation, all: &mut Vec<Cohortd>, words: &[&str]) {
    let owner = owner_of(all, all.len()).await;
    let typed = installation.types(Some(all[owner].admin), words);
    let killed = all.remove(owner);
    killed.kill();
    typed.done();
    all.push(installation.start());
}

async fn what_was_begun_on_a_replica_that_is_killed_is_gone_on_with_by_another() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("delivery.max_batch", "200").set("delivery.concurrency", "1");
    let url = installation.database.clone().expect("it is in a database");
    let mut all: Vec<Cohortd> = (0..REPLICAS).map(|_| installation.start()).collect();
    let people: Vec<Value> = (0..MEMBERS)
        .map(|number| identify(&format!("user_{number:04}"), "vip", true, NOW_MS + number))
        .collect();
    for part in people.chunks(1000) {
        assert_eq!(all[0].post_batch(part).await.expect("an answer").0, 200);
    }
    installation.drained().await;

    told_and_killed(&installation, &mut all, &["pause"]).await;
    let next = owner_of(&all, all.len()).await;
    let newcomer = identify("newcomer", "vip", true, NOW_MS);
    let other = (next + 1) % all.len();
    assert_eq!(all[other].post(&newcomer).await.expect("an answer").0, 200);
    let is_paused = |status: &Value| {
        let of = &status["destinations"]["production"];
        of["state"] == "paused" && of["pending"] == 1
    };
    for replica in &all {
        replica.until_status(is_paused).await;
    }
    let is_in = |user: &str| {
        let segments = launchdarkly.segments(ENVIRONMENT);
        segments.get("aud_vip").is_some_and(|of| of.members.contains(user))
    };
    assert!(!is_in("newcomer"), "delivery is paused");
    installation.types(Some(all[other].admin), &["resume"]).done();
    installation.drained().await;
    assert!(is_in("newcomer"));

    let walks = "SELECT count(*) FROM audience WHERE walk IS NOT NULL AND NOT is_erased";
    let told = async || postgresql::members(&url).await.iter().filter_map(|of| of.told_at).max();
    let before = told().await;
    let began = Instant::now();
    told_and_killed(&installation, &mut all, &["resync", "aud_vip"]).await;
    assert_eq!(postgresql::number(&url, walks).await, 1, "it was killed before the end");
    installation.drained().await;
    note!("resync: {} ms", began.elapsed().as_millis());
    let members = postgresql::members(&url).await;
    assert_eq!(i64::try_from(members.len()), Ok(MEMBERS + 1));
    let is_told_again = members.iter().all(|of| of.told_at > before);
    assert!(is_told_again, "everybody is told once more");

    told_and_killed(&installation, &mut all, &["drop", "aud_vip", "--retract", "--yes"]).await;
    assert_eq!(postgresql::number(&url, walks).await, 1, "it was killed before the end");
    installation.drained().await;
    let segments = launchdarkly.segments(ENVIRONMENT);
    assert!(segments["aud_vip"].members.is_empty(), "everybody has left");
    note!("drop: {} ms", began.elapsed().as_millis());
    assert_eq!(launchdarkly.overlaps(), 0, "nobody is in two calls at once");
}

tests![what_was_begun_on_a_replica_that_is_killed_is_gone_on_with_by_another.workers(4)];
