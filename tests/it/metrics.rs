//! `/metrics` of the running daemon: it exposes what the manual lists, in a form that Prometheus' own tool
//! accepts, and the numbers match what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use cohortd::sandbox::{Apply, Fault, StandIn, View, sign};
use cohortd::secret::Secret;
use serde_json::Value;

use crate::harness::{
    Cohortd, DEADLINE, ENVIRONMENT, Installation, SHARED_SECRET, identify, launchdarkly,
};
use crate::needs::PROMTOOL;

const NOW_MS: i64 = 1_750_000_000_000;
const REFUSED: &str = "nobody";

type Labels<'a> = &'a [(&'a str, &'a str)];

/// A parsed exposition.
#[derive(Debug, Default)]
struct Exposition {
    /// Each metric's type.
    metrics: BTreeMap<String, String>,
    /// Each sample's value, by name and labels.
    samples: BTreeMap<(String, BTreeMap<String, String>), f64>,
}

impl Exposition {
    /// Parses the text format and checks what Prometheus' tool would complain about: samples have a `HELP`
    /// and a `TYPE`, no sample is duplicated, buckets are complete and ascending.
    fn parse(text: &str) -> Self {
        let mut read = Self::default();
        let mut helped = None;
        let mut current = (String::new(), String::new());
        assert!(text.ends_with('\n'), "it ends with a line");
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help");
                assert!(!help.is_empty(), "{line}");
                helped = Some(name.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert_eq!(helped.take().as_deref(), Some(name), "a help stands before {line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                let before = read.metrics.insert(name.to_owned(), kind.to_owned());
                assert_eq!(before, None, "{name} stands in one place");
                current = (name.to_owned(), kind.to_owned());
            } else {
                let (name, labels, value) = sample(line);
                let (metric, kind) = &current;
                let suffix = name.strip_prefix(metric.as_str()).expect(line);
                let known = match kind.as_str() {
                    "histogram" => ["_bucket", "_sum", "_count"].contains(&suffix),
                    _ => suffix.is_empty(),
                };
                assert!(known, "{line} stands under {metric}");
                let before = read.samples.insert((name, labels), value);
                assert_eq!(before, None, "{line} comes once");
            }
        }
        read.check_histograms();
        read
    }

    fn check_histograms(&self) {
        let mut series: BTreeMap<_, Vec<(f64, f64)>> = BTreeMap::new();
        for ((name, labels), value) in &self.samples {
            let Some(metric) = name.strip_suffix("_bucket") else { continue };
            let mut labels = labels.clone();
            let bound = labels.remove("le").expect("a bucket has a bound");
            let bound = bound.parse().expect("a bound is a number");
            series.entry((metric.to_owned(), labels)).or_default().push((bound, *value));
        }
        assert!(!series.is_empty());
        for ((metric, labels), mut buckets) in series {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(buckets.is_sorted_by_key(|(_, count)| *count), "{metric} {labels:?}");
            let (last, all) = buckets.last().expect("not empty");
            assert!(last.is_infinite(), "{metric}");
            let count = self.samples[&(format!("{metric}_count"), labels.clone())];
            assert_eq!(count.to_bits(), all.to_bits(), "{metric} {labels:?}");
            assert!(self.samples.contains_key(&(format!("{metric}_sum"), labels)));
        }
    }

    /// The value of the only sample with this name and these labels.
    fn value(&self, name: &str, labels: Labels<'_>) -> Option<f64> {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.samples.get(&(name.to_owned(), labels.collect())).copied()
    }
}

/// `name{label="value",…} 1.5`
fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (series, value) = line.rsplit_once(' ').expect(line);
    let value = value.parse().expect(line);
    let (name, inside) = series.split_once('{').unwrap_or((series, "}"));
    let well_formed =
        name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    assert!(well_formed && name.starts_with("cohortd_"), "{line}");
    let inside = inside.strip_suffix('}').expect(line).trim_end_matches(',');
    let mut labels = BTreeMap::new();
    for pair in inside.split(',').filter(|pair| !pair.is_empty()) {
        let (label, quoted) = pair.split_once('=').expect(line);
        let value = quoted.strip_prefix('"').and_then(|v| v.strip_suffix('"')).expect(line);
        assert!(!value.contains(['"', '\\']), "no value of ours needs escaping: {line}");
        assert_eq!(labels.insert(label.to_owned(), value.to_owned()), None, "{line}");
    }
    (name.to_owned(), labels, value)
}

/// By `promtool check metrics`.
fn promtool_accepts(text: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = command.spawn().expect("promtool is there");
    let mut stdin = promtool.stdin.take().expect("it is piped");
    stdin.write_all(text.as_bytes()).expect("it reads");
    drop(stdin);
    let said = promtool.wait_with_output().expect("it ends");
    let complaint = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(said.status.success() && complaint.is_empty(), "{complaint}");
}

/// The manual's table: name, type, labels.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let page = cohortd::manual::topic("metrics").expect("it is there").text;
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `cohortd_"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let labels = cells[2].split(", ").map(|label| label.trim_matches('`').to_owned());
        let labels = labels.filter(|label| !label.is_empty()).collect();
        let name = format!("cohortd_{}", cells[0].trim_end_matches('`'));
        (name, (cells[1].to_owned(), labels))
    })
    .collect()
}

async fn until_has(launchdarkly: &StandIn, user: &'static str) {
    let has = |view: &View<'_>| view.has(ENVIRONMENT, "aud_vip", user);
    launchdarkly.until(DEADLINE, has).await.expect("delivered");
}

/// Causes every kind of event and answer once.
async fn traffic(cohortd: &Cohortd, launchdarkly: &StandIn) {
    let post = async |event: &Value| cohortd.post(event).await.expect("an answer").0;
    let vip = |user, at| identify(user, "vip", true, at);
    // The first call is rate limited, the second is not answered.
    launchdarkly.script(|call| match call.call_number {
        1 => Fault::status(429),
        2 => Fault::Reset { apply: Apply::No },
        _ => Fault::None,
    });
    assert_eq!(post(&vip("ada", NOW_MS)).await, 200);
    until_has(launchdarkly, "ada").await;
    assert_eq!(post(&vip("ada", NOW_MS)).await, 200, "a repeat");
    assert_eq!(post(&vip("ada", NOW_MS - 1)).await, 200, "an older one");
    launchdarkly.refuse_members(|user| user == REFUSED);
    assert_eq!(post(&vip(REFUSED, NOW_MS)).await, 200);
    cohortd.until_logged("members refused: parked; the latest is shown").await;
    let page = serde_json::json!({"type": "page", "userId": "ada"});
    assert_eq!(post(&page).await, 200);
    let mut unclear = vip("ada", NOW_MS);
    unclear["traits"]["vip"] = "perhaps".into();
    assert_eq!(post(&unclear).await, 400);
    let wrong = sign(&Secret::new("wrong"), b"{}");
    assert_eq!(cohortd.post_raw("{}", wrong).await.expect("an answer").status(), 401);
    let (status, _) = cohortd.post_to("nowhere", "{}".to_owned(), "{}").await.expect("an answer");
    assert_eq!(status, 404);
    let signature = sign(&Secret::new(SHARED_SECRET), b"{");
    assert_eq!(cohortd.post_raw("{", signature).await.expect("an answer").status(), 400);
    // The last answer reports the remaining rate limit.
    let limits = [("global-limit", "600"), ("global-remaining", "599"), ("route-remaining", "3")];
    let headers = limits.map(|(name, value)| (format!("x-ratelimit-{name}"), value.to_owned()));
    launchdarkly.script(move |_| Fault::AnswerAfterApply {
        status: 200,
        headers: headers.clone().into(),
        body: None,
    });
    assert_eq!(post(&vip("bob", NOW_MS)).await, 200);
    until_has(launchdarkly, "bob").await;
}

async fn what_the_manual_lists_is_exposed_and_counts_what_happened() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    traffic(&cohortd, &launchdarkly).await;
    cohortd.until_status(|status| status["destinations"]["production"]["parked"] == 1).await;
    installation.drained().await;

    let (kind, text) = cohortd.metrics("*/*").await;
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    let exposition = Exposition::parse(&text);

    let mut documented = documented();
    // of a listener that speaks TLS: tests/it/tls.rs
    let of_tls = documented.remove("cohortd_tls_certificate_expires_timestamp_seconds");
    assert!(of_tls.is_some());
    let exposed: BTreeSet<&String> = exposition.metrics.keys().collect();
    assert_eq!(exposed, documented.keys().collect(), "the manual's table");
    for (series, labels) in exposition.samples.keys() {
        let owner = documented.iter().filter(|(name, _)| series.starts_with(name.as_str()));
        let (name, (kind, known)) = owner.max_by_key(|(name, _)| name.len()).expect(series);
        assert_eq!(&exposition.metrics[name], kind, "{name}");
        let labels = labels.keys().filter(|label| *label != "le").cloned();
        assert_eq!(&labels.collect::<BTreeSet<_>>(), known, "{series}");
    }

    let of = ("destination", "production");
    let counted: &[(&str, Labels<'_>, f64)] = &[
        ("ready", &[], 1.0),
        ("requests_total", &[of, ("outcome", "done")], 6.0),
        ("requests_total", &[of, ("outcome", "all_rejected")], 1.0),
        ("requests_total", &[of, ("outcome", "unauthenticated")], 1.0),
        ("requests_total", &[of, ("outcome", "bad_json")], 1.0),
        ("requests_total", &[("destination", "-"), ("outcome", "unknown_destination")], 1.0),
        ("request_duration_seconds_count", &[of, ("class", "2xx")], 6.0),
        ("request_duration_seconds_count", &[of, ("class", "4xx")], 3.0),
        ("events_accepted_total", &[of], 5.0),
        ("events_ignored_total", &[of], 1.0),
        ("events_rejected_total", &[of, ("reason", "membership_unknown")], 1.0),
        ("events_rejected_total", &[of, ("reason", "no_context_key")], 0.0),
        ("deltas_total", &[of], 5.0),
        ("repeats_suppressed_total", &[of], 1.0),
        ("deltas_overtaken_total", &[of], 1.0),
        ("rejected_events", &[of], 1.0),
        // one of them twice: it is unknown whether the first call with it was applied
        ("members_delivered_total", &[of], 3.0),
        ("members_parked_total", &[of], 1.0),
        ("parked_members", &[of], 1.0),
        ("pending_members", &[of], 0.0),
        ("calls_total", &[of, ("status", "429")], 1.0),
        ("calls_total", &[of, ("status", "none")], 1.0),
        ("rate_limit_calls", &[of, ("limit", "global")], 600.0),
        ("rate_limit_remaining_calls", &[of, ("limit", "global")], 599.0),
        ("rate_limit_remaining_calls", &[of, ("limit", "route")], 3.0),
    ];
    for (name, labels, expected) in counted {
        let found = exposition.value(&format!("cohortd_{name}"), labels);
        assert_eq!(found, Some(*expected), "{name} {labels:?}\n{text}");
    }
    let some = |name: &str, labels: Labels<'_>| {
        let found = exposition.value(&format!("cohortd_{name}"), labels);
        assert!(found.is_some_and(|value| value > 0.0), "{name} {labels:?}: {found:?}");
    };
    some("call_duration_seconds_count", &[of, ("outcome", "taken")]);
    some("call_duration_seconds_count", &[of, ("outcome", "unavailable")]);
    some("ledger_sync_duration_seconds_count", &[]);
    some("ledger_commit_rows_count", &[]);
    some("ledger_size_bytes", &[]);
    some("ledger_disk_free_bytes", &[]);
    for time in ["last_event", "last_delivery"] {
        some(&format!("{time}_timestamp_seconds"), &[of]);
    }
}

async fn prometheus_takes_what_is_exposed() {
    let launchdarkly = launchdarkly().await;
    let cohortd = Installation::new(&launchdarkly).start();
    traffic(&cohortd, &launchdarkly).await;
    promtool_accepts(&cohortd.metrics("*/*").await.1);
}

async fn open_metrics_is_there_for_whoever_asks_and_a_state_is_one_of_seven() {
    let launchdarkly = launchdarkly().await;
    let cohortd = Installation::new(&launchdarkly).start();
    let state = async || {
        let exposition = Exposition::parse(&cohortd.metrics("text/plain").await.1);
        let is = |state| {
            let labels = [("destination", "production"), ("state", state)];
            exposition.value("cohortd_destination_state", &labels)
        };
        let all = [
            "waiting for the first event",
            "ok",
            "attention",
            "catching up",
            "behind",
            "paused",
            "held",
        ];
        let shown = all.into_iter().filter(|state| is(state).expect("each is shown") > 0.0);
        shown.collect::<Vec<_>>()
    };
    assert_eq!(state().await, ["waiting for the first event"]);
    launchdarkly.script(|_| Fault::status(401));
    cohortd.post(&identify("ada", "vip", true, NOW_MS)).await.expect("an answer");
    cohortd.until_status(|status| status["destinations"]["production"]["state"] == "held").await;
    assert_eq!(state().await, ["held"]);

    // As Prometheus asks.
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
    let (kind, text) = cohortd.metrics(accept).await;
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert!(text.contains("# TYPE cohortd_calls counter\n"), "{text}");
    assert!(
        text.contains("cohortd_calls_total{destination=\"production\",status=\"401\"}"),
        "{text}"
    );
}

tests![
    what_the_manual_lists_is_exposed_and_counts_what_happened,
    prometheus_takes_what_is_exposed.needs(&PROMTOOL),
    open_metrics_is_there_for_whoever_asks_and_a_state_is_one_of_seven,
];
