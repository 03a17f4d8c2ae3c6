//! The audiences whose last call was not taken, each with LaunchDarkly's words, until one is taken or
//! nothing of them is pending any more.
//!
//! A few thousand are kept with all there is to say; of more only their number is known ([P6](crate::design::P6)). The log
//! hears of one that fails again and again, at most once a minute, and of all together at most
//! [`MOST_LINES`] times a minute.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::reasons::{IN_A_ROW, reason};
use super::words::Words;
use crate::launchdarkly::Outcome;
use crate::membership::{AudienceId, Timestamp};

/// Kept with all there is to say: about a kilobyte each.
const MOST_KEPT: usize = 2_000;
/// Lines of the log in a minute.
const MOST_LINES: usize = 10;
const MINUTE: Duration = Duration::from_secs(60);

/// An audience whose last call was not taken. Nothing in it is personal ([P8](crate::design::P8)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailingAudience {
    /// Which.
    pub audience: AudienceId,
    /// When the first of the failures in a row ended.
    pub since: Timestamp,
    /// How many they are.
    pub failures: u64,
    /// A word for what the last answer meant, as in [`super::Delivered::durations`].
    pub what: &'static str,
    /// Its HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// LaunchDarkly's `code`; may be empty.
    pub code: String,
    /// LaunchDarkly's `message`; empty also where it may quote what was sent.
    pub message: String,
    /// LaunchDarkly's `id` of the answer, for its support; may be empty.
    pub answer_id: String,
    /// What kept the answer away, or what is odd about it; empty where the words say it.
    pub cause: String,
    /// What is the matter, in a sentence without its full stop.
    pub why: &'static str,
    /// What to do about it, the same.
    pub remedy: &'static str,
    /// When it is tried again, at the earliest; may have passed.
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
}

/// Those of one destination.
#[derive(Debug, Default)]
pub(super) struct Failing {
    kept: BTreeMap<AudienceId, Kept>,
    /// Those there was no room for.
    others: BTreeSet<AudienceId>,
    /// When the lines of the last minute were written.
    lines: VecDeque<Instant>,
    /// None of them is tried again before then.
    not_before: Timestamp,
}

impl Failing {
    /// A call of this audience was not taken. `Some`: the log is to hear of it.
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
        let before = self.kept.remove(audience);
        let (since, failures, said_at) = before.map_or((at, 0, None), |Kept { shown, said_at }| {
            (shown.since, shown.failures, said_at)
        });
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
        self.kept.insert(audience.clone(), Kept { shown, said_at });
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

    /// A call of it was taken.
    pub fn taken(&mut self, audience: &AudienceId) {
        self.kept.remove(audience);
        self.others.remove(audience);
    }

    /// Only of these is anything pending.
    pub fn keep(&mut self, is_pending: impl Fn(&AudienceId) -> bool) {
        self.kept.retain(|audience, _| is_pending(audience));
        self.others.retain(|audience| is_pending(audience));
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.others.is_empty()
    }

    /// Nothing of the destination is sent before then.
    pub fn pause_until(&mut self, at: Timestamp) {
        self.not_before = at;
    }

    /// Of every one that is kept.
    pub fn shown(&self) -> Vec<FailingAudience> {
        let shown = |Kept { shown, .. }: &Kept| {
            let next_attempt_at = shown.next_attempt_at.max(self.not_before);
            FailingAudience { next_attempt_at, ..shown.clone() }
        };
        self.kept.values().map(shown).collect()
    }

    /// How many there are beside those.
    pub fn others(&self) -> u64 {
        self.others.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;
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
            what: "conflict",
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
        assert!(shown.why.contains("again and again") && !shown.remedy.is_empty(), "{shown:?}");
        failing.taken(&id("a"));
        assert!(failing.is_empty());
        assert_eq!(fail(&mut failing, "a", 409, began), None, "it begins anew");
        assert!(!failing.shown()[0].why.contains("again and again"));
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
        failing.keep(|audience| audience.as_str().len() == 1);
        assert_eq!((failing.shown().len(), failing.others()), (10, 0));
    }
}
