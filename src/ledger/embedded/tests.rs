//! The verbs on a real database: what the rules of a member cannot show alone.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::clock::ManualClock;
use crate::ledger::embedded::directory::names;
use crate::ledger::embedded::engine::pace::Pace;
use crate::ledger::embedded::settings::{DestinationSettings, Retention, Settings};
use crate::ledger::embedded::tables::{connections, members, soundness};
use crate::ledger::{
    Batch, Claim, ClaimedMember, DestinationView, GuardLimits, Measure, MemberView, Members,
    Operations, OrderedDeletion, ParkReason, ParkedAfter, ParkedView, RejectedEvent, Report, Room,
    Unheard, WriterFailure,
};
use crate::membership::{
    AudienceId, AudienceKey, ContextKey, ContextKind, Deletion, Membership, MembershipDelta, UserId,
};

const START: Timestamp = Timestamp(1_750_000_000_000_000);
const DEADLINE: Duration = Duration::from_secs(20);
const DAY: Duration = Duration::from_secs(86_400);
const TOMBSTONE_TTL: Duration = Duration::from_secs(16);

/// Everything goes through the journal, and a few members at a time from there.
const A_LITTLE_AT_A_TIME: Pace = Pace {
    journal_from: 0,
    most_read: 1000,
    reported_from: 1,
    most_dirty: 12,
    most_written: 4,
    ..PACE
};

/// For so many members, whatever they take.
fn room(members: usize) -> Room {
    let members = NonZeroUsize::new(members).expect("not zero");
    let measure = Measure { call: |_| 0, member: |_| 0, key: |_| 0 };
    Room { members, bytes: usize::MAX, measure }
}

/// So many members of an audience, whatever they take.
fn longest(audience: &str, members: usize) -> Claim {
    Claim::Longest { audience: id(audience), room: room(members) }
}

/// A ledger with its writer's thread, and what it is opened with next.
struct Bench {
    directory: tempfile::TempDir,
    clock: ManualClock,
    ledger: Arc<EmbeddedLedger>,
    writer: Option<std::thread::JoinHandle<Result<(), WriterFailure>>>,
    name: DestinationName,
    environment: String,
    tombstone_ttl: Duration,
    reassert_after: Duration,
    rejected: Retention,
    parked: Retention,
    max_audiences: usize,
    check_every: Duration,
    pace: Pace,
}

impl Bench {
    fn new() -> Self {
        Self::with(Duration::from_secs(600))
    }

    /// One that takes every request through the journal, and a few of them at a time from there.
    fn journaled() -> Self {
        let mut bench = Self::closed();
        bench.pace = A_LITTLE_AT_A_TIME;
        bench.open();
        bench
    }

    fn with(reassert_after: Duration) -> Self {
        let mut bench = Self::closed();
        bench.reassert_after = reassert_after;
        bench.open();
        bench
    }

    /// A directory in which there is no ledger yet; what stands for the ledger is another one's.
    fn closed() -> Self {
        let elsewhere = tempfile::tempdir().expect("a temporary directory");
        let kept = Retention { max_age: DAY, max_count: 3, max_bytes: 1000 };
        let settings = Settings {
            path: elsewhere.path().to_owned(),
            disk_reserve_bytes: 0,
            cache_kib: 1024,
            tombstone_ttl: TOMBSTONE_TTL,
            rejected: kept,
            parked: kept,
            max_audiences: 10_000,
            check_every: DAY,
            destinations: Vec::new(),
        };
        let (ledger, _) = EmbeddedLedger::open(settings, Arc::new(ManualClock::at(START)))
            .expect("a new ledger can be opened");
        Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
            clock: ManualClock::at(START),
            ledger: Arc::new(ledger),
            writer: None,
            name: destination(),
            environment: "https://launchdarkly.test one".to_owned(),
            tombstone_ttl: TOMBSTONE_TTL,
            reassert_after: Duration::from_secs(600),
            rejected: kept,
            parked: Retention { max_age: DAY, max_count: 1000, max_bytes: 1 << 20 },
            max_audiences: 10_000,
            check_every: DAY,
            pace: PACE,
        }
    }

    fn try_open(&self) -> Result<(EmbeddedLedger, Writer), OpenError> {
        self.try_open_for(self.destinations())
    }

    fn try_open_for(
        &self,
        destinations: Vec<DestinationSettings>,
    ) -> Result<(EmbeddedLedger, Writer), OpenError> {
        let settings = Settings {
            path: self.directory.path().to_owned(),
            disk_reserve_bytes: 0,
            cache_kib: 1024,
            tombstone_ttl: self.tombstone_ttl,
            rejected: self.rejected,
            parked: self.parked,
            max_audiences: self.max_audiences,
            check_every: self.check_every,
            destinations,
        };
        EmbeddedLedger::open_with(settings, Arc::new(self.clock.clone()), self.pace)
    }

    fn destinations(&self) -> Vec<DestinationSettings> {
        vec![DestinationSettings {
            name: self.name.clone(),
            environment: self.environment.clone(),
            repeat_window: Duration::from_secs(3600),
            reassert_after: self.reassert_after,
            expires_after: BTreeMap::new(),
            guard: GuardLimits::default(),
        }]
    }

    fn open(&mut self) {
        self.open_for(self.destinations());
    }

    fn open_for(&mut self, destinations: Vec<DestinationSettings>) {
        let (ledger, writer) = self.try_open_for(destinations).expect("it can be opened");
        self.ledger = Arc::new(ledger);
        self.writer = Some(std::thread::spawn(move || writer.run()));
    }

    async fn close(&mut self) {
        self.ledger.close().await;
        let writer = self.writer.take().expect("every open has one");
        writer.join().expect("the writer does not panic").expect("nor fail");
    }

    /// Closes in order and opens again.
    async fn reopen(&mut self) {
        self.close().await;
        self.open();
    }

    /// Opens what is on the disk now, as after a kill: nothing is closed before.
    fn crash(&mut self) {
        self.crash_while_closed();
        self.open();
    }

    fn crash_while_closed(&mut self) {
        let image = tempfile::tempdir().expect("a temporary directory");
        // In this order it is as of one moment, whatever the writer merges meanwhile.
        for file in [wal::ANSWERED].into_iter().chain(wal::FILES) {
            let from = self.directory.path().join(file);
            if from.exists() {
                std::fs::copy(from, image.path().join(file)).expect("both are ours");
            }
        }
        for file in ["ledger.db", "ledger.db-wal"] {
            std::fs::copy(self.directory.path().join(file), image.path().join(file))
                .expect("an open ledger has both files");
        }
        self.directory = image;
    }

    async fn record(&self, deltas: Vec<MembershipDelta>) -> Recorded {
        self.take_in(intake(&*self.ledger, deltas)).await
    }

    async fn take_in(&self, intake: Intake) -> Recorded {
        self.take_in_all(vec![intake]).await.pop().expect("one for one")
    }

    /// Records, and waits until it is in the tables.
    async fn take_in_all(&self, intakes: Vec<Intake>) -> Vec<Recorded> {
        let recorded = self.ledger.record_all(intakes).await.expect("there is space");
        self.ledger.caught_up().await.expect("it is open");
        recorded
    }

    async fn claim(&self, audience: &str, limit: usize) -> Option<Batch> {
        self.claim_of(&self.name, audience, limit).await
    }

    async fn claim_of(
        &self,
        destination: &DestinationName,
        audience: &str,
        limit: usize,
    ) -> Option<Batch> {
        self.ledger.outbox(destination).claim(longest(audience, limit)).await.expect("it is open")
    }

    async fn report(&self, report: Report) {
        self.ledger.outbox(&self.name).report(report).await.expect("there is space");
    }

    async fn settle(&self, batch: Batch) {
        self.report(Report::Settle(batch)).await;
    }

    async fn release(&self, batch: Batch, unheard: Unheard) {
        self.report(Report::Release(batch, unheard)).await;
    }

    async fn park(&self, batch: Batch) {
        self.report(Report::Park(batch, reason())).await;
    }

    /// Claims and settles until nothing waits; tells each to `launchdarkly`.
    async fn drain(&self, launchdarkly: &mut BTreeMap<(String, String), bool>) {
        self.drain_to(&self.name, |batch| apply(batch, launchdarkly)).await;
    }

    async fn drain_to(&self, destination: &DestinationName, mut tell: impl FnMut(&Batch)) {
        loop {
            let backlog = self.ledger.outbox(destination).backlog().await.expect("it is open");
            let Some(waiting) = backlog.first() else { return };
            let audience = waiting.audience.as_str();
            let Some(batch) = self.claim_of(destination, audience, 7).await else { continue };
            tell(&batch);
            self.settle(batch).await;
        }
    }

    async fn pending(&self) -> u64 {
        self.view().await.pending
    }

    async fn view(&self) -> DestinationView {
        let mut all = self.ledger.destinations().await.expect("it is open");
        all.pop().expect("there is one")
    }

    /// What a reading of everything finds.
    fn faults(&self) -> Vec<String> {
        let found = check(self.directory.path()).expect("it can be opened");
        found.err().unwrap_or_default()
    }

    fn parked(&self) -> Vec<ParkedView> {
        let after = ParkedAfter::default();
        self.ledger.reader().parked(&destination(), None, &after, 10).expect("it can be read")
    }

    /// Tries everybody who is parked again.
    async fn requeue(&self) {
        self.requeue_of(&self.name).await;
    }

    async fn requeue_of(&self, name: &DestinationName) {
        let after = ParkedAfter::default();
        let parked = self.ledger.reader().parked(name, None, &after, 100).expect("it can be read");
        for view in parked {
            let context_key = ContextKey::new(&view.context_key).expect("not empty");
            let audience = id(&view.audience);
            let members =
                Members { destination: name.clone(), audience, context_keys: vec![context_key] };
            self.ledger.requeue(members).await.expect("there is space");
        }
    }

    /// Waits for news until `what` holds of the backlog.
    async fn until(&self, what: impl Fn(u64) -> bool) {
        let mut news = self.ledger.outbox(&self.name).news();
        let waiting = async {
            loop {
                let backlog = self.ledger.outbox(&self.name).backlog().await.expect("it is open");
                if what(backlog.iter().map(|of| of.waiting).sum()) {
                    return;
                }
                news.changed().await.expect("the writer lives");
            }
        };
        tokio::time::timeout(DEADLINE, waiting).await.expect("it happens in time");
    }
}

fn destination() -> DestinationName {
    DestinationName::new("production").expect("not empty")
}

fn id(audience: &str) -> AudienceId {
    AudienceId::new(audience).expect("not empty")
}

fn delta(audience: &str, key: &str, enters: bool, event_at: i64) -> MembershipDelta {
    MembershipDelta {
        audience: id(audience),
        audience_key: AudienceKey::new(audience).expect("not empty"),
        context_kind: ContextKind::new("user").expect("a kind"),
        context_key: ContextKey::new(key).expect("not empty"),
        membership: Membership::from_bool(enters),
        event_at: Timestamp(event_at),
        user_id: UserId::new(key),
        key_rule: 1,
        message: None,
    }
}

fn intake(ledger: &dyn Recorder, deltas: Vec<MembershipDelta>) -> Intake {
    Intake {
        destination: destination(),
        arrival: ledger.arrival(),
        deltas,
        deletions: Vec::new(),
        rejected: Vec::new(),
        origin: crate::ledger::Origin::Events,
    }
}

/// The same with the deletion of a person behind all else.
fn deletion(user_id: UserId, event_at: Timestamp, mut intake: Intake) -> Intake {
    let (after_deltas, after_rejected) = (intake.deltas.len(), intake.rejected.len());
    intake.deletions.push(OrderedDeletion {
        deletion: Deletion { user_id, event_at, message: None },
        is_unconditional: false,
        after_deltas,
        after_rejected,
    });
    intake
}

fn reason() -> ParkReason {
    let [code, message, id] = ["invalid_request", "no", "1234"].map(str::to_owned);
    ParkReason { status: 400, code, message, id }
}

fn keys(batch: &Batch) -> Vec<&str> {
    batch.members.iter().map(|member| member.context_key.as_str()).collect()
}

fn apply(batch: &Batch, launchdarkly: &mut BTreeMap<(String, String), bool>) {
    for ClaimedMember { context_key, membership, .. } in &batch.members {
        let member = (batch.route.audience.as_str().to_owned(), context_key.as_str().to_owned());
        launchdarkly.insert(member, membership.as_bool());
    }
}

#[tokio::test]
async fn a_member_that_is_given_back_has_waited_since_it_came_and_not_since_the_start() {
    const IDLE: Duration = Duration::from_millis(300);
    let bench = Bench::new();
    bench.clock.advance(IDLE);
    tokio::time::sleep(IDLE).await; // nothing happens for a while: that is the case
    let came = tokio::time::Instant::now();
    bench.record(vec![delta("a", "ada", true, 1)]).await;
    for _ in 0..3 {
        bench.release(bench.claim("a", 9).await.expect("ada waits"), Unheard::No).await;
        let backlog = bench.ledger.outbox(&destination()).backlog().await.expect("it is open");
        let since = backlog[0].waiting_since;
        assert!(since + Duration::from_millis(100) > came, "{:?} too early", came - since);
    }
}

mod beside;
mod checkpoints;
mod clock;
mod configured;
mod contract;
mod damage;
mod erased;
mod journaled;
mod migration;
mod operations;
mod recorded;
mod retention;
