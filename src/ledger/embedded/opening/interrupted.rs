//! What a restore or a backup that was interrupted has left in the ledger's directory: finished, or thrown
//! away, before anybody opens it.

use crate::ledger::embedded::directory::names::{self, DATABASE};
use crate::ledger::embedded::directory::on_disk::{
    Unusable, remove_if_there, sync, unusable, with_suffix,
};
use crate::ledger::embedded::tables::open_error::OpenError;
use crate::ledger::embedded::wal;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// A copy in the ledger's directory until it has been passed on.
pub(crate) const STREAMED: &str = "streamed";
/// Behind the name of a copy that is being made.
pub(crate) const UNFINISHED: &str = ".unfinished";

pub(crate) const PREPARING: &str = "restoring";
pub(crate) const COMMITTED: &str = "restored";
/// In either of them.
pub(crate) const BEFORE: &str = "before";
pub(crate) const SET_ASIDE: &str = "before-restore-";
pub(crate) const LEFT: &str = "restoring-left-";

/// In the place of a ledger that is moved: its new directory, while it is made.
pub(crate) const MOVING: &str = "moving";

/// The names of all files of a ledger but its lock; the database first.
pub(crate) fn files() -> impl Iterator<Item = &'static str> {
    let of_database = [DATABASE, "ledger.db-journal", "ledger.db-wal", "ledger.db-shm"];
    of_database.into_iter().chain(wal::FILES).chain([wal::ANSWERED])
}

/// After whatever has ended a restore: finishes it if it counted, or else throws away what was
/// prepared. So it does with the copy of a backup that was killed. Nobody else may have the ledger.
pub(crate) fn settle(directory: &Path) -> Result<(), OpenError> {
    remove_streamed(directory)?;
    let preparing = directory.join(PREPARING);
    if preparing.exists() {
        tracing::warn!("a restore was interrupted before it took effect: deleting its copy");
        if let Err(error) = fs::remove_dir_all(&preparing) {
            // Root may have been ended before it gave it away. Nothing reads it under that name.
            let left = next_name(directory, LEFT)?;
            fs::rename(&preparing, &left).map_err(unusable(&preparing))?;
            let path = left.display();
            tracing::warn!(
                %error,
                %path,
                "the copy of the interrupted restore cannot be deleted: remove it by hand"
            );
        }
    }
    if directory.join(COMMITTED).exists() {
        tracing::warn!("a restore was interrupted: completing it");
        finish(directory)?;
    }
    Ok(())
}

/// Whether a restore was begun and is neither finished nor undone.
pub(crate) fn is_under_way(directory: &Path) -> bool {
    [PREPARING, COMMITTED].iter().any(|name| directory.join(name).exists())
}

/// Whether this is the name of a ledger that was there before.
pub(crate) fn is_set_aside(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(SET_ASIDE))
}

/// Moves the old ledger away and the new one into its place, from wherever this was interrupted.
pub(crate) fn finish(directory: &Path) -> Result<Option<PathBuf>, OpenError> {
    let committed = directory.join(COMMITTED);
    let (arriving, before) = (names::database(&committed), committed.join(BEFORE));
    if arriving.exists() {
        for name in files() {
            let (here, there) = (directory.join(name), before.join(name));
            if !here.exists() {
                continue;
            }
            if there.exists() {
                // Whoever was reading the old database has made it since.
                fs::remove_file(&here).map_err(unusable(&here))?;
            } else {
                fs::rename(&here, &there).map_err(unusable(&here))?;
            }
        }
        sync(&before)?;
        sync(directory)?;
        fs::rename(&arriving, names::database(directory)).map_err(unusable(&arriving))?;
        sync(directory)?;
        sync(&committed)?;
    }
    let aside = set_aside(directory, &before)?;
    sync(directory)?;
    fs::remove_dir_all(&committed).map_err(unusable(&committed))?; // what counts has left it
    sync(directory)?;
    Ok(aside)
}

/// Gives what was moved away its name; `None`: there was nothing.
fn set_aside(directory: &Path, before: &Path) -> Result<Option<PathBuf>, OpenError> {
    match fs::read_dir(before) {
        Ok(mut files) => {
            if files.next().is_none() {
                fs::remove_dir(before).map_err(unusable(before))?;
                return Ok(None);
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None), // it has it already
        Err(error) => return Err(unusable(before)(error).into()),
    }
    let aside = next_aside(directory)?;
    fs::rename(before, &aside).map_err(unusable(&aside))?;
    Ok(Some(aside))
}

/// Whether one has counted and its copy is not in its place yet.
pub(crate) fn has_counted(directory: &Path) -> bool {
    names::database(&directory.join(COMMITTED)).is_file()
}

/// Where one more ledger can be set aside.
pub(crate) fn next_aside(directory: &Path) -> Result<PathBuf, OpenError> {
    next_name(directory, SET_ASIDE)
}

/// The name with the next number behind it.
fn next_name(directory: &Path, name: &str) -> Result<PathBuf, OpenError> {
    let names = fs::read_dir(directory).map_err(unusable(directory))?;
    let numbers = names.filter_map(|entry| {
        let found = entry.ok()?.file_name();
        found.to_str()?.strip_prefix(name)?.parse::<u64>().ok()
    });
    Ok(directory.join(format!("{name}{}", numbers.max().unwrap_or(0) + 1)))
}

/// Takes away what a stream that was killed has left in the ledger's directory, unless one is being made.
pub(crate) fn remove_streamed(directory: &Path) -> Result<(), OpenError> {
    let turn = File::open(directory).map_err(unusable(directory))?;
    if turn.try_lock().is_err() {
        return Ok(());
    }
    let copy = directory.join(STREAMED);
    remove_unfinished(&with_suffix(&copy, UNFINISHED))?;
    Ok(remove_if_there(&copy)?)
}

/// Takes away a copy that was not finished, and what SQLite has kept beside it meanwhile.
pub(crate) fn remove_unfinished(unfinished: &Path) -> Result<(), Unusable> {
    remove_if_there(&with_suffix(unfinished, "-journal"))?;
    remove_if_there(unfinished)
}

/// Whether a restore, a backup or a move has made what is called like this.
pub(crate) fn is_theirs(name: &OsStr) -> bool {
    let text = name.to_str().unwrap_or_default();
    [PREPARING, COMMITTED, MOVING].contains(&text)
        || text.starts_with(LEFT)
        || text.starts_with(STREAMED)
        || is_set_aside(name)
}

/// Whether a ledger is in the directory, whole or in the middle of a restore that counts.
#[must_use]
pub fn is_there(directory: &Path) -> bool {
    names::database(directory).exists() || has_counted(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_thrown_away_does_not_stop_a_start() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let preparing = directory.path().join(PREPARING);
        fs::write(&preparing, "no directory, so that it cannot be removed as one").expect("room");
        settle(directory.path()).expect("it is left");
        assert!(!is_under_way(directory.path()));
        assert!(directory.path().join("restoring-left-1").exists());
    }

    #[test]
    fn what_is_left_beside_a_ledger_that_is_in_its_place_goes() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let committed = directory.path().join(COMMITTED);
        fs::create_dir(&committed).expect("room");
        fs::write(committed.join("ledger.db-shm"), "").expect("room");
        settle(directory.path()).expect("it is finished");
        assert!(!committed.exists());
    }
}
