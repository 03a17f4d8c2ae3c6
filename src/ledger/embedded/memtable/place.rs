//! Where a member is: in the memtable, or only in its row.

use crate::ledger::embedded::ids::SlotNumber;
use std::num::NonZeroU32;

/// Where a member is; valid until the next flush.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The hash of its key.
    pub hash: u64,
    /// Its slot number plus one, so that a `Place` is two words and fits in registers.
    behind: Option<NonZeroU32>,
}

impl Place {
    pub fn new(hash: u64, number: Option<SlotNumber>) -> Self {
        Self { hash, behind: number.and_then(|number| NonZeroU32::MIN.checked_add(number.0)) }
    }

    pub fn number(self) -> Option<SlotNumber> {
        self.behind.map(|behind| SlotNumber(behind.get() - 1))
    }

    /// Whether the member is only in its row.
    pub fn is_row(self) -> bool {
        self.behind.is_none()
    }
}
