//! Where the queues of audiences begin, as far as a replica knows.
//!
//! Rows that have left a queue stay in its table and its index until no transaction of the whole database can see them any
//! more. One that is open for minutes, like that of a backup, keeps all of them, and whoever looks for the first row that
//! waits steps over each of them, every time. So an owner remembers where the first one was, and looks there. It keeps
//! that in the row of the audience, with which the next owner and the other replicas begin.
//!
//! # What always holds
//! * That is a guess, never a promise: a transaction may take long to commit, and its rows then stand before the place where
//!   others were found. A queue is read from its very beginning whenever nothing is found behind its front, and now and
//!   then in any case, so such a row is told a little later.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::membership::Timestamp;

/// Nearly every transaction takes less than this from its stamp to its commit.
const COMMITTED_WITHIN: Duration = Duration::from_secs(5);
/// How often a queue is read from its beginning, at most.
const READ_WHOLE_EVERY: Duration = Duration::from_secs(10);
/// The larger part of the time is not spent on that.
const SHARE: u32 = 20;
/// When it is tried again if it takes longer than a statement may.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// The front of one queue.
#[derive(Debug)]
struct Front {
    /// Who waits since before this is found later.
    since: i64,
    /// When it is to be read from its beginning again.
    whole_at: Instant,
}

/// The fronts of queues, by the number of their audience.
#[derive(Debug, Default)]
pub(crate) struct Fronts(Mutex<BTreeMap<i32, Front>>);

/// How a queue is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// Of whom it is read: who waits since this time or later.
    pub from: i64,
    /// The ledger's clock and this machine's when it was begun.
    began: (Timestamp, Instant),
}

impl Fronts {
    /// How the queue of an audience is read next, of which the database has kept a front or not; `now` is the ledger's
    /// clock. Of no more queues than `most` anything is remembered.
    pub fn reading(
        &self,
        (audience_no, kept): (i32, Option<i64>),
        now: Timestamp,
        most: usize,
    ) -> Reading {
        let here = Instant::now();
        let mut all = self.known();
        let from = match (all.get_mut(&audience_no), kept) {
            (Some(front), _) if here < front.whole_at => front.since,
            (Some(front), _) => {
                front.whole_at = here + AGAIN_AFTER; // unless it is found
                i64::MIN
            }
            (None, Some(since)) => {
                let front = Front { since, whole_at: here + READ_WHOLE_EVERY };
                remember(&mut all, (audience_no, front), most);
                since
            }
            (None, None) => i64::MIN,
        };
        Reading { from, began: (now, here) }
    }

    /// The numbers of audiences in their order, and the fronts of their queues.
    pub fn all(&self) -> (Vec<i32>, Vec<i64>) {
        self.known().iter().map(|(no, front)| (*no, front.since)).unzip()
    }

    /// A queue was read, and its first row was this one. Of no more queues than `most` anything is remembered.
    pub fn found(&self, audience_no: i32, reading: Reading, first: Option<i64>, most: usize) {
        let (now, here) = reading.began;
        let since = first.unwrap_or(i64::MAX).min(now.before(COMMITTED_WITHIN).0);
        let is_whole = reading.from == i64::MIN;
        let mut all = self.known();
        if let Some(front) = all.get_mut(&audience_no) {
            if !is_whole && front.since < reading.from {
                return; // somebody has found one that stands before
            }
            front.since = since;
            if is_whole {
                front.whole_at = next_whole(here);
            }
        } else if is_whole {
            let front = Front { since, whole_at: next_whole(here) };
            remember(&mut all, (audience_no, front), most);
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<i32, Front>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reading {
    /// The same queue from its beginning, unless that is how it was read.
    pub fn whole(self) -> Option<Self> {
        let again = Self { from: i64::MIN, began: (self.began.0, Instant::now()) };
        (self.from != i64::MIN).then_some(again)
    }
}

fn remember(all: &mut BTreeMap<i32, Front>, (no, front): (i32, Front), most: usize) {
    if all.len() >= most {
        all.clear(); // most of them are erased
    }
    all.insert(no, front);
}

fn next_whole(began: Instant) -> Instant {
    let now = Instant::now();
    now + READ_WHOLE_EVERY.max((now - began) * SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Fronts {
        fn of(&self, audience_no: i32) -> Option<i64> {
            self.known().get(&audience_no).map(|front| front.since)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_is_read_from_its_front_and_now_and_then_from_its_beginning() {
        let fronts = Fronts::default();
        let clock = |s: i64| Timestamp(s * 1_000_000);
        let first = fronts.reading((7, None), clock(100), 2);
        assert_eq!((first.from, fronts.of(7)), (i64::MIN, None), "nothing is known of it");
        assert!(first.whole().is_none());
        // What is committed late does not stand far before what was found.
        for (found, front) in [(Some(40), 40), (Some(99), 95), (None, 95)] {
            fronts.found(7, first, found.map(|s| clock(s).0), 2);
            assert_eq!(fronts.of(7), Some(clock(front).0));
        }
        let next = fronts.reading((7, None), clock(103), 2);
        assert_eq!(next.from, clock(95).0);
        assert_eq!(next.whole().map(|of| of.from), Some(i64::MIN));
        fronts.found(7, next, None, 2);
        assert_eq!(fronts.of(7), Some(clock(98).0), "it moves on");
        tokio::time::advance(READ_WHOLE_EVERY).await;
        // Whoever takes long over that does it less often.
        let slow = fronts.reading((7, None), clock(113), 2);
        assert_eq!(slow.from, i64::MIN, "it is time");
        tokio::time::advance(READ_WHOLE_EVERY).await;
        fronts.found(7, slow, None, 2);
        tokio::time::advance(READ_WHOLE_EVERY * (SHARE - 1)).await;
        assert_ne!(fronts.reading((7, None), clock(400), 2).from, i64::MIN);
        for other in [8, 9] {
            fronts.found(other, fronts.reading((other, None), clock(500), 2), None, 2);
        }
        assert_eq!(fronts.of(7), None, "of two at most");

        // One that has failed is not tried again at once.
        tokio::time::advance(READ_WHOLE_EVERY).await;
        assert_eq!(fronts.reading((9, None), clock(600), 2).from, i64::MIN);
        tokio::time::advance(AGAIN_AFTER / 2).await;
        assert_ne!(fronts.reading((9, None), clock(630), 2).from, i64::MIN);
        tokio::time::advance(AGAIN_AFTER / 2).await;
        assert_eq!(fronts.reading((9, None), clock(660), 2).from, i64::MIN);

        // A new owner begins where the one before was.
        let kept = Some(clock(650).0);
        assert_eq!(fronts.reading((10, kept), clock(660), 2).from, clock(650).0);
        tokio::time::advance(READ_WHOLE_EVERY).await;
        assert_eq!(fronts.reading((10, kept), clock(670), 2).from, i64::MIN, "and looks soon");
    }
}
