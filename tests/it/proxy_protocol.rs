//! The PROXY protocol: a load balancer reports where a connection comes from. If the configuration does not
//! match the load balancer, that is reported, and no event is lost (P7).

use std::net::SocketAddr;

use cohortd::sandbox::{View, sign};
use cohortd::secret::Secret;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::{
    Cohortd, DEADLINE, ENVIRONMENT, Installation, SHARED_SECRET, identify, launchdarkly,
};
use crate::http2::{self, DATA, END_HEADERS, END_STREAM, HEADERS};

const NOW_MS: i64 = 1_750_000_000_000;
const HOME: &str = "PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n";
const ABROAD: &str = "PROXY TCP4 198.51.100.7 10.0.0.1 4711 443\r\n";

/// `HOME` in version 2 of the protocol, with an extension.
fn home_in_bytes() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x12".to_vec();
    header.extend([192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 1, 187]);
    header.extend([0x03, 0, 3, 1, 2, 3]);
    header
}

/// A health check by the load balancer itself.
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn request(user: &str) -> Vec<u8> {
    let body = identify(user, "vip", true, NOW_MS).to_string();
    let signature = sign(&Secret::new(SHARED_SECRET), body.as_bytes());
    let head = format!(
        "POST /segment/production HTTP/1.1\r\nhost: x\r\nx-signature: {signature}\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

const PROBE: &[u8] = b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

/// Sends these pieces one by one. Returns the status, and the reason if the request is refused.
async fn answer(to: SocketAddr, pieces: &[&[u8]]) -> (u16, String) {
    let mut stream = TcpStream::connect(to).await.expect("it listens");
    stream.set_nodelay(true).expect("it is a socket");
    for piece in pieces {
        stream.write_all(piece).await.expect("it is open");
    }
    let mut text = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut text)).await.expect("in time").expect("text");
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = text.split("\r\n\r\n").nth(1).unwrap_or_default();
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let word = body["error"].as_str().and_then(|error| error.split(':').next());
    (status, word.unwrap_or_default().to_owned())
}

/// The status' entry for the path.
async fn refused(cohortd: &Cohortd, reason: &str) -> Value {
    let holds = |status: &Value| status.to_string().contains(reason);
    cohortd.until_status(holds).await
}

async fn a_load_balancer_says_where_a_connection_is_from() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation
        .set("listen.proxy_protocol", "true")
        .set("destinations.production.segment.allowed_sources", "192.0.2.0/24");
    let cohortd = installation.start();
    let to = cohortd.public;
    let home = home_in_bytes();
    let table: [(&[&[u8]], u16, &str); 8] = [
        (&[HOME.as_bytes(), &request("ada")], 200, ""),
        (&[&HOME.as_bytes()[..9], &HOME.as_bytes()[9..], &request("bob")], 200, ""),
        (&[&home, &request("cyd")], 200, ""),
        (&[&home[..20], &home[20..], &request("dan")], 200, ""),
        (&[ABROAD.as_bytes(), &request("eve")], 403, "source_not_allowed"),
        (&[LOCAL, PROBE], 200, ""),
        // without a header the source is unknown
        (&[&request("eve")], 503, "no_proxy_header"),
        (&[PROBE], 200, ""),
    ];
    for (pieces, status, word) in table {
        let shown = String::from_utf8_lossy(pieces[0]).into_owned();
        assert_eq!(answer(to, pieces).await, (status, word.to_owned()), "{shown}");
    }
    let status = refused(&cohortd, "no_proxy_header").await;
    assert!(status.to_string().contains("listen.proxy_protocol = false"), "{status}");
    let twice = [HOME.as_bytes(), ABROAD.as_bytes(), &request("eve")].concat();
    assert_eq!(answer(to, &[&twice]).await, (503, "second_proxy_header".to_owned()));
    let status = refused(&cohortd, "second_proxy_header").await;
    assert!(status.to_string().contains("only the last load balancer"), "{status}");
    // A malformed header closes the connection and is reported.
    assert_eq!(answer(to, &[b"PROXY nonsense\r\n", PROBE]).await.0, 0, "it is closed");
    let bad = "PROXY TCP4 192.0.2.1 10.0.0.1 4711 70000\r\n";
    assert_eq!(answer(to, &[bad.as_bytes(), &request("eve")]).await.0, 0, "it is closed");
    let status = refused(&cohortd, "bad_proxy_header").await;
    assert!(status.to_string().contains("an invalid address or port"), "{status}");
    cohortd
        .logged(
            "connections were closed at their first bytes; Segment retries for a few hours only",
        )
        .await;
    let (_, metrics) = cohortd.metrics("text/plain").await;
    let counted = "cohortd_refused_requests_total{path=\"*\",reason=\"bad_proxy_header\",credential=\"none\"} 2";
    assert!(metrics.contains(counted), "{metrics}");
    // With extensions of the maximum length, in pieces.
    let long = [&home[..14], &[255, 255], &home[16..28], &vec![0; 65535 - 12]].concat();
    let (one, other) = long.split_at(30_000);
    assert_eq!(answer(to, &[one, other, &request("gus")]).await, (200, String::new()));
    cohortd.until_status(|status| !status.to_string().contains("bad_proxy_header")).await;

    let mut stream = TcpStream::connect(to).await.expect("it listens");
    let body = identify("fay", "vip", true, NOW_MS).to_string();
    let signature = sign(&Secret::new(SHARED_SECRET), body.as_bytes());
    let head = http2::head(0x83, "/segment/production", "x", &[("x-signature", &signature)]);
    let start = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let frames = [
        http2::frame(HEADERS, END_HEADERS, 1, &head),
        http2::frame(DATA, END_STREAM, 1, body.as_bytes()),
    ];
    let all = [&home[..], start, &frames.concat()].concat();
    stream.write_all(&all).await.expect("it is open");
    loop {
        if let (HEADERS, 1, block) = http2::next(&mut stream).await {
            assert_eq!(block[0], 0x88, "HTTP/2 behind it: {block:?}");
            break;
        }
    }
    let members = |view: &View<'_>| {
        view.segment(ENVIRONMENT, "aud_vip").is_some_and(|of| of.members.len() == 6)
    };
    launchdarkly.until(DEADLINE, members).await.expect("all but eve");
    let admin = cohortd.probe("/readyz").await;
    assert_eq!(admin, Some(200), "the admin listener is not behind the load balancer");
    assert!(cohortd.stop().0.success());
}

async fn a_header_that_nobody_expects_is_named_and_costs_no_event() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    for header in [HOME.as_bytes(), &home_in_bytes()] {
        let said = answer(cohortd.public, &[header, &request("ada")]).await;
        assert_eq!(said, (503, "proxy_header".to_owned()), "Segment sends it again");
    }
    assert_eq!(answer(cohortd.public, &[LOCAL, PROBE]).await.0, 200, "it is well all the same");
    let said = answer(cohortd.admin, &[HOME.as_bytes(), PROBE]).await;
    assert_eq!(said, (503, "proxy_header".to_owned()));
    let status = refused(&cohortd, "proxy_header").await;
    assert!(status.to_string().contains("Set listen.proxy_protocol = true"), "{status}");
    cohortd
        .logged(
            "requests that look like Segment's were refused; Segment retries them for a few hours \
             only",
        )
        .await;
    // once it is switched off there, or on here, the path works again
    assert_eq!(answer(cohortd.public, &[&request("ada")]).await, (200, String::new()));
    cohortd.until_status(|status| !status.to_string().contains("proxy_header")).await;
    assert!(cohortd.stop().0.success());
}

tests![
    a_load_balancer_says_where_a_connection_is_from,
    a_header_that_nobody_expects_is_named_and_costs_no_event,
];
