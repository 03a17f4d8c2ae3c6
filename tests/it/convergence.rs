//! P3, P4, P5: whatever fails on the way, and in whatever order events arrive, every segment ends equal to
//! what the events say. Nothing is overtaken, and only refused members are missing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cohortd::sandbox::{Apply, Fault, Incoming};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{Cohortd, DEADLINE, ENVIRONMENT, Installation, identify, iso, launchdarkly};

const AUDIENCES: [&str; 4] = ["alpha", "beta", "gamma", "delta"];
const PEOPLE: u32 = 60;
const EVENTS: usize = 2000;
/// Requests in flight at once.
const POSTERS: usize = 8;
const NOW_MS: i64 = 1_750_000_000_000;

/// One refused member in every audience: a daemon that lets a member spoil its batch would get stuck.
fn is_refused(user: &str) -> bool {
    user.ends_with('7')
}

/// What the events say: for each member the time and value of its latest event.
type Truth = BTreeMap<(String, String), (i64, bool)>;

/// Changes with few different times, each as an Identify and a Track, some repeated, in random order. Each
/// element is one request.
fn requests(random: &mut StdRng) -> (Vec<Vec<Value>>, Truth) {
    let mut truth = Truth::new();
    let mut values: BTreeMap<(String, String, i64), bool> = BTreeMap::new();
    let mut events = Vec::new();
    while events.len() < EVENTS {
        let audience = AUDIENCES[random.random_range(0..AUDIENCES.len())];
        let user = format!("user{:03}", random.random_range(0..PEOPLE));
        let at_ms = NOW_MS + random.random_range(0..40);
        // Concurrent requests have no order, so a member has a single value for each time.
        let value = random.random_bool(0.6);
        let value = *values.entry((audience.into(), user.clone(), at_ms)).or_insert(value);
        let latest = truth.entry((format!("aud_{audience}"), user.clone())).or_insert((0, value));
        if at_ms >= latest.0 {
            *latest = (at_ms, value);
        }
        let told_as_identify = identify(&user, audience, value, at_ms);
        let told_as_track = track(&user, audience, value, at_ms);
        if random.random_bool(0.1) {
            events.push(told_as_track.clone());
        }
        events.extend([told_as_identify, told_as_track]);
    }
    events.shuffle(random);
    let mut requests = Vec::new();
    while !events.is_empty() {
        let size = if random.random_bool(0.7) { 1 } else { random.random_range(2..30) };
        requests.push(events.split_off(events.len().saturating_sub(size)));
    }
    (requests, truth)
}

fn track(user: &str, audience: &str, enters: bool, at_ms: i64) -> Value {
    let mut event = identify(user, audience, enters, at_ms);
    event["type"] = "track".into();
    event["event"] = if enters { "Audience Entered" } else { "Audience Exited" }.into();
    event["traits"] = Value::Null;
    event["properties"] = json!({"audience_key": audience, audience: enters});
    event["originalTimestamp"] = iso(at_ms).into();
    event
}

/// A random fault from `design::launchdarkly::answers`. A late apply happens before the reassertion, which
/// follows the settle after two request timeouts.
fn fault(random: &mut StdRng) -> Fault {
    let apply = match random.random_range(0..3) {
        0 => Apply::No,
        1 => Apply::Now,
        _ => Apply::Later(Duration::from_millis(random.random_range(0..900))),
    };
    let limited = |name: &str, value: String| Fault::Answer {
        status: 429,
        headers: vec![(name.to_owned(), value)],
        body: None,
    };
    match random.random_range(0..100) {
        0..6 => Fault::Hang { apply },
        6..16 => Fault::Reset { apply },
        16..22 => Fault::status(500),
        22..26 => Fault::status(502),
        26..30 => Fault::status(503),
        30..34 => Fault::status(409),
        34..36 => Fault::AnswerAfterApply { status: 500, headers: Vec::new(), body: None },
        36..40 => limited("Retry-After", "0".to_owned()),
        40..41 => limited("Retry-After", "1".to_owned()),
        // in the past: no wait
        41..44 => limited("X-Ratelimit-Reset", "1000".to_owned()),
        _ => Fault::None,
    }
}

async fn post_all(cohortd: &Cohortd, requests: Vec<Vec<Value>>) {
    let mut shares: Vec<Vec<Vec<Value>>> = (0..POSTERS).map(|_| Vec::new()).collect();
    for (index, request) in requests.into_iter().enumerate() {
        shares[index % POSTERS].push(request);
    }
    let mut posting = JoinSet::new();
    for share in shares {
        let poster = cohortd.poster();
        posting.spawn(async move {
            for request in share {
                let (status, answer) = match &request[..] {
                    [event] => poster.post(event).await,
                    events => poster.post_batch(events).await,
                }
                .expect("the daemon answers");
                assert_eq!(status, 200, "{answer}");
                assert_eq!(answer["accepted"], request.len(), "{answer}");
            }
        });
    }
    while let Some(posted) = posting.join_next().await {
        posted.expect("every event is accepted");
    }
}

async fn converges(seed: u64) {
    note!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let launchdarkly = launchdarkly().await;
    launchdarkly.refuse_members(is_refused);
    let mut fate = StdRng::seed_from_u64(seed + 1);
    launchdarkly.script(move |_: &Incoming<'_>| fault(&mut fate));
    let mut installation = Installation::new(&launchdarkly);
    installation.set("delivery.max_batch", "10"); // many calls, so that many fail
    let cohortd = installation.start();

    let (requests, truth) = requests(&mut random);
    post_all(&cohortd, requests).await;
    launchdarkly.until(DEADLINE, |view| view.calls().total >= 150).await.expect("calls are made");
    launchdarkly.behave();
    let wanted: BTreeMap<String, BTreeSet<String>> = AUDIENCES
        .map(|audience| {
            let id = format!("aud_{audience}");
            let of = |((audience, user), (_, value)): (&(String, String), &(i64, bool))| {
                (*audience == id && *value && !is_refused(user)).then(|| user.clone())
            };
            let members = truth.iter().filter_map(of).collect();
            (id, members)
        })
        .into();
    installation.drained().await;

    let calls = launchdarkly.calls();
    assert!(calls.refused > 20 && calls.unanswered > 5, "too little went wrong: {calls:?}");
    let segments = launchdarkly.segments(ENVIRONMENT);
    let shown: BTreeMap<String, BTreeSet<String>> =
        segments.into_iter().map(|(id, segment)| (id, segment.members)).collect();
    assert_eq!(shown, wanted, "seed {seed}");
    assert_eq!(launchdarkly.overlaps(), 0, "seed {seed}");
    // some of them are parked
    assert_eq!(cohortd.status().await["destinations"]["production"]["state"], "attention");

    let (status, _) = cohortd.stop();
    assert!(status.success());
    let parked: BTreeSet<_> = installation
        .parked()
        .await
        .into_iter()
        .map(|parked| (parked.audience, parked.context_key))
        .collect();
    let marked: BTreeSet<_> = truth.keys().filter(|(_, user)| is_refused(user)).cloned().collect();
    assert_eq!(parked, marked, "seed {seed}");
    let members = installation.members().await;
    assert_eq!(members.len(), truth.len());
    for member in members {
        let (audience, user) = (&member.audience, &member.context_key);
        assert!(!member.pending, "seed {seed}: {user} of {audience} is pending");
        let (_, value) = truth[&(audience.clone(), user.clone())];
        assert_eq!(member.included, value, "seed {seed}: {user} of {audience}");
        let told = if is_refused(user) { None } else { Some(value) };
        assert_eq!(member.told, told, "seed {seed}: {user} of {audience}");
    }
}

async fn segments_end_as_the_latest_events_say_whatever_goes_wrong_on_the_way() {
    for seed in [1, 2, 3, 5, 8] {
        converges(seed).await;
    }
}

tests![segments_end_as_the_latest_events_say_whatever_goes_wrong_on_the_way,];
