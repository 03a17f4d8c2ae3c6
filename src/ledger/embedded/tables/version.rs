//! The version of the tables.

/// Version of the tables that this binary makes; an older binary refuses a newer ledger before it touches it.
pub(crate) const VERSION: i64 = 5;
/// From this version on there is a journal.
pub(crate) const JOURNALED: i64 = 4;
