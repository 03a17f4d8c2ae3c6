//! Counters of what was sent to LaunchDarkly and what it answered.

use std::array;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::failing::{Failing, FailingAudience, Failure, REFUSED};
use super::words::Words;
use crate::counting::{Count, Distribution, Histogram, PerDestination};
use crate::launchdarkly::{Answer, Outcome, RateLimits};
use crate::membership::{AudienceId, DestinationName, Timestamp};

/// The counters of all couriers. They survive a configuration reload.
#[derive(Debug, Default)]
pub struct Counters(PerDestination<Delivered>);

impl Counters {
    /// The counters of one destination.
    #[must_use]
    pub fn of(&self, destination: &DestinationName) -> Arc<Delivered> {
        self.0.of(destination)
    }

    /// The counters of every destination, in order of name.
    #[must_use]
    pub fn all(&self) -> Vec<(DestinationName, Arc<Delivered>)> {
        self.0.all()
    }
}

/// The counters of one destination.
#[derive(Debug)]
pub struct Delivered {
    /// Members that LaunchDarkly took.
    pub members: Count,
    /// Members that were parked after LaunchDarkly refused them alone.
    pub parked: Count,
    in_flight: AtomicU64,
    by_status: Mutex<BTreeMap<Option<u16>, u64>>,
    /// In the order of [`WORDS`].
    durations: [Histogram; WORDS.len()],
    latest: Mutex<Latest>,
    failing: Mutex<Failing>,
}

impl Default for Delivered {
    fn default() -> Self {
        Self {
            members: Count::default(),
            parked: Count::default(),
            in_flight: AtomicU64::new(0),
            by_status: Mutex::default(),
            durations: array::from_fn(|_| Histogram::of_durations()),
            latest: Mutex::default(),
            failing: Mutex::default(),
        }
    }
}

/// The most recent answers of a destination.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latest {
    /// When LaunchDarkly last took a batch.
    pub success_at: Option<Timestamp>,
    /// The last call that was not taken.
    pub trouble: Option<Trouble>,
    /// The rate limits in the headers of the last answer.
    pub limits: RateLimits,
    /// Since when no member has been late and nothing has stopped delivery; `None` while something
    /// does.
    pub well_since: Option<Timestamp>,
    /// A member that has waited longer than this is late.
    pub late_after: Duration,
}

/// A call that was not taken, or not answered. Holds no personal data ([P8](crate::design::P8)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// When the call ended.
    pub at: Timestamp,
    /// What the answer meant, in one word, as in [`Delivered::durations`].
    pub what: &'static str,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// LaunchDarkly's `code`, or why there was no usable answer.
    pub cause: String,
    /// LaunchDarkly's `message`; empty if there is none or if it may quote what was sent.
    pub message: String,
    /// LaunchDarkly's `id` of the answer, for its support; may be empty.
    pub answer_id: String,
}

/// One for each variant of [`Outcome`], in the order of [`position`].
const WORDS: [&str; 11] = [
    "taken",
    REFUSED,
    "token_refused",
    "not_permitted",
    "approval_required",
    "unknown_environment",
    "conflict",
    "too_large",
    "rate_limited",
    "unavailable",
    "unexpected",
];

fn position(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Taken => 0,
        Outcome::Refused(_) => 1,
        Outcome::TokenRefused(_) => 2,
        Outcome::NotPermitted(_) => 3,
        Outcome::ApprovalRequired(_) => 4,
        Outcome::UnknownEnvironment(_) => 5,
        Outcome::Conflict(_) => 6,
        Outcome::TooLarge(_) => 7,
        Outcome::RateLimited { .. } => 8,
        Outcome::Unavailable { .. } => 9,
        Outcome::Unexpected(_) => 10,
    }
}

/// The word for what an answer means.
pub(super) fn word(outcome: &Outcome) -> &'static str {
    WORDS[position(outcome)]
}

impl Delivered {
    /// A call has been sent.
    pub(super) fn sent(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A call was not made, or given up.
    pub(super) fn came_back(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// A call with this many members ended at `now`; `words` is what may be shown of its answer.
    pub(super) fn answered(
        &self,
        answer: &Answer,
        words: &Words,
        members: usize,
        took: Duration,
        now: Timestamp,
    ) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        *lock(&self.by_status).entry(answer.status).or_default() += 1;
        self.durations[position(&answer.outcome)].took(took);
        let mut latest = lock(&self.latest);
        if answer.status.is_some() {
            latest.limits = answer.limits;
        }
        if let Outcome::Taken = answer.outcome {
            self.members.add(members as u64);
            latest.success_at = Some(now);
        } else {
            latest.trouble = Some(Trouble::of(answer, words, now));
        }
    }

    /// A call of this audience was not taken. `Some`: log it.
    pub(super) fn failed(
        &self,
        audience: &AudienceId,
        failure: Failure<'_>,
    ) -> Option<FailingAudience> {
        lock(&self.failing).failed(audience, failure, Instant::now())
    }

    /// A call of this audience was taken.
    pub(super) fn taken(&self, audience: &AudienceId) {
        lock(&self.failing).taken(audience, Instant::now());
    }

    /// Forgets failures of audiences that have nothing pending.
    pub(super) fn keep_failing(&self, is_pending: impl Fn(&AudienceId) -> bool) {
        lock(&self.failing).keep(is_pending, Instant::now());
    }

    /// Nothing at all is sent before this time.
    pub(super) fn pause_until(&self, at: Timestamp) {
        lock(&self.failing).pause_until(at);
    }

    /// Whether any audience's last call was not taken.
    pub(super) fn is_any_failing(&self) -> bool {
        !lock(&self.failing).is_empty()
    }

    /// The audiences whose last call was not taken and that have members pending, in order of ID.
    #[must_use]
    pub fn failing_audiences(&self) -> Vec<FailingAudience> {
        lock(&self.failing).shown()
    }

    /// The number of failing audiences beyond those, of which no details are kept.
    #[must_use]
    pub fn other_failing_audiences(&self) -> u64 {
        lock(&self.failing).others()
    }

    /// `is_well`: no member has waited longer than `late_after`, and nothing keeps members from being
    /// sent.
    pub(super) fn show_wellness(&self, is_well: bool, late_after: Duration, now: Timestamp) {
        let mut latest = lock(&self.latest);
        latest.late_after = late_after;
        latest.well_since = is_well.then(|| latest.well_since.unwrap_or(now));
    }

    /// Calls in flight.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The number of calls by HTTP status; `None`: not answered.
    #[must_use]
    pub fn by_status(&self) -> BTreeMap<Option<u16>, u64> {
        lock(&self.by_status).clone()
    }

    /// How long calls took, by the word for what their answers meant.
    pub fn durations(&self) -> impl Iterator<Item = (&'static str, Distribution)> {
        WORDS.into_iter().zip(self.durations.iter().map(Histogram::read))
    }

    /// The most recent answers.
    #[must_use]
    pub fn latest(&self) -> Latest {
        lock(&self.latest).clone()
    }
}

impl Trouble {
    fn of(answer: &Answer, words: &Words, at: Timestamp) -> Self {
        let Words { code, message, answer_id } = words.clone();
        let cause = match &answer.outcome {
            Outcome::Unavailable { cause, .. } => cause.clone(),
            _ => code,
        };
        Self { at, what: word(&answer.outcome), status: answer.status, cause, message, answer_id }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;
    use crate::launchdarkly::{Fate, classify};

    fn answered(status: u16, body: &str) -> Answer {
        let status = StatusCode::from_u16(status).expect("a status");
        let mut headers = HeaderMap::new();
        headers.insert("x-ratelimit-global-remaining", "7".parse().expect("a value"));
        classify(status, &headers, body.as_bytes())
    }

    #[test]
    fn success_and_trouble_are_told_apart_and_trouble_keeps_its_id() {
        let delivered = Delivered::default();
        let (took, at) = (Duration::from_millis(30), Timestamp);
        for _ in 0..3 {
            delivered.sent();
        }
        delivered.answered(&answered(204, ""), &Words::default(), 5, took, at(1));
        let body = r#"{"code":"forbidden","message":"role lacks it","id":"abc-1"}"#;
        let refused = answered(403, body);
        delivered.answered(&refused, &Words::of(&refused.outcome, []), 9, took, at(2));
        assert_eq!((delivered.in_flight(), delivered.members.get()), (1, 5));
        let latest = delivered.latest();
        assert_eq!(latest.success_at, Some(at(1)));
        assert_eq!(latest.limits.global.remaining, Some(7));
        let trouble = latest.trouble.expect("there was");
        assert_eq!((trouble.what, trouble.status), ("not_permitted", Some(403)));
        assert_eq!((&trouble.cause[..], &trouble.answer_id[..]), ("forbidden", "abc-1"));
        assert_eq!(trouble.message, "role lacks it");

        let (cause, fate) = ("no answer in time".into(), Fate::Open);
        let outcome = Outcome::Unavailable { cause, fate, refusal: None };
        let none = Answer { outcome, limits: RateLimits::default(), status: None };
        delivered.answered(&none, &Words::default(), 9, took, at(3));
        let latest = delivered.latest();
        assert_eq!(latest.limits.global.remaining, Some(7), "no answer says nothing about limits");
        assert_eq!(latest.trouble.expect("there was").cause, "no answer in time");
        let by_status: Vec<_> = delivered.by_status().into_iter().collect();
        assert_eq!(by_status, [(None, 1), (Some(204), 1), (Some(403), 1)]);
        let calls: Vec<_> = delivered.durations().map(|(word, of)| (word, of.count)).collect();
        assert_eq!(calls.iter().map(|(_, count)| count).sum::<u64>(), 3, "{calls:?}");
        assert_eq!(delivered.in_flight(), 0);
    }

    #[test]
    fn each_destination_has_counters_of_its_own_for_good() {
        let counters = Counters::default();
        let name = |text| DestinationName::new(text).expect("a name");
        for (destination, members) in [("production", 3), ("staging", 5), ("production", 4)] {
            counters.of(&name(destination)).members.add(members);
        }
        let all = counters.all().into_iter().map(|(name, of)| (name, of.members.get()));
        assert_eq!(all.collect::<Vec<_>>(), [(name("production"), 7), (name("staging"), 5)]);
    }

    #[test]
    fn an_audience_fails_until_its_call_is_taken_or_nothing_of_it_waits() {
        let delivered = Delivered::default();
        let audience = |name: &str| AudienceId::new(name).expect("not empty");
        let answer = answered(409, "{}");
        let fail = |name: &str| {
            let failure = Failure {
                outcome: &answer.outcome,
                what: word(&answer.outcome),
                status: answer.status,
                words: &Words::default(),
                at: Timestamp(1),
                next_attempt_at: Timestamp(2),
            };
            delivered.failed(&audience(name), failure)
        };
        let failing = || {
            let shown = delivered.failing_audiences();
            assert_eq!(delivered.is_any_failing(), !shown.is_empty());
            let names = shown.iter().map(|of| of.audience.as_str().to_owned());
            names.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(failing(), "");
        let said: Vec<bool> = (0..3).map(|_| fail("a").is_some()).collect();
        assert_eq!(said, [false, false, true], "it is logged from the third time on");
        for name in ["b", "c"] {
            fail(name);
        }
        assert_eq!(failing(), "a b c");
        delivered.taken(&audience("b"));
        assert_eq!(failing(), "a c");
        delivered.keep_failing(|name| name.as_str() == "c");
        assert_eq!(failing(), "c");
        delivered.pause_until(Timestamp(9));
        assert_eq!(delivered.failing_audiences()[0].next_attempt_at, Timestamp(9));
        for number in 0..2_002 {
            fail(&number.to_string());
        }
        assert_eq!(delivered.failing_audiences().len(), 2_000);
        assert_eq!(delivered.other_failing_audiences(), 3);
    }

    #[test]
    fn it_is_well_since_it_became_so() {
        let delivered = Delivered::default();
        let late = Duration::from_secs(1);
        let steps = [(true, 1, Some(1)), (true, 2, Some(1)), (false, 3, None), (true, 4, Some(4))];
        for (is_well, at, since) in steps {
            delivered.show_wellness(is_well, late, Timestamp(at));
            assert_eq!(delivered.latest().well_since, since.map(Timestamp), "at {at}");
        }
    }
}
