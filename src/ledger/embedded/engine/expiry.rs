//! When the entries of an audience expire, and when they are next looked through for those that have.
//!
//! An entry's end follows from its row: event time plus the configured time. Nothing else is stored, so a restart loses
//! nothing and a changed setting applies to whoever is in already. What is in memory is one lower bound for each audience
//! whose entries expire, and the place of a sweep that is under way.

use std::time::Duration;

use crate::clock::Seldom;
use crate::ledger::embedded::ids::AudienceIndex;
use crate::membership::Timestamp;

/// Longest pause between two sweeps of a small audience; a short expiry has shorter ones.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// After a sweep, this many times as long as it took passes before the next one: sweeps of large audiences take at most
/// about a tenth of the time.
const PAUSE_OF_TOOK: u32 = 10;
/// While nothing is due, the clock is read this often: it may have been set.
const LOOK: Duration = Duration::from_secs(60);

const NEVER: Timestamp = Timestamp(i64::MAX);

/// The expiry of one audience's entries.
#[derive(Debug)]
pub(crate) struct Expiry {
    after: Duration,
    /// No entry expires before this; during a sweep, none of those that were visited.
    due: Timestamp,
    /// The next sweep begins no sooner.
    not_before: Timestamp,
    sweep: Option<Sweep>,
}

/// A walk over all members of the audience.
#[derive(Debug)]
struct Sweep {
    began: Timestamp,
    /// The last key visited.
    behind: String,
}

impl Expiry {
    /// Entries that expire this long after their event time. Nothing is known of them: they are swept next.
    pub fn new(after: Duration) -> Self {
        Self { after, due: Timestamp::EPOCH, not_before: Timestamp::EPOCH, sweep: None }
    }

    /// How long after its event time an entry expires.
    pub fn after(&self) -> Duration {
        self.after
    }

    /// A member is in by an entry of this event time.
    pub fn entered(&mut self, event_at: Timestamp) {
        self.due = self.due.min(event_at.after(self.after));
    }

    /// When the next sweep is due; never while one is under way.
    pub fn next_sweep(&self) -> Timestamp {
        if self.sweep.is_some() { NEVER } else { self.due.max(self.not_before) }
    }

    /// Whether a sweep is under way.
    pub fn is_swept(&self) -> bool {
        self.sweep.is_some()
    }

    /// Begins a sweep at `now` unless one is under way; returns the key behind which it goes on.
    pub fn sweep(&mut self, now: Timestamp) -> String {
        if self.sweep.is_none() {
            self.due = NEVER; // until the members visited say otherwise
        }
        let began = || Sweep { began: now, behind: String::new() };
        self.sweep.get_or_insert_with(began).behind.clone()
    }

    /// The members up to this key were visited.
    pub fn visited(&mut self, last: String) {
        if let Some(sweep) = &mut self.sweep {
            sweep.behind = last;
        }
    }

    /// All members were visited.
    pub fn swept(&mut self, now: Timestamp) {
        let took = self.sweep.take().map_or(Duration::ZERO, |sweep| now.since(sweep.began));
        let pause = (self.after / 16).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        self.not_before = now.after(pause.max(took * PAUSE_OF_TOOK));
    }
}

/// The sweeps of all audiences.
#[derive(Debug)]
pub(crate) struct Sweeps {
    /// When the first of those that are not under way is due.
    next: Timestamp,
    /// One is under way.
    pub are_under_way: bool,
    /// Position of the audience that gets the next turn.
    pub next_audience: AudienceIndex,
    /// Members whose entries have expired, for the log.
    pub expired: Seldom,
}

impl Sweeps {
    pub fn new() -> Self {
        let next_audience = AudienceIndex(0);
        Self { next: NEVER, are_under_way: false, next_audience, expired: Seldom::default() }
    }

    /// A sweep is due at `at`.
    pub fn by(&mut self, at: Timestamp) {
        self.next = self.next.min(at);
    }

    /// The sweeps that are not under way are due at these times.
    pub fn due(&mut self, all: impl Iterator<Item = Timestamp>) {
        self.next = all.min().unwrap_or(NEVER);
    }

    /// How long after `now` the next sweep is due, as far as one can say; `None`: nothing expires.
    pub fn due_in(&self, now: Timestamp) -> Option<Duration> {
        (self.next != NEVER).then(|| self.next.since(now).min(LOOK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp(second * 1_000_000)
    }

    fn expiry(after_s: u64) -> Expiry {
        Expiry::new(Duration::from_secs(after_s))
    }

    #[test]
    fn a_sweep_is_due_when_the_first_entry_expires_and_not_before() {
        let mut entries = expiry(100);
        assert_eq!(entries.next_sweep(), Timestamp::EPOCH, "nothing is known of its members");
        assert_eq!(entries.sweep(at(1000)), "");
        entries.entered(at(1500));
        entries.entered(at(1400));
        assert_eq!(entries.next_sweep(), NEVER, "it is under way");
        entries.visited("ada".to_owned());
        assert_eq!(entries.sweep(at(1000)), "ada");
        entries.swept(at(1000));
        assert_eq!(entries.next_sweep(), at(1500));
        entries.entered(at(1350));
        assert_eq!(entries.next_sweep(), at(1450), "an entry that came late");
        entries.sweep(at(1450));
        entries.swept(at(1450));
        assert_eq!(entries.next_sweep(), NEVER, "nobody is in");
    }

    /// The pause is what an entry may be late: a sixteenth of the time up to ten seconds, and ten times what a sweep took.
    #[test]
    fn sweeps_pause_for_a_while_and_for_ten_times_as_long_as_one_took() {
        for (after_s, took_s, pause_s) in
            [(3, 0, 1), (80, 0, 5), (960, 0, 10), (864_000, 0, 10), (3, 2, 20), (864_000, 25, 250)]
        {
            let mut entries = expiry(after_s);
            entries.sweep(at(1000));
            entries.entered(at(0));
            entries.swept(at(1000 + took_s));
            let next = entries.next_sweep().since(at(1000 + took_s));
            let least = at(0).after(entries.after()).since(at(1000 + took_s));
            assert_eq!(
                next,
                Duration::from_secs(pause_s).max(least),
                "{after_s} s, took {took_s} s"
            );
        }
    }

    #[test]
    fn the_first_sweep_counts_and_the_clock_is_read_every_minute() {
        let mut sweeps = Sweeps::new();
        assert_eq!(sweeps.due_in(at(0)), None);
        sweeps.by(at(500));
        sweeps.by(at(700));
        assert_eq!(sweeps.due_in(at(0)), Some(LOOK));
        assert_eq!(sweeps.due_in(at(490)), Some(Duration::from_secs(10)));
        assert_eq!(sweeps.due_in(at(900)), Some(Duration::ZERO));
        sweeps.due([at(700), NEVER].into_iter());
        assert_eq!(sweeps.due_in(at(690)), Some(Duration::from_secs(10)));
        sweeps.due([NEVER].into_iter());
        assert_eq!(sweeps.due_in(at(0)), None);
    }
}
