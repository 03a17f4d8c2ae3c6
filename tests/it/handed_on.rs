//! What an operator has begun on one replica, which is then killed, goes on at another. Run with the ledger in a
//! database, see `postgresql`.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::fleet::{REPLICAS, owner_of};
use crate::harness::{Cohortd, DEADLINE, ENVIRONMENT, Installation, identify, launchdarkly};
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

/// Has an operator's command under way on a replica, kills that in the middle, and has the command done by another.
async fn killed_within(installation: &Installation, all: &mut Vec<Cohortd>, words: &[&str]) {
    let owner = owner_of(all, all.len()).await;
    let mut typing = installation.line(Some(all[owner].admin), words);
    let mut typed = typing.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs");
    let asked = installation.database.as_deref().expect("it is in a database");
    let before = left(asked).await;
    let begun = async {
        let mut looks = tokio::time::interval(Duration::from_millis(2));
        while left(asked).await == before && typed.try_wait().expect("it is ours").is_none() {
            looks.tick().await;
        }
    };
    timeout(DEADLINE, begun).await.expect("it begins in time");
    all.remove(owner).kill();
    typed.wait().expect("it ends");
    note!("{words:?}: of {before}, {} were left when it was killed", left(asked).await);
    let next = owner_of(all, all.len()).await;
    installation.types(Some(all[next].admin), words).done();
    all.push(installation.start());
}

/// Parked members and rejected events.
async fn left(url: &str) -> i64 {
    let sql = "SELECT (SELECT count(*) FROM parked) + (SELECT count(*) FROM rejected)";
    postgresql::number(url, sql).await
}

async fn a_replay_or_an_erasure_whose_replica_is_killed_is_done_to_the_end() {
    const REJECTED: i64 = 1_200;
    const DELETED: i64 = 300;
    let launchdarkly = launchdarkly().await;
    launchdarkly.refuse_members(|who| who.starts_with("refused"));
    let mut installation = Installation::new(&launchdarkly);
    installation.set("delivery.max_batch", "50").set("delivery.concurrency", "1");
    let url = installation.database.clone().expect("it is in a database");
    let mut all: Vec<Cohortd> = (0..REPLICAS).map(|_| installation.start()).collect();
    let person = |name: &str, number: i64| {
        identify(&format!("{name}_{number:04}"), "vip", true, NOW_MS + number)
    };
    let nobody = |number: i64| {
        let mut event = person("mail", number);
        event["userId"] = Value::Null;
        event["traits"]["email"] = format!("mail_{number:04}@example.com").into();
        event
    };
    let people: Vec<Value> = (0..DELETED)
        .map(|number| person("user", number))
        .chain((0..30).map(|number| person("refused", number)))
        .collect();
    assert_eq!(all[0].post_batch(&people).await.expect("an answer").0, 200);
    let nobodies: Vec<Value> = (0..REJECTED).map(nobody).collect();
    for part in nobodies.chunks(600) {
        assert_eq!(all[0].post_batch(part).await.expect("an answer").0, 400);
    }
    installation.drained().await;
    assert_eq!(left(&url).await, REJECTED + 30);

    // Refused ones are retried.
    launchdarkly.refuse_members(|_| false);
    killed_within(&installation, &mut all, &["parked", "requeue"]).await;
    installation.drained().await;
    assert_eq!(installation.parked().await.len(), 0);
    let segment = || launchdarkly.segments(ENVIRONMENT).remove("aud_vip").expect("it is there");
    let count = |of: &str| segment().members.iter().filter(|who| who.starts_with(of)).count();
    assert_eq!(count("refused"), 30);

    // The mapping is corrected everywhere, and rejected events are replayed.
    installation.set("destinations.production.mapping.context_key", "user_id_then_email");
    all.clear();
    all.extend((0..REPLICAS).map(|_| installation.start()));
    killed_within(&installation, &mut all, &["rejected", "replay", "--force"]).await;
    installation.drained().await;
    assert_eq!(left(&url).await, 0);
    assert_eq!(i64::try_from(count("mail")), Ok(REJECTED));

    // People are deleted, and the replica that was told so, and delivers, is killed.
    let owner = owner_of(&all, all.len()).await;
    let deletions: Vec<Value> = (0..DELETED)
        .map(|number| json!({"type": "delete", "userId": format!("user_{number:04}")}))
        .collect();
    assert_eq!(all[owner].post_batch(&deletions).await.expect("an answer").0, 200);
    all.remove(owner).kill();
    assert!(count("user") > 0, "it was killed before the end");
    all.push(installation.start());
    told_and_killed(&installation, &mut all, &["forget", "production", "refused_0007"]).await;
    installation.drained().await;
    assert_eq!((count("user"), count("refused")), (0, 29));
    let members = postgresql::members(&url).await;
    assert_eq!(
        i64::try_from(members.len()),
        Ok(REJECTED + 29),
        "nothing is left of who was deleted"
    );
    assert_eq!(launchdarkly.overlaps(), 0, "nobody is in two calls at once");
}

tests![
    what_was_begun_on_a_replica_that_is_killed_is_gone_on_with_by_another.workers(4),
    a_replay_or_an_erasure_whose_replica_is_killed_is_done_to_the_end.workers(4),
];
