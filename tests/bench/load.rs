//! The load generator: HTTP/1.1 by hand, because a client library would cost more than the daemon.
//!
//! Each connection sends the next request of the list as soon as its last one is answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Requests that are sent once each, in this order.
pub type Requests = Arc<[Request]>;

/// A request as it goes over the wire, and how its answer must begin.
pub struct Request {
    bytes: Vec<u8>,
    answer: String,
}

/// `POST /segment/production`, of which every event is to be accepted.
pub fn request(signature: &str, body: &[u8], events: u32) -> Request {
    let head = format!(
        "POST /segment/production HTTP/1.1\r\nhost: cohortd\r\ncontent-type: application/json\r\n\
         x-signature: {signature}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let answer = accepted(events);
    Request { bytes: [head.as_bytes(), body].concat(), answer }
}

/// How the answer to a request begins.
pub fn accepted(events: u32) -> String {
    format!("{{\"accepted\":{events},")
}

/// What became of a list of requests.
pub struct Load {
    elapsed: Duration,
    /// Shortest first.
    latencies: Vec<Duration>,
}

impl Load {
    /// `events`: of all requests.
    pub fn per_second(&self, events: u32) -> f64 {
        f64::from(events) / self.elapsed.as_secs_f64()
    }

    /// `percent` of the answers took no longer.
    pub fn percentile(&self, percent: usize) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((last * percent).div_ceil(100)).copied().unwrap_or_default()
    }
}

/// Sends every request over `connections` connections, which are opened before the clock starts.
pub async fn run(address: SocketAddr, requests: Requests, connections: usize) -> Load {
    let next = Arc::new(AtomicUsize::new(0));
    let mut streams = Vec::with_capacity(connections);
    for _ in 0..connections {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("a TCP stream");
        streams.push(stream);
    }
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for stream in streams {
        tasks.spawn(converse(stream, Requests::clone(&requests), Arc::clone(&next)));
    }
    let mut latencies = tasks.join_all().await.concat();
    let elapsed = began.elapsed();
    latencies.sort_unstable();
    Load { elapsed, latencies }
}

async fn converse(
    mut stream: TcpStream,
    requests: Requests,
    next: Arc<AtomicUsize>,
) -> Vec<Duration> {
    let mut latencies = Vec::new();
    let mut answer = Vec::with_capacity(4096);
    while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
        let sent = Instant::now();
        stream.write_all(&request.bytes).await.expect("the server reads");
        answer.clear();
        let body = loop {
            let read = stream.read_buf(&mut answer).await.expect("the server answers");
            assert!(read > 0, "the server closed the connection");
            if let Some(body) = whole_body(&answer) {
                break body;
            }
        };
        latencies.push(sent.elapsed());
        let body = String::from_utf8_lossy(&answer[body..]);
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "refused: {body}");
        assert!(body.starts_with(&request.answer), "not all accepted: {body}");
    }
    latencies
}

/// Where the body of an answer begins, once all of it is there.
fn whole_body(answer: &[u8]) -> Option<usize> {
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answer[..body]).expect("an ASCII head");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length?.trim().parse().expect("a length is a number");
    (answer.len() - body >= length).then_some(body)
}
