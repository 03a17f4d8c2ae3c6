//! `[telemetry]`: the collector that traces and metrics are sent to, if there is one.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use url::Url;

use super::listeners::A_YEAR_S;
use super::section::Section;
use super::{launchdarkly, secrets};

/// Where traces and metrics go, by OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telemetry {
    /// `/v1/traces` and `/v1/metrics` lie below it. http or https; without query and user name.
    pub otlp_endpoint: Url,
    /// Sent along; their values are secrets, and not part of `Debug`.
    pub otlp_headers: Vec<(HeaderName, HeaderValue)>,
    /// Between two reports of the metrics.
    pub metrics_every: Duration,
    /// Of a hundred requests that belong to no trace yet, so many begin one.
    pub trace_percent: u8,
}

impl Telemetry {
    /// `None`: there is no collector.
    pub(super) fn read(mut section: Section<'_>) -> Option<Self> {
        let endpoint = section.has("otlp_endpoint").then(|| {
            launchdarkly::read_url(&mut section, "otlp_endpoint", "http://localhost:4318")
        });
        let headers = read_headers(&mut section);
        let metrics_every_s = section.needed_whole("metrics_every_s", 1..=A_YEAR_S);
        let trace_percent = section.needed_whole("trace_percent", 0..=100);
        if endpoint.is_none() && !headers.is_empty() {
            let problem = "is set, and otlp_endpoint is not";
            section.fault("otlp_headers", None, problem);
        }
        section.finish();
        Some(Self {
            otlp_endpoint: endpoint?,
            otlp_headers: headers,
            metrics_every: Duration::from_secs(metrics_every_s),
            trace_percent: u8::try_from(trace_percent).unwrap_or(100),
        })
    }
}

/// `name: value`, each.
fn read_headers(section: &mut Section<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let lines = secrets::lines(section, ("otlp_headers", "otlp_headers_file"));
    let parse = |line: &str| {
        let (name, value) = line.split_once(':')?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        let mut value = HeaderValue::from_str(value.trim()).ok()?;
        value.set_sensitive(true);
        Some((name, value))
    };
    let mut headers = Vec::new();
    for (index, line) in lines.unwrap_or_default().into_iter().enumerate() {
        if let Some(header) = parse(line.expose()) {
            headers.push(header);
        } else {
            let problem = format!("item {index} must be a name, a colon and a value");
            section.fault("otlp_headers", None, problem);
        }
    }
    headers
}
