//! Names of the files that every ledger has.

use std::path::{Path, PathBuf};

/// The database.
pub(crate) const DATABASE: &str = "ledger.db";
/// Locked by the process that has the ledger open.
pub(crate) const LOCK: &str = "lock";

/// Name of the directory into which a start moves a ledger that lies in the directory around it. A ledger in a
/// directory of any other name is left alone.
pub(crate) const DIRECTORY: &str = "ledger";

/// The ledger in the directory of that name below this one, if there is one.
pub(crate) fn below(directory: &Path) -> Option<PathBuf> {
    Some(directory.join(DIRECTORY)).filter(|below| database(below).is_file())
}

/// The path of the database in a ledger's directory.
#[must_use]
pub fn database(directory: &Path) -> PathBuf {
    directory.join(DATABASE)
}
