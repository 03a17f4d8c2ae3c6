//! The memory budget of all requests in flight ([P6](crate::design::P6)), in number of requests and in bytes.
//!
//! Nothing ever waits for the budget, so requests cannot block each other. When it is used up, the body that
//! has been arriving for longest is evicted: bodies of strangers have to be read before it is known that they
//! are worthless (a signature covers the body), and a sender that lets them stall must not lock out those
//! that arrive in a moment. A stranger's complete body that waits for its turn to be read can be evicted too;
//! one that is being read cannot. If nothing can be evicted, the newcomer is refused and retries, unless it
//! would exceed the budget even alone. A part of the budget is spared for requests that hold little, so that
//! a few large ones do not lock them out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::answer::Refusal;

/// A request that holds at most this, a batch of a few thousand events, may also use the spared part.
const LITTLE_BYTES: usize = 8 << 20;

/// The budget; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    left_places: usize,
    left_bytes: usize,
    /// The total: bytes left and bytes taken.
    all_bytes: usize,
    /// The part of it that only requests that hold little may use.
    spared_bytes: usize,
    /// Bytes of the spared part that receive windows hold, and how many more they may take.
    window_bytes: usize,
    left_window_bytes: usize,
    begun: u64,
    /// Bodies that can be evicted, oldest first.
    arriving: BTreeMap<u64, Arriving>,
}

#[derive(Debug)]
struct Arriving {
    held_bytes: usize,
    evicted: oneshot::Sender<()>,
}

/// The place of one request in the budget; dropping it gives everything back.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Budget,
    /// Its key in [`State::arriving`], if it can be or could be evicted; otherwise 0.
    number: u64,
    /// The bytes held by a body that cannot be evicted. `None`: [`State::arriving`] has them.
    whole_bytes: Option<usize>,
}

/// Room for the receive window of one connection; dropping it gives the room back.
#[derive(Debug)]
pub(super) struct WindowReservation {
    budget: Budget,
    bytes: usize,
}

/// Resolves when the body is evicted.
pub(super) type Eviction = oneshot::Receiver<()>;

impl Budget {
    /// A budget for this many requests with this many bytes in total. `largest_bytes` is the size of the
    /// largest body accepted.
    pub fn new(requests: usize, bytes: usize, largest_bytes: usize) -> Self {
        // the largest body, and what is made of it, must fit beside the spared part
        let spared_bytes = bytes.saturating_sub(largest_bytes) / 4;
        let state = State {
            left_places: requests.max(1),
            left_bytes: bytes,
            all_bytes: bytes,
            spared_bytes,
            window_bytes: 0,
            left_window_bytes: spared_bytes / 2,
            begun: 0,
            arriving: BTreeMap::new(),
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Reserves room for bytes that may arrive on a connection before they are read; `None` if none is left.
    /// It evicts no one and is never evicted: it is taken from the spared part, at most half of it, so that a
    /// large body fits as before.
    pub fn reserve_window(&self, bytes: usize) -> Option<WindowReservation> {
        let mut state = self.state();
        let left_window_bytes = state.left_window_bytes.checked_sub(bytes)?;
        state.left_bytes = state.left_bytes.checked_sub(bytes)?;
        state.left_window_bytes = left_window_bytes;
        state.window_bytes += bytes;
        drop(state);
        Some(WindowReservation { budget: self.clone(), bytes })
    }

    /// A place for a body that begins to arrive.
    pub fn reserve(&self) -> Result<(Reservation, Eviction), Refusal> {
        let mut state = self.state();
        while state.left_places == 0 {
            state.evict_oldest(|_| true)?;
        }
        state.left_places -= 1;
        state.begun += 1;
        let number = state.begun;
        let (evicted, eviction) = oneshot::channel();
        state.arriving.insert(number, Arriving { held_bytes: 0, evicted });
        drop(state);
        Ok((Reservation { budget: self.clone(), number, whole_bytes: None }, eviction))
    }

    /// A place for a body of this many bytes that is already complete.
    pub fn reserve_whole(&self, bytes: usize) -> Result<Reservation, Refusal> {
        let mut state = self.state();
        while state.left_places == 0 {
            state.evict_oldest(|_| true)?;
        }
        state.make_room(bytes, 0, None)?;
        state.left_places -= 1;
        state.left_bytes -= bytes;
        drop(state);
        Ok(Reservation { budget: self.clone(), number: 0, whole_bytes: Some(bytes) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes sure that this many bytes are left for a request that holds `held` already. Nothing is evicted
    /// if that would not be enough.
    fn make_room(
        &mut self,
        bytes: usize,
        held: usize,
        for_whom: Option<u64>,
    ) -> Result<(), Refusal> {
        let spared = spared_from(held + bytes, self.spared_bytes);
        if held + bytes + spared > self.all_bytes {
            return Err(Refusal::TooLarge); // too large even for an empty budget
        }
        let needed = bytes + spared.saturating_sub(self.window_bytes);
        if bytes == 0 || self.left_bytes >= needed {
            return Ok(());
        }
        let others = self.arriving.iter().filter(|(number, _)| Some(**number) != for_whom);
        let held_by_others: usize = others.map(|(_, of)| of.held_bytes).sum();
        if self.left_bytes + held_by_others < needed {
            return Err(Refusal::Busy);
        }
        while self.left_bytes < needed {
            self.evict_oldest(|(number, of)| Some(*number) != for_whom && of.held_bytes > 0)?;
        }
        Ok(())
    }

    fn evict_oldest(&mut self, which: impl Fn((&u64, &Arriving)) -> bool) -> Result<(), Refusal> {
        let found = self.arriving.iter().find(|one| which(*one)).map(|(number, _)| *number);
        let evicted = found.and_then(|number| self.arriving.remove(&number));
        let evicted = evicted.ok_or(Refusal::Busy)?;
        self.left_places += 1;
        self.left_bytes += evicted.held_bytes;
        let _ = evicted.evicted.send(()); // without a receiver, the body finds out when it asks for more
        Ok(())
    }
}

/// How many bytes a request must leave to others if it holds this many.
fn spared_from(held: usize, spared_bytes: usize) -> usize {
    if held <= LITTLE_BYTES { 0 } else { spared_bytes }
}

impl Reservation {
    /// Makes sure that at least this many bytes are reserved.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), Refusal> {
        if self.whole_bytes.is_some_and(|held| held >= bytes) {
            return Ok(());
        }
        let mut state = self.budget.state();
        let held = match (self.whole_bytes, state.arriving.get(&self.number)) {
            (Some(held), _) => held,
            (None, Some(arriving)) => arriving.held_bytes,
            (None, None) => return Err(Refusal::Busy),
        };
        let missing = bytes.saturating_sub(held);
        state.make_room(missing, held, Some(self.number))?;
        state.left_bytes -= missing;
        match &mut self.whole_bytes {
            Some(held) => *held += missing,
            None => {
                if let Some(arriving) = state.arriving.get_mut(&self.number) {
                    arriving.held_bytes += missing;
                }
            }
        }
        Ok(())
    }

    /// [`Reservation::grow_to`], but only if nothing has to be evicted for it; `false` if it failed.
    pub fn grow_freely_to(&mut self, bytes: usize) -> bool {
        let mut state = self.budget.state();
        let state = &mut *state;
        let held = match &mut self.whole_bytes {
            Some(held) => Some(held),
            None => state.arriving.get_mut(&self.number).map(|arriving| &mut arriving.held_bytes),
        };
        let Some(held) = held else { return false };
        let missing = bytes.saturating_sub(*held);
        let spared = spared_from(*held + missing, state.spared_bytes);
        let needed = missing + spared.saturating_sub(state.window_bytes);
        let is_free = missing == 0 || needed <= state.left_bytes;
        if is_free {
            *held += missing;
            state.left_bytes -= missing;
        }
        is_free
    }

    /// From here on the body cannot be evicted. Fails if it has been evicted already.
    pub fn settle(&mut self) -> Result<(), Refusal> {
        if self.whole_bytes.is_none() {
            let mut state = self.budget.state();
            let arriving = state.arriving.remove(&self.number).ok_or(Refusal::Busy)?;
            self.whole_bytes = Some(arriving.held_bytes);
        }
        Ok(())
    }

    /// From here on the body may be evicted, until it is settled again.
    pub fn make_way(&mut self) -> Option<Eviction> {
        let held_bytes = self.whole_bytes.take()?;
        let (evicted, eviction) = oneshot::channel();
        let mut state = self.budget.state();
        if self.number == 0 {
            state.begun += 1;
            self.number = state.begun;
        }
        state.arriving.insert(self.number, Arriving { held_bytes, evicted });
        Some(eviction)
    }

    /// Gives back reserved bytes beyond this many.
    pub fn shrink_to(&mut self, bytes: usize) {
        let mut state = self.budget.state();
        let state = &mut *state;
        let held = match &mut self.whole_bytes {
            Some(held) => Some(held),
            None => state.arriving.get_mut(&self.number).map(|arriving| &mut arriving.held_bytes),
        };
        if let Some(held) = held {
            let given_back = held.saturating_sub(bytes);
            *held -= given_back;
            state.left_bytes += given_back;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.budget.state();
        let arriving = || state.arriving.remove(&self.number).map(|of| of.held_bytes);
        // an evicted body has already given back everything
        if let Some(held) = self.whole_bytes.or_else(arriving) {
            state.left_places += 1;
            state.left_bytes += held;
        }
    }
}

impl Drop for WindowReservation {
    fn drop(&mut self) {
        let mut state = self.budget.state();
        state.left_bytes += self.bytes;
        state.left_window_bytes += self.bytes;
        state.window_bytes -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(budget: &Budget) -> (usize, usize) {
        let state = budget.state();
        (state.left_places, state.left_bytes)
    }

    #[test]
    fn what_is_spared_is_for_those_who_hold_little() {
        const MIB: usize = 1 << 20;
        let budget = Budget::new(10, 256 * MIB, 128 * MIB);
        let (mut large, _large) = budget.reserve().expect("a place");
        large.settle().expect("nobody wants its room");
        assert_eq!(large.grow_to(224 * MIB), Ok(()));
        assert_eq!(large.grow_to(224 * MIB + 1), Err(Refusal::TooLarge), "it never can");
        assert!(!large.grow_freely_to(224 * MIB + 1));
        let mut little = budget.reserve_whole(MIB).expect("it is spared for it");
        assert_eq!(little.grow_to(8 * MIB), Ok(()));
        assert_eq!(little.grow_to(8 * MIB + 1), Err(Refusal::Busy), "it is not little any more");
        assert_eq!(large.grow_to(224 * MIB), Ok(()), "what it has it keeps");
        let others: Vec<_> = (0..3).map(|_| budget.reserve_whole(8 * MIB)).collect();
        assert!(others.iter().all(Result::is_ok));
        assert!(budget.reserve_whole(1).is_err(), "that was all");
    }

    #[test]
    fn the_body_that_has_been_arriving_for_the_longest_makes_way() {
        let budget = Budget::new(10, 100, 100);
        let [(mut first, one), (mut second, two), (mut third, three)] =
            [(); 3].map(|()| budget.reserve().expect("a place"));
        let mut evictions = [one, two, three];
        assert_eq!((first.grow_to(40), second.grow_to(40)), (Ok(()), Ok(())));
        assert_eq!(third.grow_to(20), Ok(()), "it fits");
        assert_eq!(third.grow_to(21), Ok(()));
        let over = |one: &mut Eviction| one.try_recv() == Ok(());
        assert_eq!(evictions.each_mut().map(over), [true, false, false]);
        assert_eq!((first.grow_to(40), first.settle()), (Err(Refusal::Busy), Err(Refusal::Busy)));
        second.settle().expect("it is there");
        second.shrink_to(39);
        assert_eq!(third.grow_to(61), Ok(()), "a little of the second was given back");
        assert_eq!(third.grow_to(62), Err(Refusal::Busy), "what is whole stays");
        assert_eq!(second.grow_to(81), Ok(()), "and may still grow");
        assert!(over(&mut evictions[2]));
        assert_eq!(left(&budget), (9, 19));
        drop((first, second, third));
        assert_eq!(left(&budget), (10, 100));
    }

    #[test]
    fn a_body_that_is_whole_makes_way_for_none_and_others_for_it() {
        let budget = Budget::new(3, 100, 100);
        let mut evictions = [0, 60].map(|bytes| {
            let (mut one, eviction) = budget.reserve().expect("a place");
            one.grow_to(bytes).expect("it fits");
            (one, eviction)
        });
        let mut whole = budget.reserve_whole(41).expect("the second makes way");
        let over = |(_, eviction): &mut (Reservation, Eviction)| eviction.try_recv() == Ok(());
        assert_eq!(evictions.each_mut().map(over), [false, true], "the first has no bytes to give");
        assert_eq!((whole.grow_to(41), left(&budget)), (Ok(()), (1, 59)));
        assert_eq!((whole.grow_to(50), left(&budget)), (Ok(()), (1, 50)));
        assert_eq!(budget.reserve_whole(51).err(), Some(Refusal::Busy));
        let others = [1, 2].map(|bytes| budget.reserve_whole(bytes).expect("a place"));
        assert!(over(&mut evictions[0]), "but its place");
        assert_eq!(budget.reserve_whole(0).err(), Some(Refusal::Busy));
        drop((whole, others, evictions));
        assert_eq!(left(&budget), (3, 100));
    }

    #[test]
    fn nobody_makes_way_for_what_does_not_fit_anyhow_nor_for_what_is_only_handy() {
        let budget = Budget::new(10, 100, 100);
        let (mut first, mut eviction) = budget.reserve().expect("a place");
        first.grow_to(60).expect("it fits");
        let mut second = budget.reserve_whole(20).expect("it fits");
        assert_eq!(second.grow_to(101), Err(Refusal::TooLarge));
        assert_eq!(budget.reserve_whole(81).err(), Some(Refusal::Busy));
        assert!(!second.grow_freely_to(41) && second.grow_freely_to(40));
        assert!(eviction.try_recv().is_err());
        drop((first, second));
        assert_eq!(left(&budget), (10, 100));
    }

    #[test]
    fn a_body_that_waits_for_its_turn_makes_way_and_keeps_its_age() {
        let budget = Budget::new(10, 100, 100);
        let (mut first, _) = budget.reserve().expect("a place");
        let (mut second, mut later) = budget.reserve().expect("a place");
        first.grow_to(50).expect("it fits");
        first.settle().expect("it is there");
        second.grow_to(50).expect("it fits");
        let mut eviction = first.make_way().expect("it was settled");
        let third = budget.reserve_whole(50).expect("the first makes way");
        assert_eq!((eviction.try_recv(), later.try_recv().is_err()), (Ok(()), true));
        assert_eq!(first.settle(), Err(Refusal::Busy));
        drop((first, second, third));
        let mut whole = budget.reserve_whole(60).expect("it fits");
        let mut eviction = whole.make_way().expect("it was whole");
        let other = budget.reserve_whole(60).expect("it makes way");
        assert_eq!(eviction.try_recv(), Ok(()));
        drop((whole, other));
        assert_eq!(left(&budget), (10, 100));
    }

    #[test]
    fn places_are_counted_too() {
        let budget = Budget::new(2, 100, 100);
        let (mut first, mut first_eviction) = budget.reserve().expect("a place");
        let (second, mut second_eviction) = budget.reserve().expect("a place");
        first.settle().expect("it is there");
        let (mut third, _) = budget.reserve().expect("the second makes way");
        assert_eq!(second_eviction.try_recv(), Ok(()));
        assert!(first_eviction.try_recv().is_err());
        third.settle().expect("it is there");
        assert_eq!(budget.reserve().err(), Some(Refusal::Busy));
        drop((first, second, third));
        assert_eq!(left(&budget), (2, 100));
    }

    #[test]
    fn windows_have_half_of_what_is_spared_and_a_large_body_fits_as_before() {
        const MIB: usize = 1 << 20;
        let budget = Budget::new(10, 256 * MIB, 128 * MIB);
        let windows: Vec<_> = std::iter::from_fn(|| budget.reserve_window(4 * MIB)).collect();
        assert_eq!((windows.len(), left(&budget)), (4, (10, 240 * MIB)));
        let (mut large, _large) = budget.reserve().expect("a place");
        large.settle().expect("nobody wants its room");
        assert_eq!(large.grow_to(224 * MIB), Ok(()), "as without any window");
        assert!(!large.grow_freely_to(224 * MIB + 1));
        let little: Vec<_> = (0..2).map(|_| budget.reserve_whole(8 * MIB)).collect();
        assert!(little.iter().all(Result::is_ok), "the other half is for those who hold little");
        assert!(budget.reserve_whole(1).is_err(), "that was all");
        drop((windows, large));
        assert_eq!(left(&budget), (8, 240 * MIB));
        assert!(budget.reserve_window(16 * MIB).is_some(), "all of the share was given back");
        drop(little);
        assert!(Budget::new(10, 100, 100).reserve_window(1).is_none(), "nothing is spared");
        let full = Budget::new(10, 100, 20);
        let _body = full.reserve_whole(95).expect("it fits");
        assert!(full.reserve_window(6).is_none(), "bodies have the rest");
    }
}
