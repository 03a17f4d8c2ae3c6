//! SIGKILL at any moment loses nothing that was answered (P1), does not change the order of events (P2),
//! and leaves no segment different from what was answered (P4).
//!
//! The test tracks the expected state (`truth`).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cohortd::sandbox::{Apply, Fault};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use tokio::sync::watch;

use crate::harness::{Cohortd, DEADLINE, ENVIRONMENT, Installation, launchdarkly};
use crate::truth::{Post, Truth};

const ROUNDS: u64 = 20;
const POSTERS: u64 = 6;
/// Posts until the daemon is gone: first the requests that previous daemons did not answer, as Segment
/// would.
async fn poster(
    cohortd: Arc<Cohortd>,
    truth: Arc<Mutex<Truth>>,
    mut chance: StdRng,
    answers: Arc<watch::Sender<u64>>,
    mut again: Vec<Post>,
) {
    loop {
        let post = again.pop().unwrap_or_else(|| {
            truth.lock().expect("no poster panics with it").request(&mut chance)
        });
        let answer = if post.is_batch {
            cohortd.post_batch(&post.events).await
        } else {
            cohortd.post(&post.events[0]).await
        };
        let gone = answer.is_none();
        let mut truth = truth.lock().expect("no poster panics with it");
        truth.note(post, answer);
        if gone {
            truth.unanswered.append(&mut again);
            return;
        }
        answers.send_modify(|answers| *answers += 1);
    }
}

/// Makes some calls fail in ways that leave it unknown whether they were applied.
pub fn trouble(mut chance: StdRng) -> impl FnMut(&cohortd::sandbox::Incoming<'_>) -> Fault + Send {
    move |_| match chance.random_range(0..20) {
        0 => Fault::Reset { apply: Apply::Now },
        1 => Fault::Reset { apply: Apply::No },
        2 => Fault::Reset { apply: Apply::Later(Duration::from_millis(300)) },
        3 => Fault::AnswerAfterApply { status: 500, headers: Vec::new(), body: None },
        4 => Fault::Hang { apply: Apply::Now },
        5 => Fault::status(503),
        _ => Fault::None,
    }
}

async fn twenty_kills_leave_the_segments_as_what_was_answered() {
    const SEED: u64 = 20_260_101;
    let mut chance = StdRng::seed_from_u64(SEED);
    let launchdarkly = launchdarkly().await;
    launchdarkly.script(trouble(StdRng::seed_from_u64(SEED + 1)));
    let installation = Installation::new(&launchdarkly);
    let truth = Arc::new(Mutex::new(Truth::default()));
    let mut in_flight = 0;

    for round in 0..ROUNDS {
        let cohortd = Arc::new(installation.start());
        let (answers, mut answered) = watch::channel(0);
        let answers = Arc::new(answers);
        let unanswered = std::mem::take(&mut truth.lock().expect("no poster runs").unanswered);
        let (again, left): (Vec<_>, Vec<_>) =
            unanswered.into_iter().partition(|_| chance.random_bool(0.5));
        truth.lock().expect("no poster runs").unanswered.clone_from(&left);
        let mut again = again.into_iter();
        let posters: Vec<_> = (0..POSTERS)
            .map(|poster_of| {
                let own = again.by_ref().take(2).collect();
                let random = StdRng::seed_from_u64(SEED ^ (round * POSTERS + poster_of) << 8);
                let (cohortd, truth, answers) = (cohortd.clone(), truth.clone(), answers.clone());
                tokio::spawn(poster(cohortd, truth, random, answers, own))
            })
            .collect();
        truth.lock().expect("no poster panics with it").unanswered.extend(again);

        // When to kill: after this many answers, or this many calls.
        let moment = chance.random_range(1..150);
        if round % 2 == 0 {
            let enough = answered.wait_for(|answers| *answers >= moment);
            tokio::time::timeout(DEADLINE, enough).await.expect("in time").expect("they post");
        } else {
            let calls = launchdarkly.calls().total + moment / 10 + 1;
            let enough = |view: &cohortd::sandbox::View<'_>| view.calls().total >= calls;
            launchdarkly.until(DEADLINE, enough).await.expect("it delivers");
        }
        cohortd.signal(Signal::KILL);
        for poster in posters {
            poster.await.expect("no answer is wrong");
        }
        in_flight += truth.lock().expect("no poster runs").unanswered.len() - left.len();
        let (status, _) = Arc::into_inner(cohortd).expect("the posters have ended").wait();
        assert_eq!(status.code(), None, "killed, not ended");
    }

    launchdarkly.behave();
    let cohortd = installation.start();
    installation.drained().await;
    let waiting = cohortd.status().await["destinations"]["production"]["waiting"].clone();
    assert_eq!(waiting, 0);
    let (status, _) = cohortd.stop();
    assert!(status.success());

    let ledger = installation.members().await;
    let truth = truth.lock().expect("no poster runs");
    let segments = launchdarkly.segments(ENVIRONMENT);
    let outcomes = truth.agrees_with(&segments);
    for view in &ledger {
        let segment = segments.get(&view.audience).expect("told of, so it was made");
        let member = format!("{} {}", view.audience, view.context_key);
        assert_eq!(segment.members.contains(&view.context_key), view.included, "{member}");
    }
    assert!(ledger.len() >= truth.accepted.len());
    assert_eq!(launchdarkly.overlaps(), 0, "nothing overtook");
    let certain = outcomes.values().filter(|may_be| may_be.len() == 1).count();
    assert!(certain > outcomes.len() / 2, "{certain} of {} are certain", outcomes.len());
    note!(
        "{} events accepted in {} requests, {in_flight} requests in flight at a kill ({} of them \
         never answered), {} answered 503, {ROUNDS} kills, {} calls, {certain} of {} members \
         certain, 0 differences",
        truth.events_accepted,
        truth.requests_accepted,
        truth.unanswered.len(),
        truth.refused,
        launchdarkly.calls().total,
        outcomes.len(),
    );
}

tests![twenty_kills_leave_the_segments_as_what_was_answered,];
