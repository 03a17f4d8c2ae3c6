//! One block as it stands in a file: a header, then the records, then zeros up to a multiple of eight.
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
//! The version says how the records are to be read. The header, and what its checksum is of, stay the
//! same in every version from 2 on: so a block of a version that is not known can be told from one
//! that is damaged.
//!
//! * 1 had the letter `J` where the version stands now, and a checksum of the number, the bytes and the
//!   records alone.
//! * 2 has a version, and the key in the checksum. What senders send stands in the files, and old blocks
//!   are read at a start to see whether anything newer stands behind a bad one: without the key, a
//!   sender could send something that looks like a block.

/// Begins every block.
pub(crate) const MAGIC: [u8; 7] = *b"cohortd";
/// The version that is written, and the newest that can be read.
pub(crate) const VERSION: u8 = 2;
/// The version that had no version, and what stands in its place.
pub(crate) const UNVERSIONED: u8 = 1;
const UNVERSIONED_MARK: u8 = b'J';
/// Bytes of a header.
pub(crate) const HEADER: usize = 24;
/// Blocks begin at multiples of this.
pub(crate) const ALIGNED: usize = 8;

/// The ledger's key, as the checksum of every block begins with it.
#[derive(Clone)]
pub(crate) struct Seal(crc32fast::Hasher);

/// A header that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub version: u8,
    pub number: u64,
    /// Of the records.
    pub bytes: usize,
    checksum: u32,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Seal")
    }
}

impl Seal {
    /// `key`: made with the ledger, and known to nobody who cannot read it.
    pub fn of(key: &[u8]) -> Self {
        let mut sum = crc32fast::Hasher::new();
        sum.update(b"journal");
        sum.update(key);
        Self(sum)
    }

    /// Makes a block of what stands behind the room for its header. `None`: it is too large.
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

    /// Whether these are the records that were written with this header.
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
    /// `None`: no block begins here.
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

    /// From the beginning of this block to the next.
    pub fn whole(&self) -> u64 {
        (HEADER + self.bytes.next_multiple_of(ALIGNED)) as u64
    }
}
