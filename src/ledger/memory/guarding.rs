//! The guards of the model's audiences.

use crate::ledger::member::{self, Next};
use crate::ledger::memory::MemoryLedger;
use crate::ledger::memory::state::{Audience, Destination, Key, Stamps};
use crate::ledger::{HeldAudience, LedgerError};
use crate::membership::{AudienceId, DestinationName, Timestamp};

impl MemoryLedger {
    /// The audiences of a destination that are held.
    pub fn held(&self, destination: &DestinationName) -> Vec<HeldAudience> {
        let state = self.shared.state();
        let of = state.destinations.get(destination).filter(|of| of.is_known);
        let audiences = of.into_iter().flat_map(|of| of.audiences.values());
        let held = |of: &Audience| {
            Some(HeldAudience::of(&of.route, of.guard.held_since()?, &of.guard, false))
        };
        audiences.filter_map(held).collect()
    }

    /// Does what an operator has decided on held audiences; how many were held.
    pub fn decide(
        &self,
        destination: &DestinationName,
        only: Option<&AudienceId>,
        decided: impl Fn(&mut Destination, &mut Stamps, &AudienceId),
    ) -> Result<u64, LedgerError> {
        let held = self.held(destination);
        let concerns = |of: &HeldAudience| only.is_none_or(|only| only.as_str() == of.audience);
        let count = held.iter().filter(|of| concerns(of)).count() as u64;
        self.shared.change(|state| state.each(destination, only, decided)).map(|_| count)
    }
}

impl Destination {
    /// Whether a member is told if it waits: it is removed by a deletion or a retraction, or its audience is not held.
    pub fn may_be_told(&self, key: &Key) -> bool {
        !self.is_held(&key.0) || self.members.get(key).is_some_and(|member| member.erase)
    }

    /// Whether its guard holds the audience.
    pub fn is_held(&self, audience: &AudienceId) -> bool {
        self.audiences.get(audience).is_some_and(|of| of.guard.is_held())
    }

    /// Counts what an event makes of a member, before it is made so.
    pub fn count_flip(&mut self, key: &Key, next: &Next, at: Timestamp) {
        let before = self.members.get(key);
        let Some(now) = member::flip_by_event(before, next.or(before)) else { return };
        let (members, limits) = (self.counts(Some(&key.0)).included, self.settings.guard);
        if let Some(audience) = self.audiences.get_mut(&key.0) {
            audience.guard.count(now, at, &limits, || members);
            self.flipped.insert(key.0.clone());
        }
    }

    /// Judges the audiences that have changed, when a request is recorded.
    pub fn judge(&mut self, stamps: &mut Stamps) {
        for id in std::mem::take(&mut self.flipped) {
            if let Some(audience) = self.audiences.get_mut(&id) {
                audience.guard.judge(stamps.arrival(), &self.settings.guard);
            }
        }
    }

    /// What has happened to the audience is told, if it is held.
    pub fn release_held(&mut self, stamps: &mut Stamps, id: &AudienceId) {
        let members = self.counts(Some(id)).included;
        if let Some(audience) = self.audiences.get_mut(id).filter(|of| of.guard.is_held()) {
            audience.guard.release(stamps.fresh(), members);
        }
    }

    /// Whoever left the audience in the window is in again, if it is held.
    pub fn discard_held(&mut self, stamps: &mut Stamps, id: &AudienceId) {
        if !self.is_held(id) {
            return;
        }
        let at = stamps.fresh();
        let since = self.audiences.get_mut(id).map_or(at, |of| of.guard.discard());
        for key in self.keys_of(id) {
            self.put_through(stamps, &key, |before, moment| {
                member::reenter(before, (since, at), moment)
            });
        }
        self.release_held(stamps, id);
    }
}
