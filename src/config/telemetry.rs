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
    /// The base URL of `/v1/traces` and `/v1/metrics`. http or https; without query or user name.
    pub otlp_endpoint: Url,
    /// Headers sent with each export. Their values are secrets and not shown by `Debug`.
    pub otlp_headers: Vec<(HeaderName, HeaderValue)>,
    /// Time between two exports of metrics.
    pub metrics_every: Duration,
    /// The percentage of requests without a trace context for which a trace is started.
    pub trace_percent: u8,
}

impl Telemetry {
    /// `None` if no collector is configured.
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

/// Reads headers in the form `name: value`.
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
