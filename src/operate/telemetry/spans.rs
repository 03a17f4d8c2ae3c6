//! Spans: what took how long, and for what. Recorded when they end, and queued for the exporter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::context::TraceContext;
use crate::clock::Clock;
use crate::membership::Timestamp;

/// Spans that wait to be exported; what comes beyond is dropped.
const MOST_WAITING: usize = 8192;

/// Begins spans.
#[derive(Clone, Debug)]
pub struct Tracer {
    clock: Arc<dyn Clock>,
    ended: mpsc::Sender<Span>,
    dropped: Arc<AtomicU64>,
    trace_percent: u8,
}

/// Spans that have ended, and how many were lost.
#[derive(Debug)]
pub(super) struct Ended {
    pub spans: mpsc::Receiver<Span>,
    pub dropped: Arc<AtomicU64>,
}

/// Which side of a conversation a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Work of our own.
    Internal,
    /// Somebody asks us.
    Server,
    /// We ask somebody.
    Client,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Attribute {
    Text(String),
    Number(i64),
}

/// Something that took some time.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub context: TraceContext,
    pub parent: Option<[u8; 8]>,
    pub name: String,
    pub kind: Kind,
    pub began_at: Timestamp,
    pub took: Duration,
    pub attributes: Vec<(&'static str, Attribute)>,
    pub links: Vec<TraceContext>,
    pub failed: bool,
}

/// A span that has not ended.
#[derive(Debug)]
pub(super) struct Running {
    pub span: Span,
    began: Instant,
}

impl Tracer {
    /// Of a hundred traces that begin here so many are recorded.
    pub(super) fn new(clock: Arc<dyn Clock>, trace_percent: u8) -> (Self, Ended) {
        let (ended, spans) = mpsc::channel(MOST_WAITING);
        let dropped = Arc::<AtomicU64>::default();
        let tracer = Self { clock, ended, dropped: Arc::clone(&dropped), trace_percent };
        (tracer, Ended { spans, dropped })
    }

    /// Begins a span below another; without one, a trace begins.
    pub(super) fn begin(
        &self,
        parent: Option<TraceContext>,
        kind: Kind,
        name: impl Into<String>,
    ) -> Running {
        let by_chance = || rand::random::<u32>() % 100 < u32::from(self.trace_percent);
        let sampled = parent.map_or_else(by_chance, |parent| parent.sampled);
        let span = Span {
            context: TraceContext::below(parent, sampled),
            parent: parent.map(|parent| parent.span_id),
            name: name.into(),
            kind,
            began_at: self.clock.now(),
            took: Duration::ZERO,
            attributes: Vec::new(),
            links: Vec::new(),
            failed: false,
        };
        Running { span, began: Instant::now() }
    }

    /// Ends a span, and queues it if its trace is recorded.
    pub(super) fn end(&self, running: Running) {
        let Running { mut span, began } = running;
        span.took = began.elapsed();
        if span.context.sampled && self.ended.try_send(span).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Running {
    pub fn text(&mut self, name: &'static str, value: impl Into<String>) {
        self.span.attributes.push((name, Attribute::Text(value.into())));
    }

    /// What it was for did not succeed, for this reason, of few that there are.
    pub fn failed(&mut self, error_type: &str) {
        self.span.failed = true;
        self.text("error.type", error_type);
    }

    pub fn number(&mut self, name: &'static str, value: usize) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.span.attributes.push((name, Attribute::Number(value)));
    }
}
