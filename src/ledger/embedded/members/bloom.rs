//! Who was never seen: a Bloom filter, so that a newcomer costs no look into the tables.

/// 4 MiB. Of a million members one in sixty thousand is looked up for nothing, of four million one in
/// fifty.
const BLOCKS: usize = 1 << 16;
/// Words of a block, which is a line of the processor's cache: a look touches one of them.
const WORDS: usize = 8;
const BLOCK_BYTES: usize = WORDS * size_of::<u64>();
/// Bits of a block that are set for each member, chosen by so many bits of a number each.
const PROBES: u32 = 7;
const PROBE_BITS: u32 = 9;

/// Members that were noted, and by chance a few others.
#[derive(Debug, Default)]
pub(crate) struct Bloom {
    /// Empty until somebody is noted, and in memory only where somebody was.
    words: Vec<u64>,
    /// The first of them that begins a line.
    first: usize,
}

impl Bloom {
    /// A member of the audience with this row, by the hash of its key.
    pub fn note(&mut self, audience: i64, hash: u64) {
        if self.words.is_empty() {
            self.words = vec![0; WORDS * (BLOCKS + 1)];
            self.first = self.words.as_ptr().align_offset(BLOCK_BYTES) % WORDS;
        }
        let (word, bits) = place(audience, hash);
        let block = self.words[self.first + word..].first_chunk_mut::<WORDS>();
        let block = block.expect("there is a block more");
        bits.for_each(|(word, bit)| block[word] |= bit);
    }

    /// `false`: it was certainly not noted.
    pub fn may_know(&self, audience: i64, hash: u64) -> bool {
        let (word, bits) = place(audience, hash);
        let block = self.words.get(self.first + word..).and_then(<[u64]>::first_chunk::<WORDS>);
        let Some(block) = block else { return false };
        // All are looked at: the first that is missing could not be foretold.
        bits.fold(0, |missing, (word, bit)| missing | !block[word] & bit) == 0
    }

    /// The beginning of what [`Bloom::may_know`] looks at.
    pub fn look_at(&self, audience: i64, hash: u64) -> u64 {
        let (word, _) = place(audience, hash);
        self.words.get(self.first + word).copied().unwrap_or_default()
    }
}

/// Where the block of a member begins, and its bits there, each by the word that it is in. They are not
/// gathered in a block of their own first: to read one that was just written in pieces is to wait for
/// every write before it, and most of these go to memory far away.
fn place(audience: i64, hash: u64) -> (usize, impl Iterator<Item = (usize, u64)>) {
    // Both are far apart for neighbouring audiences and hashes (Fibonacci hashing).
    const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;
    let hash = (hash ^ audience.cast_unsigned().wrapping_mul(SPREAD)).wrapping_mul(SPREAD);
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
        assert!(!bloom.may_know(1, key(0)));
        (0..200_000).for_each(|number| bloom.note(1, key(number)));
        assert!((0..200_000).all(|number| bloom.may_know(1, key(number))));
        let others = (0..200_000).filter(|number| bloom.may_know(2, key(*number))).count();
        assert!(others < 20, "{others} of 200,000");
    }
}
