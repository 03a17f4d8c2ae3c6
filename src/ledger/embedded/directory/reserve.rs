//! The part of the disk that the ledger leaves alone ([P6](crate::design::P6)): while less is free, nothing new is
//! accepted. What was accepted is delivered all the same, which needs a little space to note it.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rusqlite::{ErrorCode, ffi};

/// Watches the free space of one disk.
#[derive(Debug)]
pub(crate) struct Reserve {
    directory: PathBuf,
    bytes: u64,
    /// What was seen last.
    was_reached: bool,
    /// What was free beyond the reserve then; `None`: the system does not say.
    spare_bytes: Option<u64>,
}

impl Reserve {
    /// A reserve of no bytes is never reached.
    pub fn new(directory: PathBuf, bytes: u64) -> Self {
        Self { directory, bytes, was_reached: false, spare_bytes: None }
    }

    /// What the last look has shown.
    pub fn was_reached(&self) -> bool {
        self.was_reached
    }

    /// What the last look has found beyond the reserve, in bytes; `None`: it is not known.
    pub fn spare_bytes(&self) -> Option<u64> {
        self.spare_bytes
    }

    /// Looks; what has changed since the last time. A disk that cannot be asked counts as one with
    /// space: a write will tell. `to_copy_bytes` stand in SQLite's log and are to be copied into the
    /// database, which may grow by as much: where there is a reserve, that space is spoken for too.
    pub fn look(&mut self, to_copy_bytes: u64) -> Option<Change> {
        let free_bytes = free_bytes(&self.directory);
        self.spare_bytes = free_bytes.map(|free| free.saturating_sub(self.bytes));
        let needed_bytes = self.bytes.saturating_add(to_copy_bytes);
        let is_reached = self.bytes > 0 && free_bytes.is_some_and(|free| free < needed_bytes);
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
pub(crate) struct Change {
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

/// Whether a write to the ledger in `directory` failed for want of space, and for nothing else. Where
/// SQLite says only that it failed (a quota; a file that could not be made), the disk is asked.
pub(crate) fn is_full(error: &rusqlite::Error, directory: &Path) -> bool {
    let Some(failure) = error.sqlite_error() else { return false };
    match (failure.code, failure.extended_code) {
        // The index beside the log only says where what is in the log stands.
        (ErrorCode::DiskFull, _) | (_, ffi::SQLITE_IOERR_SHMSIZE) => true,
        (ErrorCode::CannotOpen, _) | (_, ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_SHMOPEN) => {
            takes_no_more(directory)
        }
        _ => false,
    }
}

/// Whether this says that there is no space, or that a quota is used up.
pub(crate) fn is_want_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Whether the disk refuses a little more for want of space.
fn takes_no_more(directory: &Path) -> bool {
    let path = directory.join(PROBE);
    let write = || {
        let file = File::create(&path)?;
        file.write_all_at(&vec![b'x'; PROBE_BYTES], 0)?;
        file.sync_all()
    };
    let written = write();
    let _ = fs::remove_file(&path); // it may not have been made
    written.is_err_and(|error| is_want_of_space(&error))
}

/// A file that is there only while it is tried whether the disk takes any more, …
const PROBE: &str = "space-probe";
/// … as much as the index beside the log grows by, and some.
const PROBE_BYTES: usize = 64 << 10;

/// What the disk of a directory could still take; `None`: the system does not say.
pub(crate) fn free_bytes(directory: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(directory).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}
