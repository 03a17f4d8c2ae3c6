//! What a connection owes: the head of its next request, and that it takes the answers it asked for.
//! Pure; whoever owes for too long is let go (tests/it/attacks.rs, tests/it/http2.rs).
//!
//! A body under way and an answer being made are not judged here: they have times of their own.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// So many requests more may be called off before their answer than are answered: twice all those that may
/// be under way, for a proxy whose own clients go away together. Who goes on is not impatient but wants the
/// work without the answer (HTTP/2 rapid reset).
const MOST_ABANDONED: u64 = 2 * super::listener::MOST_STREAMS as u64;

/// How long what is owed is awaited.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the head of the first request: TLS, if it is spoken, included.
    pub head: Duration,
    /// For that of another one.
    pub idle: Duration,
    /// For the next piece of an answer to be taken.
    pub answer: Duration,
}

/// How one connection fares.
#[derive(Debug)]
pub(super) struct Progress {
    begun: u64,
    answered: u64,
    abandoned: u64,
    /// No request is under way.
    idle_since: Instant,
    /// Requests under way, and since when a piece of the answer has been there to be taken.
    exchanges: BTreeMap<u64, Option<Instant>>,
    /// The socket takes no more bytes.
    blocked_since: Option<Instant>,
}

/// What is to be done about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing; look again then: at the latest when what is not owed yet may be due.
    Fine(Instant),
    /// It has nothing to ask: tell it to go.
    Idle,
    /// It does not take what it asked for, or calls off what it asked for: there is no use in words.
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

    /// The head of a request is complete. Returns the number it has from here on.
    pub fn begin(&mut self) -> u64 {
        self.begun += 1;
        self.exchanges.insert(self.begun, None);
        self.begun
    }

    /// A piece of its answer waits to be taken, or, with `None`, is still being made.
    pub fn offer(&mut self, exchange: u64, since: Option<Instant>) {
        self.exchanges.insert(exchange, since);
    }

    /// Its answer was taken, or will not be any more.
    pub fn end(&mut self, exchange: u64, is_answered: bool, now: Instant) {
        self.exchanges.remove(&exchange);
        *(if is_answered { &mut self.answered } else { &mut self.abandoned }) += 1;
        if self.exchanges.is_empty() {
            self.idle_since = now;
        }
    }

    /// The socket takes no more bytes, or takes them again.
    pub fn block(&mut self, since: Option<Instant>) {
        self.blocked_since = since.map(|now| self.blocked_since.unwrap_or(now));
    }

    /// Requests that have begun and not ended.
    pub fn under_way(&self) -> usize {
        self.exchanges.len()
    }

    /// Whether nothing is under way, not even the last bytes of an answer.
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
        judged(&|_| {}, 100, fine(120)); // it is we who are slow
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
        judged(&|p| p.block(Some(at(149))), 149, fine(160)); // blocked all the while
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
