//! Spans: how long work took, and for what. They are queued for the exporter when they end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::context::TraceContext;
use crate::clock::Clock;
use crate::membership::Timestamp;

/// Most spans that wait to be exported; further ones are dropped.
const MOST_WAITING: usize = 8192;

/// Begins and ends spans.
#[derive(Clone, Debug)]
pub struct Tracer {
    clock: Arc<dyn Clock>,
    ended: mpsc::Sender<Span>,
    dropped: Arc<AtomicU64>,
    trace_percent: u8,
}

/// The receiving end of a tracer: ended spans, and how many were dropped.
#[derive(Debug)]
pub(super) struct Ended {
    pub spans: mpsc::Receiver<Span>,
    pub dropped: Arc<AtomicU64>,
}

/// The role of a span, as in OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Work within the daemon.
    Internal,
    /// A request from outside.
    Server,
    /// A call to the outside.
    Client,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Attribute {
    Text(String),
    Number(i64),
}

/// A unit of work with its duration.
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
    /// `trace_percent` of the traces that begin here are recorded.
    pub(super) fn new(clock: Arc<dyn Clock>, trace_percent: u8) -> (Self, Ended) {
        let (ended, spans) = mpsc::channel(MOST_WAITING);
        let dropped = Arc::<AtomicU64>::default();
        let tracer = Self { clock, ended, dropped: Arc::clone(&dropped), trace_percent };
        (tracer, Ended { spans, dropped })
    }

    /// Begins a child span of `parent`, or a new trace if there is none.
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

    /// The work failed; `error_type` is one of few fixed values.
    pub fn failed(&mut self, error_type: &str) {
        self.span.failed = true;
        self.text("error.type", error_type);
    }

    pub fn number(&mut self, name: &'static str, value: usize) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.span.attributes.push((name, Attribute::Number(value)));
    }
}
