//! The last hour of each destination, in memory: what the dashboard draws.
//!
//! # What always holds
//! * It is bounded (P6): so many steps, so many audiences, whatever the daemon handles
//!   (`tests::an_hour_is_kept_and_no_more`,
//!   `audiences::tests::past_the_cap_an_audience_waits_for_a_quiet_one`).
//! * It holds names of destinations, ids of audiences and counts: nothing personal (P8).
//!
//! # What does not
//! A restart begins it anew. A dashboard that stays open keeps what it has seen, with a gap.

mod audiences;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use self::audiences::Audiences;
use super::status::DestinationState;
use crate::clock::Clock;
use crate::deliver::{self, Standing};
use crate::ledger::Operations;
use crate::membership::{DestinationName, Timestamp};
use crate::receive;

pub use audiences::{AudienceHistory, MINUTES};

/// Between two samples.
const STEP: Duration = Duration::from_secs(5);
/// Samples that are kept: an hour of them.
const STEPS: usize = 720;

/// What is sampled of a destination.
#[derive(Debug)]
pub struct Source {
    /// Its name.
    pub name: DestinationName,
    /// What became of its events.
    pub received: Arc<receive::Tally>,
    /// What was delivered.
    pub delivered: Arc<deliver::Tally>,
    /// How it fares.
    pub standing: watch::Receiver<Standing>,
}

/// The last hour of every destination.
#[derive(Debug, Default)]
pub struct History {
    destinations: Mutex<BTreeMap<DestinationName, Past>>,
}

/// The last hour of one.
#[derive(Debug, Default)]
struct Past {
    received: receive::Tallied,
    delivered: deliver::Tallied,
    samples: VecDeque<Sample>,
    audiences: Audiences,
}

/// One step: what happened in it, and how things stood at its end.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    /// Its end, in seconds of the epoch.
    at: i64,
    accepted: u64,
    ignored: u64,
    rejected: u64,
    delivered: u64,
    calls: u64,
    failed_calls: u64,
    call_p50_ms: Option<u32>,
    call_p95_ms: Option<u32>,
    waiting: u64,
    state: DestinationState,
}

/// What is asked of the history.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryQuery {
    /// Of this destination only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Only steps that ended later than this, in seconds of the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
}

/// `GET /api/v1/history`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct HistoryPage {
    /// Seconds of one step.
    pub step_s: u64,
    /// By name.
    pub destinations: BTreeMap<String, DestinationHistory>,
}

/// The steps of one destination, a list for each series; all have the same length, the oldest step is
/// the first.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct DestinationHistory {
    /// When each step ended, in seconds of the epoch.
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
    /// Those of them after which it had taken nothing.
    pub failed_calls: Vec<u64>,
    /// The median of their durations in milliseconds; `null` without calls.
    pub call_p50_ms: Vec<Option<u32>>,
    /// What 19 of 20 did not outlast.
    pub call_p95_ms: Vec<Option<u32>>,
    /// Members that waited to be told at the end of the step.
    pub waiting: Vec<u64>,
    /// How the destination stood at the end of the step.
    pub state: Vec<DestinationState>,
    /// By audience id: whoever changed in the last hour.
    pub audiences: BTreeMap<String, AudienceHistory>,
}

impl History {
    /// Samples the sources until `stop`.
    pub async fn watch(
        self: Arc<Self>,
        sources: Vec<Source>,
        ledger: Arc<dyn Operations>,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(STEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await; // the first is at once, and nothing has happened yet
        loop {
            tokio::select! { // nothing is half done while a tick is waited for
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            for source in &sources {
                // A closed ledger ends the daemon; there is nothing to sample until then.
                let Ok(backlog) = ledger.backlog(&source.name).await else {
                    return stop.cancelled().await;
                };
                let held = source.standing.borrow().held.is_some();
                let now = Moment {
                    at: clock.now(),
                    received: source.received.now(),
                    delivered: source.delivered.now(),
                    waiting: backlog.iter().map(|of| of.waiting).sum(),
                    state: match (ledger.paused_since(&source.name), held) {
                        (Some(_), _) => DestinationState::Paused,
                        (None, true) => DestinationState::Held,
                        (None, false) => DestinationState::Ok,
                    },
                };
                let turnover = ledger.take_turnover(&source.name);
                let mut destinations = self.lock();
                let past = destinations.entry(source.name.clone()).or_default();
                past.audiences.add(now.at, turnover);
                past.add(now);
            }
        }
    }

    /// What is kept and was asked for.
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

/// What is counted of a destination since the daemon began, and how it stands.
#[derive(Debug)]
struct Moment {
    at: Timestamp,
    received: receive::Tallied,
    delivered: deliver::Tallied,
    waiting: u64,
    state: DestinationState,
}

impl Past {
    fn add(&mut self, now: Moment) {
        let at = seconds(now.at);
        let (received, delivered) = (self.received, now.delivered.since(&self.delivered));
        // A clock that was set back must not make two steps of one.
        if self.samples.back().is_some_and(|last| last.at >= at) {
            return;
        }
        if self.samples.len() == STEPS {
            self.samples.pop_front();
        }
        let millis = |part| {
            delivered.quantile(part).map(|took| u32::try_from(took.as_millis()).unwrap_or(u32::MAX))
        };
        self.samples.push_back(Sample {
            at,
            accepted: now.received.accepted.saturating_sub(received.accepted),
            ignored: now.received.ignored.saturating_sub(received.ignored),
            rejected: now.received.rejected.saturating_sub(received.rejected),
            delivered: delivered.delivered,
            calls: delivered.calls(),
            failed_calls: delivered.failed_calls,
            call_p50_ms: millis(0.5),
            call_p95_ms: millis(0.95),
            waiting: now.waiting,
            state: now.state,
        });
        (self.received, self.delivered) = (now.received, now.delivered);
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
            shown.waiting.push(sample.waiting);
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

    fn moment(second: i64, accepted: u64) -> Moment {
        let mut delivered = deliver::Tallied::default();
        delivered.delivered = accepted * 2;
        Moment {
            at: Timestamp(second * 1_000_000),
            received: receive::Tallied { accepted, ..receive::Tallied::default() },
            delivered,
            waiting: 7,
            state: DestinationState::Ok,
        }
    }

    #[test]
    fn a_step_holds_what_was_added_in_it() {
        let mut past = Past::default();
        for (second, accepted) in [(5, 3), (10, 3), (15, 10), (15, 11), (9, 12), (20, 13)] {
            past.add(moment(second, accepted));
        }
        let shown = past.show(5, Timestamp::EPOCH);
        assert_eq!(shown.at, [10, 15, 20]);
        assert_eq!(shown.accepted, [0, 7, 3], "what a clock that was set back hid is not lost");
        assert_eq!(shown.delivered, [0, 14, 6]);
        assert_eq!((shown.waiting, shown.call_p50_ms), (vec![7; 3], vec![None; 3]));
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let mut past = Past::default();
        for step in 0..STEPS + 10 {
            past.add(moment(i64::try_from(step).expect("small") * 5, 0));
        }
        let shown = past.show(i64::MIN, Timestamp::EPOCH);
        assert_eq!((shown.at.len(), shown.at[0]), (STEPS, 50));
        assert_eq!(past.samples.capacity().next_power_of_two(), STEPS.next_power_of_two());
    }
}
