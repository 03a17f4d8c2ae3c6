//! Whether a directory is the ledger's own, or may become so: that of somebody else is not closed to them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use crate::ledger::embedded::directory::names::{self, LOCK};
use crate::ledger::embedded::opening::interrupted;
use crate::ledger::embedded::tables::open_error::OpenError;
use crate::ledger::embedded::tables::schema::APPLICATION_ID;

/// Names of what is in somebody else's directory, in a message.
const SHOWN: usize = 3;

/// An error, unless a ledger is in the directory, or nothing that is not a ledger's. What is hidden there is the file
/// system's, as a rule.
pub(crate) fn is_its_own(directory: &Path) -> Result<(), OpenError> {
    if interrupted::is_there(directory) {
        return Ok(());
    }
    let below = names::below(directory);
    let is_ours = |name: &OsStr| {
        let text = name.to_str().unwrap_or_default();
        interrupted::files().any(|file| file == text)
            || [LOCK, "lost+found"].contains(&text)
            || text.starts_with('.')
            || interrupted::is_theirs(name)
            || below.as_deref().and_then(Path::file_name) == Some(name)
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let others =
        entries.filter(|entry| !is_ours(&entry.file_name()) && !is_one_of_ours(&entry.path()));
    let mut names: Vec<String> =
        others.map(|entry| entry.file_name().display().to_string()).collect();
    if names.is_empty() {
        return Ok(());
    }
    names.sort();
    let rest = names.split_off(names.len().min(SHOWN)).len();
    let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    let found = format!("{}{rest}", names.join(", "));
    Err(OpenError::NotItsOwn { path: directory.to_owned(), found })
}

/// Whether a file is the database of a ledger, as a backup is that lies in the directory it is to be restored into.
fn is_one_of_ours(file: &Path) -> bool {
    const ID_AT: usize = 68;
    let mut head = [0; ID_AT + 4];
    let is_regular = fs::metadata(file).is_ok_and(|file| file.is_file());
    is_regular
        && File::open(file).and_then(|mut file| file.read_exact(&mut head)).is_ok()
        && head.get(ID_AT..).map(i64_of) == Some(APPLICATION_ID)
}

fn i64_of(bytes: &[u8]) -> i64 {
    bytes.iter().fold(0, |sum, byte| sum << 8 | i64::from(*byte))
}
