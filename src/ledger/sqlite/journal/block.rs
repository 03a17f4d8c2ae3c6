//! One block as it stands in a file: a header, then the records, then zeros up to a multiple of eight.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | [`MAGIC`] |
//! | 8 | its number |
//! | 4 | bytes of the records |
//! | 4 | CRC-32 of the number, the bytes and the records |

/// Begins every block.
pub(super) const MAGIC: [u8; 8] = *b"cohortdJ";
/// Bytes of a header.
pub(in super::super) const HEADER: usize = 24;
/// Blocks begin at multiples of this.
pub(super) const ALIGNED: usize = 8;

/// A header that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub number: u64,
    /// Of the records.
    pub bytes: usize,
    checksum: u32,
}

impl Header {
    /// `None`: no block begins here.
    pub fn read(bytes: &[u8; HEADER]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let (length, checksum) = rest.split_first_chunk::<4>()?;
        (*magic == MAGIC).then_some(Self {
            number: u64::from_le_bytes(*number),
            bytes: usize::try_from(u32::from_le_bytes(*length)).ok()?,
            checksum: u32::from_le_bytes(checksum.try_into().ok()?),
        })
    }

    /// Whether these are the records that were written with it.
    pub fn is_of(&self, records: &[u8]) -> bool {
        self.bytes == records.len() && checksum(self.number, records) == Some(self.checksum)
    }

    /// From the beginning of this block to the next.
    pub fn whole(&self) -> u64 {
        (HEADER + self.bytes.next_multiple_of(ALIGNED)) as u64
    }
}

/// A block of what stands behind the room for its header in `records`. `None`: it is too large.
pub(super) fn seal(number: u64, block: &mut Vec<u8>) -> Option<()> {
    let (header, records) = block.split_at_mut_checked(HEADER)?;
    let length = u32::try_from(records.len()).ok()?;
    let checksum = checksum(number, records)?;
    header[..8].copy_from_slice(&MAGIC);
    header[8..16].copy_from_slice(&number.to_le_bytes());
    header[16..20].copy_from_slice(&length.to_le_bytes());
    header[20..].copy_from_slice(&checksum.to_le_bytes());
    block.resize(block.len().next_multiple_of(ALIGNED), 0);
    Some(())
}

fn checksum(number: u64, records: &[u8]) -> Option<u32> {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&number.to_le_bytes());
    sum.update(&u32::try_from(records.len()).ok()?.to_le_bytes());
    sum.update(records);
    Some(sum.finalize())
}
