//! The ten promises as items, so that documentation can link to each and `cargo doc` checks the links.

/// What cohortd promises to those who run it.
///
/// Module headers name the promises that their code keeps. Each promise has at least one test that fails
/// when it is broken; the integration tests in `tests/it` are one file for each promise or part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// **Durable.** A 2xx answer means that every accepted event of that request is on stable storage:
    /// synced, not merely written.
    P1,
    /// **The last event time wins.** For one member of one audience the value with the latest event time
    /// wins, whatever the order, number and time of arrivals. A tie goes to the later arrival; within a
    /// request, to the later item. A value equal to the stored one still moves the event time.
    ///
    /// Not every event time is believed. One more than five minutes ahead of its arrival counts as
    /// `receivedAt`, or as the arrival if that is ahead too. One before 2010 counts as the arrival. Arrival
    /// never runs backwards: it is the larger of the wall clock and the largest arrival that the ledger
    /// has recorded. If the recorded arrival is more than five minutes ahead of the clock, log, status and
    /// metrics say so, and an operator can reset it.
    P2,
    /// **No overtaking.** LaunchDarkly never receives an older value of a member after a newer one: a member
    /// is in at most one request in flight.
    P3,
    /// **It converges.** If LaunchDarkly answers at all again, every segment ends equal to the ledger: after
    /// any crash, restart, outage, rate limit, reordering or repetition.
    P4,
    /// **Isolation.** One bad event, member, audience, destination or sender delays or stops no other, and
    /// never the process.
    P5,
    /// **Bounded.** Memory does not grow with the backlog, with the size of the ledger, or with what a
    /// stranger sends: what will be taken is reserved from a budget before it is taken. Disk use may grow,
    /// up to a configured reserve; past it the daemon answers 503 and loses nothing.
    P6,
    /// **Never silent.** An event that was not applied is answered or parked with a reason that a person can
    /// act on, counted, and visible in the verdict (status, dashboard, log). "All is well" is never said
    /// while something is only ignored, parked or rejected, or while requests are refused that look like
    /// Segment's and are newer than the last success on the same path. Other refusals, such as those of
    /// scanners, are only counted, with bounded labels.
    P7,
    /// **Secrets stay.** No token, shared secret, event body, email or context key appears in logs, metrics,
    /// error answers, panics or `Debug`. The service token goes to the configured host and nowhere else.
    P8,
    /// **Pure rules.** Mapping, subscription, batching, pacing and the reaction to an answer are pure
    /// functions of their inputs, tested as tables.
    P9,
    /// **It stops well.** On SIGTERM the daemon reports that it is not ready, stops accepting, finishes the
    /// requests in flight, lets couriers finish theirs, and closes the ledger, all within a grace period.
    P10,
}
