//! Whether the disk has space for what is to be recorded, as far as the writer knows, and saying so once.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::ledger::embedded::directory::reserve::Reserve;
use crate::ledger::embedded::engine::shared::Shared;

/// What is known of the space on the disk.
#[derive(Debug)]
pub(crate) struct Space {
    reserve: Reserve,
    /// A write found none. Said once, and once more when it is over: a full disk would be filled with complaints.
    pub is_full: bool,
    shared: Arc<Shared>,
}

impl Space {
    /// Of the disk of `directory`, of which so many bytes are left alone.
    pub fn new(directory: PathBuf, reserve_bytes: u64, shared: Arc<Shared>) -> Self {
        Self { reserve: Reserve::new(directory, reserve_bytes), is_full: false, shared }
    }

    /// Looks how much is free; `to_copy_bytes` stand in SQLite's log.
    pub fn look(&mut self, to_copy_bytes: u64) {
        if let Some(change) = self.reserve.look(to_copy_bytes) {
            self.show();
            change.say();
        }
    }

    /// Whether nothing may be recorded for the sake of the reserve.
    pub fn is_reserve_reached(&self) -> bool {
        self.reserve.was_reached()
    }

    /// What is free beyond the reserve, in bytes, if that is known.
    pub fn spare_bytes(&self) -> Option<u64> {
        self.reserve.spare_bytes()
    }

    /// Whether nothing may be recorded.
    pub fn is_wanting(&self) -> bool {
        self.is_full || self.reserve.was_reached()
    }

    /// A write found none.
    pub fn has_filled_up(&mut self, cause: &str) {
        if !std::mem::replace(&mut self.is_full, true) {
            self.show();
            tracing::error!(
                error = cause,
                "no space for the ledger: nothing is accepted until there is"
            );
        }
    }

    /// Something was written.
    pub fn has_written(&mut self) {
        if std::mem::take(&mut self.is_full) {
            self.show();
            tracing::info!("there is space for the ledger again");
        }
    }

    /// To be called before anybody is answered, so that nobody sees the one without the other.
    pub fn show(&self) {
        self.shared.has_no_space.store(self.is_wanting(), Ordering::Relaxed);
    }
}
