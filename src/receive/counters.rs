//! Counts what the public listener has received and answered.

use std::array;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio_util::sync::CancellationToken;

use super::answer::{Account, Refusal};
use super::change::{Change, SinceChange, Totals};
use super::names::Names;
use super::refused::{Refused, RefusedCount, RefusedPath};
use crate::counting::{Count, Distribution, Histogram, PerDestination};
use crate::json::Json;
use crate::map::{Clock, Corrected, Doubt, Event, Reason, doubt_of};
use crate::membership::{DestinationName, Timestamp};

/// The counters of the public listener. They survive a reload of the configuration.
#[derive(Debug, Default)]
pub struct Counters {
    destinations: PerDestination<Received>,
    /// Requests that name no existing destination.
    nobodys: Arc<Requests>,
    pub(super) refused: Refused,
}

impl Counters {
    /// The counters of a destination.
    #[must_use]
    pub fn of(&self, destination: &DestinationName) -> Arc<Received> {
        self.destinations.of(destination)
    }

    /// The counters of every destination, by name.
    #[must_use]
    pub fn all(&self) -> Vec<(DestinationName, Arc<Received>)> {
        self.destinations.all()
    }

    /// Requests that name no existing destination.
    #[must_use]
    pub fn nobodys(&self) -> &Requests {
        &self.nobodys
    }

    /// The paths at which requests that look like Segment's were refused, with no success since.
    #[must_use]
    pub fn refused(&self, now: Timestamp) -> Vec<RefusedPath> {
        self.refused.paths(now)
    }

    /// How many requests were refused, whoever sent them.
    #[must_use]
    pub fn refused_counts(&self) -> Vec<RefusedCount> {
        self.refused.counts()
    }

    /// Only these names exist under `/segment/` from now on: forgets the refusals at other paths, where
    /// nothing can succeed.
    pub fn keep_doors(&self, names: &BTreeSet<&str>) {
        self.refused.keep_paths(|path| {
            let behind = path.strip_prefix("/segment/");
            behind.and_then(|rest| rest.split('/').next()).is_none_or(|name| names.contains(name))
        });
    }

    /// Logs refused requests, until the daemon stops.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        self.refused.watch(stop).await;
    }
}

/// What was received for one destination.
#[derive(Debug, Default)]
pub struct Received {
    /// All its requests.
    pub requests: Requests,
    /// Events that are durable.
    pub accepted: Count,
    /// Events that no subscription selects.
    pub ignored: Count,
    rejected: [Count; Reason::ALL.len()],
    /// In the order of [`Doubt::ALL`].
    doubted: [Count; Doubt::ALL.len()],
    /// In the order of [`Corrected::WRONG`].
    corrected: [Count; Corrected::WRONG.len()],
    /// In microseconds since the epoch; 0: never.
    last_event_at: AtomicI64,
    ignored_events: Mutex<Names>,
    pub(super) change: Change,
    /// Whether an earlier process accepted events.
    pub(super) accepted_before: AtomicBool,
}

impl Received {
    /// Counts the events of an answered request that arrived at this time.
    pub(super) fn events(&self, tally: &Tally, arrival: Timestamp) {
        self.accepted.add(tally.accepted as u64);
        self.ignored.add(tally.ignored as u64);
        if tally.ignored > 0 {
            self.ignored_events.lock().unwrap_or_else(PoisonError::into_inner).merge(&tally.names);
        }
        self.change.events(tally, arrival);
        for reason in &tally.rejected {
            self.rejected[*reason as usize].one();
        }
        for (count, more) in self.doubted.iter().zip(tally.doubted) {
            count.add(more);
        }
        for (count, more) in self.corrected.iter().zip(tally.corrected) {
            count.add(more);
        }
        if tally.accepted + tally.ignored + tally.rejected.len() > 0 {
            self.last_event_at.fetch_max(arrival.0, Ordering::Relaxed);
        }
    }

    /// How many events were rejected for which reason.
    pub fn rejected(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.into_iter().zip(self.rejected.iter().map(Count::get))
    }

    /// How many accepted events state a time that does not count, and why.
    pub fn doubted_times(&self) -> impl Iterator<Item = (Doubt, u64)> {
        Doubt::ALL.into_iter().zip(self.doubted.iter().map(Count::get))
    }

    /// How many accepted events had their time corrected, by the direction in which the sender's clock was
    /// wrong.
    pub fn corrected_times(&self) -> impl Iterator<Item = (Corrected, u64)> {
        Corrected::WRONG.into_iter().zip(self.corrected.iter().map(Count::get))
    }

    /// The events that no subscription selects, by type and name: the first 100 names, the most frequent
    /// first, then `others`.
    #[must_use]
    pub fn ignored_events(&self) -> Vec<(String, u64)> {
        self.ignored_events.lock().unwrap_or_else(PoisonError::into_inner).read()
    }

    /// Whether an event was ever accepted, as far as this process knows.
    #[must_use]
    pub fn has_accepted(&self) -> bool {
        self.accepted.get() > 0 || self.accepted_before.load(Ordering::Relaxed)
    }

    /// What became of the events since the destination's present mappings were put to use.
    #[must_use]
    pub fn since_change(&self) -> SinceChange {
        self.change.read(self.totals())
    }

    fn totals(&self) -> Totals {
        let unkept = self.rejected().filter(|(reason, _)| !reason.worth_keeping());
        Totals {
            accepted: self.accepted.get(),
            ignored: self.ignored.get(),
            rejected: self.rejected().map(|(_, count)| count).sum(),
            unkept: unkept.map(|(_, count)| count).sum(),
        }
    }

    /// Other mappings are in use: what was ignored or rejected before says nothing about them. `mappings` is
    /// a number that identifies them.
    pub fn mappings_changed(&self, mappings: u64, at: Timestamp) {
        self.change.begin(mappings, self.totals(), at);
    }

    /// When the last event arrived since the process started.
    #[must_use]
    pub fn last_event_at(&self) -> Option<Timestamp> {
        let at = self.last_event_at.load(Ordering::Relaxed);
        (at != 0).then_some(Timestamp(at))
    }
}

/// What became of the events of one request, as one destination sees it.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) accepted: usize,
    pub(super) ignored: usize,
    /// The names of the ignored events.
    pub(super) names: Names,
    pub(super) rejected: Vec<Reason>,
    /// Of the accepted events.
    pub(super) doubted: [u64; Doubt::ALL.len()],
    pub(super) corrected: [u64; Corrected::WRONG.len()],
}

impl Tally {
    /// Counts how the time of an accepted event, which arrived at this time, was determined.
    pub(super) fn date(&mut self, event: Event<'_>, arrival: Timestamp) {
        if let Some(doubt) = doubt_of(event, arrival) {
            self.doubted[doubt as usize] += 1;
        }
        if let Clock::Corrected(how) = event.clock()
            && let Some(count) = self.corrected.get_mut(how as usize)
        {
            *count += 1;
        }
    }
}

/// Requests by their outcome and how long they took.
#[derive(Debug)]
pub struct Requests {
    by_outcome: [Count; Outcome::ALL.len()],
    /// In the order of [`CLASSES`].
    durations: [Histogram; CLASSES.len()],
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            by_outcome: array::from_fn(|_| Count::default()),
            durations: array::from_fn(|_| Histogram::of_durations()),
        }
    }
}

/// Success, the sender's fault, trouble on our side.
const CLASSES: [&str; 3] = ["2xx", "4xx", "5xx"];

impl Requests {
    pub(super) fn count(&self, outcome: Outcome, took: Duration) {
        self.by_outcome[outcome.position()].one();
        self.durations[outcome.class()].took(took);
    }

    /// How many requests had each outcome, by its word.
    pub fn by_outcome(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Outcome::ALL.into_iter().map(Outcome::word).zip(self.by_outcome.iter().map(Count::get))
    }

    /// How long requests took, by the class of their status.
    pub fn durations(&self) -> impl Iterator<Item = (&'static str, Distribution)> {
        CLASSES.into_iter().zip(self.durations.iter().map(Histogram::read))
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// 200: its events are durable, or there were none to record.
    Done,
    /// 400: it was processed, and every event of it was rejected.
    AllRejected,
    /// It was not processed, or not completed.
    Refused(Refusal),
}

/// A result of a request that has an outcome.
pub(super) trait Counted {
    fn outcome(&self) -> Outcome;
}

/// An answer that does not depend on what became of events.
impl<T> Counted for Json<T> {
    fn outcome(&self) -> Outcome {
        Outcome::Done
    }
}

impl Counted for Account {
    fn outcome(&self) -> Outcome {
        if self.status() == StatusCode::OK { Outcome::Done } else { Outcome::AllRejected }
    }
}

impl Counted for Refusal {
    fn outcome(&self) -> Outcome {
        Outcome::Refused(*self)
    }
}

impl<T: Counted> Counted for Result<T, Refusal> {
    fn outcome(&self) -> Outcome {
        self.as_ref().map_or_else(Counted::outcome, Counted::outcome)
    }
}

impl Outcome {
    const ALL: [Self; 2 + Refusal::ALL.len()] = {
        let mut all = [Self::Done; 2 + Refusal::ALL.len()];
        all[1] = Self::AllRejected;
        let mut index = 0;
        while index < Refusal::ALL.len() {
            all[2 + index] = Self::Refused(Refusal::ALL[index]);
            index += 1;
        }
        all
    };

    fn position(self) -> usize {
        match self {
            Self::Done => 0,
            Self::AllRejected => 1,
            Self::Refused(refusal) => 2 + refusal as usize,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::AllRejected => "all_rejected",
            Self::Refused(refusal) => refusal.word(),
        }
    }

    fn class(self) -> usize {
        match self {
            Self::Done => 0,
            Self::Refused(refusal) if refusal.status().is_server_error() => 2,
            Self::AllRejected | Self::Refused(_) => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_outcome_has_a_place_and_a_word_of_its_own() {
        for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome.position(), index, "{outcome:?}");
        }
        let words: BTreeSet<_> = Outcome::ALL.map(Outcome::word).into();
        assert_eq!(words.len(), Outcome::ALL.len(), "{words:?}");
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        for (index, doubt) in Doubt::ALL.into_iter().enumerate() {
            assert_eq!(doubt as usize, index);
        }
        for (index, clock) in Corrected::WRONG.into_iter().enumerate() {
            assert_eq!(clock as usize, index);
        }
        assert_eq!(Corrected::Neither as usize, Corrected::WRONG.len(), "it is not counted");
    }
}
