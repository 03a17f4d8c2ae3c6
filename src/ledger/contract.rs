//! What every store promises, as one suite: a store runs it by implementing [`Subject`] and naming itself to
//! [`contract!`](crate::ledger::contract::contract).
//!
//! | [rule](crate::design::architecture::ledger_state) | tests |
//! | --- | --- |
//! | never told is unknown, not absent | `telling::who_was_never_told_is_told_that_they_left` |
//! | pending is sticky | `telling::a_value_that_flips_back_in_a_call_is_sent_again`, `…_after_a_call_that_nobody_answered_…` |
//! | settle, release and park compare the claimed version | `telling::what_is_newer_than_what_was_claimed_stays_pending` |
//! | a settle of a forgotten row creates nothing | `deletions::a_settle_after_the_row_was_erased_creates_nothing` |
//! | a call without an answer is told once more after its successor | `silence::whoever_was_in_a_call_that_nobody_answered_is_told_once_more`, `silence::a_re_assertion_that_is_due_survives_a_crash_and_a_restart` |
//! | so is who was claimed when the process died | `silence::after_a_kill_in_a_call_its_members_are_told_once_more_and_no_others`, `silence::a_clean_stop_leaves_nothing_unheard` |
//! | opening the ledger releases all claims | `silence::a_restart_ends_every_claim` |
//! | a value that was told lately is not sent again | `telling::a_repeat_is_sent_again_after_the_window_and_not_before` |
//! | a resync forgets what was told | `telling::a_resync_tells_every_member_again_including_those_that_left` |
//! | who left, and was told so, is remembered for a while | `telling::a_told_tombstone_keeps_a_late_entry_out_for_its_time` |
//! | what was told went to one environment | `destinations::what_was_told_is_forgotten_when_the_environment_changes` |
//! | a deletion counts at its own time, finds the person, and keeps older events out | `deletions::*` |
//! | members of an older mapping are recognisable | `operations::only_stale_members_are_retracted` |
//! | the latest event time wins ([P2](crate::design::P2)) | `telling::the_latest_event_time_wins_and_a_tie_goes_to_the_later_arrival` |
//! | a member is in one batch at a time ([P3](crate::design::P3)) | `claims::*` |
//! | all of it together, in any order ([P4](crate::design::P4)) | `story` |
//!
//! [`story`] gives a store and the model random operations, and both must look the same.

pub(crate) mod claims;
pub(crate) mod deletions;
pub(crate) mod destinations;
pub(crate) mod operations;
pub(crate) mod silence;
mod story;
pub(crate) mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::ManualClock;
use crate::ledger::memory::Bounds;
use crate::ledger::{
    Batch, Claim, DestinationSettings, DestinationView, Intake, Measure, MemberView, Members,
    Operations, OrderedDeletion, ParkReason, ParkedAfter, ParkedView, Recorded, Recorder,
    RejectedEvent, Report, Retention, Room, Unheard,
};
use crate::membership::{
    AudienceId, AudienceKey, ContextKey, ContextKind, Deletion, DestinationName, Membership,
    MembershipDelta, Timestamp, UserId,
};

pub(crate) use story::{acts, play};

pub(crate) const START: Timestamp = Timestamp(1_750_000_000_000_000);
const DEADLINE: Duration = Duration::from_secs(20);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

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

/// Runs the suite on a store.
macro_rules! contract {
    ($subject:ty) => {
        $crate::ledger::contract::contract! { $subject:
            claims::a_member_is_in_one_batch_at_a_time_and_the_longest_pending_goes_first,
            claims::what_was_parked_travels_alone_until_it_is_taken,
            claims::the_halves_of_a_refused_batch_stay_apart_across_a_kill_until_they_are_taken,
            claims::a_request_is_one_whole_and_its_later_item_wins_a_tie,
            claims::an_audience_keeps_its_context_kind_and_follows_its_name,
            claims::somebody_who_was_told_can_be_claimed_again_one_after_the_other,
            telling::who_was_never_told_is_told_that_they_left,
            telling::the_latest_event_time_wins_and_a_tie_goes_to_the_later_arrival,
            telling::a_value_that_flips_back_in_a_call_is_sent_again,
            telling::a_value_that_flips_back_after_a_call_that_nobody_answered_is_sent_again,
            telling::what_is_newer_than_what_was_claimed_stays_pending,
            telling::a_repeat_is_sent_again_after_the_window_and_not_before,
            telling::a_resync_tells_every_member_again_including_those_that_left,
            telling::a_told_tombstone_keeps_a_late_entry_out_for_its_time,
            telling::arrival_never_runs_backwards_not_even_across_a_crash,
            silence::whoever_was_in_a_call_that_nobody_answered_is_told_once_more,
            silence::after_a_kill_in_a_call_its_members_are_told_once_more_and_no_others,
            silence::a_re_assertion_that_is_due_survives_a_crash_and_a_restart,
            silence::a_re_assertion_in_a_call_is_told_after_it,
            silence::a_clean_stop_leaves_nothing_unheard,
            silence::a_restart_ends_every_claim,
            deletions::a_deletion_finds_a_person_under_other_keys_and_keeps_older_events_out,
            deletions::a_deletion_counts_at_its_own_time_and_a_later_return_stays,
            deletions::a_deletion_that_comes_again_does_not_undo_a_return,
            deletions::an_operators_deletion_takes_along_whatever_is_stored,
            deletions::a_settle_after_the_row_was_erased_creates_nothing,
            deletions::a_removal_that_is_refused_for_good_erases_the_person_all_the_same,
            deletions::whoever_may_still_be_in_the_segment_is_parked_and_not_erased,
            deletions::everything_of_a_request_is_there_after_a_crash,
            destinations::a_request_for_several_destinations_is_recorded_for_all_or_none,
            destinations::a_destination_comes_and_goes_and_its_rows_stay,
            destinations::what_was_told_is_forgotten_when_the_environment_changes,
            destinations::rows_of_a_removed_destination_are_kept_and_shown_until_they_are_erased,
            destinations::requests_that_come_together_get_as_many_places_as_there_are,
            destinations::an_erased_audience_frees_its_place_once_its_calls_are_over,
            operations::the_turnover_counts_changes_once_and_repeats_never,
            operations::the_counters_say_what_became_of_deltas,
            operations::parked_members_are_listed_with_launchdarklys_words_until_they_are_taken,
            operations::parked_members_are_tried_again_and_nobody_else,
            operations::parked_members_can_be_given_up_and_nobody_else,
            operations::a_refusal_that_was_everybodys_is_taken_back,
            operations::parked_members_are_bounded_and_the_oldest_go_first,
            operations::rejected_events_are_bounded_and_the_oldest_go_first,
            operations::what_is_parked_or_rejected_goes_when_it_is_too_old,
            operations::rejected_events_are_discarded_by_number,
            operations::an_erased_audience_is_gone_at_once_and_its_name_is_free,
            operations::a_retracted_audience_is_told_that_everybody_left_and_then_forgotten,
            operations::who_waits_to_be_told_is_told_before_a_retraction_erases_it,
            operations::only_stale_members_are_retracted,
            operations::a_person_is_shown_under_every_key,
            operations::a_pause_lasts_across_a_restart_and_wakes_the_courier_when_it_ends,
            operations::a_note_is_for_the_next_start,
        }
    };
    ($subject:ty: $($room:ident :: $test:ident,)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                $crate::ledger::contract::$room::$test::<$subject>().await;
            }
        )*

        proptest::proptest! {
            #![proptest_config(proptest::prelude::ProptestConfig {
                cases: $crate::ledger::contract::CASES,
                max_shrink_time: 30_000, // milliseconds
                ..$crate::seeds::kept_in("tests/seeds/contract.txt")
            })]

            /// Random operations, crashes and restarts beside the model.
            #[test]
            fn it_looks_like_the_model_whatever_happens(acts in $crate::ledger::contract::acts()) {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let story = $crate::ledger::contract::play::<$subject>(acts);
                runtime.expect("a small runtime").block_on(story);
            }
        }
    };
}

pub(crate) use contract;

/// Random stories of a store.
pub(crate) const CASES: u32 = 96;

fn production() -> DestinationName {
    DestinationName::new("production").expect("not empty")
}

fn other() -> DestinationName {
    DestinationName::new("other").expect("not empty")
}

fn settings(name: &DestinationName) -> DestinationSettings {
    DestinationSettings {
        name: name.clone(),
        environment: format!("https://launchdarkly.test {name}"),
        repeat_window: Duration::from_secs(3600),
        reassert_after: Duration::from_secs(600),
    }
}

fn id(audience: &str) -> AudienceId {
    AudienceId::new(audience).expect("not empty")
}

fn user(name: &str) -> UserId {
    UserId::new(name).expect("not empty")
}

fn device() -> ContextKind {
    ContextKind::new("device").expect("a kind")
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

/// These enter an audience.
fn enter(audience: &str, keys: &[&str]) -> Vec<MembershipDelta> {
    keys.iter().map(|key| delta(audience, key, true, 1)).collect()
}

/// Of the person of this user id, under another key.
fn under(user_id: &str, delta: MembershipDelta) -> MembershipDelta {
    MembershipDelta { user_id: UserId::new(user_id), ..delta }
}

fn intake(
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
    }
}

/// The same with a deletion behind all else.
fn and_delete(user_id: &str, event_at: Timestamp, mut intake: Intake) -> Intake {
    let (after_deltas, after_rejected) = (intake.deltas.len(), intake.rejected.len());
    let deletion = Deletion { user_id: user(user_id), event_at, message: None };
    let is_unconditional = false;
    let ordered = OrderedDeletion { deletion, is_unconditional, after_deltas, after_rejected };
    intake.deletions.push(ordered);
    intake
}

fn rejected(body: &[u8], user_id: Option<&str>) -> RejectedEvent {
    RejectedEvent {
        reason: "no_context_key".into(),
        detail: "a sentence".to_owned(),
        body: body.to_vec(),
        user_id: user_id.and_then(UserId::new),
        event_at: START,
    }
}

fn reason(id: &str) -> ParkReason {
    let [code, message] = ["invalid_request", "no"].map(str::to_owned);
    ParkReason { status: 400, code, message, id: id.to_owned() }
}

fn members(audience: &str, keys: &[&str]) -> Members {
    let context_keys = keys.iter().filter_map(|key| ContextKey::new(key)).collect();
    Members { destination: production(), audience: id(audience), context_keys }
}

/// So many members of an audience, whatever they take.
fn longest(audience: &str, members: usize) -> Claim {
    let members = NonZeroUsize::new(members).expect("not zero");
    let measure = Measure { call: |_| 0, member: |_| 0, key: |_| 0 };
    Claim::Longest { audience: id(audience), room: Room { members, bytes: usize::MAX, measure } }
}

/// Whoever is in a batch, in its order.
fn keys(batch: &Batch) -> Vec<&str> {
    batch.members.iter().map(|member| member.context_key.as_str()).collect()
}

/// Whoever is in a batch, by name: nobody says in which order those wait who came together.
fn those(batch: &Batch) -> BTreeSet<&str> {
    keys(batch).into_iter().collect()
}

/// What a batch tells of the one member in it.
fn tells(batch: &Batch) -> (&str, bool) {
    let [member] = &batch.members[..] else { panic!("one is in it: {:?}", keys(batch).len()) };
    (member.context_key.as_str(), member.membership.as_bool())
}

/// One member out of a batch.
fn only(batch: &Batch, key: &str) -> Batch {
    let member = batch.members.iter().find(|of| of.context_key.as_str() == key);
    let members = vec![member.expect("it is in it").clone()];
    Batch { route: Arc::clone(&batch.route), members }
}
