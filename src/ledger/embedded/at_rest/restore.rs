//! The way back: a backup, or a ledger that was set aside, in the place of the ledger.
//!
//! # What always holds
//! * Whatever ends a restore, there is a whole ledger afterwards: the old one before the copy gets the
//!   name [`COMMITTED`], the new one from then on. Whoever takes the lock next finishes it, or throws
//!   away what was prepared ([`settle`](interrupted::settle)).
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

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::ledger::embedded::at_rest::backup::{BackupError, backup, verify};
use crate::ledger::embedded::directory::names;
use crate::ledger::embedded::directory::on_disk::{sync, unusable, with_suffix};
use crate::ledger::embedded::directory::owner::Owner;
use crate::ledger::embedded::opening::interrupted::{self, BEFORE, COMMITTED, PREPARING};
use crate::ledger::embedded::opening::open;
use crate::ledger::embedded::tables::open_error::OpenError;
use crate::ledger::embedded::tables::{connections, migration};

/// The first bytes of every database.
const HEAD: &[u8] = b"SQLite format 3\0";
/// The size of a page stands there, and then how the database is written and read.
const WRITTEN_AT: usize = HEAD.len() + 2;
/// With a log beside it, as that of a daemon is and a backup is not.
const WITH_LOG: [u8; 2] = [2, 2];

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
        connections::open_to_read(from).map_err(|error| BackupError::from(error).of(from))?;
    } else if !names::database(from).is_file() {
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
        return Err(BackupError::Raw("standard input".into()));
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
    let _lock = open::lock(directory)?;
    let preparing = directory.join(PREPARING);
    if let Err(error) = prepare(directory, &preparing, from) {
        fs::remove_dir_all(&preparing).ok(); // or else by whoever takes the lock next
        return Err(error);
    }
    let committed = directory.join(COMMITTED);
    fs::rename(&preparing, &committed).map_err(unusable(&committed))?;
    sync(directory)?;
    Ok(interrupted::finish(directory)?)
}

/// Makes the new ledger in `preparing`, checked and synced.
fn prepare(directory: &Path, preparing: &Path, from: Origin<'_>) -> Result<(), BackupError> {
    let owner = Owner::of(directory).map_err(unusable(directory))?;
    owner.make_directory(preparing).map_err(unusable(preparing))?;
    let database = names::database(preparing);
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
    migration::migrate(&database)?;
    forget_what_was_told(&database).map_err(BackupError::Copy)?;
    let before = preparing.join(BEFORE);
    owner.make_directory(&before).map_err(unusable(&before))?;
    sync(&database)?;
    sync(&before)?;
    Ok(sync(preparing)?)
}

/// Makes the database `to` of the ledger at `from`, which stays as it is, with all that its log and
/// journal hold.
fn copy_ledger(from: &Path, to: &Path, owner: Owner) -> Result<(), BackupError> {
    let _lock = open::lock_if_there(from)?;
    let copy = with_suffix(to, ".from");
    owner.make_directory(&copy).map_err(unusable(&copy))?;
    for name in interrupted::files() {
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
