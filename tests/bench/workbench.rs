//! What every measurement stands on: runtimes that do not disturb each other, a LaunchDarkly that
//! costs little, and one way to post events to a daemon and to see when all of it is done.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use cohortd::membership::Timestamp;
use cohortd::sandbox::{Backfill, Keep, Sample, StandIn};
use tokio::runtime::{Builder, Runtime};

use crate::daemon::{self, Daemon};
use crate::load::{self, Load, Requests};
use crate::report::{Report, Unit};

/// What Segment opens at once during a backfill.
pub const BATCH_CONNECTIONS: usize = 16;
/// And for single events.
pub const SINGLE_CONNECTIONS: usize = 64;
/// Of the first event.
pub const FROM: Timestamp = Timestamp(1_750_000_000_000_000);
/// Nothing here takes so long unless it is broken.
const DEADLINE: Duration = Duration::from_secs(3600);

/// The load generator has a thread of its own, and so has the stand-in.
pub struct Workbench {
    generator: Runtime,
    elsewhere: Runtime,
}

/// When the events of a run are done with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The ledger shows every member: nothing waits to be merged into it. Rows may be written later.
    Merged,
    /// The same, and LaunchDarkly was told of every member.
    Settled,
}

impl Workbench {
    pub fn new() -> Self {
        let generator = Builder::new_current_thread().enable_all().build();
        let elsewhere = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self {
            generator: generator.expect("a runtime can be built"),
            elsewhere: elsewhere.expect("a runtime can be built"),
        }
    }

    /// A LaunchDarkly that answers at once, for so many destinations.
    pub fn stand_in(&self, destinations: u32) -> StandIn {
        let accounts = (0..destinations).map(daemon::account).collect();
        let stand_in = self.elsewhere.block_on(StandIn::start(accounts));
        let stand_in = stand_in.expect("a port on loopback is free");
        stand_in.set_keep(Keep::Counts);
        stand_in
    }

    /// From here on LaunchDarkly is down: connections are refused.
    pub fn stop(&self, stand_in: StandIn) {
        self.elsewhere.block_on(stand_in.stop());
    }

    /// Sends every request, each connection the next one as soon as its last one is answered.
    pub fn load(&self, server: SocketAddr, requests: &Requests, connections: usize) -> Load {
        self.load_among(&[server], requests, connections)
    }

    /// The same, with the connections shared out among servers.
    pub fn load_among(
        &self,
        servers: &[SocketAddr],
        requests: &Requests,
        connections: usize,
    ) -> Load {
        self.run(load::run(servers, Requests::clone(requests), connections))
    }

    /// Waits for something of the same kind.
    #[cfg(has_postgresql)]
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.generator.block_on(work)
    }

    /// Waits for a load.
    pub fn run(&self, load: impl Future<Output = Load>) -> Load {
        let run = async { tokio::time::timeout(DEADLINE, load).await };
        self.generator.block_on(run).expect("every request is answered in time")
    }

    /// When the stand-in has taken so many members.
    pub fn taken_at(&self, stand_in: &StandIn, members: u64) -> Instant {
        let taken = stand_in.until(DEADLINE, |view| view.calls().members >= members);
        self.elsewhere.block_on(taken).expect("every member is taken");
        Instant::now()
    }

    /// Posts events of which each is a new member, and reports how many were answered in a second, how
    /// long it took until all of them were done with, and what that cost. Returns when it began.
    pub fn post(
        &self,
        daemon: &Daemon,
        requests: &Requests,
        connections: usize,
        until: Until,
        (name, report): (&str, &mut Report),
    ) -> Instant {
        let events = load::events(requests);
        let mut add = |what: &str, unit, value| report.add(&format!("{name}: {what}"), unit, value);
        let before = daemon.counts().included;
        let written = daemon.written_bytes();
        let an_event = |bytes: u64| count(bytes - written) / count(events);
        let began = Instant::now();
        let load = self.load(daemon.public, requests, connections);
        let answered = Instant::now();
        daemon.until(|counts| {
            counts.included == before + events && (until == Until::Merged || counts.pending == 0)
        });
        let done = Instant::now();
        add("answered", Unit::PerSecond, load.per_second());
        add("p50", Unit::Milliseconds, millis(load.percentile(50)));
        add("p99", Unit::Milliseconds, millis(load.percentile(99)));
        let what = if until == Until::Merged { "merged" } else { "settled" };
        add(what, Unit::PerSecond, count(events) / (done - began).as_secs_f64());
        add(&format!("{what} after the last answer"), Unit::Milliseconds, millis(done - answered));
        add("bytes written an event", Unit::Bytes, an_event(daemon.written_bytes()));
        daemon.until_quiet();
        add("bytes written an event, at rest", Unit::Bytes, an_event(daemon.written_bytes()));
        add("memory, peak", Unit::Megabytes, daemon.memory().peak_mb);
        began
    }
}

/// Batches of 1,000 with which these people enter the audience.
pub fn batches(audience: Sample, people: Range<u64>) -> Requests {
    let secret = daemon::shared_secret();
    let batches = Backfill::spread(audience, people, FROM);
    let request = |batch: cohortd::sandbox::Batch| {
        load::request(
            daemon::DESTINATION,
            &batch.signature(&secret),
            &batch.body,
            batch.events as u64,
        )
    };
    batches.map(request).collect()
}

/// The same, an event a request.
pub fn singles(audience: Sample, people: Range<u64>) -> Requests {
    let secret = daemon::shared_secret();
    let alone = |person| Backfill::spread(audience, person..person + 1, FROM);
    let request = |batch: cohortd::sandbox::Batch| {
        let event = &batch.body[1..batch.body.len() - 1];
        load::request(daemon::DESTINATION, &batch.signature(&secret), event, 1)
    };
    people.flat_map(alone).map(request).collect()
}

pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "what is counted here is below 2^53")]
pub fn count(number: u64) -> f64 {
    number as f64
}
