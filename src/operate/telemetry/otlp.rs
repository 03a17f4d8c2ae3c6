//! The part of OTLP that is used: the messages of `opentelemetry-proto` 1.x with their field numbers.
//! Tests read them with the official types (tests/it/telemetry.rs).

use prost::Message;

use super::spans::{Attribute, Kind, Span as Ended};
use crate::membership::Timestamp;
use crate::operate::metrics::catalogue::{self, Metric as Catalogued};
use crate::operate::metrics::{Families, Sample, Value as Measured};

/// The body of a request to `/v1/traces`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Traces {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

/// The body of a request to `/v1/metrics`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Metrics {
    #[prost(message, repeated, tag = "1")]
    resource_metrics: Vec<ResourceMetrics>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceMetrics {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_metrics: Vec<ScopeMetrics>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeMetrics {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    metrics: Vec<Metric>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "AnyValueOf", tags = "1, 3")]
    value: Option<AnyValueOf>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum AnyValueOf {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Number(i64),
}

#[derive(Clone, PartialEq, Message)]
#[expect(clippy::struct_field_names, reason = "the names are those of the protocol")]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "13")]
    links: Vec<Link>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
struct Link {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

const STATUS_ERROR: i32 = 2;

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    description: String,
    #[prost(string, tag = "3")]
    unit: String,
    #[prost(oneof = "Data", tags = "5, 7, 9")]
    data: Option<Data>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Data {
    #[prost(message, tag = "5")]
    Gauge(Gauge),
    #[prost(message, tag = "7")]
    Sum(Sum),
    #[prost(message, tag = "9")]
    Histogram(Histogram),
}

#[derive(Clone, PartialEq, Message)]
struct Gauge {
    #[prost(message, repeated, tag = "1")]
    data_points: Vec<NumberPoint>,
}

#[derive(Clone, PartialEq, Message)]
struct Sum {
    #[prost(message, repeated, tag = "1")]
    data_points: Vec<NumberPoint>,
    #[prost(int32, tag = "2")]
    aggregation_temporality: i32,
    #[prost(bool, tag = "3")]
    is_monotonic: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(message, repeated, tag = "1")]
    data_points: Vec<HistogramPoint>,
    #[prost(int32, tag = "2")]
    aggregation_temporality: i32,
}

/// Aggregation temporality: counted since the start, not since the last report.
const CUMULATIVE: i32 = 2;

#[derive(Clone, PartialEq, Message)]
struct NumberPoint {
    #[prost(fixed64, tag = "2")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "3")]
    time_unix_nano: u64,
    #[prost(message, repeated, tag = "7")]
    attributes: Vec<KeyValue>,
    #[prost(oneof = "Number", tags = "4, 6")]
    value: Option<Number>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Number {
    #[prost(double, tag = "4")]
    Float(f64),
    #[prost(sfixed64, tag = "6")]
    Whole(i64),
}

#[derive(Clone, PartialEq, Message)]
struct HistogramPoint {
    #[prost(fixed64, tag = "2")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "3")]
    time_unix_nano: u64,
    #[prost(fixed64, tag = "4")]
    count: u64,
    #[prost(double, optional, tag = "5")]
    sum: Option<f64>,
    #[prost(fixed64, repeated, tag = "6")]
    bucket_counts: Vec<u64>,
    #[prost(double, repeated, tag = "7")]
    explicit_bounds: Vec<f64>,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
}

fn nanos(at: Timestamp) -> u64 {
    at.0.unsigned_abs().saturating_mul(1000)
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(AnyValueOf::Text(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value) }
}

/// The resource that sends the telemetry: the service and its instance.
fn resource(instance: &str) -> Resource {
    let attributes = [
        ("service.name", "cohortd"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", instance),
    ];
    Resource { attributes: attributes.map(|(key, value)| text(key, value)).into() }
}

fn scope() -> Scope {
    Scope { name: "cohortd".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
}

impl Traces {
    pub fn of(spans: Vec<Ended>, instance: &str) -> Self {
        let spans = spans.into_iter().map(Span::of).collect();
        let scope_spans = vec![ScopeSpans { scope: Some(scope()), spans }];
        let resource = Some(resource(instance));
        Self { resource_spans: vec![ResourceSpans { resource, scope_spans }] }
    }
}

impl Span {
    fn of(span: Ended) -> Self {
        let attribute = |(key, value): (&'static str, Attribute)| {
            let value = match value {
                Attribute::Text(text) => AnyValueOf::Text(text),
                Attribute::Number(number) => AnyValueOf::Number(number),
            };
            KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
        };
        let links = span
            .links
            .iter()
            .map(|link| Link { trace_id: link.trace_id.to_vec(), span_id: link.span_id.to_vec() });
        Self {
            trace_id: span.context.trace_id.to_vec(),
            span_id: span.context.span_id.to_vec(),
            parent_span_id: span.parent.map(Vec::from).unwrap_or_default(),
            name: span.name,
            kind: match span.kind {
                Kind::Internal => 1,
                Kind::Server => 2,
                Kind::Client => 3,
            },
            start_time_unix_nano: nanos(span.began_at),
            end_time_unix_nano: nanos(span.began_at.after(span.took)),
            links: links.collect(),
            attributes: span.attributes.into_iter().map(attribute).collect(),
            status: span.failed.then_some(Status { code: STATUS_ERROR }),
        }
    }
}

impl Metrics {
    pub fn of(families: &Families, instance: &str, started_at: Timestamp, now: Timestamp) -> Self {
        let of = |family: &crate::operate::metrics::Family| {
            let points =
                Points { metric: family.metric, start: nanos(started_at), now: nanos(now) };
            points.metric(&family.samples)
        };
        let metrics = families.iter().map(of).collect();
        let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics }];
        let resource = Some(resource(instance));
        Self { resource_metrics: vec![ResourceMetrics { resource, scope_metrics }] }
    }
}

/// Makes the data points of one metric.
struct Points {
    metric: &'static Catalogued,
    start: u64,
    now: u64,
}

impl Points {
    fn metric(&self, samples: &[Sample]) -> Metric {
        let data = match self.metric.kind {
            catalogue::Kind::Counter => Data::Sum(Sum {
                data_points: self.numbers(samples),
                aggregation_temporality: CUMULATIVE,
                is_monotonic: true,
            }),
            catalogue::Kind::Gauge => Data::Gauge(Gauge { data_points: self.numbers(samples) }),
            catalogue::Kind::Histogram => Data::Histogram(Histogram {
                data_points: samples.iter().filter_map(|sample| self.histogram(sample)).collect(),
                aggregation_temporality: CUMULATIVE,
            }),
        };
        Metric {
            name: self.metric.name.to_owned(),
            description: self.metric.help.to_owned(),
            unit: self.metric.unit.ucum().to_owned(),
            data: Some(data),
        }
    }

    fn numbers(&self, samples: &[Sample]) -> Vec<NumberPoint> {
        let point = |sample: &Sample| {
            let value = match &sample.value {
                Measured::Counter(count) => {
                    Number::Whole(i64::try_from(*count).unwrap_or(i64::MAX))
                }
                Measured::Gauge(value) => Number::Float(*value),
                Measured::Histogram(_) => return None,
            };
            Some(NumberPoint {
                start_time_unix_nano: self.start,
                time_unix_nano: self.now,
                attributes: self.attributes(sample),
                value: Some(value),
            })
        };
        samples.iter().filter_map(point).collect()
    }

    fn histogram(&self, sample: &Sample) -> Option<HistogramPoint> {
        let Measured::Histogram(of) = &sample.value else { return None };
        let bounds = of.buckets.iter().map(|(bound, _)| *bound);
        Some(HistogramPoint {
            start_time_unix_nano: self.start,
            time_unix_nano: self.now,
            count: of.count,
            sum: Some(of.sum),
            bucket_counts: of.buckets.iter().map(|(_, count)| *count).collect(),
            // The bucket above the last bound has no explicit bound.
            explicit_bounds: bounds.filter(|bound| bound.is_finite()).collect(),
            attributes: self.attributes(sample),
        })
    }

    fn attributes(&self, sample: &Sample) -> Vec<KeyValue> {
        self.metric.labels.iter().zip(&sample.labels).map(|(key, value)| text(key, value)).collect()
    }
}
