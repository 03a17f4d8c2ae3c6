//! Where a member is: in the memtable, or only in its row.

use crate::ledger::embedded::ids::SlotNumber;

/// Where a member is; valid until the next flush.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The hash of its key.
    pub hash: u64,
    /// Its slot in the memtable, if it is there.
    pub slot: Option<SlotNumber>,
}

impl Place {
    /// Whether the member is only in its row.
    pub fn is_row(self) -> bool {
        self.slot.is_none()
    }
}
