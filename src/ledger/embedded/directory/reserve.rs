//! The free space that the ledger leaves on its disk ([P6](crate::design::P6)): while less is free, nothing
//! new is accepted. Delivery goes on, and uses a little of the reserve to record its outcomes.

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
    /// Whether the last look found the reserve reached.
    was_reached: bool,
    /// What was free beyond the reserve then; `None` if the system does not say.
    spare_bytes: Option<u64>,
}

impl Reserve {
    /// A reserve of zero bytes is never reached.
    pub fn new(directory: PathBuf, bytes: u64) -> Self {
        Self { directory, bytes, was_reached: false, spare_bytes: None }
    }

    /// Whether the last look found the reserve reached.
    pub fn was_reached(&self) -> bool {
        self.was_reached
    }

    /// Bytes that the last look found beyond the reserve; `None` if unknown.
    pub fn spare_bytes(&self) -> Option<u64> {
        self.spare_bytes
    }

    /// Measures the free space; returns a change since the last time. A disk that cannot be measured counts
    /// as having space: a write will tell. `to_copy_bytes` are in SQLite's log and will be copied into the
    /// database, which may grow by as much; where there is a reserve, that space counts as used.
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

/// The reserve was reached, or there is space again.
#[derive(Debug)]
pub(crate) struct Change {
    is_reached: bool,
    free_mib: u64,
    reserve_mib: u64,
}

impl Change {
    /// Logs the change. To be called once it is published: whoever reads the line may send an event at once.
    pub fn say(self) {
        let Self { is_reached, free_mib, reserve_mib } = self;
        if is_reached {
            tracing::error!(
                free_mib,
                reserve_mib,
                "the ledger's disk has reached its reserve (ledger.disk_reserve_mib): no events \
                 are accepted until there is more space; delivery goes on"
            );
        } else {
            tracing::info!(free_mib, reserve_mib, "the ledger's disk has space again");
        }
    }
}

/// Whether a write to the ledger in `directory` failed for want of space and nothing else. Where SQLite's
/// error does not say so (a quota; a file that could not be created), the disk is probed.
pub(crate) fn is_full(error: &rusqlite::Error, directory: &Path) -> bool {
    let Some(failure) = error.sqlite_error() else { return false };
    match (failure.code, failure.extended_code) {
        // The index beside SQLite's log (`-shm`) can be rebuilt from it: nothing is lost.
        (ErrorCode::DiskFull, _) | (_, ffi::SQLITE_IOERR_SHMSIZE) => true,
        (ErrorCode::CannotOpen, _) | (_, ffi::SQLITE_IOERR_WRITE | ffi::SQLITE_IOERR_SHMOPEN) => {
            takes_no_more(directory)
        }
        _ => false,
    }
}

/// Whether the error says that the disk is full or a quota is used up.
pub(crate) fn is_want_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Whether the disk refuses even a little more for want of space.
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

/// A temporary file that probes whether the disk takes any more, …
const PROBE: &str = "space-probe";
/// … a bit more than the index beside SQLite's log (`-shm`) grows by.
const PROBE_BYTES: usize = 64 << 10;

/// Bytes that can still be written to the disk of a directory; `None` if the system does not say.
pub(crate) fn free_bytes(directory: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(directory).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}
