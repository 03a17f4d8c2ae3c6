//! What is asked of the model when it goes beside another store: nobody says in which order those wait who came
//! together, so that it takes over what the other one has chosen.

use std::sync::Arc;

use crate::ledger::member::Member;
use crate::ledger::memory::MemoryLedger;
use crate::ledger::memory::state::{Key, Shared};
use crate::ledger::{Batch, ClaimedMember, SOLE_OWNER};
use crate::membership::{AudienceId, DestinationName};

impl MemoryLedger {
    /// Another one that is as this is now: what is done to it shows what would become of this one.
    pub fn copy(&self) -> Self {
        let state = self.shared.state().clone();
        Self { shared: Arc::new(Shared::new(state)), recordings: Arc::default(), note: None }
    }

    /// A member as it is.
    pub fn member_of(&self, destination: &DestinationName, key: &Key) -> Option<Member> {
        let state = self.shared.state();
        state.destinations.get(destination)?.members.get(key).cloned()
    }

    /// Everybody of a destination who is pending.
    pub fn pending(&self, destination: &DestinationName) -> Vec<Key> {
        let state = self.shared.state();
        let members = state.destinations.get(destination).map(|of| &of.members);
        let pending =
            members.into_iter().flatten().filter(|(_, member)| member.pending_since.is_some());
        pending.map(|(key, _)| key.clone()).collect()
    }

    /// Who waits in an audience and is in no batch, the longest pending first.
    pub fn waiting_in(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
    ) -> Vec<(Key, Member)> {
        let mut state = self.shared.state();
        let Ok(of) = state.known(destination) else { return Vec::new() };
        let waiting = of.waiting_in(audience).into_iter();
        waiting.map(|(_, key, member)| (key.clone(), member.clone())).collect()
    }

    /// Claims exactly these.
    pub fn claim_these(&self, destination: &DestinationName, keys: &[Key]) -> Batch {
        let mut state = self.shared.state();
        let of = state.known(destination).expect("they wait there");
        of.claimed.extend(keys.iter().cloned());
        let members = keys.iter().map(|key| {
            let Member { membership, version, .. } = of.members[key];
            ClaimedMember { context_key: key.1.clone(), membership, version }
        });
        Batch {
            members: members.collect(),
            route: Arc::clone(&of.audiences[&keys[0].0].route),
            token: SOLE_OWNER,
        }
    }

    /// The other store takes a member for one that may have been in a call when its process died.
    pub fn may_be_unheard(&self, destination: &DestinationName, key: &Key) {
        let mut state = self.shared.state();
        let member = state.destinations.get_mut(destination).and_then(|of| of.members.get_mut(key));
        member.expect("it is there").unheard = true;
    }
}
