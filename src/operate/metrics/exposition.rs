//! The text formats that Prometheus reads, written by its official client library.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::catalogue::Kind;
use super::{Families, Sample, Value};

/// The content type of [`text()`].
pub const TEXT: &str = prometheus_text::CONTENT_TYPE;
/// The content type of [`open_metrics()`].
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics in Prometheus's own format, which every tool reads.
///
/// # Errors
/// Never in practice: writing to a `String` cannot fail.
pub fn text(families: Families) -> Result<String, fmt::Error> {
    let mut out = String::new();
    prometheus_text::encode(&mut out, &registry(families))?;
    Ok(out)
}

/// The metrics in the `OpenMetrics` format, which Prometheus asks for.
///
/// # Errors
/// Never in practice: writing to a `String` cannot fail.
pub fn open_metrics(families: Families) -> Result<String, fmt::Error> {
    let mut out = String::new();
    text::encode(&mut out, &registry(families))?;
    Ok(out)
}

fn registry(families: Families) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(families));
    registry
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in self.iter() {
            let metric = family.metric;
            let kind = match metric.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut encoder = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            for Sample { labels, value } in &family.samples {
                let labels: Vec<(&str, &str)> =
                    metric.labels.iter().copied().zip(labels.iter().map(String::as_str)).collect();
                let mut encoder = encoder.encode_family(&labels)?;
                match value {
                    Value::Counter(count) => {
                        encoder.encode_counter::<NoLabelSet, _, u64>(count, None)?;
                    }
                    Value::Gauge(value) => encoder.encode_gauge(value)?,
                    Value::Histogram(of) => {
                        encoder.encode_histogram::<NoLabelSet>(
                            of.sum,
                            of.count,
                            &of.buckets,
                            None,
                        )?;
                    }
                }
            }
        }
        Ok(())
    }
}
