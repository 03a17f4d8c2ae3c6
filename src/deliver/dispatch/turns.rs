//! What a courier does next: which audience is served, or how long there is nothing to do.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use tokio::time::Instant;

use super::{Dispatch, FAILING_ALIKE, Search, Step};
use crate::ledger::Backlog;
use crate::membership::AudienceId;

impl Dispatch {
    /// The next step at `now`, given what waits in the ledger.
    pub fn next(&mut self, now: Instant, backlog: &[Backlog]) -> Step {
        // Probes respect a rate limit too.
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
        // After several audiences have failed, one request at a time tests whether the outage is over.
        let failing = self.failing.len() >= FAILING_ALIKE;
        let most = if failing { 1 } else { self.concurrency.allowed() };
        if self.in_flight >= most {
            return Step::Wait(None);
        }
        self.next_audience(now, backlog)
    }

    fn probe(&mut self, backlog: &[Backlog]) -> Step {
        let Some(hold) = &mut self.hold else { return Step::Wait(None) };
        let everybody_refused = hold.everybody_refused;
        if everybody_refused && let Some((route, context_key)) = self.witness.take() {
            return Step::ClaimAgain { route, context_key };
        }
        let nobody_waits = backlog.is_empty();
        if nobody_waits && hold.search == Search::Nobody {
            hold.held.has_no_probe = true;
            if everybody_refused {
                self.hold = None; // the refused members are all parked, forgotten or dropped by now
            }
            return Step::Wait(None);
        }
        hold.held.has_no_probe = false;
        if nobody_waits || (everybody_refused && hold.ask_told) {
            let after = hold.asked.take().filter(|_| hold.search != Search::FromStart);
            hold.search = if after.is_some() { Search::Behind } else { Search::FromStart };
            return Step::ClaimTold { after };
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
        let gap = self.gap.filter(|(_, until)| *until > now).map(|(gap, _)| gap);
        self.linger.look(now, self.policy.linger, backlog);
        let linger = self.linger.now(self.policy.linger, gap.unwrap_or_default());
        for waiting in backlog {
            let state = self.audiences.entry(waiting.audience.clone()).or_default();
            state.acknowledged |= waiting.acknowledged;
            let due = if waiting.waiting >= full {
                now
            } else if state.in_flight > 0 {
                waiting.waiting_since + self.policy.linger
            } else {
                waiting.waiting_since + linger
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
            let suspect = state.suspects.front().map(|(due, _)| *due);
            let due = if state.parts.is_empty() { suspect } else { Some(now) };
            let Some(due) = due.filter(|_| state.may_fly()) else { continue };
            match state.not_before.map_or(due, |not_before| due.max(not_before)) {
                due if due > now => later(due),
                _ => _ = ready.insert(audience.clone()),
            }
        }
        let Some(audience) = self.turn(&ready) else { return Step::Wait(earliest) };
        if let Some(gap) = gap {
            self.paused_until = Some(now + gap);
        }
        if let Some(kept) = self.audiences.get_mut(&audience).and_then(|state| state.next_kept(now))
        {
            return Step::Send(kept);
        }
        let waiting = backlog.iter().find(|waiting| waiting.audience == audience);
        let due = waiting
            .filter(|waiting| waiting.waiting < full)
            .map(|waiting| waiting.waiting_since + self.policy.linger);
        self.linger.called(&audience, now, due);
        Step::Claim { audience, limit: self.batch_size.now() }
    }

    /// Round robin: the next of `ready` in order after the one served last.
    fn turn(&mut self, ready: &BTreeSet<AudienceId>) -> Option<AudienceId> {
        let after = self.served.as_ref().and_then(|served| ready.iter().find(|one| *one > served));
        let next = after.or_else(|| ready.first()).cloned();
        self.served.clone_from(&next);
        next
    }
}
