//! OTLP: what a collector receives, decoded with the official types; a sender's trace continues to
//! LaunchDarkly; and nothing waits for the collector.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use cohortd::operate::metrics::catalogue;
use cohortd::sandbox::{Fault, View};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use rustix::process::Signal;
use serde_json::Value;
use tokio::sync::watch;

use crate::harness::{
    Cohortd, DEADLINE, ENVIRONMENT, Installation, SHARED_SECRET, identify, launchdarkly,
};
use crate::needs::OTLP;
use crate::python;

const NOW_MS: i64 = 1_750_000_000_000;
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PLANTED: &str = "planted";

/// What a collector received.
#[derive(Default)]
struct Received {
    spans: Vec<Span>,
    /// Everything is answered 503 while this is set, and only counted.
    is_away: bool,
    spans_refused: usize,
    metrics: BTreeMap<String, Metric>,
    /// Every header and body; the first item is `traces` or `metrics`.
    raw: Vec<(&'static str, HeaderMap, Bytes)>,
}

#[derive(Clone)]
struct Collector {
    received: Arc<Mutex<Received>>,
    news: watch::Sender<()>,
    address: SocketAddr,
}

impl Collector {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let collector = Self { received: Arc::default(), news: watch::Sender::default(), address };
        let router = Router::new()
            .route("/otlp/v1/traces", post(traces))
            .route("/otlp/v1/metrics", post(metrics))
            .with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        collector
    }

    /// Whether a request is refused; `count` notes it.
    fn refuses(&self, count: impl FnOnce(&mut Received)) -> bool {
        let mut received = self.received.lock().expect("no test panics while it holds this");
        let is_away = received.is_away;
        if is_away {
            count(&mut received);
        }
        drop(received);
        self.news.send_replace(());
        is_away
    }

    fn take(
        &self,
        kind: &'static str,
        headers: HeaderMap,
        body: &Bytes,
        then: impl FnOnce(&mut Received),
    ) {
        let mut received = self.received.lock().expect("no test panics while it holds this");
        received.raw.push((kind, headers, body.clone()));
        then(&mut received);
        drop(received);
        self.news.send_replace(());
    }

    /// Waits until `look` finds something in what was received.
    async fn until<T>(&self, look: impl Fn(&Received) -> Option<T>) -> T {
        let mut news = self.news.subscribe();
        let found = async {
            loop {
                let found =
                    look(&self.received.lock().expect("no test panics while it holds this"));
                if let Some(found) = found {
                    return found;
                }
                news.changed().await.expect("the sender lives as long as this");
            }
        };
        tokio::time::timeout(DEADLINE, found).await.expect("the collector is sent it in time")
    }
}

async fn traces(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let message = ExportTraceServiceRequest::decode(body.clone()).expect("a message of OTLP");
    let scopes = message.resource_spans.into_iter().flat_map(|of| of.scope_spans);
    let spans: Vec<Span> = scopes.flat_map(|scope| scope.spans).collect();
    let count = spans.len();
    if collector.refuses(|received| received.spans_refused += count) {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    collector.take("traces", headers, &body, |received| received.spans.extend(spans));
    StatusCode::OK
}

async fn metrics(
    State(collector): State<Collector>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    if collector.refuses(|_| {}) {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let message = ExportMetricsServiceRequest::decode(body.clone()).expect("a message of OTLP");
    let scopes = message.resource_metrics.into_iter().flat_map(|of| of.scope_metrics);
    let metrics = scopes.flat_map(|scope| scope.metrics);
    let named = metrics.map(|metric| (metric.name.clone(), metric));
    let named: BTreeMap<_, _> = named.collect();
    collector.take("metrics", headers, &body, |received| received.metrics = named);
    StatusCode::OK
}

fn attributes(list: &[KeyValue]) -> BTreeMap<String, String> {
    let value = |pair: &KeyValue| match pair.value.as_ref().and_then(|any| any.value.as_ref()) {
        Some(Any::StringValue(text)) => text.clone(),
        Some(Any::IntValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    };
    list.iter().map(|pair| (pair.key.clone(), value(pair))).collect()
}

fn installed(launchdarkly: &cohortd::sandbox::StandIn, collector: SocketAddr) -> Installation {
    let mut installation = Installation::new(launchdarkly);
    installation.set("telemetry.otlp_endpoint", &format!("http://{collector}/otlp"));
    installation.set("telemetry.otlp_headers", "x-key: planted-collector-key");
    installation.set("telemetry.metrics_every_s", "1");
    installation
}

/// Posts an event as part of a trace.
async fn post_in_trace(cohortd: &Cohortd, user: &str, traceparent: &str) {
    let body = identify(user, "vip", true, NOW_MS).to_string();
    let secret = cohortd::secret::Secret::new(SHARED_SECRET);
    let signature = cohortd::sandbox::sign(&secret, body.as_bytes());
    let url = format!("http://{}/segment/production", cohortd.public);
    let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build();
    let request = client.expect("a plain client").post(url).body(body);
    let request = request.header("x-signature", signature).header("traceparent", traceparent);
    assert_eq!(request.send().await.expect("an answer").status(), 200);
}

async fn a_senders_trace_goes_on_to_launchdarkly_and_its_spans_to_the_collector() {
    let launchdarkly = launchdarkly().await;
    let collector = Collector::start().await;
    let mut installation = installed(&launchdarkly, collector.address);
    installation.set("telemetry.trace_percent", "0"); // only traces that the sender started are recorded
    let cohortd = installation.start();
    // Both are sent in one call.
    let steer = |verb| installation.types(Some(cohortd.admin), &[verb, "production"]).done();
    steer("pause");
    // The first call fails, and its retry belongs to the same traces.
    launchdarkly.script(
        |call| {
            if call.call_number == 1 { Fault::status(503) } else { Fault::None }
        },
    );
    let first = format!("00-{}-{}-01", "1".repeat(32), "1".repeat(16));
    post_in_trace(&cohortd, "planted-first", &first).await;
    let last = format!("00-{TRACE}-b7ad6b7169203331-01");
    post_in_trace(&cohortd, "planted-last", &last).await;
    steer("resume");
    let both = |view: &View<'_>| {
        ["planted-first", "planted-last"].iter().all(|user| view.has(ENVIRONMENT, "aud_vip", user))
    };
    launchdarkly.until(DEADLINE, both).await.expect("delivered");

    let spans = collector
        .until(|received| {
            let calls = received.spans.iter().filter(|span| span.kind == 3);
            (calls.count() >= 2).then(|| received.spans.clone())
        })
        .await;
    let of_kind = |kind: i32| spans.iter().filter(move |span| span.kind == kind);
    let server = of_kind(2).find(|span| hex::encode(&span.trace_id) == TRACE).expect("the request");
    assert_eq!(hex::encode(&server.parent_span_id), "b7ad6b7169203331");
    assert_eq!(server.name, "POST /segment/{destination}");
    let expected = [
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("http.route", "/segment/{destination}"),
        ("url.path", "/segment/production"),
        ("url.scheme", "http"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(attributes(&server.attributes), BTreeMap::from(expected));
    let record = of_kind(1).find(|span| span.trace_id == server.trace_id).expect("the record");
    assert_eq!((&record.name[..], &record.parent_span_id), ("record", &server.span_id));
    assert!(server.start_time_unix_nano <= record.start_time_unix_nano);

    let calls: Vec<&Span> = of_kind(3).collect();
    for call in &calls {
        assert_eq!(call.parent_span_id, record.span_id, "of the latest request");
        let linked: Vec<String> =
            call.links.iter().map(|link| hex::encode(&link.trace_id)).collect();
        assert_eq!(linked, ["1".repeat(32)], "and linked to the other");
        let attributes = attributes(&call.attributes);
        let url = launchdarkly.url();
        let full = url.join("api/v2/segment-targets/segment-audiences").expect("a URL");
        let expected = [
            ("cohortd.audience", "aud_vip"),
            ("http.request.method", "POST"),
            ("server.address", "127.0.0.1"),
            ("url.full", full.as_str()),
        ];
        for (name, value) in expected {
            assert_eq!(attributes[name], value, "{attributes:?}");
        }
        assert_eq!(attributes["server.port"], url.port().expect("a port").to_string());
        let is_taken = attributes["http.response.status_code"] != "503";
        let error = attributes.get("error.type").map(String::as_str);
        assert_eq!(error, (!is_taken).then_some("503"));
    }
    let failed = |span: &Span| span.status.as_ref().is_some_and(|status| status.code == 2);
    assert_eq!(calls.iter().map(|span| failed(span)).collect::<Vec<_>>(), [true, false]);
    let sent: Vec<Option<String>> =
        launchdarkly.log().into_iter().map(|call| call.traceparent).collect();
    let ours =
        calls.iter().map(|call| Some(format!("00-{TRACE}-{}-01", hex::encode(&call.span_id))));
    assert_eq!(sent[..2], ours.collect::<Vec<_>>());

    // A trace that is not recorded is passed on all the same. Events without a trace are sent in one that
    // is not recorded.
    post_in_trace(
        &cohortd,
        "planted-quiet",
        &format!("00-{}-{}-00", "2".repeat(32), "2".repeat(16)),
    )
    .await;
    let has = |view: &View<'_>| view.has(ENVIRONMENT, "aud_vip", "planted-quiet");
    launchdarkly.until(DEADLINE, has).await.expect("delivered");
    let sent = launchdarkly.log().pop().and_then(|call| call.traceparent).expect("a header");
    assert!(
        sent.starts_with(&format!("00-{}-", "2".repeat(32))) && sent.ends_with("-00"),
        "{sent}"
    );

    assert!(cohortd.stop().0.success());
    let received = collector.received.lock().expect("no test panics while it holds this");
    assert!(received.spans.iter().all(|span| hex::encode(&span.trace_id) != "2".repeat(32)));
    for (_, headers, body) in &received.raw {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        assert_eq!(headers["x-key"], "planted-collector-key");
        let said = String::from_utf8_lossy(body);
        assert!(!said.contains(PLANTED) && !said.contains(SHARED_SECRET), "{said}");
    }
}

async fn the_collector_is_sent_the_metrics_of_the_catalogue() {
    let launchdarkly = launchdarkly().await;
    let collector = Collector::start().await;
    let cohortd = installed(&launchdarkly, collector.address).start();
    cohortd.post(&identify("ada", "vip", true, NOW_MS)).await.expect("an answer");
    let found = collector
        .until(|received| {
            let delivered = received.metrics.get("cohortd_last_delivery_timestamp_seconds")?;
            delivered.data.as_ref().map(|_| received.metrics.clone())
        })
        .await;
    for metric in found.values() {
        let known = catalogue::ALL.iter().find(|known| known.name == metric.name).expect("listed");
        assert_eq!((&metric.unit[..], &metric.description[..]), (known.unit.ucum(), known.help));
        let labels = |list: &[KeyValue]| attributes(list).into_keys().collect::<BTreeSet<_>>();
        let expected = known.labels.iter().map(ToString::to_string).collect();
        let found: Vec<BTreeSet<String>> = match metric.data.as_ref().expect("data") {
            Data::Sum(sum) => {
                assert!(sum.is_monotonic && sum.aggregation_temporality == 2, "{}", metric.name);
                sum.data_points.iter().map(|point| labels(&point.attributes)).collect()
            }
            Data::Gauge(gauge) => {
                gauge.data_points.iter().map(|point| labels(&point.attributes)).collect()
            }
            Data::Histogram(histogram) => histogram
                .data_points
                .iter()
                .map(|point| {
                    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
                    assert_eq!(point.count, point.bucket_counts.iter().sum::<u64>());
                    labels(&point.attributes)
                })
                .collect(),
            other => panic!("{other:?}"),
        };
        assert!(!found.is_empty() && found.iter().all(|labels| *labels == expected), "{found:?}");
    }
    let Some(Data::Sum(delivered)) = &found["cohortd_members_delivered"].data else { panic!() };
    let value = delivered.data_points[0].value;
    assert_eq!(value, Some(number_data_point::Value::AsInt(1)));
}

/// An unknown path is arbitrary text of a stranger.
async fn a_path_that_does_not_exist_is_not_told() {
    let launchdarkly = launchdarkly().await;
    let collector = Collector::start().await;
    let cohortd = installed(&launchdarkly, collector.address).start();
    let client = reqwest::Client::builder().no_proxy().build().expect("a plain client");
    for path in ["livez", "segment/planted", "planted", "v1/planted?planted"] {
        let url = format!("http://{}/{path}", cohortd.public);
        client.get(url).send().await.expect("an answer");
    }
    let told = |received: &Received| (received.spans.len() == 4).then(|| received.spans.clone());
    let spans = collector.until(told).await;
    let paths: Vec<String> =
        spans.iter().map(|span| attributes(&span.attributes)["url.path"].clone()).collect();
    assert_eq!(paths, ["/livez", "/REDACTED", "/REDACTED", "/REDACTED"]);
    let received = collector.received.lock().expect("no test panics while it holds this");
    for (_, _, body) in &received.raw {
        assert!(!body.windows(7).any(|bytes| bytes == b"planted"), "{body:?}");
    }
}

/// A metric's name by OpenTelemetry's rules for Prometheus: with its unit, and with `_total` for counters.
fn translated(metric: &Value) -> String {
    let text = |key: &str| metric[key].as_str().unwrap_or_default();
    let (mut name, is_gauge) = (text("name").to_owned(), metric.get("gauge").is_some());
    let unit = match text("unit") {
        "s" => "seconds",
        "By" => "bytes",
        "1" if is_gauge => "ratio",
        "1" | "" => "",
        other => panic!("a unit that the test does not know: {other}"),
    };
    if !unit.is_empty() && !name.split('_').any(|word| word == unit) {
        name = format!("{name}_{unit}");
    }
    if metric["sum"]["isMonotonic"] == true {
        name = format!("{}_total", name.trim_end_matches("_total"));
    }
    name
}

/// Google's protobuf decodes what is sent with OpenTelemetry's definitions, and the names that a collector
/// would pass on to Prometheus are those in `/metrics`.
async fn another_decoder_reads_what_is_sent_and_prometheus_finds_the_names_it_knows() {
    let decoded = |kind: &str, body: &[u8]| -> Value {
        let mut decoder = Command::new(python::OTLP.program("python"));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/otlp/decode.py");
        decoder.args([script, kind]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut decoder = decoder.spawn().expect("it was installed");
        decoder.stdin.take().expect("it is piped").write_all(body).expect("it reads");
        let output = decoder.wait_with_output().expect("it ends");
        assert!(output.status.success(), "it says why on standard error");
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let launchdarkly = launchdarkly().await;
    let collector = Collector::start().await;
    let cohortd = installed(&launchdarkly, collector.address).start();
    cohortd.post(&identify("ada", "vip", true, NOW_MS)).await.expect("an answer");
    let delivered = "cohortd_last_delivery_timestamp_seconds";
    collector.until(|received| received.metrics.contains_key(delivered).then_some(())).await;
    collector.until(|received| received.spans.iter().find(|span| span.kind == 3).map(|_| ())).await;
    let (_, exposed) = cohortd.metrics("text/plain").await;
    assert!(cohortd.stop().0.success());

    // the first word is the kind of metric
    let families = exposed.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let families: BTreeSet<&str> = families.filter_map(|line| line.split(' ').next()).collect();
    let sent = collector.received.lock().expect("no test panics while it holds this").raw.clone();
    let (mut metrics, mut instances) = (BTreeSet::new(), BTreeSet::new());
    for (kind, _, body) in &sent {
        let message = decoded(kind, body);
        let (resources, scopes, items) = match *kind {
            "metrics" => ("resourceMetrics", "scopeMetrics", "metrics"),
            _ => ("resourceSpans", "scopeSpans", "spans"),
        };
        let of = &message[resources][0];
        let attributes = of["resource"]["attributes"].as_array().expect("a list");
        let instance = attributes.iter().find(|of| of["key"] == "service.instance.id");
        let instance = instance.map(|of| of["value"]["stringValue"].clone());
        instances.insert(instance.expect("it is there").to_string());
        for item in of[scopes][0][items].as_array().expect("a list") {
            if *kind == "metrics" {
                metrics.insert(translated(item));
            } else {
                let attributes = item["attributes"].as_array().expect("a list");
                let has = |key: &str| attributes.iter().any(|of| of["key"] == key);
                let needed: &[&str] = match item["kind"].as_str().unwrap_or_default() {
                    "SPAN_KIND_SERVER" => &["http.request.method", "url.path", "url.scheme"],
                    "SPAN_KIND_CLIENT" => {
                        &["http.request.method", "server.address", "server.port", "url.full"]
                    }
                    _ => &[],
                };
                assert!(needed.iter().all(|key| has(key)), "{item}");
            }
        }
    }
    let metrics: BTreeSet<&str> = metrics.iter().map(String::as_str).collect();
    assert_eq!(metrics, families);
    assert_eq!(instances.len(), 1, "one process is one instance: {instances:?}");
}

async fn a_collector_that_is_away_costs_one_warning_and_no_event() {
    let launchdarkly = launchdarkly().await;
    let away = std::net::TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr());
    let cohortd = installed(&launchdarkly, away.expect("loopback")).start();
    for user in ["ada", "bob"] {
        let answer = cohortd.post(&identify(user, "vip", true, NOW_MS)).await;
        assert_eq!(answer.expect("an answer").0, 200);
        let has = |view: &View<'_>| view.has(ENVIRONMENT, "aud_vip", user);
        launchdarkly.until(DEADLINE, has).await.expect("delivered");
        cohortd
            .logged(
                "the telemetry collector did not accept an export: spans are dropped until it does",
            )
            .await;
    }
    let (status, log) = cohortd.stop();
    assert!(status.success());
    let warnings = log.iter().filter(|line| line.contains("the telemetry collector")).count();
    assert_eq!(warnings, 1, "{}", log.join("\n"));
}

async fn a_collector_that_is_back_is_logged_with_how_many_spans_were_lost() {
    let launchdarkly = launchdarkly().await;
    let collector = Collector::start().await;
    let set_away = |is_away| {
        let received = collector.received.lock();
        received.expect("no test panics while it holds this").is_away = is_away;
    };
    set_away(true);
    let cohortd = installed(&launchdarkly, collector.address).start();
    cohortd.post(&identify("ada", "vip", true, NOW_MS)).await.expect("an answer");
    collector.until(|received| (received.spans_refused > 0).then_some(())).await;
    cohortd
        .logged("the telemetry collector did not accept an export: spans are dropped until it does")
        .await;
    set_away(false);
    cohortd.post(&identify("bob", "vip", true, NOW_MS)).await.expect("an answer");
    let line = cohortd.until_logged("the telemetry collector accepts exports again").await;
    let refused = collector.until(|received| Some(received.spans_refused)).await;
    assert_eq!(line["spans_dropped"], refused, "{line}");
    assert!(cohortd.stop().0.success());
}

/// A reload gives a courier a new client, which is traced too.
async fn a_trace_goes_on_to_launchdarkly_after_a_reload_too() {
    let launchdarkly = launchdarkly().await;
    let collector = Collector::start().await;
    let installation = installed(&launchdarkly, collector.address);
    installation.write_config("");
    let cohortd = installation.start();
    installation.write_config("[destinations.production.delivery]\nmax_batch = 10\n");
    cohortd.signal(Signal::HUP);
    cohortd.logged("configuration reloaded").await;
    post_in_trace(&cohortd, "ada", &format!("00-{TRACE}-b7ad6b7169203331-01")).await;
    let has = |view: &View<'_>| view.has(ENVIRONMENT, "aud_vip", "ada");
    launchdarkly.until(DEADLINE, has).await.expect("delivered");
    let sent = launchdarkly.log().pop().and_then(|call| call.traceparent).expect("a header");
    assert!(sent.starts_with(&format!("00-{TRACE}-")), "{sent}");
    assert!(cohortd.stop().0.success());
}

tests![
    a_senders_trace_goes_on_to_launchdarkly_and_its_spans_to_the_collector,
    the_collector_is_sent_the_metrics_of_the_catalogue,
    a_path_that_does_not_exist_is_not_told,
    another_decoder_reads_what_is_sent_and_prometheus_finds_the_names_it_knows.needs(&OTLP),
    a_collector_that_is_away_costs_one_warning_and_no_event,
    a_collector_that_is_back_is_logged_with_how_many_spans_were_lost,
    a_trace_goes_on_to_launchdarkly_after_a_reload_too,
];
