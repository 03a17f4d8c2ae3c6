//! The table of reactions in `design::launchdarkly::answers`, each row through the running daemon.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cohortd::clock::{Clock, SystemClock};
use cohortd::membership::Timestamp;
use cohortd::sandbox::{Apply, Fault, StandIn, View};
use cohortd::secret::Secret;
use serde_json::Value;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;

use crate::harness::{
    Cohortd, DEADLINE, ENVIRONMENT, Installation, SERVICE_TOKEN, identify, launchdarkly,
};

const NOW_MS: i64 = 1_750_000_000_000;
const HELD: &str = "destination held: events are kept, nothing is delivered until this is fixed";

fn user(number: usize) -> String {
    format!("user{number:03}")
}

/// Posts one request in which the people in `range` enter an audience.
async fn enter(cohortd: &Cohortd, audience: &str, range: std::ops::Range<usize>) {
    let events: Vec<Value> =
        range.map(|number| identify(&user(number), audience, true, NOW_MS)).collect();
    let (status, answer) = cohortd.post_batch(&events).await.expect("an answer");
    assert_eq!((status, &answer["accepted"]), (200, &events.len().into()), "{answer}");
}

fn members(launchdarkly: &StandIn, audience: &str) -> BTreeSet<String> {
    let segments = launchdarkly.segments(ENVIRONMENT);
    segments.get(&format!("aud_{audience}")).map(|of| of.members.clone()).unwrap_or_default()
}

fn users(numbers: impl IntoIterator<Item = usize>) -> BTreeSet<String> {
    numbers.into_iter().map(user).collect()
}

async fn until_in(launchdarkly: &StandIn, audience: &str, who: impl IntoIterator<Item = usize>) {
    let (audience, wanted) = (format!("aud_{audience}"), users(who));
    let has = |view: &View<'_>| {
        view.segment(ENVIRONMENT, &audience).is_some_and(|of| of.members == wanted)
    };
    launchdarkly.until(DEADLINE, has).await.expect("they enter");
}

fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Fault {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Fault::Answer {
        status,
        headers: headers.iter().map(own).collect(),
        body: Some(body.to_owned()),
    }
}

/// The first `count` calls meet `fault`.
fn fail_first(launchdarkly: &StandIn, count: u64, fault: Fault) {
    launchdarkly.script(
        move |call| {
            if call.call_number <= count { fault.clone() } else { Fault::None }
        },
    );
}

/// Stops the daemon. Returns the parked members in its ledger.
async fn stop_and_see_parked(cohortd: Cohortd, installation: &Installation) -> BTreeSet<String> {
    assert!(cohortd.stop().0.success());
    installation.parked().await.into_iter().map(|parked| parked.context_key).collect()
}

/// How many members were parked since the start.
async fn parkings(cohortd: &Cohortd) -> u64 {
    let (_, metrics) = cohortd.metrics("text/plain").await;
    let sample = "cohortd_members_parked_total{destination=\"production\"} ";
    let count = metrics.lines().find_map(|line| line.strip_prefix(sample));
    count.and_then(|count| count.parse().ok()).expect("it is a number")
}

fn destination(status: &Value) -> &Value {
    &status["destinations"]["production"]
}

async fn every_2xx_settles_a_batch() {
    for (status, headers, body) in [
        (204, vec![], None),
        (200, vec![], None),
        (200, vec![("content-type".to_owned(), "application/json".to_owned())], Some("{}")),
        (202, vec![("content-type".to_owned(), "text/plain".to_owned())], Some("thank you")),
    ] {
        let launchdarkly = launchdarkly().await;
        let body = body.map(str::to_owned);
        launchdarkly.script(move |_| Fault::AnswerAfterApply {
            status,
            headers: headers.clone(),
            body: body.clone(),
        });
        let installation = Installation::new(&launchdarkly);
        let cohortd = installation.start();
        enter(&cohortd, "vip", 0..3).await;
        until_in(&launchdarkly, "vip", 0..3).await;
        installation.drained().await;
        assert_eq!(launchdarkly.calls().total, 1, "{status}");
        assert!(cohortd.stop().0.success());
        for member in installation.members().await {
            assert_eq!((member.told, member.pending), (Some(true), false), "{status}");
        }
    }
}

async fn one_refused_member_is_parked_with_launchdarklys_words_and_the_others_are_delivered() {
    for status in [400, 422] {
        let launchdarkly = launchdarkly().await;
        launchdarkly.script(move |call| {
            let bad = call.members.iter().any(|member| member.user_id == user(17));
            let words = r#"{"code":"invalid_request","message":"userId user017?","id":"answer-9"}"#;
            if bad {
                answer(status, &[("content-type", "application/json")], words)
            } else {
                Fault::None
            }
        });
        let installation = Installation::new(&launchdarkly);
        let cohortd = installation.start();
        enter(&cohortd, "vip", 0..50).await;
        until_in(&launchdarkly, "vip", (0..50).filter(|number| *number != 17)).await;
        installation.drained().await;
        assert!(launchdarkly.calls().total < 20, "halves, not one by one");
        assert_eq!(destination(&cohortd.status().await)["state"], "attention");
        cohortd.until_logged("members refused: parked; the latest is shown").await;
        assert!(cohortd.stop().0.success());

        let parked = installation.parked().await;
        let [parked] = &parked[..] else { panic!("one is parked, not {}", parked.len()) };
        assert_eq!((parked.audience.as_str(), parked.context_key.as_str()), ("aud_vip", "user017"));
        assert_eq!((parked.status, parked.code.as_str()), (status, "invalid_request"));
        assert_eq!(parked.message, "userId user017?");
        assert_eq!(parked.answer_id, "answer-9");
    }
}

async fn a_newer_value_of_a_parked_member_travels_alone_until_it_is_taken() {
    let launchdarkly = launchdarkly().await;
    launchdarkly.refuse_members(|user| user == "user003");
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    enter(&cohortd, "vip", 0..8).await;
    until_in(&launchdarkly, "vip", (0..8).filter(|number| *number != 3)).await;
    installation.drained().await;

    launchdarkly.refuse_members(|_| false);
    let calls = launchdarkly.calls().total;
    let mut events = vec![identify("user003", "vip", false, NOW_MS + 1)];
    events.extend((8..12).map(|number| identify(&user(number), "vip", true, NOW_MS)));
    cohortd.post_batch(&events).await.expect("an answer");
    until_in(&launchdarkly, "vip", (0..12).filter(|number| *number != 3)).await;
    installation.drained().await;
    let sizes: Vec<usize> = launchdarkly
        .log()
        .iter()
        .filter(|call| call.number > calls)
        .map(|call| call.members)
        .collect();
    assert_eq!(sizes.iter().sum::<usize>(), 5);
    assert!(sizes.contains(&1), "{sizes:?}");
    assert_eq!(stop_and_see_parked(cohortd, &installation).await, users([]));
}

async fn a_refused_token_or_environment_holds_the_destination_until_it_is_mended() {
    for status in [401, 403, 404] {
        let launchdarkly = launchdarkly().await;
        let installation = Installation::new(&launchdarkly);
        let cohortd = installation.start();
        enter(&cohortd, "vip", 0..3).await;
        until_in(&launchdarkly, "vip", 0..3).await;

        match status {
            401 => launchdarkly.revoke(ENVIRONMENT),
            _ => launchdarkly.script(move |_| Fault::status(status)),
        }
        enter(&cohortd, "vip", 3..6).await;
        let line = cohortd
            .until_logged(
                "destination held: events are kept, nothing is delivered until this is fixed",
            )
            .await;
        assert_eq!((&line["level"], &line["status"]), (&"ERROR".into(), &status.into()));
        let shown = cohortd.until_status(|status| destination(status)["state"] == "held").await;
        let held = &destination(&shown)["held"];
        assert_eq!(held["status"], status);
        let since: jiff::Timestamp =
            held["since"].as_str().expect("a time").parse().expect("RFC 3339");
        let since = Timestamp(since.as_microsecond());
        assert!(SystemClock.now().since(since) < DEADLINE, "{held}");
        let why = held["why"].as_str().expect("text");
        let remedy = if status == 404 { "client_side_id" } else { "service token" };
        assert!(why.contains(remedy), "{why}");

        // It continues to accept events, also for a new audience, and retries with one call at a time.
        enter(&cohortd, "vip", 6..9).await;
        enter(&cohortd, "other", 0..2).await;
        let calls = launchdarkly.calls().total;
        let probed = |view: &View<'_>| view.calls().total >= calls + 3;
        launchdarkly.until(DEADLINE, probed).await.expect("probes are made");
        assert_eq!(members(&launchdarkly, "vip"), users(0..3));
        assert_eq!(destination(&cohortd.status().await)["held"]["since"], held["since"]);

        match status {
            401 => launchdarkly.set_token(ENVIRONMENT, Secret::new(SERVICE_TOKEN)),
            _ => launchdarkly.behave(),
        }
        until_in(&launchdarkly, "vip", 0..9).await;
        until_in(&launchdarkly, "other", 0..2).await;
        cohortd.until_status(|status| destination(status)["state"] == "ok").await;
        cohortd.until_logged("destination no longer held").await;
        installation.drained().await;
        assert_eq!(stop_and_see_parked(cohortd, &installation).await, users([]));
    }
}

async fn a_conflict_is_tried_again_soon_and_delays_no_other_audience() {
    let launchdarkly = launchdarkly().await;
    launchdarkly.script(|call| {
        if call.audience == "aud_contended" { Fault::status(409) } else { Fault::None }
    });
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    enter(&cohortd, "contended", 0..3).await;
    launchdarkly.until(DEADLINE, |view| view.calls().refused > 0).await.expect("a conflict");
    enter(&cohortd, "calm", 0..3).await;
    until_in(&launchdarkly, "calm", 0..3).await;
    let calls = launchdarkly.calls().refused;
    launchdarkly.until(DEADLINE, |view| view.calls().refused > calls).await.expect("tried again");
    assert_eq!(members(&launchdarkly, "contended"), users([]));
    let state = destination(&cohortd.status().await)["state"].clone();
    assert!(state == "ok" || state == "attention", "it is not late yet: {state}");
    launchdarkly.behave();
    let behaved = Instant::now();
    until_in(&launchdarkly, "contended", 0..3).await;
    assert!(behaved.elapsed() < Duration::from_secs(10), "the ceiling of its pause is 5 s");
    assert_eq!(stop_and_see_parked(cohortd, &installation).await, users([]));
}

async fn a_batch_that_is_too_large_is_halved_until_it_fits() {
    let launchdarkly = launchdarkly().await;
    launchdarkly.set_max_members(7);
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    enter(&cohortd, "vip", 0..50).await;
    until_in(&launchdarkly, "vip", 0..50).await;
    // It has learnt the limit: no later request is too large.
    let refused = launchdarkly.calls().refused;
    assert!((3..8).contains(&refused), "50 or less, 25, 12, then 6: {refused}");
    enter(&cohortd, "vip", 50..100).await;
    until_in(&launchdarkly, "vip", 0..100).await;
    assert_eq!(launchdarkly.calls().refused, refused);
    assert_eq!(stop_and_see_parked(cohortd, &installation).await, users([]));
}

async fn a_member_that_is_too_large_alone_is_parked_and_the_others_are_delivered() {
    let launchdarkly = launchdarkly().await;
    launchdarkly.script(|call| {
        let large = call.members.iter().any(|member| member.user_id == user(5));
        if large { Fault::status(413) } else { Fault::None }
    });
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    enter(&cohortd, "vip", 0..20).await;
    until_in(&launchdarkly, "vip", (0..20).filter(|number| *number != 5)).await;
    installation.drained().await;
    assert_eq!(stop_and_see_parked(cohortd, &installation).await, users([5]));
}

/// Records when each call arrives.
fn watch_arrivals(
    launchdarkly: &StandIn,
    mut fault: impl FnMut(usize) -> Fault + Send + 'static,
) -> Arc<Mutex<Vec<(Instant, Timestamp)>>> {
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&arrivals);
    launchdarkly.script(move |_| {
        let mut kept = kept.lock().expect("nothing panics");
        kept.push((Instant::now(), SystemClock.now()));
        fault(kept.len())
    });
    arrivals
}

async fn a_rate_limit_is_waited_out_by_every_audience() {
    let reset = Arc::new(Mutex::new(Timestamp::EPOCH));
    for by_reset in [false, true] {
        let launchdarkly = launchdarkly().await;
        let told = Arc::clone(&reset);
        let arrivals = watch_arrivals(&launchdarkly, move |call| {
            if call > 1 {
                return Fault::None;
            }
            if !by_reset {
                return answer(429, &[("Retry-After", "1")], "{}");
            }
            let at = SystemClock.now().after(Duration::from_millis(1200));
            *told.lock().expect("nothing panics") = at;
            let at_ms = (at.0 / 1000).to_string();
            let headers = [
                ("X-Ratelimit-Route-Limit", "10"),
                ("X-Ratelimit-Route-Remaining", "0"),
                ("X-Ratelimit-Reset", at_ms.as_str()),
            ];
            answer(429, &headers, "{}")
        });
        let installation = Installation::new(&launchdarkly);
        let cohortd = installation.start();
        enter(&cohortd, "vip", 0..3).await;
        launchdarkly.until(DEADLINE, |view| view.calls().refused == 1).await.expect("limited");
        enter(&cohortd, "other", 0..3).await;
        until_in(&launchdarkly, "vip", 0..3).await;
        until_in(&launchdarkly, "other", 0..3).await;
        let arrivals = arrivals.lock().expect("nothing panics").clone();
        let [first, second, ..] = arrivals[..] else { panic!("at least two calls") };
        if by_reset {
            let reset = *reset.lock().expect("nothing panics");
            assert!(second.1.0 / 1000 >= reset.0 / 1000, "not before the reset");
        } else {
            assert!(second.0 - first.0 >= Duration::from_secs(1), "not before Retry-After");
        }
    }
}

/// Probes respect the rate limit too.
async fn a_held_destination_that_is_rate_limited_waits_as_it_is_told() {
    let launchdarkly = launchdarkly().await;
    let arrivals = watch_arrivals(&launchdarkly, |call| match call {
        1 => Fault::status(401),
        2 => answer(429, &[("Retry-After", "2")], "{}"),
        _ => Fault::None,
    });
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    enter(&cohortd, "vip", 0..3).await;
    until_in(&launchdarkly, "vip", 0..3).await;
    let arrivals = arrivals.lock().expect("nothing panics").clone();
    let [_, second, third] = arrivals[..] else { panic!("three calls, not {}", arrivals.len()) };
    assert!(third.0 - second.0 >= Duration::from_secs(2), "{:?}", third.0 - second.0);
    drop(cohortd);
}

async fn what_is_unavailable_is_tried_until_it_takes_the_batch() {
    let endless =
        Fault::EndlessBody { status: 500, chunk_bytes: 10, every: Duration::from_millis(10) };
    for (case, fault) in [
        ("500", Fault::status(500)),
        ("502", Fault::status(502)),
        ("503", Fault::status(503)),
        ("504", Fault::status(504)),
        ("408", Fault::status(408)),
        ("timeout", Fault::Hang { apply: Apply::No }),
        ("timeout, applied", Fault::Hang { apply: Apply::Now }),
        ("reset", Fault::Reset { apply: Apply::No }),
        ("reset, applied", Fault::Reset { apply: Apply::Now }),
        ("a body without end", endless),
        ("500, applied", Fault::AnswerAfterApply { status: 500, headers: vec![], body: None }),
    ] {
        let launchdarkly = launchdarkly().await;
        fail_first(&launchdarkly, 3, fault);
        let installation = Installation::new(&launchdarkly);
        let cohortd = installation.start();
        enter(&cohortd, "vip", 0..3).await;
        let taken = |view: &View<'_>| view.calls().total >= 4;
        launchdarkly.until(DEADLINE, taken).await.expect(case);
        until_in(&launchdarkly, "vip", 0..3).await;
        cohortd.until_logged("LaunchDarkly is unavailable: will retry").await;
        cohortd.until_logged("delivered").await;
        installation.drained().await;
        assert_eq!(stop_and_see_parked(cohortd, &installation).await, users([]), "{case}");
        assert_eq!(launchdarkly.overlaps(), 0, "{case}");
    }
}

/// Forwards each connection to the stand-in.
async fn pass_on(listener: TcpListener, to: std::net::SocketAddr) {
    while let Ok((mut near, _)) = listener.accept().await {
        let mut far = TcpStream::connect(to).await.expect("the stand-in listens");
        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
    }
}

async fn a_refused_connection_is_tried_until_somebody_listens() {
    let launchdarkly = launchdarkly().await;
    // Bound, so that no other process gets the port, but not listening yet: connections are refused.
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port on loopback is free");
    let address = socket.local_addr().expect("it is bound");
    let mut installation = Installation::new(&launchdarkly);
    let base_url = format!("http://{address}");
    installation.set("destinations.production.launchdarkly.base_url", &base_url);
    let cohortd = installation.start();
    enter(&cohortd, "vip", 0..3).await;
    let line = cohortd.until_logged("LaunchDarkly is unavailable: will retry").await;
    let cause = line["cause"].as_str().expect("text");
    assert!(cause.starts_with("cannot connect"), "{cause}");

    let listener = socket.listen(16).expect("it can listen");
    let to = launchdarkly.url().socket_addrs(|| None).expect("a socket address")[0];
    let passing = tokio::spawn(pass_on(listener, to));
    until_in(&launchdarkly, "vip", 0..3).await;
    installation.drained().await;
    assert_eq!(launchdarkly.calls().total, 1, "what was never sent needs no repeat");
    passing.abort();
}

async fn a_redirect_is_never_followed() {
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = launchdarkly().await;
        let launchdarkly = launchdarkly().await;
        let same_route = elsewhere.url().join("/api/v2/segment-targets/segment-audiences");
        let location = same_route.expect("a path").to_string();
        fail_first(&launchdarkly, 3, answer(status, &[("Location", &location)], ""));
        let installation = Installation::new(&launchdarkly);
        let cohortd = installation.start();
        enter(&cohortd, "vip", 0..3).await;
        until_in(&launchdarkly, "vip", 0..3).await;
        assert_eq!(launchdarkly.calls().total, 4, "{status}: tried again like any outage");
        let there = elsewhere.calls();
        assert_eq!((there.total, there.elsewhere), (0, 0), "{status}");
        drop(cohortd);
    }
}

async fn a_web_page_is_no_settlement() {
    let launchdarkly = launchdarkly().await;
    let page = answer(200, &[("content-type", "text/html; charset=utf-8")], "<h1>Log in</h1>");
    fail_first(&launchdarkly, 2, page);
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    enter(&cohortd, "vip", 0..3).await;
    until_in(&launchdarkly, "vip", 0..3).await;
    assert_eq!(launchdarkly.calls().total, 3);
    drop(cohortd);
}

async fn a_refusal_of_everybody_holds_the_destination_and_parks_nobody() {
    for delivered_before in [false, true] {
        let launchdarkly = launchdarkly().await;
        let installation = Installation::new(&launchdarkly);
        let cohortd = installation.start();
        if delivered_before {
            enter(&cohortd, "vip", 100..103).await;
            until_in(&launchdarkly, "vip", 100..103).await;
        }
        launchdarkly.refuse_members(|_| true);
        enter(&cohortd, "vip", 0..30).await;
        let shown = cohortd.until_status(|status| destination(status)["state"] == "held").await;
        let why = destination(&shown)["held"]["why"].as_str().expect("text");
        assert!(why.starts_with("LaunchDarkly refuses every member"), "{why}");
        // All are waiting except the one that is probed.
        cohortd.until_status(|status| destination(status)["waiting"].as_u64() >= Some(29)).await;
        let calls = launchdarkly.calls().total;
        let probed = |view: &View<'_>| view.calls().total >= calls + 5;
        launchdarkly.until(DEADLINE, probed).await.expect("probes are made");
        let parkings = parkings(&cohortd).await;
        assert!(parkings <= 10, "none is said to be parked once it is held, but {parkings}");
        let single = launchdarkly.log().iter().rev().take(5).all(|call| call.members == 1);
        assert!(single, "probes carry one member each");
        assert_eq!(destination(&cohortd.status().await)["state"], "held");

        launchdarkly.refuse_members(|_| false);
        let before = if delivered_before { 100..103 } else { 0..0 };
        until_in(&launchdarkly, "vip", (0..30).chain(before)).await;
        cohortd.until_status(|status| destination(status)["state"] == "ok").await;
        installation.drained().await;
        assert_eq!(stop_and_see_parked(cohortd, &installation).await, users([]));
    }
}

async fn after_a_false_alarm_exactly_the_refused_are_parked() {
    let launchdarkly = launchdarkly().await;
    let marked = 20..45;
    launchdarkly.refuse_members(|name| (20..45).any(|number| name == user(number)));
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    enter(&cohortd, "vip", 0..60).await;
    until_in(&launchdarkly, "vip", (0..60).filter(|number| !marked.contains(number))).await;
    installation.drained().await;
    cohortd.until_status(|status| destination(status)["state"] == "attention").await;
    cohortd
        .until_logged("many members in a row were refused: finding out whether every member is")
        .await; // the alarm was raised
    assert_eq!(cohortd.count_logged(HELD), 0, "and a false one");
    assert_eq!(stop_and_see_parked(cohortd, &installation).await, users(marked));
}

/// However many members are parked, the log reports it at once and then once a minute, with their number.
async fn of_parked_members_there_is_a_line_a_minute() {
    let parked = "members refused: parked; the latest is shown";
    let launchdarkly = launchdarkly().await;
    let refused = |number: usize| number >= 100 && number.is_multiple_of(2);
    launchdarkly.refuse_members(move |name| {
        name.strip_prefix("user").and_then(|number| number.parse().ok()).is_some_and(refused)
    });
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    enter(&cohortd, "vip", 0..100).await;
    until_in(&launchdarkly, "vip", 0..100).await;
    let until_parked = async |count: u64| {
        cohortd.until_status(|status| destination(status)["parked"] == count).await;
    };
    enter(&cohortd, "vip", 100..101).await;
    until_parked(1).await;
    let began = Instant::now();
    enter(&cohortd, "vip", 101..112).await;
    until_parked(6).await;
    assert_eq!(cohortd.count_logged(parked), 1, "the others are for the next line");
    // one more every second, until that line is logged
    let mut number = 112;
    while cohortd.count_logged(parked) < 2 {
        assert!(began.elapsed() < 2 * DEADLINE, "it is never said again");
        let due = began + Duration::from_secs(number as u64 - 112);
        tokio::time::sleep_until(due).await;
        enter(&cohortd, "vip", number..number + 1).await;
        number += 1;
    }
    assert!(began.elapsed() > Duration::from_secs(50), "{:?}", began.elapsed());
    let log = cohortd.log();
    let lines: Vec<Value> = log
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["message"] == parked)
        .collect();
    note!("{lines:?}");
    let members: Vec<_> = lines.iter().filter_map(|line| line["members"].as_u64()).collect();
    let total = parkings(&cohortd).await;
    assert!(members[0] == 1 && members[1] > 5 && members[1] < total, "{members:?} of {total}");
    for line in &lines {
        assert!(line["level"] == "WARN" && line["status"] == 400, "{line}");
        assert_eq!(line["audience.id"], "aud_vip");
        assert!(!line.to_string().contains("user1"), "{line}");
    }
}

/// Hundreds among thousands are refused one by one: the verdict does not change until the end.
async fn while_many_are_parked_one_by_one_the_verdict_is_steady() {
    let launchdarkly = launchdarkly().await;
    launchdarkly.refuse_members(|name| {
        name.strip_prefix("user").and_then(|number| number.parse().ok()).is_some_and(|n| {
            let number: usize = n;
            (500..800).contains(&number)
        })
    });
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    enter(&cohortd, "vip", 0..400).await;
    until_in(&launchdarkly, "vip", 0..400).await;
    for part in [400..1400, 1400..2400] {
        enter(&cohortd, "vip", part).await;
    }
    let (mut seen, mut most_parked) = (Vec::new(), 0);
    loop {
        let status = cohortd.status().await;
        let of = destination(&status);
        let (state, parked) = (of["state"].clone(), of["parked"].as_u64().expect("a number"));
        assert!(parked >= most_parked, "{parked} after {most_parked}");
        most_parked = parked;
        if seen.last() != Some(&state) {
            seen.push(state);
        }
        if parked == 300 && of["pending"] == 0 {
            break;
        }
    }
    note!("the verdicts: {seen:?}");
    let steps: Vec<&str> = seen.iter().filter_map(Value::as_str).collect();
    assert!(matches!(steps[..], ["attention"] | ["ok", "attention"]), "{steps:?}");
    assert_eq!(cohortd.count_logged(HELD), 0);
    let taken = (0..500).chain(800..2400);
    until_in(&launchdarkly, "vip", taken).await;
    assert_eq!(stop_and_see_parked(cohortd, &installation).await, users(500..800));
}

/// With nothing left to deliver, a member that was accepted before is probed, or the status says what the
/// hold waits for.
async fn a_hold_ends_although_nothing_is_left_to_be_told() {
    for was_told_before in [true, false] {
        let launchdarkly = launchdarkly().await;
        let installation = Installation::new(&launchdarkly);
        let cohortd = installation.start();
        if was_told_before {
            enter(&cohortd, "vip", 0..1).await;
            until_in(&launchdarkly, "vip", 0..1).await;
        }
        launchdarkly.revoke(ENVIRONMENT);
        enter(&cohortd, "beta", 1..4).await;
        cohortd.until_status(|status| destination(status)["state"] == "held").await;
        let drop = ["drop", "production", "aud_beta"];
        installation.types(Some(cohortd.admin), &drop).done();
        cohortd.until_status(|status| destination(status)["audiences"]["aud_beta"].is_null()).await;
        if was_told_before {
            launchdarkly.set_token(ENVIRONMENT, Secret::new(SERVICE_TOKEN));
            cohortd.until_status(|status| destination(status)["state"] == "ok").await;
        } else {
            let waits = |text: &Value| {
                text.as_str().is_some_and(|text| text.contains("the next member that changes"))
            };
            let shown = cohortd.until_status(|of| waits(&destination(of)["held"]["why"])).await;
            let first = &destination(&shown)["concerns"][0];
            assert!(first["kind"] == "held" && waits(&first["why"]), "{first}");
            launchdarkly.set_token(ENVIRONMENT, Secret::new(SERVICE_TOKEN));
            enter(&cohortd, "vip", 0..1).await;
            until_in(&launchdarkly, "vip", 0..1).await;
            cohortd.until_status(|status| destination(status)["state"] == "ok").await;
        }
    }
}

/// The member whose probe could end the hold is retried until LaunchDarkly accepts or refuses it.
async fn a_false_alarm_ends_although_the_first_probe_meets_an_outage() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    enter(&cohortd, "vip", 0..1).await;
    until_in(&launchdarkly, "vip", 0..1).await;

    launchdarkly.refuse_members(|name| name != user(0));
    let (probes, mut last) = (Arc::new(Mutex::new(Vec::new())), 0);
    let kept = Arc::clone(&probes);
    launchdarkly.script(move |call| {
        if call.members.iter().all(|member| member.user_id != user(0)) {
            return Fault::None;
        }
        let mut kept = kept.lock().expect("nothing panics");
        kept.push(call.call_number - std::mem::replace(&mut last, call.call_number));
        if kept.len() <= 2 { Fault::status(503) } else { Fault::None }
    });
    enter(&cohortd, "vip", 1..13).await;
    let alarmed = |_: &View<'_>| probes.lock().expect("nothing panics").len() == 3;
    launchdarkly.until(DEADLINE, alarmed).await.expect("three probes");
    assert_eq!(probes.lock().expect("nothing panics")[1..], [1, 1], "with none in between");
    installation.drained().await;
    cohortd.until_status(|status| destination(status)["state"] == "attention").await;
    assert_eq!(stop_and_see_parked(cohortd, &installation).await, users(1..13));
}

tests![
    every_2xx_settles_a_batch,
    one_refused_member_is_parked_with_launchdarklys_words_and_the_others_are_delivered,
    a_newer_value_of_a_parked_member_travels_alone_until_it_is_taken,
    a_refused_token_or_environment_holds_the_destination_until_it_is_mended,
    a_conflict_is_tried_again_soon_and_delays_no_other_audience,
    a_batch_that_is_too_large_is_halved_until_it_fits,
    a_member_that_is_too_large_alone_is_parked_and_the_others_are_delivered,
    a_rate_limit_is_waited_out_by_every_audience,
    a_held_destination_that_is_rate_limited_waits_as_it_is_told,
    what_is_unavailable_is_tried_until_it_takes_the_batch,
    a_refused_connection_is_tried_until_somebody_listens,
    a_redirect_is_never_followed,
    a_web_page_is_no_settlement,
    a_refusal_of_everybody_holds_the_destination_and_parks_nobody,
    after_a_false_alarm_exactly_the_refused_are_parked,
    while_many_are_parked_one_by_one_the_verdict_is_steady,
    a_hold_ends_although_nothing_is_left_to_be_told,
    of_parked_members_there_is_a_line_a_minute,
    a_false_alarm_ends_although_the_first_probe_meets_an_outage,
];
