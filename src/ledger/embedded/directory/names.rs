//! The names of the files that every ledger has.

use std::path::{Path, PathBuf};

/// The database's name in the directory of the ledger.
pub(crate) const DATABASE: &str = "ledger.db";
/// Locked while somebody has the ledger.
pub(crate) const LOCK: &str = "lock";

/// What a directory is called into which a ledger around it is moved. A second ledger of another name, below the
/// first, is another ledger.
pub(crate) const DIRECTORY: &str = "ledger";

/// The ledger into whose directory those around it are moved, if it is there.
pub(crate) fn below(directory: &Path) -> Option<PathBuf> {
    Some(directory.join(DIRECTORY)).filter(|below| database(below).is_file())
}

/// Where the database of a ledger's directory is.
#[must_use]
pub fn database(directory: &Path) -> PathBuf {
    directory.join(DATABASE)
}
