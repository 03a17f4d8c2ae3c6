//! Replicas that share a ledger: whatever happens to one of them, or to its way to the database, nothing that was answered
//! is lost, and nothing overtakes (P1 to P4). Run with the ledger in a database, see `postgresql`.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use cohortd::sandbox::StandIn;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::crash_recovery::trouble;
use crate::harness::{Cohortd, DEADLINE, ENVIRONMENT, Installation, Poster, launchdarkly};
use crate::postgresql;
use crate::truth::{Post, Truth};

const REPLICAS: usize = 3;
const POSTERS: u64 = 6;
/// Interval between two looks at a status.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Replicas, senders that post to all of them, and what must come of it.
struct Fleet {
    installation: Installation,
    launchdarkly: StandIn,
    replicas: Vec<Cohortd>,
    /// Where senders find them, as a load balancer would.
    addresses: watch::Sender<Vec<Poster>>,
    truth: Arc<Mutex<Truth>>,
    answered: watch::Sender<u64>,
    stop: watch::Sender<bool>,
    posters: JoinSet<()>,
}

impl Fleet {
    async fn start(seed: u64) -> Self {
        Self::start_on(None, seed).await
    }

    /// In this database, or a new one of the server that all tests share.
    async fn start_on(url: Option<&str>, seed: u64) -> Self {
        let launchdarkly = launchdarkly().await;
        launchdarkly.script(trouble(StdRng::seed_from_u64(seed)));
        let mut installation = Installation::new(&launchdarkly);
        if let Some(url) = url {
            installation.set("ledger.url", url);
            installation.database = Some(url.to_owned());
        }
        let replicas: Vec<Cohortd> = (0..REPLICAS).map(|_| installation.start()).collect();
        let mut fleet = Self {
            installation,
            launchdarkly,
            addresses: watch::Sender::new(replicas.iter().map(Cohortd::poster).collect()),
            replicas,
            truth: Arc::default(),
            answered: watch::Sender::new(0),
            stop: watch::Sender::new(false),
            posters: JoinSet::new(),
        };
        for poster in 0..POSTERS {
            let random = StdRng::seed_from_u64(seed ^ (poster + 1) << 8);
            let (addresses, truth) = (fleet.addresses.subscribe(), Arc::clone(&fleet.truth));
            let (answered, stop) = (fleet.answered.clone(), fleet.stop.subscribe());
            fleet.posters.spawn(post(addresses, truth, random, answered, stop));
        }
        fleet.more(60).await;
        fleet
    }

    /// Waits until so many more requests are answered.
    async fn more(&self, answers: u64) {
        let enough = *self.answered.borrow() + answers;
        let mut answered = self.answered.subscribe();
        let in_time = timeout(DEADLINE, answered.wait_for(|count| *count >= enough)).await;
        in_time.expect("they are answered in time").expect("they are counted");
    }

    /// Which of them delivers.
    async fn owner(&self) -> usize {
        let deadline = Instant::now() + DEADLINE;
        let mut looks = tokio::time::interval(LOOK_EVERY);
        while Instant::now() < deadline {
            looks.tick().await;
            for (at, replica) in self.replicas.iter().enumerate() {
                let status = replica.status().await;
                let all = status["replicas"].as_array().expect("they share the ledger");
                let own = |of: &&Value| of["answers"] == true && of["delivers"][0] == "production";
                if all.iter().any(|of| own(&of)) {
                    return at;
                }
            }
        }
        panic!("nobody delivers");
    }

    /// Waits for a call that is made from now on.
    async fn next_call(&self) {
        let before = self.launchdarkly.calls().total;
        let called = self.launchdarkly.until(DEADLINE, |view| view.calls().total > before).await;
        called.expect("somebody delivers");
    }

    fn gone(&mut self, at: usize) -> Cohortd {
        let replica = self.replicas.remove(at);
        self.show_addresses();
        replica
    }

    fn back(&mut self, replica: Cohortd) {
        self.replicas.push(replica);
        self.show_addresses();
    }

    fn show_addresses(&self) {
        self.addresses.send_replace(self.replicas.iter().map(Cohortd::poster).collect());
    }

    /// The senders are answered what they still have, and the segments are what was answered.
    async fn ends_well(mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = timeout(DEADLINE, self.posters.join_next()).await.expect("in time")
        {
            ended.expect("no answer is wrong");
        }
        self.launchdarkly.behave();
        self.installation.drained().await;
        let truth = truth(&self.truth);
        assert!(truth.unanswered.is_empty(), "they were sent until they were taken");
        let outcomes = truth.agrees_with(&self.launchdarkly.segments(ENVIRONMENT));
        assert!(outcomes.values().all(|may_be| may_be.len() == 1));
        note!(
            "{} events accepted in {} requests, {} not taken, {} calls, {} overlaps",
            truth.events_accepted,
            truth.requests_accepted,
            truth.refused,
            self.launchdarkly.calls().total,
            self.launchdarkly.overlaps(),
        );
    }
}

fn truth(truth: &Mutex<Truth>) -> MutexGuard<'_, Truth> {
    truth.lock().expect("no poster panics with it")
}

/// Posts to any of them until it is stopped; what is not taken is posted again, as Segment does.
async fn post(
    addresses: watch::Receiver<Vec<Poster>>,
    truth_of_all: Arc<Mutex<Truth>>,
    mut chance: StdRng,
    answered: watch::Sender<u64>,
    stop: watch::Receiver<bool>,
) {
    let mut again: Vec<Post> = Vec::new();
    loop {
        let post = match again.pop() {
            Some(post) => post,
            None if *stop.borrow() => return,
            None => truth(&truth_of_all).request(&mut chance),
        };
        let replica = {
            let all = addresses.borrow();
            all[chance.random_range(0..all.len())].clone()
        };
        let sent = async {
            if post.is_batch {
                replica.post_batch(&post.events).await
            } else {
                replica.post(&post.events[0]).await
            }
        };
        // Whoever stands still does not answer; Segment waits for five seconds.
        let answer = timeout(Duration::from_secs(5), sent).await.unwrap_or(None);
        if answer.as_ref().is_some_and(|(status, _)| *status == 200) {
            truth(&truth_of_all).note(post, answer);
            answered.send_modify(|count| *count += 1);
        } else {
            assert!(answer.is_none_or(|(status, _)| status == 503), "a good request is refused");
            truth(&truth_of_all).refused += 1;
            again.insert(0, post);
        }
    }
}

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

async fn replicas_that_are_restarted_one_after_the_other_refuse_no_request() {
    let mut fleet = Fleet::start(14).await;
    for _ in 0..REPLICAS {
        let before = truth(&fleet.truth).refused;
        let old = fleet.gone(0);
        fleet.more(20).await; // nobody has it in hand any more
        let (status, _) = old.stop();
        assert!(status.success());
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
    replicas_that_are_restarted_one_after_the_other_refuse_no_request.workers(4),
    every_replica_shows_who_delivers_and_what_is_received_by_any,
];
