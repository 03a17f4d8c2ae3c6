//! People entering and leaving audiences, an event a request.

use cohortd::sandbox::{Traffic, sign};

use crate::daemon::{self, Installation};
use crate::load::{self, Requests};
use crate::report::{Report, Unit};
use crate::workbench::{FROM, SINGLE_CONNECTIONS, Workbench, count, millis};
use crate::yardstick::Yardstick;

/// Daemon and yardstick take turns with so many events, after a round that does not count.
pub fn measure(bench: &Workbench, people: u64, events: usize, rounds: usize, report: &mut Report) {
    let requests = traffic(people, events);
    for round in 0..=rounds {
        eprintln!("single events, round {round} of {rounds}");
        let mut discarded = Report::default();
        let report = if round == 0 { &mut discarded } else { &mut *report };
        let yardstick = Yardstick::that_does_nothing();
        let load = bench.load(yardstick.address, &requests, SINGLE_CONNECTIONS);
        drop(yardstick);
        report.add("single events, yardstick: answered", Unit::PerSecond, load.per_second());
        report.add(
            "single events, yardstick: p99",
            Unit::Milliseconds,
            millis(load.percentile(99)),
        );

        let stand_in = bench.stand_in(1);
        let installation = Installation::new(&stand_in.url());
        let daemon = installation.start();
        let written = daemon.written_bytes();
        let load = bench.load(daemon.public, &requests, SINGLE_CONNECTIONS);
        report.add("single events: answered", Unit::PerSecond, load.per_second());
        report.add("single events: p50", Unit::Milliseconds, millis(load.percentile(50)));
        report.add("single events: p99", Unit::Milliseconds, millis(load.percentile(99)));
        daemon.until_quiet();
        let bytes = count(daemon.written_bytes() - written) / count(load::events(&requests));
        report.add("single events: bytes written an event, at rest", Unit::Bytes, bytes);
    }
}

/// Each change as an Identify and as a Track.
pub fn traffic(people: u64, events: usize) -> Requests {
    let secret = daemon::shared_secret();
    let people = u32::try_from(people).expect("fewer than 2^32");
    let request = |event: cohortd::sandbox::Event| {
        let body = event.body.as_bytes();
        load::request(daemon::DESTINATION, &sign(&secret, body), body, 1)
    };
    Traffic::new(7, people, FROM).take(events).map(request).collect()
}
