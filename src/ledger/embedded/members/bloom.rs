//! A Bloom filter of known members, so that a new member costs no look-up in the tables.

use crate::ledger::embedded::ids::AudienceRowId;
/// 4 MiB. With a million members one new member in sixty thousand is looked up in vain, with four million one
/// in fifty.
const BLOCKS: usize = 1 << 16;
/// Words of a block. A block is a cache line: a look-up touches one.
const WORDS: usize = 8;
const BLOCK_BYTES: usize = WORDS * size_of::<u64>();
/// Bits of a block that are set for each member, each chosen by this many bits of the hash.
const PROBES: u32 = 7;
const PROBE_BITS: u32 = 9;

/// A set of members with false positives.
#[derive(Debug, Default)]
pub(crate) struct Bloom {
    /// Allocated when the first member is noted; its pages are zero, and resident only once touched.
    words: Vec<u64>,
    /// Index of the first word that starts a cache line.
    first: usize,
}

impl Bloom {
    /// Adds a member, by the row of its audience and the hash of its key.
    pub fn note(&mut self, audience: AudienceRowId, hash: u64) {
        if self.words.is_empty() {
            self.words = vec![0; WORDS * (BLOCKS + 1)];
            self.first = self.words.as_ptr().align_offset(BLOCK_BYTES) % WORDS;
        }
        let (word, bits) = place(audience, hash);
        let block = self.words[self.first + word..].first_chunk_mut::<WORDS>();
        let block = block.expect("there is a block more");
        bits.for_each(|(word, bit)| block[word] |= bit);
    }

    /// `false`: the member was certainly not added.
    pub fn may_know(&self, audience: AudienceRowId, hash: u64) -> bool {
        let (word, bits) = place(audience, hash);
        let block = self.words.get(self.first + word..).and_then(<[u64]>::first_chunk::<WORDS>);
        let Some(block) = block else { return false };
        // Without an early exit: the branch could not be predicted.
        bits.fold(0, |missing, (word, bit)| missing | !block[word] & bit) == 0
    }

    /// The first word that [`Bloom::may_know`] reads.
    pub fn first_word(&self, audience: AudienceRowId, hash: u64) -> u64 {
        let (word, _) = place(audience, hash);
        self.words.get(self.first + word).copied().unwrap_or_default()
    }
}

/// Where a member's block begins, and its bits in it, each with the index of its word. The bits are not
/// gathered into a block first: loading that right after storing it in pieces would stall until all earlier
/// stores are done, and most of those go to memory that is not cached.
fn place(audience: AudienceRowId, hash: u64) -> (usize, impl Iterator<Item = (usize, u64)>) {
    // Spreads neighbouring audiences and hashes far apart (Fibonacci hashing).
    const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;
    let hash = (hash ^ audience.0.cast_unsigned().wrapping_mul(SPREAD)).wrapping_mul(SPREAD);
    let number = (hash ^ hash >> 32).wrapping_mul(SPREAD);
    let bits = (0..PROBES).map(move |probe| {
        let bit = number >> (probe * PROBE_BITS) & ((1 << PROBE_BITS) - 1);
        (usize::try_from(bit / 64).expect("it is small"), 1 << (bit % 64))
    });
    (WORDS * (usize::try_from(hash >> 48).expect("it is small") % BLOCKS), bits)
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use hashbrown::DefaultHashBuilder;

    use super::*;

    #[test]
    fn who_was_noted_is_known_and_few_others_are() {
        let (mut bloom, hasher) = (Bloom::default(), DefaultHashBuilder::default());
        let key = |number: u32| hasher.hash_one(format!("user-{number}"));
        assert!(!bloom.may_know(AudienceRowId(1), key(0)));
        (0..200_000).for_each(|number| bloom.note(AudienceRowId(1), key(number)));
        assert!((0..200_000).all(|number| bloom.may_know(AudienceRowId(1), key(number))));
        let others =
            (0..200_000).filter(|number| bloom.may_know(AudienceRowId(2), key(*number))).count();
        assert!(others < 20, "{others} of 200,000");
    }
}
