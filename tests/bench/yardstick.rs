//! Yardsticks: the daemon's own HTTP stack with nothing behind it, which no daemon can outrun.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use bytes::Bytes;
use cohortd::json;
use cohortd::receive::{Limits, serve};
use cohortd::sandbox::sign;
use cohortd::secret::Secret;
use http::{HeaderMap, StatusCode};
use serde::de::IgnoredAny;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use crate::load;

/// As generous as the daemon's own.
const LIMITS: Limits = Limits {
    body_limit_bytes: 128 << 20,
    body_budget_bytes: 256 << 20,
    header_limit_bytes: 32 << 10,
    header_timeout: Duration::from_secs(10),
    idle_timeout: Duration::from_secs(75),
    body_timeout: Duration::from_secs(30),
    answer_timeout: Duration::from_millis(4500),
    max_connections: 1000,
    max_requests: 1000,
    trusted_proxies: 0,
    proxy_protocol: false,
};

const ROUTE: &str = "/segment/{destination}";

/// A running server, on a runtime like the daemon's. Dropping it stops it.
pub struct Yardstick {
    pub address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Yardstick {
    /// Reads the body, checks the signature over the first event, parses everything, keeps nothing.
    pub fn that_reads_and_parses(secret: Secret) -> Self {
        let router = post(read_and_parse).layer(DefaultBodyLimit::disable()).with_state(secret);
        Self::start(Router::new().route(ROUTE, router))
    }

    /// Answers.
    pub fn that_does_nothing() -> Self {
        let answer = async |_: Bytes| format!("{}\"yardstick\":true}}", load::accepted(1));
        Self::start(Router::new().route(ROUTE, post(answer)))
    }

    fn start(router: Router) -> Self {
        let runtime = Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.expect("a runtime can be built");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.expect("a port on loopback is free");
        let address = listener.local_addr().expect("it is bound");
        runtime.spawn(serve(listener, router, LIMITS, None, CancellationToken::new()));
        Self { address, runtime: Some(runtime) }
    }
}

impl Drop for Yardstick {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn read_and_parse(
    State(secret): State<Secret>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<String, StatusCode> {
    let elements = body.get(1..).ok_or(StatusCode::BAD_REQUEST)?;
    let (IgnoredAny, rest) = json::first(elements).ok_or(StatusCode::BAD_REQUEST)?;
    let signature = sign(&secret, &elements[..elements.len() - rest.len()]);
    if headers.get("x-signature").is_none_or(|presented| presented != signature.as_str()) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let parsed: Value = json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let events = parsed.as_array().ok_or(StatusCode::BAD_REQUEST)?.len();
    Ok(format!("{}\"yardstick\":true}}", load::accepted(events as u64)))
}
