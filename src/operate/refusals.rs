//! Refused requests of the admin listener: counted, and wrong tokens slowed down and logged.
//!
//! # What always holds
//! * A request with a right token never comes here, so that guesses by others cannot delay an operator.
//! * The first few wrong tokens of an address in a minute are answered at once, as they may be slips.
//!   After that an address gets at most five answers a second, and all such addresses together twenty,
//!   each in order of arrival.
//! * Waiting requests hold no lock, and there are at most as many as the listener has connections. At
//!   most `MOST_ADDRESSES` addresses are told apart; further ones are treated as one
//!   ([P6](crate::design::P6)).
//! * At most one line a minute logs how many there were and from where, without any token
//!   ([P8](crate::design::P8)).
//!
//! # What does not
//! A guesser need not wait for an answer: one that opens a connection per guess and takes silence for a
//! no is slowed only by connecting. Only a long token protects against that; the configuration warns
//! about short ones.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::access::Refusal;
use crate::counting::Count;

/// Wrong tokens of one address in a minute that are answered without delay.
const AT_ONCE: u64 = 5;
/// Wrong tokens of all addresses in a minute that are answered without delay.
const AT_ONCE_IN_ALL: u64 = 50;
/// Delay of each further answer.
const PAUSE: Duration = Duration::from_millis(200);
/// Most delays that run at the same time.
const PAUSES: usize = 4;
/// Interval between two log lines.
const LINE_EVERY: Duration = Duration::from_secs(60);
/// Most addresses told apart in a minute.
const MOST_ADDRESSES: usize = 1024;
/// Most addresses named in a log line.
const NAMED: usize = 5;
/// An IPv6 client is told apart by this many bits: it may choose the rest of its address freely.
const NETWORK_BITS: u32 = 64;

/// Counters of refused requests, and recent wrong tokens.
#[derive(Debug)]
pub struct Refusals {
    counts: [Count; Refusal::ALL.len()],
    minute: Mutex<Minute>,
    pauses: Semaphore,
    /// Signals that there is something to log.
    news: Notify,
    stop: CancellationToken,
}

/// Wrong tokens since the last log line.
#[derive(Debug, Default)]
struct Minute {
    count: u64,
    by_address: HashMap<IpAddr, Guesser>,
    /// All addresses beyond [`MOST_ADDRESSES`].
    others: Guesser,
}

/// An address that sent wrong tokens.
#[derive(Debug)]
struct Guesser {
    count: u64,
    /// Whether its answers are delayed; stays so while some of them still wait.
    is_slowed: bool,
    turn: Arc<Semaphore>,
}

impl Default for Guesser {
    fn default() -> Self {
        Self { count: 0, is_slowed: false, turn: Arc::new(Semaphore::new(1)) }
    }
}

impl Guesser {
    fn waits(&self) -> bool {
        Arc::strong_count(&self.turn) > 1
    }

    /// Starts a new minute.
    fn begin(&mut self) {
        self.count = 0;
        self.is_slowed = self.is_slowed && self.waits();
    }
}

/// The content of a log line.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    count: u64,
    from: String,
}

impl Refusals {
    /// No refusals yet. When the daemon stops, all waiting requests are answered at once.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        Self {
            counts: Refusal::ALL.map(|_| Count::default()),
            minute: Mutex::default(),
            pauses: Semaphore::new(PAUSES),
            news: Notify::new(),
            stop,
        }
    }

    /// Counts a refusal, and returns when it may be answered: delayed for a wrong token that is one of
    /// many.
    pub async fn refused(&self, refusal: Refusal, from: Option<IpAddr>) {
        self.counts[refusal as usize].one();
        if refusal != Refusal::WrongToken {
            return;
        }
        let turn = self.note(from);
        self.news.notify_one();
        let Some(turn) = turn else { return };
        let in_turn = async {
            // An error would mean a closed semaphore, and these are never closed.
            let _of_the_address = turn.acquire().await;
            let _of_all = self.pauses.acquire().await;
            sleep(PAUSE).await;
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = in_turn => {}
        }
    }

    /// The number of refusals by reason.
    pub fn counts(&self) -> impl Iterator<Item = (Refusal, u64)> {
        Refusal::ALL.into_iter().zip(self.counts.iter().map(Count::get))
    }

    /// Logs wrong tokens until the daemon stops.
    pub async fn watch(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = self.news.notified() => self.log(),
            }
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = sleep(LINE_EVERY) => {}
            }
        }
        self.log();
    }

    fn log(&self) {
        if let Some(Line { count, from }) = self.line() {
            tracing::warn!(count, from, "wrong tokens were sent to the admin listener");
        }
    }

    /// Notes a wrong token. Returns the semaphore on which its answer must queue, if it is to be
    /// delayed.
    fn note(&self, from: Option<IpAddr>) -> Option<Arc<Semaphore>> {
        let mut minute = self.minute();
        minute.count += 1;
        let is_flood = minute.count > AT_ONCE_IN_ALL;
        let guesser = minute.guesser(from.map(network));
        guesser.count += 1;
        guesser.is_slowed |= is_flood || guesser.count > AT_ONCE;
        guesser.is_slowed.then(|| Arc::clone(&guesser.turn))
    }

    /// The line about the time since the last one, if there is something to log; starts a new minute.
    fn line(&self) -> Option<Line> {
        let mut minute = self.minute();
        let line = minute.line();
        minute.begin();
        line
    }

    fn minute(&self) -> MutexGuard<'_, Minute> {
        self.minute.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Minute {
    fn guesser(&mut self, from: Option<IpAddr>) -> &mut Guesser {
        let has_place = |from: &IpAddr| {
            self.by_address.len() < MOST_ADDRESSES || self.by_address.contains_key(from)
        };
        match from.filter(has_place) {
            Some(from) => self.by_address.entry(from).or_default(),
            None => &mut self.others,
        }
    }

    fn line(&self) -> Option<Line> {
        if self.count == 0 {
            return None;
        }
        let mut all: Vec<(&IpAddr, u64)> = self
            .by_address
            .iter()
            .map(|(from, guesser)| (from, guesser.count))
            .filter(|(_, count)| *count > 0)
            .collect();
        all.sort_by_key(|(from, count)| (std::cmp::Reverse(*count), **from));
        let mut from = String::new();
        for (address, count) in all.iter().take(NAMED) {
            let network =
                if address.is_ipv6() { format!("/{NETWORK_BITS}") } else { String::new() };
            let comma = if from.is_empty() { "" } else { ", " };
            let _ = write!(from, "{comma}{address}{network} ({count})"); // writing to memory cannot fail
        }
        let named: u64 = all.iter().take(NAMED).map(|(_, count)| count).sum();
        if named < self.count {
            let _ = write!(from, ", others ({})", self.count - named);
        }
        Some(Line { count: self.count, from })
    }

    fn begin(&mut self) {
        self.count = 0;
        self.by_address.retain(|_, guesser| guesser.waits());
        self.by_address.values_mut().for_each(Guesser::begin);
        self.others.begin();
    }
}

/// The part of an address by which it is told apart.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let host = u128::MAX >> NETWORK_BITS;
            Ipv6Addr::from_bits(address.to_bits() & !host).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use futures_util::stream::FuturesUnordered;
    use tokio::time::Instant;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// How many of these wrong tokens, all sent at once, are answered within each of these times.
    async fn answered(refusals: &Refusals, from: &[Option<IpAddr>], within: &[u64]) -> Vec<usize> {
        let start = Instant::now();
        let mut waiting: FuturesUnordered<_> =
            from.iter().map(|from| refusals.refused(Refusal::WrongToken, *from)).collect();
        let mut took = Vec::new();
        while waiting.next().await.is_some() {
            took.push(start.elapsed());
        }
        assert_eq!(took.len(), from.len());
        let until =
            |ms: &u64| took.iter().filter(|took| took.as_millis() <= u128::from(*ms)).count();
        within.iter().map(until).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_a_few_answers_at_once_and_then_five_a_second() {
        let refusals = Refusals::new(CancellationToken::new());
        let from = vec![Some(address("203.0.113.7")); 105];
        let all = answered(&refusals, &from, &[50, 1100, 10_100]).await;
        assert_eq!(all[0], 5);
        assert!((9..=11).contains(&all[1]) && (54..=56).contains(&all[2]), "{all:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn all_addresses_together_have_twenty_a_second_and_a_stranger_to_it_is_not_last() {
        let refusals = Refusals::new(CancellationToken::new());
        let from: Vec<_> = (0..200u32)
            .flat_map(|host| vec![Some(IpAddr::from((0x0a00_0000 | host).to_be_bytes())); 5])
            .collect();
        let all = answered(&refusals, &from, &[50, 1050]).await;
        assert_eq!(all[0], 50, "{all:?}");
        assert!((68..=72).contains(&all[1]), "{all:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_guess_is_counted_only() {
        let refusals = Refusals::new(CancellationToken::new());
        let start = Instant::now();
        for _ in 0..1000 {
            refusals.refused(Refusal::NoToken, Some(address("203.0.113.7"))).await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(refusals.line(), None);
        let counted: Vec<u64> = refusals.counts().map(|(_, count)| count).collect();
        assert_eq!(counted, [0, 0, 1000, 0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_answers_whatever_waits() {
        let stop = CancellationToken::new();
        let refusals = Refusals::new(stop.clone());
        let from = vec![Some(address("203.0.113.7")); 1000];
        let (all, ()) = tokio::join!(answered(&refusals, &from, &[1000]), async {
            sleep(Duration::from_millis(500)).await;
            stop.cancel();
        });
        assert_eq!(all, [1000]);
    }

    #[test]
    fn a_line_says_how_many_and_from_where_and_memory_is_bounded() {
        let refusals = Refusals::new(CancellationToken::new());
        for (from, times) in [("198.51.100.1", 3), ("2001:db8::7", 2), ("2001:db8::8", 2)] {
            (0..times).for_each(|_| drop(refusals.note(Some(address(from)))));
        }
        let from = "2001:db8::/64 (4), 198.51.100.1 (3)".to_owned();
        assert_eq!(refusals.line(), Some(Line { count: 7, from }));
        assert_eq!(refusals.line(), None, "once");

        for host in 0..5000u32 {
            refusals.note(Some((0x0a00_0000 | host).to_be_bytes().into()));
        }
        refusals.note(None);
        assert_eq!(refusals.minute().by_address.len(), MOST_ADDRESSES);
        let Line { count, from } = refusals.line().expect("there were some");
        assert_eq!((count, from.matches(", ").count()), (5001, NAMED), "{from}");
        assert!(from.starts_with("10.0.0.0 (1), ") && from.ends_with(", others (4996)"), "{from}");
        assert_eq!(refusals.minute().by_address.len(), 0);
    }

    #[test]
    fn a_new_minute_is_no_new_start_for_whoever_still_waits() {
        let refusals = Refusals::new(CancellationToken::new());
        let guess = || refusals.note(Some(address("203.0.113.7")));
        let waiting: Vec<_> = (0..10).filter_map(|_| guess()).collect();
        assert_eq!(waiting.len(), 5);
        refusals.line();
        assert!(guess().is_some_and(|turn| Arc::ptr_eq(&turn, &waiting[0])));
        drop(waiting);
        refusals.line();
        assert!(guess().is_none());
    }
}
