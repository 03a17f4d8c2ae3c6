//! One block in a file: a header, then the records, then zeros up to a multiple of eight.
//!
//! | bytes | what |
//! | --- | --- |
//! | 7 | [`MAGIC`] |
//! | 1 | the version of the format |
//! | 8 | its number |
//! | 4 | bytes of the records |
//! | 4 | CRC-32 of the ledger's key, the version, the number, the bytes and the records |
//!
//! # Versions
//! The version says how to decode the records. The header and the scope of its checksum are the same in every
//! version from 2 on, so that a block of an unknown version can be told from a damaged one.
//!
//! * Version 1 has the letter `J` in place of the version, and a checksum of the number, the length and the
//!   records only.
//! * Version 2 has a version, and a keyed checksum. The files contain what senders send, and a start also
//!   searches old blocks for a newer one behind a bad one: without the key, a sender could send something
//!   that looks like a block.

/// The first bytes of every block.
pub(crate) const MAGIC: [u8; 7] = *b"cohortd";
/// The version that is written, and the newest that is understood.
pub(crate) const VERSION: u8 = 2;
/// Version 1, which has no version field, and the letter in its place.
pub(crate) const UNVERSIONED: u8 = 1;
const UNVERSIONED_MARK: u8 = b'J';
/// Bytes of the header.
pub(crate) const HEADER: usize = 24;
/// Blocks start at multiples of this.
pub(crate) const ALIGNED: usize = 8;

/// The keyed checksum of blocks: a CRC that has already consumed the ledger's key.
#[derive(Clone)]
pub(crate) struct Seal(crc32fast::Hasher);

/// A decoded header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub version: u8,
    pub number: u64,
    /// Bytes of the records.
    pub bytes: usize,
    checksum: u32,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Seal")
    }
}

impl Seal {
    /// `key`: created with the ledger, and known only to those who can read the ledger.
    pub fn of(key: &[u8]) -> Self {
        let mut sum = crc32fast::Hasher::new();
        sum.update(b"journal");
        sum.update(key);
        Self(sum)
    }

    /// Completes a block whose records follow a gap for the header. `None`: it is too large.
    pub(crate) fn put(&self, number: u64, block: &mut Vec<u8>) -> Option<()> {
        let (header, records) = block.split_at_mut_checked(HEADER)?;
        let length = u32::try_from(records.len()).ok()?;
        let checksum = self.checksum(VERSION, number, records)?;
        header[..7].copy_from_slice(&MAGIC);
        header[7] = VERSION;
        header[8..16].copy_from_slice(&number.to_le_bytes());
        header[16..20].copy_from_slice(&length.to_le_bytes());
        header[20..].copy_from_slice(&checksum.to_le_bytes());
        block.resize(block.len().next_multiple_of(ALIGNED), 0);
        Some(())
    }

    /// Whether these records match the header.
    pub(crate) fn is_on(&self, header: &Header, records: &[u8]) -> bool {
        header.bytes == records.len()
            && self.checksum(header.version, header.number, records) == Some(header.checksum)
    }

    fn checksum(&self, version: u8, number: u64, records: &[u8]) -> Option<u32> {
        let mut sum = if version == UNVERSIONED {
            crc32fast::Hasher::new()
        } else {
            let mut sum = self.0.clone();
            sum.update(&[version]);
            sum
        };
        sum.update(&number.to_le_bytes());
        sum.update(&u32::try_from(records.len()).ok()?.to_le_bytes());
        sum.update(records);
        Some(sum.finalize())
    }
}

impl Header {
    /// `None`: no block starts here.
    pub fn read(bytes: &[u8; HEADER]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<7>()?;
        let (version, rest) = rest.split_first()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (length, checksum) = rest.split_first_chunk::<4>()?;
        let version = match *version {
            UNVERSIONED_MARK => UNVERSIONED,
            version if version > UNVERSIONED => version,
            _ => return None,
        };
        (*magic == MAGIC).then_some(Self {
            version,
            number: u64::from_le_bytes(*number),
            bytes: usize::try_from(u32::from_le_bytes(*length)).ok()?,
            checksum: u32::from_le_bytes(checksum.try_into().ok()?),
        })
    }

    /// Bytes from the start of this block to the next.
    pub fn whole(&self) -> u64 {
        (HEADER + self.bytes.next_multiple_of(ALIGNED)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(block: &[u8]) -> Option<Header> {
        Header::read(block.first_chunk().expect("it has a header"))
    }

    #[test]
    fn a_block_is_known_by_its_first_bytes_and_says_its_version() {
        let mut block = vec![0; HEADER];
        block.extend_from_slice(b"nine byte");
        Seal::of(b"a key").put(7, &mut block).expect("it is small");
        assert_eq!(block.len(), 40, "the next one begins at a multiple of eight");
        let header = read(&block).expect("a header");
        assert_eq!((header.version, header.number, header.bytes), (VERSION, 7, 9));
        assert_eq!(header.whole(), 40);
        let versions = [
            (UNVERSIONED_MARK, Some(1)),
            (0, None),
            (1, None),
            (2, Some(2)),
            (3, Some(3)),
            (255, Some(255)),
        ];
        for (byte, version) in versions {
            block[7] = byte;
            assert_eq!(read(&block).map(|header| header.version), version, "{byte}");
        }
        for at in 0..MAGIC.len() {
            let mut other = block.clone();
            other[at] ^= 1;
            assert_eq!(read(&other), None, "byte {at}");
        }
    }

    #[test]
    fn a_seal_is_broken_by_any_change_and_by_another_key() {
        let seal = Seal::of(b"a key");
        let mut block = vec![0; HEADER];
        block.extend_from_slice(b"records");
        seal.put(7, &mut block).expect("it is small");
        let is_sound = |seal: &Seal, block: &[u8], bytes: usize| {
            read(block).is_some_and(|header| seal.is_on(&header, &block[HEADER..HEADER + bytes]))
        };
        assert!(is_sound(&seal, &block, 7));
        assert!(!is_sound(&seal, &block, 6) && !is_sound(&seal, &block, 8), "not all, or more");
        assert!(!is_sound(&Seal::of(b"another key"), &block, 7));
        for at in 0..HEADER + 7 {
            let mut changed = block.clone();
            changed[at] ^= 1;
            assert!(!is_sound(&seal, &changed, 7), "byte {at}");
        }
    }
}
