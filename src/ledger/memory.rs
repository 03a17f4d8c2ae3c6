//! A ledger in memory: the model of every store. It applies the same rules as the durable ones, does at once what they
//! do in slices, and looks at every member where they have an index: simple and obviously right rather than fast.
//!
//! # What does not hold
//! What is told once more after a crash is exactly who was in a call, and who was in one that nobody answered. A
//! durable store may tell others once more too: it marks claims ahead.

mod begun;
mod beside;
mod guarding;
mod operations;
mod outbox;
mod reconciling;
mod recording;
mod replicas;
mod state;
#[cfg(test)]
mod tests;
mod views;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;

use crate::clock::Clock;
use crate::counting::PerDestination;
use crate::ledger::member::{self, Next};
use crate::ledger::{
    DestinationSettings, Intake, LedgerError, Obstacle, Outbox, Recorded, Recorder, Recordings,
};
use crate::membership::{DestinationName, Timestamp};
use outbox::MemoryOutbox;
use state::{Destination, Shared, State};

pub(crate) use state::{Bounds, Key};

/// A handle of the ledger, as one process has it from its start to its end.
#[derive(Clone, Debug)]
pub(crate) struct MemoryLedger {
    shared: Arc<Shared>,
    recordings: Arc<PerDestination<Recordings>>,
    /// As it was when the ledger was opened.
    note: Option<String>,
}

impl MemoryLedger {
    /// A new one.
    pub fn new(
        clock: Arc<dyn Clock>,
        bounds: Bounds,
        destinations: Vec<DestinationSettings>,
    ) -> Self {
        Self::of(State::new(clock, bounds), destinations)
    }

    fn of(mut state: State, destinations: Vec<DestinationSettings>) -> Self {
        let recordings: Arc<PerDestination<Recordings>> = Arc::default();
        for settings in &destinations {
            let _ = recordings.of(&settings.name); // zeros are shown too
        }
        state.configure(destinations);
        state.destinations.values_mut().for_each(Destination::plan_reassertions);
        let note = state.note.clone();
        Self { shared: Arc::new(Shared::new(state)), recordings, note }
    }

    /// What the next process finds, however this one ended: claims are over, and whoever was in a call may still be
    /// told.
    pub fn restarted(&self, bounds: Bounds, destinations: Vec<DestinationSettings>) -> Self {
        let mut state = self.shared.state().clone();
        state.restart(bounds);
        Self::of(state, destinations)
    }

    /// From here on these are the destinations that are configured.
    pub fn configure(&self, destinations: Vec<DestinationSettings>) {
        self.shared.change(|state| state.configure(destinations));
    }

    /// The members of a destination that wait, as its courier sees them.
    pub fn outbox_of(&self, destination: &DestinationName) -> Arc<dyn Outbox> {
        Arc::new(MemoryOutbox::new(Arc::clone(&self.shared), destination.clone()))
    }

    /// Nothing waits, nothing is in a call, and nobody is to be told once more.
    pub fn is_drained(&self) -> bool {
        self.shared.state().destinations.values().all(Destination::is_drained)
    }

    /// Who is parked.
    pub fn everybody_parked(&self, destination: &DestinationName) -> BTreeSet<Key> {
        let state = self.shared.state();
        let members = state.destinations.get(destination).map(|of| &of.members);
        let parked = members.into_iter().flatten().filter(|(_, member)| member.is_parked());
        parked.map(|(key, _)| key.clone()).collect()
    }

    fn count_expired(&self, state: &mut State) {
        for (name, destination) in &mut state.destinations {
            self.recordings.of(name).expired.add(std::mem::take(&mut destination.expired));
        }
    }

    /// Does what is due: who is to be told once more is pending, and what is too old or too much goes.
    pub fn tick(&self) {
        self.shared.change(|state| {
            let State { stamps, destinations, bounds, rejected, .. } = state;
            for destination in destinations.values_mut() {
                destination.reassert_due(stamps);
                destination.expire(stamps);
                destination.purge(stamps, bounds);
            }
            State::discard_parked(stamps, destinations, bounds);
            rejected.purge(stamps.fresh(), bounds);
            self.count_expired(state);
        });
    }
}

impl Destination {
    /// Who is to be told once more by now is pending, or is told once more after the call that is out.
    fn reassert_due(&mut self, stamps: &mut state::Stamps) {
        let now = tokio::time::Instant::now();
        let (due, later): (Vec<_>, _) =
            std::mem::take(&mut self.reassertions).into_iter().partition(|(at, _)| *at <= now);
        self.reassertions = later;
        for (_, key) in due {
            let is_called = self.claimed.contains(&key);
            self.put_through(stamps, &key, |before, moment| {
                member::reassert_after_silence(before, is_called, moment)
            });
        }
    }

    /// Whose entry has expired leaves.
    fn expire(&mut self, stamps: &mut state::Stamps) {
        for key in self.members.keys().cloned().collect::<Vec<Key>>() {
            self.put_through(stamps, &key, member::expire);
        }
    }

    /// Who left, and was told so, is forgotten after its time, and so is who was deleted.
    fn purge(&mut self, stamps: &mut state::Stamps, bounds: &Bounds) {
        let (now, ttl) = (stamps.fresh(), bounds.tombstone_ttl);
        let is_spent = |key: &Key| self.members[key].is_spent_tombstone(now, ttl);
        let spent: Vec<Key> = self.members.keys().filter(|key| is_spent(key)).cloned().collect();
        for key in spent {
            self.put(&key, &Next::Delete);
        }
        self.deleted.retain(|_, deleted| deleted.at.0.max(deleted.arrival) >= now.before(ttl));
    }
}

#[async_trait]
impl Recorder for MemoryLedger {
    fn arrival(&self) -> Timestamp {
        self.shared.state().stamps.arrival()
    }

    async fn record_all(&self, intakes: Vec<Intake>) -> Result<Vec<Recorded>, LedgerError> {
        self.shared.change(|state| {
            for intake in &intakes {
                state.known(&intake.destination)?;
            }
            let each = intakes.into_iter().map(|intake| state.record(intake, &self.recordings));
            let recorded: Vec<Recorded> = each.collect();
            self.count_expired(state);
            Ok(recorded)
        })
    }

    fn obstacle(&self) -> Option<Obstacle> {
        None
    }
}
