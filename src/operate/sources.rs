//! The sources of what operators see: handles to the state of every step, in one place.
//!
//! The steps keep their own counters; readers take them from here without stopping any step.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::api::wire::instant;
use super::configuration::{Configuration, ConfigurationStatus};
use super::entries::Entry;
use super::logging::Lines;
use super::refusals::Refusals;
use super::status::{ClockStatus, DestinationStatus, Numbers, Status, Unconfigured};
use super::verdict::{DestinationState, Facts};
use super::whole;
use crate::clock::Clock;
use crate::counting::Count;
use crate::current::Current;
use crate::deliver::{self, Standing};
use crate::ledger::{DestinationView, LedgerError, Obstacle, Operations};
use crate::membership::{DestinationName, Timestamp};
use crate::receive::tls::Certificates;
use crate::receive::{self, Readiness};

/// Handles to everything that can be observed.
#[derive(Debug)]
pub struct Sources {
    /// For backlogs, counts and sizes.
    pub ledger: Arc<dyn Operations>,
    /// Whether each configured destination is held.
    pub standings: Current<Vec<(DestinationName, watch::Receiver<Standing>)>>,
    /// The paths that Segment posts to, by destination.
    pub entries: Current<BTreeMap<DestinationName, Vec<Entry>>>,
    /// Whether the daemon accepts traffic.
    pub readiness: Readiness,
    /// Counters of received requests and events.
    pub received: Arc<receive::Counters>,
    /// Counters of deliveries.
    pub delivered: Arc<deliver::Counters>,
    /// The log's queue, which counts dropped lines.
    pub lines: Lines,
    /// The result of the last read of the configuration.
    pub configuration: Configuration,
    /// The certificates of the listeners that use TLS, by the listener's name: `public`, `admin`.
    pub certificates: Vec<(&'static str, Certificates)>,
    /// Counters of requests that the admin listener has refused.
    pub refusals: Arc<Refusals>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// When the daemon started.
    pub started_at: Timestamp,
    /// When the verdict on each destination was last other than `ok`.
    pub not_ok_at: Mutex<BTreeMap<DestinationName, Timestamp>>,
    /// What the ledger held when it last answered.
    pub seen: Mutex<Vec<DestinationView>>,
    /// How often it could not be read what the ledger holds, so that it was shown as it was before.
    pub unread: Count,
}

/// How long the ledger may take to answer whoever asks how it is.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// What is said if it takes longer to say who waits.
const SLOW: &str = "it takes long to read who waits: the database is overloaded, or somebody keeps a table locked (pg_locks, \
     pg_blocking_pids)";

/// What the ledger holds.
struct Seen {
    views: Vec<DestinationView>,
    /// As it was when the ledger last answered.
    is_stale: bool,
    /// Why the ledger did not answer, if it said so.
    failure: Option<String>,
}

impl Sources {
    /// Why no events should be sent here; `None` if they may be.
    #[must_use]
    pub fn objection(&self) -> Option<&'static str> {
        receive::objection(&self.readiness, &*self.ledger)
    }

    /// How far the latest arrival recorded by the ledger is ahead of the clock.
    #[must_use]
    pub fn clock_ahead(&self) -> Duration {
        let now = self.clock.now();
        self.ledger.arrival().since(now)
    }

    fn not_ok_at(&self) -> MutexGuard<'_, BTreeMap<DestinationName, Timestamp>> {
        self.not_ok_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The status of this process and of every destination, as far as it knows: see [`Sources::whole`].
    pub async fn status(&self) -> Result<Status, LedgerError> {
        let Seen { views, mut is_stale, mut failure } = self.see().await?;
        let (obstacle, burden) = (self.ledger.obstacle(), self.ledger.burden());
        let (now, entries) = (self.clock.now(), self.entries.get());
        let refused = self.received.refused(now);
        let mut destinations = BTreeMap::new();
        let standings = self.standings.get();
        let running = standings.iter().map(|(name, standing)| (name, Some(standing)));
        let is_running = |name: &DestinationName| standings.iter().any(|(other, _)| other == name);
        let disabled = entries.keys().filter(|name| !is_running(name)).map(|name| (name, None));
        for (name, standing) in running.chain(disabled) {
            let backlog = match standing {
                Some(_) if !is_stale => {
                    let outbox = self.ledger.outbox(name);
                    let late = |_| Err(LedgerError::Unavailable(SLOW.to_owned()));
                    match timeout(ANSWERS_WITHIN, outbox.backlog()).await.unwrap_or_else(late) {
                        Ok(backlog) => backlog,
                        Err(LedgerError::Unavailable(why)) => {
                            self.unread.one();
                            (is_stale, failure) = (true, Some(why)); // the others are not asked in vain too
                            Vec::new()
                        }
                        Err(error) => return Err(error),
                    }
                }
                _ => Vec::new(), // a disabled destination has no courier
            };
            let held = standing.and_then(|standing| standing.borrow().held.clone());
            let (received, delivered) = (self.received.of(name), self.delivered.of(name));
            let of_this: Vec<_> =
                refused.iter().filter(|of| of.destinations.contains(name)).cloned().collect();
            let facts = Facts {
                name: name.as_str(),
                now,
                clock_ahead: self.clock_ahead(),
                obstacle: obstacle.as_ref(),
                unread: failure.as_deref(),
                burden: burden.as_ref(),
                started_at: self.started_at,
                view: view_of(&views, name),
                held: held.as_ref(),
                guarded: &self.ledger.held_audiences(name),
                paused_since: self.ledger.outbox(name).paused_since(),
                latest: &delivered.latest(),
                failing: &delivered.failing_audiences(),
                other_failing: delivered.other_failing_audiences(),
                refused: &of_this,
                since_change: received.since_change(),
                is_disabled: standing.is_none(),
                has_accepted: received.has_accepted(),
                not_ok_at: self.not_ok_at().get(name).copied(),
            };
            let recordings = self.ledger.recordings().of(name);
            let numbers = Numbers {
                backlog: &backlog,
                entries: entries.get(name).cloned().unwrap_or_default(),
                calls_in_flight: delivered.in_flight(),
                last_event_at: received.last_event_at(),
                times_doubted: received.doubted_times().collect(),
                deletions_outlived: recordings.outlived.get(),
                entries_expired: recordings.expired.get(),
                ignored: received.ignored.get(),
                ignored_events: received.ignored_events(),
            };
            let status = DestinationStatus::of(&facts, numbers);
            if status.state != DestinationState::Ok {
                self.not_ok_at().insert(name.clone(), now);
            }
            destinations.insert(name.to_string(), status);
        }
        let objection = self.objection();
        Ok(Status {
            ready: objection.is_none(),
            objection: objection.map(Into::into),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: instant(self.started_at),
            log_lines_dropped: self.lines.dropped(),
            clock: ClockStatus::of(self.clock_ahead()),
            configuration: ConfigurationStatus::of(self.configuration.state()),
            replicas: Vec::new(),
            replicas_differ: Vec::new(),
            destinations,
            unconfigured: views.iter().filter_map(Unconfigured::of).collect(),
        })
    }
}

impl Sources {
    /// The status of the whole: of every replica that shares the ledger, as one.
    pub async fn whole(&self) -> Result<Status, LedgerError> {
        let status = self.status().await?;
        if matches!(self.ledger.obstacle(), Some(Obstacle::Database(_))) {
            return Ok(status); // nobody else is heard of
        }
        match timeout(ANSWERS_WITHIN, self.ledger.replicas()).await {
            Ok(Ok(Some(replicas))) => Ok(whole::of(status, replicas)),
            Ok(Ok(None) | Err(LedgerError::Unavailable(_))) | Err(_) => Ok(status),
            Ok(Err(error)) => Err(error),
        }
    }

    /// What the ledger holds. If it does not answer, what it held when it last did: whoever asks while it is away
    /// learns that it is.
    async fn see(&self) -> Result<Seen, LedgerError> {
        let last = || self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut asked = self.ledger.destinations();
        let mut failure = None;
        while !matches!(self.ledger.obstacle(), Some(Obstacle::Database(_))) {
            match timeout(ANSWERS_WITHIN, &mut asked).await {
                Ok(Ok(views)) => {
                    last().clone_from(&views);
                    return Ok(Seen { views, is_stale: false, failure: None });
                }
                Ok(Err(LedgerError::Unavailable(why))) => {
                    failure = Some(why);
                    break;
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => {} // it is slow, or about to be known as away
            }
        }
        self.unread.one();
        Ok(Seen { views: last().clone(), is_stale: true, failure })
    }
}

/// The ledger's counts of a destination; `None` while it has no rows of it.
fn view_of<'a>(
    views: &'a [DestinationView],
    name: &DestinationName,
) -> Option<&'a DestinationView> {
    views.iter().find(|view| view.name == name.as_str())
}
