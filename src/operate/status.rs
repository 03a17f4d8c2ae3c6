//! The status of the daemon and of each destination, as `/status` shows it and `cohortd status` reads
//! it. Times are RFC 3339, UTC. Holds no personal data ([P8](crate::design::P8); tests/it/secrecy.rs).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::entries::Entry;
use super::verdict::{Concern, DestinationState, Facts, Verdict};
use crate::clock::whole_millis;
use crate::deliver::{Held, Trouble};
use crate::launchdarkly::{RateLimits, Window};
use crate::ledger::{Backlog, DestinationView};
use crate::map::Doubt;
use crate::membership::Timestamp;
use crate::operate::api::wire::{FailingInfo, instant};
use crate::operate::configuration::ConfigurationStatus;
use crate::receive::RefusedPath;

/// Most failing audiences that are listed.
const FAILING_SHOWN: usize = 100;
/// Most names of ignored events that are listed.
const IGNORED_SHOWN: usize = 20;

/// The status of the whole daemon.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// Whether events are accepted.
    pub ready: bool,
    /// Why not, as the readiness probe says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objection: Option<Cow<'static, str>>,
    /// The version of the binary.
    pub version: String,
    /// When it started.
    pub started_at: String,
    /// Log lines since then that could not be written.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub log_lines_dropped: u64,
    /// What is wrong with the ledger's clock, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockStatus>,
    /// The configuration on disk, if it was refused and an earlier one is still running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<ConfigurationStatus>,
    /// The replicas that share the ledger; none if it is not shared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<ReplicaStatus>,
    /// What is wrong with them as a whole, in a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replicas_differ: Vec<String>,
    /// The destinations by name.
    pub destinations: BTreeMap<String, DestinationStatus>,
    /// Destinations that are no longer configured, but of which the ledger still has members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unconfigured: Vec<Unconfigured>,
}

/// A process that shares the ledger.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// Its name.
    pub name: String,
    /// Whether it has answered.
    #[serde(default)]
    pub answers: bool,
    /// Its version.
    pub version: String,
    /// A digest of its configuration, as far as it has to be the same everywhere.
    pub configuration: String,
    /// When it opened the ledger.
    pub started_at: String,
    /// How long nothing has been heard of it, in milliseconds.
    pub silent_ms: u64,
    /// The destinations that it delivers to.
    pub delivers: Vec<String>,
}

/// A destination that is no longer configured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Unconfigured {
    /// Its name.
    pub name: String,
    /// Members that are in an audience.
    pub included: u64,
    /// Members that are still pending.
    pub pending: u64,
    /// What to do about it, in a sentence.
    pub remedy: String,
}

impl Unconfigured {
    /// `None` if it is configured, or if nothing of it is left.
    pub(super) fn of(view: &DestinationView) -> Option<Self> {
        let DestinationView { name, configured, included, pending, parked, rejected, .. } = view;
        let is_left = included + pending + parked + rejected > 0;
        (!configured && is_left).then(|| Self {
            name: name.clone(),
            included: *included,
            pending: *pending,
            remedy: format!(
                "configure it again to deliver its pending members, or forget it with cohortd \
                 drop {name}"
            ),
        })
    }
}

/// The ledger has recorded arrivals that are now in the future.
#[derive(Debug, Serialize, Deserialize)]
pub struct ClockStatus {
    /// How far the latest of them is ahead of the clock, in milliseconds.
    pub ahead_ms: u64,
    /// What this causes, and the remedy.
    pub why: String,
}

impl ClockStatus {
    /// `None` if it is not far enough ahead to matter.
    #[must_use]
    pub fn of(ahead: Duration) -> Option<Self> {
        let is_trouble = ahead > CLOCK_TOLERANCE;
        let why = || format!("{CLOCK_IS_AHEAD}; {CLOCK_REMEDY}");
        is_trouble.then(|| Self { ahead_ms: whole_millis(ahead), why: why() })
    }
}

/// The largest lead of the recorded arrival that does not matter. Events may also be stamped this far
/// ahead of their arrival.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(300);

/// What it means if the recorded arrival is further ahead.
pub const CLOCK_IS_AHEAD: &str = "the ledger has recorded arrivals that are in the future, \
                                  because this machine's clock was once ahead or is now behind: \
                                  until the clock catches up, members who leave stay in, deleted \
                                  people cannot return, and nothing old is purged";

/// What to do about it.
pub const CLOCK_REMEDY: &str = "set the clock; if it is right, stop cohortd, run cohortd ledger reset-clock, \
    and start it again";

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The status of one destination.
#[derive(Debug, Serialize, Deserialize)]
pub struct DestinationStatus {
    /// The state according to the verdict.
    pub state: DestinationState,
    /// Where the manual says more about it, as a path on the admin listener.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub manual: String,
    /// Since when; absent if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Every reason why it is not `ok`, the worst first.
    #[serde(default)]
    pub concerns: Vec<Concern>,
    /// Where Segment must post to, until a first event has been accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<Entry>,
    /// Since when an operator has paused its delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_since: Option<String>,
    /// Since when and why it is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldStatus>,
    /// Members waiting to be claimed; a lower bound until a long backlog has been counted.
    pub waiting: u64,
    /// How long the longest waiting member has waited since the daemon started, in milliseconds.
    pub oldest_waiting_ms: u64,
    /// Members pending: those that wait and those in a call.
    pub pending: u64,
    /// How long the longest pending member has been pending, across restarts, in milliseconds.
    pub oldest_pending_ms: u64,
    /// Members that LaunchDarkly refused.
    pub parked: u64,
    /// Events kept because they could not be mapped.
    pub rejected: u64,
    /// Members that deletions have left in place since the daemon started, because their event time was
    /// ahead of their arrival and later than the deletion.
    #[serde(default)]
    pub deletions_outlived: u64,
    /// Members that left since the daemon started because their entries have expired.
    #[serde(default)]
    pub entries_expired: u64,
    /// Accepted events since the daemon started with a time that does not count, by the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub times_doubted: BTreeMap<Cow<'static, str>, u64>,
    /// Paths of Segment's at which requests were refused, until one succeeds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedStatus>,
    /// Events since the daemon started that no subscription selects.
    #[serde(default)]
    pub ignored: u64,
    /// The most frequent ignored events, by type and name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored_events: Vec<IgnoredEvents>,
    /// The audiences whose last call was not taken; at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failing_audiences: Vec<FailingInfo>,
    /// Calls in flight.
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
    /// LaunchDarkly's last rate limits: `global`, `route` and `token`, as far as each applies.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rate_limits: BTreeMap<Cow<'static, str>, RateLimit>,
    /// Members waiting to be claimed, by audience ID.
    pub audiences: BTreeMap<String, u64>,
}

/// Why a destination is held.
#[derive(Debug, Serialize, Deserialize)]
pub struct HeldStatus {
    /// When the hold began.
    pub since: String,
    /// The HTTP status that caused it.
    pub status: u16,
    /// Why, in words.
    pub why: Cow<'static, str>,
    /// What to do about it.
    #[serde(default)]
    pub remedy: Cow<'static, str>,
    /// LaunchDarkly's `code`; may be empty.
    #[serde(default)]
    pub code: String,
    /// LaunchDarkly's `message`; empty if there is none or if it may quote what was sent.
    #[serde(default)]
    pub message: String,
    /// LaunchDarkly's id of the answer, for its support.
    pub answer_id: String,
}

impl From<&Held> for HeldStatus {
    fn from(held: &Held) -> Self {
        let Held { since, status, remedy, code, message, answer_id, .. } = held;
        Self {
            since: instant(*since),
            status: *status,
            why: held.reason(),
            remedy: (*remedy).into(),
            code: code.clone(),
            message: message.clone(),
            answer_id: answer_id.clone(),
        }
    }
}

/// A call that was not taken.
#[derive(Debug, Serialize, Deserialize)]
pub struct LastError {
    /// When it ended.
    pub at: String,
    /// What it meant: `refused`, `token_refused`, `rate_limited`, `unavailable`, …
    pub what: Cow<'static, str>,
    /// The HTTP status; absent if there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// LaunchDarkly's `code`, or why there was no usable answer; may be empty.
    pub cause: String,
    /// LaunchDarkly's `message`; empty if there is none or if it may quote what was sent.
    #[serde(default)]
    pub message: String,
    /// LaunchDarkly's id of the answer, for its support; may be empty.
    pub answer_id: String,
}

/// One of LaunchDarkly's rate limits.
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

/// Refused requests at one path that look like Segment's.
#[derive(Debug, Serialize, Deserialize)]
pub struct RefusedStatus {
    /// The path; `-` if it may not be shown.
    pub path: String,
    /// The reason word of the last one.
    pub reason: Cow<'static, str>,
    /// The kind of credential of the last one: `none`, `signature`, `bearer`, `basic` or `other`.
    pub credential: Cow<'static, str>,
    /// The number of refused requests since the last success.
    pub count: u64,
    /// When the first of them arrived.
    pub first_at: String,
    /// When the last of them arrived.
    pub last_at: String,
    /// What is wrong with the last one.
    pub why: String,
    /// How to fix it.
    pub remedy: String,
    /// Whether an operator has to act.
    pub needs_attention: bool,
}

impl From<RefusedPath> for RefusedStatus {
    fn from(of: RefusedPath) -> Self {
        Self {
            path: of.path,
            reason: of.reason.into(),
            credential: of.credential.into(),
            count: of.count,
            first_at: instant(of.first_at),
            last_at: instant(of.last_at),
            why: of.why,
            remedy: of.remedy,
            needs_attention: of.needs_attention,
        }
    }
}

/// Events that no subscription selects, of one name.
#[derive(Debug, Serialize, Deserialize)]
pub struct IgnoredEvents {
    /// Their type and name, or `others`.
    pub name: String,
    /// The number of events.
    pub count: u64,
}

/// What the status shows besides the verdict.
#[derive(Debug)]
pub(super) struct Numbers<'a> {
    pub backlog: &'a [Backlog],
    pub entries: Vec<Entry>,
    pub calls_in_flight: u64,
    pub last_event_at: Option<Timestamp>,
    pub deletions_outlived: u64,
    pub entries_expired: u64,
    pub times_doubted: Vec<(Doubt, u64)>,
    pub ignored: u64,
    pub ignored_events: Vec<(String, u64)>,
}

impl DestinationStatus {
    /// The status of a destination.
    pub(super) fn of(facts: &Facts<'_>, numbers: Numbers<'_>) -> Self {
        let Verdict { state, since, concerns } = Verdict::of(facts);
        let (view, latest, backlog) = (facts.view, facts.latest, numbers.backlog);
        let pending_since = view.and_then(|view| view.pending_since);
        let pending_for = pending_since.map(|since| facts.now.since(since)).unwrap_or_default();
        let oldest_waiting = backlog.iter().map(|of| of.waiting_since.elapsed()).max();
        let audience = |of: &Backlog| (of.audience.as_str().to_owned(), of.waiting);
        let unvisited = view.map_or(0, |view| view.unvisited);
        let failing = facts.failing.iter().take(FAILING_SHOWN).map(FailingInfo::from);
        let ignored = numbers.ignored_events.into_iter().take(IGNORED_SHOWN);
        Self {
            state,
            manual: state.manual().to_string(),
            since: since.map(instant),
            concerns,
            setup: if facts.is_untouched() { numbers.entries } else { Vec::new() },
            paused_since: facts.paused_since.map(instant),
            held: facts.held.map(HeldStatus::from),
            waiting: backlog.iter().map(|of| of.waiting).sum::<u64>() + unvisited,
            oldest_waiting_ms: oldest_waiting.map_or(0, whole_millis),
            pending: view.map_or(0, |view| view.pending),
            oldest_pending_ms: whole_millis(pending_for),
            parked: view.map_or(0, |view| view.parked),
            rejected: view.map_or(0, |view| view.rejected),
            deletions_outlived: numbers.deletions_outlived,
            entries_expired: numbers.entries_expired,
            times_doubted: doubted(numbers.times_doubted),
            refused: facts.refused.iter().cloned().map(RefusedStatus::from).collect(),
            ignored: numbers.ignored,
            ignored_events: ignored.map(|(name, count)| IgnoredEvents { name, count }).collect(),
            failing_audiences: failing.collect(),
            calls_in_flight: numbers.calls_in_flight,
            last_event_at: numbers.last_event_at.map(instant),
            last_success_at: latest.success_at.map(instant),
            last_error: latest.trouble.clone().map(LastError::from),
            rate_limits: rate_limits(&latest.limits),
            audiences: backlog.iter().map(audience).collect(),
        }
    }
}

impl From<Trouble> for LastError {
    fn from(trouble: Trouble) -> Self {
        let Trouble { at, what, status, cause, message, answer_id } = trouble;
        Self { at: instant(at), what: what.into(), status, cause, message, answer_id }
    }
}

fn doubted(times: Vec<(Doubt, u64)>) -> BTreeMap<Cow<'static, str>, u64> {
    let some = times.into_iter().filter(|(_, count)| *count > 0);
    some.map(|(doubt, count)| (doubt.word().into(), count)).collect()
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
