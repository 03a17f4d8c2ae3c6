//! Metrics: the counters of every step under stable names, for Prometheus (`/metrics`) and for an OTLP
//! collector ([`super::telemetry`]).
//!
//! # What always holds
//! * [`catalogue`] is the only list of names, units and labels; the manual's table is made from it, and
//!   only what it lists is exposed (tests/it/metrics.rs).
//! * The number of label values is bounded: destinations and fixed words. No label names a person or an
//!   audience ([P8](crate::design::P8)).
//! * The counters of a destination stay after a reload has removed it; its state is shown only while it
//!   is configured (tests/it/reload.rs).
//! * Nothing is gathered unless somebody asks, and no step waits for it.

pub mod catalogue;
mod exposition;

use tokio::join;

use super::configuration::Reload;
use super::sources::Sources;
use super::status::DestinationStatus;
use super::verdict::{self, ConcernKind, DestinationState};
use crate::counting::Distribution;
use crate::deliver::Delivered;
use crate::ledger::{Fact, LedgerError, Recordings};
use crate::membership::{DestinationName, Timestamp};
use crate::receive::{Received, Requests};

use catalogue::Metric;

pub use exposition::{OPEN_METRICS, TEXT, open_metrics, text};

/// All metrics with their samples, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Families(Vec<Family>);

/// One metric with its samples.
#[derive(Clone, Debug)]
pub struct Family {
    /// Its description in the catalogue.
    pub metric: &'static Metric,
    /// One for each set of labels.
    pub samples: Vec<Sample>,
}

/// One sample of a metric.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The values of the metric's labels, in the same order.
    pub labels: Vec<String>,
    /// The value.
    pub value: Value,
}

/// The value of a sample.
#[derive(Clone, Debug)]
pub enum Value {
    /// The total so far.
    Counter(u64),
    /// The present value.
    Gauge(f64),
    /// The distribution of values.
    Histogram(Distribution),
}

/// The `destination` label of requests that lead to no destination; no destination can have this name.
const NOBODY: &str = "-";
/// The `status` label of calls that were not answered.
const NO_ANSWER: &str = "none";

impl Families {
    /// Gathers all metrics.
    pub async fn gather(sources: &Sources) -> Result<Self, LedgerError> {
        let mut families = Self::default();
        families.daemon(sources);
        families.requests(NOBODY, sources.received.nobodys());
        for (path, reason, credential, count) in sources.received.refused_counts() {
            families.counter(&catalogue::REFUSED, [&path, reason, credential], count);
        }
        for (name, received) in sources.received.all() {
            families.requests(name.as_str(), &received.requests);
            families.received(&name, &received);
        }
        // At once: a database that takes its time takes it once.
        let (facts, status) = join!(sources.ledger.facts(), sources.status());
        families.ledger(sources, facts?);
        for (name, delivered) in sources.delivered.all() {
            families.delivered(&name, &delivered);
        }
        let status = status?;
        for (name, _) in
            sources.entries.get().iter().filter(|(name, _)| sources.ledger.delivers(name))
        {
            // Of what replicas share only one has samples: sums over all of them are right.
            if let Some(of) = status.destinations.get(name.as_str()) {
                families.standing(name.as_str(), of);
            }
        }
        for (name, _) in sources.standings.get().iter() {
            let (received, delivered) = (sources.received.of(name), sources.delivered.of(name));
            families.present(name, &received, &delivered);
        }
        families.0.sort_by_key(|family| family.metric.position());
        Ok(families)
    }

    /// The metrics that have samples, in the order of the catalogue.
    pub fn iter(&self) -> impl Iterator<Item = &Family> {
        self.0.iter()
    }

    fn daemon(&mut self, sources: &Sources) {
        self.gauge(&catalogue::BUILD_INFO, [env!("CARGO_PKG_VERSION")], 1.0);
        self.time(&catalogue::START_TIME, [], Some(sources.started_at));
        self.gauge(&catalogue::READY, [], flag(sources.objection().is_none()));
        let configuration = sources.configuration.state();
        self.gauge(&catalogue::CONFIG_REFUSED, [], flag(configuration.refused.is_some()));
        for (outcome, count) in Reload::ALL.into_iter().zip(configuration.reloads) {
            self.counter(&catalogue::CONFIG_RELOADS, [outcome.word()], count);
        }
        self.time(&catalogue::CONFIG_LAST_SUCCESS, [], Some(configuration.last_success_at));
        for (listener, certificates) in &sources.certificates {
            let expires = float(certificates.not_after_s());
            self.gauge(&catalogue::CERTIFICATE_EXPIRES, [*listener], expires);
        }
        self.counter(&catalogue::LOG_LINES_DROPPED, [], sources.lines.dropped());
        self.gauge(&catalogue::CLOCK_AHEAD, [], sources.clock_ahead().as_secs_f64());
        for (refusal, count) in sources.refusals.counts() {
            self.counter(&catalogue::ADMIN_REFUSED, [refusal.word()], count);
        }
    }

    fn requests(&mut self, destination: &str, requests: &Requests) {
        for (outcome, count) in requests.by_outcome().filter(|(_, count)| *count > 0) {
            self.counter(&catalogue::REQUESTS, [destination, outcome], count);
        }
        for (class, durations) in requests.durations().filter(|(_, of)| of.count > 0) {
            self.histogram(&catalogue::REQUEST_DURATION, [destination, class], durations);
        }
    }

    fn received(&mut self, name: &DestinationName, received: &Received) {
        let name = name.as_str();
        self.counter(&catalogue::EVENTS_ACCEPTED, [name], received.accepted.get());
        self.counter(&catalogue::EVENTS_IGNORED, [name], received.ignored.get());
        for (reason, count) in received.rejected() {
            self.counter(&catalogue::EVENTS_REJECTED, [name, reason.as_str()], count);
        }
        for (doubt, count) in received.doubted_times() {
            self.counter(&catalogue::EVENT_TIMES_DOUBTED, [name, doubt.word()], count);
        }
        for (clock, count) in received.corrected_times() {
            self.counter(&catalogue::EVENT_TIMES_CORRECTED, [name, clock.word()], count);
        }
    }

    fn ledger(&mut self, sources: &Sources, facts: Vec<Fact>) {
        for (name, of) in sources.ledger.recordings().all() {
            let Recordings { deltas, repeats, overtaken, outlived, expired } = &*of;
            self.counter(&catalogue::DELTAS, [name.as_str()], deltas.get());
            self.counter(&catalogue::REPEATS, [name.as_str()], repeats.get());
            self.counter(&catalogue::OVERTAKEN, [name.as_str()], overtaken.get());
            self.counter(&catalogue::OUTLIVED, [name.as_str()], outlived.get());
            self.counter(&catalogue::EXPIRED, [name.as_str()], expired.get());
        }
        for fact in facts {
            match fact {
                Fact::Bytes(bytes) => self.gauge(&catalogue::LEDGER_SIZE, [], float(bytes)),
                Fact::LogBytes(bytes) => self.gauge(&catalogue::LEDGER_JOURNAL, [], float(bytes)),
                Fact::FreeBytes(bytes) => self.gauge(&catalogue::LEDGER_FREE, [], float(bytes)),
                Fact::CommitRows(rows) => self.histogram(&catalogue::COMMIT_ROWS, [], rows),
                Fact::SyncDuration(took) => self.histogram(&catalogue::SYNC_DURATION, [], took),
            }
        }
        self.gauge(&catalogue::TAKES_WRITES, [], flag(sources.ledger.obstacle().is_none()));
        self.counter(&catalogue::UNREAD, [], sources.unread.get());
    }

    fn delivered(&mut self, name: &DestinationName, delivered: &Delivered) {
        let name = name.as_str();
        for (status, count) in delivered.by_status() {
            let status = status.map_or_else(|| NO_ANSWER.to_owned(), |status| status.to_string());
            self.counter(&catalogue::CALLS, [name, &status], count);
        }
        for (outcome, durations) in delivered.durations().filter(|(_, of)| of.count > 0) {
            self.histogram(&catalogue::CALL_DURATION, [name, outcome], durations);
        }
        self.counter(&catalogue::MEMBERS_DELIVERED, [name], delivered.members.get());
        self.counter(&catalogue::MEMBERS_PARKED, [name], delivered.parked.get());
    }

    /// Metrics shown only while the destination is configured: an alert on the time of its last event
    /// would otherwise never end.
    fn present(&mut self, name: &DestinationName, received: &Received, delivered: &Delivered) {
        let name = name.as_str();
        self.time(&catalogue::LAST_EVENT, [name], received.last_event_at());
        self.gauge(&catalogue::CALLS_IN_FLIGHT, [name], float(delivered.in_flight()));
        let latest = delivered.latest();
        self.time(&catalogue::LAST_DELIVERY, [name], latest.success_at);
        let limits = latest.limits;
        for (limit, window) in
            [("global", limits.global), ("route", limits.route), ("token", limits.token)]
        {
            if let Some(calls) = window.limit {
                self.gauge(&catalogue::RATE_LIMIT, [name, limit], float(calls));
            }
            if let Some(calls) = window.remaining {
                self.gauge(&catalogue::RATE_LIMIT_REMAINING, [name, limit], float(calls));
            }
        }
    }

    fn standing(&mut self, name: &str, of: &DestinationStatus) {
        for state in DestinationState::ALL {
            self.gauge(&catalogue::STATE, [name, state.word()], flag(of.state == state));
        }
        let counts = verdict::counts(&of.concerns);
        let guarded = counts.get(&ConcernKind::Guard).copied().unwrap_or_default();
        self.gauge(&catalogue::GUARD_HELD, [name], float(guarded));
        for (kind, count) in counts {
            self.gauge(&catalogue::CONCERNS, [name, kind.word()], float(count));
        }
        self.gauge(&catalogue::PENDING, [name], float(of.pending));
        self.gauge(&catalogue::OLDEST_PENDING, [name], float(of.oldest_pending_ms) / 1000.0);
        self.gauge(&catalogue::PARKED, [name], float(of.parked));
        self.gauge(&catalogue::REJECTED_KEPT, [name], float(of.rejected));
    }

    fn counter<const N: usize>(&mut self, metric: &'static Metric, labels: [&str; N], count: u64) {
        self.push(metric, labels, Value::Counter(count));
    }

    fn gauge<const N: usize>(&mut self, metric: &'static Metric, labels: [&str; N], value: f64) {
        self.push(metric, labels, Value::Gauge(value));
    }

    #[expect(clippy::cast_precision_loss, reason = "microseconds of our days fit")]
    fn time<const N: usize>(
        &mut self,
        metric: &'static Metric,
        labels: [&str; N],
        at: Option<Timestamp>,
    ) {
        if let Some(at) = at {
            self.push(metric, labels, Value::Gauge(at.0 as f64 / 1e6));
        }
    }

    fn histogram<const N: usize>(
        &mut self,
        metric: &'static Metric,
        labels: [&str; N],
        distribution: Distribution,
    ) {
        self.push(metric, labels, Value::Histogram(distribution));
    }

    fn push<const N: usize>(&mut self, metric: &'static Metric, labels: [&str; N], value: Value) {
        debug_assert_eq!(metric.labels.len(), N, "{}", metric.name);
        let sample = Sample { labels: labels.map(str::to_owned).into(), value };
        match self.0.iter_mut().find(|family| family.metric.name == metric.name) {
            Some(family) => family.samples.push(sample),
            None => self.0.push(Family { metric, samples: vec![sample] }),
        }
    }
}

fn flag(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

#[expect(clippy::cast_precision_loss, reason = "nobody needs the last digit")]
fn float(number: u64) -> f64 {
    number as f64
}
