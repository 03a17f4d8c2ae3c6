//! Where a member is: in the memtable, or only in its row.

use std::num::NonZeroU32;

/// Where a member is found, until rows are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Of its key.
    pub hash: u64,
    /// One more than its number among those of its audience that are not written yet: two words in all,
    /// which stay in registers.
    behind: Option<NonZeroU32>,
}

impl Place {
    pub fn new(hash: u64, number: Option<u32>) -> Self {
        Self { hash, behind: number.and_then(|number| NonZeroU32::MIN.checked_add(number)) }
    }

    pub fn number(self) -> Option<u32> {
        self.behind.map(|behind| behind.get() - 1)
    }

    /// Whether its row says what it is.
    pub fn is_row(self) -> bool {
        self.behind.is_none()
    }
}
