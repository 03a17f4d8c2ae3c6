//! What a mapping costs for an event, beside parsing the event's JSON: single-threaded, no daemon.
//!
//! `cargo bench --bench mapping`
//!
//! Rounds take turns, so that a ratio compares neighbours in time.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use cohortd::map::{Mapping, Mappings, Outcome, Subscription};
use cohortd::membership::Timestamp;
use serde_json::{Value, json};

const ROUNDS: usize = 15;
const EVENTS_A_ROUND: u32 = 20_000;
const ARRIVAL: Timestamp = Timestamp(1_750_000_000_000_000);

fn main() -> ExitCode {
    if !std::env::args().any(|word| word == "--bench") {
        return ExitCode::SUCCESS;
    }
    let text = event().to_string();
    let parsed = event();
    let (preset, heavy) = (Mappings::from(Mapping::preset()), heavy());
    for mappings in [&preset, &heavy] {
        let outcome = mappings.map(&parsed, ARRIVAL);
        assert!(matches!(outcome, Outcome::Accepted { .. }), "the mapping reads the event");
    }
    let statement = r#"type = "identify" and (traits.plan in ["pro", "team"] or match(context.page.url, "https://*"))"#;
    let subscription = Subscription::parse(statement).expect("a statement");
    assert!(subscription.selects(&parsed));

    let mut parsing = Vec::new();
    let mut rows = [
        ("JSON and mapping, plain", Vec::new()),
        ("default mapping", Vec::new()),
        ("20 directives", Vec::new()),
        ("FQL, 3 conditions", Vec::new()),
    ];
    for _ in 0..ROUNDS {
        parsing.push(nanos(|| drop(black_box(cohortd::json::from_str::<Value>(black_box(&text))))));
        rows[0].1.push(nanos(|| {
            drop(black_box(preset.map_plain(black_box(text.as_bytes()), ARRIVAL)));
        }));
        rows[1].1.push(nanos(|| drop(black_box(preset.map(black_box(&parsed), ARRIVAL)))));
        rows[2].1.push(nanos(|| drop(black_box(heavy.map(black_box(&parsed), ARRIVAL)))));
        rows[3].1.push(nanos(|| {
            black_box(subscription.selects(black_box(&parsed)));
        }));
    }
    println!("{:<24} {:>12} {:>24}", "", "ns an event", "ratio to JSON parsing");
    println!("{:<24} {:>12.0}", format!("JSON of {} bytes", text.len()), median(parsing.clone()));
    for (name, nanos) in rows {
        let ratios = nanos.iter().zip(&parsing).map(|(nanos, parsing)| nanos / parsing).collect();
        println!("{name:<24} {:>12.0} {:>24.3}", median(nanos), median(ratios));
    }
    ExitCode::SUCCESS
}

fn nanos(mut work: impl FnMut()) -> f64 {
    let began = Instant::now();
    for _ in 0..EVENTS_A_ROUND {
        work();
    }
    began.elapsed().as_secs_f64() * 1e9 / f64::from(EVENTS_A_ROUND)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// As Segment sends it, with the fields of a web page.
fn event() -> Value {
    json!({
        "type": "identify", "messageId": "personas_2rPkZ1fJ0bQp3K0sYtqKJm3mXtH", "userId": "user-4711",
        "anonymousId": "4b6c1a0e-2f77-4d6e-9f0e-1d7f0a3c5b21", "timestamp": "2025-06-15T15:06:39.512Z",
        "receivedAt": "2025-06-15T15:06:40.120Z", "sentAt": "2025-06-15T15:06:39.900Z",
        "originalTimestamp": "2025-06-15T15:06:39.512Z", "version": 2, "channel": "server",
        "traits": {
            "high_value_customers": true, "email": "Ada.Lovelace@Example.com", "plan": "pro",
            "name": "Ada Lovelace", "visits": 42, "tags": ["a", "b", "c"],
            "address": {"city": "London", "country": "UK"}, "blob": "{\"k\":[1,2]}",
        },
        "context": {
            "personas": {
                "computation_class": "audience", "computation_id": "aud_2rPjxlPyAm4d1Yx0",
                "computation_key": "high_value_customers", "namespace": "spa_x", "space_id": "spa_y",
            },
            "page": {"url": "https://example.com/pricing", "title": "Pricing"}, "locale": "en-GB",
            "library": {"name": "unknown", "version": "unknown"},
        },
        "integrations": {"All": false, "Webhooks": true}, "projectId": "p1", "writeKey": "w1",
    })
}

fn heavy() -> Mappings {
    let email = json!({"@if": {
        "exists": {"@path": "$.traits.email"},
        "then": {"@case": {"operator": "lower", "value": {"@path": "$.traits.email"}}},
        "else": {"@path": "$.context.traits.email"},
    }});
    let user = json!({"@template": "{{userId}}-{{traits.plan}}"});
    let anonymous = json!({"@replace": {"value": {"@path": "$.anonymousId"}, "pattern": "-"}});
    let properties = json!({"@merge": {"direction": "right", "objects": [
        {"@path": "$.traits"},
        {"@flatten": {"value": {"@path": "$.traits.address"}, "separator": "_"}},
        {
            "tags": {"@arrayPath": ["$.traits.tags"]},
            "blob": {"@json": {"mode": "decode", "value": {"@path": "$.traits.blob"}}},
            "greeting": {"@liquid": "{{ traits.name | split: ' ' | first | upcase }}"},
        },
        {"@transform": {
            "apply": {"n": {"@path": "$.traits.name"}},
            "mapping": {"short": {"@excludeWhenNull": {"@path": "$.n"}}},
        }},
    ]}});
    let mut mapping = Mapping::preset();
    for (field, json) in [
        ("user_email", email),
        ("segment_user_id", user),
        ("segment_anonymous_id", anonymous),
        ("traits_or_props", properties),
    ] {
        mapping.set_field(field, &json).expect("the mapping is valid");
    }
    mapping.into()
}
