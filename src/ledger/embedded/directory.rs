//! The ledger's directory on its disk: owner, modes, space, and files that are synced and removed.

pub(crate) mod modes;
pub(crate) mod names;
pub(crate) mod on_disk;
pub(crate) mod owner;
pub(crate) mod reserve;
