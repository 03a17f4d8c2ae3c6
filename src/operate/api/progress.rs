//! The progress of long work: operations on all members of an audience, a replay, and a backlog being
//! drained.
//!
//! The ledger says how much is done. The rate is found by comparing successive readings, so an estimate
//! is based on the readings of the last half minute.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::State;
use tokio::time::Instant;

use super::wire::{Nothing, ProgressItem, ProgressList, Work, instant};
use super::{Api, Asked, Destination, Problem};
use crate::json::Json;
use crate::ledger::{AudienceView, ReconciliationView, Stage};
use crate::membership::{DestinationName, Timestamp};

/// Most items in one answer.
const MOST: usize = 1000;
/// How far back an estimate looks.
const WINDOW: Duration = Duration::from_secs(30);
/// Readings closer together than this count as one.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The shortest interval from which a rate is estimated.
const SHORTEST: Duration = Duration::from_secs(2);
/// A backlog counts as long work only if some member has waited this long.
const LASTS: Duration = Duration::from_secs(5);
/// A replay is done part by part; if no part came for this long, it was abandoned.
const GIVEN_UP: Duration = Duration::from_secs(60);

/// Identifies long work: destination, kind, and the audience, if it concerns only one.
type Which = (DestinationName, Work, Option<String>);

/// The progress of all long work, as observed so far.
#[derive(Debug, Default)]
pub struct Courses(Mutex<HashMap<Which, Course>>);

/// The progress of one piece of work.
#[derive(Debug)]
struct Course {
    since: Timestamp,
    done: u64,
    total: u64,
    /// The readings of the last half minute, the oldest first.
    looks: VecDeque<(Instant, u64)>,
}

impl Course {
    fn new(since: Timestamp) -> Self {
        Self { since, done: 0, total: 0, looks: VecDeque::new() }
    }

    fn look(&mut self, done: u64, total: u64, now: Instant) {
        (self.done, self.total) = (done.min(total), total);
        // Earlier readings are useless after a fresh start.
        if self.looks.back().is_some_and(|(_, before)| *before > self.done) {
            self.looks.clear();
        }
        self.looks.retain(|(at, _)| now.duration_since(*at) <= WINDOW);
        if self.looks.back().is_none_or(|(at, _)| now.duration_since(*at) >= LOOK_EVERY) {
            self.looks.push_back((now, self.done));
        }
    }

    /// For a backlog: the total is the largest backlog seen.
    fn look_at_rest(&mut self, rest: u64, now: Instant) {
        let total = self.total.max(rest);
        if total > self.total {
            self.looks.clear();
        }
        self.look(total - rest, total, now);
    }

    /// The rate in members or events per second; the average since the beginning while there are too
    /// few readings. That of a reconciliation is not known then: it began with reading a file.
    fn per_second(&self, kind: Work, now: Instant, clock: Timestamp) -> f64 {
        let oldest = self.looks.front().copied();
        let window = oldest.map(|(at, done)| (now.duration_since(at), self.done - done));
        let whole = match kind {
            Work::Reconcile => (Duration::ZERO, 0),
            _ => (clock.since(self.since), self.done),
        };
        let (time, done) = window.filter(|(time, _)| *time >= SHORTEST).unwrap_or(whole);
        if time.is_zero() { 0.0 } else { lossy(done) / time.as_secs_f64() }
    }

    fn item(&self, which: &Which, now: Instant, clock: Timestamp) -> ProgressItem {
        let per_second = self.per_second(which.1, now, clock);
        let rest = lossy(self.total - self.done);
        let remaining = Duration::try_from_secs_f64(rest / per_second).ok();
        ProgressItem {
            kind: which.1,
            audience: which.2.clone(),
            done: self.done,
            total: self.total,
            since: instant(self.since),
            per_second: (per_second * 10.0).round() / 10.0,
            remaining_s: remaining.map(|time| time.as_secs() + u64::from(time.subsec_nanos() > 0)),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate needs no more than 52 bits")]
fn lossy(count: u64) -> f64 {
    count as f64
}

impl Courses {
    fn lock(&self) -> MutexGuard<'_, HashMap<Which, Course>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Call after each part of a replay with the number of events in it. `of` is the total at the
    /// beginning, given with the first part; `more` says whether further parts will come.
    pub(super) fn replayed(
        &self,
        name: &DestinationName,
        part: u64,
        of: Option<u64>,
        more: bool,
        clock: Timestamp,
    ) {
        let which = (name.clone(), Work::Replay, None);
        let mut courses = self.lock();
        if of.is_some() || !more {
            courses.remove(&which);
        }
        if more {
            let course = courses.entry(which).or_insert_with(|| Course::new(clock));
            let done = course.done + part;
            course.look(done, of.unwrap_or(course.total).max(done), Instant::now());
        }
    }

    /// Takes a reading of all work of a destination, and returns its progress.
    fn look(
        &self,
        name: &DestinationName,
        (audiences, reconciliations): (&[AudienceView], &[ReconciliationView]),
        clock: Timestamp,
    ) -> Vec<ProgressItem> {
        let now = Instant::now();
        let mut courses = self.lock();
        let mut seen: HashSet<Which> = HashSet::new();
        for of in reconciliations {
            if of.destination != *name || of.stage != Stage::Staged {
                continue;
            }
            let which = (name.clone(), Work::Reconcile, Some(of.audience.as_str().to_owned()));
            let course = courses.entry(which.clone()).or_insert_with(|| Course::new(of.since));
            if course.since != of.since {
                *course = Course::new(of.since);
            }
            course.look(of.changed.done, of.total, now);
            seen.insert(which);
        }
        for view in audiences {
            let Some(walk) = &view.walk else { continue };
            let which = (name.clone(), Work::of(walk.task), Some(view.audience.clone()));
            let since = if walk.since == Timestamp::EPOCH { clock } else { walk.since };
            let course = courses.entry(which.clone()).or_insert_with(|| Course::new(since));
            if course.since != walk.since && walk.since != Timestamp::EPOCH {
                *course = Course::new(since);
            }
            // Members that were visited may still be pending, and do not count as done.
            let told = (walk.visited + walk.unvisited()).saturating_sub(view.pending);
            course.look(told, walk.expected.max(walk.visited), now);
            seen.insert(which);
        }
        let waiting = audiences.iter().filter(|view| view.walk.is_none());
        let rest: u64 = waiting.clone().map(|view| view.pending).sum();
        let since = waiting.filter_map(|view| view.pending_since).min();
        if let Some(since) = since.filter(|since| clock.since(*since) >= LASTS) {
            let which = (name.clone(), Work::Drain, None);
            let course = courses.entry(which.clone()).or_insert_with(|| Course::new(clock));
            course.look_at_rest(rest, now);
            course.since = course.since.min(since);
            seen.insert(which);
        }
        let is_replay = |which: &Which, course: &Course| {
            let last = course.looks.back().map(|(at, _)| now.duration_since(*at));
            which.1 == Work::Replay && last.is_some_and(|last| last < GIVEN_UP)
        };
        courses.retain(|which, course| {
            which.0 != *name || seen.contains(which) || is_replay(which, course)
        });
        let of_this = courses.iter().filter(|(which, _)| which.0 == *name);
        let mut items: Vec<_> = of_this.map(|(which, of)| of.item(which, now, clock)).collect();
        items.sort_by(|one, other| (one.kind, &one.audience).cmp(&(other.kind, &other.audience)));
        items.truncate(MOST);
        items
    }
}

/// The long work that is under way, and its progress
#[utoipa::path(
    get,
    path = "/api/v1/destinations/{destination}/progress",
    operation_id = "progress",
    responses((status = 200, description = "Operations in progress", body = ProgressList))
)]
pub(super) async fn progress(
    State(api): State<Arc<Api>>,
    Destination(name): Destination,
    Asked(Nothing {}): Asked<Nothing>,
) -> Result<Json<ProgressList>, Problem> {
    let audiences = api.ledger.audiences(&name).await?;
    let reconciliations = api.ledger.reconciliations().await?;
    let clock = api.ledger.arrival();
    let items = api.courses.look(&name, (&audiences, &reconciliations), clock);
    Ok(Json(ProgressList { now: instant(clock), items }))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Looks<'a> = &'a [(u64, u64)];

    /// Takes a reading every second and returns the result.
    fn went(kind: Work, looks: Looks<'_>) -> (u64, f64, Option<u64>) {
        let (begin, mut course) = (Instant::now(), Course::new(Timestamp::EPOCH));
        let which = (DestinationName::new("eu").expect("a name"), kind, None);
        let mut item = None;
        for (second, (done, total)) in (1..).zip(looks) {
            let passed = Duration::from_secs(second);
            course.look(*done, *total, begin + passed);
            item = Some(course.item(&which, begin + passed, Timestamp::EPOCH.after(passed)));
        }
        let item = item.expect("it was looked at");
        (item.done, item.per_second, item.remaining_s)
    }

    #[test]
    fn an_estimate_follows_the_pace_of_the_last_half_minute() {
        let steady: Vec<(u64, u64)> = (1..=60).map(|second| (second * 100, 10_000)).collect();
        let stalled: Vec<(u64, u64)> =
            (1..=60).map(|second| (second.min(20) * 100, 10_000)).collect();
        // readings of done and total, then the expected done, rate and seconds left
        let table: [(Work, Looks<'_>, u64, f64, Option<u64>); 8] = [
            (Work::Resync, &[(500, 1000)], 500, 500.0, Some(1)),
            (Work::Resync, &[(0, 1000)], 0, 0.0, None),
            (Work::Resync, &steady, 6000, 100.0, Some(40)),
            (Work::Resync, &stalled, 2000, 0.0, None),
            (
                Work::Resync,
                &[(900, 1000), (100, 1000), (200, 1000), (400, 1000)],
                400,
                150.0,
                Some(4),
            ),
            (Work::Resync, &[(1200, 1000)], 1000, 1000.0, Some(0)),
            (Work::Reconcile, &[(1, 1000)], 1, 0.0, None),
            (Work::Reconcile, &steady, 6000, 100.0, Some(40)),
        ];
        for (kind, looks, done, per_second, remaining_s) in table {
            assert_eq!(went(kind, looks), (done, per_second, remaining_s), "{kind:?} {looks:?}");
        }
    }

    #[test]
    fn a_backlog_is_measured_by_the_most_it_was() {
        let (begin, mut course) = (Instant::now(), Course::new(Timestamp::EPOCH));
        for (second, rest) in (0..).zip([500, 900, 700, 500, 300]) {
            course.look_at_rest(rest, begin + Duration::from_secs(second));
        }
        assert_eq!((course.done, course.total), (600, 900));
        let now = begin + Duration::from_secs(4);
        assert!((course.per_second(Work::Drain, now, Timestamp::EPOCH) - 200.0).abs() < 1e-9);
    }
}
