//! The way back: a backup, or a ledger that was set aside, in the place of the ledger.
//!
//! # What always holds
//! * Whatever ends a restore, there is a whole ledger afterwards: the old one before the copy gets the
//!   name [`COMMITTED`], the new one from then on. Whoever takes the lock next finishes it, or throws
//!   away what was prepared ([`settle`]).
//! * The old log and journal never meet the new database: they are moved away before it comes.
//! * Nothing is lost: the ledger that was there is set aside, under a name that was never used before.
//! * Everything happens in the ledger's own directory, which may be a volume, and its files stay their
//!   owner's, whoever restores.
//! * After a restore everything is told again: what LaunchDarkly was told since is not known.
//!
//! # In the directory
//! | name | what |
//! | --- | --- |
//! | `restoring` | the copy while it is made and checked |
//! | `restored` | the same from the moment when it counts, until it is in its place |
//! | `restored/before` | what of the old ledger has been moved already |
//! | `restoring-left-1`, … | of an interrupted restore of another user, what its owner has to remove |
//! | `before-restore-1`, … | the ledgers that were there before |
//!
//! What comes as a stream is kept there too before it is looked at.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::backup::{BackupError, backup, remove_streamed, verify};
use super::on_disk::{sync, unusable, with_suffix};
use super::owner::Owner;
use super::schema::{self, OpenError};

/// The first bytes of every database.
const HEAD: &[u8] = b"SQLite format 3\0";
/// The size of a page stands there, and then how the database is written and read.
const WRITTEN_AT: usize = HEAD.len() + 2;
/// With a log beside it, as that of a daemon is and a backup is not.
const WITH_LOG: [u8; 2] = [2, 2];

const PREPARING: &str = "restoring";
const COMMITTED: &str = "restored";
/// In either of them.
const BEFORE: &str = "before";
const SET_ASIDE: &str = "before-restore-";
const LEFT: &str = "restoring-left-";

/// Puts `from`, a backup or the directory of a ledger, in the place of the ledger at `directory`, which
/// no daemon may be using. Gives back where the ledger that was there is now, if there was one.
pub fn restore(directory: &Path, from: &Path) -> Result<Option<PathBuf>, BackupError> {
    if from.is_file() {
        is_whole(from)?;
        let mut head = Vec::new();
        let opened = File::open(from).map_err(unusable(from))?;
        read_head(opened, &mut head).map_err(unusable(from))?;
        if is_raw(&head) {
            return Err(BackupError::Raw(from.to_owned()));
        }
        // before a directory is made for what is no ledger
        schema::open_to_read(from).map_err(|error| BackupError::from(error).of(from))?;
    } else if !schema::database(from).is_file() {
        return Err(OpenError::Missing(from.to_owned()).into());
    }
    put_in_place(directory, Origin::Path(from))
}

/// The same of a backup that comes as a stream.
pub fn restore_from(
    directory: &Path,
    input: &mut dyn Read,
) -> Result<Option<PathBuf>, BackupError> {
    let mut head = Vec::new();
    read_head(&mut *input, &mut head).map_err(BackupError::Stream)?;
    // before a directory is made for it
    if !head.starts_with(HEAD) {
        return Err(BackupError::NotACopy);
    }
    if is_raw(&head) {
        return Err(BackupError::Raw("what comes".into()));
    }
    put_in_place(directory, Origin::Stream(&mut head.chain(input)))
}

/// As much of a database as says how it is written.
fn read_head(from: impl Read, head: &mut Vec<u8>) -> io::Result<usize> {
    from.take((WRITTEN_AT + WITH_LOG.len()) as u64).read_to_end(head)
}

/// Whether a database that begins like this is a ledger's own, and no backup. Nothing in it says whether it is whole.
fn is_raw(head: &[u8]) -> bool {
    head.starts_with(HEAD) && head.get(WRITTEN_AT..) == Some(&WITH_LOG)
}

/// What a ledger is made of.
enum Origin<'a> {
    Path(&'a Path),
    Stream(&'a mut dyn Read),
}

fn put_in_place(directory: &Path, from: Origin<'_>) -> Result<Option<PathBuf>, BackupError> {
    make_if_missing(directory).map_err(unusable(directory))?;
    let _lock = schema::lock(directory)?;
    let preparing = directory.join(PREPARING);
    if let Err(error) = prepare(directory, &preparing, from) {
        fs::remove_dir_all(&preparing).ok(); // or else by whoever takes the lock next
        return Err(error);
    }
    let committed = directory.join(COMMITTED);
    fs::rename(&preparing, &committed).map_err(unusable(&committed))?;
    sync(directory)?;
    Ok(finish(directory)?)
}

/// Makes the new ledger in `preparing`, checked and synced.
fn prepare(directory: &Path, preparing: &Path, from: Origin<'_>) -> Result<(), BackupError> {
    let owner = Owner::of(directory).map_err(unusable(directory))?;
    owner.make_directory(preparing).map_err(unusable(preparing))?;
    let database = schema::database(preparing);
    let shown = match from {
        Origin::Path(file) if file.is_file() => {
            owner.copy(file, &database).map_err(unusable(file))?;
            file
        }
        Origin::Path(ledger) => {
            copy_ledger(ledger, &database, owner)?;
            ledger
        }
        Origin::Stream(input) => {
            let mut kept = owner.make_file(&database).map_err(unusable(&database))?;
            io::copy(input, &mut kept).map_err(|error| match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    unusable(&database)(error).into()
                }
                _ => BackupError::Stream(error),
            })?;
            Path::new("standard input")
        }
    };
    verify(&database).map_err(|error| error.of(shown))?;
    schema::migrate(&database)?;
    forget_what_was_told(&database).map_err(BackupError::Copy)?;
    let before = preparing.join(BEFORE);
    owner.make_directory(&before).map_err(unusable(&before))?;
    sync(&database)?;
    sync(&before)?;
    Ok(sync(preparing)?)
}

/// After whatever has ended a restore: finishes it if it counted, or else throws away what was
/// prepared. So it does with the copy of a backup that was killed. Nobody else may have the ledger.
pub(super) fn settle(directory: &Path) -> Result<(), OpenError> {
    remove_streamed(directory)?;
    let preparing = directory.join(PREPARING);
    if preparing.exists() {
        tracing::warn!("a restore was interrupted before it counted: its copy is thrown away");
        if let Err(error) = fs::remove_dir_all(&preparing) {
            // Root may have been ended before it gave it away. Nothing reads it under that name.
            let left = next_name(directory, LEFT)?;
            fs::rename(&preparing, &left).map_err(unusable(&preparing))?;
            let path = left.display();
            tracing::warn!(%error, %path, "it cannot be thrown away and is left: remove it");
        }
    }
    if directory.join(COMMITTED).exists() {
        tracing::warn!("a restore was interrupted: it is finished now");
        finish(directory)?;
    }
    Ok(())
}

/// Whether a restore was begun and is neither finished nor undone.
pub(super) fn is_under_way(directory: &Path) -> bool {
    [PREPARING, COMMITTED].iter().any(|name| directory.join(name).exists())
}

/// Whether this is the name of a ledger that was there before.
pub(super) fn is_set_aside(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(SET_ASIDE))
}

/// Whether a restore has made what is called like this.
pub(super) fn is_its(name: &OsStr) -> bool {
    let text = name.to_str().unwrap_or_default();
    [PREPARING, COMMITTED].contains(&text) || text.starts_with(LEFT) || is_set_aside(name)
}

/// Moves the old ledger away and the new one into its place, from wherever this was interrupted.
fn finish(directory: &Path) -> Result<Option<PathBuf>, OpenError> {
    let committed = directory.join(COMMITTED);
    let (arriving, before) = (schema::database(&committed), committed.join(BEFORE));
    if arriving.exists() {
        for name in schema::files() {
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
        fs::rename(&arriving, schema::database(directory)).map_err(unusable(&arriving))?;
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
pub(super) fn has_counted(directory: &Path) -> bool {
    schema::database(&directory.join(COMMITTED)).is_file()
}

/// Where one more ledger can be set aside.
pub(super) fn next_aside(directory: &Path) -> Result<PathBuf, OpenError> {
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

/// Makes the database `to` of the ledger at `from`, which stays as it is, with all that its log and
/// journal hold.
fn copy_ledger(from: &Path, to: &Path, owner: Owner) -> Result<(), BackupError> {
    let _lock = schema::lock_if_there(from)?;
    let copy = with_suffix(to, ".from");
    owner.make_directory(&copy).map_err(unusable(&copy))?;
    for name in schema::files() {
        let file = from.join(name);
        if file.exists() {
            owner.copy(&file, &copy.join(name)).map_err(unusable(&file))?;
        }
    }
    backup(&copy, to)?;
    fs::remove_dir_all(&copy).map_err(unusable(&copy))?;
    owner.take(to).map_err(unusable(to))?;
    Ok(fs::set_permissions(to, Permissions::from_mode(0o600)).map_err(unusable(to))?)
}

/// Where there is no ledger yet: the directory is whose the one around it is.
fn make_if_missing(directory: &Path) -> io::Result<()> {
    if directory.exists() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    match directory.parent() {
        Some(around) if around != Path::new("") => Owner::of(around)?.take(directory),
        _ => Owner::of(Path::new("."))?.take(directory),
    }
}

/// A database beside its log is only the oldest part of what was written.
fn is_whole(file: &Path) -> Result<(), BackupError> {
    for suffix in ["-journal", "-wal"] {
        let beside = with_suffix(file, suffix);
        if fs::metadata(&beside).is_ok_and(|beside| beside.len() > 0) {
            return Err(BackupError::Part { file: file.to_owned(), beside });
        }
    }
    Ok(())
}

/// No environment has this name: opened with a real one, the ledger forgets what it told the other.
fn forget_what_was_told(database: &Path) -> rusqlite::Result<()> {
    let db = Connection::open(database)?;
    db.execute_batch(
        "PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;
         UPDATE destination SET environment = 'restored', checksum = NULL;",
    )
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
