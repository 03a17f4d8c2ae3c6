//! Who was never seen: a Bloom filter, so that a newcomer costs no look into the tables.

/// Bits: 2 MiB. Of a million members one in a thousand is looked up for nothing, of four million
/// one in five.
const BITS: u64 = 1 << 24;
/// Bits set for each member.
const PROBES: u32 = 4;

/// Members that were noted, and by chance a few others.
#[derive(Debug, Default)]
pub(super) struct Bloom {
    /// Empty until somebody is noted.
    words: Vec<u64>,
}

impl Bloom {
    /// A member of the audience with this row, by the hash of its key.
    pub fn note(&mut self, audience: i64, hash: u64) {
        if self.words.is_empty() {
            self.words = vec![0; usize::try_from(BITS / 64).expect("it is small")];
        }
        for (word, bit) in probes(audience, hash) {
            self.words[word] |= bit;
        }
    }

    /// `false`: it was certainly not noted.
    pub fn may_know(&self, audience: i64, hash: u64) -> bool {
        !self.words.is_empty()
            && probes(audience, hash).all(|(word, bit)| self.words[word] & bit != 0)
    }
}

/// The positions of a member, by two hashes (Kirsch and Mitzenmacher).
fn probes(audience: i64, hash: u64) -> impl Iterator<Item = (usize, u64)> {
    // Neighbouring audiences are far apart (Knuth's multiplicative hash).
    let hash = hash ^ audience.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let step = hash.rotate_left(32) | 1;
    (0..PROBES).map(move |probe| {
        let bit = hash.wrapping_add(step.wrapping_mul(probe.into())) % BITS;
        (usize::try_from(bit / 64).expect("it is small"), 1 << (bit % 64))
    })
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
