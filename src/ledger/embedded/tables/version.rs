//! The version of the tables.

/// The version that this binary creates; an older binary refuses a newer ledger before it touches it.
pub(crate) const VERSION: i64 = 7;
/// The first version with a log (journal).
pub(crate) const JOURNALED: i64 = 4;
