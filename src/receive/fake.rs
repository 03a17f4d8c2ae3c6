//! Fakes for the tests of receiving: a ledger that behaves as told, and bodies that arrive as told.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::sync::Notify;

use super::exchange::in_time;
use super::{Credentials, Destination, Entrance, Limits};
use crate::ledger::{Intake, LedgerError, Obstacle, Recorded, Recorder};
use crate::map::Mapping;
use crate::membership::{DestinationName, Timestamp};
use crate::secret::Secret;

pub(super) const LIMITS: Limits = Limits {
    body_limit_bytes: 1 << 20,
    body_budget_bytes: 2 << 20,
    header_limit_bytes: 32 << 10,
    header_timeout: Duration::from_secs(10),
    idle_timeout: Duration::from_secs(75),
    body_timeout: Duration::from_secs(30),
    answer_timeout: Duration::from_millis(4500),
    max_connections: 1000,
    max_requests: 100,
    trusted_proxies: 0,
    proxy_protocol: false,
};

/// The entrance of a destination of this name, with the write key `key` and no other credential. The
/// destination is enabled unless it is called `off`.
pub(super) fn entrance(name: &str) -> Entrance {
    let destination = Destination {
        name: DestinationName::new(name).expect("a name"),
        enabled: name != "off",
        mappings: Mapping::preset().into(),
        counters: Arc::default(),
    };
    Entrance {
        name: name.to_owned(),
        destinations: vec![Arc::new(destination)],
        credentials: Credentials { write_keys: vec![Secret::new("key")], ..Credentials::default() },
        extra_fields: Vec::new(),
        allowed_sources: Vec::new(),
        cors_origins: Vec::new(),
        allow_batches: true,
        corrects_clocks_behind: false,
        rate: None,
    }
}

/// How [`FakeLedger::record`] behaves.
#[derive(Debug)]
pub(super) enum Behaviour {
    /// Records at once, and reports these positions of the first intake as conflicts of context kind.
    Records { kind_conflicts: Vec<usize> },
    /// Records only when [`FakeLedger::release`] is called, once per call.
    Waits,
    /// Never returns.
    Hangs,
    /// Accepts nothing.
    Refuses,
}

#[derive(Debug)]
pub(super) struct FakeLedger {
    behaviour: Behaviour,
    recorded: Mutex<Vec<Intake>>,
    release: Notify,
    asked: Notify,
}

impl FakeLedger {
    pub(super) fn that(behaviour: Behaviour) -> Self {
        Self { behaviour, recorded: Mutex::default(), release: Notify::new(), asked: Notify::new() }
    }

    /// Lets one waiting call of record return.
    pub(super) fn release(&self) {
        self.release.notify_one();
    }

    /// Returns once record has been called.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Everything recorded so far.
    pub(super) fn recorded(&self) -> Vec<Intake> {
        self.recorded.lock().expect("no test panics while it holds this").clone()
    }
}

#[async_trait]
impl Recorder for FakeLedger {
    fn arrival(&self) -> Timestamp {
        Timestamp(1_700_000_000_000_000)
    }

    async fn record_all(&self, intakes: Vec<Intake>) -> Result<Vec<Recorded>, LedgerError> {
        self.asked.notify_one();
        let mut outcome = vec![Recorded::default(); intakes.len()];
        match &self.behaviour {
            Behaviour::Records { kind_conflicts } => {
                if let (true, Some(first)) = (self.recorded().is_empty(), outcome.first_mut()) {
                    first.kind_conflicts.clone_from(kind_conflicts);
                }
            }
            Behaviour::Waits => self.release.notified().await,
            Behaviour::Hangs => std::future::pending().await,
            Behaviour::Refuses => return Err(LedgerError::Unavailable("full".to_owned())),
        }
        self.recorded.lock().expect("no test panics while it holds this").extend(intakes);
        Ok(outcome)
    }

    fn obstacle(&self) -> Option<Obstacle> {
        None
    }
}

/// A body of unknown length that arrives in these pieces.
pub(super) fn pieces(pieces: &[&str]) -> Body {
    let pieces = pieces.iter().map(|piece| Bytes::from((*piece).to_owned())).collect();
    Body::new(Pieces { pieces, is_endless: false })
}

/// A body that starts and never ends, as the listener passes it on.
pub(super) fn stalled(beginning: &str) -> Body {
    let pieces = [Bytes::from(beginning.to_owned())].into();
    in_time(Body::new(Pieces { pieces, is_endless: true }), LIMITS.body_timeout, None)
}

struct Pieces {
    pieces: std::collections::VecDeque<Bytes>,
    is_endless: bool,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.pieces.pop_front() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None if self.is_endless => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

/// The body of an answer, as text.
pub(super) async fn text_of(response: http::Response<Body>) -> String {
    let bytes = response.into_body().collect().await.expect("our own body").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("answers are text")
}
