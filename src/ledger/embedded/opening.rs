//! Opening the ledger: its lock is taken, what was interrupted is finished, and the database is brought to this
//! version.

pub(crate) mod interrupted;
pub(crate) mod its_own;
pub(crate) mod lock;
pub(crate) mod look;
pub(crate) mod moved;
pub(crate) mod open;
