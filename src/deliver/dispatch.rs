//! What a courier does next, and what an answer means for what it does after that. Pure: no clock, no
//! chance and no I/O of its own ([P9](crate::design::P9)).

mod answers;
mod turns;

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
use crate::ledger::{Batch, ParkReason, Route, Unheard};
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
    /// A word for what the answer meant, as in [`super::Delivered::durations`].
    pub what: &'static str,
    /// In words, naming the setting that has to do with it.
    pub why: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
    /// LaunchDarkly's `code` of the last such answer; may be empty.
    pub code: String,
    /// LaunchDarkly's `message`; empty also where it may quote what was sent.
    pub message: String,
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
    /// Behind the one that was asked last nobody was found who was taken before: all of them may stand
    /// before those who wait.
    ask_from_start: bool,
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
        Standing { held: self.hold.as_ref().map(|hold| hold.held.clone()) }
    }

    /// Nobody was found for [`Step::ClaimTold`]: somebody who waits is asked instead.
    pub fn nobody_told(&mut self) {
        if let Some(hold) = &mut self.hold {
            hold.ask_told = false;
            hold.ask_from_start = !hold.ask_from_start;
        }
    }

    /// A batch is on its way.
    pub fn sent(&mut self, batch: &Batch) {
        self.in_flight += 1;
        self.audiences.entry(batch.route.audience.clone()).or_default().in_flight += 1;
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

    /// Gives back the halves and the members that wait to be sent: the courier stops, or the
    /// destination is held.
    pub fn release_parts(&mut self) -> Vec<Report> {
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
