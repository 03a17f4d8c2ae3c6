//! The part of the disk that the ledger leaves alone (P6): while less is free, nothing new is
//! accepted. What was accepted is delivered all the same, which needs a little space to note it.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Watches the free space of one disk.
#[derive(Debug)]
pub(super) struct Reserve {
    directory: PathBuf,
    bytes: u64,
    /// What was seen last.
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

    /// Looks; what has changed since the last time. A disk that cannot be asked counts as one with
    /// space: a write will tell.
    pub fn look(&mut self) -> Option<Change> {
        let free_bytes = if self.bytes == 0 { None } else { free_bytes(&self.directory) };
        let is_reached = free_bytes.is_some_and(|free| free < self.bytes);
        let changed = is_reached != std::mem::replace(&mut self.was_reached, is_reached);
        let mib = |bytes| bytes / (1024 * 1024);
        changed.then(|| Change {
            is_reached,
            free_mib: free_bytes.map_or(0, mib),
            reserve_mib: mib(self.bytes),
        })
    }
}

/// The reserve is reached now, or not any more.
#[derive(Debug)]
pub(super) struct Change {
    is_reached: bool,
    free_mib: u64,
    reserve_mib: u64,
}

impl Change {
    /// Says it, to be called when it shows: whoever reads that may send something at once.
    pub fn say(self) {
        let Self { is_reached, free_mib, reserve_mib } = self;
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
}

/// Whether a write failed for want of space, and for nothing else.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// What the disk of a directory could still take; `None`: the system does not say.
pub(super) fn free_bytes(directory: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(directory).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}
