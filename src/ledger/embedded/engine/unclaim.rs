//! Ending claims: members that were in flight may be claimed again.

use crate::ledger::embedded::engine::state::State;
use crate::ledger::embedded::ids::AudienceIndex;
use crate::ledger::{Batch, ClaimedMember};
use crate::membership::{ContextKey, Timestamp};

/// Members of an audience whose claims end.
#[derive(Debug)]
pub(crate) struct Unclaimed {
    pub audience: AudienceIndex,
    pub members: Vec<ContextKey>,
    /// The earliest time since when one of those that stay pending has waited.
    pub longest: Option<Timestamp>,
}

impl State {
    /// Whether a member is in flight.
    pub fn is_in_flight(&self, audience: AudienceIndex, key: &ContextKey) -> bool {
        self.audiences[audience].in_flight.contains(key)
    }

    /// Ends the claims of these members.
    pub fn unclaim(&mut self, Unclaimed { audience, members, longest }: &Unclaimed) {
        let known = &mut self.audiences[*audience];
        if let Some(longest) = longest {
            known.marks.look_again_from(*longest); // a claim in the same group has not seen them
        }
        for key in members {
            known.in_flight.remove(key);
        }
        if known.is_dropped && known.in_flight.is_empty() {
            self.dropped.insert(known.row);
            self.schedule.wake();
        }
        if let Some(since) = longest.map(|longest| self.stamps.instant_of(longest)) {
            let other = known.waiting_since;
            known.waiting_since = Some(other.map_or(since, |other| other.min(since)));
        }
        self.touch(*audience);
    }

    /// Ends the claims of a batch that nobody will send.
    pub fn unclaim_batch(&mut self, batch: &Batch) {
        if let Some(audience) = self.audiences.of_route(&batch.route) {
            let key = |member: &ClaimedMember| member.context_key.clone();
            let members = batch.members.iter().map(key).collect();
            self.unclaim(&Unclaimed { audience, members, longest: None });
        }
    }
}
