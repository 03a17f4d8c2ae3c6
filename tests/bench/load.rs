//! The load generator: HTTP/1.1 by hand, because a client library would cost more than the daemon.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

/// Requests that are sent once each, in this order.
pub type Requests = Arc<[Request]>;

/// A request as it goes over the wire, and how its answer must begin.
pub struct Request {
    bytes: Vec<u8>,
    events: u64,
    answer: String,
}

/// `POST /segment/DESTINATION`, of which every event is to be accepted.
pub fn request(destination: &str, signature: &str, body: &[u8], events: u64) -> Request {
    let head = format!(
        "POST /segment/{destination} HTTP/1.1\r\nhost: cohortd\r\ncontent-type: application/json\r\n\
         x-signature: {signature}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let answer = accepted(events);
    Request { bytes: [head.as_bytes(), body].concat(), events, answer }
}

/// How the answer to a request begins.
pub fn accepted(events: u64) -> String {
    format!("{{\"accepted\":{events},")
}

/// Of all requests.
pub fn events(requests: &[Request]) -> u64 {
    requests.iter().map(|request| request.events).sum()
}

/// What became of a list of requests.
pub struct Load {
    events: u64,
    elapsed: Duration,
    /// Shortest first.
    latencies: Vec<Duration>,
}

impl Load {
    /// Events answered in a second.
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 events")]
    pub fn per_second(&self) -> f64 {
        self.events as f64 / self.elapsed.as_secs_f64()
    }

    /// `percent` of the answers took no longer.
    pub fn percentile(&self, percent: usize) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((last * percent).div_ceil(100)).copied().unwrap_or_default()
    }
}

/// Sends every request over `connections` connections, which are opened before the clock starts, to each of the servers
/// in turn; each connection sends the next request of the list as soon as its last one is answered.
pub async fn run(servers: &[SocketAddr], requests: Requests, connections: usize) -> Load {
    let next = Arc::new(AtomicUsize::new(0));
    let streams = connect(servers, connections).await;
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for mut stream in streams {
        let (requests, next) = (Requests::clone(&requests), Arc::clone(&next));
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            let mut answer = Vec::with_capacity(4096);
            while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                let sent = Instant::now();
                exchange(&mut stream, request, &mut answer).await;
                latencies.push(sent.elapsed());
            }
            latencies
        });
    }
    finish(&requests, tasks, began).await
}

/// Sends every request at its time, `a_second` of them in a second, over whichever connection is free.
/// Latencies count from the time at which a request was to be sent: one that finds no free connection
/// waits, and its wait counts.
pub async fn offer(
    address: SocketAddr,
    requests: Requests,
    connections: usize,
    a_second: f64,
) -> Load {
    let streams = connect(&[address], connections).await;
    let (due, dues) = mpsc::unbounded_channel();
    let dues = Arc::new(Mutex::new(dues));
    let began = Instant::now();
    let every = Duration::from_secs_f64(1.0 / a_second);
    let number = u32::try_from(requests.len()).expect("few enough");
    // a thread of its own: the runtime's timer ticks once in a millisecond only
    let clock = std::thread::spawn(move || {
        for index in 0..number {
            let at = began + every * index;
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            if due.send((index as usize, at)).is_err() {
                break; // the run was given up
            }
        }
    });
    let mut tasks = JoinSet::new();
    for mut stream in streams {
        let (requests, dues) = (Requests::clone(&requests), Arc::clone(&dues));
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            let mut answer = Vec::with_capacity(4096);
            loop {
                let next = dues.lock().await.recv().await;
                let Some((index, at)) = next else { break latencies };
                exchange(&mut stream, &requests[index], &mut answer).await;
                latencies.push(at.elapsed());
            }
        });
    }
    let load = finish(&requests, tasks, began).await;
    clock.join().expect("it only sleeps and sends");
    load
}

async fn connect(servers: &[SocketAddr], connections: usize) -> Vec<TcpStream> {
    let mut streams = Vec::with_capacity(connections);
    for address in servers.iter().cycle().take(connections) {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("a TCP stream");
        streams.push(stream);
    }
    streams
}

async fn finish(requests: &[Request], tasks: JoinSet<Vec<Duration>>, began: Instant) -> Load {
    let mut latencies = tasks.join_all().await.concat();
    let elapsed = began.elapsed();
    latencies.sort_unstable();
    Load { events: events(requests), elapsed, latencies }
}

async fn exchange(stream: &mut TcpStream, request: &Request, answer: &mut Vec<u8>) {
    stream.write_all(&request.bytes).await.expect("the server reads");
    answer.clear();
    let body = loop {
        let read = stream.read_buf(answer).await.expect("the server answers");
        assert!(read > 0, "the server closed the connection");
        if let Some(body) = whole_body(answer) {
            break body;
        }
    };
    let body = String::from_utf8_lossy(&answer[body..]);
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "refused: {body}");
    assert!(body.starts_with(&request.answer), "not all accepted: {body}");
}

/// Where the body of an answer begins, once all of it is there.
pub fn whole_body(answer: &[u8]) -> Option<usize> {
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answer[..body]).expect("an ASCII head");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length?.trim().parse().expect("a length is a number");
    (answer.len() - body >= length).then_some(body)
}
