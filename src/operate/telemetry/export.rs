//! The exporter: a task that posts ended spans and metrics to the collector.

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

/// Most spans in one request.
const MOST_TOGETHER: usize = 512;
/// Interval between two exports of spans.
const SPANS_EVERY: Duration = Duration::from_secs(2);
/// Timeout of one request: a collector is usually near.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time limit for the last export when the daemon stops.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Exports spans and metrics until it is told to stop.
#[derive(Debug)]
pub struct Exporter {
    client: reqwest::Client,
    traces: Url,
    metrics: Url,
    metrics_every: Duration,
    /// Tells this process from other daemons: a random UUID, as the semantic conventions advise.
    instance: String,
    ended: Ended,
    /// Whether the last request failed, so that a series of failures is logged once.
    is_failing: bool,
}

impl Exporter {
    /// The exporter to a collector, and the tracer whose spans it exports.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(
        telemetry: &config::Telemetry,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Tracer), reqwest::Error> {
        // an error only means that a provider is installed already
        rustls::crypto::ring::default_provider().install_default().ok();
        let mut headers: HeaderMap = telemetry.otlp_headers.iter().cloned().collect();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let mut client = reqwest::Client::builder()
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(PATIENCE);
        if telemetry.otlp_endpoint.scheme() == "http" {
            // no TLS will be used, so this must work on a system without certificates
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

    /// Runs until `stop`, then exports what is left, within a short time limit.
    pub async fn run(mut self, sources: Arc<Sources>, stop: CancellationToken) {
        let start = Instant::now();
        let ticks = |every: Duration| {
            let mut ticks = interval_at(start + every, every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let (mut spans_due, mut metrics_due) = (ticks(SPANS_EVERY), ticks(self.metrics_every));
        loop {
            tokio::select! { // once an arm has begun an export, it runs to its end or its timeout
                () = stop.cancelled() => break,
                _ = spans_due.tick() => self.post_spans().await,
                _ = metrics_due.tick() => self.post_metrics(&sources).await,
            }
        }
        let last = async {
            self.post_spans().await;
            self.post_metrics(&sources).await;
        };
        let _ = timeout(LAST_WORDS, last).await; // shutdown does not wait for a collector
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
            let count = spans.len();
            let (url, body) =
                (self.traces.clone(), Traces::of(spans, &self.instance).encode_to_vec());
            if !self.post(url, body).await {
                self.ended.dropped.fetch_add(count as u64, Ordering::Relaxed);
            }
            if count < MOST_TOGETHER {
                return;
            }
        }
    }

    async fn post_metrics(&mut self, sources: &Sources) {
        // The ledger is closing or its disk does not respond: the next export will have them.
        let Ok(families) = Families::gather(sources).await else { return };
        let now = sources.clock.now();
        let metrics = Metrics::of(&families, &self.instance, sources.started_at, now);
        self.post(self.metrics.clone(), metrics.encode_to_vec()).await;
    }

    /// Whether the collector accepted it.
    async fn post(&mut self, url: Url, body: Vec<u8>) -> bool {
        let answer = self.client.post(url).body(body).send().await;
        let cause = match answer.and_then(reqwest::Response::error_for_status) {
            Ok(_) => None,
            Err(error) => Some(chain(&error.without_url())),
        };
        let is_accepted = cause.is_none();
        let was_failing = std::mem::replace(&mut self.is_failing, !is_accepted);
        match cause {
            Some(cause) if !was_failing => {
                warn!(
                    cause,
                    "the telemetry collector did not accept an export: spans are dropped until it does"
                );
            }
            None if was_failing => {
                let spans_dropped = self.ended.dropped.swap(0, Ordering::Relaxed);
                info!(spans_dropped, "the telemetry collector accepts exports again");
            }
            _ => {}
        }
        is_accepted
    }
}
