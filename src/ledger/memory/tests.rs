//! The model keeps the contract as well, by itself.

use std::sync::Arc;

use super::*;
use crate::clock::ManualClock;
use crate::ledger::contract::{START, Setup, Subject, contract};
use crate::ledger::{MemberView, Operations};

/// A ledger in memory, and what it is opened with next.
struct InMemory {
    clock: ManualClock,
    setup: Setup,
    ledger: MemoryLedger,
}

impl Subject for InMemory {
    async fn open(setup: Setup) -> Self {
        let clock = ManualClock::at(START);
        let destinations = setup.destinations.clone();
        let ledger = MemoryLedger::new(Arc::new(clock.clone()), setup.bounds, destinations);
        Self { clock, setup, ledger }
    }

    fn setup(&mut self) -> &mut Setup {
        &mut self.setup
    }

    fn clock(&self) -> &ManualClock {
        &self.clock
    }

    fn operations(&self) -> Arc<dyn Operations> {
        Arc::new(self.ledger.clone())
    }

    async fn configure(&self) {
        self.ledger.configure(self.setup.destinations.clone());
    }

    async fn crash(&mut self) {
        let Setup { destinations, bounds } = self.setup.clone();
        self.ledger = self.ledger.restarted(bounds, destinations);
    }

    async fn reopen(&mut self) {
        self.crash().await;
    }

    async fn applied(&self) {}

    async fn caught_up(&self) {}

    async fn upkeep(&self) {
        self.ledger.tick();
    }

    fn members(&self, destination: &DestinationName) -> Vec<MemberView> {
        self.ledger.members(destination)
    }

    fn faults(&self) -> Vec<String> {
        Vec::new()
    }
}

contract!(InMemory);
