//! Opening the ledger: its lock is taken, what was interrupted is finished, and the database is brought to this
//! version.

pub(crate) mod interrupted;
pub(crate) mod lock;
pub(crate) mod moved;
pub(crate) mod open;
