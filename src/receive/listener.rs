//! The listener: accepts connections until it is told to stop, then lets those in flight finish.
//!
//! Our own loop rather than `axum::serve`, for two things that one does not have: a time limit on
//! request headers (without it a stranger holds connections for nothing), and an end to be awaited.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::Limits;
use super::connections::{Connection, Connections};
use super::sources::Peer;

/// Most bytes of a request head, and the size of reads; hyper answers 431 past it.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// The pause after an accept that failed for want of something (descriptors, memory), which
/// only the end of a connection cures.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves `router` on `listener` until `stop`, and returns when all connections have ended:
/// idle ones are closed at once, requests in flight are finished first. The caller bounds the wait.
///
/// An error means that the listener itself is of no use; failing connections are survived.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) -> io::Result<()> {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(READ_BUFFER_BYTES)
        .half_close(true) // who sends no more may still want the answer
        .keep_alive(true);
    let open = Connections::new(limits.max_connections);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut acceptor = Acceptor { listener, is_failing: false };
    let outcome = loop {
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            Some(ended) = connections.join_next() => report(ended),
            // a cancel loses no connection, at most the rest of a pause
            accepted = acceptor.accept() => match accepted {
                Ok((stream, peer)) => {
                    let connection = Arc::new(open.enter());
                    let end = connection.end.clone();
                    let service = PerConnection { router: router.clone(), peer, connection };
                    let serving = http.serve_connection(TokioIo::new(stream), service);
                    let watched = graceful.watch(serving);
                    connections.spawn(async move {
                        tokio::select! { // a connection that has to go for another is cut off
                            () = end.cancelled() => {}
                            // an error is the peer's: it went away, was too slow, or spoke no HTTP
                            _ = watched => {}
                        }
                    });
                }
                Err(error) => break Err(error),
            },
        }
    };
    drop(acceptor); // refuses newcomers from here on
    graceful.shutdown().await;
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
    outcome
}

/// A panic while a request is handled costs its connection and nothing else.
fn report(ended: Result<(), JoinError>) {
    if ended.is_err_and(|failure| failure.is_panic()) {
        tracing::error!("a connection ended in a panic; its sender will try again");
    }
}

/// The router, as one connection sees it.
struct PerConnection {
    router: Router,
    peer: SocketAddr,
    connection: Arc<Connection>,
}

impl Service<Request<Incoming>> for PerConnection {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(self.peer.ip()));
        let (router, connection) = (self.router.clone(), Arc::clone(&self.connection));
        Box::pin(async move {
            let response = router.oneshot(request).await;
            connection.completed();
            response
        })
    }
}

struct Acceptor {
    listener: TcpListener,
    /// So that a streak of failures is one warning.
    is_failing: bool,
}

impl Acceptor {
    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let error = match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.is_failing = false;
                    // answers are one small write each; a failure only makes them later
                    let _ = stream.set_nodelay(true);
                    return Ok((stream, peer));
                }
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => return Err(error),
                // one connection went away before it was taken
                io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionRefused => {}
                _ => {
                    if !std::mem::replace(&mut self.is_failing, true) {
                        tracing::warn!(%error, "connections cannot be accepted for now");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::receive::fake::LIMITS;

    const SOON: Duration = Duration::from_secs(5);

    struct Running {
        address: std::net::SocketAddr,
        stop: CancellationToken,
        ended: JoinHandle<io::Result<()>>,
    }

    async fn start(router: Router, limits: Limits) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let stop = CancellationToken::new();
        let ended = tokio::spawn(serve(listener, router, limits, stop.clone()));
        Running { address, stop, ended }
    }

    impl Running {
        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.expect("it listens")
        }
    }

    async fn read_to_end(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        let reading = stream.read_to_string(&mut text);
        timeout(SOON, reading).await.expect("closed in time").expect("text");
        text
    }

    #[tokio::test]
    async fn a_stop_finishes_the_request_in_flight_and_closes_the_idle() {
        let entered = Arc::new(Notify::new());
        let release = Arc::new(Notify::new());
        let slow = {
            let (entered, release) = (Arc::clone(&entered), Arc::clone(&release));
            move || async move {
                entered.notify_one();
                release.notified().await;
                "done"
            }
        };
        let router = Router::new().route("/slow", get(slow)).route("/quick", get(async || "quick"));
        // so long that nothing but the stop ends a connection
        let limits = Limits { header_timeout: Duration::from_secs(3600), ..LIMITS };
        let mut server = start(router, limits).await;

        let mut fresh = server.connect().await;
        let mut idle = server.connect().await;
        idle.write_all(b"GET /quick HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        let mut byte = [0; 1];
        idle.read_exact(&mut byte).await.expect("an answer");
        let mut busy = server.connect().await;
        busy.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        timeout(SOON, entered.notified()).await.expect("the request is in flight");

        server.stop.cancel();
        assert!(read_to_end(&mut idle).await.ends_with("quick"));
        assert_eq!(read_to_end(&mut fresh).await, "");
        assert!(TcpStream::connect(server.address).await.is_err(), "no newcomers");
        assert!(!server.ended.is_finished(), "a request is in flight");

        release.notify_one();
        assert!(read_to_end(&mut busy).await.ends_with("done"));
        let ended = timeout(SOON, &mut server.ended).await.expect("in time");
        ended.expect("no panic").expect("no error");
    }

    #[tokio::test]
    async fn a_head_that_does_not_come_is_not_awaited_for_long() {
        let limits = Limits { header_timeout: Duration::from_millis(50), ..LIMITS };
        let server = start(Router::new(), limits).await;
        let started = Instant::now();
        let mut slow = server.connect().await;
        slow.write_all(b"GET / HTTP/1.1\r\nhost:").await.expect("sent");
        read_to_end(&mut slow).await;
        assert!(started.elapsed() >= limits.header_timeout);
    }

    #[tokio::test]
    async fn idle_connections_make_way_for_those_that_ask_something() {
        let limits = Limits { max_connections: 3, ..LIMITS };
        let router = Router::new().route("/quick", get(async || "quick"));
        let server = start(router, limits).await;
        let mut asking = server.connect().await;
        let request = b"GET /quick HTTP/1.1\r\nhost: x\r\n\r\n";
        let mut ask = async || {
            asking.write_all(request).await.expect("it is still open");
            let mut answer = [0; 512];
            let read = timeout(SOON, asking.read(&mut answer)).await.expect("in time");
            assert!(read.expect("it is still open") > 0);
        };
        ask().await;
        let mut idle = Vec::new();
        for _ in 0..10 {
            idle.push(server.connect().await);
            ask().await;
        }
        assert_eq!(read_to_end(&mut idle[0]).await, "", "the first of them had to go");
    }

    #[tokio::test]
    async fn a_panic_costs_its_own_connection_only() {
        async fn falls() -> &'static str {
            panic!("as the test wants it")
        }
        let router = Router::new().route("/falls", get(falls)).route("/stands", get(async || "up"));
        let server = start(router, LIMITS).await;
        let mut unlucky = server.connect().await;
        unlucky.write_all(b"GET /falls HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        assert_eq!(read_to_end(&mut unlucky).await, "");
        let mut other = server.connect().await;
        let request = b"GET /stands HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        other.write_all(request).await.expect("sent");
        assert!(read_to_end(&mut other).await.ends_with("up"));
    }
}
