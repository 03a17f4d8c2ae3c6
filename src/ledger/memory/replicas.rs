//! The model as what several replicas share, of which one at a time owns a destination.

use tokio::time::Instant;

use crate::ledger::Batch;
use crate::ledger::member;
use crate::ledger::memory::MemoryLedger;
use crate::ledger::memory::state::Key;
use crate::membership::DestinationName;

impl MemoryLedger {
    /// Another reign begins: whoever was in a call of an owner before may still be told by it.
    pub fn taken_over(&self, destination: &DestinationName) {
        self.shared.change(|state| {
            let mut stamps = state.stamps.clone();
            if let Ok(of) = state.known(destination) {
                for key in std::mem::take(&mut of.claimed) {
                    of.put_through(&mut stamps, &key, |before, _| member::unheard(before));
                }
                of.plan_reassertions();
            }
            state.stamps = stamps;
        });
    }

    /// A call of an owner before ended only now.
    pub fn ended_late(&self, batch: &Batch) {
        self.shared.change(|state| {
            let mut stamps = state.stamps.clone();
            if let Ok(of) = state.known(&batch.route.destination) {
                let due = Instant::now() + of.settings.reassert_after;
                for claimed in &batch.members {
                    let key: Key = (batch.route.audience.clone(), claimed.context_key.clone());
                    let mut is_told_again = false;
                    of.put_through(&mut stamps, &key, |before, _| {
                        let (next, again) = member::told_late(before);
                        is_told_again = again;
                        next
                    });
                    if is_told_again {
                        of.reassertions.retain(|(_, other)| *other != key);
                        of.reassertions.push((due, key));
                    }
                }
            }
            state.stamps = stamps;
        });
    }
}
