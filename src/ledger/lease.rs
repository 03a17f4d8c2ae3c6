//! The lease of a destination, as a replica sees it that holds it or would like to. Pure: it reads no clock and asks
//! nobody, so that the ledger that replicas share and the simulation of it decide alike.
//!
//! # What always holds
//! * A lease is believed for less time than the database grants it for: it counts from before the request was sent, by
//!   the clock since boot, which nobody sets, and ends a little earlier than was agreed, so that clocks may differ in pace.
//! * A replica that hears nothing of the database stops by itself.
//! * A token only grows. What is heard of an earlier one changes nothing.
//!
//! # What does not
//! A process that stands still between its last look at the lease and a call makes that call when it wakes up, whoever
//! owns the destination by then. And a clock of the database that is set forward ends leases early. Either way the
//! database refuses the report of that call, and the present owner tells its members once more.

use std::time::Duration;

/// Which part of a lease is not used: clocks differ in pace by much less.
const SLACK: u32 = 50;

/// What a replica knows of the lease of a destination.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    /// How long the database grants it for.
    ttl: Duration,
    held: Option<Held>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    token: i64,
    /// Until when calls may be made, by the time since boot.
    until: Duration,
}

/// What the database is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// To extend the lease of this token, if that is still the latest one.
    Renew {
        /// The token of the lease.
        token: i64,
    },
    /// For the lease, under a new token, if nobody holds it.
    Take,
}

/// What the database says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The lease is this replica's, for its whole time from when the database decided.
    Granted {
        /// Its token.
        token: i64,
    },
    /// It is another's.
    Refused,
}

/// What an answer has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing that matters.
    Nothing,
    /// A reign begins: what the replica knew of claims is of an earlier one.
    Taken,
    /// The reign is over: so are its claims.
    Lost,
}

impl Lease {
    /// Nothing is held yet.
    pub fn new(ttl: Duration) -> Self {
        Self { ttl, held: None }
    }

    /// What to ask next.
    pub fn question(&self) -> Question {
        self.token().map_or(Question::Take, |token| Question::Renew { token })
    }

    /// Takes in an answer to a question that was asked at `asked_at`, before it was sent.
    pub fn answered(&mut self, question: Question, asked_at: Duration, answer: Answer) -> Change {
        let until = asked_at + self.ttl.saturating_sub(self.ttl / SLACK);
        match (question, answer) {
            (Question::Renew { token }, Answer::Granted { .. }) => {
                if let Some(held) = self.held.as_mut().filter(|held| held.token == token) {
                    held.until = held.until.max(until);
                }
                Change::Nothing
            }
            (Question::Renew { token }, Answer::Refused) => self.is_stale(token),
            (Question::Take, Answer::Granted { token }) if self.token() < Some(token) => {
                self.held = Some(Held { token, until });
                Change::Taken
            }
            (Question::Take, _) => Change::Nothing,
        }
    }

    /// This token is not the latest one.
    pub fn is_stale(&mut self, token: i64) -> Change {
        if self.token() != Some(token) {
            return Change::Nothing;
        }
        self.held = None;
        Change::Lost
    }

    /// The lease is given up; the token to do so with.
    pub fn hand_over(&mut self) -> Option<i64> {
        Some(self.held.take()?.token)
    }

    /// The token of the present reign, which may have run out.
    pub fn token(&self) -> Option<i64> {
        Some(self.held?.token)
    }

    /// The token under which something may begin at `now`, by the time since boot.
    pub fn current(&self, now: Duration) -> Option<i64> {
        Some(self.held.filter(|held| now < held.until)?.token)
    }

    /// Whether a call of a batch that was claimed under `token` may be made at `now`.
    pub fn may_call(&self, token: i64, now: Duration) -> bool {
        self.current(now) == Some(token)
    }

    /// How long such a call may still take, as far as is known at `now`.
    pub fn left(&self, token: i64, now: Duration) -> Duration {
        let held = self.held.filter(|held| held.token == token);
        held.map_or(Duration::ZERO, |held| held.until.saturating_sub(now))
    }
}

/// How often leases are renewed.
pub(crate) fn interval(ttl: Duration) -> Duration {
    (ttl / 3).min(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(10);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A lease with this token that was asked for at 100 s.
    fn held(token: i64) -> Lease {
        let mut lease = Lease::new(TTL);
        let change = lease.answered(Question::Take, s(100), Answer::Granted { token });
        assert_eq!(change, Change::Taken);
        lease
    }

    #[test]
    fn a_lease_counts_from_before_the_question_and_ends_before_its_time() {
        let lease = held(7);
        assert_eq!(lease.question(), Question::Renew { token: 7 });
        for (now, may) in [(100, true), (109, true), (110, false), (200, false)] {
            assert_eq!(lease.may_call(7, s(now)), may, "at {now} s");
            assert_eq!(lease.current(s(now)), may.then_some(7), "at {now} s");
            assert_eq!(lease.left(7, s(now)).is_zero(), !may, "at {now} s");
        }
        let slowest = TTL.mul_f64(0.998); // by a clock that is slow, of a lease that one measures that is fast
        assert!(!lease.may_call(7, s(100) + slowest));
        assert!(!lease.may_call(6, s(100)), "claimed in an earlier reign");
        assert!(lease.left(6, s(100)).is_zero());
    }

    #[test]
    fn only_answers_about_the_present_reign_count() {
        const RENEW: Question = Question::Renew { token: 7 };
        const OTHER: Question = Question::Renew { token: 5 };
        let granted = |token| Answer::Granted { token };
        // Question, when it was asked, answer; what changes, the token afterwards, until when it lasts.
        let rows = [
            (RENEW, 105, granted(7), Change::Nothing, Some(7), 115),
            (RENEW, 95, granted(7), Change::Nothing, Some(7), 110), // overtaken by a later one
            (RENEW, 105, Answer::Refused, Change::Lost, None, 0),
            (OTHER, 105, granted(5), Change::Nothing, Some(7), 110),
            (OTHER, 105, Answer::Refused, Change::Nothing, Some(7), 110),
            (Question::Take, 105, Answer::Refused, Change::Nothing, Some(7), 110),
            (Question::Take, 105, granted(6), Change::Nothing, Some(7), 110),
            (Question::Take, 105, granted(8), Change::Taken, Some(8), 115),
        ];
        for (question, asked_at, answer, change, token, until) in rows {
            let mut lease = held(7);
            let case = format!("{question:?} at {asked_at}: {answer:?}");
            assert_eq!(lease.answered(question, s(asked_at), answer), change, "{case}");
            assert_eq!(lease.token(), token, "{case}");
            let left = token.map_or(Duration::ZERO, |token| lease.left(token, s(100)));
            let full = s(until).saturating_sub(s(100));
            assert!(left <= full && left + s(1) >= full, "{case}: {left:?}");
        }
    }

    #[test]
    fn what_is_lost_or_given_up_is_asked_for_anew() {
        let mut lost = held(7);
        assert_eq!(lost.is_stale(6), Change::Nothing);
        assert_eq!(lost.is_stale(7), Change::Lost);
        let mut given_up = held(7);
        assert_eq!((given_up.hand_over(), given_up.hand_over()), (Some(7), None));
        for lease in [lost, given_up] {
            assert_eq!((lease.question(), lease.current(s(100))), (Question::Take, None));
        }
    }
}
