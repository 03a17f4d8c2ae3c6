//! A ledger with many members of one audience, made through the ledger itself: the rows are those that
//! the daemon would have made of the same events, in a fraction of the time.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cohortd::clock::SystemClock;
use cohortd::ledger::{
    DestinationSettings, EmbeddedLedger, GuardLimits, Intake, Recorder, Retention, Settings,
};
use cohortd::map::Mapping;
use cohortd::membership::{ContextKey, MembershipDelta, Timestamp, UserId};
use cohortd::sandbox::{Backfill, Sample};
use serde_json::Value;
use tokio::runtime::Builder;

use crate::daemon;
use crate::workbench::FROM;

/// Deltas in one record: as many as a group of the writer takes.
const RECORD: usize = 20_000;
/// People that are recorded in the order of their keys. Keys of one pass lie between those of others,
/// so that pages are split, and end as full, as by arrivals in any order.
const PASS: u64 = 1_000_000;

/// Records that the first `people` people are in the audience. What LaunchDarkly was told is nothing.
pub fn fill(directory: &Path, environment: &str, audience: Sample, people: u64) {
    let (ledger, writer) = open(directory, environment);
    let writing = std::thread::spawn(move || writer.run());
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be built").block_on(async {
        let pattern = pattern(audience);
        for first in (0..people).step_by(usize::try_from(PASS).expect("a million")) {
            let mut pass: Vec<(String, u64)> = (first..people.min(first + PASS))
                .map(|person| (Backfill::spread_user_id(person), person))
                .collect();
            pass.sort_unstable();
            for part in pass.chunks(RECORD) {
                let deltas = part.iter().map(|(user_id, person)| delta(&pattern, user_id, *person));
                let intake = Intake {
                    destination: daemon::destination(),
                    arrival: ledger.arrival(),
                    deltas: deltas.collect(),
                    deletions: Vec::new(),
                    rejected: Vec::new(),
                    origin: cohortd::ledger::Origin::Events,
                };
                ledger.record(intake).await.expect("there is space");
            }
        }
        ledger.close().await;
    });
    writing.join().expect("it does not panic").expect("nor fail");
}

/// What the default mapping makes of an event of this audience.
fn pattern(audience: Sample) -> MembershipDelta {
    let batch = Backfill::spread(audience, 0..1, FROM).next().expect("one person");
    let events: Value = cohortd::json::from_slice(&batch.body).expect("JSON");
    let mapped = Mapping::preset().map(&events[0], FROM);
    mapped.expect("a good event").expect("that is subscribed to")
}

fn delta(pattern: &MembershipDelta, user_id: &str, person: u64) -> MembershipDelta {
    MembershipDelta {
        context_key: ContextKey::new(user_id).expect("not empty"),
        user_id: UserId::new(user_id),
        event_at: Timestamp(FROM.0 + i64::try_from(person).expect("small")),
        ..pattern.clone()
    }
}

/// With room for everything that is on its way to the disk: nobody measures memory here.
pub fn open(directory: &Path, environment: &str) -> (EmbeddedLedger, cohortd::ledger::Writer) {
    let year = Duration::from_secs(31_536_000);
    let kept = Retention { max_age: year, max_count: 1000, max_bytes: 1 << 20 };
    let settings = Settings {
        path: directory.to_owned(),
        disk_reserve_bytes: 0,
        cache_kib: 1 << 20,
        tombstone_ttl: year,
        rejected: kept,
        parked: kept,
        max_audiences: 10_000,
        check_every: year,
        destinations: vec![DestinationSettings {
            name: daemon::destination(),
            environment: environment.to_owned(),
            repeat_window: Duration::from_secs(3600),
            reassert_after: Duration::from_secs(20),
            expires_after: BTreeMap::new(),
            guard: GuardLimits::default(),
        }],
    };
    EmbeddedLedger::open(settings, Arc::new(SystemClock)).expect("the ledger can be opened")
}
