//! Ten million members: a backlog of all of them started and drained under a memory limit, and what
//! the ledger of them takes in memory with a million waiting.
//!
//! `cargo bench --bench throughput -- --what scale [--members N] [--json FILE]`
//!
//! # What always holds
//! * Context keys are spread like hashes, so that the rows that are told in one call lie anywhere in
//!   the ledger: the case that costs most.
//! * The daemon runs in a control group of its own with 256 MiB, its page cache included, where the
//!   system lets us make one; the report says whether it did.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cohortd::clock::SystemClock;
use cohortd::ledger::{
    DestinationSettings, Intake, Ledger, Retention, Settings, SqliteLedger, Writer,
};
use cohortd::membership::{
    AudienceId, AudienceKey, ContextKey, ContextKind, DestinationName, Membership, MembershipDelta,
    Timestamp,
};
use cohortd::sandbox::{Fault, Keep, StandIn};
use tokio::runtime::{Builder, Runtime};

use crate::daemon::{self, Daemon, Installation};
use crate::report::{Report, Unit};

/// Of all members.
const AUDIENCES: u32 = 10;
/// Deltas in one record: as many as a group of the writer takes.
const RECORD: u32 = 20_000;
const LIMIT_MIB: u64 = 256;
/// Nothing here takes so long unless it is broken.
const DEADLINE: Duration = Duration::from_secs(3600);
/// How long memory is watched.
const WATCHED: Duration = Duration::from_secs(10);

/// Measures with so many members.
pub fn measure(members: u32, report: &mut Report) {
    let elsewhere = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let group = ControlGroup::make();
    report.add("memory limit (0: none could be set)", Unit::Mebibytes, group.limit_mib());
    run(members, &elsewhere.expect("a runtime can be built"), &group, report);
}

fn run(members: u32, elsewhere: &Runtime, group: &ControlGroup, report: &mut Report) {
    let stand_in = elsewhere.block_on(StandIn::start(vec![daemon::account()]));
    let stand_in = stand_in.expect("a port on loopback is free");
    stand_in.set_keep(Keep::Counts);
    let installation = Installation::new(&stand_in.url());
    let environment = daemon::environment(&stand_in.url());

    eprintln!("recording {members} members");
    let began = Instant::now();
    elsewhere.block_on(record(&installation.ledger(), &environment, 0..members, Membership::In));
    report.add("recorded by the ledger alone", Unit::PerSecond, rate(members, began));
    let bytes = std::fs::metadata(installation.ledger().join("ledger.db")).expect("it is there");
    let mib = u32::try_from(bytes.len() >> 20).expect("less than 4 PiB");
    report.add("size of the ledger", Unit::Mebibytes, f64::from(mib));

    stand_in.script(|_| Fault::status(503));
    installation.start_in(group.tasks().as_deref()).kill();
    let daemon = installation.start_in(group.tasks().as_deref());
    let ready = daemon.ready_after.as_secs_f64() * 1000.0;
    report.add("start-up: all pending, after SIGKILL", Unit::Milliseconds, ready);
    std::thread::sleep(WATCHED);
    report.add("memory: all pending, at rest", Unit::Mebibytes, daemon.memory().resident_mib);

    daemon.kill();

    eprintln!("draining {members} members");
    let before = stand_in.calls().members;
    stand_in.behave();
    let began = Instant::now();
    let daemon = installation.start_in(group.tasks().as_deref());
    let told = before + u64::from(members);
    let drained = stand_in.until(DEADLINE, |view| view.calls().members >= told);
    elsewhere.block_on(drained).expect("every member is told");
    report.add("drained", Unit::PerSecond, rate(members, began));
    report.add("memory: peak of the drain", Unit::Mebibytes, daemon.memory().peak_mib);
    daemon.kill();

    let some = (members / 10).max(1);
    eprintln!("changing {some} of {members} members");
    let began = Instant::now();
    elsewhere.block_on(record(&installation.ledger(), &environment, 0..some, Membership::Out));
    report.add("changed by the ledger alone", Unit::PerSecond, rate(some, began));
    stand_in.script(|_| Fault::status(503));
    let daemon = installation.start_in(group.tasks().as_deref());
    let ready = daemon.ready_after.as_secs_f64() * 1000.0;
    report.add("start-up: a tenth pending", Unit::Milliseconds, ready);
    watch(&daemon, report);
    daemon.kill();
}

/// Memory at the beginning and the end of a while of trying: it does not grow.
fn watch(daemon: &Daemon, report: &mut Report) {
    std::thread::sleep(WATCHED);
    report.add("memory: a tenth pending", Unit::Mebibytes, daemon.memory().resident_mib);
    std::thread::sleep(WATCHED * 3);
    let later = daemon.memory();
    report.add("memory: a tenth pending, half a minute later", Unit::Mebibytes, later.resident_mib);
    report.add("memory: a tenth pending, peak", Unit::Mebibytes, later.peak_mib);
}

fn rate(members: u32, began: Instant) -> f64 {
    f64::from(members) / began.elapsed().as_secs_f64()
}

/// Records through the ledger itself, as the daemon would.
async fn record(
    directory: &Path,
    environment: &str,
    members: std::ops::Range<u32>,
    membership: Membership,
) {
    let (ledger, writer) = open(directory, environment);
    let ledger = Arc::new(ledger);
    let writing = std::thread::spawn(move || writer.run());
    let event_at = ledger.arrival();
    let mut first = members.start;
    while first < members.end {
        let last = members.end.min(first + RECORD);
        let deltas = (first..last).map(|number| delta(number, membership, event_at)).collect();
        let intake = Intake {
            destination: production(),
            arrival: ledger.arrival(),
            deltas,
            deletions: Vec::new(),
            rejected: Vec::new(),
        };
        ledger.record(intake).await.expect("there is space");
        first = last;
    }
    ledger.close().await;
    writing.join().expect("it does not panic").expect("nor fail");
}

fn open(directory: &Path, environment: &str) -> (SqliteLedger, Writer) {
    let year = Duration::from_secs(31_536_000);
    let kept = Retention { max_age: year, max_count: 1000, max_bytes: 1 << 20 };
    let settings = Settings {
        path: directory.to_owned(),
        disk_reserve_bytes: 0,
        cache_kib: 1 << 20,
        tombstone_ttl: year,
        rejected: kept,
        parked: kept,
        check_every: year,
        destinations: vec![DestinationSettings {
            name: production(),
            environment: environment.to_owned(),
            repeat_window: Duration::from_secs(3600),
            reassert_after: Duration::from_secs(20),
        }],
    };
    SqliteLedger::open(settings, Arc::new(SystemClock)).expect("the ledger can be opened")
}

fn delta(number: u32, membership: Membership, event_at: Timestamp) -> MembershipDelta {
    // Neighbours in time are none in the order of the keys (a multiplicative hash, invertible).
    let spread = number.wrapping_mul(2_654_435_761);
    let audience = format!("aud_{}", number % AUDIENCES);
    MembershipDelta {
        audience: AudienceId::new(&audience).expect("not empty"),
        audience_key: AudienceKey::new(&audience).expect("not empty"),
        context_kind: ContextKind::new("user").expect("a kind"),
        context_key: ContextKey::new(&format!("user-{spread:08x}-{number:08x}"))
            .expect("not empty"),
        membership,
        event_at,
        user_id: None,
        key_rule: 1,
    }
}

fn production() -> DestinationName {
    DestinationName::new("production").expect("not empty")
}

/// A control group with a memory limit, of either version; gone when it is dropped.
struct ControlGroup(Option<PathBuf>);

impl ControlGroup {
    fn make() -> Self {
        let name = format!("cohortd-bench-{}", std::process::id());
        let limit = (LIMIT_MIB << 20).to_string();
        for (root, file) in
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
        {
            let path = Path::new(root).join(&name);
            if std::fs::create_dir(&path).is_err() {
                continue;
            }
            if std::fs::write(path.join(file), &limit).is_ok() {
                return Self(Some(path));
            }
            let _ = std::fs::remove_dir(&path);
        }
        eprintln!("no control group can be made: the daemon runs without a memory limit");
        Self(None)
    }

    fn limit_mib(&self) -> f64 {
        let limit = u32::try_from(LIMIT_MIB).expect("small");
        if self.0.is_some() { f64::from(limit) } else { 0.0 }
    }

    fn tasks(&self) -> Option<PathBuf> {
        self.0.as_ref().map(|path| path.join("cgroup.procs"))
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_dir(path); // the system clears up after the next start otherwise
        }
    }
}
