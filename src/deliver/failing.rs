//! The audiences whose last call was not taken, each with LaunchDarkly's answer. An audience leaves
//! when a call of it is taken or when nothing of it is pending any more. If some calls of an audience
//! are refused while others are taken, the refused members are still being searched for: such an
//! audience leaves some seconds after the last refusal.
//!
//! Details are kept of a few thousand audiences; beyond that, only the number is known
//! ([P6](crate::design::P6)). An audience that fails again and again is logged at most once a minute,
//! and all together at most [`MOST_LINES`] times a minute.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::reasons::{IN_A_ROW, reason};
use super::words::Words;
use crate::launchdarkly::Outcome;
use crate::membership::{AudienceId, Timestamp};

/// Most audiences of which details are kept: about a kilobyte each.
const MOST_KEPT: usize = 2_000;
/// Most log lines in a minute.
const MOST_LINES: usize = 10;
const MINUTE: Duration = Duration::from_secs(60);
/// The word for an answer that means LaunchDarkly cannot use some member of the call.
pub(super) const REFUSED: &str = "refused";
/// How long after a refusal, with calls being taken since, the audience still counts as failing. A
/// member that was refused alone is sent once more within half of this.
const SEARCHED_FOR: Duration = Duration::from_secs(10);

/// An audience whose last call was not taken. Holds no personal data ([P8](crate::design::P8)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailingAudience {
    /// The audience's ID.
    pub audience: AudienceId,
    /// When the first of the failures in a row ended.
    pub since: Timestamp,
    /// The number of failures in a row.
    pub failures: u64,
    /// Calls with other members of this audience were taken in between.
    pub is_partly_taken: bool,
    /// What the last answer meant, in one word, as in [`super::Delivered::durations`].
    pub what: &'static str,
    /// Its HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// LaunchDarkly's `code`; may be empty.
    pub code: String,
    /// LaunchDarkly's `message`; empty if there is none or if it may quote what was sent.
    pub message: String,
    /// LaunchDarkly's `id` of the answer, for its support; may be empty.
    pub answer_id: String,
    /// Why there was no usable answer; else empty.
    pub cause: String,
    /// What is wrong, as a sentence without its full stop.
    pub why: &'static str,
    /// What to do about it, as a sentence without its full stop.
    pub remedy: &'static str,
    /// The earliest time of the next attempt; may have passed.
    pub next_attempt_at: Timestamp,
}

/// A call that was not taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure<'a> {
    pub outcome: &'a Outcome,
    pub what: &'static str,
    pub status: Option<u16>,
    pub words: &'a Words,
    pub at: Timestamp,
    pub next_attempt_at: Timestamp,
}

#[derive(Debug)]
struct Kept {
    shown: FailingAudience,
    said_at: Option<Instant>,
    /// When a call was first taken after the last refusal.
    taken_at: Option<Instant>,
}

/// The failing audiences of one destination.
#[derive(Debug, Default)]
pub(super) struct Failing {
    kept: BTreeMap<AudienceId, Kept>,
    /// Failing audiences beyond [`MOST_KEPT`].
    others: BTreeSet<AudienceId>,
    /// When the log lines of the last minute were written.
    lines: VecDeque<Instant>,
    /// No audience is tried again before this time.
    not_before: Timestamp,
}

impl Failing {
    /// A call of this audience was not taken. `Some`: log it.
    pub fn failed(
        &mut self,
        audience: &AudienceId,
        failure: Failure<'_>,
        now: Instant,
    ) -> Option<FailingAudience> {
        let Failure { outcome, what, status, words, at, next_attempt_at } = failure;
        if self.kept.len() >= MOST_KEPT && !self.kept.contains_key(audience) {
            self.others.insert(audience.clone());
            return None;
        }
        self.others.remove(audience);
        let is_refused = matches!(outcome, Outcome::Refused(_));
        let before = self.kept.remove(audience);
        let before = before.filter(|of| is_refused || !of.shown.is_partly_taken);
        let said_at = before.as_ref().and_then(|of| of.said_at);
        let before = before.map(|of| of.shown);
        let is_partly_taken = before.as_ref().is_some_and(|of| of.is_partly_taken);
        let (since, failures) = before.map_or((at, 0), |of| (of.since, of.failures));
        let failures = failures + 1;
        let cause = match outcome {
            Outcome::Unavailable { cause, .. } => cause.clone(),
            _ => String::new(),
        };
        let Words { code, message, answer_id } = words.clone();
        let reason = reason(outcome, failures);
        let shown = FailingAudience {
            audience: audience.clone(),
            since,
            failures,
            is_partly_taken,
            what,
            status,
            code,
            message,
            answer_id,
            cause,
            why: reason.why,
            remedy: reason.remedy,
            next_attempt_at,
        };
        let is_new = said_at.is_none_or(|said| now.duration_since(said) >= MINUTE);
        let is_said = failures >= IN_A_ROW && is_new && self.may_say(now);
        let said_at = if is_said { Some(now) } else { said_at };
        let line = is_said.then(|| shown.clone());
        self.kept.insert(audience.clone(), Kept { shown, said_at, taken_at: None });
        line
    }

    fn may_say(&mut self, now: Instant) -> bool {
        while self.lines.front().is_some_and(|line| now.duration_since(*line) >= MINUTE) {
            self.lines.pop_front();
        }
        let may = self.lines.len() < MOST_LINES;
        if may {
            self.lines.push_back(now);
        }
        may
    }

    /// A call of this audience was taken.
    pub fn taken(&mut self, audience: &AudienceId, now: Instant) {
        self.others.remove(audience);
        match self.kept.get_mut(audience) {
            Some(Kept { shown, taken_at, .. }) if shown.what == REFUSED => {
                shown.is_partly_taken = true;
                taken_at.get_or_insert(now);
            }
            _ => _ = self.kept.remove(audience),
        }
    }

    /// Forgets audiences that have nothing pending, and those whose refused members are no longer
    /// searched for.
    pub fn keep(&mut self, is_pending: impl Fn(&AudienceId) -> bool, now: Instant) {
        let goes_on =
            |of: &Kept| of.taken_at.is_none_or(|at| now.duration_since(at) < SEARCHED_FOR);
        self.kept.retain(|audience, of| is_pending(audience) && goes_on(of));
        self.others.retain(|audience| is_pending(audience));
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.others.is_empty()
    }

    /// Nothing is sent to the destination before this time.
    pub fn pause_until(&mut self, at: Timestamp) {
        self.not_before = at;
    }

    /// The audiences of which details are kept.
    pub fn shown(&self) -> Vec<FailingAudience> {
        let shown = |Kept { shown, .. }: &Kept| {
            let next_attempt_at = shown.next_attempt_at.max(self.not_before);
            FailingAudience { next_attempt_at, ..shown.clone() }
        };
        self.kept.values().map(shown).collect()
    }

    /// The number of failing audiences beyond those.
    pub fn others(&self) -> u64 {
        self.others.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::deliver::counters::word;
    use crate::launchdarkly::classify;

    fn id(text: &str) -> AudienceId {
        AudienceId::new(text).expect("not empty")
    }

    fn fail(
        failing: &mut Failing,
        audience: &str,
        status: u16,
        now: Instant,
    ) -> Option<FailingAudience> {
        let status = StatusCode::from_u16(status).expect("a status");
        let answer = classify(status, &HeaderMap::new(), br#"{"code":"key_exists","id":"a-1"}"#);
        let failure = Failure {
            outcome: &answer.outcome,
            what: word(&answer.outcome),
            status: answer.status,
            words: &Words::of(&answer.outcome, []),
            at: Timestamp(1),
            next_attempt_at: Timestamp(2),
        };
        failing.failed(&id(audience), failure, now)
    }

    #[test]
    fn the_third_failure_in_a_row_is_said_and_then_one_a_minute() {
        let mut failing = Failing::default();
        let began = Instant::now();
        let said: Vec<u64> = (0..130)
            .filter_map(|second| {
                let now = began + Duration::from_secs(second);
                fail(&mut failing, "a", 409, now).map(|line| line.failures)
            })
            .collect();
        assert_eq!(said, [3, 63, 123]);
        let [shown] = &failing.shown()[..] else { panic!("one") };
        assert_eq!(
            (shown.failures, &shown.code[..], &shown.answer_id[..]),
            (130, "key_exists", "a-1")
        );
        assert!(shown.why.contains("keeps answering 409") && !shown.remedy.is_empty(), "{shown:?}");
        failing.taken(&id("a"), began);
        assert!(failing.is_empty());
        assert_eq!(fail(&mut failing, "a", 409, began), None, "it begins anew");
        assert!(!failing.shown()[0].why.contains("keeps answering 409"));
    }

    #[test]
    fn whoever_is_refused_among_others_is_looked_for_until_nobody_is() {
        let mut failing = Failing::default();
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        for second in [0, 5, 14] {
            fail(&mut failing, "a", 400, after(second));
            failing.taken(&id("a"), after(second + 1));
            failing.keep(|_| true, after(second + 2));
        }
        let [shown] = &failing.shown()[..] else { panic!("one") };
        assert!(shown.failures == 3 && shown.is_partly_taken, "{shown:?}");
        failing.taken(&id("a"), after(24));
        failing.keep(|_| true, after(24));
        assert!(!failing.is_empty());
        failing.keep(|_| true, after(25));
        assert!(failing.is_empty(), "since the first that was taken");

        fail(&mut failing, "a", 400, after(30));
        failing.taken(&id("a"), after(31));
        fail(&mut failing, "a", 503, after(32));
        let [shown] = &failing.shown()[..] else { panic!("one") };
        assert!(shown.failures == 1 && !shown.is_partly_taken, "it is something else: {shown:?}");
        fail(&mut failing, "a", 400, after(33));
        failing.taken(&id("a"), after(34));
        failing.keep(|_| false, after(34));
        assert!(failing.is_empty(), "nobody is left");
    }

    #[test]
    fn however_many_fail_few_lines_are_written_and_a_bounded_number_is_kept() {
        let mut failing = Failing::default();
        let now = Instant::now();
        let mut lines = 0;
        for _ in 0..4 {
            for number in 0..MOST_KEPT + 30 {
                lines += usize::from(fail(&mut failing, &number.to_string(), 503, now).is_some());
            }
        }
        assert_eq!((lines, failing.shown().len(), failing.others()), (MOST_LINES, MOST_KEPT, 30));
        failing.keep(|audience| audience.as_str().len() == 1, now);
        assert_eq!((failing.shown().len(), failing.others()), (10, 0));
    }

    #[test]
    fn the_next_attempt_is_the_audiences_own_or_the_destinations_if_that_is_later() {
        let mut failing = Failing::default();
        fail(&mut failing, "a", 409, Instant::now()); // to be tried again at 2
        for (destination, next) in [(1, 2), (2, 2), (7, 7), (0, 2)] {
            failing.pause_until(Timestamp(destination));
            assert_eq!(failing.shown()[0].next_attempt_at, Timestamp(next), "{destination}");
        }
    }

    #[test]
    fn what_kept_an_answer_from_coming_is_said() {
        let mut failing = Failing::default();
        fail(&mut failing, "a", 503, Instant::now());
        assert_eq!(failing.shown()[0].cause, "answered 503");
        fail(&mut failing, "b", 409, Instant::now());
        assert_eq!(failing.shown()[1].cause, "", "an answer speaks for itself");
    }
}
