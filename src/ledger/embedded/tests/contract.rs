//! The embedded ledger keeps the contract of every store: with what comes at once, and with all of it through its
//! journal.

use super::*;
use crate::ledger::contract::{self, Setup, Subject};

/// An embedded ledger; `JOURNALED`: everything goes through its journal, a little at a time.
struct Embedded<const JOURNALED: bool> {
    bench: Bench,
    setup: Setup,
}

impl<const JOURNALED: bool> Embedded<JOURNALED> {
    fn open_as_set_up(&mut self) {
        let Setup { destinations, bounds } = self.setup.clone();
        self.bench.tombstone_ttl = bounds.tombstone_ttl;
        (self.bench.rejected, self.bench.parked) = (bounds.rejected, bounds.parked);
        self.bench.max_audiences = bounds.max_audiences;
        self.bench.open_for(destinations);
    }
}

impl<const JOURNALED: bool> Subject for Embedded<JOURNALED> {
    async fn open(setup: Setup) -> Self {
        let mut bench = Bench::closed();
        if JOURNALED {
            bench.pace = A_LITTLE_AT_A_TIME;
        }
        let mut embedded = Self { bench, setup };
        embedded.open_as_set_up();
        embedded
    }

    fn setup(&mut self) -> &mut Setup {
        &mut self.setup
    }

    fn clock(&self) -> &ManualClock {
        &self.bench.clock
    }

    fn operations(&self) -> Arc<dyn Operations> {
        Arc::clone(&self.bench.ledger) as Arc<dyn Operations>
    }

    async fn configure(&self) {
        let destinations = self.setup.destinations.clone();
        self.bench.ledger.configure(destinations).await.expect("there is space");
    }

    async fn crash(&mut self) {
        self.bench.crash_while_closed();
        self.open_as_set_up();
    }

    async fn reopen(&mut self) {
        self.bench.close().await;
        self.open_as_set_up();
    }

    async fn applied(&self) {
        while !self.bench.ledger.shared.log.is_read() {
            self.upkeep().await;
        }
    }

    async fn caught_up(&self) {
        self.bench.ledger.caught_up().await.expect("it is open");
    }

    async fn upkeep(&self) {
        for settings in &self.setup.destinations[..1] {
            self.bench.claim_of(&settings.name, "none", 1).await;
        }
    }

    fn members(&self, destination: &DestinationName) -> Vec<MemberView> {
        self.bench.ledger.reader().members(destination).expect("it can be read")
    }

    fn faults(&self) -> Vec<String> {
        self.bench.faults()
    }
}

mod at_once {
    use super::*;

    contract::contract!(Embedded<false>);
}

mod journaled {
    use super::*;

    contract::contract!(Embedded<true>);
}
