//! Names of the files that every ledger has.

use std::path::{Path, PathBuf};

/// The database.
pub(crate) const DATABASE: &str = "ledger.db";
/// Locked by the process that has the ledger open.
pub(crate) const LOCK: &str = "lock";

/// The path of the database in a ledger's directory.
#[must_use]
pub fn database(directory: &Path) -> PathBuf {
    directory.join(DATABASE)
}
