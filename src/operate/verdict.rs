//! The verdict on a destination: its state in one word, since when, and every reason why it is not
//! `ok`, each with a remedy. The command line, `/status`, metrics and the dashboard all show this
//! verdict ([P7](crate::design::P7)).
//!
//! # What always holds
//! * `ok` means that everything Segment has sent has been delivered to LaunchDarkly, or is being
//!   delivered in time, and that nothing was refused, rejected, parked or merely ignored
//!   (tests/it/verdict.rs).
//! * It is pure: the same facts give the same verdict ([P9](crate::design::P9)). It holds no personal
//!   data ([P8](crate::design::P8)).
//! # What does not
//! Refused requests and fruitless events of the last seconds before a crash are forgotten until they
//! happen again (`note`).

mod announced;
mod concerns;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(super) use announced::Announced;
pub(super) use concerns::counts;
pub use concerns::{Concern, ConcernKind};

use super::api::wire::instant;
use crate::deliver::{FailingAudience, Held, Latest};
use crate::ledger::{Burden, DestinationView, HeldAudience, Obstacle};
use crate::manual::Place;
use crate::membership::Timestamp;
use crate::receive::{RefusedPath, SinceChange};

/// If a member has waited longer than this, its destination is `behind`.
pub const BEHIND_AFTER: Duration = Duration::from_secs(300);
/// From this many failed calls of an audience in a row on, they are no longer taken for an accident.
const FAILURES_IN_A_ROW: u64 = 3;

/// The state of a destination. All outputs use the same words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum DestinationState {
    /// No event has ever been accepted.
    #[serde(rename = "waiting for the first event")]
    Waiting,
    /// Everything that Segment has sent has been delivered, or is being delivered in time.
    #[serde(rename = "ok")]
    Ok,
    /// It is delivered to, but somebody should look: there is a concern other than lateness, such as
    /// parked members or rejected events.
    #[serde(rename = "attention")]
    Attention,
    /// Members have waited longer than they should, but calls are being taken.
    #[serde(rename = "catching up")]
    CatchingUp,
    /// Members have waited longer than [`BEHIND_AFTER`], or calls are not taken.
    #[serde(rename = "behind")]
    Behind,
    /// An operator has paused its delivery, or the configuration has disabled it.
    #[serde(rename = "paused")]
    Paused,
    /// Delivery is held: events are kept, and LaunchDarkly is probed until the fault is fixed. Or the guard holds
    /// an audience.
    #[serde(rename = "held")]
    Held,
}

impl DestinationState {
    /// Every state, from the best to the worst, so that metrics can show zeros.
    pub const ALL: [Self; 7] = [
        Self::Waiting,
        Self::Ok,
        Self::Attention,
        Self::CatchingUp,
        Self::Behind,
        Self::Paused,
        Self::Held,
    ];

    /// Its word.
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

    /// The place in the manual that says what the state means or what to do.
    #[must_use]
    pub fn manual(self) -> Place {
        match self {
            Self::Waiting => Place::new("troubleshooting", "no-event-arrives"),
            Self::Ok | Self::Attention => Place::new("operations", "states"),
            Self::CatchingUp | Self::Behind => Place::new("troubleshooting", "the-state-is-behind"),
            Self::Paused => Place::new("troubleshooting", "the-delivery-is-paused"),
            Self::Held => Place::new("troubleshooting", "the-state-is-held"),
        }
    }

    /// Whether commands report it to scripts by exit code 75.
    #[must_use]
    pub fn is_trouble(self) -> bool {
        matches!(self, Self::Behind | Self::Held)
    }
}

/// The facts about a destination from which its verdict follows.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub name: &'a str,
    pub now: Timestamp,
    /// How far the latest arrival that the ledger has recorded is ahead of the clock.
    pub clock_ahead: Duration,
    /// Why the ledger accepts no events, if it does not.
    pub obstacle: Option<&'a Obstacle>,
    /// Why what the ledger holds cannot be read, if it cannot: what is known of it is of before.
    pub unread: Option<&'a str>,
    /// What makes the ledger slower.
    pub burden: Option<&'a Burden>,
    /// When the daemon started.
    pub started_at: Timestamp,
    /// `None` while the ledger has no rows of it.
    pub view: Option<&'a DestinationView>,
    pub held: Option<&'a Held>,
    /// The audiences that their guards hold.
    pub guarded: &'a [HeldAudience],
    pub paused_since: Option<Timestamp>,
    pub latest: &'a Latest,
    pub failing: &'a [FailingAudience],
    /// The number of failing audiences that are not in `failing`.
    pub other_failing: u64,
    /// Refused requests at the paths that lead to this destination.
    pub refused: &'a [RefusedPath],
    pub since_change: SinceChange,
    /// Whether the configuration has disabled it.
    pub is_disabled: bool,
    /// Whether an event was ever accepted, by this process or an earlier one.
    pub has_accepted: bool,
    /// When the verdict was last seen to be other than `ok`.
    pub not_ok_at: Option<Timestamp>,
}

/// The verdict.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub state: DestinationState,
    pub since: Option<Timestamp>,
    /// The worst first; empty if there is none.
    pub concerns: Vec<Concern>,
}

impl Verdict {
    pub fn of(facts: &Facts<'_>) -> Self {
        let waits = Waits::of(facts);
        let mut found: Vec<(Option<Timestamp>, Concern)> = Vec::new();
        let mut add = |kind: ConcernKind, count, since: Option<Timestamp>, why, remedy| {
            let manual = kind.manual().to_string();
            let at = since.map(instant);
            found.push((since, Concern { kind, count, since: at, why, remedy, manual }));
        };
        facts.of_ledger(&mut add);
        facts.stopped(&mut add);
        // while delivery is stopped, that is why members wait
        facts.guarded(&mut add);
        let is_stopped = facts.is_disabled || facts.paused_since.is_some() || facts.held.is_some();
        if !is_stopped {
            facts.failing(&mut add);
        }
        // nor is it said of those who may wait for an operator
        if !is_stopped && facts.guarded.is_empty() && waits.is_late() {
            let is_failing = facts.failing.iter().any(|of| facts.is_told_of(of));
            let (why, remedy) = waits.words(facts.pending(), is_failing, facts.obstacle);
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
            DestinationState::Ok => facts.latest.well_since.max(facts.not_ok_at),
            DestinationState::Paused => first(&[ConcernKind::Disabled, ConcernKind::Paused]),
            DestinationState::Held => first(&[ConcernKind::Held, ConcernKind::Guard]),
            DestinationState::Behind => first(&[ConcernKind::AudienceFailing, ConcernKind::Late]),
            DestinationState::CatchingUp => first(&[ConcernKind::Late]),
            DestinationState::Attention => first(&ConcernKind::ALL),
        };
        Self { state, since, concerns: found.into_iter().map(|(_, concern)| concern).collect() }
    }
}

/// How long the longest pending member has waited, and whether that is too long.
struct Waits {
    since: Option<Timestamp>,
    waited: Duration,
    late_after: Duration,
    /// Nothing is being delivered: an audience has been failing for longer than `late_after`, or no
    /// call at all was taken in that time. This rules out `catching up`.
    is_stuck: bool,
}

impl Waits {
    fn of(facts: &Facts<'_>) -> Self {
        let since = facts.view.and_then(|view| view.pending_since);
        let waited = since.map(|since| facts.now.since(since)).unwrap_or_default();
        // `late_after` is unknown until the courier has looked once
        let looked = Some(facts.latest.late_after).filter(|late_after| !late_after.is_zero());
        let late_after = looked.unwrap_or(BEHIND_AFTER);
        let is_failing =
            |of: &FailingAudience| !of.is_partly_taken && facts.now.since(of.since) > late_after;
        // whether no call was taken since the longest pending member began to wait, and since the
        // daemon has had time to try
        let tried_since = since.map(|since| since.max(facts.started_at));
        let is_unheard = tried_since.is_some_and(|since| {
            let taken_since = facts.latest.success_at.is_some_and(|at| at >= since);
            !taken_since && facts.now.since(since) > late_after
        });
        let is_stuck = is_unheard || facts.failing.iter().any(is_failing);
        Self { since, waited, late_after, is_stuck }
    }

    fn is_late(&self) -> bool {
        self.waited > self.late_after
    }

    /// `is_failing`: calls of some audience are not taken. That has a remedy of its own, and so has a
    /// full disk.
    fn words(
        &self,
        pending: u64,
        is_failing: bool,
        obstacle: Option<&Obstacle>,
    ) -> (String, String) {
        let members = if pending == 1 { "member waits" } else { "members wait" };
        let seconds = self.waited.as_secs();
        let nothing = if self.is_stuck { "; no call has succeeded meanwhile" } else { "" };
        let nothing = if is_failing { "" } else { nothing };
        let why = format!("{pending} {members} for delivery, the longest for {seconds} s{nothing}");
        let remedy = if let Some(obstacle) = obstacle {
            match obstacle {
                Obstacle::NoSpace => {
                    "nothing is lost: delivery continues when the ledger's disk has space"
                }
                Obstacle::Database(_) => {
                    "nothing is lost: delivery continues when the ledger's database can be used"
                }
            }
        } else if self.is_stuck && !is_failing {
            "nothing is lost: check whether launchdarkly.base_url can be reached from here and \
             answers, and LaunchDarkly's status page"
        } else if is_failing {
            "nothing is lost: see the failing audiences named here, each with what to do"
        } else {
            "nothing is lost, and delivery continues by itself; if the backlog does not shrink, \
             compare the rate limits here with delivery.concurrency and delivery.max_batch"
        };
        (why, remedy.to_owned())
    }
}

impl Facts<'_> {
    fn pending(&self) -> u64 {
        self.view.map_or(0, |view| view.pending)
    }

    /// The first state whose condition applies.
    fn state(&self, waits: &Waits, wrong: impl Fn(ConcernKind) -> bool) -> DestinationState {
        if self.held.is_some() {
            DestinationState::Held
        } else if self.is_disabled || self.paused_since.is_some() {
            DestinationState::Paused
        } else if !self.guarded.is_empty() {
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

    /// Whether an audience has failed often enough or long enough to be reported.
    fn is_told_of(&self, of: &FailingAudience) -> bool {
        let late_after = self.latest.late_after;
        let is_long = !late_after.is_zero() && self.now.since(of.since) > late_after;
        of.failures >= FAILURES_IN_A_ROW || is_long
    }

    /// Whether nothing was ever accepted, as far as the ledger and this process know.
    pub fn is_untouched(&self) -> bool {
        !self.has_accepted && self.view.is_none_or(|view| view.audiences == 0)
    }
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
            has_no_probe: false,
        }
    }

    fn guarded() -> HeldAudience {
        HeldAudience {
            audience: "aud_1".to_owned(),
            audience_key: "vip".to_owned(),
            since: ago(40),
            window_since: ago(50),
            members: 2000,
            left: 1001,
            entered: 2,
            usual: 7,
            is_discarding: false,
        }
    }

    fn failing(failures: u64, since: u64) -> FailingAudience {
        FailingAudience {
            audience: AudienceId::new("aud_1").expect("not empty"),
            since: ago(since),
            failures,
            is_partly_taken: false,
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
            noted_at: None,
        }
    }

    /// How a destination differs from a healthy one.
    #[expect(clippy::struct_excessive_bools, reason = "each is a case of its own")]
    struct Odd {
        untouched: bool,
        held: bool,
        /// Audiences that their guards hold.
        guarded: usize,
        paused: bool,
        pending_for: Option<u64>,
        failing: Option<(u64, u64)>,
        refused: Option<bool>,
        parked: u64,
        rejected: u64,
        since_change: [u64; 3],
        /// No call was ever taken.
        silent: bool,
        started: u64,
        not_ok_at: Option<u64>,
        disabled: bool,
        full_disk: bool,
        burdened: bool,
        clock_ahead: u64,
        /// When it began and when it last happened, in seconds before now.
        unkept: Option<(u64, u64)>,
        accepted_at: Option<u64>,
    }

    impl Default for Odd {
        fn default() -> Self {
            Self {
                untouched: false,
                held: false,
                guarded: 0,
                paused: false,
                pending_for: None,
                failing: None,
                refused: None,
                parked: 0,
                rejected: 0,
                since_change: [0; 3],
                silent: false,
                started: 1000,
                not_ok_at: None,
                disabled: false,
                full_disk: false,
                burdened: false,
                clock_ahead: 300,
                unkept: None,
                accepted_at: None,
            }
        }
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
            parked_since: (odd.parked > 0).then(|| ago(70)),
            rejected: odd.rejected,
            rejected_since: (odd.rejected > 0).then(|| ago(80)),
        };
        let latest = Latest {
            well_since: Some(ago(500)),
            success_at: (!odd.silent).then(|| ago(1)),
            late_after: Duration::from_secs(10),
            ..Latest::default()
        };
        let said = || "words".to_owned();
        let burden = odd.burdened.then(|| Burden { why: said(), remedy: said(), since: ago(700) });
        let held = odd.held.then(held);
        let guarded = vec![guarded(); odd.guarded];
        let failing: Vec<_> =
            odd.failing.map(|(count, since)| failing(count, since)).into_iter().collect();
        let refused: Vec<_> = odd.refused.map(refused).into_iter().collect();
        let [accepted, ignored, rejected] = odd.since_change;
        Verdict::of(&Facts {
            name: "eu",
            now: NOW,
            clock_ahead: Duration::from_secs(odd.clock_ahead),
            obstacle: odd.full_disk.then_some(&Obstacle::NoSpace),
            unread: None,
            burden: burden.as_ref(),
            started_at: ago(odd.started),
            view: Some(&view),
            held: held.as_ref(),
            guarded: &guarded,
            paused_since: odd.paused.then(|| ago(30)),
            latest: &latest,
            failing: &failing,
            other_failing: 0,
            refused: &refused,
            since_change: SinceChange {
                accepted,
                ignored,
                rejected,
                unkept: u64::from(odd.unkept.is_some()),
                unkept_at: odd.unkept.map(|(first, last)| (ago(first), ago(last))),
                last_accepted_at: odd.accepted_at.map(ago),
                last_ignored_at: (ignored > 0).then(|| ago(5)),
                ..SinceChange::default()
            },
            is_disabled: odd.disabled,
            has_accepted: accepted > 0,
            not_ok_at: odd.not_ok_at.map(ago),
        })
    }

    type Row = (&'static str, fn(&mut Odd), DestinationState, Option<u64>, &'static [ConcernKind]);

    /// Case, differences, state, its age in seconds, concerns.
    const TABLE: [Row; 38] = {
        use ConcernKind as Is;
        use DestinationState::{Attention, Behind, CatchingUp, Held, Ok, Paused, Waiting};
        [
            ("nothing waits", |_| {}, Ok, Some(500), &[]),
            ("a guard", |odd| odd.guarded = 1, Held, Some(40), &[Is::Guard]),
            ("twelve guards", |odd| odd.guarded = 12, Held, Some(40), &[Is::Guard; 11]),
            (
                "a guard, and members wait",
                |odd| (odd.guarded, odd.pending_for) = (1, Some(4000)),
                Held,
                Some(40),
                &[Is::Guard],
            ),
            (
                "paused, with a guard",
                |odd| (odd.guarded, odd.paused) = (1, true),
                Paused,
                Some(30),
                &[Is::Paused, Is::Guard],
            ),
            ("a full disk", |odd| odd.full_disk = true, Attention, None, &[Is::NoSpace]),
            (
                "a transaction that stays open",
                |odd| odd.burdened = true,
                Attention,
                Some(700),
                &[Is::OldTransaction],
            ),
            ("the clock", |odd| odd.clock_ahead = 301, Attention, None, &[Is::ClockAhead]),
            (
                "a full disk, and late",
                |odd| (odd.full_disk, odd.pending_for) = (true, Some(11)),
                Attention,
                Some(11),
                &[Is::NoSpace, Is::Late],
            ),
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
                    odd.failing = Some((2, 9));
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
                "one that lasts is none either",
                |odd| {
                    odd.failing = Some((1, 11));
                    odd.pending_for = Some(12);
                },
                Behind,
                Some(12),
                &[Is::AudienceFailing, Is::Late],
            ),
            (
                "nothing is answered",
                |odd| {
                    odd.silent = true;
                    odd.pending_for = Some(11);
                },
                Behind,
                Some(11),
                &[Is::Late],
            ),
            (
                "it has only just started",
                |odd| {
                    odd.silent = true;
                    odd.started = 10;
                    odd.pending_for = Some(99);
                },
                CatchingUp,
                Some(99),
                &[Is::Late],
            ),
            ("it was not well", |odd| odd.not_ok_at = Some(30), Ok, Some(30), &[]),
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
                Held,
                Some(60),
                &[Is::Held, Is::Paused],
            ),
            ("paused", |odd| odd.paused = true, Paused, Some(30), &[Is::Paused]),
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
            ("parked", |odd| odd.parked = 2, Attention, Some(70), &[Is::Parked]),
            (
                "rejected and late",
                |odd| {
                    odd.rejected = 2;
                    odd.pending_for = Some(11);
                },
                Attention,
                Some(80),
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
            (
                "rejected and not kept",
                |odd| {
                    odd.unkept = Some((7200, 3599));
                    odd.since_change = [1, 0, 3];
                    odd.accepted_at = Some(1);
                },
                Attention,
                Some(7200),
                &[Is::NotKept],
            ),
            (
                "an hour ago, and others were taken",
                |odd| {
                    odd.unkept = Some((7200, 3600));
                    odd.since_change = [1, 0, 3];
                    odd.accepted_at = Some(1);
                },
                Ok,
                Some(500),
                &[],
            ),
            (
                "nothing was taken after it",
                |odd| {
                    odd.unkept = Some((7200, 3600));
                    odd.since_change = [1, 0, 3];
                    odd.accepted_at = Some(3601);
                },
                Attention,
                Some(7200),
                &[Is::NotKept],
            ),
            (
                "only ignored for a day",
                |odd| {
                    odd.since_change = [1, 3, 0];
                    odd.accepted_at = Some(24 * 3600);
                },
                Attention,
                Some(24 * 3600),
                &[Is::OnlyIgnored],
            ),
            (
                "ignored beside others",
                |odd| {
                    odd.since_change = [1, 3, 0];
                    odd.accepted_at = Some(24 * 3600 - 1);
                },
                Ok,
                Some(500),
                &[],
            ),
            (
                "disabled",
                |odd| {
                    odd.disabled = true;
                    odd.pending_for = Some(999);
                },
                Paused,
                None,
                &[Is::Disabled],
            ),
            (
                "some of each",
                |odd| {
                    odd.since_change = [1, 3, 3];
                    odd.accepted_at = Some(1);
                },
                Ok,
                Some(500),
                &[],
            ),
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

    #[test]
    fn every_state_and_every_concern_leads_to_a_section_of_the_manual() {
        let of_states = DestinationState::ALL.map(DestinationState::manual);
        let of_concerns = ConcernKind::ALL.map(ConcernKind::manual);
        for place in of_states.into_iter().chain(of_concerns) {
            assert!(place.is_there(), "{place}");
        }
    }

    #[test]
    fn the_manual_explains_every_state() {
        let rows = crate::manual::rows("operations", "states");
        let explained: Vec<_> = rows.iter().map(|row| (row[0].trim_matches('`'), row[2])).collect();
        let code = |state: DestinationState| if state.is_trouble() { "75" } else { "0" };
        let expected = DestinationState::ALL.map(|state| (state.word(), code(state)));
        assert_eq!(explained, expected);
    }
}
