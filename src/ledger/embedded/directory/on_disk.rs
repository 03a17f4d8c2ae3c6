//! Durable operations on the ledger's files and directories, whose errors name the path.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// An error of the operating system and its path. The caller knows what it means.
#[derive(Debug)]
pub(crate) struct Unusable {
    pub path: PathBuf,
    pub source: io::Error,
}

/// Attaches a path to an error.
pub(crate) fn unusable(path: &Path) -> impl FnOnce(io::Error) -> Unusable {
    let path = path.to_owned();
    move |source| Unusable { path, source }
}

/// Syncs a file, or the entries of a directory, to stable storage.
pub(crate) fn sync(path: &Path) -> Result<(), Unusable> {
    File::open(path).and_then(|opened| opened.sync_all()).map_err(unusable(path))
}

/// Syncs the directory entry of a file.
pub(crate) fn sync_name(file: &Path) -> Result<(), Unusable> {
    match file.parent() {
        Some(folder) if folder != Path::new("") => sync(folder),
        _ => sync(Path::new(".")),
    }
}

/// Removes a file; it is fine if there is none.
pub(crate) fn remove_if_there(file: &Path) -> Result<(), Unusable> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unusable(file)(error)),
        _ => Ok(()),
    }
}

/// The path with a suffix appended to its file name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
