//! The verbs on a real database: what the rules of a member cannot show alone.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clock::ManualClock;
use crate::ledger::embedded::directory::names;
use crate::ledger::embedded::engine::pace::Pace;
use crate::ledger::embedded::settings::{DestinationSettings, Retention, Settings};
use crate::ledger::embedded::tables::{connections, members, soundness};
use crate::ledger::{
    Batch, Claim, ClaimedMember, DestinationView, Measure, MemberView, Members, Operations,
    OrderedDeletion, ParkReason, ParkedAfter, ParkedView, RejectedEvent, Report, Room, Route,
    Turnover, Unheard,
};
use crate::membership::{
    AudienceId, AudienceKey, ContextKey, ContextKind, Deletion, Membership, MembershipDelta,
    Message, MessageHash, UserId,
};
use crate::seeds;

const START: Timestamp = Timestamp(1_750_000_000_000_000);
const DEADLINE: Duration = Duration::from_secs(20);
const DAY: Duration = Duration::from_secs(86_400);
const TOMBSTONE_TTL: Duration = Duration::from_secs(16);

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
    /// Configured beside it, each with an environment of its own.
    others: Vec<DestinationName>,
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
        bench.pace = Pace {
            journal_from: 0,
            most_read: 1000,
            reported_from: 1,
            most_unwritten: 12,
            most_written: 4,
            ..PACE
        };
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
            others: Vec::new(),
            reassert_after: Duration::from_secs(600),
            rejected: kept,
            parked: Retention { max_age: DAY, max_count: 1000, max_bytes: 1 << 20 },
            max_audiences: 10_000,
            check_every: DAY,
            pace: PACE,
        }
    }

    fn try_open(&self) -> Result<(EmbeddedLedger, Writer), OpenError> {
        let settings = Settings {
            path: self.directory.path().to_owned(),
            disk_reserve_bytes: 0,
            cache_kib: 1024,
            tombstone_ttl: TOMBSTONE_TTL,
            rejected: self.rejected,
            parked: self.parked,
            max_audiences: self.max_audiences,
            check_every: self.check_every,
            destinations: self.destinations(),
        };
        EmbeddedLedger::open_with(settings, Arc::new(self.clock.clone()), self.pace)
    }

    fn destinations(&self) -> Vec<DestinationSettings> {
        let others = self.others.iter().map(|name| (name, name.as_str()));
        let all = [(&self.name, self.environment.as_str())].into_iter().chain(others);
        all.map(|(name, environment)| DestinationSettings {
            name: name.clone(),
            environment: environment.to_owned(),
            repeat_window: Duration::from_secs(3600),
            reassert_after: self.reassert_after,
        })
        .collect()
    }

    /// Tells the open ledger what it would be opened with.
    async fn configure(&self) {
        self.ledger.configure(self.destinations()).await.expect("there is space");
    }

    fn open(&mut self) {
        let (ledger, writer) = self.try_open().expect("the ledger can be opened");
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
async fn a_member_is_in_one_batch_at_a_time_and_the_longest_pending_goes_first() {
    let bench = Bench::new();
    bench.record(vec![delta("a", "zoe", true, 1)]).await;
    bench.record(vec![delta("a", "ada", true, 1), delta("a", "bob", true, 1)]).await;
    let first = bench.claim("a", 2).await.expect("three wait");
    assert_eq!(keys(&first), ["zoe", "ada"]);
    let second = bench.claim("a", 2).await.expect("one waits");
    assert_eq!(keys(&second), ["bob"]);
    assert!(bench.claim("a", 2).await.is_none());
    bench.record(vec![delta("a", "ada", false, 2)]).await;
    assert!(bench.claim("a", 2).await.is_none(), "ada is in a batch");
    bench.settle(first).await;
    let third = bench.claim("a", 2).await.expect("ada left meanwhile");
    assert_eq!(keys(&third), ["ada"]);
    bench.release(second, Unheard::No).await;
    assert_eq!(keys(&bench.claim("a", 2).await.expect("released")), ["bob"]);
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

#[tokio::test]
async fn a_request_is_one_whole_and_its_later_item_wins_a_tie() {
    let bench = Bench::new();
    bench
        .record(vec![
            delta("a", "ada", true, 5),
            delta("a", "bob", true, 5),
            delta("a", "ada", false, 5),
        ])
        .await;
    let batch = bench.claim("a", 9).await.expect("two wait");
    let members: Vec<_> =
        batch.members.iter().map(|of| (of.context_key.as_str(), of.membership.as_bool())).collect();
    assert_eq!(members, [("ada", false), ("bob", true)]);
}

#[tokio::test]
async fn an_audience_keeps_its_context_kind_and_follows_its_name() {
    let bench = Bench::new();
    bench.record(vec![delta("a", "ada", true, 1)]).await;
    let mut other = delta("a", "bob", true, 2);
    other.context_kind = ContextKind::new("device").expect("a kind");
    let mut renamed = delta("a", "cyd", true, 3);
    renamed.audience_key = AudienceKey::new("renamed").expect("not empty");
    let recorded = bench.record(vec![renamed, other]).await;
    assert_eq!(recorded.kind_conflicts, [1]);
    let batch = bench.claim("a", 9).await.expect("two wait");
    assert_eq!(keys(&batch), ["ada", "cyd"]);
    assert_eq!(batch.route.audience_key.as_str(), "renamed");
}

#[tokio::test]
async fn what_was_parked_travels_alone_until_it_is_taken() {
    let bench = Bench::new();
    let enters = |key| delta("a", key, true, 1);
    bench.record(vec![enters("ada"), enters("bob"), enters("cyd")]).await;
    let mut all = bench.claim("a", 9).await.expect("three wait");
    let rest = Batch { members: all.members.split_off(1), route: Arc::clone(&all.route) };
    bench.park(all).await;
    bench.release(rest, Unheard::No).await;
    bench.requeue().await;
    assert_eq!(keys(&bench.claim("a", 9).await.expect("two wait")), ["bob", "cyd"]);
    let alone = bench.claim("a", 9).await.expect("ada waits");
    assert_eq!(keys(&alone), ["ada"]);
    bench.settle(alone).await;
    bench.record(vec![delta("a", "ada", false, 2), delta("a", "dan", true, 2)]).await;
    assert_eq!(keys(&bench.claim("a", 9).await.expect("two wait")), ["ada", "dan"]);
}

#[tokio::test]
async fn parked_members_are_listed_with_launchdarklys_words_until_they_are_taken() {
    let bench = Bench::new();
    bench.record(vec![delta("a", "ada", true, 1)]).await;
    bench.park(bench.claim("a", 9).await.expect("ada waits")).await;
    let parked = bench.parked();
    let [one] = &parked[..] else { panic!("one is parked") };
    assert_eq!((one.context_key.as_str(), one.status), ("ada", 400));
    assert_eq!(one.answer_id, "1234");
    bench.requeue().await;
    bench.settle(bench.claim("a", 9).await.expect("ada waits")).await;
    assert!(bench.parked().is_empty());
}

#[tokio::test]
async fn after_a_kill_in_a_call_its_members_are_told_once_more_and_no_others() {
    let mut bench = Bench::with(Duration::from_millis(30));
    bench.record(vec![delta("a", "ada", true, 1)]).await;
    bench.claim("a", 9).await.expect("ada waits"); // and the process dies
    bench.record(vec![delta("a", "bob", true, 1)]).await;
    bench.crash();
    bench.settle(bench.claim("a", 9).await.expect("both wait")).await;
    bench.until(|waiting| waiting == 1).await;
    let again = bench.claim("a", 9).await.expect("told once more");
    assert_eq!(keys(&again), ["ada"]);
    bench.settle(again).await;
    assert_eq!(bench.pending().await, 0);
}

#[tokio::test]
async fn a_re_assertion_that_is_due_survives_a_restart() {
    let mut bench = Bench::with(Duration::from_millis(30));
    bench.record(vec![delta("a", "ada", true, 1)]).await;
    bench.release(bench.claim("a", 9).await.expect("ada waits"), Unheard::Perhaps).await;
    bench.reassert_after = Duration::from_millis(1);
    bench.settle(bench.claim("a", 9).await.expect("ada waits")).await;
    bench.reopen().await;
    bench.until(|waiting| waiting == 1).await;
}

#[tokio::test]
async fn a_clean_stop_leaves_nothing_unheard() {
    let mut bench = Bench::with(Duration::ZERO);
    bench.record(vec![delta("a", "ada", true, 1)]).await;
    bench.release(bench.claim("a", 9).await.expect("ada waits"), Unheard::No).await;
    bench.reopen().await;
    bench.settle(bench.claim("a", 9).await.expect("ada waits")).await;
    // A verb later, a re-assertion due at once would have happened.
    bench.record(vec![delta("a", "bob", true, 1)]).await;
    assert_eq!(keys(&bench.claim("a", 9).await.expect("bob waits")), ["bob"]);
}

#[tokio::test]
async fn another_environment_is_told_everything_again() {
    let mut bench = Bench::new();
    let people: Vec<String> = (0..1200).map(|n| format!("p{n}")).collect();
    bench.record(people.iter().map(|who| delta("a", who, true, 1)).collect()).await;
    let mut launchdarkly = BTreeMap::new();
    bench.drain(&mut launchdarkly).await;
    assert_eq!(bench.pending().await, 0);
    "https://launchdarkly.test two".clone_into(&mut bench.environment);
    bench.reopen().await;
    let mut other = BTreeMap::new();
    tokio::time::timeout(DEADLINE, async {
        while other.len() < launchdarkly.len() {
            bench.until(|waiting| waiting > 0).await;
            bench.drain(&mut other).await;
        }
    })
    .await
    .expect("all are told again");
    assert_eq!(other, launchdarkly);
    bench.reopen().await;
    assert_eq!(bench.pending().await, 0, "the environment is the same as before");
}

#[tokio::test]
async fn a_resync_tells_every_member_again_including_those_that_left() {
    let bench = Bench::new();
    bench.record(vec![delta("a", "ada", true, 1), delta("a", "bob", false, 1)]).await;
    bench.record(vec![delta("b", "cyd", true, 1)]).await;
    let mut launchdarkly = BTreeMap::new();
    bench.drain(&mut launchdarkly).await;
    bench.ledger.resync(&destination(), Some(&id("a"))).await.expect("there is space");
    bench.until(|waiting| waiting == 2).await;
    assert_eq!(keys(&bench.claim("a", 9).await.expect("both")), ["ada", "bob"]);
    assert!(bench.claim("b", 9).await.is_none());
}

#[tokio::test]
async fn a_deletion_finds_a_person_by_user_id_under_other_keys_and_keeps_older_events_out() {
    let mut bench = Bench::new();
    let under_email = |event_at| MembershipDelta {
        user_id: UserId::new("u1"),
        ..delta("b", "ada@example.com", true, event_at)
    };
    let before = START.0 - 5;
    bench.record(vec![delta("a", "u1", true, before), under_email(before)]).await;
    let mut launchdarkly = BTreeMap::new();
    bench.drain(&mut launchdarkly).await;
    let kept = RejectedEvent {
        reason: "membership_unknown".into(),
        detail: "It is not known.".to_owned(),
        body: b"{}".to_vec(),
        user_id: UserId::new("u1"),
        event_at: START,
    };
    let rejected = Intake { rejected: vec![kept], ..intake(&*bench.ledger, Vec::new()) };
    bench.take_in(rejected).await;
    bench.clock.advance(Duration::from_secs(1));
    let person = UserId::new("u1").expect("not empty");
    let rejected_of = async |person: &UserId| {
        let kept = bench.ledger.rejected_of(&destination(), person, 0, 10).await;
        kept.expect("it is open").len()
    };
    let other = UserId::new("u2").expect("not empty");
    assert_eq!((rejected_of(&person).await, rejected_of(&other).await), (1, 0));
    bench.ledger.forget(&destination(), person).await.expect("there is space");
    bench.drain(&mut launchdarkly).await;
    assert!(launchdarkly.values().all(|included| !included), "removed from both");
    let left = bench.ledger.reader().members(&destination()).expect("it can be read");
    assert!(left.is_empty(), "and erased");
    assert_eq!(bench.view().await.rejected, 0);

    bench.reopen().await;
    bench.record(vec![delta("a", "u1", true, before), under_email(before + 1)]).await;
    assert!(bench.ledger.reader().members(&destination()).expect("read").is_empty());
    bench.record(vec![delta("a", "u1", true, START.0 + 2_000_000)]).await;
    assert_eq!(bench.pending().await, 1, "a later event is a new beginning");
}

#[tokio::test]
async fn a_settle_after_the_row_was_erased_creates_nothing() {
    let bench = Bench::new();
    bench.record(vec![delta("a", "ada", true, 1)]).await;
    let claimed = bench.claim("a", 9).await.expect("ada waits");
    let duplicate = claimed.clone();
    bench.ledger.forget(&destination(), UserId::new("ada").expect("not empty")).await.expect("ok");
    bench.settle(claimed).await;
    bench.settle(bench.claim("a", 9).await.expect("the removal")).await;
    bench.settle(duplicate).await;
    assert!(bench.ledger.reader().members(&destination()).expect("read").is_empty());
}

#[tokio::test]
async fn rejected_events_are_bounded_in_number_and_bytes_and_the_oldest_go_first() {
    let mut bench = Bench::new();
    let keep = async |bench: &Bench, body: &[u8]| {
        let event = RejectedEvent {
            reason: "no_context_key".into(),
            detail: String::new(),
            body: body.to_vec(),
            user_id: None,
            event_at: START,
        };
        let intake = Intake { rejected: vec![event], ..intake(&*bench.ledger, Vec::new()) };
        bench.take_in(intake).await;
    };
    let sizes = |bench: &Bench| -> Vec<usize> {
        let rejected =
            bench.ledger.reader().rejected(&destination(), 0, 10).expect("it can be read");
        rejected.iter().map(|event| event.body.len()).collect()
    };
    for size in [1, 2, 3, 4] {
        keep(&bench, &vec![b'x'; size]).await;
    }
    assert_eq!(sizes(&bench), [2, 3, 4], "at most three");
    bench.reopen().await;
    keep(&bench, &[b'x'; 995]).await;
    assert_eq!(sizes(&bench), [4, 995], "at most 1000 bytes, counted across a restart");
    keep(&bench, &[b'x'; 2000]).await;
    assert_eq!(sizes(&bench), [4, 995], "one that is larger than the bound drives nobody out");
}

#[tokio::test]
async fn a_told_tombstone_goes_after_its_time_and_everything_else_stays() {
    let bench = Bench::new();
    let people: Vec<_> = (0..1200).map(|n| delta("a", &format!("p{n}"), n % 2 == 0, 1)).collect();
    bench.record(people).await;
    bench.drain(&mut BTreeMap::new()).await;
    bench.record(vec![delta("a", "never_told", false, 1)]).await;
    bench.clock.advance(Duration::from_secs(17));
    let reader = bench.ledger.reader();
    let gone = async {
        loop {
            let members = reader.members(&destination()).expect("it can be read");
            if members.len() == 601 {
                return members;
            }
            // Each verb gives the writer an occasion for a slice of upkeep.
            bench.claim("none", 1).await;
        }
    };
    let left = tokio::time::timeout(DEADLINE, gone).await.expect("it is purged in time");
    assert!(left.iter().all(|member| member.included || member.context_key == "never_told"));
}

#[tokio::test]
async fn arrival_never_runs_backwards_not_even_across_a_restart() {
    let mut bench = Bench::new();
    bench.record(vec![delta("a", "ada", true, 1)]).await;
    let day = Duration::from_secs(86_400);
    bench.clock.advance(day);
    let ahead = bench.ledger.arrival();
    bench.record(vec![delta("a", "ada", true, ahead.0)]).await;
    bench.clock.set(START);
    assert!(bench.ledger.arrival() >= ahead);
    bench.crash();
    assert!(bench.ledger.arrival() >= ahead);
    let now = bench.ledger.arrival();
    bench.record(vec![delta("a", "ada", false, now.0)]).await;
    let batch = bench.claim("a", 9).await.expect("ada waits");
    assert!(!batch.members[0].membership.as_bool(), "the later arrival wins the tie");
}

mod beside;
mod checkpoints;
mod clock;
mod configured;
mod damage;
mod erased;
mod journaled;
mod migration;
mod operations;
mod places;
mod recorded;
mod retention;

/// An item of a request.
#[derive(Clone, Debug)]
enum Item {
    /// Who enters or leaves which audience when.
    Changes(u8, u8, bool, i64),
    /// The same without a time: of a message. Or with one that is believed by now.
    Moves(u8, u8, bool, u8, Option<i64>),
    /// Somebody is deleted, as of a time or on arrival.
    Deletes(u8, Option<i64>),
}

/// What a random story does next.
#[derive(Clone, Debug)]
enum Act {
    /// To the one destination, or in one go to both.
    Record(Vec<Item>, bool),
    /// Of the other destination or not.
    Claim(bool, u8, usize),
    /// The other destination is configured from here on, or it is not.
    Configure(bool),
    /// A claimed batch is taken.
    Settle(prop::sample::Index),
    /// A claimed batch is not taken: applied or not, heard or not.
    Fail {
        which: prop::sample::Index,
        applied: bool,
        heard: bool,
    },
    Park(prop::sample::Index),
    /// A claimed batch is refused as a whole.
    Split(prop::sample::Index),
    Requeue,
    Resync,
    Crash,
    Reopen,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let (audience, key) = (0..2_u8, 0..6_u8);
    let item = prop_oneof![
        8 => (audience.clone(), key.clone(), any::<bool>(), 0..12_i64)
            .prop_map(|(audience, key, enters, at)| Item::Changes(audience, key, enters, at)),
        2 => (audience, key.clone(), any::<bool>(), 0..9_u8, prop::option::of(0..12_i64)).prop_map(
            |(audience, key, enters, message, at)| Item::Moves(audience, key, enters, message, at)
        ),
        1 => (key, prop::option::of(0..12_i64)).prop_map(|(key, at)| Item::Deletes(key, at)),
    ];
    let act = prop_oneof![
        6 => (prop::collection::vec(item, 1..6), any::<bool>())
            .prop_map(|(items, both)| Act::Record(items, both)),
        5 => (any::<bool>(), 0..2_u8, 1..4_usize)
            .prop_map(|(other, audience, limit)| Act::Claim(other, audience, limit)),
        1 => any::<bool>().prop_map(Act::Configure),
        3 => any::<prop::sample::Index>().prop_map(Act::Settle),
        3 => (any::<prop::sample::Index>(), any::<bool>(), any::<bool>())
            .prop_map(|(which, applied, heard)| Act::Fail { which, applied, heard }),
        1 => any::<prop::sample::Index>().prop_map(Act::Park),
        1 => any::<prop::sample::Index>().prop_map(Act::Split),
        1 => Just(Act::Requeue),
        1 => Just(Act::Resync),
        1 => Just(Act::Crash),
        1 => Just(Act::Reopen),
    ];
    prop::collection::vec(act, 1..60)
}

/// Of which destination and audience, and who.
type Who = (String, String, String);

/// What LaunchDarkly was told last, and of which version that was.
type Told = BTreeMap<Who, (bool, Timestamp)>;

fn tell(batch: &Batch, launchdarkly: &mut Told, model: &Plain) {
    let Route { destination, audience, .. } = &*batch.route;
    for ClaimedMember { context_key, membership, version } in &batch.members {
        let (audience, key) = (audience.as_str().to_owned(), context_key.as_str().to_owned());
        let who = (destination.to_string(), audience, key);
        let before = launchdarkly.get(&who);
        assert!(
            before.is_none_or(|before| before.1 <= *version),
            "{before:?} and then {:?} (P3)",
            (membership, version)
        );
        // The row of whoever is deleted goes with that, and a new one begins anew.
        let is_erased = !membership.as_bool() && model.has_deleted(destination, &who.2);
        let version = if is_erased { Timestamp::EPOCH } else { *version };
        launchdarkly.insert(who, (membership.as_bool(), version));
    }
}

fn other() -> DestinationName {
    DestinationName::new("other").expect("not empty")
}

/// What a plain map knows.
#[derive(Default)]
struct Plain {
    members: BTreeMap<Who, (i64, bool)>,
    /// Since when a person of a destination is deleted.
    deleted: BTreeMap<(String, String), i64>,
    messages: BTreeMap<(String, u8), i64>,
}

impl Plain {
    /// As the promises say it, one item after the other.
    fn take(&mut self, destination: &str, items: &[Item], arrival: i64) {
        let mut known = self.messages.clone();
        for item in items {
            let (audience, key, enters, at, is_repeat) = match *item {
                Item::Changes(audience, key, enters, at) => (audience, key, enters, at, false),
                Item::Moves(audience, key, enters, message, at) => {
                    let message = (destination.to_owned(), message);
                    let is_repeat = known.contains_key(&message);
                    let at = match at {
                        Some(at) => self.messages.get(&message).copied().unwrap_or(at),
                        None => *self.messages.entry(message).or_insert(arrival),
                    };
                    (audience, key, enters, at, is_repeat)
                }
                Item::Deletes(key, at) => {
                    self.delete(destination, &format!("k{key}"), at.unwrap_or(arrival));
                    known = self.messages.clone();
                    continue;
                }
            };
            let key = format!("k{key}");
            let deleted = self.deleted.get(&(destination.to_owned(), key.clone()));
            if deleted.is_some_and(|since| at < *since || (is_repeat && at == *since)) {
                continue;
            }
            let who = (destination.to_owned(), format!("aud{audience}"), key);
            let stored = self.members.entry(who).or_insert((at, enters));
            if at > stored.0 || (at == stored.0 && !is_repeat) {
                *stored = (at, enters);
            }
        }
    }

    fn delete(&mut self, destination: &str, key: &str, at: i64) {
        let since = self.deleted.entry((destination.to_owned(), key.to_owned())).or_insert(at);
        *since = (*since).max(at);
        for ((of, _, who), stored) in &mut self.members {
            if of == destination && who == key && stored.0 <= at {
                *stored = (at, false);
            }
        }
    }

    fn has_deleted(&self, destination: &DestinationName, key: &str) -> bool {
        self.deleted.contains_key(&(destination.to_string(), key.to_owned()))
    }
}

/// Makes the items of a story durable, for each destination in one go.
async fn record_for(
    bench: &Bench,
    destinations: &[DestinationName],
    items: &[Item],
    model: &mut Plain,
) {
    let mut all = intake(&*bench.ledger, Vec::new());
    let arrival = all.arrival;
    for item in items {
        match *item {
            Item::Changes(audience, key, enters, at) => {
                all.deltas.push(delta(&format!("aud{audience}"), &format!("k{key}"), enters, at));
            }
            Item::Moves(audience, key, enters, message, at) => all.deltas.push(MembershipDelta {
                message: Some(Message { hash: MessageHash([message; 16]), moves: at.is_none() }),
                ..delta(
                    &format!("aud{audience}"),
                    &format!("k{key}"),
                    enters,
                    at.unwrap_or(arrival.0),
                )
            }),
            Item::Deletes(key, at) => {
                let user_id = UserId::new(&format!("k{key}")).expect("not empty");
                all = deletion(user_id, at.map_or(arrival, Timestamp), all);
            }
        }
    }
    let mut intakes = Vec::new();
    for destination in destinations {
        model.take(destination.as_str(), items, arrival.0);
        intakes.push(Intake { destination: destination.clone(), ..all.clone() });
    }
    let recorded = bench.ledger.record_all(intakes).await.expect("there is space");
    assert_eq!(recorded, vec![Recorded::default(); destinations.len()]);
}

async fn play(mut bench: Bench, acts: Vec<Act>) {
    let mut model = Plain::default();
    let mut launchdarkly = Told::new();
    let mut out: Vec<Batch> = Vec::new();
    // The other destination is configured, or was since the ledger was opened.
    let mut other_is_known = false;
    for act in acts {
        match act {
            Act::Record(items, both) => {
                let all = [destination(), other()];
                let destinations = if both && other_is_known { &all[..] } else { &all[..1] };
                record_for(&bench, destinations, &items, &mut model).await;
            }
            Act::Claim(of_other, audience, limit) => {
                let name = if of_other && other_is_known { other() } else { destination() };
                out.extend(bench.claim_of(&name, &format!("aud{audience}"), limit).await);
                let mut seen = BTreeSet::new();
                for batch in &out {
                    for key in keys(batch) {
                        let Route { destination, audience, .. } = &*batch.route;
                        let member = (destination.as_str(), audience.as_str(), key);
                        assert!(seen.insert(member), "in two batches at once (P3)");
                    }
                }
            }
            Act::Configure(with_other) => {
                bench.others = with_other.then(other).into_iter().collect();
                bench.configure().await;
                other_is_known |= with_other;
            }
            Act::Settle(which) if !out.is_empty() => {
                let batch = out.swap_remove(which.index(out.len()));
                tell(&batch, &mut launchdarkly, &model);
                bench.settle(batch).await;
            }
            Act::Fail { which, applied, heard } if !out.is_empty() => {
                let batch = out.swap_remove(which.index(out.len()));
                if applied {
                    tell(&batch, &mut launchdarkly, &model);
                }
                bench.release(batch, if heard { Unheard::No } else { Unheard::Perhaps }).await;
            }
            Act::Park(which) if !out.is_empty() => {
                let batch = out.swap_remove(which.index(out.len()));
                let is_deleted = |key: &&str| model.has_deleted(&batch.route.destination, key);
                if keys(&batch).iter().any(is_deleted) {
                    // Whoever is refused for good is not there, which the map does not know.
                    bench.release(batch, Unheard::No).await;
                } else {
                    bench.park(batch).await;
                }
            }
            Act::Requeue => bench.requeue().await,
            Act::Resync => {
                bench.ledger.resync(&destination(), None).await.expect("space");
            }
            Act::Split(which) if !out.is_empty() => {
                let batch = out.swap_remove(which.index(out.len()));
                if batch.members.len() > 1 {
                    let (route, mut members) = (batch.route, batch.members);
                    let other = members.split_off(1);
                    let halves = [members, other];
                    let halves = halves.map(|members| Batch { route: route.clone(), members });
                    bench.report(Report::Split(halves.to_vec())).await;
                    out.extend(halves);
                } else {
                    out.push(batch);
                }
            }
            Act::Crash => {
                out.drain(..).for_each(|batch| tell(&batch, &mut launchdarkly, &model));
                bench.crash();
                other_is_known = !bench.others.is_empty();
            }
            Act::Reopen => {
                out.clear();
                bench.reopen().await;
                other_is_known = !bench.others.is_empty();
            }
            Act::Settle(_) | Act::Fail { .. } | Act::Park(_) | Act::Split(_) => {}
        }
    }
    for batch in out {
        bench.release(batch, Unheard::No).await;
    }
    bench.others = vec![other()];
    bench.configure().await;
    bench.ledger.caught_up().await.expect("it is open");
    for name in [destination(), other()] {
        bench.requeue_of(&name).await;
        bench.drain_to(&name, |batch| tell(batch, &mut launchdarkly, &model)).await;
    }
    let expected: BTreeMap<_, _> =
        model.members.into_iter().map(|(who, (_, included))| (who, included)).collect();
    let told: BTreeMap<_, _> =
        launchdarkly.into_iter().map(|(who, (included, _))| (who, included)).collect();
    assert_eq!(told, expected, "LaunchDarkly ends equal to the model (P2, P4)");
    assert_eq!(bench.faults(), [""; 0], "the rows and their counts agree");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..seeds::kept_in("tests/seeds/ledger.txt") })]

    /// Random records, claims, answers, crashes and restarts against a plain map.
    #[test]
    fn the_ledger_agrees_with_a_plain_map(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a small runtime").block_on(play(Bench::new(), acts));
    }

    /// The same through the journal.
    #[test]
    fn the_ledger_behind_its_journal_agrees_with_a_plain_map(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a small runtime").block_on(play(Bench::journaled(), acts));
    }
}
