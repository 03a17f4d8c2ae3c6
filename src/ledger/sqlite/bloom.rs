//! Who was never seen: a Bloom filter, so that a newcomer costs no look into the tables.

/// 4 MiB. Of a million members one in sixty thousand is looked up for nothing, of four million one in
/// fifty.
const BLOCKS: usize = 1 << 16;
/// A line of the processor's cache: a look touches one of them.
type Block = [u64; 8];
/// Bits of a block that are set for each member, chosen by so many bits of a number each.
const PROBES: u32 = 7;
const PROBE_BITS: u32 = 9;

/// Members that were noted, and by chance a few others.
#[derive(Debug, Default)]
pub(super) struct Bloom {
    /// Empty until somebody is noted.
    blocks: Vec<Block>,
}

impl Bloom {
    /// A member of the audience with this row, by the hash of its key.
    pub fn note(&mut self, audience: i64, hash: u64) {
        if self.blocks.is_empty() {
            self.blocks = vec![Block::default(); BLOCKS];
        }
        let (block, mask) = place(audience, hash);
        for (word, bits) in self.blocks[block].iter_mut().zip(mask) {
            *word |= bits;
        }
    }

    /// `false`: it was certainly not noted.
    pub fn may_know(&self, audience: i64, hash: u64) -> bool {
        let (block, mask) = place(audience, hash);
        let block = self.blocks.get(block);
        block.is_some_and(|block| block.iter().zip(mask).all(|(word, bits)| word & bits == bits))
    }
}

/// The block of a member, and its bits there.
fn place(audience: i64, hash: u64) -> (usize, Block) {
    // Both are far apart for neighbouring audiences and hashes (Fibonacci hashing).
    const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;
    let hash = (hash ^ audience.cast_unsigned().wrapping_mul(SPREAD)).wrapping_mul(SPREAD);
    let number = (hash ^ hash >> 32).wrapping_mul(SPREAD);
    let mut mask = Block::default();
    for probe in 0..PROBES {
        let bit = number >> (probe * PROBE_BITS) & ((1 << PROBE_BITS) - 1);
        mask[usize::try_from(bit / 64).expect("it is small")] |= 1 << (bit % 64);
    }
    (usize::try_from(hash >> 48).expect("it is small") % BLOCKS, mask)
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
        assert!(!bloom.may_know(1, key(0)));
        (0..200_000).for_each(|number| bloom.note(1, key(number)));
        assert!((0..200_000).all(|number| bloom.may_know(1, key(number))));
        let others = (0..200_000).filter(|number| bloom.may_know(2, key(*number))).count();
        assert!(others < 20, "{others} of 200,000");
    }
}
