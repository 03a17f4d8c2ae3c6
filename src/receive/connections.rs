//! The open connections, and which one is closed when there are too many: the one that has been longest
//! without a complete request. So idle connections, and those that send a byte now and then, cannot lock
//! anybody out. Connections of authenticated senders are closed last: on the admin listener, many wrong
//! tokens cannot crowd out a right one.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::progress::{Patience, Progress, Verdict};

/// Added to the time of a request of an authenticated sender, so that its connection sorts after all others.
const AHEAD: u64 = 1 << 62;

/// Requests in flight for which there is memory, per connection that may be open: a request whose answer is
/// not taken holds about three kilobytes. A connection may have more as long as others have fewer.
const FAIR_SHARE: usize = 8;

/// All connections of one listener.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    state: Arc<Mutex<State>>,
    /// A logical clock: it ticks with every event.
    now: Arc<AtomicU64>,
    /// Requests in flight on all connections, and the most there may be.
    under_way: Arc<AtomicUsize>,
    most_under_way: usize,
    patience: Patience,
}

#[derive(Debug)]
struct State {
    most: usize,
    /// Ids of connections by the tick at which they were opened, or of a later request. Requests do not
    /// update it; the search for the oldest connection does.
    order: BTreeMap<u64, u64>,
    by_id: HashMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    /// Its key in [`State::order`].
    ordered: u64,
    last: Arc<AtomicU64>,
    end: CancellationToken,
}

/// One open connection; dropping it removes it.
#[derive(Debug)]
pub(super) struct Connection {
    id: u64,
    all: Connections,
    /// The tick of its last complete request, or of its opening.
    last: Arc<AtomicU64>,
    progress: Mutex<Progress>,
    is_proven: AtomicBool,
    /// Cancelled when another connection replaces it, or when it is useless.
    pub end: CancellationToken,
}

impl Connections {
    pub fn new(most: usize, patience: Patience) -> Self {
        let (order, by_id) = (BTreeMap::new(), HashMap::new());
        let state = Arc::new(Mutex::new(State { most: most.max(1), order, by_id }));
        let most_under_way = most.max(1).saturating_mul(FAIR_SHARE);
        Self { state, now: Arc::default(), under_way: Arc::default(), most_under_way, patience }
    }

    /// Adds a connection; if there are too many, the oldest one is cancelled.
    pub fn enter(&self) -> Connection {
        let mut state = self.state();
        while state.by_id.len() >= state.most {
            let Some(oldest) = state.take_oldest() else { break };
            oldest.end.cancel();
        }
        let (id, end) = (self.tick(), CancellationToken::new());
        let last = Arc::new(AtomicU64::new(id));
        state.order.insert(id, id);
        state.by_id.insert(id, Open { ordered: id, last: Arc::clone(&last), end: end.clone() });
        drop(state);
        let progress = Mutex::new(Progress::new(Instant::now()));
        let is_proven = AtomicBool::new(false);
        Connection { id, all: self.clone(), last, progress, is_proven, end }
    }

    /// Advances the logical clock.
    fn tick(&self) -> u64 {
        self.now.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Removes and returns the connection that has been longest without a complete request.
    fn take_oldest(&mut self) -> Option<Open> {
        while let Some((_, id)) = self.order.pop_first() {
            let Some(open) = self.by_id.get_mut(&id) else { continue };
            let last = open.last.load(Ordering::Relaxed);
            if open.ordered == last {
                return self.by_id.remove(&id);
            }
            open.ordered = last;
            self.order.insert(last, id);
        }
        None
    }
}

impl Connection {
    /// What the connection owes: see [`Progress`].
    pub fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the connection should be told to close, because it has been idle for too long. One that
    /// is hopeless is cancelled at once.
    pub async fn has_outstayed(&self) {
        loop {
            let verdict = self.progress().judge(Instant::now(), self.all.patience);
            match verdict {
                Verdict::Fine(until) => tokio::time::sleep_until(until).await,
                Verdict::Idle => return,
                Verdict::Hopeless => {
                    self.end.cancel();
                    return;
                }
            }
        }
    }

    /// Whether the connection can be closed without loss.
    pub fn is_done(&self) -> bool {
        let progress = self.progress();
        let verdict = progress.judge(Instant::now(), self.all.patience);
        progress.is_at_rest() || verdict == Verdict::Hopeless
    }

    /// The head of a request is complete. Returns the number of the request. If more requests are in flight
    /// than there is memory for, and this connection has more than its share of them, it is cancelled.
    pub fn begin(&self) -> u64 {
        let others = self.all.under_way.fetch_add(1, Ordering::Relaxed);
        let mut progress = self.progress();
        let number = progress.begin();
        if others >= self.all.most_under_way && progress.under_way() > FAIR_SHARE {
            self.end.cancel();
        }
        number
    }

    /// A request of this connection has ended, with or without an answer.
    pub fn ended(&self, exchange: u64, is_answered: bool) {
        self.all.under_way.fetch_sub(1, Ordering::Relaxed);
        let now = Instant::now();
        let mut progress = self.progress();
        progress.end(exchange, is_answered, now);
        if progress.judge(now, self.all.patience) == Verdict::Hopeless {
            self.end.cancel();
        }
    }

    /// A request of this connection is complete, or answered.
    pub fn completed(&self) {
        let ahead = if self.is_proven.load(Ordering::Relaxed) { AHEAD } else { 0 };
        self.last.store(ahead + self.all.tick(), Ordering::Relaxed);
    }

    /// The peer is authenticated: connections of strangers are closed before this one.
    pub fn prove(&self) {
        self.is_proven.store(true, Ordering::Relaxed);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut state = self.all.state();
        if let Some(open) = state.by_id.remove(&self.id) {
            state.order.remove(&open.ordered);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const A_WHILE: Duration = Duration::from_secs(10);
    const PATIENCE: Patience = Patience { head: A_WHILE, idle: A_WHILE, answer: A_WHILE };

    #[test]
    fn the_one_that_is_longest_without_a_complete_request_goes_first() {
        let all = Connections::new(3, PATIENCE);
        let [first, second, third] = [all.enter(), all.enter(), all.enter()];
        let over = |one: &Connection| one.end.is_cancelled();
        first.completed();
        let fourth = all.enter();
        assert_eq!([&first, &second, &third].map(over), [false, true, false]);
        drop(third);
        let fifth = all.enter();
        assert_eq!([&first, &fourth, &fifth].map(over), [false; 3], "there was a place");
        fourth.completed();
        drop(second); // removed already
        let sixth = all.enter();
        assert_eq!([&first, &fourth, &fifth, &sixth].map(over), [true, false, false, false]);
    }

    #[test]
    fn those_of_senders_who_are_known_go_last() {
        let all = Connections::new(3, PATIENCE);
        let over = |one: &Connection| one.end.is_cancelled();
        let [known, stranger, other] = [all.enter(), all.enter(), all.enter()];
        known.prove();
        known.completed();
        let mut strangers = vec![stranger, other];
        for _ in 0..100 {
            let one = all.enter();
            one.completed();
            strangers.push(one);
        }
        assert!(!over(&known));
        assert_eq!(strangers.iter().filter(|one| !over(one)).count(), 2);
        let also = all.enter();
        also.prove();
        also.completed();
        let last = all.enter();
        last.prove();
        last.completed();
        assert!(!over(&known) && strangers.iter().all(over));
        let one_more = all.enter();
        assert_eq!([&known, &also, &last, &one_more].map(over), [true, false, false, false]);
    }

    #[test]
    fn one_has_many_requests_under_way_as_long_as_others_have_fewer() {
        let all = Connections::new(2, PATIENCE);
        let [busy, other] = [all.enter(), all.enter()];
        let begin = |one: &Connection, count| (0..count).map(|_| one.begin()).last();
        let first = begin(&busy, 2 * FAIR_SHARE);
        assert!(!busy.end.is_cancelled(), "as many as there may be in all");
        begin(&other, FAIR_SHARE);
        assert!(!other.end.is_cancelled(), "its share is always free");
        busy.ended(first.expect("a number"), true);
        begin(&busy, 1);
        assert!(busy.end.is_cancelled() && !other.end.is_cancelled());
        begin(&other, 1);
        assert!(other.end.is_cancelled(), "as long as those of the first have not ended");
    }

    #[test]
    fn a_place_is_given_back_however_often_requests_complete() {
        let all = Connections::new(2, PATIENCE);
        for _ in 0..100 {
            let one = all.enter();
            one.completed();
            one.completed();
        }
        let state = all.state();
        assert!(state.order.is_empty() && state.by_id.is_empty());
    }
}
