//! The way to the collector: what has ended and what is counted, posted from a task of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue};
use prost::Message;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use url::Url;
use uuid::Builder;

use super::otlp::{Metrics, Traces};
use super::spans::{Ended, Tracer};
use crate::clock::Clock;
use crate::config;
use crate::operate::logging::chain;
use crate::operate::metrics::Families;
use crate::operate::sources::Sources;

/// Spans of one post.
const MOST_TOGETHER: usize = 512;
/// How long the first of them waits for company.
const SPANS_EVERY: Duration = Duration::from_secs(2);
/// A collector is near; whoever is slower is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// For what is left at the end.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Posts spans and metrics until it is told to stop.
#[derive(Debug)]
pub struct Exporter {
    client: reqwest::Client,
    traces: Url,
    metrics: Url,
    metrics_every: Duration,
    /// Which of several daemons this is: a UUID by chance, as the semantic conventions advise.
    instance: String,
    ended: Ended,
    /// So that a streak of failures is one warning.
    is_failing: bool,
}

impl Exporter {
    /// The exporter to a collector, and what begins its spans.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(
        telemetry: &config::Telemetry,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Tracer), reqwest::Error> {
        // an error only says that it was installed before
        rustls::crypto::ring::default_provider().install_default().ok();
        let mut headers: HeaderMap = telemetry.otlp_headers.iter().cloned().collect();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let mut client = reqwest::Client::builder()
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(PATIENCE);
        if telemetry.otlp_endpoint.scheme() == "http" {
            // no TLS will be spoken: works on a system without any certificates
            client = client.tls_certs_only([]);
        }
        let (tracer, ended) = Tracer::new(clock, telemetry.trace_percent);
        let below = |path: &str| {
            let mut url = telemetry.otlp_endpoint.clone();
            url.set_path(&format!("{}/v1/{path}", url.path().trim_end_matches('/')));
            url
        };
        let exporter = Self {
            client: client.build()?,
            traces: below("traces"),
            metrics: below("metrics"),
            metrics_every: telemetry.metrics_every,
            instance: Builder::from_random_bytes(rand::random()).into_uuid().to_string(),
            ended,
            is_failing: false,
        };
        Ok((exporter, tracer))
    }

    /// Runs until `stop`, and then posts what is left, if that goes quickly.
    pub async fn run(mut self, sources: Arc<Sources>, stop: CancellationToken) {
        let start = Instant::now();
        let ticks = |every: Duration| {
            let mut ticks = interval_at(start + every, every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let (mut spans_due, mut metrics_due) = (ticks(SPANS_EVERY), ticks(self.metrics_every));
        loop {
            tokio::select! { // what is posted in an arm is posted to the end, or to its time limit
                () = stop.cancelled() => break,
                _ = spans_due.tick() => self.post_spans().await,
                _ = metrics_due.tick() => self.post_metrics(&sources).await,
            }
        }
        let last = async {
            self.post_spans().await;
            self.post_metrics(&sources).await;
        };
        let _ = timeout(LAST_WORDS, last).await; // nobody waits for a collector
    }

    async fn post_spans(&mut self) {
        loop {
            let mut spans = Vec::new();
            while spans.len() < MOST_TOGETHER
                && let Ok(span) = self.ended.spans.try_recv()
            {
                spans.push(span);
            }
            if spans.is_empty() {
                return;
            }
            let is_full = spans.len() == MOST_TOGETHER;
            let (url, body) =
                (self.traces.clone(), Traces::of(spans, &self.instance).encode_to_vec());
            self.post(url, body).await;
            if !is_full {
                return;
            }
        }
    }

    async fn post_metrics(&mut self, sources: &Sources) {
        // The ledger is closing, or its disk does not answer: there will be another time.
        let Ok(families) = Families::gather(sources).await else { return };
        let now = sources.clock.now();
        let metrics = Metrics::of(&families, &self.instance, sources.started_at, now);
        self.post(self.metrics.clone(), metrics.encode_to_vec()).await;
    }

    async fn post(&mut self, url: Url, body: Vec<u8>) {
        let answer = self.client.post(url).body(body).send().await;
        let cause = match answer.and_then(reqwest::Response::error_for_status) {
            Ok(_) => None,
            Err(error) => Some(chain(&error.without_url())),
        };
        let was_failing = std::mem::replace(&mut self.is_failing, cause.is_some());
        match cause {
            Some(cause) if !was_failing => {
                warn!(cause, "the collector of telemetry takes nothing: what it misses is dropped");
            }
            None if was_failing => {
                let spans_dropped = self.ended.dropped.swap(0, Ordering::Relaxed);
                info!(spans_dropped, "the collector of telemetry takes it again");
            }
            _ => {}
        }
    }
}
