//! Kept bodies that come and go: as many events are rejected as are accepted, and few of them are kept at a
//! time. What goes is overwritten, which members are spared.

use cohortd::sandbox::sign;
use serde_json::{Value, json};

use crate::daemon::{self, Installation};
use crate::load::{self, Requests};
use crate::report::{Report, Unit};
use crate::workbench::{BATCH_CONNECTIONS, Workbench, count, millis};

/// Events of a request that are accepted, and as many that are rejected.
const OF_EACH: u64 = 50;
/// What makes a body as large as one with a few traits.
const PADDING: usize = 1500;
/// Kept at a time.
const KEPT: u64 = 2000;

/// So many events are rejected in each round, after one that does not count.
pub fn measure(bench: &Workbench, events: u64, rounds: usize, report: &mut Report) {
    let requests = traffic(events / OF_EACH);
    for round in 0..=rounds {
        eprintln!("churn of kept bodies, round {round} of {rounds}");
        let mut discarded = Report::default();
        let report = if round == 0 { &mut discarded } else { &mut *report };
        let stand_in = bench.stand_in(1);
        let installation = Installation::new(&stand_in.url());
        let installation = installation.with("LEDGER__REJECTED_MAX_COUNT", &KEPT);
        let daemon = installation.start();
        let written = daemon.written_bytes();
        let load = bench.load(daemon.public, &requests, BATCH_CONNECTIONS);
        report.add("churn of kept bodies: kept", Unit::PerSecond, load.per_second());
        report.add("churn of kept bodies: p99", Unit::Milliseconds, millis(load.percentile(99)));
        daemon.until_quiet();
        let bytes = count(daemon.written_bytes() - written) / count(load::events(&requests));
        report.add("churn of kept bodies: bytes written a body, at rest", Unit::Bytes, bytes);
    }
}

fn traffic(requests: u64) -> Requests {
    let secret = daemon::shared_secret();
    let request = |number: u64| {
        let first = number * OF_EACH;
        let events = (first..first + OF_EACH).flat_map(|number| {
            let person = format!("churn{number:08}");
            [event(&json!(person)), event(&Value::Null)]
        });
        let events: Vec<String> = events.map(|event| event.to_string()).collect();
        let body = format!("[{}]", events.join(","));
        let signature = sign(&secret, events[0].as_bytes());
        load::request(daemon::DESTINATION, &signature, body.as_bytes(), OF_EACH)
    };
    (0..requests).map(request).collect()
}

/// Without a user there is no context key.
fn event(user: &Value) -> Value {
    json!({
        "type": "identify", "userId": user, "timestamp": "2026-01-01T00:00:00.000Z",
        "context": {"personas": {
            "computation_class": "audience", "computation_id": "aud_churn", "computation_key": "churn",
        }},
        "traits": {"churn": true, "padding": "x".repeat(PADDING)},
    })
}
