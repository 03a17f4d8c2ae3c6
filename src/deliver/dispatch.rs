//! What a courier does next, and what an answer means for what it does after that. Pure: no clock, no
//! chance and no I/O of its own (P9).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Policy;
use super::backoff::Backoff;
use super::batch_size::BatchSize;
use super::concurrency::Concurrency;
use super::guard::Guard;
use super::pace::{self, Pace};
use crate::launchdarkly::{Answer, Fate, Outcome, Refusal};
use crate::ledger::{Backlog, Batch, ParkReason, Route, Unheard};
use crate::membership::{AudienceId, ContextKey, Timestamp};

/// How far apart two attempts after a 409 are at first; the concurrent change is over soon.
const CONFLICT_FLOOR: Duration = Duration::from_millis(200);
const CONFLICT_CEILING: Duration = Duration::from_secs(5);
/// So many audiences failing with none succeeding in between: it is the destination.
const FAILING_ALIKE: usize = 2;

/// What to do next.
#[derive(Debug)]
pub(super) enum Step {
    /// Send this part of a batch that was refused as a whole.
    Send(Batch),
    /// Claim and send.
    Claim { audience: AudienceId, limit: NonZeroUsize },
    /// Claim this member, which was taken before, and send it: a held destination is probed.
    ClaimAgain { route: Arc<Route>, context_key: ContextKey },
    /// The same with any member that was taken before, behind this one; if there is none,
    /// [`Dispatch::nobody_told`].
    ClaimTold { after: Option<(AudienceId, ContextKey)> },
    /// Nothing until then, or until an answer or a new member arrives.
    Wait(Option<Instant>),
}

/// What the ledger is to be told.
#[derive(Clone, Debug)]
pub(super) enum Report {
    Settle(Batch),
    Release(Batch, Unheard),
    Park(Batch, ParkReason),
    /// A batch was refused as a whole: its halves travel by themselves.
    Split([Batch; 2]),
    Unpark(Batch),
}

/// Whether a destination is being delivered to, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Why nothing is delivered except probes.
    pub held: Option<Held>,
}

/// Since when and why a destination is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Since when.
    pub since: Timestamp,
    /// The HTTP status that caused it.
    pub status: u16,
    /// In words, with the remedy.
    pub why: &'static str,
    /// LaunchDarkly's `id` of the last such answer, for its support.
    pub answer_id: String,
}

#[derive(Debug)]
struct Hold {
    held: Held,
    everybody_refused: bool,
    backoff: Backoff,
    next_probe: Instant,
    /// The next probe is of somebody who was taken before: those who wait may all be refused for
    /// good, and would hold the destination for ever.
    ask_told: bool,
    /// Who was asked so last.
    asked: Option<(AudienceId, ContextKey)>,
}

#[derive(Debug, Default)]
struct AudienceState {
    in_flight: usize,
    acknowledged: bool,
    backoff: Backoff,
    not_before: Option<Instant>,
    /// Halves of refused batches, still claimed; breadth first, so that large good parts go early.
    parts: VecDeque<Batch>,
}

/// The state of one destination's delivery.
#[derive(Debug)]
pub(super) struct Dispatch {
    policy: Policy,
    batch_size: BatchSize,
    concurrency: Concurrency,
    audiences: BTreeMap<AudienceId, AudienceState>,
    in_flight: usize,
    /// The audience that was served last: the next one in order has the next turn.
    served: Option<AudienceId>,
    paused_until: Option<Instant>,
    /// How far calls are apart, and until when.
    gap: Option<(Duration, Instant)>,
    backoff: Backoff,
    /// Audiences that failed since anything was taken.
    failing: BTreeSet<AudienceId>,
    hold: Option<Hold>,
    guard: Guard,
    /// A member that was taken: what is refused next to it is not refused to everybody.
    witness: Option<(Arc<Route>, ContextKey)>,
}

/// When an answer came and what chance says, for the pure code.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub instant: Instant,
    pub wall: Timestamp,
    /// How long the call took.
    pub took: Duration,
    /// Uniform in 0..1.
    pub draw: f64,
}

impl Dispatch {
    pub fn new(policy: Policy) -> Self {
        Self {
            batch_size: BatchSize::new(policy.max_batch),
            concurrency: Concurrency::new(policy.min_concurrency, policy.concurrency),
            policy,
            audiences: BTreeMap::new(),
            in_flight: 0,
            served: None,
            paused_until: None,
            gap: None,
            backoff: Backoff::default(),
            failing: BTreeSet::new(),
            hold: None,
            guard: Guard::new(),
            witness: None,
        }
    }

    /// For people.
    pub fn standing(&self) -> Standing {
        Standing { held: self.hold.as_ref().map(|hold| hold.held.clone()) }
    }

    /// The next step at `now`, given what waits in the ledger.
    pub fn next(&mut self, now: Instant, backlog: &[Backlog]) -> Step {
        // A rate limit is waited out by probes too.
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return Step::Wait(Some(until));
        }
        if let Some(hold) = &self.hold {
            if self.in_flight > 0 {
                return Step::Wait(None);
            }
            if hold.next_probe > now {
                return Step::Wait(Some(hold.next_probe));
            }
            return self.probe(backlog);
        }
        // After several audiences failed alike, one request at a time finds out whether it is over.
        let failing = self.failing.len() >= FAILING_ALIKE;
        let most = if failing { 1 } else { self.concurrency.allowed() };
        if self.in_flight >= most {
            return Step::Wait(None);
        }
        self.next_audience(now, backlog)
    }

    fn probe(&mut self, backlog: &[Backlog]) -> Step {
        let everybody_refused = self.hold.as_ref().is_some_and(|hold| hold.everybody_refused);
        if everybody_refused && let Some((route, context_key)) = self.witness.take() {
            return Step::ClaimAgain { route, context_key };
        }
        if everybody_refused && let Some(hold) = self.hold.as_mut().filter(|hold| hold.ask_told) {
            return Step::ClaimTold { after: hold.asked.take() };
        }
        let limit = if everybody_refused { NonZeroUsize::MIN } else { self.batch_size.now() };
        let waiting = backlog.iter().map(|backlog| backlog.audience.clone()).collect();
        match self.turn(&waiting) {
            Some(audience) => Step::Claim { audience, limit },
            None => Step::Wait(None),
        }
    }

    fn next_audience(&mut self, now: Instant, backlog: &[Backlog]) -> Step {
        let mut ready = BTreeSet::new();
        let mut earliest: Option<Instant> = None;
        let mut later = |at: Instant| earliest = Some(earliest.map_or(at, |other| other.min(at)));
        let full = self.batch_size.now().get() as u64;
        for waiting in backlog {
            let state = self.audiences.entry(waiting.audience.clone()).or_default();
            state.acknowledged |= waiting.acknowledged;
            let due = if waiting.waiting >= full {
                now
            } else {
                waiting.waiting_since + self.policy.linger
            };
            let due = state.not_before.map_or(due, |not_before| due.max(not_before));
            if !state.may_fly() {
                continue; // its answer will wake the courier
            }
            if due <= now {
                ready.insert(waiting.audience.clone());
            } else {
                later(due);
            }
        }
        for (audience, state) in &self.audiences {
            if state.parts.is_empty() || !state.may_fly() {
                continue;
            }
            match state.not_before {
                Some(not_before) if not_before > now => later(not_before),
                _ => _ = ready.insert(audience.clone()),
            }
        }
        let Some(audience) = self.turn(&ready) else { return Step::Wait(earliest) };
        if let Some((gap, _)) = self.gap.filter(|(_, until)| *until > now) {
            self.paused_until = Some(now + gap);
        }
        match self.audiences.get_mut(&audience).and_then(|state| state.parts.pop_front()) {
            Some(part) => Step::Send(part),
            None => Step::Claim { audience, limit: self.batch_size.now() },
        }
    }

    /// The next of `ready` in a fixed order, behind the one that was served last.
    fn turn(&mut self, ready: &BTreeSet<AudienceId>) -> Option<AudienceId> {
        let after = self.served.as_ref().and_then(|served| ready.iter().find(|one| *one > served));
        let next = after.or_else(|| ready.first()).cloned();
        self.served.clone_from(&next);
        next
    }

    /// Nobody was found for [`Step::ClaimTold`]: somebody who waits is asked instead.
    pub fn nobody_told(&mut self) {
        if let Some(hold) = &mut self.hold {
            hold.ask_told = false;
        }
    }

    /// A batch is on its way.
    pub fn sent(&mut self, batch: &Batch) {
        self.in_flight += 1;
        self.audiences.entry(batch.route.audience.clone()).or_default().in_flight += 1;
    }

    /// A batch was answered, or its call ended without an answer.
    pub fn answered(&mut self, batch: Batch, answer: Answer, now: Now) -> Vec<Report> {
        self.in_flight -= 1;
        let audience = batch.route.audience.clone();
        self.audiences.entry(audience.clone()).or_default().in_flight -= 1;
        // An answer that says nothing, as of what stands between, takes back nothing.
        if let Some(Pace { pause, gap, lasts }) =
            pace::pace(&answer.limits, now.wall, self.in_flight)
        {
            self.gap = Some((gap, now.instant + lasts));
            if pause > Duration::ZERO {
                self.pause_until(now.instant + pause);
            }
        }
        self.keep_witness(&batch, &answer.outcome);
        match answer.outcome {
            Outcome::Taken => self.concurrency.clean(now.took),
            Outcome::RateLimited { .. } | Outcome::Unavailable { .. } => {
                let sent = now.instant.checked_sub(now.took).unwrap_or(now.instant);
                self.concurrency.trouble(sent, now.instant);
            }
            _ => {}
        }
        let reports = match answer.outcome {
            Outcome::Taken => self.taken(batch),
            Outcome::Refused(refusal) => self.refused(batch, refusal, now),
            Outcome::TokenRefused(refusal) => self.hold_for(
                batch,
                &refusal,
                "LaunchDarkly refuses the service token: check that it exists, is not expired, and \
                 has the rights createSegment and updateIncluded",
                now,
            ),
            Outcome::UnknownEnvironment(refusal) => self.hold_for(
                batch,
                &refusal,
                "LaunchDarkly does not know the environment: check client_side_id and base_url",
                now,
            ),
            Outcome::Unexpected(refusal) => self.hold_for(
                batch,
                &refusal,
                "LaunchDarkly answers with a status it does not document for this route: check \
                 base_url, and whether something stands between",
                now,
            ),
            Outcome::TooLarge(refusal) => self.too_large(batch, refusal),
            Outcome::Conflict => {
                let state = self.audiences.entry(audience.clone()).or_default();
                let pause = state.backoff.fail(CONFLICT_FLOOR, CONFLICT_CEILING, now.draw);
                state.not_before = Some(now.instant + pause);
                vec![Report::Release(batch, Unheard::No)]
            }
            Outcome::RateLimited { .. } => {
                let asked = pace::rate_limited(&answer.limits, now.wall, now.draw);
                let pause = asked.unwrap_or_else(|| self.fail_destination(now));
                self.pause_until(now.instant + pause);
                vec![Report::Release(batch, Unheard::No)]
            }
            Outcome::Unavailable { fate, .. } => {
                self.unavailable(&audience, now);
                let unheard = if fate == Fate::Open { Unheard::Perhaps } else { Unheard::No };
                vec![Report::Release(batch, unheard)]
            }
        };
        self.probe_again_if_held(now);
        self.audiences.retain(|_, state| state.matters());
        reports
    }

    /// From here on it delivers so. A hold and every pause after a failure are over, for what was wrong
    /// may be what was changed; what LaunchDarkly has asked for (rate limits, smaller batches) stays.
    pub fn change(&mut self, policy: Policy) {
        self.batch_size.change(policy.max_batch);
        self.concurrency.change(policy.min_concurrency, policy.concurrency);
        self.policy = policy;
        self.hold = None;
        self.backoff.reset();
        self.failing.clear();
        for state in self.audiences.values_mut() {
            state.backoff.reset();
            state.not_before = None;
        }
        self.audiences.retain(|_, state| state.matters());
    }

    /// A call that was made before the last change was refused for what may have been changed.
    pub fn refused_before_change(&mut self, batch: Batch) -> Vec<Report> {
        self.in_flight -= 1;
        self.audiences.entry(batch.route.audience.clone()).or_default().in_flight -= 1;
        self.audiences.retain(|_, state| state.matters());
        vec![Report::Release(batch, Unheard::No)]
    }

    /// A probe that was not judged, for an outage or a rate limit, has shown nothing: its member is
    /// asked again. Otherwise the refused would be probed one after another, and be held for long.
    fn keep_witness(&mut self, probe: &Batch, outcome: &Outcome) {
        let everybody_refused = self.hold.as_ref().is_some_and(|hold| hold.everybody_refused);
        let judged = matches!(outcome, Outcome::Taken | Outcome::Refused(_));
        if everybody_refused && !judged && self.witness.is_none() {
            let member = probe.members.first().map(|member| member.context_key.clone());
            self.witness = member.map(|key| (Arc::clone(&probe.route), key));
        }
    }

    fn taken(&mut self, batch: Batch) -> Vec<Report> {
        let state = self.audiences.entry(batch.route.audience.clone()).or_default();
        state.acknowledged = true;
        state.backoff.reset();
        state.not_before = None;
        self.backoff.reset();
        self.failing.clear();
        self.hold = None;
        self.guard.taken(batch.members.len());
        self.batch_size.taken(batch.members.len());
        let witness = batch.members.first().map(|member| member.context_key.clone());
        self.witness = witness.map(|key| (Arc::clone(&batch.route), key));
        vec![Report::Settle(batch)]
    }

    fn refused(&mut self, batch: Batch, refusal: Refusal, now: Now) -> Vec<Report> {
        if self.hold.as_ref().is_some_and(|hold| hold.everybody_refused) {
            // Still everybody's: the next probe carries another member.
            if let Some(hold) = &mut self.hold {
                let member = batch.members.first().map(|member| member.context_key.clone());
                hold.asked = member.map(|key| (batch.route.audience.clone(), key));
                hold.ask_told = !hold.ask_told;
            }
            return vec![Report::Release(batch, Unheard::NoAndLast)];
        }
        self.hold = None; // the token and the environment are good
        if batch.members.len() > 1 {
            let halves = halves(batch);
            let audience = halves[0].route.audience.clone();
            self.audiences.entry(audience).or_default().parts.extend(halves.clone());
            return vec![Report::Split(halves)];
        }
        let status = refusal.status;
        let answer_id = refusal.id.clone();
        let mut reports = vec![Report::Park(batch.clone(), park_reason(refusal))];
        if let Some(refused) = self.guard.refused(batch) {
            reports.extend(refused.into_iter().map(Report::Unpark));
            reports.extend(self.release_parts());
            let why = "LaunchDarkly refuses every member, one by one: what all requests have in common \
                       is refused (its API, the context kind, or something that stands between)";
            self.start_hold(status, why, answer_id, true, now);
        }
        reports
    }

    fn hold_for(
        &mut self,
        batch: Batch,
        refusal: &Refusal,
        why: &'static str,
        now: Now,
    ) -> Vec<Report> {
        let mut reports = vec![Report::Release(batch, Unheard::No)];
        reports.extend(self.release_parts());
        self.start_hold(refusal.status, why, refusal.id.clone(), false, now);
        reports
    }

    fn start_hold(
        &mut self,
        status: u16,
        why: &'static str,
        answer_id: String,
        everybody_refused: bool,
        now: Now,
    ) {
        let before = self.hold.take();
        let since = before.as_ref().map_or(now.wall, |hold| hold.held.since);
        let held = Held { since, status, why, answer_id };
        let backoff = before.map_or_else(Backoff::default, |hold| hold.backoff);
        self.hold = Some(Hold {
            held,
            everybody_refused,
            backoff,
            next_probe: now.instant,
            ask_told: everybody_refused,
            asked: None,
        });
    }

    /// While held, each answer that did not end the hold puts the next probe further off.
    fn probe_again_if_held(&mut self, now: Now) {
        if let Some(hold) = &mut self.hold {
            let Policy { retry_floor, retry_ceiling, .. } = self.policy;
            // Half of it for certain: a token is not mended in a millisecond.
            let pause = hold.backoff.fail(retry_floor, retry_ceiling, 0.5 + now.draw / 2.0);
            hold.next_probe = now.instant + pause;
        }
    }

    fn too_large(&mut self, batch: Batch, refusal: Refusal) -> Vec<Report> {
        if batch.members.len() == 1 {
            return vec![Report::Park(batch, park_reason(refusal))];
        }
        self.batch_size.too_large(batch.members.len());
        vec![Report::Release(batch, Unheard::No)]
    }

    fn unavailable(&mut self, audience: &AudienceId, now: Now) {
        let Policy { retry_floor, retry_ceiling, .. } = self.policy;
        let state = self.audiences.entry(audience.clone()).or_default();
        let pause = state.backoff.fail(retry_floor, retry_ceiling, now.draw);
        state.not_before = Some(now.instant + pause);
        self.failing.insert(audience.clone());
        let paused = self.paused_until.is_some_and(|until| until > now.instant);
        if self.failing.len() >= FAILING_ALIKE && !paused {
            let pause = self.fail_destination(now);
            self.pause_until(now.instant + pause);
        }
    }

    fn fail_destination(&mut self, now: Now) -> Duration {
        self.backoff.fail(self.policy.retry_floor, self.policy.retry_ceiling, now.draw)
    }

    fn pause_until(&mut self, until: Instant) {
        self.paused_until = Some(self.paused_until.map_or(until, |other| other.max(until)));
    }

    /// Gives back the halves that wait to be sent: the courier stops, or the destination is held.
    pub fn release_parts(&mut self) -> Vec<Report> {
        let parts = self.audiences.values_mut().flat_map(|state| state.parts.drain(..));
        parts.map(|part| Report::Release(part, Unheard::No)).collect()
    }
}

impl AudienceState {
    /// A segment that is being created is created by one request.
    fn may_fly(&self) -> bool {
        self.acknowledged || self.in_flight == 0
    }

    /// Whether anything would be lost with it: `acknowledged` comes back with the backlog.
    fn matters(&self) -> bool {
        self.in_flight > 0
            || !self.parts.is_empty()
            || self.not_before.is_some()
            || self.backoff != Backoff::default()
    }
}

fn halves(batch: Batch) -> [Batch; 2] {
    let Batch { route, mut members } = batch;
    let other = members.split_off(members.len() / 2);
    [Batch { route: Arc::clone(&route), members }, Batch { route, members: other }]
}

fn park_reason(refusal: Refusal) -> ParkReason {
    let message = refusal.message_with_personal_data().to_owned();
    let Refusal { status, code, id, .. } = refusal;
    ParkReason { status, code, message, id }
}

#[cfg(test)]
mod tests;
