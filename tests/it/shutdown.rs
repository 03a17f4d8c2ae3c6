//! Stopping (P10): if asked to stop, the daemon finishes what is in flight within the grace period and
//! breaks no promise; if it ends by itself, its exit code says so.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cohortd::sandbox::{Apply, Fault, StandIn, sign};
use cohortd::secret::Secret;
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::harness::{
    Cohortd, DEADLINE, ENVIRONMENT, Installation, SHARED_SECRET, identify, launchdarkly,
};
use crate::needs::SH;

const NOW_MS: i64 = 1_750_000_000_000;
/// The default grace period.
const GRACE: Duration = Duration::from_secs(8);
/// What a busy machine may add to measured times.
const SLACK: Duration = Duration::from_secs(3);

fn members(launchdarkly: &StandIn) -> BTreeSet<String> {
    launchdarkly.segments(ENVIRONMENT).remove("aud_vip").unwrap_or_default().members
}

async fn sigterm_under_load_breaks_no_promise_and_ends_in_time() {
    let launchdarkly = launchdarkly().await;
    launchdarkly.set_latency(Duration::from_millis(50));
    let installation = Installation::new(&launchdarkly);
    let cohortd = Arc::new(installation.start());
    let (answers, mut answered) = watch::channel(0);
    let answers = Arc::new(answers);
    let posters: Vec<_> = (0..8)
        .map(|poster| {
            let (cohortd, answers) = (Arc::clone(&cohortd), Arc::clone(&answers));
            tokio::spawn(async move {
                let (mut accepted, mut posted, mut other) = (Vec::new(), Vec::new(), 0);
                loop {
                    let user = format!("user_{poster}_{}", posted.len());
                    posted.push(user.clone());
                    match cohortd.post(&identify(&user, "vip", true, NOW_MS)).await {
                        Some((200, _)) => accepted.push(user),
                        Some((503, _)) => other += 1,
                        Some(answer) => panic!("a good event is answered {answer:?}"),
                        None => return (accepted, posted, other),
                    }
                    answers.send_modify(|answers| *answers += 1);
                }
            })
        })
        .collect();
    let enough = answered.wait_for(|answers| *answers >= 300);
    tokio::time::timeout(DEADLINE, enough).await.expect("in time").expect("they post");

    let asked = Instant::now();
    cohortd.signal(Signal::TERM);
    let (mut accepted, mut posted, mut other) = (BTreeSet::new(), BTreeSet::new(), 0);
    for poster in posters {
        let (of_accepted, of_posted, of_other) = poster.await.expect("no answer is wrong");
        accepted.extend(of_accepted);
        posted.extend(of_posted);
        other += of_other;
    }
    let cohortd = Arc::into_inner(cohortd).expect("the posters have ended");
    let (status, log) = cohortd.wait();
    let took = asked.elapsed();
    assert!(status.success(), "{status}");
    assert!(took < GRACE, "{took:?}");
    assert!(!log.iter().any(|line| line.contains("grace period is over")), "all was finished");

    let before = members(&launchdarkly);
    let cohortd = installation.start();
    installation.drained().await;
    assert!(cohortd.stop().0.success());
    let members = members(&launchdarkly);
    assert!(members.is_superset(&accepted), "lost: {:?}", accepted.difference(&members));
    assert!(members.is_subset(&posted));
    assert_eq!(launchdarkly.overlaps(), 0);
    note!(
        "ended {took:?} after SIGTERM; {} events accepted, {} answered 503, {} not answered, {} \
         delivered before the end",
        accepted.len(),
        other,
        posted.len() - accepted.len() - other,
        before.len(),
    );
}

async fn a_request_in_flight_is_finished_and_the_probe_says_not_ready_meanwhile() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    assert_eq!(cohortd.readyz().await, Some(200));

    let body = identify("ada", "vip", true, NOW_MS).to_string();
    let signature = sign(&Secret::new(SHARED_SECRET), body.as_bytes());
    let head = format!(
        "POST /segment/production HTTP/1.1\r\nhost: localhost\r\nx-signature: {signature}\r\n\
         content-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    let mut slow = TcpStream::connect(cohortd.public).await.expect("it listens");
    slow.write_all(head.as_bytes()).await.expect("sent");
    // `100 Continue` shows that the request is in flight.
    let mut asks = [0; 25];
    slow.read_exact(&mut asks).await.expect("an interim answer");
    assert_eq!(&asks, b"HTTP/1.1 100 Continue\r\n\r\n");
    let (first, rest) = body.split_at(body.len() / 2);
    slow.write_all(first.as_bytes()).await.expect("sent");

    cohortd.signal(Signal::TERM);
    cohortd.logged("stopping").await;
    assert_eq!(cohortd.readyz().await, Some(503));
    cohortd.logged("no longer accepting connections").await;
    assert!(TcpStream::connect(cohortd.public).await.is_err(), "no newcomers");
    slow.write_all(rest.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.expect("an answer, and then the end");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let (status, _) = cohortd.wait();
    assert!(status.success(), "{status}");

    let cohortd = installation.start();
    installation.drained().await;
    assert_eq!(members(&launchdarkly), BTreeSet::from(["ada".to_owned()]));
    assert!(cohortd.stop().0.success());
}

/// A daemon with a call in flight that LaunchDarkly does not answer.
async fn with_a_hanging_call(grace_period_ms: &str) -> (StandIn, Installation, Cohortd) {
    let launchdarkly = launchdarkly().await;
    launchdarkly.script(|_| Fault::Hang { apply: Apply::No });
    let mut installation = Installation::new(&launchdarkly);
    installation.set("stop.grace_period_ms", grace_period_ms);
    installation.set("delivery.request_timeout_ms", "60000");
    let cohortd = installation.start();
    let answer = cohortd.post(&identify("ada", "vip", true, NOW_MS)).await;
    assert_eq!(answer.expect("an answer").0, 200);
    let hangs = |view: &cohortd::sandbox::View<'_>| view.calls().unanswered == 1;
    launchdarkly.until(DEADLINE, hangs).await.expect("the call");
    (launchdarkly, installation, cohortd)
}

/// The next daemon delivers what was in flight. Does not wait for the reassertion, which comes two of the
/// long request timeouts later.
async fn the_next_life_delivers(launchdarkly: StandIn, installation: Installation) {
    launchdarkly.behave();
    let cohortd = installation.start();
    let has = |view: &cohortd::sandbox::View<'_>| view.has(ENVIRONMENT, "aud_vip", "ada");
    launchdarkly.until(DEADLINE, has).await.expect("it is sent again");
    assert!(cohortd.stop().0.success());
}

async fn a_hanging_call_does_not_hold_the_end_beyond_the_grace_period() {
    let (launchdarkly, installation, cohortd) = with_a_hanging_call("2000").await;
    let asked = Instant::now();
    let (status, log) = cohortd.stop();
    let took = asked.elapsed();
    assert!(status.success(), "{status}");
    assert!(took > Duration::from_millis(900), "it was given no time: {took:?}");
    assert!(took < Duration::from_secs(2) + SLACK, "{took:?}");
    let warning = "the grace period is over: requests and calls in progress were cut off";
    assert!(log.iter().any(|line| line.contains(warning)), "{}", log.join("\n"));
    the_next_life_delivers(launchdarkly, installation).await;
}

async fn a_second_signal_cuts_the_grace_period_short() {
    let (launchdarkly, installation, cohortd) = with_a_hanging_call("50000").await;
    let asked = Instant::now();
    cohortd.signal(Signal::TERM);
    cohortd.logged("stopping").await; // two signals that are still pending become one
    cohortd.signal(Signal::INT);
    let (status, _) = cohortd.wait();
    let took = asked.elapsed();
    assert!(status.success(), "{status}");
    assert!(took < SLACK, "{took:?}");
    the_next_life_delivers(launchdarkly, installation).await;
}

/// Until the load balancer has noticed that the daemon is not ready, its requests are still accepted.
async fn for_the_drain_delay_it_is_not_ready_and_accepts_all_the_same() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("stop.grace_period_ms", "60000");
    installation.set("stop.drain_delay_ms", "50000");
    let cohortd = installation.start();
    let asked = Instant::now();
    assert_eq!(cohortd.readyz().await, Some(200));
    cohortd.signal(Signal::TERM);
    cohortd.logged("stopping").await;
    let mut looks = tokio::time::interval(Duration::from_millis(10));
    while cohortd.readyz().await != Some(503) {
        assert!(asked.elapsed() < DEADLINE, "it never says that it is not ready");
        looks.tick().await;
    }
    let told = installation.types(Some(cohortd.admin), &["status"]);
    assert_eq!(told.code, 69, "{}", told.out);
    assert!(told.out.starts_with("NOT READY: stopping; Segment retries"), "{}", told.out);
    let answer = cohortd.post(&identify("ada", "vip", true, NOW_MS)).await;
    assert_eq!(answer.expect("an answer").0, 200);
    cohortd.signal(Signal::TERM); // a second signal skips the wait
    assert!(cohortd.wait().0.success());
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());

    installation.set("stop.drain_delay_ms", "700");
    let cohortd = installation.start();
    installation.drained().await;
    assert_eq!(members(&launchdarkly), BTreeSet::from(["ada".to_owned()]));
    let asked = Instant::now();
    assert!(cohortd.stop().0.success());
    let took = asked.elapsed();
    assert!(took >= Duration::from_millis(700) && took < SLACK, "{took:?}");
}

/// The limit for the size of files is lowered while the daemon runs, so the ledger's next write fails as on
/// a broken disk.
async fn a_ledger_that_cannot_write_ends_the_daemon_with_70() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    // Otherwise the kernel kills the process with SIGXFSZ before it can report anything.
    let patient = ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "-"];
    let cohortd = installation.start_as(installation.wrapped(&patient));
    let answer = cohortd.post(&identify("ada", "vip", true, NOW_MS)).await;
    assert_eq!(answer.expect("an answer").0, 200);
    installation.drained().await;

    let pid = i32::try_from(cohortd.pid()).ok().and_then(Pid::from_raw);
    let few_bytes = Rlimit { current: Some(4096), maximum: Some(4096) };
    prlimit(pid, Resource::Fsize, few_bytes).expect("it is our child");
    let answer = cohortd.post(&identify("grace", "vip", true, NOW_MS)).await;
    assert!(answer.is_none_or(|(status, _)| status == 503), "nothing was made durable");
    let (status, log) = cohortd.wait();
    assert_eq!((status.code(), status.signal()), (Some(70), None), "{}", log.join("\n"));
    let says = |text: &str| log.iter().any(|line| line.contains(text));
    let why = "the ledger's writer failed: the ledger failed while writing: disk I/O error";
    assert!(says("stopping, because a part of the daemon has failed"), "{}", log.join("\n"));
    assert!(says(&format!("cohortd ends: {why}")), "{}", log.join("\n"));

    let cohortd = installation.start();
    installation.drained().await;
    assert!(members(&launchdarkly).contains("ada"));
    assert!(cohortd.stop().0.success());
}

tests![
    sigterm_under_load_breaks_no_promise_and_ends_in_time,
    a_request_in_flight_is_finished_and_the_probe_says_not_ready_meanwhile,
    a_hanging_call_does_not_hold_the_end_beyond_the_grace_period,
    a_second_signal_cuts_the_grace_period_short,
    for_the_drain_delay_it_is_not_ready_and_accepts_all_the_same,
    a_ledger_that_cannot_write_ends_the_daemon_with_70.needs(&SH),
];
