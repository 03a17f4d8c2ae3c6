//! What a courier does next, and what an answer means for what it does after that. Pure: no clock, no
//! chance and no I/O of its own ([P9](crate::design::P9)).

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
    /// A word for what the answer meant, as in [`super::Delivered::durations`].
    pub what: &'static str,
    /// In words, naming the setting that has to do with it; see [`Held::reason`].
    pub why: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
    /// LaunchDarkly's `code` of the last such answer; may be empty.
    pub code: String,
    /// LaunchDarkly's `message`; empty also where it may quote what was sent.
    pub message: String,
    /// LaunchDarkly's `id` of the last such answer, for its support.
    pub answer_id: String,
    /// Nothing is left to probe with: no member waits, and none was told before.
    pub has_no_probe: bool,
}

/// Behind the reason of a hold.
const NO_PROBE: &str = "; nothing is left to ask LaunchDarkly again with, so that the next member that changes \
                        will show whether it is mended";

impl Held {
    /// Why, in words that name the setting that has to do with it; and what it waits for, if that is not seen by
    /// itself.
    #[must_use]
    pub fn reason(&self) -> Cow<'static, str> {
        if self.has_no_probe { format!("{}{NO_PROBE}", self.why).into() } else { self.why.into() }
    }
}

/// Nothing is sent but probes.
#[derive(Debug)]
struct Hold {
    held: Held,
    /// Each alone, so many that it may be everybody.
    everybody_refused: bool,
    /// As long as nobody who was taken before was asked whether it is everybody: people are not told yet, for it
    /// may be over at once. Those who were parked for a refusal that may be everybody's.
    suspicion: Option<Vec<Batch>>,
    /// Calls that were on their way before: they are no probes.
    others_in_flight: usize,
    backoff: Backoff,
    next_probe: Instant,
    /// The next probe is of somebody who was taken before: those who wait may all be refused for
    /// good, and would hold the destination for ever.
    ask_told: bool,
    /// Who was asked so last.
    asked: Option<(AudienceId, ContextKey)>,
    search: Search,
}

/// Where the next one is looked for who was taken before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Search {
    /// Behind the one that was asked last.
    Behind,
    /// From the start: behind that one there was none, and all of them may stand before it.
    FromStart,
    /// There is none.
    Nobody,
}

#[derive(Debug, Default)]
struct AudienceState {
    in_flight: usize,
    acknowledged: bool,
    backoff: Backoff,
    not_before: Option<Instant>,
    /// Halves of refused batches, still claimed; breadth first, so that large good parts go early.
    parts: VecDeque<Batch>,
    /// Members that were refused once, each alone, still claimed, and when they are sent once more.
    suspects: VecDeque<(Instant, Batch)>,
    /// Those of them that are being sent once more.
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

    /// Most bytes of a call.
    pub fn max_body_bytes(&self) -> usize {
        self.policy.max_body_bytes
    }

    /// For people.
    pub fn standing(&self) -> Standing {
        let known = self.hold.as_ref().filter(|hold| hold.suspicion.is_none());
        Standing { held: known.map(|hold| hold.held.clone()) }
    }

    /// Whether everybody may be refused, and somebody who was taken before is to be asked.
    pub fn suspects(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.suspicion.is_some())
    }

    /// Nobody was found for [`Step::ClaimTold`]: somebody who waits is asked instead, if anybody does.
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

    /// A batch is on its way.
    pub fn sent(&mut self, batch: &Batch) {
        self.in_flight += 1;
        self.audiences.entry(batch.route.audience.clone()).or_default().in_flight += 1;
    }

    /// From here on it delivers so. A hold and every pause after a failure are over, for what was wrong
    /// may be what was changed; what LaunchDarkly has asked for (rate limits, smaller batches) stays.
    pub fn change(&mut self, policy: Policy, now: Instant) {
        self.batch_size.change(policy.max_batch);
        self.concurrency.change(policy.min_concurrency, policy.concurrency);
        self.policy = policy;
        // whoever was parked for a suspicion waits for its end
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

    /// A call that was made before the last change was refused for what may have been changed.
    pub fn refused_before_change(&mut self, batch: Batch) -> Vec<Report> {
        self.in_flight -= 1;
        self.audiences.entry(batch.route.audience.clone()).or_default().in_flight -= 1;
        self.audiences.retain(|_, state| state.matters());
        if let Some(hold) = &mut self.hold {
            hold.is_answered();
        }
        vec![Report::Release(batch, Unheard::No)]
    }

    /// Gives back whatever is kept: the courier stops.
    pub fn give_back(&mut self) -> Vec<Report> {
        let mut reports = self.release_parts();
        reports.extend(self.hold.as_mut().map(Hold::confirm).unwrap_or_default());
        reports
    }

    /// Gives back the halves and the members that wait to be sent.
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

    /// Whether it knows of members of this audience that do not wait in the ledger.
    pub fn has_claimed(&self, audience: &AudienceId) -> bool {
        self.audiences.get(audience).is_some_and(|state| {
            state.in_flight > 0 || !state.parts.is_empty() || !state.suspects.is_empty()
        })
    }
}

impl Hold {
    /// A call was answered: whether it was a probe.
    fn is_answered(&mut self) -> bool {
        let is_probe = self.others_in_flight == 0;
        self.others_in_flight = self.others_in_flight.saturating_sub(1);
        is_probe
    }

    /// It is everybody, as far as can be found out: nobody stays parked for it.
    fn confirm(&mut self) -> Vec<Report> {
        let parked = self.suspicion.take().unwrap_or_default();
        parked.into_iter().map(Report::Unpark).collect()
    }
}

impl AudienceState {
    /// A segment that is being created is created by one request.
    fn may_fly(&self) -> bool {
        self.acknowledged || self.in_flight == 0
    }

    /// What is still claimed and may be sent now.
    fn next_kept(&mut self, now: Instant) -> Option<Batch> {
        if let Some(part) = self.parts.pop_front() {
            return Some(part);
        }
        self.suspects.front().filter(|(due, _)| *due <= now)?;
        let (_, suspect) = self.suspects.pop_front()?;
        self.asked_again.extend(suspect.members.iter().map(|member| member.context_key.clone()));
        Some(suspect)
    }

    /// Whether anything would be lost with it: `acknowledged` comes back with the backlog.
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
