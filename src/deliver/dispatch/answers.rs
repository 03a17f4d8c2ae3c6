//! What an answer means for its batch, and for what is sent after it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::Policy;
use super::super::backoff::Backoff;
use super::super::pace::{self, Pace};
use super::{Dispatch, FAILING_ALIKE, Held, Hold, Now, Report};
use crate::launchdarkly::{Answer, Fate, Outcome, Refusal};
use crate::ledger::{Batch, ParkReason, Unheard};
use crate::membership::AudienceId;

/// How far apart two attempts after a 409 are at first; the concurrent change is over soon.
const CONFLICT_FLOOR: Duration = Duration::from_millis(200);
const CONFLICT_CEILING: Duration = Duration::from_secs(5);

/// Audiences whose refused batches are kept in parts, from the first refusal to the last part; those of
/// more go back to the ledger, so that they are not all in memory (P6).
const MOST_IN_PARTS: usize = 32;

impl Dispatch {
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
            if !self.may_keep_parts_of(&audience) {
                // They are claimed again one by one, as the halves that they are.
                let mut reports = vec![Report::Split(halves.clone())];
                reports.extend(halves.map(|half| Report::Release(half, Unheard::No)));
                return reports;
            }
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

    fn may_keep_parts_of(&self, audience: &AudienceId) -> bool {
        let mut kept = self.audiences.iter().filter(|(_, state)| !state.parts.is_empty());
        kept.clone().count() < MOST_IN_PARTS || kept.any(|(kept, _)| kept == audience)
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
