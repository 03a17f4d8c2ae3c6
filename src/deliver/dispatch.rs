//! Decides what a courier does next, and how it reacts to each answer. Pure: it reads no clock, draws
//! no random number and does no I/O ([P9](crate::design::P9)).

mod answers;
mod turns;

use std::borrow::Cow;
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
use super::linger::Linger;
use crate::ledger::{Batch, Report, Route, Unheard};
use crate::membership::{AudienceId, ContextKey, Timestamp};

/// Once this many audiences have failed with no success in between, the fault is taken to be the
/// destination's.
const FAILING_ALIKE: usize = 2;

/// What to do next.
#[derive(Debug)]
pub(super) enum Step {
    /// Send this batch, which is already claimed: a part of a refused batch, or a member to be sent
    /// once more.
    Send(Batch),
    /// Claim a batch and send it.
    Claim { audience: AudienceId, limit: NonZeroUsize },
    /// Probe a held destination: claim this member, which LaunchDarkly took before, and send it again.
    ClaimAgain { route: Arc<Route>, context_key: ContextKey },
    /// Probe a held destination with any member that LaunchDarkly took before, the next after this one;
    /// if there is none, call [`Dispatch::nobody_told`].
    ClaimTold { after: Option<(AudienceId, ContextKey)> },
    /// Do nothing until this time, or until an answer or a new member arrives.
    Wait(Option<Instant>),
}

/// Whether a destination is held, for display.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Why only probes are sent; `None` if the destination is not held.
    pub held: Option<Held>,
}

/// Since when and why a destination is held, for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// When the hold began.
    pub since: Timestamp,
    /// The HTTP status that caused it.
    pub status: u16,
    /// What the answer meant, in one word, as in [`super::Delivered::durations`].
    pub what: &'static str,
    /// Why, naming the setting concerned; see [`Held::reason`].
    pub why: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
    /// LaunchDarkly's `code` of the last such answer; may be empty.
    pub code: String,
    /// LaunchDarkly's `message`; empty if there is none or if it may quote what was sent.
    pub message: String,
    /// LaunchDarkly's `id` of the last such answer, for its support.
    pub answer_id: String,
    /// There is no member to probe with: none waits, and LaunchDarkly took none before.
    pub has_no_probe: bool,
}

/// Appended to the reason of a hold that has no probe.
const NO_PROBE: &str = "; no member is left to probe LaunchDarkly with, so the next member that \
                        changes will show whether it is fixed";

impl Held {
    /// Why the destination is held, naming the setting concerned; and, if there is no member to probe
    /// with, what would end the hold.
    #[must_use]
    pub fn reason(&self) -> Cow<'static, str> {
        if self.has_no_probe { format!("{}{NO_PROBE}", self.why).into() } else { self.why.into() }
    }
}

/// The destination is held: only probes are sent.
#[derive(Debug)]
struct Hold {
    held: Held,
    /// So many members were refused, each alone, that LaunchDarkly may be refusing every member.
    everybody_refused: bool,
    /// `Some` while the hold is a suspicion only: no member that was taken before has been sent again
    /// yet. It is not shown meanwhile, as it may be over at once. Holds the members that were parked
    /// for refusals that may be everybody's, to be unparked if the suspicion is confirmed.
    suspicion: Option<Vec<Batch>>,
    /// Calls that were in flight when the hold began: their answers are not probes.
    others_in_flight: usize,
    backoff: Backoff,
    next_probe: Instant,
    /// The next probe is a member that was taken before. Members that wait may all be refused for good;
    /// with them alone, the hold would never end.
    ask_told: bool,
    /// The member of the last probe; the search for the next one goes on after it.
    asked: Option<(AudienceId, ContextKey)>,
    search: Search,
}

/// Where to look for the next member that was taken before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Search {
    /// After the last one that was sent as a probe.
    Behind,
    /// From the start: there is none after that one, but there may be some before it.
    FromStart,
    /// Nowhere: there is none.
    Nobody,
}

#[derive(Debug, Default)]
struct AudienceState {
    in_flight: usize,
    acknowledged: bool,
    backoff: Backoff,
    not_before: Option<Instant>,
    /// Parts of refused batches, still claimed; breadth first, so that large good parts are sent early.
    parts: VecDeque<Batch>,
    /// Members that were refused once, each alone, still claimed; with when each is sent once more.
    suspects: VecDeque<(Instant, Batch)>,
    /// Former suspects that are in flight for the second time.
    asked_again: BTreeSet<ContextKey>,
}

/// The state of one destination's delivery.
#[derive(Debug)]
pub(super) struct Dispatch {
    policy: Policy,
    batch_size: BatchSize,
    concurrency: Concurrency,
    linger: Linger,
    audiences: BTreeMap<AudienceId, AudienceState>,
    in_flight: usize,
    /// The audience that was served last: the next one in order is served next.
    served: Option<AudienceId>,
    paused_until: Option<Instant>,
    /// How far apart calls must be, and until when that applies.
    gap: Option<(Duration, Instant)>,
    backoff: Backoff,
    /// Audiences that failed since the last call that was taken.
    failing: BTreeSet<AudienceId>,
    hold: Option<Hold>,
    guard: Guard,
    /// A member of the last call that was taken: if it is refused when sent again, everybody is.
    witness: Option<(Arc<Route>, ContextKey)>,
}

/// What the pure code needs of the moment an answer arrived, and a random draw.
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
            linger: Linger::new(),
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

    /// Most bytes in the body of one request.
    pub fn max_body_bytes(&self) -> usize {
        self.policy.max_body_bytes
    }

    /// The hold as it is shown: a mere suspicion is not.
    pub fn standing(&self) -> Standing {
        let known = self.hold.as_ref().filter(|hold| hold.suspicion.is_none());
        Standing { held: known.map(|hold| hold.held.clone()) }
    }

    /// Whether it is suspected that every member is refused, and a member taken before is to be sent to
    /// find out.
    pub fn suspects(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.suspicion.is_some())
    }

    /// [`Step::ClaimTold`] found nobody after the last probe: the search starts over, and if that finds
    /// nobody either, members that wait are the probes.
    pub fn nobody_told(&mut self) -> Vec<Report> {
        let Some(hold) = &mut self.hold else { return Vec::new() };
        let is_over = hold.search != Search::Behind;
        hold.search = if is_over { Search::Nobody } else { Search::FromStart };
        if !is_over && hold.suspicion.is_some() {
            return Vec::new();
        }
        hold.ask_told = false;
        hold.confirm()
    }

    /// A batch has been sent.
    pub fn sent(&mut self, batch: &Batch) {
        self.in_flight += 1;
        self.audiences.entry(batch.route.audience.clone()).or_default().in_flight += 1;
    }

    /// Delivers with this policy from now on. Ends a hold and every pause after a failure, as the
    /// change may have removed the cause; what LaunchDarkly asked for (rate limits, smaller batches)
    /// stays, and so does a suspicion.
    pub fn change(&mut self, policy: Policy, now: Instant) {
        self.batch_size.change(policy.max_batch);
        self.concurrency.change(policy.min_concurrency, policy.concurrency);
        self.policy = policy;
        // a suspicion holds parked members, so it has to be resolved, not dropped
        self.hold = self.hold.take().filter(|hold| hold.suspicion.is_some());
        if let Some(hold) = &mut self.hold {
            hold.backoff.reset();
            hold.next_probe = now;
        }
        self.backoff.reset();
        self.failing.clear();
        for state in self.audiences.values_mut() {
            state.backoff.reset();
            state.not_before = None;
        }
        self.audiences.retain(|_, state| state.matters());
    }

    /// A batch comes back without an answer that says anything: it was not sent, the call was given up because the
    /// destination may be another process's, or it was refused for a reason that a change may have removed since.
    pub fn came_back(&mut self, batch: Batch, unheard: Unheard) -> Vec<Report> {
        self.in_flight -= 1;
        self.audiences.entry(batch.route.audience.clone()).or_default().in_flight -= 1;
        self.audiences.retain(|_, state| state.matters());
        if let Some(hold) = &mut self.hold {
            hold.is_answered();
        }
        vec![Report::Release(batch, unheard)]
    }

    /// The courier stops: returns the reports that give back all it keeps. Parts and suspects are
    /// released, and members parked on a suspicion are unparked.
    pub fn give_back(&mut self) -> Vec<Report> {
        let mut reports = self.release_parts();
        reports.extend(self.hold.as_mut().map(Hold::confirm).unwrap_or_default());
        reports
    }

    /// Releases all parts and suspects.
    fn release_parts(&mut self) -> Vec<Report> {
        let kept = self.audiences.values_mut().flat_map(|state| {
            let suspects = state.suspects.drain(..).map(|(_, suspect)| suspect);
            state.parts.drain(..).chain(suspects)
        });
        kept.map(|part| Report::Release(part, Unheard::No)).collect()
    }

    /// How long nothing of this audience is sent, as far as is known now.
    pub fn pause_of(&self, audience: &AudienceId, now: Instant) -> Duration {
        let state = self.audiences.get(audience);
        let not_before = state.and_then(|state| state.not_before);
        let suspect = state.and_then(|state| state.suspects.front()).map(|(due, _)| *due);
        let until = not_before.max(suspect);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// How long nothing is sent at all, as far as is known now.
    pub fn pause(&self, now: Instant) -> Duration {
        let probe = self.hold.as_ref().map(|hold| hold.next_probe);
        let until = self.paused_until.max(probe);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Whether it holds claimed members of this audience: in flight, in parts or as suspects.
    pub fn has_claimed(&self, audience: &AudienceId) -> bool {
        self.audiences.get(audience).is_some_and(|state| {
            state.in_flight > 0 || !state.parts.is_empty() || !state.suspects.is_empty()
        })
    }
}

impl Hold {
    /// A call was answered; returns whether it was a probe.
    fn is_answered(&mut self) -> bool {
        let is_probe = self.others_in_flight == 0;
        self.others_in_flight = self.others_in_flight.saturating_sub(1);
        is_probe
    }

    /// The suspicion is confirmed, as far as can be found out: unparks the members that were parked on
    /// it.
    fn confirm(&mut self) -> Vec<Report> {
        let parked = self.suspicion.take().unwrap_or_default();
        parked.into_iter().map(Report::Unpark).collect()
    }
}

impl AudienceState {
    /// While its segment is being created (no call has been acknowledged), an audience may have one
    /// request in flight.
    fn may_fly(&self) -> bool {
        self.acknowledged || self.in_flight == 0
    }

    /// The next part or suspect that may be sent now.
    fn next_kept(&mut self, now: Instant) -> Option<Batch> {
        if let Some(part) = self.parts.pop_front() {
            return Some(part);
        }
        self.suspects.front().filter(|(due, _)| *due <= now)?;
        let (_, suspect) = self.suspects.pop_front()?;
        self.asked_again.extend(suspect.members.iter().map(|member| member.context_key.clone()));
        Some(suspect)
    }

    /// Whether the state must be kept; `acknowledged` need not be, as the backlog brings it back.
    fn matters(&self) -> bool {
        self.in_flight > 0
            || !self.parts.is_empty()
            || !self.suspects.is_empty()
            || self.not_before.is_some()
            || self.backoff != Backoff::default()
    }
}

#[cfg(test)]
mod tests;
