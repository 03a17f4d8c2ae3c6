//! The verdict on a destination: one word, since when, and every reason why it is not `ok`, each with what
//! to do about it. The command line, `/status`, metrics and the dashboard say nothing else (P7).
//!
//! # What always holds
//! * `ok` means that LaunchDarkly has been told, or is being told in time, everything that Segment has sent, and
//!   that nothing was refused, rejected, parked or merely ignored (tests/it/verdict.rs).
//! * Pure: the same facts give the same verdict (P9). Nothing in it is personal (P8).
//! # What does not
//! What was refused and ignored is remembered by the process: a restart forgets it until it happens again.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::api::wire::instant;
use crate::deliver::{FailingAudience, Held, Latest};
use crate::ledger::DestinationView;
use crate::membership::Timestamp;
use crate::receive::{RefusedPath, SinceChange};

/// A member that has waited for longer makes its destination `behind`.
pub const BEHIND_AFTER: Duration = Duration::from_secs(300);
/// So many calls of an audience in a row that were not taken are no accident.
const FAILURES_IN_A_ROW: u64 = 3;
/// Failing audiences that are named one by one; of more, their number is told.
const MOST_NAMED: usize = 10;

/// How a destination stands. The words are the same everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum DestinationState {
    /// No event has ever been accepted.
    #[serde(rename = "waiting for the first event")]
    Waiting,
    /// LaunchDarkly has been told, or is being told in time, all that Segment has sent.
    #[serde(rename = "ok")]
    Ok,
    /// It is delivered to, but somebody should look: something is rejected, parked, refused or only ignored.
    #[serde(rename = "attention")]
    Attention,
    /// Members have waited for longer than they should, and calls are being taken.
    #[serde(rename = "catching up")]
    CatchingUp,
    /// Members have waited for more than [`BEHIND_AFTER`], or calls are not taken.
    #[serde(rename = "behind")]
    Behind,
    /// An operator has stopped its delivery; events are kept.
    #[serde(rename = "paused")]
    Paused,
    /// Events are kept, and LaunchDarkly is probed until what is wrong is mended.
    #[serde(rename = "held")]
    Held,
}

impl DestinationState {
    /// Every state, from the best to the worst, for metrics that show zeros.
    pub const ALL: [Self; 7] = [
        Self::Waiting,
        Self::Ok,
        Self::Attention,
        Self::CatchingUp,
        Self::Behind,
        Self::Paused,
        Self::Held,
    ];

    /// The word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting for the first event",
            Self::Ok => "ok",
            Self::Attention => "attention",
            Self::CatchingUp => "catching up",
            Self::Behind => "behind",
            Self::Paused => "paused",
            Self::Held => "held",
        }
    }

    /// Whether scripts should hear of it (exit code 75).
    #[must_use]
    pub fn is_trouble(self) -> bool {
        matches!(self, Self::Behind | Self::Held)
    }
}

/// What kind of thing is not as it should be.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ConcernKind {
    /// An operator has stopped the delivery.
    Paused,
    /// Nothing is taken until somebody mends what is wrong.
    Held,
    /// The calls of an audience are not taken.
    AudienceFailing,
    /// Members have waited for longer than they should.
    Late,
    /// Requests that look like Segment's were refused.
    Refused,
    /// Events could not be applied and are kept.
    Rejected,
    /// LaunchDarkly refuses members.
    Parked,
    /// Events come, and every one is ignored.
    OnlyIgnored,
    /// Events come, and none can be applied.
    OnlyRejected,
}

impl ConcernKind {
    /// Every kind, for metrics that show zeros.
    pub const ALL: [Self; 9] = [
        Self::Paused,
        Self::Held,
        Self::AudienceFailing,
        Self::Late,
        Self::Refused,
        Self::Rejected,
        Self::Parked,
        Self::OnlyIgnored,
        Self::OnlyRejected,
    ];

    /// The word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Held => "held",
            Self::AudienceFailing => "audience_failing",
            Self::Late => "late",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
            Self::Parked => "parked",
            Self::OnlyIgnored => "only_ignored",
            Self::OnlyRejected => "only_rejected",
        }
    }
}

/// One reason why a destination is not `ok`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concern {
    /// What kind of thing it is.
    pub kind: ConcernKind,
    /// How many of them there are: requests, events, members or audiences.
    pub count: u64,
    /// Since when, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// What is the matter, in a sentence.
    pub why: String,
    /// What to do about it, in a sentence.
    pub remedy: String,
}

/// What is known of a destination.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub name: &'a str,
    pub now: Timestamp,
    /// When the daemon started.
    pub started_at: Timestamp,
    /// Not there as long as the ledger has no rows of it.
    pub view: Option<&'a DestinationView>,
    pub held: Option<&'a Held>,
    pub paused_since: Option<Timestamp>,
    pub latest: &'a Latest,
    pub failing: &'a [FailingAudience],
    /// Failing audiences beyond those.
    pub other_failing: u64,
    /// Of the paths that lead here.
    pub refused: &'a [RefusedPath],
    pub since_change: SinceChange,
    /// Events accepted since the start.
    pub accepted: u64,
}

/// The verdict.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub state: DestinationState,
    pub since: Option<Timestamp>,
    /// The worst first; empty if all is well.
    pub concerns: Vec<Concern>,
}

impl Verdict {
    pub fn of(facts: &Facts<'_>) -> Self {
        let waits = Waits::of(facts);
        let mut found: Vec<(Option<Timestamp>, Concern)> = Vec::new();
        let mut add = |kind, count, since: Option<Timestamp>, why, remedy| {
            found.push((since, Concern { kind, count, since: since.map(instant), why, remedy }));
        };
        facts.stopped(&mut add);
        // while nothing is sent, whoever waits does so for that reason
        let is_stopped = facts.paused_since.is_some() || facts.held.is_some();
        if !is_stopped {
            facts.failing(&mut add);
        }
        if !is_stopped && waits.is_late() {
            let (why, remedy) = waits.words(facts.pending());
            add(ConcernKind::Late, facts.pending(), waits.since, why, remedy);
        }
        facts.refused(&mut add);
        facts.kept(&mut add);
        facts.fruitless(&mut add);
        let state = facts.state(&waits, |kind| found.iter().any(|(_, of)| of.kind == kind));
        let first = |kinds: &[ConcernKind]| {
            let of_kind = found.iter().filter(|(_, concern)| kinds.contains(&concern.kind));
            of_kind.filter_map(|(since, _)| *since).min()
        };
        let since = match state {
            DestinationState::Waiting => Some(facts.started_at),
            DestinationState::Ok => facts.latest.well_since,
            DestinationState::Paused => first(&[ConcernKind::Paused]),
            DestinationState::Held => first(&[ConcernKind::Held]),
            DestinationState::Behind => first(&[ConcernKind::AudienceFailing, ConcernKind::Late]),
            DestinationState::CatchingUp => first(&[ConcernKind::Late]),
            DestinationState::Attention => first(&ConcernKind::ALL),
        };
        Self { state, since, concerns: found.into_iter().map(|(_, concern)| concern).collect() }
    }
}

/// How long the longest pending member has waited, and what that means.
struct Waits {
    since: Option<Timestamp>,
    waited: Duration,
    late_after: Duration,
    /// An audience has been failing for so long that its members are late.
    is_stuck: bool,
}

impl Waits {
    fn of(facts: &Facts<'_>) -> Self {
        let since = facts.view.and_then(|view| view.pending_since);
        let waited = since.map(|since| facts.now.since(since)).unwrap_or_default();
        let late_after = facts.latest.late_after;
        let is_stuck = |of: &FailingAudience| {
            of.failures >= FAILURES_IN_A_ROW && facts.now.since(of.since) > late_after
        };
        Self { since, waited, late_after, is_stuck: facts.failing.iter().any(is_stuck) }
    }

    fn is_late(&self) -> bool {
        !self.late_after.is_zero() && self.waited > self.late_after
    }

    fn words(&self, pending: u64) -> (String, String) {
        let members = if pending == 1 { "member waits" } else { "members wait" };
        let seconds = self.waited.as_secs();
        let why = format!("{pending} {members} to be told, the longest for {seconds} s");
        let remedy =
            "nothing is lost, and it goes on by itself; if it does not get less, compare the rate \
                      limits here with delivery.concurrency and delivery.max_batch"
                .to_owned();
        (why, remedy)
    }
}

impl Facts<'_> {
    fn pending(&self) -> u64 {
        self.view.map_or(0, |view| view.pending)
    }

    /// The first that applies.
    fn state(&self, waits: &Waits, wrong: impl Fn(ConcernKind) -> bool) -> DestinationState {
        if self.paused_since.is_some() {
            DestinationState::Paused
        } else if self.held.is_some() {
            DestinationState::Held
        } else if waits.is_stuck || waits.waited > BEHIND_AFTER {
            DestinationState::Behind
        } else if ConcernKind::ALL.into_iter().any(|kind| kind != ConcernKind::Late && wrong(kind))
        {
            DestinationState::Attention
        } else if waits.is_late() {
            DestinationState::CatchingUp
        } else if self.is_untouched() {
            DestinationState::Waiting
        } else {
            DestinationState::Ok
        }
    }

    /// Nothing was ever accepted, as far as ledger and process know.
    pub fn is_untouched(&self) -> bool {
        self.accepted == 0 && self.view.is_none_or(|view| view.audiences == 0)
    }

    fn stopped(&self, add: &mut impl FnMut(ConcernKind, u64, Option<Timestamp>, String, String)) {
        let name = self.name;
        if let Some(since) = self.paused_since {
            let why = "an operator has paused the delivery; events are kept".to_owned();
            let remedy = format!("cohortd resume {name} lets it go on");
            add(ConcernKind::Paused, 1, Some(since), why, remedy);
        }
        if let Some(held) = self.held {
            let words = words(Some(held.status), &held.code, &held.message, &held.answer_id);
            let why = format!("{}{words}", held.why);
            add(ConcernKind::Held, 1, Some(held.since), why, held.remedy.to_owned());
        }
    }

    fn failing(&self, add: &mut impl FnMut(ConcernKind, u64, Option<Timestamp>, String, String)) {
        let of_some: Vec<_> =
            self.failing.iter().filter(|of| of.failures >= FAILURES_IN_A_ROW).collect();
        for of in of_some.iter().take(MOST_NAMED) {
            let words = words(of.status, &of.code, &of.message, &of.answer_id);
            let cause = if of.cause.is_empty() { String::new() } else { format!(": {}", of.cause) };
            let (audience, failures) = (of.audience.as_str(), of.failures);
            let why =
                format!("audience {audience}: {}{cause}{words}, {failures} times in a row", of.why);
            add(ConcernKind::AudienceFailing, 1, Some(of.since), why, of.remedy.to_owned());
        }
        let others = of_some.len().saturating_sub(MOST_NAMED) as u64 + self.other_failing;
        if others > 0 {
            let why = format!("{others} more audiences are not taken");
            let remedy = format!("cohortd audiences {} shows each with its cause", self.name);
            add(ConcernKind::AudienceFailing, others, None, why, remedy);
        }
    }

    fn refused(&self, add: &mut impl FnMut(ConcernKind, u64, Option<Timestamp>, String, String)) {
        for of in self.refused.iter().filter(|of| of.needs_attention) {
            let RefusedPath { path, count, why, remedy, first_at, .. } = of;
            let requests =
                if *count == 1 { "request was refused" } else { "requests were refused" };
            let why = format!("{count} {requests} at {path}: {why}");
            add(ConcernKind::Refused, *count, Some(*first_at), why, remedy.clone());
        }
    }

    fn kept(&self, add: &mut impl FnMut(ConcernKind, u64, Option<Timestamp>, String, String)) {
        let name = self.name;
        let (parked, rejected) = self.view.map_or((0, 0), |view| (view.parked, view.rejected));
        if rejected > 0 {
            let events = if rejected == 1 { "event" } else { "events" };
            let why = format!("{rejected} {events} could not be applied, rejected and kept");
            let remedy = format!(
                "cohortd rejected list {name} says why; mend the mapping, then cohortd rejected replay {name}"
            );
            let since = self.since_change.first_rejected_at;
            add(ConcernKind::Rejected, rejected, since, why, remedy);
        }
        if parked > 0 {
            let members = if parked == 1 { "member" } else { "members" };
            let why = format!("LaunchDarkly refuses {parked} {members}, each alone: parked");
            let remedy = format!(
                "cohortd parked list {name} shows whom and its words; mend it, then cohortd parked requeue {name}"
            );
            add(ConcernKind::Parked, parked, None, why, remedy);
        }
    }

    /// Events come and none is of any use.
    fn fruitless(&self, add: &mut impl FnMut(ConcernKind, u64, Option<Timestamp>, String, String)) {
        let SinceChange { accepted, ignored, rejected, .. } = self.since_change;
        let name = self.name;
        let lately = if self.since_change.changed_at.is_some() {
            "since the mapping changed"
        } else {
            "since the start"
        };
        if accepted == 0 && ignored > 0 {
            let why = format!(
                "no event was accepted {lately}, and no subscription selects those that came: {ignored} ignored"
            );
            let remedy = format!(
                "compare what was ignored with destinations.{name}.mapping.subscribe, or send this \
                 destination audience events: cohortd explain {name} shows what happens to one"
            );
            let since = self.since_change.first_ignored_at;
            add(ConcernKind::OnlyIgnored, ignored, since, why, remedy);
        }
        if accepted == 0 && rejected > 0 {
            let why = format!("no event could be applied {lately}: {rejected} rejected");
            let remedy = format!(
                "the answers in Segment's Event Delivery view say why; cohortd explain {name} shows what \
                 happens to an event"
            );
            let since = self.since_change.first_rejected_at;
            add(ConcernKind::OnlyRejected, rejected, since, why, remedy);
        }
    }
}

/// What LaunchDarkly said, in brackets.
fn words(status: Option<u16>, code: &str, message: &str, id: &str) -> String {
    let mut said: Vec<String> =
        status.map(|status| format!("status {status}")).into_iter().collect();
    if !code.is_empty() {
        said.push(code.to_owned());
    }
    if !message.is_empty() {
        said.push(format!("\u{201c}{message}\u{201d}"));
    }
    if !id.is_empty() {
        said.push(format!("LaunchDarkly's id {id}"));
    }
    if said.is_empty() { String::new() } else { format!(" ({})", said.join(", ")) }
}

/// How many there are of each kind.
pub(super) fn counts(concerns: &[Concern]) -> BTreeMap<ConcernKind, u64> {
    let mut counts: BTreeMap<_, _> = ConcernKind::ALL.into_iter().map(|kind| (kind, 0)).collect();
    for concern in concerns {
        *counts.entry(concern.kind).or_default() += concern.count;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::{AudienceId, DestinationName};

    const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

    fn ago(seconds: u64) -> Timestamp {
        NOW.before(Duration::from_secs(seconds))
    }

    fn held() -> Held {
        Held {
            since: ago(60),
            status: 401,
            what: "token_refused",
            why: "the token",
            remedy: "make a new one",
            code: "unauthorized".to_owned(),
            message: String::new(),
            answer_id: "answer-7".to_owned(),
        }
    }

    fn failing(failures: u64, since: u64) -> FailingAudience {
        FailingAudience {
            audience: AudienceId::new("aud_1").expect("not empty"),
            since: ago(since),
            failures,
            what: "conflict",
            status: Some(409),
            code: "key_exists".to_owned(),
            message: "it is there".to_owned(),
            answer_id: String::new(),
            cause: String::new(),
            why: "it lasts",
            remedy: "rename it",
            next_attempt_at: NOW,
        }
    }

    fn refused(needs_attention: bool) -> RefusedPath {
        RefusedPath {
            path: "/segment/eu".to_owned(),
            destinations: vec![DestinationName::new("eu").expect("a name")],
            reason: "unauthenticated",
            credential: "signature",
            count: 40,
            first_at: ago(90),
            last_at: ago(1),
            why: "the signature is wrong".to_owned(),
            remedy: "compare the secrets".to_owned(),
            needs_attention,
        }
    }

    /// What differs from a destination that is well.
    #[derive(Default)]
    struct Odd {
        untouched: bool,
        held: bool,
        paused: bool,
        pending_for: Option<u64>,
        failing: Option<(u64, u64)>,
        refused: Option<bool>,
        parked: u64,
        rejected: u64,
        since_change: [u64; 3],
    }

    fn verdict(odd: &Odd) -> Verdict {
        let view = DestinationView {
            name: "eu".to_owned(),
            configured: true,
            paused_since: None,
            audiences: u64::from(!odd.untouched),
            included: 1,
            pending: u64::from(odd.pending_for.is_some()),
            unvisited: 0,
            pending_since: odd.pending_for.map(ago),
            parked: odd.parked,
            rejected: odd.rejected,
        };
        let latest = Latest {
            well_since: Some(ago(500)),
            late_after: Duration::from_secs(10),
            ..Latest::default()
        };
        let held = odd.held.then(held);
        let failing: Vec<_> =
            odd.failing.map(|(count, since)| failing(count, since)).into_iter().collect();
        let refused: Vec<_> = odd.refused.map(refused).into_iter().collect();
        let [accepted, ignored, rejected] = odd.since_change;
        Verdict::of(&Facts {
            name: "eu",
            now: NOW,
            started_at: ago(1000),
            view: Some(&view),
            held: held.as_ref(),
            paused_since: odd.paused.then(|| ago(30)),
            latest: &latest,
            failing: &failing,
            other_failing: 0,
            refused: &refused,
            since_change: SinceChange { accepted, ignored, rejected, ..SinceChange::default() },
            accepted,
        })
    }

    type Row = (&'static str, fn(&mut Odd), DestinationState, Option<u64>, &'static [ConcernKind]);

    /// The case, what is odd, the state, its seconds, what it is for.
    const TABLE: [Row; 19] = {
        use ConcernKind as Is;
        use DestinationState::{Attention, Behind, CatchingUp, Held, Ok, Paused, Waiting};
        [
            ("nothing waits", |_| {}, Ok, Some(500), &[]),
            ("never an event", |odd| odd.untouched = true, Waiting, Some(1000), &[]),
            (
                "it waits no longer than it may",
                |odd| odd.pending_for = Some(10),
                Ok,
                Some(500),
                &[],
            ),
            (
                "it waits longer",
                |odd| odd.pending_for = Some(11),
                CatchingUp,
                Some(11),
                &[Is::Late],
            ),
            ("for minutes", |odd| odd.pending_for = Some(301), Behind, Some(301), &[Is::Late]),
            (
                "a failure is an accident",
                |odd| {
                    odd.failing = Some((2, 11));
                    odd.pending_for = Some(9);
                },
                Ok,
                Some(500),
                &[],
            ),
            (
                "three are none",
                |odd| {
                    odd.failing = Some((3, 5));
                    odd.pending_for = Some(9);
                },
                Attention,
                Some(5),
                &[Is::AudienceFailing],
            ),
            (
                "it is not catching up",
                |odd| {
                    odd.failing = Some((3, 11));
                    odd.pending_for = Some(11);
                },
                Behind,
                Some(11),
                &[Is::AudienceFailing, Is::Late],
            ),
            (
                "held",
                |odd| {
                    odd.held = true;
                    odd.pending_for = Some(99);
                },
                Held,
                Some(60),
                &[Is::Held],
            ),
            (
                "paused, and held",
                |odd| {
                    odd.held = true;
                    odd.paused = true;
                },
                Paused,
                Some(30),
                &[Is::Paused, Is::Held],
            ),
            ("refused", |odd| odd.refused = Some(true), Attention, Some(90), &[Is::Refused]),
            (
                "refused before the first event",
                |odd| {
                    odd.refused = Some(true);
                    odd.untouched = true;
                },
                Attention,
                Some(90),
                &[Is::Refused],
            ),
            ("refused long ago", |odd| odd.refused = Some(false), Ok, Some(500), &[]),
            ("parked", |odd| odd.parked = 2, Attention, None, &[Is::Parked]),
            (
                "rejected and late",
                |odd| {
                    odd.rejected = 2;
                    odd.pending_for = Some(11);
                },
                Attention,
                Some(11),
                &[Is::Late, Is::Rejected],
            ),
            (
                "only ignored",
                |odd| odd.since_change = [0, 3, 0],
                Attention,
                None,
                &[Is::OnlyIgnored],
            ),
            (
                "only rejected",
                |odd| odd.since_change = [0, 0, 3],
                Attention,
                None,
                &[Is::OnlyRejected],
            ),
            ("some of each", |odd| odd.since_change = [1, 3, 3], Ok, Some(500), &[]),
            (
                "only ignored, and never an event",
                |odd| {
                    odd.since_change = [0, 3, 0];
                    odd.untouched = true;
                },
                Attention,
                None,
                &[Is::OnlyIgnored],
            ),
        ]
    };

    #[test]
    fn each_state_has_its_own_since_and_every_concern_is_told() {
        for (case, is_odd, state, since, concerns) in TABLE {
            let mut odd = Odd::default();
            is_odd(&mut odd);
            let verdict = verdict(&odd);
            assert_eq!((verdict.state, verdict.since), (state, since.map(ago)), "{case}");
            let kinds: Vec<_> = verdict.concerns.iter().map(|of| of.kind).collect();
            assert_eq!(kinds, concerns, "{case}");
        }
    }

    #[test]
    fn what_launchdarkly_said_is_in_the_sentence() {
        let said = verdict(&Odd { held: true, ..Odd::default() }).concerns;
        let failing = verdict(&Odd { failing: Some((5, 20)), ..Odd::default() }).concerns;
        let why: Vec<_> = said.iter().chain(&failing).map(|of| of.why.as_str()).collect();
        assert_eq!(
            why,
            [
                "the token (status 401, unauthorized, LaunchDarkly's id answer-7)",
                "audience aud_1: it lasts (status 409, key_exists, \u{201c}it is there\u{201d}), 5 times in a row",
            ]
        );
    }

    #[test]
    fn words_are_distinct() {
        let words: std::collections::BTreeSet<_> =
            DestinationState::ALL.map(DestinationState::word).into();
        assert_eq!(words.len(), DestinationState::ALL.len());
        for state in DestinationState::ALL {
            let written = serde_json::to_value(state).expect("a text");
            assert_eq!(written, state.word());
        }
        for kind in ConcernKind::ALL {
            assert_eq!(serde_json::to_value(kind).expect("a text"), kind.word());
        }
    }
}
