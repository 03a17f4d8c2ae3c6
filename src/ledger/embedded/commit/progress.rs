//! How far the writer has come in the journal.

use crate::ledger::embedded::wal::Log;

/// Numbers of blocks. Between what is merged and what is read lie the blocks whose members are dirty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// The last block that was read.
    pub read: u64,
    /// The last block that is in the tables, and that is synced.
    pub merged: u64,
    /// Bytes of the blocks between these.
    pub read_bytes: u64,
    /// Until this block is read nothing is claimed: what it says may have been told already, and
    /// whoever was told something newer must not be told what is older ([P3](crate::design::P3)).
    pub told_through: u64,
}

impl Progress {
    /// The blocks behind `merged` were found at the start, up to `last`.
    pub fn new(merged: u64, last: u64) -> Self {
        Self { read: merged, merged, read_bytes: 0, told_through: last }
    }

    /// The blocks up to this one are in the tables, and that is synced.
    pub fn is_merged(&mut self, through: u64, journal: &Log) {
        if self.merged < through {
            self.merged = through;
            self.read_bytes -= journal.merged(through);
        }
    }

    /// Nothing counts that was read and not merged: it is read again. Up to block `through` it may have been told.
    pub fn start_over(&mut self, through: u64) {
        self.told_through = self.told_through.max(through);
        (self.read, self.read_bytes) = (self.merged, 0);
    }
}
