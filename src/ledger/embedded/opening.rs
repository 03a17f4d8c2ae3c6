//! Opening the ledger: takes its lock, finishes what was interrupted, and migrates the database to this
//! version.

pub(crate) mod interrupted;
pub(crate) mod its_own;
pub(crate) mod lock;
pub(crate) mod look;
pub(crate) mod moved;
pub(crate) mod open;
