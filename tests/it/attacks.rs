//! Attacks by strangers on the public listener (P5, P6): probes are answered within a second throughout,
//! memory stays bounded, and nothing panics. Over HTTP/2: http2.rs; over TLS: tls.rs.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cohortd::sandbox::sign;
use cohortd::secret::Secret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::harness::{Cohortd, DEADLINE, Installation, SHARED_SECRET, identify, launchdarkly};
use crate::needs::SH;

const NOW_MS: i64 = 1_750_000_000_000;
pub const SOON: Duration = Duration::from_secs(1);
const MOST_KIB: u64 = 160 * 1024;

pub async fn connect(to: SocketAddr) -> TcpStream {
    timeout(DEADLINE, TcpStream::connect(to)).await.expect("in time").expect("it listens")
}

/// Sends bytes and reads what comes until the other side closes.
pub async fn exchange(to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(to).await;
    // The connection may be closed before everything is sent, which is an answer too.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("it is closed");
    String::from_utf8_lossy(&answer).into_owned()
}

pub async fn probe(cohortd: &Cohortd) {
    let began = Instant::now();
    let request = b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = exchange(cohortd.public, request).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(began.elapsed() < SOON, "the probe took {:?}", began.elapsed());
}

pub fn post(body: &str, headers: &str) -> Vec<u8> {
    let signature = sign(&Secret::new(SHARED_SECRET), body.as_bytes());
    format!(
        "POST /segment/production HTTP/1.1\r\nhost: x\r\nx-signature: {signature}\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

pub fn ends_well(cohortd: Cohortd) {
    let peak = cohortd.memory_kib("VmHWM:");
    note!("peak of {peak} KiB, of {MOST_KIB} allowed");
    assert!(peak < MOST_KIB, "{peak} KiB");
    let (status, log) = cohortd.stop();
    assert!(status.success());
    assert!(!log.iter().any(|line| line.contains("panic")), "{}", log.join("\n"));
}

async fn ten_thousand_idle_connections_lock_nobody_out() {
    const IDLE: u64 = 10_000;
    // This process holds the other end of each connection.
    let nofile = rustix::process::Resource::Nofile;
    let mut limit = rustix::process::getrlimit(nofile);
    limit.current = limit.maximum;
    rustix::process::setrlimit(nofile, limit).expect("up to the maximum it may");
    let idle_ones = limit.maximum.map_or(IDLE, |most| IDLE.min(most.saturating_sub(1000)));
    if idle_ones < IDLE {
        note!("ONLY {idle_ones} IDLE CONNECTIONS: the system lets this process open no more files");
    }
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("listen.header_timeout_ms", "60000");
    let cohortd = installation.start();
    let beginning = format!("POST /segment/production HTTP/1.1\r\nx-a: {}", "a".repeat(6000));
    let mut idle = Vec::new();
    for number in 0..idle_ones {
        let mut stream = connect(cohortd.public).await;
        if number % 2 == 0 {
            let _ = stream.write_all(beginning.as_bytes()).await;
        }
        idle.push(stream);
        if number % 2000 == 1999 {
            probe(&cohortd).await;
        }
    }
    let (status, _) = cohortd.post(&identify("ada", "vip", true, NOW_MS)).await.expect("an answer");
    assert_eq!(status, 200);
    probe(&cohortd).await;
    drop(idle);
    ends_well(cohortd);
}

async fn whoever_sends_a_byte_now_and_then_is_not_awaited_for_long() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("listen.header_timeout_ms", "400").set("listen.body_timeout_ms", "400");
    let cohortd = installation.start();
    let slow = |beginning: &'static str| {
        let to = cohortd.public;
        tokio::spawn(async move {
            let mut stream = connect(to).await;
            let _ = stream.write_all(beginning.as_bytes()).await;
            let began = Instant::now();
            while stream.write_all(b"x").await.is_ok() {
                assert!(began.elapsed() < DEADLINE, "it waits for ever");
                tokio::time::sleep(Duration::from_millis(50)).await; // the pace is the attack
            }
        })
    };
    let signature = "x-signature: 09b3c51a6fa938cf8a28618c0b986b773b65d871\r\n";
    let body: &'static str = Box::leak(
        format!(
            "POST /segment/production HTTP/1.1\r\nhost: x\r\n{signature}content-length: 9999\r\n\r\n{{"
        )
        .into_boxed_str(),
    );
    let mut slow_ones = Vec::new();
    for _ in 0..100 {
        slow_ones.push(slow("GET / HTTP/1.1\r\nhost: x\r\nx-a: "));
        slow_ones.push(slow(body));
    }
    probe(&cohortd).await;
    for one in slow_ones {
        timeout(DEADLINE, one).await.expect("it was cut off").expect("no panic");
    }
    probe(&cohortd).await;
    ends_well(cohortd);
}

async fn deep_json_and_long_heads_cost_an_answer_and_nothing_else() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("destinations.production.segment.write_keys", "key");
    let cohortd = installation.start();
    for depth in [100, 100_000] {
        for (open, close) in [("[", "]"), ("{\"type\":\"page\",\"a\":", "}")] {
            let body = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let length = format!("content-length: {}\r\nconnection: close\r\n", body.len());
            let answer = exchange(cohortd.public, &post(&body, &length)).await;
            let status = if depth == 100 && open != "[" { "200" } else { "400" };
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{depth} deep: {answer}");
            probe(&cohortd).await;
        }
    }
    // here the body is read as a whole
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    for (path, body, status) in [
        ("/v1/batch", format!("{{\"batch\":[{deep}]}}"), "200"),
        ("/v1/identify", format!("{{\"traits\":{deep}}}"), "400"),
        ("/segment/production/audiences/create", deep[72_000..128_000].to_owned(), "400"),
    ] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Basic a2V5Og==\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let answer = exchange(cohortd.public, (head + &body).as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        probe(&cohortd).await;
    }
    let long = format!("GET /livez HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "a".repeat(1 << 20));
    let answer = exchange(cohortd.public, long.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let path = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(1 << 20));
    let answer = exchange(cohortd.public, path.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    probe(&cohortd).await;
    ends_well(cohortd);
}

async fn odd_ways_to_send_a_good_request_are_answered() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let body = identify("ada", "vip", true, NOW_MS).to_string();
    let length = format!("content-length: {}\r\n", body.len());
    let last = format!("{length}connection: close\r\n");

    // Half closed: the request is complete, and its answer is still expected.
    let mut stream = connect(cohortd.public).await;
    stream.write_all(&post(&body, &last)).await.expect("sent");
    stream.shutdown().await.expect("half closed");
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await.expect("in time").expect("text");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    // Two pipelined requests.
    let both = [post(&body, &length), post(&body, &last)].concat();
    let answers = exchange(cohortd.public, &both).await;
    assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 2, "{answers}");

    // The client waits for `100 Continue` before it sends the body.
    let mut stream = connect(cohortd.public).await;
    let whole = post(&body, &format!("{last}expect: 100-continue\r\n"));
    let (head, rest) = whole.split_at(whole.len() - body.len());
    stream.write_all(head).await.expect("sent");
    let mut leave = [0; 25];
    timeout(DEADLINE, stream.read_exact(&mut leave)).await.expect("in time").expect("leave");
    assert!(leave.starts_with(b"HTTP/1.1 100 Continue"));
    stream.write_all(rest).await.expect("sent");
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await.expect("in time").expect("text");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    ends_well(cohortd);
}

/// A client that keeps sending requests and reads no answer.
async fn who_asks_without_end_and_reads_nothing_is_cut_off() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("listen.body_timeout_ms", "2000");
    let cohortd = installation.start();
    let many = "GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1000);
    let mut stream = connect(cohortd.public).await;
    let began = Instant::now();
    loop {
        let sent = timeout(DEADLINE, stream.write_all(many.as_bytes())).await;
        if sent.expect("neither taken nor cut off").is_err() {
            break;
        }
        assert!(began.elapsed() < DEADLINE, "it is borne for ever");
    }
    probe(&cohortd).await;
    ends_well(cohortd);
}

/// Bodies with a signature must be read before it can be verified, so strangers can make the daemon wait
/// for them too.
async fn bodies_that_are_announced_and_do_not_come_lock_nobody_out() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation
        .set("listen.body_limit_mib", "1")
        .set("listen.body_budget_mib", "4")
        .set("listen.max_requests", "20");
    let cohortd = installation.start();
    let megabyte = 1024 * 1024;
    let head = format!(
        "POST /segment/production HTTP/1.1\r\nhost: x\r\nx-signature: {}\r\n\
         content-length: {megabyte}\r\n\r\n",
        "0".repeat(40)
    );
    let mut stalled = Vec::new();
    for number in 0..60 {
        let mut stream = connect(cohortd.public).await;
        // every other sends all but the last byte
        let sent = if number % 2 == 0 { 1 } else { megabyte - 1 };
        let bytes = [head.as_bytes(), &vec![b' '; sent]].concat();
        let _ = timeout(DEADLINE, stream.write_all(&bytes)).await.expect("it is read");
        stalled.push(stream);
        if number % 5 == 4 {
            let event = identify("ada", "vip", true, NOW_MS);
            let (status, answer) = cohortd.post(&event).await.expect("an answer");
            assert_eq!(status, 200, "{answer}");
            probe(&cohortd).await;
        }
    }
    drop(stalled);
    ends_well(cohortd);
}

/// A stranger posts a quarter of a gigabyte, compressed to a few hundred kilobytes, in each encoding, ten
/// at once.
async fn bombs_of_each_encoding_are_refused_and_hold_up_nobody() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("listen.body_limit_mib", "16").set("listen.body_budget_mib", "32");
    let cohortd = installation.start();
    for (encoding, bomb, status) in bombs() {
        note!("{encoding}: {} bytes", bomb.len());
        let head = format!(
            "POST /segment/production HTTP/1.1\r\nhost: x\r\nx-signature: {}\r\n\
             content-encoding: {encoding}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            "0".repeat(40),
            bomb.len()
        );
        let request = [head.as_bytes(), &bomb].concat();
        let mut thrown = JoinSet::new();
        for _ in 0..10 {
            let (to, request) = (cohortd.public, request.clone());
            thrown.spawn(async move { exchange(to, &request).await });
        }
        while !thrown.is_empty() {
            tokio::select! { // a cancelled probe starts again
                Some(answer) = thrown.join_next() => {
                    let answer = answer.expect("no panic");
                    // one that was evicted in favour of another gets an answer
                    let is = |status: u16| answer.starts_with(&format!("HTTP/1.1 {status} "));
                    assert!(is(status) || is(503), "{encoding}: {answer}");
                }
                () = probe(&cohortd) => {}
            }
        }
    }
    ends_well(cohortd);
}

/// Compressed endless spaces in each encoding, with the expected status.
fn bombs() -> [(&'static str, Vec<u8>, u16); 2] {
    let spaces = vec![b' '; 1 << 20];
    let filled = |writer: &mut dyn Write| {
        for _ in 0..256 {
            writer.write_all(&spaces).expect("memory takes it");
        }
    };
    let (mut gzip, mut deflate) = (Vec::new(), Vec::new());
    let fast = flate2::Compression::fast();
    let mut writer = flate2::write::GzEncoder::new(&mut gzip, fast);
    filled(&mut writer);
    drop(writer);
    let mut writer = flate2::write::ZlibEncoder::new(&mut deflate, fast);
    filled(&mut writer);
    drop(writer);
    [("gzip", gzip, 413), ("deflate", deflate, 413)]
}

/// If few files may be open, idle connections must not use them up.
async fn few_open_files_are_enough_for_those_that_ask_something() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("listen.header_timeout_ms", "60000");
    let limited = ["sh", "-c", "ulimit -n 256; exec \"$@\"", "sh"];
    let cohortd = installation.start_as(installation.wrapped(&limited));
    let mut idle = Vec::new();
    for number in 0..1000 {
        idle.push(connect(cohortd.public).await);
        if number % 200 == 199 {
            probe(&cohortd).await;
        }
    }
    let (status, _) = cohortd.post(&identify("ada", "vip", true, NOW_MS)).await.expect("an answer");
    assert_eq!(status, 200);
    assert_eq!(cohortd.readyz().await, Some(200), "on the admin listener");
    installation.drained().await;
    drop(idle);
    ends_well(cohortd);
}

/// Request smuggling: a proxy in front and the daemon must agree on where a request ends.
async fn what_hides_behind_a_request_with_two_ends_is_never_taken() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let hidden = "GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    for headers in [
        format!("content-length: {}\r\ntransfer-encoding: chunked\r\n", 5 + hidden.len()),
        format!("transfer-encoding: chunked\r\ncontent-length: {}\r\n", 5 + hidden.len()),
        "content-length: 5\r\ncontent-length: 6\r\n".to_owned(),
        "transfer-encoding: chunked, identity\r\n".to_owned(),
        "content-length: +5\r\n".to_owned(),
        "content-length: 5, 6\r\n".to_owned(),
        "content-length: 0x5\r\n".to_owned(),
        "content-length: -5\r\n".to_owned(),
        "transfer-encoding: xchunked\r\n".to_owned(),
        "transfer-encoding: identity\r\n".to_owned(),
        "transfer-encoding : chunked\r\n".to_owned(),
        "transfer-encoding\t: chunked\r\n".to_owned(),
        "transfer-encoding:\u{b}chunked\r\n".to_owned(),
        "x: y\r\n transfer-encoding: chunked\r\n".to_owned(),
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n".to_owned(),
        "transfer-encoding: identity\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n"
            .to_owned(),
        "content-length: 5\rtransfer-encoding: chunked\r\n".to_owned(),
    ] {
        let head = format!("POST /segment/production HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        let answer = exchange(cohortd.public, format!("{head}0\r\n\r\n{hidden}").as_bytes()).await;
        // Whatever the answer, nothing behind the request is read: the connection is closed.
        assert!(answer.starts_with("HTTP/1.1 40"), "{headers}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{headers}: {answer}");
    }
    ends_well(cohortd);
}

tests![
    ten_thousand_idle_connections_lock_nobody_out,
    whoever_sends_a_byte_now_and_then_is_not_awaited_for_long,
    deep_json_and_long_heads_cost_an_answer_and_nothing_else,
    odd_ways_to_send_a_good_request_are_answered,
    who_asks_without_end_and_reads_nothing_is_cut_off,
    bodies_that_are_announced_and_do_not_come_lock_nobody_out,
    bombs_of_each_encoding_are_refused_and_hold_up_nobody,
    few_open_files_are_enough_for_those_that_ask_something.needs(&SH),
    what_hides_behind_a_request_with_two_ends_is_never_taken,
];
