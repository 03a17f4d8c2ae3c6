//! What an answer means for its batch and for the calls after it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::Policy;
use super::super::backoff::Backoff;
use super::super::counters::word;
use super::super::pace::{self, Pace};
use super::super::reasons::{EVERYBODY_REFUSED, Reason, reason};
use super::super::words::Words;
use super::{Dispatch, FAILING_ALIKE, Held, Hold, Now, Report, Search};
use crate::launchdarkly::{Answer, Fate, Outcome, Refusal};
use crate::ledger::{Batch, ParkReason, Unheard};
use crate::membership::AudienceId;

/// Longest pause after a first 409 answer: the concurrent change is soon over.
const CONFLICT_FLOOR: Duration = Duration::from_millis(200);
const CONFLICT_CEILING: Duration = Duration::from_secs(5);

/// Most audiences whose refused batches are kept in parts until every part is answered; the parts of
/// any other audience go back to the ledger, so that memory stays bounded ([P6](crate::design::P6)).
const MOST_IN_PARTS: usize = 32;

/// Longest pause before a member that was refused alone is sent once more.
const SUSPECT_CEILING: Duration = Duration::from_secs(5);
/// Most such members kept meanwhile; any other goes back to the ledger, and its audience is paused as
/// long ([P6](crate::design::P6)).
const MOST_SUSPECTS: usize = 1024;

impl Dispatch {
    /// A call has ended, with an answer or without one.
    pub fn answered(&mut self, batch: Batch, answer: Answer, now: Now) -> Vec<Report> {
        self.in_flight -= 1;
        let audience = batch.route.audience.clone();
        self.audiences.entry(audience.clone()).or_default().in_flight -= 1;
        // An answer without rate limit headers, such as a proxy's, leaves the pace as it is.
        if let Some(Pace { pause, gap, lasts }) =
            pace::pace(&answer.limits, now.wall, self.in_flight)
        {
            self.gap = Some((gap, now.instant + lasts));
            if pause > Duration::ZERO {
                self.pause_until(now.instant + pause);
            }
        }
        let is_probe = self.hold.as_mut().is_some_and(Hold::is_answered);
        if is_probe {
            self.keep_witness(&batch, &answer.outcome);
        }
        match answer.outcome {
            Outcome::Taken => self.concurrency.clean(now.took),
            Outcome::RateLimited { .. } | Outcome::Unavailable { .. } => {
                let sent = now.instant.checked_sub(now.took).unwrap_or(now.instant);
                self.concurrency.trouble(sent, now.instant);
            }
            _ => {}
        }
        let is_asked_again = self.was_asked_again(&batch);
        let outcome = answer.outcome;
        let reports = match outcome {
            Outcome::Taken => self.taken(batch),
            Outcome::Refused(_) => self.refused(batch, &outcome, is_asked_again, is_probe, now),
            Outcome::TokenRefused(_)
            | Outcome::NotPermitted(_)
            | Outcome::ApprovalRequired(_)
            | Outcome::UnknownEnvironment(_)
            | Outcome::Unexpected(_) => {
                let mut reports = self.start_hold(&batch, &outcome, None, now);
                reports.push(Report::Release(batch, Unheard::No));
                reports.extend(self.release_parts());
                reports
            }
            Outcome::TooLarge(refusal) => self.too_large(batch, &refusal),
            Outcome::Conflict(_) => {
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
                self.unavailable(&audience, pace::unavailable(&answer.limits, now.draw), now);
                let unheard = if fate == Fate::Open { Unheard::Perhaps } else { Unheard::No };
                vec![Report::Release(batch, unheard)]
            }
        };
        self.probe_again_if_held(now);
        self.audiences.retain(|_, state| state.matters());
        reports
    }

    /// A probe that ended in an outage or a rate limit has shown nothing: its member stays the witness
    /// and is sent again. Otherwise the next probes would be members that wait, which may be refused
    /// for good, and the hold would last long.
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

    /// Whether this batch is a member that was sent once more after a first refusal.
    fn was_asked_again(&mut self, batch: &Batch) -> bool {
        let state = self.audiences.get_mut(&batch.route.audience);
        let [member] = &batch.members[..] else { return false };
        state.is_some_and(|state| state.asked_again.remove(&member.context_key))
    }

    fn refused(
        &mut self,
        batch: Batch,
        outcome: &Outcome,
        is_asked_again: bool,
        is_probe: bool,
        now: Now,
    ) -> Vec<Report> {
        if self.hold.as_ref().is_some_and(|hold| hold.everybody_refused) {
            // Everybody is still refused: the next probe is another member.
            let member = batch.members.first().map(|member| member.context_key.clone());
            let asked = member.map(|key| (batch.route.audience.clone(), key));
            let mut reports = vec![Report::Release(batch, Unheard::NoAndLast)];
            if let Some(hold) = self.hold.as_mut().filter(|_| is_probe) {
                hold.asked = asked;
                if hold.ask_told {
                    hold.search = Search::Behind;
                }
                hold.ask_told = !hold.ask_told;
                // The first probe is a member that was taken before, so its refusal confirms the
                // suspicion.
                reports.extend(hold.confirm());
            }
            return reports;
        }
        self.hold = None; // this answer shows that the token and the environment are accepted
        if batch.members.len() > 1 {
            let halves = halves(batch);
            let audience = halves[0].route.audience.clone();
            if !self.may_keep_parts_of(&audience) {
                // Released as separate halves: the ledger will hand out each in a batch of its own.
                let mut reports = vec![Report::Split(halves.to_vec())];
                reports.extend(halves.map(|half| Report::Release(half, Unheard::No)));
                return reports;
            }
            self.audiences.entry(audience).or_default().parts.extend(halves.clone());
            return vec![Report::Split(halves.into())];
        }
        if let Some(parked) = self.guard.refused(batch.clone(), is_asked_again) {
            let mut reports = self.start_hold(&batch, outcome, Some(parked), now);
            reports.push(Report::Release(batch, Unheard::No));
            reports.extend(self.release_parts());
            return reports;
        }
        if is_asked_again {
            return vec![Report::Park(batch, park_reason(outcome.refusal()))];
        }
        self.ask_again_later(batch, now)
    }

    /// A member was refused alone for the first time. The fault may be temporary and not the member's,
    /// so it is sent once more later.
    fn ask_again_later(&mut self, suspect: Batch, now: Now) -> Vec<Report> {
        let longest = self.policy.retry_floor.min(SUSPECT_CEILING);
        let due = now.instant + longest.mul_f64(0.5 + now.draw.clamp(0.0, 1.0) / 2.0);
        let kept: usize = self.audiences.values().map(|state| state.suspects.len()).sum();
        let state = self.audiences.entry(suspect.route.audience.clone()).or_default();
        if kept >= MOST_SUSPECTS {
            state.not_before = state.not_before.max(Some(due));
            return vec![Report::Release(suspect, Unheard::NoAndLast)];
        }
        // sorted by due time: jitter can make a later suspect due earlier
        let place = state.suspects.partition_point(|(other, _)| *other <= due);
        state.suspects.insert(place, (due, suspect));
        Vec::new()
    }

    fn may_keep_parts_of(&self, audience: &AudienceId) -> bool {
        let mut kept = self.audiences.iter().filter(|(_, state)| !state.parts.is_empty());
        kept.clone().count() < MOST_IN_PARTS || kept.any(|(kept, _)| kept == audience)
    }

    /// `suspicion` is `Some` for a hold on the suspicion that everybody is refused, with the members
    /// parked so far.
    fn start_hold(
        &mut self,
        batch: &Batch,
        outcome: &Outcome,
        suspicion: Option<Vec<Batch>>,
        now: Now,
    ) -> Vec<Report> {
        let mut before = self.hold.take();
        let everybody_refused = suspicion.is_some();
        let known = before.as_ref().filter(|hold| hold.suspicion.is_none());
        let since = known.map_or(now.wall, |hold| hold.held.since);
        let reports = before.as_mut().map(Hold::confirm).unwrap_or_default();
        let Reason { why, remedy } =
            if everybody_refused { EVERYBODY_REFUSED } else { reason(outcome, 1) };
        let sent = batch.members.iter().map(|member| &member.context_key);
        let Words { code, message, answer_id } = Words::of(outcome, sent);
        let status = outcome.refusal().map_or(0, |refusal| refusal.status);
        let what = word(outcome);
        let has_no_probe = false;
        let held =
            Held { since, status, what, why, remedy, code, message, answer_id, has_no_probe };
        let backoff = before.map_or_else(Backoff::default, |hold| hold.backoff);
        self.hold = Some(Hold {
            held,
            everybody_refused,
            suspicion,
            others_in_flight: self.in_flight,
            backoff,
            next_probe: now.instant,
            ask_told: everybody_refused,
            asked: None,
            search: Search::Behind,
        });
        reports
    }

    /// While the destination is held, each answer that did not end the hold postpones the next probe.
    fn probe_again_if_held(&mut self, now: Now) {
        if let Some(hold) = &mut self.hold {
            let Policy { retry_floor, retry_ceiling, .. } = self.policy;
            // Always at least half of the backoff: a token is not replaced within milliseconds.
            let pause = hold.backoff.fail(retry_floor, retry_ceiling, 0.5 + now.draw / 2.0);
            hold.next_probe = now.instant + pause;
        }
    }

    fn too_large(&mut self, batch: Batch, refusal: &Refusal) -> Vec<Report> {
        if batch.members.len() == 1 {
            return vec![Report::Park(batch, park_reason(Some(refusal)))];
        }
        self.batch_size.too_large(batch.members.len());
        vec![Report::Release(batch, Unheard::No)]
    }

    /// `asked` is how long the answer asks to wait, if it says.
    fn unavailable(&mut self, audience: &AudienceId, asked: Option<Duration>, now: Now) {
        let Policy { retry_floor, retry_ceiling, .. } = self.policy;
        let state = self.audiences.entry(audience.clone()).or_default();
        let pause = state.backoff.fail(retry_floor, retry_ceiling, now.draw);
        state.not_before = Some(now.instant + asked.map_or(pause, |asked| asked.max(pause)));
        self.failing.insert(audience.clone());
        if self.failing.len() < FAILING_ALIKE {
            return;
        }
        if self.paused_until.is_none_or(|until| until <= now.instant) {
            let pause = self.fail_destination(now);
            self.pause_until(now.instant + pause);
        }
        if let Some(asked) = asked {
            self.pause_until(now.instant + asked);
        }
    }

    fn fail_destination(&mut self, now: Now) -> Duration {
        self.backoff.fail(self.policy.retry_floor, self.policy.retry_ceiling, now.draw)
    }

    fn pause_until(&mut self, until: Instant) {
        self.paused_until = Some(self.paused_until.map_or(until, |other| other.max(until)));
    }
}

fn halves(batch: Batch) -> [Batch; 2] {
    let Batch { route, mut members, token } = batch;
    let other = members.split_off(members.len() / 2);
    [Batch { route: Arc::clone(&route), members, token }, Batch { route, members: other, token }]
}

fn park_reason(refusal: Option<&Refusal>) -> ParkReason {
    let Refusal { status, code, id, .. } = refusal.cloned().unwrap_or_default();
    let message = refusal.map_or_else(String::new, |of| of.message_with_personal_data().to_owned());
    ParkReason { status, code, message, id }
}
