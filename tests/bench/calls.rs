//! How many calls to LaunchDarkly a realistic stream takes, beside the one call for each webhook batch
//! and audience that Segment's hosted integration makes.
//!
//! `cargo bench --bench throughput -- --what calls [--members N] [--quick] [--json FILE]`
//!
//! Each change comes as an Identify and a Track call; a fifth of the people have two identifiers, so
//! that each of their changes comes twice; one change in twenty flaps: it is taken back in the next
//! batch. Events come as they are, of ten audiences: in batches of 100, or one to a request.
//!
//! At one batch a second, the linger of half a second is over before the next one comes: there is
//! nothing to combine but what is in one batch, which the hosted integration combines too.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cohortd::sandbox::sign;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::daemon::{self, Installation};
use crate::load::{self, Requests};
use crate::report::{Report, Unit};
use crate::workbench::{Workbench, count};

const AUDIENCES: u32 = 10;
/// Of the first event, in milliseconds of the epoch.
const FROM_MS: i64 = 1_750_000_000_000;
/// Requests a second that arrive, and how many events each has.
const RATES: [(u32, usize); 6] = [(2, 1), (20, 1), (1, 100), (4, 100), (20, 100), (100, 100)];
/// After the last batch everything is delivered well within this time.
const SETTLED: Duration = Duration::from_secs(3);

/// Measures at each rate, with so many people.
pub fn measure(bench: &Workbench, people: u64, seconds: u32, report: &mut Report) {
    for (rate, size) in RATES {
        eprintln!("{rate} requests a second of {size} events for {seconds} s");
        measure_at(bench, (rate, size), rate * seconds, people, report);
    }
}

fn measure_at(
    bench: &Workbench,
    (rate, size): (u32, usize),
    batches: u32,
    people: u64,
    report: &mut Report,
) {
    let stand_in = bench.stand_in(1);
    let installation = Installation::new(&stand_in.url());
    let daemon = installation.start();
    let mut stream = Stream::new(people);
    let mut one_for_each = 0;
    let began = Instant::now();
    for number in 0..batches {
        let events = stream.batch(size);
        let audiences: BTreeSet<&str> = events
            .iter()
            .filter_map(|event| event.pointer("/context/personas/computation_id")?.as_str())
            .collect();
        one_for_each += audiences.len() as u64;
        let first = events[0].to_string();
        let texts: Vec<String> = events.iter().map(Value::to_string).collect();
        let body = if size == 1 { first.clone() } else { format!("[{}]", texts.join(",")) };
        let signature = sign(&daemon::shared_secret(), first.as_bytes());
        let body = body.as_bytes();
        let request = load::request(daemon::DESTINATION, &signature, body, events.len() as u64);
        std::thread::sleep(
            (began + Duration::from_secs(1) * number / rate)
                .saturating_duration_since(Instant::now()),
        );
        bench.load(daemon.public, &Requests::from(vec![request]), 1);
    }
    std::thread::sleep(SETTLED);
    let mut add = |what: &str, calls| {
        let name = format!("{rate} requests a second of {size}: {what}");
        report.add(&name, Unit::Count, count(calls));
    };
    add("one call a request and audience", one_for_each);
    add("calls", stand_in.calls().total);
}

/// People entering and leaving audiences.
struct Stream {
    chance: StdRng,
    people: u64,
    at_ms: i64,
    /// What comes in a later batch.
    later: Vec<Value>,
}

impl Stream {
    fn new(people: u64) -> Self {
        Self { chance: StdRng::seed_from_u64(7), people, at_ms: FROM_MS, later: Vec::new() }
    }

    fn batch(&mut self, size: usize) -> Vec<Value> {
        let mut events = std::mem::take(&mut self.later);
        while events.len() < size {
            let who = self.chance.random_range(0..self.people);
            let audience = self.chance.random_range(0..AUDIENCES);
            let enters = self.chance.random_bool(0.6);
            self.at_ms += 1;
            events.extend(self.change(who, audience, enters));
            if self.chance.random_bool(0.05) {
                self.at_ms += 1;
                let back = self.change(who, audience, !enters);
                self.later.extend(back);
            }
        }
        // What no longer fits comes in the next one.
        self.later.splice(0..0, events.split_off(size));
        events
    }

    /// A fifth of the people have two identifiers, and Segment sends a change for each.
    fn change(&self, who: u64, audience: u32, enters: bool) -> Vec<Value> {
        let times = if who.is_multiple_of(5) { 2 } else { 1 };
        let event = |kind: &str| {
            let key = format!("audience_{audience}");
            let mut event = json!({
                "type": kind,
                "messageId": format!("{kind}-{who}-{audience}-{}", self.at_ms),
                "userId": format!("user-{who}"),
                "timestamp": jiff::Timestamp::from_millisecond(self.at_ms).expect("our days").to_string(),
                "context": {"personas": {
                    "computation_class": "audience",
                    "computation_id": format!("aud_{audience}"),
                    "computation_key": key,
                }},
            });
            if kind == "track" {
                event["event"] = json!(if enters { "Audience Entered" } else { "Audience Exited" });
                event["properties"] = json!({key: enters});
            } else {
                event["traits"] = json!({key: enters});
            }
            event
        };
        (0..times).flat_map(|_| [event("identify"), event("track")]).collect()
    }
}
