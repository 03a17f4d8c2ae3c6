//! What a connection owes: the head of its next request, and to take the answers that it asked for. Pure; a
//! connection that owes something for too long is closed (tests/it/attacks.rs, tests/it/http2.rs).
//!
//! A body that is arriving and an answer that is being made are not judged here: they have timeouts of their
//! own.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// How many more requests a client may reset before their answer than it lets finish: twice the number that
/// may be in flight, for a proxy whose own clients go away together. A client beyond that wants the work
/// without the answer (HTTP/2 rapid reset).
const MOST_ABANDONED: u64 = 2 * super::listener::MOST_STREAMS as u64;

/// The timeouts for what a connection owes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the head of the first request, including TLS if it is used.
    pub head: Duration,
    /// For the head of a further request.
    pub idle: Duration,
    /// For the next piece of an answer to be taken.
    pub answer: Duration,
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Progress {
    begun: u64,
    answered: u64,
    abandoned: u64,
    /// Since when no request has been in flight, if none is.
    idle_since: Instant,
    /// The requests in flight, each with the time since which a piece of its answer has been waiting to be
    /// taken.
    exchanges: BTreeMap<u64, Option<Instant>>,
    /// Since when the socket has accepted no more bytes, if it does not.
    blocked_since: Option<Instant>,
}

/// What to do about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing for now; judge again at this time, before which nothing can be overdue.
    Fine(Instant),
    /// It has been idle for too long: tell it to close.
    Idle,
    /// It does not take its answers, or resets its requests: close it without a word.
    Hopeless,
}

impl Progress {
    pub fn new(now: Instant) -> Self {
        Self {
            begun: 0,
            answered: 0,
            abandoned: 0,
            idle_since: now,
            exchanges: BTreeMap::new(),
            blocked_since: None,
        }
    }

    /// The head of a request is complete. Returns the number of the request.
    pub fn begin(&mut self) -> u64 {
        self.begun += 1;
        self.exchanges.insert(self.begun, None);
        self.begun
    }

    /// A piece of the answer has been waiting to be taken since then; with `None`, it is still being made.
    pub fn offer(&mut self, exchange: u64, since: Option<Instant>) {
        self.exchanges.insert(exchange, since);
    }

    /// The answer was taken, or never will be.
    pub fn end(&mut self, exchange: u64, is_answered: bool, now: Instant) {
        self.exchanges.remove(&exchange);
        *(if is_answered { &mut self.answered } else { &mut self.abandoned }) += 1;
        if self.exchanges.is_empty() {
            self.idle_since = now;
        }
    }

    /// The socket accepts no more bytes since then; with `None`, it does again.
    pub fn block(&mut self, since: Option<Instant>) {
        self.blocked_since = since.map(|now| self.blocked_since.unwrap_or(now));
    }

    /// The number of requests in flight.
    pub fn under_way(&self) -> usize {
        self.exchanges.len()
    }

    /// Whether nothing is in flight, not even the last bytes of an answer.
    pub fn is_at_rest(&self) -> bool {
        self.exchanges.is_empty() && self.blocked_since.is_none()
    }

    pub fn judge(&self, now: Instant, patience: Patience) -> Verdict {
        if self.abandoned > self.answered + MOST_ABANDONED {
            return Verdict::Hopeless;
        }
        let offered = self.exchanges.values().flatten().chain(&self.blocked_since).min();
        let taken_by = offered.map(|since| *since + patience.answer);
        if taken_by.is_some_and(|due| due <= now) {
            return Verdict::Hopeless;
        }
        let to_ask = if self.begun == 0 { patience.head } else { patience.idle };
        let asked_by = self.exchanges.is_empty().then(|| self.idle_since + to_ask);
        if asked_by.is_some_and(|due| due <= now) {
            return Verdict::Idle;
        }
        let not_owed_yet = now + patience.idle.min(patience.answer);
        let soonest = [taken_by, asked_by].into_iter().flatten().fold(not_owed_yet, Instant::min);
        Verdict::Fine(soonest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(20),
        answer: Duration::from_secs(30),
    };

    #[test]
    fn who_owes_for_too_long_is_told_to_go_or_cut_off() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let fine = |s| Verdict::Fine(at(s));
        let mut progress = Progress::new(start);
        let mut judged = |step: &dyn Fn(&mut Progress), now, expected| {
            step(&mut progress);
            assert_eq!(progress.judge(at(now), PATIENCE), expected, "at {now} s");
        };
        judged(&|_| {}, 1, fine(10));
        judged(&|_| {}, 10, Verdict::Idle);
        judged(&|p| assert_eq!(p.begin(), 1), 9, fine(29));
        judged(&|_| {}, 100, fine(120)); // the delay is ours
        judged(&|p| p.offer(1, Some(at(100))), 100, fine(120));
        judged(&|_| {}, 125, fine(130));
        judged(&|_| {}, 130, Verdict::Hopeless);
        judged(&|p| p.offer(1, None), 130, fine(150));
        judged(&|p| assert_eq!(p.begin(), 2), 130, fine(150));
        judged(&|p| p.offer(2, Some(at(135))), 136, fine(156));
        judged(&|p| p.end(1, true, at(136)), 160, fine(165));
        judged(&|p| p.end(2, true, at(140)), 145, fine(160));
        judged(&|_| {}, 160, Verdict::Idle);
        judged(&|p| p.block(Some(at(141))), 145, fine(160));
        judged(&|p| p.block(Some(at(149))), 149, fine(160)); // still blocked since the first time
        judged(&|p| assert_eq!(p.begin(), 3), 165, fine(171));
        judged(&|_| {}, 171, Verdict::Hopeless);
        judged(&|p| p.block(None), 171, fine(191));
    }

    #[test]
    fn who_calls_off_much_more_than_it_hears_out_is_cut_off() {
        let now = Instant::now();
        let mut progress = Progress::new(now);
        let mut times = |count, is_answered| {
            for _ in 0..count {
                let exchange = progress.begin();
                progress.end(exchange, is_answered, now);
            }
            progress.judge(now, PATIENCE) == Verdict::Hopeless
        };
        assert!(!times(1000, true));
        assert!(!times(1000 + MOST_ABANDONED, false));
        assert!(times(1, false));
    }
}
