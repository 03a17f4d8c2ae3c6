//! Free slot numbers. They are given out in ascending order, cyclically, so that members that arrive together
//! lie together in memory, in whatever order the previous ones were freed.

use crate::ledger::embedded::ids::SlotNumber;

/// Bits in a word.
const WORD: usize = u64::BITS as usize;

/// The set of free numbers.
#[derive(Debug, Default)]
pub(super) struct FreeList {
    /// One bit for each number.
    words: Vec<u64>,
    count: usize,
    /// Index of the word that held the last number given out.
    at: usize,
}

impl FreeList {
    /// Frees a number.
    pub fn add(&mut self, number: SlotNumber) {
        let number = number.0 as usize;
        if self.words.len() <= number / WORD {
            self.words.resize(number / WORD + 1, 0);
        }
        let (word, bit) = (&mut self.words[number / WORD], 1 << (number % WORD));
        self.count += usize::from(*word & bit == 0);
        *word |= bit;
    }

    /// Takes the next free number.
    pub fn take(&mut self) -> Option<SlotNumber> {
        if self.count == 0 {
            return None;
        }
        let (before, behind) = self.words.split_at(self.at);
        let is_any = |word: &u64| *word != 0;
        self.at = match behind.iter().position(is_any) {
            Some(further) => self.at + further,
            None => before.iter().position(is_any)?,
        };
        let word = &mut self.words[self.at];
        let bit = word.trailing_zeros();
        *word &= *word - 1;
        self.count -= 1;
        u32::try_from(self.at * WORD).ok().map(|first| SlotNumber(first + bit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_out_in_rising_order_round_and_round() {
        let mut free = FreeList::default();
        assert_eq!(free.take(), None);
        let mut take = |added: &[u32], most: usize| -> Vec<u32> {
            for number in added {
                free.add(SlotNumber(*number));
            }
            std::iter::from_fn(|| free.take()).map(|number| number.0).take(most).collect()
        };
        assert_eq!(take(&[700, 3, 64, 63, 3], 3), [3, 63, 64]);
        assert_eq!(take(&[5, 66, 1], 9), [66, 700, 1, 5], "what lies behind comes next");
        assert_eq!(take(&[], 9), [0; 0]);
    }

    #[test]
    fn a_free_number_takes_one_bit() {
        let mut free = FreeList::default();
        free.add(SlotNumber(6400));
        free.add(SlotNumber(3));
        assert_eq!(free.words.len(), 101);
    }
}
