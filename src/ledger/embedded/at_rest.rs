//! The ledger as files: what people do to it while no daemon runs, or beside one.

pub(crate) mod backup;
pub(crate) mod check;
pub(crate) mod export;
pub(crate) mod prepare;
pub(crate) mod rename;
pub(crate) mod reset_clock;
pub(crate) mod restore;
