//! The files of the log in the ledger's directory, and where in them a block is.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use tokio::time::Instant;

/// Their names in the directory of the ledger.
pub(crate) const FILES: [&str; 2] = ["journal-1", "journal-2"];
/// The number of the last block that was answered, if the process was killed and the machine was not:
/// written after each sync, and not synced itself.
pub(crate) const ANSWERED: &str = "journal-answered";

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Its number.
    pub number: u64,
    /// Which of the files.
    pub file: usize,
    /// Of its header.
    pub offset: u64,
    /// Of header and records.
    pub bytes: u64,
    /// Before its first stamp was given out; `None`: by a daemon of before.
    pub began: Option<Instant>,
}

/// What [`ANSWERED`] says; zero if it cannot be read: then it says nothing.
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

/// Whether anything is there to be merged or moved.
pub(crate) fn exist(directory: &Path) -> bool {
    FILES.iter().any(|name| fs::exists(directory.join(name)).unwrap_or(true))
}
