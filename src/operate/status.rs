//! How each destination stands, as `/status` tells it and `cohortd status` reads it. Times are RFC 3339,
//! UTC. Nothing in it is personal (P8; tests/it/secrecy.rs).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::whole_millis;
use crate::deliver::{Held, Latest, Trouble};
use crate::launchdarkly::{RateLimits, Window};
use crate::ledger::{Backlog, DestinationView};
use crate::membership::Timestamp;
use crate::operate::api::wire::instant;
use crate::operate::configuration::ConfigurationStatus;

/// The whole daemon.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// Whether events are accepted.
    pub ready: bool,
    /// Why not, as the probe says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objection: Option<Cow<'static, str>>,
    /// Of the binary.
    pub version: String,
    /// When it started.
    pub started_at: String,
    /// Log lines that could not be written since then.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub log_lines_dropped: u64,
    /// What is wrong with the clock of the ledger, if something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockStatus>,
    /// The configuration on disk, while it is refused and another one runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<ConfigurationStatus>,
    /// By name.
    pub destinations: BTreeMap<String, DestinationStatus>,
}

/// The ledger has recorded arrivals that are in the future now.
#[derive(Debug, Serialize, Deserialize)]
pub struct ClockStatus {
    /// How many milliseconds the latest of them is ahead of the clock.
    pub ahead_ms: u64,
    /// What that does, with the remedy.
    pub why: Cow<'static, str>,
}

impl ClockStatus {
    /// `None`: it is not ahead by so much that it matters.
    #[must_use]
    pub fn of(ahead: Duration) -> Option<Self> {
        let is_trouble = ahead > CLOCK_TOLERANCE;
        is_trouble.then(|| Self { ahead_ms: whole_millis(ahead), why: CLOCK_IS_AHEAD.into() })
    }
}

/// More than this is trouble. Events may be stamped as far ahead of their arrival, too.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(300);

/// What it means when the recorded arrival is ahead by more than that.
pub const CLOCK_IS_AHEAD: &str = "the ledger has recorded arrivals that are in the future now, because \
    the clock of this machine was ahead once, or is behind: until it gets there, members who leave stay \
    in, people who were deleted cannot return, and nothing that is old is purged. Set the clock; if it \
    is right, stop cohortd, run cohortd ledger reset-clock, and start it again";

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One destination.
#[derive(Debug, Serialize, Deserialize)]
pub struct DestinationStatus {
    /// Whether anything but probes is delivered, and in time.
    pub state: DestinationState,
    /// Since when; not there while nobody has looked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Since when an operator has stopped its delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_since: Option<String>,
    /// Since when and why it is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldStatus>,
    /// Members waiting to be claimed; at least so many while a long backlog has not been counted.
    pub waiting: u64,
    /// Milliseconds that the longest waiting one has waited since the daemon started.
    pub oldest_waiting_ms: u64,
    /// Members that LaunchDarkly is still to be told: those that wait, and those in a call.
    pub pending: u64,
    /// Milliseconds that the longest pending one has been so, whatever restarts there were.
    pub oldest_pending_ms: u64,
    /// Members that LaunchDarkly refused.
    pub parked: u64,
    /// Events kept because they could not be mapped.
    pub rejected: u64,
    /// Entries that deletions have left in place since the daemon started, because they were stamped
    /// ahead of their arrival and later than the deletion.
    #[serde(default)]
    pub deletions_outlived: u64,
    /// Calls that are not answered yet.
    pub calls_in_flight: u64,
    /// When the last event arrived since the daemon started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_event_at: Option<String>,
    /// When LaunchDarkly last took a batch since the daemon started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success_at: Option<String>,
    /// The last call since the daemon started that was not taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// What LaunchDarkly last said about its limits: `global`, `route` and `token`, as far as each applies.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rate_limits: BTreeMap<Cow<'static, str>, RateLimit>,
    /// Members waiting, by audience id.
    pub audiences: BTreeMap<String, u64>,
}

/// Whether a destination is delivered to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DestinationState {
    /// It is.
    Ok,
    /// Events are kept, and LaunchDarkly is probed until what is wrong is mended.
    Held,
    /// Events are kept, and nothing is delivered until an operator resumes it.
    Paused,
    /// It is, and members have been waiting for longer than they should: there was an outage, the rate
    /// is limited, or it is still going on.
    CatchingUp,
}

impl DestinationState {
    /// Every state, for metrics that show zeros.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Held, Self::Paused, Self::CatchingUp];

    /// The word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Held => "held",
            Self::Paused => "paused",
            Self::CatchingUp => "catching_up",
        }
    }
}

/// Why a destination is held.
#[derive(Debug, Serialize, Deserialize)]
pub struct HeldStatus {
    /// Since when.
    pub since: String,
    /// The HTTP status that caused it.
    pub status: u16,
    /// In words, with the remedy.
    pub why: Cow<'static, str>,
    /// LaunchDarkly's id of the answer, for its support.
    pub answer_id: String,
}

/// A call that was not taken.
#[derive(Debug, Serialize, Deserialize)]
pub struct LastError {
    /// When it ended.
    pub at: String,
    /// What it meant: `refused`, `token_refused`, `rate_limited`, `unavailable`, …
    pub what: Cow<'static, str>,
    /// The HTTP status; not there: there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// LaunchDarkly's `code`, or what kept the answer away; may be empty.
    pub cause: String,
    /// LaunchDarkly's id of the answer, for its support; may be empty.
    pub answer_id: String,
}

/// One of LaunchDarkly's limits.
#[derive(Debug, Serialize, Deserialize)]
pub struct RateLimit {
    /// Calls per window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Calls left in the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u64>,
    /// When the next window begins, by LaunchDarkly's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_at: Option<String>,
}

/// What is known of a destination.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub now: Timestamp,
    pub backlog: &'a [Backlog],
    /// Not there as long as the ledger has no rows of it.
    pub view: Option<&'a DestinationView>,
    pub held: Option<Held>,
    pub paused_since: Option<Timestamp>,
    pub latest: Latest,
    pub calls_in_flight: u64,
    pub last_event_at: Option<Timestamp>,
    pub deletions_outlived: u64,
}

impl DestinationStatus {
    /// From what is known of it.
    pub(super) fn of(facts: Facts<'_>) -> Self {
        let Facts { now, backlog, view, held, paused_since, latest, .. } = facts;
        let pending_since = view.and_then(|view| view.pending_since);
        let pending_for = pending_since.map(|since| now.since(since)).unwrap_or_default();
        let oldest_waiting = backlog.iter().map(|of| of.waiting_since.elapsed()).max();
        let (state, since) = match (&held, paused_since) {
            (_, Some(since)) => (DestinationState::Paused, Some(since)),
            (Some(held), None) => (DestinationState::Held, Some(held.since)),
            (None, None) if pending_for > latest.late_after => {
                (DestinationState::CatchingUp, pending_since)
            }
            (None, None) => (DestinationState::Ok, latest.well_since),
        };
        let audience = |of: &Backlog| (of.audience.as_str().to_owned(), of.waiting);
        Self {
            state,
            since: since.map(instant),
            paused_since: paused_since.map(instant),
            held: held.map(|Held { since, status, why, answer_id, .. }| HeldStatus {
                since: instant(since),
                status,
                why: why.into(),
                answer_id,
            }),
            waiting: backlog.iter().map(|of| of.waiting).sum::<u64>()
                + view.map_or(0, |view| view.unvisited),
            oldest_waiting_ms: oldest_waiting.map_or(0, whole_millis),
            pending: view.map_or(0, |view| view.pending),
            oldest_pending_ms: whole_millis(pending_for),
            parked: view.map_or(0, |view| view.parked),
            rejected: view.map_or(0, |view| view.rejected),
            deletions_outlived: facts.deletions_outlived,
            calls_in_flight: facts.calls_in_flight,
            last_event_at: facts.last_event_at.map(instant),
            last_success_at: latest.success_at.map(instant),
            last_error: latest.trouble.map(LastError::from),
            rate_limits: rate_limits(&latest.limits),
            audiences: backlog.iter().map(audience).collect(),
        }
    }
}

impl From<Trouble> for LastError {
    fn from(trouble: Trouble) -> Self {
        let Trouble { at, what, status, cause, answer_id, .. } = trouble;
        Self { at: instant(at), what: what.into(), status, cause, answer_id }
    }
}

fn rate_limits(limits: &RateLimits) -> BTreeMap<Cow<'static, str>, RateLimit> {
    let RateLimits { global, route, token, .. } = *limits;
    let said = [("global", global), ("route", route), ("token", token)].into_iter();
    said.filter(|(_, window)| window.limit.is_some() || window.remaining.is_some())
        .map(|(name, Window { limit, remaining, reset })| {
            (name.into(), RateLimit { limit, remaining, reset_at: reset.map(instant) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver;

    const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

    fn ago(seconds: u64) -> Timestamp {
        NOW.before(Duration::from_secs(seconds))
    }

    #[test]
    fn a_state_has_its_own_since() {
        use DestinationState::{CatchingUp, Held, Ok, Paused};
        let held = deliver::Held {
            since: ago(60),
            status: 401,
            what: "token_refused",
            why: "the token",
            remedy: "another token",
            code: String::new(),
            message: String::new(),
            answer_id: String::new(),
        };
        let held = || Some(held.clone());
        let cases = [
            ("nothing waits", None, None, None, Ok, 500),
            ("it waits no longer than it may", None, None, Some(10), Ok, 500),
            ("it waits longer", None, None, Some(11), CatchingUp, 11),
            ("held", held(), None, Some(99), Held, 60),
            ("paused, and held", held(), Some(30), Some(99), Paused, 30),
        ];
        for (case, held, paused_since, pending_since, state, since) in cases {
            let (paused_since, pending_since) = (paused_since.map(ago), pending_since.map(ago));
            let view = DestinationView {
                name: "production".to_owned(),
                configured: true,
                paused_since,
                audiences: 1,
                included: 1,
                pending: 1,
                unvisited: 0,
                pending_since,
                parked: 2,
                rejected: 3,
            };
            let latest = Latest {
                well_since: Some(ago(500)),
                late_after: Duration::from_secs(10),
                ..Latest::default()
            };
            let status = DestinationStatus::of(Facts {
                now: NOW,
                backlog: &[],
                view: Some(&view),
                held,
                paused_since,
                latest,
                calls_in_flight: 0,
                last_event_at: None,
                deletions_outlived: 0,
            });
            let since = Some(instant(ago(since)));
            assert_eq!((status.state, status.since), (state, since), "{case}");
            assert_eq!((status.pending, status.parked, status.rejected), (1, 2, 3));
        }
    }
}
