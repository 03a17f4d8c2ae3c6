//! The ledger as files: what the command line does to it, with or without a running daemon.

pub(crate) mod backup;
pub(crate) mod check;
pub(crate) mod copying;
pub(crate) mod export;
pub(crate) mod prepare;
pub(crate) mod rename;
pub(crate) mod reset_clock;
pub(crate) mod restore;
