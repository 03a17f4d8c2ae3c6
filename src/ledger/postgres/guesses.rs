//! Guesses that spare a transaction a reading. One is relied on where it would have been right for a while, and what is
//! written tells whether it was: else nothing of the transaction holds, and it is done again without a guess.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One guess for each destination, by its number.
#[derive(Debug)]
pub(crate) struct Guesses {
    /// How often in a row it has to be right before it is relied on, at first and at most.
    needed: RangeInclusive<u32>,
    all: Mutex<HashMap<i32, Guess>>,
}

/// A guess: the more often it was relied on and wrong, the longer it has to be right again.
#[derive(Clone, Copy, Debug)]
struct Guess {
    right: u32,
    needed: u32,
}

impl Default for Guesses {
    /// Tests rely on it at once, and so see it wrong as often as right.
    fn default() -> Self {
        let needed = if cfg!(test) { 1..=1 } else { 8..=1024 };
        Self { needed, all: Mutex::default() }
    }
}

impl Guesses {
    /// Whether to rely on it.
    pub fn is_likely(&self, destination_no: i32) -> bool {
        self.all().get(&destination_no).is_some_and(|guess| guess.right >= guess.needed)
    }

    /// It was right or wrong, or would have been.
    pub fn note(&self, destination_no: i32, is_right: bool, was_relied_on: bool) {
        let (least, most) = (*self.needed.start(), *self.needed.end());
        let mut all = self.all();
        let guess = all.entry(destination_no).or_insert(Guess { right: 0, needed: least });
        guess.right = if is_right { guess.right.saturating_add(1) } else { 0 };
        if was_relied_on {
            let needed = if is_right { guess.needed - 1 } else { guess.needed * 2 };
            guess.needed = needed.clamp(least, most);
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<i32, Guess>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guess_is_relied_on_after_a_while_and_later_the_more_often_it_was_wrong() {
        let guesses = Guesses { needed: 8..=1024, all: Mutex::default() };
        let until_likely = || {
            (0..=2000).find(|_| {
                let is_likely = guesses.is_likely(1);
                guesses.note(1, true, false);
                is_likely
            })
        };
        assert_eq!(until_likely(), Some(8));
        for (times_wrong, needed) in [(1, 16), (1, 32), (4, 512), (1, 1024), (1, 1024)] {
            (0..times_wrong).for_each(|_| guesses.note(1, false, true));
            assert_eq!(until_likely(), Some(needed));
        }
        (0..1000).for_each(|_| guesses.note(1, true, true));
        guesses.note(1, false, false);
        assert_eq!(until_likely(), Some(24), "it was right often since");
        assert!(!guesses.is_likely(2), "of another destination nothing is known");
    }
}
