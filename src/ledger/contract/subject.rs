//! What a store is to the suite, and what every test says of it.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::ManualClock;
use crate::ledger::memory::Bounds;
use crate::ledger::{
    Batch, Claim, DestinationSettings, DestinationView, GuardLimits, Intake, Measure, MemberView,
    Members, Operations, OrderedDeletion, ParkReason, ParkedAfter, ParkedView, Recorded, Recorder,
    RejectedEvent, Report, Retention, Room, Unheard,
};
use crate::membership::{
    AudienceId, AudienceKey, ContextKey, ContextKind, Deletion, DestinationName, Membership,
    MembershipDelta, Timestamp, UserId,
};

pub(crate) const START: Timestamp = Timestamp(1_750_000_000_000_000);
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// What a store is opened with.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub destinations: Vec<DestinationSettings>,
    pub bounds: Bounds,
}

/// One destination, and room for everything.
impl Default for Setup {
    fn default() -> Self {
        let kept = Retention { max_age: DAY, max_count: 1000, max_bytes: 1 << 20 };
        let tombstone_ttl = Duration::from_secs(16);
        let bounds = Bounds { tombstone_ttl, rejected: kept, parked: kept, max_audiences: 10_000 };
        Self { destinations: vec![settings(&production())], bounds }
    }
}

/// A store that is to keep the contract.
pub(crate) trait Subject: Sized {
    /// Random stories that it is told.
    const STORIES: u32 = 96;

    /// A new one.
    async fn open(setup: Setup) -> Self;
    /// What it is configured with from the next [`Subject::configure`], or opened with from the next start.
    fn setup(&mut self) -> &mut Setup;
    /// Its clock, which stands still unless it is moved.
    fn clock(&self) -> &ManualClock;
    /// As people see it, who see all of it.
    fn operations(&self) -> Arc<dyn Operations>;
    /// Tells it its destinations while it is open.
    async fn configure(&self);
    /// Kills it, and opens what is left.
    async fn crash(&mut self);
    /// Closes it in order, and opens it again.
    async fn reopen(&mut self);
    /// Returns when couriers see everything that was recorded before.
    async fn applied(&self);
    /// Returns when people see everything that was recorded and reported before.
    async fn caught_up(&self);
    /// An occasion for what is done beside the verbs.
    async fn upkeep(&self);
    /// Every member of a destination.
    fn members(&self, destination: &DestinationName) -> Vec<MemberView>;
    /// What a reading of everything finds.
    fn faults(&self) -> Vec<String>;

    /// A new one that tells again whoever was in a call that nobody answered after a moment.
    async fn with_reassertions() -> Self {
        let mut setup = Setup::default();
        setup.destinations[0].reassert_after = Duration::from_millis(30);
        Self::open(setup).await
    }

    async fn record(&self, deltas: Vec<MembershipDelta>) -> Recorded {
        self.take_in(vec![intake(&*self.operations(), &production(), deltas)]).await.remove(0)
    }

    /// Records, and waits until all of it can be seen.
    async fn take_in(&self, intakes: Vec<Intake>) -> Vec<Recorded> {
        let recorded = self.operations().record_all(intakes).await.expect("there is space");
        self.caught_up().await;
        recorded
    }

    async fn claim(&self, audience: &str, limit: usize) -> Option<Batch> {
        self.claim_of(&production(), audience, limit).await
    }

    async fn claim_of(
        &self,
        name: &DestinationName,
        audience: &str,
        limit: usize,
    ) -> Option<Batch> {
        let outbox = self.operations().outbox(name);
        outbox.claim(longest(audience, limit)).await.expect("it is open")
    }

    /// Claims whoever waits: somebody does.
    async fn next(&self, audience: &str) -> Batch {
        self.claim(audience, 999).await.expect("somebody waits")
    }

    async fn report(&self, report: Report) {
        let batch = match &report {
            Report::Settle(batch)
            | Report::Release(batch, _)
            | Report::Park(batch, _)
            | Report::Unpark(batch) => batch,
            Report::Split(parts) => &parts[0],
        };
        let outbox = self.operations().outbox(&batch.route.destination);
        outbox.report(report).await.expect("there is space");
    }

    async fn settle(&self, batch: Batch) {
        self.report(Report::Settle(batch)).await;
    }

    async fn release(&self, batch: Batch, unheard: Unheard) {
        self.report(Report::Release(batch, unheard)).await;
    }

    async fn park(&self, batch: Batch) {
        self.report(Report::Park(batch, reason("1234"))).await;
        self.caught_up().await;
    }

    /// Claims and settles until nobody waits; what was told of whom.
    async fn drain(&self, name: &DestinationName) -> BTreeMap<(String, String), bool> {
        let mut told = BTreeMap::new();
        let outbox = self.operations().outbox(name);
        while let Some(waiting) = outbox.backlog().await.expect("it is open").first() {
            let audience = waiting.audience.as_str().to_owned();
            let Some(batch) = self.claim_of(name, &audience, 7).await else { continue };
            for member in &batch.members {
                let key = member.context_key.as_str().to_owned();
                told.insert((audience.clone(), key), member.membership.as_bool());
            }
            outbox.report(Report::Settle(batch)).await.expect("there is space");
        }
        told
    }

    /// Members of a destination that are in no batch and wait.
    async fn waiting(&self, name: &DestinationName) -> u64 {
        let backlog = self.operations().outbox(name).backlog().await.expect("it is open");
        backlog.iter().map(|of| of.waiting).sum()
    }

    async fn view(&self) -> DestinationView {
        let all = self.operations().destinations().await.expect("it is open");
        all.into_iter().find(|of| of.name == "production").expect("it is configured")
    }

    async fn parked(&self) -> Vec<ParkedView> {
        let all = ParkedAfter::default();
        self.operations().parked(&production(), None, &all, 999).await.expect("it is open")
    }

    /// Tries these parked members again; how many were.
    async fn requeue(&self, audience: &str, keys: &[&str]) -> u64 {
        let requeued = self.operations().requeue(members(audience, keys)).await;
        requeued.expect("there is space")
    }

    /// Gives occasions for what is done beside the verbs until so many members wait.
    async fn until_waiting(&self, count: u64) {
        self.until(async || self.waiting(&production()).await == count).await;
    }

    /// Gives occasions for what is done beside the verbs until this is so.
    async fn until(&self, is_so: impl AsyncFn() -> bool) {
        let looking = async {
            while !is_so().await {
                self.upkeep().await;
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, looking).await.expect("it happens in time");
    }

    /// Whoever is a member, by audience and key, and whether they are in.
    fn everybody(&self) -> Vec<(String, String, bool)> {
        let mut all: Vec<_> = self
            .members(&production())
            .into_iter()
            .map(|of| (of.audience, of.context_key, of.included))
            .collect();
        all.sort();
        all
    }
}

pub(crate) fn production() -> DestinationName {
    DestinationName::new("production").expect("not empty")
}

pub(crate) fn other() -> DestinationName {
    DestinationName::new("other").expect("not empty")
}

pub(crate) fn settings(name: &DestinationName) -> DestinationSettings {
    DestinationSettings {
        name: name.clone(),
        environment: format!("https://launchdarkly.test {name}"),
        repeat_window: Duration::from_secs(3600),
        reassert_after: Duration::from_secs(600),
        expires_after: BTreeMap::new(),
        guard: GuardLimits::default(),
    }
}

pub(crate) fn id(audience: &str) -> AudienceId {
    AudienceId::new(audience).expect("not empty")
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).expect("not empty")
}

pub(crate) fn device() -> ContextKind {
    ContextKind::new("device").expect("a kind")
}

pub(crate) fn delta(audience: &str, key: &str, enters: bool, event_at: i64) -> MembershipDelta {
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

/// These enter an audience.
pub(crate) fn enter(audience: &str, keys: &[&str]) -> Vec<MembershipDelta> {
    keys.iter().map(|key| delta(audience, key, true, 1)).collect()
}

/// Of the person of this user id, under another key.
pub(crate) fn under(user_id: &str, delta: MembershipDelta) -> MembershipDelta {
    MembershipDelta { user_id: UserId::new(user_id), ..delta }
}

pub(crate) fn intake(
    recorder: &(impl Recorder + ?Sized),
    destination: &DestinationName,
    deltas: Vec<MembershipDelta>,
) -> Intake {
    Intake {
        destination: destination.clone(),
        arrival: recorder.arrival(),
        deltas,
        deletions: Vec::new(),
        rejected: Vec::new(),
        origin: crate::ledger::Origin::Events,
    }
}

/// The same with a deletion behind all else.
pub(crate) fn and_delete(user_id: &str, event_at: Timestamp, mut intake: Intake) -> Intake {
    let (after_deltas, after_rejected) = (intake.deltas.len(), intake.rejected.len());
    let deletion = Deletion { user_id: user(user_id), event_at, message: None };
    let is_unconditional = false;
    let ordered = OrderedDeletion { deletion, is_unconditional, after_deltas, after_rejected };
    intake.deletions.push(ordered);
    intake
}

pub(crate) fn rejected(body: &[u8], user_id: Option<&str>) -> RejectedEvent {
    RejectedEvent {
        reason: "no_context_key".into(),
        detail: "a sentence".to_owned(),
        body: body.to_vec(),
        user_id: user_id.and_then(UserId::new),
        event_at: START,
    }
}

pub(crate) fn reason(id: &str) -> ParkReason {
    let [code, message] = ["invalid_request", "no"].map(str::to_owned);
    ParkReason { status: 400, code, message, id: id.to_owned() }
}

pub(crate) fn members(audience: &str, keys: &[&str]) -> Members {
    let context_keys = keys.iter().filter_map(|key| ContextKey::new(key)).collect();
    Members { destination: production(), audience: id(audience), context_keys }
}

/// So many members of an audience, whatever they take.
pub(crate) fn longest(audience: &str, members: usize) -> Claim {
    let members = NonZeroUsize::new(members).expect("not zero");
    let measure = Measure { call: |_| 0, member: |_| 0, key: |_| 0 };
    Claim::Longest { audience: id(audience), room: Room { members, bytes: usize::MAX, measure } }
}

/// Whoever is in a batch, in its order.
pub(crate) fn keys(batch: &Batch) -> Vec<&str> {
    batch.members.iter().map(|member| member.context_key.as_str()).collect()
}

/// Whoever is in a batch, by name: nobody says in which order those wait who came together.
pub(crate) fn those(batch: &Batch) -> BTreeSet<&str> {
    keys(batch).into_iter().collect()
}

/// What a batch tells of the one member in it.
pub(crate) fn tells(batch: &Batch) -> (&str, bool) {
    let [member] = &batch.members[..] else { panic!("one is in it: {:?}", keys(batch).len()) };
    (member.context_key.as_str(), member.membership.as_bool())
}

/// One member out of a batch.
pub(crate) fn only(batch: &Batch, key: &str) -> Batch {
    let member = batch.members.iter().find(|of| of.context_key.as_str() == key);
    let members = vec![member.expect("it is in it").clone()];
    Batch { members, ..batch.clone() }
}
