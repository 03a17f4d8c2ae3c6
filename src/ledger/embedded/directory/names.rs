//! The names of the files that every ledger has.

use std::path::{Path, PathBuf};

/// The database's name in the directory of the ledger.
pub(crate) const DATABASE: &str = "ledger.db";
/// Locked while somebody has the ledger.
pub(crate) const LOCK: &str = "lock";

/// Where the database of a ledger's directory is.
#[must_use]
pub fn database(directory: &Path) -> PathBuf {
    directory.join(DATABASE)
}
