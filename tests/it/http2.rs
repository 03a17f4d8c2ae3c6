//! HTTP/2 without TLS, with prior knowledge, and attacks over it (P5, P6). The frames are written by hand,
//! since no client would send them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cohortd::sandbox::StandIn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::attacks::{connect, ends_well, probe};
use crate::harness::{Cohortd, DEADLINE, Installation, launchdarkly};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
const GO_AWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// The connection preface, with an empty SETTINGS frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short one").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The header block of a request, in HPACK without the dynamic table: method by its index, scheme, path,
/// authority.
pub fn head(method: u8, path: &str, authority: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    fn text(block: &mut Vec<u8>, text: &str) {
        block.push(u8::try_from(text.len()).expect("a short one"));
        block.extend(text.as_bytes());
    }
    let mut block = vec![method, 0x86, 0x04];
    text(&mut block, path);
    block.push(0x01);
    text(&mut block, authority);
    for (name, value) in headers {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

fn get(path: &str) -> Vec<u8> {
    head(0x82, path, "x", &[])
}

/// A POST whose signature is well-formed, so that its body is awaited.
fn post() -> Vec<u8> {
    let signature = "09b3c51a6fa938cf8a28618c0b986b773b65d871";
    head(0x83, "/segment/production", "x", &[("x-signature", signature)])
}

pub async fn open(to: SocketAddr, settings: &[u8]) -> TcpStream {
    let mut stream = connect(to).await;
    let start = [&PREFACE[..24], &frame(SETTINGS, 0, 0, settings)].concat();
    stream.write_all(&start).await.expect("it listens");
    stream
}

type Frame = (u8, u32, Vec<u8>);

/// Reads the next frame.
pub async fn next(stream: &mut TcpStream) -> Frame {
    let reading = async {
        let mut start = [0; 9];
        stream.read_exact(&mut start).await.expect("it is open");
        let [a, b, c, kind, _, s0, s1, s2, s3] = start;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).await.expect("it is open");
        (kind, u32::from_be_bytes([s0, s1, s2, s3]), payload)
    };
    timeout(DEADLINE, reading).await.expect("a frame comes")
}

/// Requests `/livez` on this stream, and reads up to the header of the answer.
async fn lives(stream: &mut TcpStream, number: u32) {
    let asked = frame(HEADERS, END_STREAM | END_HEADERS, number, &get("/livez"));
    stream.write_all(&asked).await.expect("it is open");
    loop {
        match next(stream).await {
            (GO_AWAY, _, said) => panic!("it is told to go: {}", String::from_utf8_lossy(&said)),
            (HEADERS, of, block) if of == number => return assert_eq!(block[0], 0x88),
            _ => {}
        }
    }
}

/// All frames until the connection is closed: kind, stream, payload.
async fn until_closed(mut stream: TcpStream) -> Vec<Frame> {
    let mut bytes = Vec::new();
    // a reset ends it too
    let _ = timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.expect("it is closed");
    let mut frames = Vec::new();
    let mut rest = &bytes[..];
    while let [a, b, c, kind, _, s0, s1, s2, s3, after @ ..] = rest {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let (payload, next) = after.split_at(length.min(after.len()));
        frames.push((*kind, u32::from_be_bytes([*s0, *s1, *s2, *s3]), payload.to_vec()));
        rest = next;
    }
    frames
}

/// Writes until the connection is closed, or `most` times. Returns whether it was closed.
async fn flood(stream: &mut TcpStream, bytes: &[u8], most: usize) -> bool {
    for _ in 0..most {
        let sent = timeout(DEADLINE, stream.write_all(bytes)).await;
        if sent.expect("neither taken nor cut off").is_err() {
            return true;
        }
    }
    false
}

async fn start(set: impl FnOnce(&mut Installation)) -> (StandIn, Installation, Cohortd) {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    set(&mut installation);
    let cohortd = installation.start();
    (launchdarkly, installation, cohortd)
}

async fn http_2_is_known_by_its_preface_on_both_listeners() {
    let (_launchdarkly, _installation, cohortd) =
        start(|i| _ = i.set("listen.idle_timeout_ms", "500")).await;
    for to in [cohortd.public, cohortd.admin] {
        let mut stream = open(to, &[]).await;
        let localhost = head(0x82, "/readyz", "localhost", &[]);
        let requests = [1, 3, 5].map(|s| frame(HEADERS, END_STREAM | END_HEADERS, s, &localhost));
        stream.write_all(&requests.concat()).await.expect("it is open");
        // It makes no further request, so the server says goodbye.
        let frames = until_closed(stream).await;
        for number in [1, 3, 5] {
            // 0x88 is `:status: 200`
            let good = |(kind, stream, payload): &Frame| {
                *kind == HEADERS && *stream == number && payload[0] == 0x88
            };
            assert!(frames.iter().any(good), "{frames:?}");
        }
        assert!(frames.iter().any(|(kind, ..)| *kind == GO_AWAY), "{frames:?}");
        // MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_HEADER_LIST_SIZE, which bound a connection's
        // cost
        let (_, _, settings) = &frames[0];
        let window = if to == cohortd.public { 1 << 20 } else { 64 << 10 };
        for (setting, value) in [(3, 128_u32), (4, window), (6, 32 << 10)] {
            let expected = [&[0, setting][..], &value.to_be_bytes()].concat();
            assert!(settings.chunks(6).any(|chunk| chunk == expected), "{settings:?}");
        }
    }
    ends_well(cohortd);
}

/// Clients start a hundred requests before they have read how many are allowed. Proxies cancel as many at
/// once when their own clients disconnect.
async fn a_hundred_requests_at_once_are_all_answered_and_may_all_be_called_off() {
    let (_launchdarkly, _installation, cohortd) = start(|_| ()).await;
    let mut stream = open(cohortd.public, &[]).await;
    let numbers = |from: u32| (from..from + 200).step_by(2);
    let asked: Vec<u8> = numbers(1)
        .flat_map(|number| frame(HEADERS, END_STREAM | END_HEADERS, number, &get("/livez")))
        .collect();
    stream.write_all(&asked).await.expect("it is open");
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < 100 {
        match next(&mut stream).await {
            (HEADERS, number, block) => {
                assert_eq!(block[0], 0x88, "{number}");
                answered.insert(number);
            }
            (kind, number, _) => assert!(kind != RESET && kind != GO_AWAY, "{kind} {number}"),
        }
    }
    let called_off: Vec<u8> = numbers(301)
        .map(|number| frame(HEADERS, END_HEADERS, number, &post()))
        .chain(numbers(301).map(|number| frame(RESET, 0, number, &8_u32.to_be_bytes())))
        .flatten()
        .collect();
    stream.write_all(&called_off).await.expect("it is open");
    lives(&mut stream, 501).await;
    let (status, log) = cohortd.stop();
    assert!(status.success());
    assert!(!log.iter().any(|line| line.contains("h2::")), "{}", log.join("\n"));
}

/// Many connections, each with as many requests in flight as allowed, whose answers are not read: what they
/// hold in memory is bounded for all of them together.
async fn requests_on_many_connections_are_bounded_together() {
    let (_launchdarkly, _installation, cohortd) =
        start(|i| _ = i.set("listen.max_connections", "100")).await;
    // no stream may carry a byte of an answer
    let shut = [0, 4, 0, 0, 0, 0];
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut stream = open(cohortd.public, &shut).await;
        let requests: Vec<u8> = (0..100)
            .flat_map(|n| frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &get("/nowhere")))
            .collect();
        // the connection may be closed meanwhile
        let _ = stream.write_all(&requests).await;
        stalled.push(tokio::spawn(until_closed(stream)));
    }
    let first_gone = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        while !stalled.iter().any(tokio::task::JoinHandle::is_finished) {
            ticks.tick().await;
        }
    };
    timeout(Duration::from_secs(20), first_gone)
        .await
        .expect("long before an answer has to be taken");
    // a modest client is not affected
    for _ in 0..20 {
        let mut stream = open(cohortd.public, &[]).await;
        lives(&mut stream, 1).await;
    }
    ends_well(cohortd);
    for one in stalled {
        one.await.expect("it is closed");
    }
}

async fn who_resets_what_it_has_asked_for_is_cut_off() {
    let (_launchdarkly, _installation, cohortd) = start(|_| ()).await;
    for block in [get("/readyz"), post()] {
        let mut stream = open(cohortd.public, &[]).await;
        let mut is_cut = false;
        for number in (1..200_000_u32).step_by(2) {
            let flags = END_HEADERS | if block == post() { 0 } else { END_STREAM };
            let both = [
                frame(HEADERS, flags, number, &block),
                frame(RESET, 0, number, &8_u32.to_be_bytes()),
            ];
            if flood(&mut stream, &both.concat(), 1).await {
                is_cut = true;
                break;
            }
            if number % 20_001 == 0 {
                probe(&cohortd).await;
            }
        }
        let frames = until_closed(stream).await;
        let said = frames.iter().any(|(kind, ..)| *kind == GO_AWAY);
        assert!(is_cut || said, "a hundred thousand resets are borne");
        probe(&cohortd).await;
    }
    let lines = cohortd.log();
    assert!(
        !lines.iter().any(|line| line.contains("h2::")),
        "a line for each connection: {lines:?}"
    );
    ends_well(cohortd);
}

async fn a_head_without_end_is_not_read_for_long() {
    let (_launchdarkly, _installation, cohortd) =
        start(|i| _ = i.set("listen.header_timeout_ms", "1000")).await;
    // endless CONTINUATION frames of one header, full or empty
    for payload in [vec![0x82; 16_000], Vec::new()] {
        let mut stream = open(cohortd.public, &[]).await;
        stream.write_all(&frame(HEADERS, END_STREAM, 1, &get("/livez"))).await.expect("sent");
        let more = frame(CONTINUATION, 0, 1, &payload);
        let is_cut = flood(&mut stream, &more, 100_000).await;
        assert!(is_cut, "{} bytes at a time", payload.len());
        probe(&cohortd).await;
    }
    // nothing follows at all
    let mut stream = open(cohortd.public, &[]).await;
    stream.write_all(&frame(HEADERS, END_STREAM, 1, &get("/livez"))).await.expect("sent");
    until_closed(stream).await;
    ends_well(cohortd);
}

/// HPACK bomb: one long field in the dynamic table, and requests that refer to it again and again, in a
/// byte each.
async fn a_few_bytes_do_not_unpack_to_many() {
    let (_launchdarkly, _installation, cohortd) =
        start(|i| _ = i.set("listen.idle_timeout_ms", "1000")).await;
    let mut bombs = Vec::new();
    for _ in 0..20 {
        let mut stream = open(cohortd.public, &[]).await;
        let mut block = get("/livez");
        // with incremental indexing: name "a", a value of 3,900 bytes (127 and two bytes more)
        block.extend([0x40, 1, b'a', 0x7f, 0xbd, 0x1d]);
        block.extend([b'v'; 3900]);
        let first = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block);
        stream.write_all(&first).await.expect("sent");
        let mut again = get("/livez");
        again.extend([0xbe; 12_000]); // the newest entry of the dynamic table
        let mut number = 3;
        while !flood(&mut stream, &frame(HEADERS, END_STREAM | END_HEADERS, number, &again), 1)
            .await
        {
            number += 2;
            if number > 400 {
                break;
            }
        }
        bombs.push(stream);
    }
    probe(&cohortd).await;
    drop(bombs);
    ends_well(cohortd);
}

async fn who_takes_no_answer_is_cut_off() {
    let (_launchdarkly, _installation, cohortd) = start(|i| {
        i.set("listen.body_timeout_ms", "2000");
    })
    .await;
    // SETTINGS_INITIAL_WINDOW_SIZE of 0: no stream may carry a byte
    let shut = [0, 4, 0, 0, 0, 0];
    let mut stalled = Vec::new();
    for _ in 0..200 {
        let mut stream = open(cohortd.public, &shut).await;
        let requests: Vec<u8> = (0..32)
            .flat_map(|n| frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &get("/nowhere")))
            .collect();
        stream.write_all(&requests).await.expect("it is open");
        stalled.push(stream);
    }
    probe(&cohortd).await;
    let began = Instant::now();
    for stream in stalled {
        let frames = until_closed(stream).await;
        assert!(!frames.iter().any(|(kind, ..)| *kind == DATA), "no byte was asked for");
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    probe(&cohortd).await;
    ends_well(cohortd);
}

/// Bodies with plausible credentials never arrive; others that do arrive are accepted all the same.
async fn bodies_that_do_not_come_take_no_place_from_those_that_do() {
    let (_launchdarkly, _installation, cohortd) =
        start(|i| _ = i.set("listen.max_requests", "50")).await;
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut stream = open(cohortd.public, &[]).await;
        let requests: Vec<u8> = (0..32)
            .flat_map(|n| {
                let number = 2 * n + 1;
                [
                    frame(HEADERS, END_HEADERS, number, &post()),
                    frame(DATA, 0, number, b"{\"type\":"),
                ]
                .concat()
            })
            .collect();
        stream.write_all(&requests).await.expect("it is open");
        stalled.push(stream);
        let event = crate::harness::identify("ada", "vip", true, 1_750_000_000_000);
        let (status, answer) = cohortd.post(&event).await.expect("an answer");
        assert_eq!(status, 200, "{answer}");
    }
    probe(&cohortd).await;
    ends_well(cohortd);
}

async fn who_asks_for_signs_of_life_and_reads_none_is_cut_off() {
    let (_launchdarkly, _installation, cohortd) = start(|i| {
        i.set("listen.header_timeout_ms", "2000").set("listen.body_timeout_ms", "2000");
    })
    .await;
    for frame in [frame(PING, 0, 0, b"12345678"), frame(SETTINGS, 0, 0, &[])] {
        let mut stream = open(cohortd.public, &[]).await;
        let many = frame.repeat(1000);
        let began = Instant::now();
        while !flood(&mut stream, &many, 100).await {
            assert!(began.elapsed() < DEADLINE, "it is borne for ever");
        }
        probe(&cohortd).await;
    }
    ends_well(cohortd);
}

/// Closing an HTTP/2 connection waits for the client, and some clients never respond.
async fn a_stop_does_not_wait_for_those_who_have_nothing_to_ask() {
    let (_launchdarkly, _installation, cohortd) = start(|_| ()).await;
    let mut silent = open(cohortd.public, &[]).await;
    let request = frame(HEADERS, END_STREAM | END_HEADERS, 1, &get("/readyz"));
    silent.write_all(&request).await.expect("it is open");
    let half = connect(cohortd.public).await;
    probe(&cohortd).await;
    let began = Instant::now();
    ends_well(cohortd);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop((silent, half));
}

tests![
    http_2_is_known_by_its_preface_on_both_listeners,
    a_hundred_requests_at_once_are_all_answered_and_may_all_be_called_off,
    requests_on_many_connections_are_bounded_together,
    who_resets_what_it_has_asked_for_is_cut_off,
    a_head_without_end_is_not_read_for_long,
    a_few_bytes_do_not_unpack_to_many,
    who_takes_no_answer_is_cut_off,
    bodies_that_do_not_come_take_no_place_from_those_that_do,
    who_asks_for_signs_of_life_and_reads_none_is_cut_off,
    a_stop_does_not_wait_for_those_who_have_nothing_to_ask,
];
