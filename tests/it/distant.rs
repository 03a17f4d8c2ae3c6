//! Distant senders: a link that delays every byte in both directions and keeps their order.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use cohortd::sandbox::{View, sign};
use cohortd::secret::Secret;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use crate::harness::{DEADLINE, ENVIRONMENT, Installation, SHARED_SECRET, identify, launchdarkly};

const NOW_MS: i64 = 1_750_000_000_000;
/// The round-trip time of the link.
const ROUND_TRIP: Duration = Duration::from_millis(100);

/// Starts a link to `to`. Returns its near end.
async fn link(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(to).await.expect("it listens");
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::spawn(carry(near_in, far_out));
            tokio::spawn(carry(far_in, near_out));
        }
    });
    address
}

/// Carries bytes in one direction, delaying all by the same time, without limiting how many are in transit.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let (departed, mut arriving) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    tokio::spawn(async move {
        while let Some((due, bytes)) = arriving.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let due = Instant::now() + ROUND_TRIP / 2;
        if departed.send((due, buffer[..read].to_vec())).is_err() {
            break;
        }
    }
}

/// Four thousand events of users whose names begin with `users`, signed as by Segment.
fn batch(users: &str) -> Request<Full<Bytes>> {
    let event = |number| {
        let mut event = identify(&format!("{users}-{number}"), "vip", true, NOW_MS);
        event["context"]["page"] = "p".repeat(900).into();
        event.to_string()
    };
    let events: Vec<String> = (0..4000).map(event).collect();
    let body = format!("[{}]", events.join(","));
    assert!(body.len() > 4_500_000, "{}", body.len());
    Request::post("http://localhost/segment/production")
        .header("x-signature", sign(&Secret::new(SHARED_SECRET), events[0].as_bytes()))
        .body(Full::new(Bytes::from(body)))
        .expect("a request")
}

/// Posts a batch over HTTP/2 on a new connection. Returns how long the answer took.
async fn post(to: SocketAddr, batch: Request<Full<Bytes>>) -> Duration {
    let io = TokioIo::new(TcpStream::connect(to).await.expect("it listens"));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
    tokio::spawn(connection);
    let began = Instant::now();
    let answer = timeout(DEADLINE, sender.send_request(batch)).await.expect("in time");
    let answer = answer.expect("an answer");
    let took = began.elapsed();
    assert_eq!(answer.status(), 200);
    let answer = answer.into_body().collect().await.expect("all of it").to_bytes();
    assert!(answer.starts_with(b"{\"accepted\":4000,"), "{answer:?}");
    took
}

/// Segment waits five seconds for the answer, and each time a flow control window is exhausted costs a
/// round trip.
async fn a_large_batch_over_http_2_takes_few_round_trips() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let near = post(cohortd.public, batch("near")).await;
    let far = post(link(cohortd.public).await, batch("far")).await;
    note!("4.5 MB took {near:?}, and {far:?} over a link of {ROUND_TRIP:?}");
    assert!(far < near + ROUND_TRIP * 15, "{far:?} instead of {near:?}");
    let all = |view: &View<'_>| {
        view.segment(ENVIRONMENT, "aud_vip").is_some_and(|of| of.members.len() == 8000)
    };
    launchdarkly.until(DEADLINE, all).await.expect("delivered");
    assert!(cohortd.stop().0.success());
}

tests![a_large_batch_over_http_2_takes_few_round_trips,];
