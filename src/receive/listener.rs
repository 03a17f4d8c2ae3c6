//! The listener: accepts connections until it is told to stop, then lets requests in flight finish.
//!
//! Our own loop instead of `axum::serve`, which lacks timeouts that keep a stranger from holding a connection
//! for nothing, TLS, and a way to wait for the end.
//!
//! # What always holds
//! * A connection counts from its first byte: the TLS handshake, and the choice between HTTP/1.1 and HTTP/2
//!   (by ALPN or by preface), count against the number of connections and the header timeout.
//! * What one connection can make us hold is bounded: the head by `header_limit_bytes` and [`MOST_FIELDS`],
//!   HTTP/2 by [`MOST_STREAMS`] and its windows (`windows`; tests/it/http2.rs).

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::Limits;
use super::answer::Refusal;
use super::budget::Budget;
use super::connections::{Connection, Connections};
use super::exchange::{Answer, Exchange, in_time};
use super::opening::{Lost, Opening};
use super::progress::Patience;
use super::proxy_protocol::Malformed;
use super::socket::Socket;
use super::sources::Peer;
use super::tls::Certificates;
use super::windows::{self, NARROW, WIDE, Windows};
use crate::clock::Seldom;

/// Most requests in flight on one HTTP/2 connection. Most clients begin a hundred before they have heard of a
/// limit, and count those beyond it as failed (RFC 9113, 6.5.2, advises against fewer). `Connections` limits
/// the requests of all connections together.
pub(super) const MOST_STREAMS: u32 = 128;

/// Most header fields of a request, as in hyper's HTTP/1.1. In HTTP/2 a field can arrive as a single byte and
/// take up a hundred.
const MOST_FIELDS: usize = 100;

/// Interval between pings on an HTTP/2 connection with requests in flight, and timeout of a ping: detects a
/// peer that is gone without closing.
const PING: Duration = Duration::from_secs(20);

/// How long a connection that is told to close has for its farewell (GOAWAY in HTTP/2); checked again at this
/// interval.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The pause after an accept that failed for lack of a resource (descriptors, memory), which only the end of
/// a connection gives back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What a listener serves.
#[derive(Debug)]
pub struct Front {
    router: Router,
    /// For connections that begin with a header of the PROXY protocol where none is expected, or with none or
    /// several where one is expected: it refuses everything but the probes. It is also told of invalid
    /// headers.
    misled: Router,
    /// The budget that wide receive windows are reserved in; `None`: all windows are narrow.
    budget: Option<Budget>,
}

impl From<Router> for Front {
    fn from(router: Router) -> Self {
        let misled = Router::new().fallback(async || Refusal::ProxyHeader);
        Self { router, misled, budget: None }
    }
}

impl Front {
    pub(super) fn new(router: Router, misled: Router, budget: Budget) -> Self {
        Self { router, misled, budget: Some(budget) }
    }

    /// Serves all connections with the same router, however they begin.
    #[must_use]
    pub fn to_all(router: Router) -> Self {
        Self { misled: router.clone(), router, budget: None }
    }

    /// Wraps the router in something else, such as a layer.
    #[must_use]
    pub fn behind(self, wrap: impl FnOnce(Router) -> Router) -> Self {
        Self { router: wrap(self.router), ..self }
    }
}

/// Serves `front` on `listener` until `stop`, and returns when all connections have ended: idle ones are
/// closed at once, requests in flight are finished first. The caller limits the wait.
///
/// An error means that the listener itself is unusable; failures of single connections are survived.
pub async fn serve(
    listener: TcpListener,
    front: impl Into<Front>,
    limits: Limits,
    certificates: Option<Certificates>,
    stop: CancellationToken,
) -> io::Result<()> {
    let front = front.into();
    let patience = Patience {
        head: limits.header_timeout,
        idle: limits.idle_timeout,
        answer: limits.body_timeout,
    };
    let open = Connections::new(limits.max_connections, patience);
    let mut connections = JoinSet::new();
    let http = Arc::new(Protocols::of(&limits, front.budget, front.misled));
    let address = listener.local_addr()?;
    let mut acceptor = Acceptor { listener, failing: Seldom::default() };
    let outcome = loop {
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            Some(_) = connections.join_next() => {}
            // cancelling this loses no connection, at most the rest of a pause
            accepted = acceptor.accept() => match accepted {
                Ok((stream, peer)) => {
                    let connection = Arc::new(open.enter());
                    let service = PerConnection {
                        router: front.router.clone(),
                        peer: peer.ip(),
                        body_timeout: limits.body_timeout,
                        connection,
                    };
                    let tls = certificates.as_ref().map(|all| TlsAcceptor::from(all.current()));
                    let (http, stop) = (Arc::clone(&http), stop.clone());
                    connections.spawn(converse(http, stream, tls, service, stop));
                }
                Err(error) => break Err(error),
            },
        }
    };
    drop(acceptor); // new connections are refused from here on
    tracing::info!(%address, connections = connections.len(), "no longer accepting connections");
    while connections.join_next().await.is_some() {}
    outcome
}

/// The HTTP settings, for each of the window sizes that a connection may have.
struct Protocols {
    wide: auto::Builder<TokioExecutor>,
    narrow: auto::Builder<TokioExecutor>,
    budget: Option<Budget>,
    /// Whether connections must begin with a header of the PROXY protocol, and the router for those that do
    /// not comply.
    proxy_protocol: bool,
    misled: Router,
}

impl Protocols {
    fn of(limits: &Limits, budget: Option<Budget>, misled: Router) -> Self {
        let [wide, narrow] = [WIDE, NARROW].map(|windows| protocols(limits, windows));
        Self { wide, narrow, budget, proxy_protocol: limits.proxy_protocol, misled }
    }

    /// Sets the source of a connection, and the router that serves it.
    fn introduce(&self, opening: &Opening, service: &mut PerConnection) {
        if opening.header.is_some() != self.proxy_protocol {
            service.router = self.misled.clone();
        } else if opening.is_said_again {
            service.router = self.misled.clone().layer(Extension(SaidAgain));
        } else if let Some(source) = opening.header.and_then(|header| header.source) {
            service.peer = source;
        }
    }

    /// Reports that a connection is closed because of an invalid header. Nobody knows where a request would
    /// begin, so there is none to answer.
    async fn deplore(&self, malformed: Malformed) {
        let mut request = Request::new(Body::empty());
        request.extensions_mut().insert(malformed);
        let Ok(_) = self.misled.clone().oneshot(request).await;
    }
}

fn protocols(limits: &Limits, windows: Windows) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .max_buf_size(limits.header_limit_bytes)
        .half_close(true) // a client that has finished sending may still want the answer
        .keep_alive(true);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        // a client may reset all its streams at once, before we have seen any of them
        .max_pending_accept_reset_streams(MOST_STREAMS as usize)
        .initial_stream_window_size(windows.stream_bytes)
        .initial_connection_window_size(windows.connection_bytes)
        .max_header_list_size(u32::try_from(limits.header_limit_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    http
}

/// Handles a connection from its first byte to its last.
async fn converse(
    http: Arc<Protocols>,
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    mut service: PerConnection,
    stop: CancellationToken,
) {
    let connection = Arc::clone(&service.connection);
    let opening = tokio::select! { // nothing has been requested yet
        _ = seldom(is_to_go(&connection, stop.clone())) => return,
        opening = Opening::read(&stream) => opening,
    };
    let opening = match opening {
        Ok(opening) => opening,
        Err(Lost::Gone) => return,
        Err(Lost::Malformed(malformed)) => return http.deplore(malformed).await,
    };
    http.introduce(&opening, &mut service);
    let Opening { is_http2, ahead, .. } = opening;
    let socket = Socket::new(stream, ahead, Arc::clone(&connection));
    let Some(tls) = tls else { return speak(&http, socket, is_http2, service, stop).await };
    let speak_tls = async {
        let shaken = tokio::select! { // nothing has been requested yet
            _ = seldom(is_to_go(&connection, stop.clone())) => return,
            shaken = tls.accept(socket) => shaken,
        };
        // an error is the peer's: it does not trust us, shows no certificate, or does not speak TLS
        if let Ok(stream) = shaken {
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            speak(&http, stream, is_http2, service, stop).await;
        }
    };
    Box::pin(speak_tls).await; // boxed: thousands of connections without TLS would have to make room for it
}

async fn speak(
    http: &Protocols,
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    is_http2: bool,
    service: PerConnection,
    stop: CancellationToken,
) {
    let connection = Arc::clone(&service.connection);
    let wide = http.budget.as_ref().filter(|_| is_http2).and_then(windows::reserve_wide);
    let http = if wide.is_some() { &http.wide } else { &http.narrow };
    let mut serving = pin!(http.serve_connection(TokioIo::new(stream), service));
    let leave = tokio::select! {
        // an error is the peer's: it is gone, was too slow, or does not speak HTTP
        _ = serving.as_mut() => return,
        leave = seldom(is_to_go(&connection, stop)) => leave,
    };
    if leave == Leave::Now {
        return;
    }
    serving.as_mut().graceful_shutdown();
    tokio::select! {
        _ = serving => {}
        () = seldom(is_cut_off(&connection)) => {}
    }
}

/// Polls a future only when it is woken itself, and not whenever something arrives for the connection whose
/// task it shares.
async fn seldom<T>(future: impl Future<Output = T>) -> T {
    FuturesUnordered::from_iter([future]).select_next_some().await
}

/// How a connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    /// At once: another connection replaces it, or it is hopeless.
    Now,
    /// It is told to close, and its requests in flight are finished.
    Finished,
}

/// Returns when a connection is to be ended: it has been idle for too long, is replaced, or `stop` is
/// cancelled.
async fn is_to_go(connection: &Connection, stop: CancellationToken) -> Leave {
    tokio::select! {
        () = connection.end.cancelled() => Leave::Now,
        () = connection.has_outstayed() => Leave::Finished,
        () = stop.cancelled() => Leave::Finished,
    }
}

/// Returns when a connection that was told to close is still open although nothing is in flight, or when it
/// is replaced.
async fn is_cut_off(connection: &Connection) {
    let is_done = async {
        loop {
            tokio::time::sleep(LAST_WORDS).await;
            if connection.is_done() {
                return;
            }
        }
    };
    tokio::select! {
        () = connection.end.cancelled() => {}
        () = is_done => {}
    }
}

/// In the extensions of an answer: the sender of its request is authenticated, so that strangers' connections
/// are closed before this one.
#[derive(Clone, Copy, Debug)]
pub struct Proven;

/// In the extensions of a request: its connection began with several headers of the PROXY protocol.
#[derive(Clone, Copy, Debug)]
pub(super) struct SaidAgain;

/// The router as a service for one connection.
struct PerConnection {
    router: Router,
    peer: IpAddr,
    body_timeout: Duration,
    connection: Arc<Connection>,
}

impl Service<Request<Incoming>> for PerConnection {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answer>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let exchange = Exchange::begin(Arc::clone(&self.connection));
        if request.headers().len() > MOST_FIELDS {
            let refusal = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.into_response();
            let refused = refusal.map(|body| exchange.answer(body));
            return Box::pin(std::future::ready(Ok(refused)));
        }
        let whole = Some(Arc::clone(&self.connection));
        let mut request = request.map(|body| in_time(body, self.body_timeout, whole));
        name_host(&mut request);
        request.extensions_mut().insert(Peer(self.peer));
        let router = self.router.clone();
        Box::pin(async move {
            let response = router.oneshot(request).await?;
            if response.extensions().get::<Proven>().is_some() {
                exchange.prove();
            }
            Ok(response.map(|body| exchange.answer(body)))
        })
    }
}

/// Puts the host of a request into `Host` if HTTP/2 or a proxy put it into the target, which takes
/// precedence.
fn name_host<B>(request: &mut Request<B>) {
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    if let Some(host) = authority.and_then(|authority| HeaderValue::from_str(&authority).ok()) {
        request.headers_mut().insert(header::HOST, host);
    }
}

struct Acceptor {
    listener: TcpListener,
    /// Limits the log lines about failed attempts to accept.
    failing: Seldom,
}

impl Acceptor {
    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let error = match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // answers are one small write each; if this fails they are only later
                    let _ = stream.set_nodelay(true);
                    return Ok((stream, peer));
                }
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => return Err(error),
                // a single connection went away before it was accepted
                io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionRefused => {}
                _ => {
                    if let Some(times) = self.failing.more(1) {
                        tracing::warn!(%error, times, "connections cannot be accepted for now");
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
        let ended = tokio::spawn(serve(listener, router, limits, None, stop.clone()));
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
        // so long that only the stop ends a connection
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
