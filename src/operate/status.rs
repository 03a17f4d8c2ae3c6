//! How each destination stands, as `/status` tells it and `cohortd status` reads it. Times are RFC 3339,
//! UTC. Nothing in it is personal ([P8](crate::design::P8); tests/it/secrecy.rs).

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

/// Failing audiences that are told of.
const FAILING_SHOWN: usize = 100;
/// Names of ignored events that are told of.
const IGNORED_SHOWN: usize = 20;

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
    /// Destinations that the configuration no longer names, and of which the ledger still has members.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unconfigured: Vec<Unconfigured>,
}

/// A destination that the configuration no longer names.
#[derive(Debug, Serialize, Deserialize)]
pub struct Unconfigured {
    /// Its name.
    pub name: String,
    /// Members that are in an audience.
    pub included: u64,
    /// Members that LaunchDarkly was still to be told.
    pub pending: u64,
    /// What to do about it, in a sentence.
    pub remedy: String,
}

impl Unconfigured {
    /// `None`: it is configured, or nothing of it is left.
    pub(super) fn of(view: &DestinationView) -> Option<Self> {
        let DestinationView { name, configured, included, pending, parked, rejected, .. } = view;
        let is_left = included + pending + parked + rejected > 0;
        (!configured && is_left).then(|| Self {
            name: name.clone(),
            included: *included,
            pending: *pending,
            remedy: format!(
                "configure it again, and what waits is told; or cohortd drop {name} forgets it"
            ),
        })
    }
}

/// The ledger has recorded arrivals that are in the future now.
#[derive(Debug, Serialize, Deserialize)]
pub struct ClockStatus {
    /// How many milliseconds the latest of them is ahead of the clock.
    pub ahead_ms: u64,
    /// What that does, with the remedy.
    pub why: String,
}

impl ClockStatus {
    /// `None`: it is not ahead by so much that it matters.
    #[must_use]
    pub fn of(ahead: Duration) -> Option<Self> {
        let is_trouble = ahead > CLOCK_TOLERANCE;
        let why = || format!("{CLOCK_IS_AHEAD}; {CLOCK_REMEDY}");
        is_trouble.then(|| Self { ahead_ms: whole_millis(ahead), why: why() })
    }
}

/// More than this is trouble. Events may be stamped as far ahead of their arrival, too.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(300);

/// What it means when the recorded arrival is ahead by more than that.
pub const CLOCK_IS_AHEAD: &str = "the ledger has recorded arrivals that are in the future now, because \
    the clock of this machine was ahead once, or is behind: until it gets there, members who leave stay \
    in, people who were deleted cannot return, and nothing that is old is purged";

/// What to do about it.
pub const CLOCK_REMEDY: &str = "set the clock; if it is right, stop cohortd, run cohortd ledger reset-clock, \
    and start it again";

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One destination.
#[derive(Debug, Serialize, Deserialize)]
pub struct DestinationStatus {
    /// The verdict.
    pub state: DestinationState,
    /// Where the manual says more about it, as a path on the admin listener.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub manual: String,
    /// Since when; not there while nobody has looked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Every reason why it is not `ok`, the worst first.
    #[serde(default)]
    pub concerns: Vec<Concern>,
    /// Where Segment is to post to, until a first event has been accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<Entry>,
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
    /// Accepted events since the daemon started that say a time which does not count, by the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub times_doubted: BTreeMap<Cow<'static, str>, u64>,
    /// The paths of Segment's whose requests were refused, until one succeeds there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedStatus>,
    /// Events since the daemon started that no subscription selects.
    #[serde(default)]
    pub ignored: u64,
    /// The most frequent of them, by type and name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored_events: Vec<IgnoredEvents>,
    /// The audiences whose last call was not taken, at most a hundred.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failing_audiences: Vec<FailingInfo>,
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

/// Why a destination is held.
#[derive(Debug, Serialize, Deserialize)]
pub struct HeldStatus {
    /// Since when.
    pub since: String,
    /// The HTTP status that caused it.
    pub status: u16,
    /// In words.
    pub why: Cow<'static, str>,
    /// What to do about it.
    #[serde(default)]
    pub remedy: Cow<'static, str>,
    /// LaunchDarkly's `code`; may be empty.
    #[serde(default)]
    pub code: String,
    /// LaunchDarkly's `message`; empty also where it may quote what was sent.
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
    /// The HTTP status; not there: there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// LaunchDarkly's `code`, or what kept the answer away; may be empty.
    pub cause: String,
    /// LaunchDarkly's `message`; empty also where it may quote what was sent.
    #[serde(default)]
    pub message: String,
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

/// Requests that look like Segment's and were refused, at one path.
#[derive(Debug, Serialize, Deserialize)]
pub struct RefusedStatus {
    /// The path; `-` if it is none that may be shown.
    pub path: String,
    /// The word of the last one.
    pub reason: Cow<'static, str>,
    /// What the last one showed: `none`, `signature`, `bearer`, `basic` or `other`.
    pub credential: Cow<'static, str>,
    /// How many there were since the last success.
    pub count: u64,
    /// When the first of them came.
    pub first_at: String,
    /// When the last of them came.
    pub last_at: String,
    /// What is wrong with the last one.
    pub why: String,
    /// What would mend it.
    pub remedy: String,
    /// Whether somebody has to do something.
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

/// Events that no subscription selects.
#[derive(Debug, Serialize, Deserialize)]
pub struct IgnoredEvents {
    /// Their type and name, or `others`.
    pub name: String,
    /// How many.
    pub count: u64,
}

/// What is known of a destination beside the verdict.
#[derive(Debug)]
pub(super) struct Numbers<'a> {
    pub backlog: &'a [Backlog],
    pub entries: Vec<Entry>,
    pub calls_in_flight: u64,
    pub last_event_at: Option<Timestamp>,
    pub deletions_outlived: u64,
    pub times_doubted: Vec<(Doubt, u64)>,
    pub ignored: u64,
    pub ignored_events: Vec<(String, u64)>,
}

impl DestinationStatus {
    /// From what is known of it.
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
