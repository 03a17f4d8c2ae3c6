//! Files and directories of the ledger: synced, taken away, and errors that say which one it was.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// What the system said of a path. What that means, whoever asked for it knows.
#[derive(Debug)]
pub(crate) struct Unusable {
    pub path: PathBuf,
    pub source: io::Error,
}

/// Says of which path an error is.
pub(crate) fn unusable(path: &Path) -> impl FnOnce(io::Error) -> Unusable {
    let path = path.to_owned();
    move |source| Unusable { path, source }
}

/// Puts a file, or the names in a directory, on stable storage.
pub(crate) fn sync(path: &Path) -> Result<(), Unusable> {
    File::open(path).and_then(|opened| opened.sync_all()).map_err(unusable(path))
}

/// The same for the name of a file.
pub(crate) fn sync_name(file: &Path) -> Result<(), Unusable> {
    match file.parent() {
        Some(folder) if folder != Path::new("") => sync(folder),
        _ => sync(Path::new(".")),
    }
}

/// Takes a file away, unless nobody has made it or somebody else has taken it away.
pub(crate) fn remove_if_there(file: &Path) -> Result<(), Unusable> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unusable(file)(error)),
        _ => Ok(()),
    }
}

/// A path beside another one.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
