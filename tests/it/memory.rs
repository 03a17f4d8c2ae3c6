//! What strangers and key holders can make the daemon consume (P6): its memory stays below the sum of its
//! limits, and honest batches are answered during the attack. Each test prints the peak and the honest
//! sender's 99th percentile.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cohortd::sandbox::{StandIn, sign};
use cohortd::secret::Secret;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::harness::{Cohortd, DEADLINE, Installation, SHARED_SECRET, identify, launchdarkly};
use crate::http2::{self, DATA, END_HEADERS, END_STREAM, HEADERS, SETTINGS, WINDOW_UPDATE};

const NOW_MS: i64 = 1_750_000_000_000;
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

const LIMIT_MIB: u64 = 8;
const BUDGET_MIB: u64 = 16;
const CACHE_MIB: u64 = 8;
/// The sum of all limits, plus 64 MiB for the rest.
const MOST_KIB: u64 = (BUDGET_MIB + LIMIT_MIB + CACHE_MIB + 64) * 1024;

/// The same sum with the default limits.
const USUAL_MOST_KIB: u64 = (256 + 128 + 48 + 64) * 1024;

/// Honest batches during each attack.
const BATCHES: usize = 20;

async fn start() -> (StandIn, Installation, Cohortd) {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation
        .set("listen.body_limit_mib", &LIMIT_MIB.to_string())
        .set("listen.body_budget_mib", &BUDGET_MIB.to_string())
        .set("ledger.cache_mib", &CACHE_MIB.to_string())
        .set("log.level", "info")
        .set("destinations.production.segment.write_keys", "key");
    let cohortd = installation.start();
    (launchdarkly, installation, cohortd)
}

/// Sends honest batches during the attack, and checks the memory afterwards.
async fn holds_under(name: &str, cohortd: Cohortd, attack: JoinSet<()>) {
    holds_within(MOST_KIB, name, cohortd, attack).await;
}

async fn holds_within(most_kib: u64, name: &str, cohortd: Cohortd, mut attack: JoinSet<()>) {
    let mut took = Vec::new();
    for number in 0..BATCHES {
        let events: Vec<Value> = (0..1000)
            .map(|n| identify(&format!("u{}", n + number * 10), "vip", true, NOW_MS))
            .collect();
        let began = Instant::now();
        // Segment retries after a 503
        while !matches!(cohortd.post_batch(&events).await, Some((200, _))) {
            assert!(began.elapsed() < DEADLINE, "an honest batch is never taken");
        }
        assert!(began.elapsed() < DEADLINE, "an honest batch took {:?}", began.elapsed());
        took.push(began.elapsed());
        while let Some(ended) = attack.try_join_next() {
            ended.expect("the attack goes on by itself");
        }
    }
    let peak = cohortd.memory_kib("VmHWM:");
    attack.shutdown().await;
    took.sort_unstable();
    let p99 = took[took.len() * 99 / 100];
    note!("{name}: peak of {peak} KiB, of {most_kib} allowed; honest batches: p99 of {p99:?}");
    assert!(peak < most_kib, "{name}: {peak} KiB");
    let (status, log) = cohortd.stop();
    assert!(status.success());
    assert!(!log.iter().any(|line| line.contains("panic")), "{}", log.join("\n"));
}

/// Sends bytes on new connections again and again, reading the answers.
fn again_and_again(attack: &mut JoinSet<()>, to: SocketAddr, bytes: Vec<u8>) {
    attack.spawn(async move {
        loop {
            let Ok(mut stream) = TcpStream::connect(to).await else { continue };
            let _ = stream.write_all(&bytes).await; // it may be closed before everything is sent
            let _ = timeout(DEADLINE, stream.read_to_end(&mut Vec::new())).await;
        }
    });
}

fn request(path: &str, host: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn webhook(headers: &str, body: &[u8]) -> Vec<u8> {
    let signature = "0".repeat(40);
    request("/segment/production", "x", &format!("x-signature: {signature}\r\n{headers}"), body)
}

fn gzip(pieces: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for piece in pieces {
        writer.write_all(&piece).expect("memory takes it");
    }
    writer.finish().expect("memory takes it")
}

/// A batch of the maximum size that compresses to a twentieth, as events do.
fn large_batch() -> Vec<u8> {
    let events = (0..).map(|n: usize| identify(&format!("user-{n}"), "vip", true, NOW_MS));
    let mut text = vec![b'['];
    for event in events {
        if text.len() + 1000 > 7 * MIB {
            break;
        }
        text.extend(event.to_string().into_bytes());
        text.push(b',');
    }
    text.pop();
    text.push(b']');
    text
}

/// Opens HTTP/2 connections one after the other, each with `streams` requests in flight, all with this
/// header and body.
fn streams(attack: &mut JoinSet<()>, to: SocketAddr, streams: u32, head: Vec<u8>, body: Vec<u8>) {
    attack.spawn(async move {
        loop {
            let mut stream = http2::open(to, &[]).await;
            let mut bytes = Vec::new();
            for number in 0..streams {
                let number = 2 * number + 1;
                bytes.extend(http2::frame(HEADERS, END_HEADERS, number, &head));
                bytes.extend(http2::frame(DATA, END_STREAM, number, &body));
            }
            let _ = stream.write_all(&bytes).await;
            // enough that the answers have arrived or are on their way
            let _ = timeout(Duration::from_secs(2), stream.read_exact(&mut vec![0; 4 * KIB])).await;
        }
    });
}

fn packed_head(encoding: &str) -> Vec<u8> {
    let signature = "0".repeat(40);
    let headers = [("x-signature", &*signature), ("content-encoding", encoding)];
    http2::head(0x83, "/segment/production", "x", &headers)
}

/// Decoders for these encodings would allocate 16 MiB for a hundred bytes.
async fn a_hundred_bytes_in_any_encoding_cost_no_more_than_they_are() {
    let (_launchdarkly, _installation, cohortd) = start().await;
    // a Brotli stream with the largest window; a Zstandard frame that requests 8 MiB
    let brotli = [&[0x0f, 0x00, 0x80][..], &[0x55; 99]].concat();
    let zstd =
        [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x68, 0x03, 0x00, 0x10, b' '][..], &[0; 92]].concat();
    let gzip = gzip([vec![b' '; 70_000]]);
    let mut attack = JoinSet::new();
    for (encoding, body) in [("br", &brotli), ("zstd", &zstd), ("gzip", &gzip)] {
        for _ in 0..20 {
            let headers = format!("content-encoding: {encoding}\r\n");
            // the last bytes are never sent, so that allocated memory is held
            let all = webhook(&headers, body);
            let to = cohortd.public;
            let bytes = all[..all.len() - 1].to_vec();
            attack.spawn(async move {
                loop {
                    let Ok(mut stream) = TcpStream::connect(to).await else { continue };
                    let _ = stream.write_all(&bytes).await;
                    let _ = timeout(DEADLINE, stream.read_to_end(&mut Vec::new())).await;
                }
            });
        }
        streams(&mut attack, cohortd.public, 32, packed_head(encoding), body[..90].to_vec());
    }
    holds_under("a hundred bytes", cohortd, attack).await;
}

/// Sixty connections and one HTTP/2 client, with bodies of a few KiB and of half a MiB.
async fn gzip_bombs_are_not_unpacked_for_strangers() {
    let (_launchdarkly, _installation, cohortd) = start().await;
    let small = gzip((0..7).map(|_| vec![b' '; MIB]));
    let large = gzip([large_batch()]);
    let mut attack = JoinSet::new();
    for number in 0..60 {
        let body = if number % 2 == 0 { &small } else { &large };
        let bytes = webhook("content-encoding: gzip\r\n", body);
        again_and_again(&mut attack, cohortd.public, bytes);
    }
    let body = small[..small.len().min(1500)].to_vec();
    streams(&mut attack, cohortd.public, 32, packed_head("gzip"), body);
    holds_under("gzip bombs", cohortd, attack).await;
}

async fn what_a_batch_shares_is_counted_as_often_as_it_is_copied() {
    let (_launchdarkly, _installation, cohortd) = start().await;
    // within the bound of what may be shared: 3,000 times 10 KiB, and 30 times 900 KiB of small values
    let message = json!({"type": "identify", "userId": "ada", "traits": {"vip": "perhaps"}});
    let personas = json!({
        "computation_class": "audience", "computation_id": "aud_vip", "computation_key": "vip",
    });
    let batch = |messages: usize, fill: Value| {
        let context = json!({"personas": personas, "fill": fill});
        json!({"batch": vec![message.clone(); messages], "context": context}).to_string()
    };
    let long = batch(3000, json!("x".repeat(10 * KIB)));
    let many = batch(30, json!(vec![0; 450 * KIB]));
    let mut attack = JoinSet::new();
    for number in 0..16 {
        let body = if number % 2 == 0 { &long } else { &many };
        let key = "authorization: Basic a2V5Og==\r\n";
        let bytes = request("/v1/batch", "x", key, body.as_bytes());
        again_and_again(&mut attack, cohortd.public, bytes);
    }
    holds_under("shared contexts", cohortd, attack).await;
}

/// A batch whose first event was once signed, with a tail that costs many times its size when it is read.
async fn events_of_many_values_are_not_read_at_any_price() {
    let (_launchdarkly, _installation, cohortd) = start().await;
    let first = identify("ada", "vip", true, NOW_MS).to_string();
    let signature = sign(&Secret::new(SHARED_SECRET), first.as_bytes());
    let many = format!("{{\"a\":[{}0]}}", "0,".repeat(510 * KIB));
    let fewer = format!("{{\"a\":[{}0]}}", "0,".repeat(45_000));
    let one = format!("[{first},{},{}]", vec![many; 3].join(","), vec![fewer; 20].join(","));
    let tiny = format!("[{first}{}]", ",0".repeat(240_000));
    let mut attack = JoinSet::new();
    for number in 0..6 {
        let body = if number % 2 == 0 { &one } else { &tiny };
        let signed = format!("x-signature: {signature}\r\n");
        let bytes = request("/segment/production", "x", &signed, body.as_bytes());
        again_and_again(&mut attack, cohortd.public, bytes);
    }
    holds_under("events of many values", cohortd, attack).await;
}

/// One sender whose batches are refused event by event and kept, so that the ledger has more to write than it can
/// before the answer is due: what it holds counts too.
async fn rejected_events_wait_for_the_disk_in_bounded_memory() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("log.level", "info");
    let cohortd = installation.start(); // with the usual limits
    let first = identify("ada", "vip", true, NOW_MS).to_string();
    let signature = sign(&Secret::new(SHARED_SECRET), first.as_bytes());
    let mut attack = JoinSet::new();
    for (bytes, events) in [(60_000, 1900), (4_000, 24_000), (1, 200_000)] {
        let fill = "y".repeat(bytes);
        let rejected = json!({
            "type": "identify", "userId": "x", "fill": fill,
            "context": {"personas": {"computation_class": "audience"}},
        });
        let body = format!("[{first}{}]", format!(",{rejected}").repeat(events));
        let headers = format!("x-signature: {signature}\r\ncontent-encoding: gzip\r\n");
        let bytes = request("/segment/production", "x", &headers, &gzip([body.into_bytes()]));
        again_and_again(&mut attack, cohortd.public, bytes);
    }
    holds_within(USUAL_MOST_KIB, "rejected events", cohortd, attack).await;
}

/// Two senders of the largest bodies there may be, which take all the time and memory that there is for such.
async fn large_bodies_lock_small_ones_out_of_neither_memory_nor_time() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let first = identify("ada", "vip", true, NOW_MS).to_string();
    let signature = sign(&Secret::new(SHARED_SECRET), first.as_bytes());
    let values = format!(
        ",{{\"type\":\"identify\",\"userId\":\"u\",\"traits\":[{}1]}}",
        "1,".repeat(49_000)
    );
    let body =
        gzip([format!("[{first}"), values.repeat(1000), "]".to_owned()].map(String::into_bytes));
    let mut attack = JoinSet::new();
    for _ in 0..2 {
        let headers = format!("x-signature: {signature}\r\ncontent-encoding: gzip\r\n");
        let bytes = request("/segment/production", "x", &headers, &body);
        again_and_again(&mut attack, cohortd.public, bytes);
    }
    let mut refused = 0;
    let mut took = Vec::new();
    for number in 0..2 * BATCHES {
        let user = |n| format!("u{}", n + number * 10);
        let events: Vec<Value> =
            (0..1000).map(|n| identify(&user(n), "vip", true, NOW_MS)).collect();
        let began = Instant::now();
        let (status, _) = cohortd.post_batch(&events).await.expect("an answer");
        refused += usize::from(status != 200);
        took.push(began.elapsed());
    }
    attack.shutdown().await;
    took.sort_unstable();
    note!(
        "honest batches beside large ones: p99 of {:?}, {refused} refused",
        took[took.len() * 99 / 100]
    );
    assert_eq!(refused, 0);
    assert!(cohortd.stop().0.success());
}

/// Large bodies of which the last byte never comes, and pieces that keep the buffers they came in.
async fn bodies_that_stall_hold_what_the_budget_allows() {
    let (_launchdarkly, _installation, cohortd) = start().await;
    let mut attack = JoinSet::new();
    for number in 0..60 {
        let whole = webhook("", &vec![b' '; if number % 2 == 0 { 7 * MIB } else { 100 * KIB }]);
        again_and_again(&mut attack, cohortd.public, whole[..whole.len() - 1].to_vec());
    }
    // in chunks, so that nobody knows how much will come
    let signature = "0".repeat(40);
    let head = format!(
        "POST /segment/production HTTP/1.1\r\nhost: x\r\nx-signature: {signature}\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    let chunk = [b"ffff\r\n", &vec![b' '; 0xffff][..], b"\r\n"].concat();
    for _ in 0..20 {
        let bytes = [head.as_bytes(), &chunk.repeat(64)].concat();
        again_and_again(&mut attack, cohortd.public, bytes);
    }
    holds_under("bodies that stall", cohortd, attack).await;
}

/// Heads of a thousand fields in a byte each, of requests whose bodies do not come.
async fn many_headers_are_not_kept_while_a_body_is_awaited() {
    let (_launchdarkly, _installation, cohortd) = start().await;
    let signature = "0".repeat(40);
    let mut head = http2::head(0x83, "/segment/production", "x", &[("x-signature", &*signature)]);
    head.extend([0x40, 1, b'a', 1, b'b']); // from here on one byte
    head.extend([0xbe; 900]);
    let mut attack = JoinSet::new();
    for _ in 0..30 {
        let (to, head) = (cohortd.public, head.clone());
        attack.spawn(async move {
            let mut stream = http2::open(to, &[]).await;
            let mut bytes = Vec::new();
            for number in 0..32 {
                bytes.extend(http2::frame(HEADERS, END_HEADERS, 2 * number + 1, &head));
                bytes.extend(http2::frame(DATA, 0, 2 * number + 1, b"{"));
            }
            let _ = stream.write_all(&bytes).await;
            stay(stream).await;
        });
    }
    for _ in 0..60 {
        let fields: Vec<_> = (0..90).map(|n| format!("x-{n}: {}\r\n", "v".repeat(300))).collect();
        let fields = fields.concat();
        let whole = webhook(&fields, b"{}");
        again_and_again(&mut attack, cohortd.public, whole[..whole.len() - 1].to_vec());
    }
    holds_under("many headers", cohortd, attack).await;
}

/// What may be sent on a connection at first, and on each stream of it.
async fn windows(stream: &mut TcpStream) -> (usize, usize) {
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four")) as usize;
    let mut each = 0xffff;
    loop {
        let (kind, of, payload) = http2::next(stream).await;
        match kind {
            SETTINGS => {
                let found = payload.chunks(6).find(|setting| setting[..2] == [0, 4]);
                each = found.map_or(each, |setting| number(&setting[2..]));
                if each <= 64 * KIB {
                    return (0xffff, each); // what HTTP/2 begins with
                }
            }
            WINDOW_UPDATE if of == 0 => return (0xffff + number(&payload), each),
            _ => {}
        }
    }
}

/// A thousand connections, each with as much under way as it may send before anything is read: with little memory
/// all have narrow windows, and with the usual limits four have wide ones.
async fn a_thousand_http_2_connections_may_fill_their_windows() {
    let (_launchdarkly, _installation, cohortd) = start().await;
    let (attack, wide) = full_windows(cohortd.public).await;
    assert_eq!(wide, 0);
    holds_under("full narrow windows", cohortd, attack).await;

    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    let cohortd = installation.set("log.level", "info").start();
    let (attack, wide) = full_windows(cohortd.public).await;
    assert_eq!(wide, 4, "an eighth of what the budget is beyond one body, in windows of 4 MiB");
    holds_within(USUAL_MOST_KIB, "full windows", cohortd, attack).await;
}

/// Opens a thousand connections and fills their windows. Returns how many had wide ones.
async fn full_windows(to: SocketAddr) -> (JoinSet<()>, usize) {
    let signature = "0".repeat(40);
    let head = http2::head(0x83, "/segment/production", "x", &[("x-signature", &*signature)]);
    let mut attack = JoinSet::new();
    let (opened, mut all_opened) = tokio::sync::mpsc::channel(1000);
    for _ in 0..1000 {
        let (head, opened) = (head.clone(), opened.clone());
        attack.spawn(async move {
            let mut stream = http2::open(to, &[]).await;
            let (mut left, each) = windows(&mut stream).await;
            let _ = opened.send(left > MIB).await;
            drop(opened);
            let mut bytes = Vec::new();
            for number in (1..).step_by(2) {
                bytes.extend(http2::frame(HEADERS, END_HEADERS, number, &head));
                let body = vec![b' '; left.min(each)];
                for piece in body.chunks(16 * KIB) {
                    bytes.extend(http2::frame(DATA, 0, number, piece));
                }
                left -= body.len();
                if left == 0 {
                    break;
                }
            }
            let _ = stream.write_all(&bytes).await; // it may have to make way
            stay(stream).await;
        });
    }
    drop(opened);
    let (mut open, mut wide) = (0, 0);
    while let Some(is_wide) = timeout(DEADLINE, all_opened.recv()).await.expect("all are let in") {
        open += 1;
        wide += usize::from(is_wide);
    }
    assert_eq!(open, 1000);
    (attack, wide)
}

/// Reads whatever comes, without an end.
async fn stay(mut stream: TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new()).await;
    std::future::pending::<()>().await;
}

/// Whoever sends frames that have to be answered, and reads no answer, keeps nobody else waiting.
async fn floods_of_control_frames_starve_nobody() {
    for (name, frame) in [
        ("pings", http2::frame(http2::PING, 0, 0, b"12345678")),
        ("settings", http2::frame(http2::SETTINGS, 0, 0, &[])),
    ] {
        let (_launchdarkly, _installation, cohortd) = start().await;
        let (mut attack, to) = (JoinSet::new(), cohortd.public);
        let many: Arc<[u8]> = frame.repeat(4000).into();
        for _ in 0..50 {
            let many = Arc::clone(&many);
            attack.spawn(async move {
                loop {
                    let mut stream = http2::open(to, &[]).await;
                    while let Ok(Ok(())) = timeout(DEADLINE, stream.write_all(&many)).await {}
                }
            });
        }
        holds_under(name, cohortd, attack).await;
    }
}

/// Without a write key there is no Tracking API: that is said before a body is awaited.
/// Events as large as the admin API reads, all at once: two are worked on at a time.
async fn events_that_are_explained_take_turns() {
    let (_launchdarkly, _installation, cohortd) = start().await;
    let mut attack = JoinSet::new();
    let path = "/api/v1/destinations/production/explain";
    let mut long = identify("ada", "vip", true, NOW_MS);
    long["traits"]["email"] = json!("x".repeat(MIB - KIB));
    let mut many = identify("ada", "vip", true, NOW_MS);
    many["traits"]["values"] = json!(vec![json!({"a": 1}); 16_000]);
    let too_long = format!("{{\"a\":\"{}\"}}", "x".repeat(2 * MIB - KIB));
    let all = [(long.to_string(), "200"), (many.to_string(), "200"), (too_long, "413")];
    let all = all.map(|(body, expected)| {
        let kind = "content-type: application/json\r\n";
        (request(path, "localhost", kind, body.as_bytes()), expected)
    });
    for (bytes, expected) in &all {
        let first = answer(cohortd.admin, bytes).await;
        assert!(first.starts_with(&format!("HTTP/1.1 {expected}")), "{first:.200}");
    }
    for (bytes, _) in all {
        (0..80).for_each(|_| again_and_again(&mut attack, cohortd.admin, bytes.clone()));
    }
    holds_under("explained events", cohortd, attack).await;
}

async fn answer(to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).await.expect("it listens");
    stream.write_all(bytes).await.expect("it reads");
    let mut answer = Vec::new();
    let read = timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
    read.expect("an answer").expect("it is whole");
    String::from_utf8(answer).expect("text")
}

async fn the_tracking_api_without_a_key_is_not_there() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    let answers = async |cohortd: &Cohortd| {
        let mut statuses = Vec::new();
        for path in ["/v1/batch", "/v1/import", "/v1/identify"] {
            let mut stream = TcpStream::connect(cohortd.public).await.expect("it listens");
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.expect("sent");
            let mut status = [0; 12];
            let read = timeout(DEADLINE, stream.read_exact(&mut status)).await;
            read.expect("the body is not awaited").expect("an answer");
            statuses.push(String::from_utf8_lossy(&status).into_owned());
        }
        statuses
    };
    let cohortd = installation.start();
    assert_eq!(answers(&cohortd).await, ["HTTP/1.1 404"; 3]);
    assert!(cohortd.stop().0.success());
    installation.set("destinations.production.segment.write_keys", "key");
    let cohortd = installation.start();
    assert_eq!(answers(&cohortd).await, ["HTTP/1.1 100"; 3], "the key may be in the body");
    assert!(cohortd.stop().0.success());
}

tests![
    a_hundred_bytes_in_any_encoding_cost_no_more_than_they_are,
    gzip_bombs_are_not_unpacked_for_strangers,
    what_a_batch_shares_is_counted_as_often_as_it_is_copied,
    events_of_many_values_are_not_read_at_any_price,
    rejected_events_wait_for_the_disk_in_bounded_memory,
    large_bodies_lock_small_ones_out_of_neither_memory_nor_time,
    bodies_that_stall_hold_what_the_budget_allows,
    many_headers_are_not_kept_while_a_body_is_awaited,
    a_thousand_http_2_connections_may_fill_their_windows,
    floods_of_control_frames_starve_nobody,
    events_that_are_explained_take_turns.workers(4),
    the_tracking_api_without_a_key_is_not_there,
];
