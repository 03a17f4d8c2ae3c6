//! How many instructions the hot paths take, and that they take no more than they did: a count is the
//! same on a busy machine, where a time is not.
//!
//! `cargo bench --profile guard --bench instructions`: under valgrind, in a profile that builds
//! quickly. Each case is run by a child of this program, some times and twice as often: what it takes to
//! start cancels out.
//!
//! # What does not hold
//! * An instruction is not a nanosecond: a cache miss or a sync costs none.
//! * The ledger has threads, which meet each other at different points: its count varies by a per cent.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use cohortd::clock::SystemClock;
use cohortd::json::exact::Exact;
use cohortd::launchdarkly::wire::encode;
use cohortd::ledger::{
    DestinationSettings, EmbeddedLedger, GuardLimits, Intake, Recorder, Retention, Settings,
};
use cohortd::map::{Mapping, Mappings, Outcome, Subscription};
use cohortd::membership::{
    AudienceId, AudienceKey, ContextKey, ContextKind, DestinationName, Membership, MembershipDelta,
    Timestamp, UserId,
};
use serde_json::{Value, json};

/// What is counted.
struct Case {
    name: &'static str,
    /// Of one time, as recorded. A change that is meant to cost more, or that costs less, writes down
    /// what this program prints.
    recorded: u64,
    /// How much more is no fault, in per cent: another compiler, or other threads.
    tolerance: u64,
    times: u32,
    run: fn(u32),
}

const CASES: [Case; 5] = [
    Case {
        name: "parse and map the default event",
        // 18,100 or 21,100 of the same code, by what the compiler inlines across the units of this profile.
        recorded: 21_100,
        tolerance: 10,
        times: 200,
        run: plain,
    },
    Case {
        name: "the same by way of a tree",
        recorded: 84_800,
        tolerance: 10,
        times: 200,
        run: whole,
    },
    Case {
        name: "FQL, 3 conditions",
        recorded: 1_500,
        tolerance: 10,
        times: 2000,
        run: subscription,
    },
    Case {
        name: "encode a request of 1,000 members",
        recorded: 434_000,
        tolerance: 10,
        times: 10,
        run: request,
    },
    Case {
        name: "a ledger group of 1,000 new members",
        recorded: 23_000_000,
        tolerance: 15,
        times: 10,
        run: ledger,
    },
];

const ARRIVAL: Timestamp = Timestamp(1_750_000_000_000_000);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [name, times] = &words[..]
        && let Some(case) = CASES.iter().find(|case| case.name == name)
    {
        (case.run)(times.parse().expect("a number"));
        return ExitCode::SUCCESS;
    }
    // `cargo test --all-targets` builds and starts benchmarks too, and wants no figures
    if !words.iter().any(|word| word == "--bench") {
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("valgrind is needed to count instructions: install it");
        return ExitCode::FAILURE;
    }
    let mut is_sound = true;
    println!("{:<40} {:>12} {:>12} {:>9}", "instructions", "counted", "recorded", "");
    for case in &CASES {
        let counted = case.count();
        let most = case.recorded + case.recorded * case.tolerance / 100;
        let change = counted.cast_signed() * 1000 / case.recorded.max(1).cast_signed() - 1000;
        let (sign, tenths) = (if change < 0 { '-' } else { '+' }, change.abs());
        let percent = format!("{sign}{}.{} %", tenths / 10, tenths % 10);
        println!("{:<40} {counted:>12} {:>12} {percent:>9}", case.name, case.recorded);
        if counted > most {
            is_sound = false;
            eprintln!(
                "{}: {counted} instructions, at most {most} are expected. Find out what has become \
                 dearer (valgrind --tool=callgrind); if it is meant, record the new number in \
                 tests/bench/instructions.rs and say why in the commit.",
                case.name
            );
        }
    }
    if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Case {
    /// Instructions of one time.
    fn count(&self) -> u64 {
        let of = |times: u32| {
            let this = std::env::current_exe().expect("it runs");
            let run = Command::new("valgrind")
                .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
                .arg(this)
                .args([self.name, &times.to_string()])
                .output()
                .expect("valgrind is there");
            let said = String::from_utf8_lossy(&run.stderr);
            assert!(run.status.success(), "{}: {said}", self.name);
            let collected = said.lines().find_map(|line| line.split_once("Collected : "));
            let (_, number) = collected.expect("valgrind says how many");
            number.trim().parse::<u64>().expect("a number")
        };
        of(2 * self.times).saturating_sub(of(self.times)) / u64::from(self.times)
    }
}

fn plain(times: u32) {
    let text = event().to_string();
    let mappings = Mappings::from(Mapping::preset());
    for _ in 0..times {
        let delta = mappings.map_plain(black_box(text.as_bytes()), ARRIVAL);
        assert!(black_box(delta).is_some());
    }
}

fn whole(times: u32) {
    let text = event().to_string();
    let mappings = Mappings::from(Mapping::preset());
    for _ in 0..times {
        let event = Exact::read(black_box(text.as_bytes())).expect("it is JSON");
        let outcome = mappings.map(black_box(&event), ARRIVAL);
        assert!(matches!(black_box(outcome), Outcome::Accepted { .. }));
    }
}

fn subscription(times: u32) {
    let statement = r#"type = "identify" and (traits.plan in ["pro", "team"] or match(context.page.url, "https://*"))"#;
    let subscription = Subscription::parse(statement).expect("a statement");
    let event = event();
    for _ in 0..times {
        assert!(black_box(subscription.selects(black_box(&event))));
    }
}

fn request(times: u32) {
    let kind = ContextKind::new("user").expect("a kind");
    let audience = AudienceId::new("aud_2rPjxlPyAm4d1Yx0").expect("not empty");
    let keys: Vec<ContextKey> = (0..1000).map(key).collect();
    for _ in 0..times {
        let members = black_box(&keys).iter().map(|key| (key, Membership::In));
        let body = encode("64f0c0ffee", &kind, &audience, "High value customers", members);
        assert!(black_box(body).len() > 100_000);
    }
}

/// One request after the other, each of 1,000 people whom the ledger does not know.
fn ledger(times: u32) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (ledger, writer) = open(directory.path());
    let writing = std::thread::spawn(move || writer.run());
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a small runtime").block_on(async {
        for time in 0..times {
            let deltas = (time * 1000..(time + 1) * 1000).map(delta).collect();
            let intake = Intake {
                destination: destination(),
                arrival: ledger.arrival(),
                deltas,
                deletions: Vec::new(),
                rejected: Vec::new(),
                origin: cohortd::ledger::Origin::Events,
            };
            ledger.record(intake).await.expect("there is space");
        }
        ledger.close().await;
    });
    writing.join().expect("it does not panic").expect("nor fail");
}

fn open(directory: &Path) -> (EmbeddedLedger, cohortd::ledger::Writer) {
    let year = Duration::from_secs(31_536_000);
    let kept = Retention { max_age: year, max_count: 1000, max_bytes: 1 << 20 };
    let settings = Settings {
        path: directory.to_owned(),
        disk_reserve_bytes: 0,
        cache_kib: 32 << 10,
        tombstone_ttl: year,
        rejected: kept,
        parked: kept,
        max_audiences: 10_000,
        check_every: year,
        destinations: vec![DestinationSettings {
            name: destination(),
            environment: "environment".to_owned(),
            repeat_window: Duration::from_secs(3600),
            reassert_after: Duration::from_secs(20),
            expires_after: BTreeMap::new(),
            guard: GuardLimits::default(),
        }],
    };
    EmbeddedLedger::open(settings, Arc::new(SystemClock)).expect("the ledger can be opened")
}

fn destination() -> DestinationName {
    DestinationName::new("production").expect("not empty")
}

/// Neighbours in time are none in the order of the keys, as with UUIDs.
fn key(number: u32) -> ContextKey {
    let spread = number.wrapping_mul(2_654_435_761);
    ContextKey::new(&format!("user-{spread:08x}-{number:08x}")).expect("not empty")
}

fn delta(number: u32) -> MembershipDelta {
    let context_key = key(number);
    MembershipDelta {
        audience: AudienceId::new("aud_2rPjxlPyAm4d1Yx0").expect("not empty"),
        audience_key: AudienceKey::new("high_value_customers").expect("not empty"),
        context_kind: ContextKind::new("user").expect("a kind"),
        user_id: UserId::new(context_key.as_str()),
        context_key,
        membership: Membership::In,
        event_at: ARRIVAL,
        key_rule: 1,
        message: None,
    }
}

/// As Segment sends it, with the fields of a web page.
fn event() -> Value {
    json!({
        "type": "identify", "messageId": "personas_2rPkZ1fJ0bQp3K0sYtqKJm3mXtH", "userId": "user-4711",
        "anonymousId": "4b6c1a0e-2f77-4d6e-9f0e-1d7f0a3c5b21", "timestamp": "2025-06-15T15:06:39.512Z",
        "receivedAt": "2025-06-15T15:06:40.120Z", "sentAt": "2025-06-15T15:06:39.900Z",
        "originalTimestamp": "2025-06-15T15:06:39.512Z", "version": 2, "channel": "server",
        "traits": {"high_value_customers": true, "email": "Ada.Lovelace@Example.com", "plan": "pro"},
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
