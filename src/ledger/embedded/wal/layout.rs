//! The files of the log in the ledger's directory, and the location of a block.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use tokio::time::Instant;

/// Names of the files in the ledger's directory.
pub(crate) const FILES: [&str; 2] = ["journal-1", "journal-2"];
/// Holds the number of the last block that was answered, if the process was killed but the machine was not:
/// written after each sync, and not synced itself.
pub(crate) const ANSWERED: &str = "journal-answered";

/// The location of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Its number.
    pub number: u64,
    /// Index of its file.
    pub file: usize,
    /// Offset of its header.
    pub offset: u64,
    /// Bytes of header and records.
    pub bytes: u64,
    /// An instant before its first stamp was given out; `None` if an earlier process wrote it.
    pub began: Option<Instant>,
}

/// The number in [`ANSWERED`]; 0 if it cannot be read.
pub(crate) fn answered(path: &Path) -> u64 {
    let mut bytes = [0; 12];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut bytes, 0));
    if read.is_err() {
        return 0;
    }
    let number = bytes.first_chunk::<8>().copied().unwrap_or_default();
    let is_sound = bytes.get(8..12) == Some(&crc32fast::hash(&number).to_le_bytes());
    if is_sound { u64::from_le_bytes(number) } else { 0 }
}

/// Whether there are log files, which may have to be merged or moved.
pub(crate) fn exist(directory: &Path) -> bool {
    FILES.iter().any(|name| fs::exists(directory.join(name)).unwrap_or(true))
}
