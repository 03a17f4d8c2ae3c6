//! Concerns: the reasons why a destination is not `ok`, by kind and in words ([P7](crate::design::P7)).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Facts;
use crate::ledger::{DestinationView, HeldAudience, Obstacle};
use crate::manual::Place;
use crate::map::Reason;
use crate::membership::Timestamp;
use crate::operate::api::wire::{FailingInfo, instant, said};
use crate::operate::status::{CLOCK_IS_AHEAD, CLOCK_REMEDY, ClockStatus};
use crate::receive::{RefusedPath, SinceChange};

/// How long a rejected event that is not kept remains a concern, at least; it also remains one until
/// another event is accepted.
const NOT_KEPT_FOR: Duration = Duration::from_secs(3600);
/// If a destination has accepted nothing for this long and still ignores events, it is probably
/// misconfigured.
const FRUITLESS_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Most failing audiences that get a concern each; of further ones only the number is told.
const MOST_NAMED: usize = 10;

/// The kinds of concern.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ConcernKind {
    /// The ledger's disk has no space, so no event is accepted.
    NoSpace,
    /// The ledger's database cannot be used, so no event is accepted.
    Database,
    /// A transaction of somebody else in the ledger's database stays open, which makes it slower.
    OldTransaction,
    /// The ledger has recorded arrivals that are now in the future.
    ClockAhead,
    /// The configuration has disabled the destination.
    Disabled,
    /// An operator has paused the delivery.
    Paused,
    /// The destination is held: nothing is taken until somebody fixes the fault.
    Held,
    /// The guard holds an audience: too many members changed at once.
    Guard,
    /// Calls of an audience are not taken.
    AudienceFailing,
    /// Members have waited longer than they should.
    Late,
    /// Requests that look like Segment's were refused.
    Refused,
    /// Events could not be applied and are kept.
    Rejected,
    /// Events could not be applied and are not kept.
    NotKept,
    /// LaunchDarkly refuses members.
    Parked,
    /// Events arrive, but every one is ignored.
    OnlyIgnored,
    /// Events arrive, but none can be applied.
    OnlyRejected,
}

impl ConcernKind {
    /// Every kind, so that metrics can show zeros.
    pub const ALL: [Self; 16] = [
        Self::NoSpace,
        Self::Database,
        Self::OldTransaction,
        Self::ClockAhead,
        Self::Disabled,
        Self::Paused,
        Self::Held,
        Self::Guard,
        Self::AudienceFailing,
        Self::Late,
        Self::Refused,
        Self::Rejected,
        Self::NotKept,
        Self::Parked,
        Self::OnlyIgnored,
        Self::OnlyRejected,
    ];

    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NoSpace => "no_space",
            Self::Database => "database",
            Self::OldTransaction => "old_transaction",
            Self::ClockAhead => "clock_ahead",
            Self::Disabled => "disabled",
            Self::Paused => "paused",
            Self::Held => "held",
            Self::Guard => "guard",
            Self::AudienceFailing => "audience_failing",
            Self::Late => "late",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
            Self::NotKept => "not_kept",
            Self::Parked => "parked",
            Self::OnlyIgnored => "only_ignored",
            Self::OnlyRejected => "only_rejected",
        }
    }

    /// The place in the manual that says what to do about it.
    #[must_use]
    pub fn manual(self) -> Place {
        let anchor = match self {
            Self::NoSpace => "the-disk-fills",
            Self::Database => "the-database-cannot-be-used",
            Self::OldTransaction => "a-transaction-stays-open",
            Self::ClockAhead => "the-clock-of-the-ledger-is-ahead",
            Self::Disabled | Self::Paused => "the-delivery-is-paused",
            Self::Held => "the-state-is-held",
            Self::Guard => "the-guard-holds-an-audience",
            Self::AudienceFailing => "one-audience-fails",
            Self::Late => "the-state-is-behind",
            Self::Refused => "requests-are-refused",
            Self::Rejected | Self::NotKept => "events-are-rejected",
            Self::Parked => "members-are-parked",
            Self::OnlyIgnored | Self::OnlyRejected => "events-come-and-no-segment-appears",
        };
        Place::new("troubleshooting", anchor)
    }
}

/// One reason why a destination is not `ok`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concern {
    /// Its kind.
    pub kind: ConcernKind,
    /// The number of requests, events, members or audiences concerned.
    pub count: u64,
    /// Since when, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// What is wrong, in a sentence.
    pub why: String,
    /// What to do about it, in a sentence.
    pub remedy: String,
    /// Where the manual says more, as a path on the admin listener.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub manual: String,
}

/// The total count of each kind.
pub fn counts(concerns: &[Concern]) -> BTreeMap<ConcernKind, u64> {
    let mut counts: BTreeMap<_, _> = ConcernKind::ALL.into_iter().map(|kind| (kind, 0)).collect();
    for concern in concerns {
        *counts.entry(concern.kind).or_default() += concern.count;
    }
    counts
}

/// A remark on counts that were taken over from a process that was killed.
fn noted(at: Option<Timestamp>) -> String {
    at.map_or_else(String::new, |at| {
        format!(
            " (as saved at {}; an earlier process was killed, and what it counted in its last \
             minute is unknown)",
            instant(at)
        )
    })
}

impl Facts<'_> {
    /// Concerns about the ledger, which apply to every destination.
    pub(super) fn of_ledger(
        &self,
        add: &mut impl FnMut(ConcernKind, u64, Option<Timestamp>, String, String),
    ) {
        if let Some(obstacle) = self.obstacle {
            let (kind, cause, remedy) = match obstacle {
                Obstacle::NoSpace => (
                    ConcernKind::NoSpace,
                    obstacle.words(),
                    "free space on the disk of ledger.path, or make it larger: cohortd goes on by itself",
                ),
                Obstacle::Database(cause) => (
                    ConcernKind::Database,
                    cause.as_str(),
                    "let the database do that again: cohortd goes on by itself",
                ),
            };
            let why = format!(
                "{cause}: events are answered 503, which Segment retries for four hours, and the outcome of \
                 deliveries cannot be recorded"
            );
            add(kind, 1, None, why, remedy.to_owned());
        } else if let Some(cause) = self.unread {
            let why = format!(
                "{cause}: how many members there are and wait cannot be read, and what is said of them is of before; \
                 nothing else is known to have failed"
            );
            let remedy = "let the database answer that again: the status shows it by itself";
            add(ConcernKind::Database, 1, None, why, remedy.to_owned());
        }
        if let Some(burden) = self.burden {
            let (why, remedy) = (burden.why.clone(), burden.remedy.clone());
            add(ConcernKind::OldTransaction, 1, Some(burden.since), why, remedy);
        }
        if let Some(clock) = ClockStatus::of(self.clock_ahead) {
            let why =
                format!("the clock is wrong by {} s: {CLOCK_IS_AHEAD}", clock.ahead_ms / 1000);
            add(ConcernKind::ClockAhead, 1, None, why, CLOCK_REMEDY.to_owned());
        }
    }

    pub(super) fn stopped(
        &self,
        add: &mut impl FnMut(ConcernKind, u64, Option<Timestamp>, String, String),
    ) {
        let name = self.name;
        if let Some(held) = self.held {
            let words = said(Some(held.status), &held.code, &held.message, &held.answer_id);
            let why = format!("{}{words}", held.reason());
            add(ConcernKind::Held, 1, Some(held.since), why, held.remedy.to_owned());
        }
        if self.is_disabled {
            let why = "the configuration says enabled = false: events are answered 503, which \
                       Segment retries for four hours, and nothing is delivered";
            let remedy = format!(
                "set destinations.{name}.enabled = true and reload, or remove the destination in \
                 Segment"
            );
            add(ConcernKind::Disabled, 1, None, why.to_owned(), remedy);
        }
        if let Some(since) = self.paused_since {
            let why = "an operator has paused delivery; events are kept".to_owned();
            let remedy = format!("cohortd resume {name} resumes it");
            add(ConcernKind::Paused, 1, Some(since), why, remedy);
        }
    }

    pub(super) fn guarded(
        &self,
        add: &mut impl FnMut(ConcernKind, u64, Option<Timestamp>, String, String),
    ) {
        let name = self.name;
        for of in self.guarded.iter().take(MOST_NAMED) {
            let HeldAudience { audience, members, left, entered, usual, window_since, .. } = of;
            let why = format!(
                "the guard holds audience {audience}: of {members} members {left} left and {entered} \
                 entered since {}; usually at most {usual} leave in that time; events are kept, and \
                 LaunchDarkly is told nothing more of it",
                instant(*window_since)
            );
            let remedy = if of.is_discarding {
                "those who left are being entered again; it is released after that".to_owned()
            } else {
                format!(
                    "if that is right, cohortd guard release {name} {audience}; if not, stop its cause \
                     and cohortd guard discard {name} {audience} enters those who left again"
                )
            };
            add(ConcernKind::Guard, 1, Some(of.since), why, remedy);
        }
        let others = self.guarded.len().saturating_sub(MOST_NAMED) as u64;
        if others > 0 {
            let why = format!("the guard holds {others} more audiences");
            let remedy = format!("cohortd guard list {name} shows each");
            add(ConcernKind::Guard, others, None, why, remedy);
        }
    }

    pub(super) fn failing(
        &self,
        add: &mut impl FnMut(ConcernKind, u64, Option<Timestamp>, String, String),
    ) {
        let of_some: Vec<_> = self.failing.iter().filter(|of| self.is_told_of(of)).collect();
        for of in of_some.iter().take(MOST_NAMED) {
            let (info, failures) = (FailingInfo::from(*of), of.failures);
            let times = if failures == 1 { "time" } else { "times" };
            let between =
                if of.is_partly_taken { "among calls that succeeded" } else { "in a row" };
            let (audience, sentence) = (&info.audience, info.sentence());
            let why = format!("audience {audience}: {sentence}, {failures} {times} {between}");
            add(ConcernKind::AudienceFailing, 1, Some(of.since), why, of.remedy.to_owned());
        }
        let others = of_some.len().saturating_sub(MOST_NAMED) as u64 + self.other_failing;
        if others > 0 {
            let why = format!("{others} more audiences are failing");
            let remedy = format!("cohortd audiences {} shows each with its cause", self.name);
            add(ConcernKind::AudienceFailing, others, None, why, remedy);
        }
    }

    pub(super) fn refused(
        &self,
        add: &mut impl FnMut(ConcernKind, u64, Option<Timestamp>, String, String),
    ) {
        for of in self.refused.iter().filter(|of| of.needs_attention) {
            let RefusedPath { path, count, why, remedy, first_at, noted_at, .. } = of;
            let requests =
                if *count == 1 { "request was refused" } else { "requests were refused" };
            let why = match of.reason {
                "bad_proxy_header" if *count == 1 => format!("1 connection was refused: {why}"),
                "bad_proxy_header" => format!("{count} connections were refused: {why}"),
                _ => format!("{count} {requests} at {path}: {why}"),
            } + &noted(*noted_at);
            add(ConcernKind::Refused, *count, Some(*first_at), why, remedy.clone());
        }
    }

    pub(super) fn kept(
        &self,
        add: &mut impl FnMut(ConcernKind, u64, Option<Timestamp>, String, String),
    ) {
        let name = self.name;
        let Some(view) = self.view else { return };
        let DestinationView { parked, parked_since, rejected, rejected_since, .. } = *view;
        if rejected > 0 {
            let events = if rejected == 1 { "event" } else { "events" };
            let why = format!("{rejected} {events} could not be applied: rejected and kept");
            let remedy = format!(
                "cohortd rejected list {name} says why; fix the mapping, then cohortd rejected \
                 replay {name}"
            );
            add(ConcernKind::Rejected, rejected, rejected_since, why, remedy);
        }
        if parked > 0 {
            let members = if parked == 1 { "member" } else { "members" };
            let why = format!("LaunchDarkly refused {parked} {members} individually: parked");
            let remedy = format!(
                "cohortd parked list {name} shows them with LaunchDarkly's messages; fix the \
                 cause, then cohortd parked requeue {name}"
            );
            add(ConcernKind::Parked, parked, parked_since, why, remedy);
        }
    }

    /// Events arrive, but none of them changes a membership.
    pub(super) fn fruitless(
        &self,
        add: &mut impl FnMut(ConcernKind, u64, Option<Timestamp>, String, String),
    ) {
        let SinceChange { accepted, ignored, rejected, unkept, noted_at, .. } = self.since_change;
        let name = self.name;
        let lately = |at: Timestamp, how_long| self.now < at.after(how_long);
        let taken_at = self.since_change.last_accepted_at;
        let begun_at =
            self.since_change.begun_at.map_or_else(String::new, |at| format!(" ({})", instant(at)));
        let since_when = format!("since this mapping took effect{begun_at}{}", noted(noted_at));
        let is_taken = taken_at.is_some_and(|at| lately(at, FRUITLESS_AFTER));
        let is_ignoring =
            self.since_change.last_ignored_at.is_some_and(|at| lately(at, FRUITLESS_AFTER));
        if ignored > 0 && (accepted == 0 || is_ignoring && !is_taken) {
            let when = if accepted == 0 { &since_when } else { "for a day" };
            let why = format!(
                "no event was accepted {when}, and no subscription selects the events that came: \
                 {ignored} ignored"
            );
            let remedy = format!(
                "compare the ignored events with destinations.{name}.mapping.subscribe, or send \
                 this destination audience events: cohortd explain {name} shows what happens to \
                 one"
            );
            let since = if accepted == 0 { self.since_change.first_ignored_at } else { taken_at };
            add(ConcernKind::OnlyIgnored, ignored, since, why, remedy);
        }
        if accepted == 0 && rejected > 0 {
            let why = format!("no event could be applied {since_when}: {rejected} rejected");
            let remedy = format!(
                "the answers in Segment's Event Delivery view say why; cohortd explain {name} shows what \
                 happens to an event"
            );
            let since = self.since_change.first_rejected_at;
            add(ConcernKind::OnlyRejected, rejected, since, why, remedy);
        }
        if let Some((first, last)) = self.since_change.unkept_at
            && accepted > 0
            && (lately(last, NOT_KEPT_FOR) || taken_at.is_some_and(|at| at < last))
        {
            let events = if unkept == 1 { "event" } else { "events" };
            let reason = self.since_change.unkept_reason.map_or("", Reason::as_str);
            let why = format!(
                "{unkept} {events} could not be applied and are not kept {since_when}, the last at {}: \
                 {reason}",
                instant(last)
            );
            let remedy = format!(
                "the answers in Segment's Event Delivery view say why; cohortd explain {name} shows what happens to \
                 an event; let Segment send whole audience events only, or narrow destinations.{name}.mapping.subscribe"
            );
            add(ConcernKind::NotKept, unkept, Some(first), why, remedy);
        }
    }
}
