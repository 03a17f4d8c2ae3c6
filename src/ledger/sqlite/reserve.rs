//! The part of the disk that the ledger leaves alone (P6): while less is free, nothing new is
//! accepted. What was accepted is delivered all the same, which needs a little space to note it.

use std::path::PathBuf;

use rusqlite::ErrorCode;

/// Watches the free space of one disk.
#[derive(Debug)]
pub(super) struct Reserve {
    directory: PathBuf,
    bytes: u64,
    /// What was seen last; said once, and once more when it is over.
    was_reached: bool,
}

impl Reserve {
    /// A reserve of no bytes is never reached.
    pub fn new(directory: PathBuf, bytes: u64) -> Self {
        Self { directory, bytes, was_reached: false }
    }

    /// What the last look has shown.
    pub fn was_reached(&self) -> bool {
        self.was_reached
    }

    /// Looks, and says when it changes. A disk that cannot be asked counts as one with space: a write
    /// will tell.
    pub fn is_reached(&mut self) -> bool {
        if self.bytes == 0 {
            return false;
        }
        let Ok(disk) = rustix::fs::statvfs(&self.directory) else { return false };
        let free_mib = disk.f_bavail.saturating_mul(disk.f_frsize) / (1024 * 1024);
        let reserve_mib = self.bytes / (1024 * 1024);
        let is_reached = free_mib < reserve_mib;
        if is_reached != std::mem::replace(&mut self.was_reached, is_reached) {
            if is_reached {
                tracing::error!(
                    free_mib,
                    reserve_mib,
                    "the ledger's disk has reached its reserve: nothing is accepted until there is \
                     more space; delivery goes on"
                );
            } else {
                tracing::info!(free_mib, reserve_mib, "the ledger's disk has space again");
            }
        }
        is_reached
    }
}

/// Whether a write failed for want of space, and for nothing else.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}
