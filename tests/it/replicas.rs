//! Replicas that share a ledger: whatever happens to one of them, or to its way to the database, nothing that was answered
//! is lost, and nothing overtakes (P1 to P4). Run with the ledger in a database, see `postgresql`.

use std::time::Instant;

use rustix::process::Signal;

use crate::fleet::{Fleet, REPLICAS, truth};
use crate::harness::{Installation, launchdarkly};
use crate::postgresql;

async fn when_the_owner_is_killed_in_a_call_another_goes_on() {
    let mut fleet = Fleet::start(11).await;
    for _ in 0..3 {
        let owner = fleet.owner().await;
        fleet.next_call().await;
        let began = Instant::now();
        fleet.gone(owner).kill();
        fleet.next_call().await;
        note!("the next call came after {} ms, of a lease of 2 s", began.elapsed().as_millis());
        fleet.more(60).await;
        let replica = fleet.installation.start();
        fleet.back(replica);
    }
    assert_eq!(fleet.launchdarkly.overlaps(), 0, "nobody is in two calls at once");
    fleet.ends_well().await;
}

async fn an_owner_that_stands_still_for_longer_than_its_lease_changes_nothing_when_it_goes_on() {
    let mut fleet = Fleet::start(12).await;
    let owner = fleet.owner().await;
    fleet.next_call().await;
    let frozen = fleet.gone(owner);
    frozen.signal(Signal::STOP);
    let next = fleet.owner().await; // one of the others, once the lease has run out
    fleet.more(60).await;
    frozen.signal(Signal::CONT);
    frozen.until_logged("another replica has taken over: this one was silent for too long").await;
    fleet.back(frozen);
    fleet.more(60).await;
    assert_eq!(fleet.owner().await, next, "it does not take back what is another's");
    fleet.ends_well().await;
}

async fn connections_to_the_database_that_break_all_the_time_lose_nothing() {
    let fleet = Fleet::start(13).await;
    let url = fleet.installation.database.clone().expect("it is in a database");
    for _ in 0..10 {
        postgresql::terminate_all(&url).await;
        fleet.more(20).await;
    }
    assert_eq!(fleet.launchdarkly.overlaps(), 0, "nobody is in two calls at once");
    fleet.ends_well().await;
}

async fn a_database_that_crashes_again_and_again_loses_nothing_that_was_answered() {
    let url =
        tokio::task::spawn_blocking(postgresql::database_of_its_own).await.expect("it begins");
    let fleet = Fleet::start_on(Some(&url), 15).await;
    for _ in 0..4 {
        postgresql::crash(&url).await;
        fleet.more(40).await;
    }
    assert_eq!(fleet.launchdarkly.overlaps(), 0, "nobody is in two calls at once");
    fleet.ends_well().await;
}

async fn replicas_that_are_restarted_one_after_the_other_hand_over_and_refuse_no_request() {
    let url = postgresql::new_database();
    let ways = vec![url.clone(); REPLICAS];
    // Far longer than anybody waits here: whoever goes on was handed the destination.
    let settings = [("ledger.lease_ttl_s", "600")];
    let mut fleet = Fleet::start_through(&ways, &url, &settings, 14).await;
    for _ in 0..REPLICAS {
        let before = truth(&fleet.truth).refused;
        let owner = fleet.owner().await;
        let old = fleet.gone(owner);
        fleet.more(20).await; // nobody has it in hand any more
        let (status, _) = old.stop();
        assert!(status.success());
        let stopped = Instant::now();
        fleet.next_call().await;
        note!("the next call came {} ms after the stop", stopped.elapsed().as_millis());
        let new = fleet.installation.start();
        fleet.back(new);
        fleet.more(40).await;
        assert_eq!(truth(&fleet.truth).refused, before, "no request is refused");
    }
    assert_eq!(fleet.launchdarkly.overlaps(), 0, "nobody is in two calls at once");
    fleet.ends_well().await;
}

async fn every_replica_shows_who_delivers_and_what_is_received_by_any() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    let first = installation.start();
    let second = installation.start();
    installation.set("delivery.max_batch", "500");
    let other = installation.start();
    let event = crate::harness::identify("ada", "vip", true, 1_750_000_000_000);
    assert_eq!(second.post(&event).await.map(|(status, _)| status), Some(200));
    let bad = second.post_signed("{}".to_owned(), "0000").await;
    assert_eq!(bad.map(|(status, _)| status), Some(401));
    for replica in [&first, &second, &other] {
        let status = replica
            .until_status(|status| {
                let of = &status["destinations"]["production"];
                of["refused"][0]["count"] == 1
                    && of["last_event_at"].is_string()
                    && of["pending"] == 0
            })
            .await;
        let all = status["replicas"].as_array().expect("a list");
        assert_eq!(all.len(), 3, "{status}");
        let owners = all.iter().filter(|of| of["delivers"][0] == "production").count();
        assert_eq!((owners, all.iter().filter(|of| of["answers"] == true).count()), (1, 1));
        assert_eq!(status["destinations"]["production"]["state"], "attention");
        let differ = status["replicas_differ"][0].as_str().expect("one has another configuration");
        assert!(differ.contains("different configurations"), "{differ}");
    }
    let typed = installation.types(Some(first.admin), &["status"]);
    assert!(
        typed.out.contains("(answers)") && typed.out.contains("THE REPLICAS NEED ATTENTION"),
        "{}",
        typed.out
    );
    // Gauges of what is shared have one sample among all replicas.
    let mut samples = 0;
    for replica in [&first, &second, &other] {
        let (_, metrics) = replica.metrics("text/plain").await;
        samples +=
            metrics.lines().filter(|line| line.starts_with("cohortd_pending_members{")).count();
    }
    assert_eq!(samples, 1);
}

tests![
    when_the_owner_is_killed_in_a_call_another_goes_on.workers(4),
    an_owner_that_stands_still_for_longer_than_its_lease_changes_nothing_when_it_goes_on.workers(4),
    a_database_that_crashes_again_and_again_loses_nothing_that_was_answered.workers(4),
    connections_to_the_database_that_break_all_the_time_lose_nothing.workers(4),
    replicas_that_are_restarted_one_after_the_other_hand_over_and_refuse_no_request.workers(4),
    every_replica_shows_who_delivers_and_what_is_received_by_any,
];
