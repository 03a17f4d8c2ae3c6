//! The client against the stand-in: every reaction to an [answer](crate::design::launchdarkly::answers),
//! over a real connection.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::launchdarkly::{Answer, Api, Client, Endpoint, Fate, Outcome, Refusal, classify, wire};
use crate::membership::{AudienceId, ContextKey, ContextKind, Membership};

/// Timeout of calls that are answered, and of waits that should end sooner.
const PATIENT: Duration = Duration::from_secs(20);
/// Timeout of calls that are not answered.
const IMPATIENT: Duration = Duration::from_millis(300);

/// An arbitrary self-signed certificate.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----
MIIBhDCCASugAwIBAgIUe6QK7pemCrfetVrocs/obNMMNPgwCgYIKoZIzj0EAwIw
FzEVMBMGA1UEAwwMY29ob3J0ZCB0ZXN0MCAXDTI2MTEyMzIzNTcxNloYDzIxMjYx
MDMwMjM1NzE2WjAXMRUwEwYDVQQDDAxjb2hvcnRkIHRlc3QwWTATBgcqhkjOPQIB
BggqhkjOPQMBBwNCAAT8b58NDGEgIRc4zSusR65FcpKQPIUl4cFqVeck9/t8sl7d
gUA6xhLs9KUUIkCGADjSAyi05jqjcKq11WwaKaCAo1MwUTAdBgNVHQ4EFgQU1Vc7
m5NwI3e35kxg5q2uGbMM5/8wHwYDVR0jBBgwFoAU1Vc7m5NwI3e35kxg5q2uGbMM
5/8wDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNHADBEAiBiscpm9KNNjzIn
NRnLH9UCW84oiH55YDqGhhcuPbzvCgIgYYIws8Xlzjyc6XSXTG/CEm+gcOGlOody
n9FQ3PVba7g=
-----END CERTIFICATE-----";

fn account() -> Account {
    Account { client_side_id: "env1".into(), service_token: Secret::new("api-hush") }
}

async fn standin() -> StandIn {
    StandIn::start(vec![account()]).await.expect("loopback has free ports")
}

fn endpoint(base_url: Url, request_timeout: Duration) -> Endpoint {
    Endpoint {
        base_url,
        client_side_id: "env1".into(),
        service_token: Secret::new("api-hush"),
        proxy: None,
        ca_file: None,
        request_timeout,
        connections: 4,
    }
}

fn client(standin: &StandIn, request_timeout: Duration) -> Client {
    Client::new(endpoint(standin.url(), request_timeout)).expect("a good endpoint")
}

fn members(members: &[(&str, bool)]) -> Bytes {
    let members: Vec<(ContextKey, Membership)> = members
        .iter()
        .map(|(key, value)| {
            (ContextKey::new(key).expect("not empty"), Membership::from_bool(*value))
        })
        .collect();
    wire::encode(
        "env1",
        &ContextKind::new("user").expect("user is a context kind"),
        &vip(),
        "Beta testers",
        members.iter().map(|(key, membership)| (key, *membership)),
    )
}

fn vip() -> AudienceId {
    AudienceId::new("aud_1").expect("not empty")
}

fn ada_enters() -> Bytes {
    members(&[("ada", true)])
}

fn always(fault: Fault) -> impl FnMut(&Incoming<'_>) -> Fault + Send + 'static {
    move |_| fault.clone()
}

fn first(fault: Fault) -> impl FnMut(&Incoming<'_>) -> Fault + Send + 'static {
    move |call| if call.call_number == 1 { fault.clone() } else { Fault::None }
}

fn unavailable(answer: &Answer) -> (&str, Fate) {
    match &answer.outcome {
        Outcome::Unavailable { cause, fate, .. } => (cause, *fate),
        other => panic!("{other:?} instead of unavailable"),
    }
}

fn refusal(answer: &Answer) -> &Refusal {
    match answer.outcome.refusal() {
        Some(refusal) => refusal,
        None => panic!("{:?} instead of a refusal", answer.outcome),
    }
}

#[tokio::test]
async fn what_is_taken_is_in_the_segment() {
    let standin = standin().await;
    let client = client(&standin, PATIENT);
    for (call, inside) in [
        (members(&[("ada", true), ("bob", true)]), &["ada", "bob"][..]),
        (members(&[("ada", false), ("cy", true)]), &["bob", "cy"]),
        (members(&[("nobody", false)]), &["bob", "cy"]),
    ] {
        let answer = client.send(&vip(), call).await;
        assert_eq!((answer.outcome, answer.status), (Outcome::Taken, Some(204)));
        let segments = standin.segments("env1");
        let expected = SegmentState {
            name: "Beta testers".into(),
            context_kind: "user".into(),
            members: inside.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(segments, BTreeMap::from([("aud_1".to_owned(), expected)]));
    }
    let expected = CallCounts { total: 3, taken: 3, members: 5, ..CallCounts::default() };
    assert_eq!((standin.calls(), standin.overlaps()), (expected, 0));
}

#[tokio::test]
async fn scripted_answers_are_understood() {
    let standin = standin().await;
    let client = client(&standin, PATIENT);
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let said = |status: u16| {
        let status = http::StatusCode::from_u16(status).expect("a status");
        let answer = classify(status, &http::HeaderMap::new(), b"{}");
        refusal(&answer).clone()
    };
    let over = |status: u16, cause: &str| Outcome::Unavailable {
        cause: cause.into(),
        fate: Fate::Over,
        refusal: (status >= 400).then(|| said(status)),
    };
    let open = |cause: &str| Outcome::Unavailable {
        cause: cause.into(),
        fate: Fate::Open,
        refusal: Some(said(504)),
    };
    let retry_after = Some(Duration::from_secs(9));
    let page = "answered 200 with a web page: this is not LaunchDarkly's API";
    let table = [
        (409, vec![], Outcome::Conflict(said(409))),
        (
            429,
            vec![header("retry-after", "9")],
            Outcome::RateLimited { retry_after, refusal: said(429) },
        ),
        (429, vec![], Outcome::RateLimited { retry_after: None, refusal: said(429) }),
        (200, vec![header("content-type", "application/json")], Outcome::Taken),
        (200, vec![header("content-type", "text/html")], over(200, page)),
        (304, vec![], over(304, "answered 304, a redirect, which is never followed")),
        (425, vec![], over(425, "answered 425")),
        (503, vec![], over(503, "answered 503")),
        (504, vec![], open("answered 504")),
    ];
    for (status, headers, expected) in table {
        standin.script(always(Fault::Answer { status, headers, body: Some("{}".into()) }));
        let answer = client.send(&vip(), ada_enters()).await;
        assert_eq!((answer.outcome, answer.status), (expected, Some(status)));
    }
    assert_eq!(standin.segments("env1"), BTreeMap::new());

    standin.script(always(Fault::AnswerAfterApply { status: 500, headers: vec![], body: None }));
    assert_eq!(unavailable(&client.send(&vip(), ada_enters()).await), ("answered 500", Fate::Over));
    assert!(View(&standin.shared.state()).has("env1", "aud_1", "ada"));
}

#[tokio::test]
async fn the_stand_in_refuses_what_launchdarkly_refuses() {
    let standin = standin().await;
    let client = client(&standin, PATIENT);
    standin.set_max_members(3);
    standin.refuse_members(|user_id| user_id == "odd");
    assert_eq!(client.send(&vip(), ada_enters()).await.outcome, Outcome::Taken);
    let member = r#"{"userId":"bob","cohortName":"B","cohortId":"aud_1","value":true}"#;
    let with = |from: &str, to: &str| member.replace(from, to);
    let call = |batch: &str| {
        format!(r#"{{"environmentId":"env1","contextKind":"user","batch":[{batch}]}}"#)
    };
    let four = members(&[("a", true), ("b", true), ("c", true), ("d", true)]);
    let table: [(String, u16, &str); 16] = [
        ("{".into(), 400, "EOF while parsing"),
        (call(""), 400, "batch is empty"),
        (call(member).replace("env1", "env9"), 404, "Unknown environment"),
        (call(member).replace("\"user\"", "\"multi\""), 400, "contextKind"),
        (call(member).replace("\"user\"", "\"device\""), 400, "is of context kind user"),
        (call(&with("bob", "")), 400, "batch[0].userId is empty"),
        (call(&with("aud_1", "")), 400, "batch[0].cohortId is empty"),
        (call(&with(r#""B""#, r#""""#)), 400, "batch[0].cohortName is empty"),
        (call(&with("true", r#""true""#)), 400, "expected a boolean"),
        (call(&with(r#","value":true"#, "")), 400, "missing field `value`"),
        (call(&with(r#""userId":"bob","#, "")), 400, "missing field `userId`"),
        (call(&with("bob\"", "odd\"")), 400, "batch[0].userId cannot be used: odd"),
        (call(&format!("{member},{}", with("bob", "odd"))), 400, "batch[1].userId cannot be used"),
        (call(&format!("{member},{member}")), 400, "batch[1] is named twice"),
        (call(&format!("{member},{}", with("aud_1", "aud_2"))), 400, "is of another cohort"),
        (String::from_utf8_lossy(&four).into_owned(), 413, "batch has 4 members"),
    ];
    let before = standin.segments("env1");
    for (body, status, words) in table {
        let answer = client.send(&vip(), body.clone().into()).await;
        let refusal = refusal(&answer);
        assert_eq!(refusal.status, status, "{body}");
        assert!(
            refusal.message_with_personal_data().contains(words),
            "{body}: {}",
            refusal.message_with_personal_data()
        );
        let last = standin.log().pop().expect("there were calls");
        assert_eq!(refusal.id, format!("standin-{}", last.number));
        assert_eq!(last.status, Some(status));
    }
    assert_eq!(standin.segments("env1"), before);
    assert_eq!(standin.calls().refused, 16);
}

#[tokio::test]
async fn only_the_accounts_token_writes() {
    let other = Account { client_side_id: "env2".into(), service_token: Secret::new("api-other") };
    let standin = StandIn::start(vec![account(), other]).await.expect("loopback has free ports");
    let client = client(&standin, PATIENT);
    assert_eq!(client.send(&vip(), ada_enters()).await.outcome, Outcome::Taken);
    standin.revoke("env1");
    assert_eq!(refusal(&client.send(&vip(), ada_enters()).await).code, "unauthorized");
    standin.set_token("env1", Secret::new("api-other"));
    assert_eq!(refusal(&client.send(&vip(), ada_enters()).await).status, 401);
    standin.set_token("env1", Secret::new("api-hush"));
    assert_eq!(client.send(&vip(), ada_enters()).await.outcome, Outcome::Taken);
}

#[tokio::test]
async fn a_call_without_an_answer_may_be_applied_later() {
    let standin = standin().await;
    let client = client(&standin, IMPATIENT);
    let late = Apply::Later(IMPATIENT * 2);
    standin.script(first(Fault::Hang { apply: late }));
    let answer = client.send(&vip(), ada_enters()).await;
    assert_eq!(unavailable(&answer), ("no answer in time", Fate::Open));
    assert_eq!(answer.status, None);

    // the client has given up, so its second call overtakes nothing, even if made at once
    assert_eq!(client.send(&vip(), members(&[("ada", false)])).await.outcome, Outcome::Taken);
    assert_eq!(standin.overlaps(), 0);
    standin
        .until(PATIENT, |view| view.has("env1", "aud_1", "ada"))
        .await
        .expect("the first call is applied after the second");
}

#[tokio::test]
async fn a_dropped_connection_leaves_open_what_happened_and_is_not_retried() {
    for apply in [Apply::No, Apply::Now] {
        let standin = standin().await;
        let client = client(&standin, PATIENT);
        // once on a new connection, once on a reused one
        standin.script(move |call| match call.call_number {
            1 | 3 => Fault::Reset { apply },
            _ => Fault::None,
        });
        for (call, expected_calls) in [(ada_enters(), 1), (members(&[("bob", true)]), 3)] {
            let answer = client.send(&vip(), call).await;
            let (cause, fate) = unavailable(&answer);
            assert_eq!(fate, Fate::Open, "{cause}");
            assert!(cause.starts_with("the connection ended before the answer"), "{cause}");
            assert_eq!(standin.calls().total, expected_calls);
            let applied = View(&standin.shared.state()).has("env1", "aud_1", "ada");
            assert_eq!(applied, apply == Apply::Now);
            let taken = client.send(&vip(), members(&[("cy", true)])).await.outcome;
            assert_eq!(taken, Outcome::Taken);
        }
        assert_eq!((standin.calls().unanswered, standin.overlaps()), (2, 0));
    }
}

#[tokio::test]
async fn a_host_that_cannot_be_reached_has_not_heard() {
    let gone = standin().await;
    let client = client(&gone, PATIENT);
    gone.stop().await;
    let answer = client.send(&vip(), ada_enters()).await;
    let (cause, fate) = unavailable(&answer);
    assert!(cause.starts_with("cannot connect: "), "{cause}");
    assert!(!cause.contains("127.0.0.1") && !cause.contains("hush"), "{cause}");
    assert_eq!(fate, Fate::Over);
}

#[tokio::test]
async fn broken_tls_has_not_heard() {
    let standin = standin().await;
    let certificates = tempfile::NamedTempFile::new().expect("a writable temporary directory");
    std::fs::write(certificates.path(), CERTIFICATE).expect("the file was just made");
    let https = standin.url().as_str().replace("http:", "https:");
    let client = Client::new(Endpoint {
        ca_file: Some(certificates.path().into()),
        ..endpoint(https.parse().expect("a URL"), PATIENT)
    })
    .expect("a good certificate");
    let answer = client.send(&vip(), ada_enters()).await;
    let (cause, fate) = unavailable(&answer);
    assert!(cause.starts_with("cannot connect: "), "{cause}");
    assert_eq!((fate, standin.calls().total), (Fate::Over, 0));
}

#[tokio::test]
async fn a_redirect_never_carries_the_token_away() {
    for status in [301, 302, 303, 307, 308] {
        let (standin, stranger) = (standin().await, self::standin().await);
        let location = stranger.url().join(wire::PATH).expect("a path").to_string();
        standin.script(always(Fault::Answer {
            status,
            headers: vec![("location".into(), location)],
            body: None,
        }));
        let answer = client(&standin, PATIENT).send(&vip(), ada_enters()).await;
        assert_eq!(unavailable(&answer).1, Fate::Over);
        assert_eq!(stranger.calls(), CallCounts::default());
    }
}

#[tokio::test]
async fn only_the_configured_proxy_is_used() {
    let proxy = standin().await;
    let unreachable = "http://launchdarkly.invalid/".parse().expect("a URL");
    let client =
        Client::new(Endpoint { proxy: Some(proxy.url()), ..endpoint(unreachable, PATIENT) })
            .expect("a good endpoint");
    assert_eq!(client.send(&vip(), ada_enters()).await.outcome, Outcome::Taken);
}

#[tokio::test]
async fn a_body_without_end_delays_nothing_beyond_the_timeout() {
    let drip = (1, Duration::from_millis(20));
    let flood = (64 * 1024, Duration::from_millis(1));
    for (status, taken, (chunk_bytes, every), request_timeout) in [
        // success does not wait for the end of the body, and no more of a body than the limit is read
        (200, true, drip, PATIENT),
        (200, true, flood, PATIENT),
        (400, false, flood, PATIENT),
        (400, false, drip, IMPATIENT),
    ] {
        let standin = standin().await;
        standin.script(always(Fault::EndlessBody { status, chunk_bytes, every }));
        let client = client(&standin, request_timeout);
        let answer = tokio::time::timeout(PATIENT / 2, client.send(&vip(), ada_enters()))
            .await
            .expect("the call ends");
        assert_eq!(answer.outcome == Outcome::Taken, taken);
        assert_eq!(answer.status, Some(status));
    }
}

#[tokio::test]
async fn a_member_in_two_requests_at_once_is_an_overlap() {
    let standin = standin().await;
    let client = client(&standin, PATIENT);
    standin.set_keep(Keep::Arrivals);
    standin.script(first(Fault::Hang { apply: Apply::No }));
    let hanging = tokio::spawn({
        let client = client.clone();
        async move { client.send(&vip(), members(&[("ada", true), ("bob", true)])).await }
    });
    standin.until(PATIENT, |view| view.calls().total == 1).await.expect("the first call arrives");
    for (call, overlaps) in [
        (members(&[("cy", true)]), 0),
        (members(&[("ada", false), ("cy", true)]), 1),
        // the latest call that named it has ended
        (members(&[("ada", true), ("bob", true)]), 2),
    ] {
        assert_eq!(client.send(&vip(), call).await.outcome, Outcome::Taken);
        assert_eq!(standin.overlaps(), overlaps);
    }
    assert_eq!(standin.arrivals("env1", "aud_1", "ada"), [true, false, true]);
    hanging.abort();
}

#[tokio::test]
async fn waiting_in_vain_says_what_came() {
    let standin = standin().await;
    client(&standin, PATIENT).send(&vip(), ada_enters()).await;
    let error =
        standin.until(IMPATIENT, |view| view.calls().total > 1).await.expect_err("one call");
    assert!(error.to_string().contains("total: 1"), "{error}");
}

#[tokio::test]
async fn stopping_ends_what_hangs() {
    let standin = standin().await;
    standin.script(always(Fault::Hang { apply: Apply::Later(PATIENT * 100) }));
    let client = client(&standin, PATIENT);
    let hanging = tokio::spawn(async move { client.send(&vip(), ada_enters()).await });
    standin.until(PATIENT, |view| view.calls().total == 1).await.expect("the call arrives");
    tokio::time::timeout(PATIENT, standin.stop()).await.expect("stopping waits for nothing");
    let answer = hanging.await.expect("the client does not panic");
    assert_eq!(unavailable(&answer).1, Fate::Open);
}

#[tokio::test]
async fn benchmarks_can_count_without_keeping_members() {
    let standin = standin().await;
    standin.set_keep(Keep::Counts);
    let call = members(&[("ada", true), ("bob", true)]);
    assert_eq!(client(&standin, PATIENT).send(&vip(), call).await.outcome, Outcome::Taken);
    assert_eq!(standin.calls().members, 2);
    assert!(standin.segments("env1")["aud_1"].members.is_empty());
}

#[tokio::test]
async fn the_probes_tell_good_credentials_from_bad_ones() {
    let standin = standin().await;
    client(&standin, PATIENT); // installs the process's TLS provider, which reqwest requires
    let http = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .timeout(PATIENT)
        .build()
        .expect("no certificates are needed");
    let url = |path: &str| standin.url().join(path).expect("a path");
    for (path, token, expected) in [
        ("/sdk/goals/env1", "", 200),
        ("/sdk/goals/env9", "", 404),
        ("/api/v2/versions", "api-hush", 200),
        ("/api/v2/versions", "api-wrong", 401),
    ] {
        let method = if path.starts_with("/sdk") { http::Method::HEAD } else { http::Method::GET };
        let request = http.request(method, url(path)).header("authorization", token);
        let answer = request.send().await.expect("the stand-in answers");
        assert_eq!(answer.status().as_u16(), expected, "{path} {token}");
    }
    assert_eq!(standin.calls().elsewhere, 0);
    http.get(url(wire::PATH)).send().await.expect("the stand-in answers");
    assert_eq!(standin.calls(), CallCounts { elsewhere: 1, ..CallCounts::default() });
}
