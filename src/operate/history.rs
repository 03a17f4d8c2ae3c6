//! The last hour of each destination, in memory, as the dashboard draws it.
//!
//! # What always holds
//! * It is bounded ([P6](crate::design::P6)) in steps and in audiences, whatever the daemon handles
//!   (`tests::an_hour_is_kept_and_no_more`,
//!   `audiences::tests::past_the_cap_an_audience_waits_for_a_quiet_one`).
//! * It holds names of destinations, IDs of audiences and counts: nothing personal
//!   ([P8](crate::design::P8)).
//!
//! # What does not
//! It is empty after a restart. A dashboard that stays open keeps what it has seen, with a gap.

mod audiences;
mod call_times;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};

use self::audiences::Audiences;
use self::call_times::CallTimes;
use super::sources::Sources;
use super::status::DestinationStatus;
use super::verdict::{Announced, DestinationState};
use crate::deliver::Delivered;
use crate::membership::{DestinationName, Timestamp};
use crate::receive::Received;

pub use audiences::{AudienceHistory, MINUTES};

/// Interval between two samples.
const STEP: Duration = Duration::from_secs(5);
/// Samples that are kept: one hour.
const STEPS: usize = 720;

/// The last hour of every destination.
#[derive(Debug, Default)]
pub struct History {
    destinations: Mutex<BTreeMap<DestinationName, Past>>,
}

/// The last hour of one destination.
#[derive(Debug, Default)]
struct Past {
    /// The counters as of the last sample.
    counted: Counted,
    samples: VecDeque<Sample>,
    audiences: Audiences,
}

/// Counters of a destination since the daemon started.
#[derive(Clone, Debug, Default, PartialEq)]
struct Counted {
    accepted: u64,
    ignored: u64,
    rejected: u64,
    delivered: u64,
    calls: CallTimes,
    failed_calls: u64,
}

impl Counted {
    fn now(received: &Received, delivered: &Delivered) -> Self {
        let mut counted = Self {
            accepted: received.accepted.get(),
            ignored: received.ignored.get(),
            rejected: received.rejected().map(|(_, count)| count).sum(),
            delivered: delivered.members.get(),
            ..Self::default()
        };
        for (outcome, durations) in delivered.durations() {
            if outcome != "taken" {
                counted.failed_calls += durations.count;
            }
            counted.calls.add(&durations);
        }
        counted
    }
}

/// One step: what happened in it, and the state at its end.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    /// When it ended, in seconds since the epoch.
    at: i64,
    accepted: u64,
    ignored: u64,
    rejected: u64,
    delivered: u64,
    calls: u64,
    failed_calls: u64,
    call_p50_ms: Option<u64>,
    call_p95_ms: Option<u64>,
    pending: u64,
    state: DestinationState,
}

/// Which part of the history is wanted.
#[derive(Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// Only this destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Only steps that ended later than this, in seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
}

/// The answer of `GET /api/v1/history`.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct HistoryPage {
    /// The length of one step in seconds.
    pub step_s: u64,
    /// The destinations by name.
    pub destinations: BTreeMap<String, DestinationHistory>,
}

/// The steps of one destination, as one list per series; all lists have the same length and begin with
/// the oldest step.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct DestinationHistory {
    /// When each step ended, in seconds since the epoch.
    pub at: Vec<i64>,
    /// Events that were made durable.
    pub accepted: Vec<u64>,
    /// Events that no mapping selects.
    pub ignored: Vec<u64>,
    /// Events that could not be applied.
    pub rejected: Vec<u64>,
    /// Members that LaunchDarkly took.
    pub delivered: Vec<u64>,
    /// Calls to LaunchDarkly that ended.
    pub calls: Vec<u64>,
    /// Calls that were not taken, among `calls`.
    pub failed_calls: Vec<u64>,
    /// The median of their durations in milliseconds; `null` without calls.
    pub call_p50_ms: Vec<Option<u64>>,
    /// The 95th percentile of their durations in milliseconds; `null` without calls.
    pub call_p95_ms: Vec<Option<u64>>,
    /// Members pending at the end of the step.
    pub pending: Vec<u64>,
    /// The destination's state at the end of the step.
    pub state: Vec<DestinationState>,
    /// The audiences that changed in the last hour, by ID.
    pub audiences: BTreeMap<String, AudienceHistory>,
}

impl History {
    /// Takes samples until `stop`, and logs concerns when they begin.
    pub async fn watch(self: Arc<Self>, sources: Arc<Sources>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(STEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await; // the first tick is immediate, and nothing has happened yet
        let mut announced = Announced::default();
        loop {
            tokio::select! { // cancel safe: only a tick is waited for
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            // A ledger that does not answer either recovers soon or ends the daemon.
            let Ok(status) = sources.status().await else { continue };
            let now = sources.clock.now();
            for (name, status) in &status.destinations {
                for concern in announced.news(name, &status.concerns, now) {
                    tracing::warn!(
                        destination.name = name,
                        concern = concern.kind.word(),
                        count = concern.count,
                        why = concern.why,
                        remedy = concern.remedy,
                        "destination needs attention"
                    );
                }
            }
            let mut destinations = self.lock();
            for (name, status) in &status.destinations {
                let Some(name) = DestinationName::new(name) else { continue };
                let received = sources.received.of(&name);
                let counted = Counted::now(&received, &sources.delivered.of(&name));
                let turnover = sources.ledger.take_turnover(&name);
                let past = destinations.entry(name).or_default();
                past.audiences.add(now, turnover);
                past.add(now, counted, status);
            }
        }
    }

    /// The steps that are wanted, as far as they are kept.
    #[must_use]
    pub fn page(&self, asked: &HistoryQuery, now: Timestamp) -> HistoryPage {
        let destinations = self.lock();
        let wanted = destinations.iter().filter(|(name, _)| {
            asked.destination.as_ref().is_none_or(|wanted| wanted == name.as_str())
        });
        let after = asked.after.unwrap_or(i64::MIN);
        let of =
            |(name, past): (&DestinationName, &Past)| (name.to_string(), past.show(after, now));
        HistoryPage { step_s: STEP.as_secs(), destinations: wanted.map(of).collect() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<DestinationName, Past>> {
        self.destinations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Past {
    fn add(&mut self, now: Timestamp, counted: Counted, status: &DestinationStatus) {
        let at = seconds(now);
        // After the clock was set back, there must not be two steps at one time.
        if self.samples.back().is_some_and(|last| last.at >= at) {
            return;
        }
        if self.samples.len() == STEPS {
            self.samples.pop_front();
        }
        let before = std::mem::replace(&mut self.counted, counted);
        let now = &self.counted;
        let calls = now.calls.since(&before.calls);
        self.samples.push_back(Sample {
            at,
            accepted: now.accepted.saturating_sub(before.accepted),
            ignored: now.ignored.saturating_sub(before.ignored),
            rejected: now.rejected.saturating_sub(before.rejected),
            delivered: now.delivered.saturating_sub(before.delivered),
            calls: calls.count(),
            failed_calls: now.failed_calls.saturating_sub(before.failed_calls),
            call_p50_ms: calls.quantile_ms(0.5),
            call_p95_ms: calls.quantile_ms(0.95),
            pending: status.pending,
            state: status.state,
        });
    }

    fn show(&self, after: i64, now: Timestamp) -> DestinationHistory {
        let mut shown = DestinationHistory::default();
        for sample in self.samples.iter().filter(|sample| sample.at > after) {
            shown.at.push(sample.at);
            shown.accepted.push(sample.accepted);
            shown.ignored.push(sample.ignored);
            shown.rejected.push(sample.rejected);
            shown.delivered.push(sample.delivered);
            shown.calls.push(sample.calls);
            shown.failed_calls.push(sample.failed_calls);
            shown.call_p50_ms.push(sample.call_p50_ms);
            shown.call_p95_ms.push(sample.call_p95_ms);
            shown.pending.push(sample.pending);
            shown.state.push(sample.state);
        }
        shown.audiences = self.audiences.show(now);
        shown
    }
}

fn seconds(at: Timestamp) -> i64 {
    at.0.div_euclid(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> DestinationStatus {
        serde_json::from_value(serde_json::json!({
            "state": "catching up", "waiting": 7, "oldest_waiting_ms": 1, "pending": 9,
            "oldest_pending_ms": 1, "parked": 0, "rejected": 0, "calls_in_flight": 2, "audiences": {},
        }))
        .expect("a status")
    }

    fn add(past: &mut Past, second: i64, accepted: u64) {
        let counted = Counted { accepted, delivered: accepted * 2, ..Counted::default() };
        past.add(Timestamp(second * 1_000_000), counted, &status());
    }

    #[test]
    fn a_step_holds_what_was_added_in_it() {
        let mut past = Past::default();
        for (second, accepted) in [(5, 3), (10, 3), (15, 10), (15, 11), (9, 12), (20, 13)] {
            add(&mut past, second, accepted);
        }
        let shown = past.show(5, Timestamp::EPOCH);
        assert_eq!(shown.at, [10, 15, 20]);
        assert_eq!(shown.accepted, [0, 7, 3], "what a clock that was set back hid is not lost");
        assert_eq!(shown.delivered, [0, 14, 6]);
        assert_eq!((shown.pending, shown.call_p50_ms), (vec![9; 3], vec![None; 3]));
        assert_eq!(shown.state, [DestinationState::CatchingUp; 3]);
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let mut past = Past::default();
        for step in 0..STEPS + 10 {
            add(&mut past, i64::try_from(step).expect("small") * 5, 0);
        }
        let shown = past.show(i64::MIN, Timestamp::EPOCH);
        assert_eq!((shown.at.len(), shown.at[0]), (STEPS, 50));
    }
}
