//! Replicas that share a ledger, senders that post to all of them, and what must come of it.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use cohortd::sandbox::StandIn;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::crash_recovery::trouble;
use crate::harness::{Cohortd, DEADLINE, ENVIRONMENT, Installation, Poster, launchdarkly};
use crate::postgresql;
use crate::truth::{Post, Truth};

pub const REPLICAS: usize = 3;
const POSTERS: u64 = 6;
/// Interval between two looks at a status.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Replicas, senders that post to all of them, and what must come of it.
pub struct Fleet {
    pub installation: Installation,
    pub launchdarkly: StandIn,
    pub replicas: Vec<Cohortd>,
    /// Where senders find them, as a load balancer would.
    addresses: watch::Sender<Vec<Poster>>,
    pub truth: Arc<Mutex<Truth>>,
    answered: watch::Sender<u64>,
    stop: watch::Sender<bool>,
    posters: JoinSet<()>,
}

impl Fleet {
    pub async fn start(seed: u64) -> Self {
        Self::start_on(None, seed).await
    }

    /// In this database, or a new one of the server that all tests share.
    pub async fn start_on(url: Option<&str>, seed: u64) -> Self {
        let url = url.map_or_else(postgresql::new_database, str::to_owned);
        let ways = vec![url.clone(); REPLICAS];
        Self::start_through(&ways, &url, &[], seed).await
    }

    /// In this database, to which each replica has a URL of its own, with these settings beside those of all tests.
    pub async fn start_through(
        ways: &[String],
        url: &str,
        settings: &[(&str, &str)],
        seed: u64,
    ) -> Self {
        let launchdarkly = launchdarkly().await;
        launchdarkly.script(trouble(StdRng::seed_from_u64(seed)));
        let mut installation = Installation::new(&launchdarkly);
        installation.database = Some(url.to_owned());
        for (key, value) in settings {
            installation.set(key, value);
        }
        let start = |way: &String| installation.set("ledger.url", way).start();
        let replicas: Vec<Cohortd> = ways.iter().map(start).collect();
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
    pub async fn more(&self, answers: u64) {
        let enough = *self.answered.borrow() + answers;
        let mut answered = self.answered.subscribe();
        let in_time = timeout(DEADLINE, answered.wait_for(|count| *count >= enough)).await;
        in_time.expect("they are answered in time").expect("they are counted");
    }

    /// Waits until so many more requests are not taken.
    pub async fn refused(&self, requests: usize) {
        let enough = truth(&self.truth).refused + requests;
        let refusing = async {
            let mut looks = tokio::time::interval(LOOK_EVERY);
            while truth(&self.truth).refused < enough {
                looks.tick().await;
            }
        };
        timeout(DEADLINE, refusing).await.expect("they are refused in time");
    }

    /// Senders find these, and no replica by itself.
    pub fn show(&self, addresses: Vec<Poster>) {
        self.addresses.send_replace(addresses);
    }

    /// Which of them delivers.
    pub async fn owner(&self) -> usize {
        self.owner_but(REPLICAS).await
    }

    /// Which of them delivers, other than this one.
    pub async fn owner_but(&self, other: usize) -> usize {
        owner_of(&self.replicas, other).await
    }

    /// Waits for a call that is made from now on.
    pub async fn next_call(&self) {
        let before = self.launchdarkly.calls().total;
        let called = self.launchdarkly.until(DEADLINE, |view| view.calls().total > before).await;
        called.expect("somebody delivers");
    }

    pub fn gone(&mut self, at: usize) -> Cohortd {
        let replica = self.replicas.remove(at);
        self.show_addresses();
        replica
    }

    pub fn back(&mut self, replica: Cohortd) {
        self.replicas.push(replica);
        self.show_addresses();
    }

    /// Senders do not see this one any more, as behind a load balancer that has found it not ready.
    pub fn hide(&self, hidden: usize) {
        let seen = self.replicas.iter().enumerate().filter(|(at, _)| *at != hidden);
        self.addresses.send_replace(seen.map(|(_, replica)| replica.poster()).collect());
    }

    pub fn show_addresses(&self) {
        self.addresses.send_replace(self.replicas.iter().map(Cohortd::poster).collect());
    }

    /// The senders are answered what they still have, and the segments are what was answered.
    pub async fn ends_well(mut self) {
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

/// Which of these delivers, other than one of them.
pub async fn owner_of(replicas: &[Cohortd], other: usize) -> usize {
    let deadline = Instant::now() + DEADLINE;
    let mut looks = tokio::time::interval(LOOK_EVERY);
    while Instant::now() < deadline {
        looks.tick().await;
        for (at, replica) in replicas.iter().enumerate().filter(|(at, _)| *at != other) {
            let status = replica.status().await;
            let all = status["replicas"].as_array().map_or(&[][..], Vec::as_slice);
            let own = |of: &&Value| of["answers"] == true && of["delivers"][0] == "production";
            if all.iter().any(|of| own(&of)) {
                return at;
            }
        }
    }
    panic!("nobody delivers");
}

pub fn truth(truth: &Mutex<Truth>) -> MutexGuard<'_, Truth> {
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
