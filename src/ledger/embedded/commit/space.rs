//! Tracks whether the disk has space for new events, and logs each change once.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::ledger::embedded::directory::reserve::Reserve;
use crate::ledger::embedded::engine::shared::Shared;

/// What the writer knows of the disk space.
#[derive(Debug)]
pub(crate) struct Space {
    reserve: Reserve,
    /// A write found no space. Logged once, and once more when there is space again: a full disk should not
    /// be filled with log lines.
    pub is_full: bool,
    shared: Arc<Shared>,
}

impl Space {
    /// For the disk of `directory`, of which `reserve_bytes` are left free.
    pub fn new(directory: PathBuf, reserve_bytes: u64, shared: Arc<Shared>) -> Self {
        Self { reserve: Reserve::new(directory, reserve_bytes), is_full: false, shared }
    }

    /// Measures the free space; `to_copy_bytes` are in SQLite's log and still need space in the database.
    pub fn look(&mut self, to_copy_bytes: u64) {
        if let Some(change) = self.reserve.look(to_copy_bytes) {
            self.show();
            change.say();
        }
    }

    /// Whether the reserve is reached, so that nothing may be recorded.
    pub fn is_reserve_reached(&self) -> bool {
        self.reserve.was_reached()
    }

    /// Bytes free beyond the reserve, if known.
    pub fn spare_bytes(&self) -> Option<u64> {
        self.reserve.spare_bytes()
    }

    /// Whether nothing may be recorded, for either reason.
    pub fn is_wanting(&self) -> bool {
        self.is_full || self.reserve.was_reached()
    }

    /// A write found no space.
    pub fn has_filled_up(&mut self, cause: &str) {
        if !std::mem::replace(&mut self.is_full, true) {
            self.show();
            tracing::error!(
                error = cause,
                "no space on the ledger's disk: no events are accepted until there is"
            );
        }
    }

    /// A write succeeded.
    pub fn has_written(&mut self) {
        if std::mem::take(&mut self.is_full) {
            self.show();
            tracing::info!("the ledger can be written again");
        }
    }

    /// Publishes the state. To be called before any answer is sent, so that nobody sees one without the
    /// other.
    pub fn show(&self) {
        self.shared.has_no_space.store(self.is_wanting(), Ordering::Relaxed);
    }
}
