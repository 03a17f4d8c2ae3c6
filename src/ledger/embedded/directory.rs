//! The ledger's directory: owner, permissions, free space, and durable file operations.

pub(crate) mod modes;
pub(crate) mod names;
pub(crate) mod on_disk;
pub(crate) mod owner;
pub(crate) mod reserve;
