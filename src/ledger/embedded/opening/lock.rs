//! The lock of a ledger: the first thing taken and the last thing given back. Two daemons on one ledger would
//! each believe that they alone know which members are in a call.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

use crate::ledger::embedded::directory::modes;
use crate::ledger::embedded::directory::names::{self, LOCK};
use crate::ledger::embedded::directory::on_disk::{unusable, with_suffix};
use crate::ledger::embedded::directory::owner::Owner;
use crate::ledger::embedded::opening::interrupted;
use crate::ledger::embedded::tables::open_error::OpenError;
use crate::ledger::embedded::tables::{schema, soundness};
use rusqlite::{Connection, OpenFlags};

/// Held while the ledger is open; the operating system frees it when the process dies.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its lock")] File);

/// Makes the directory if needed and takes the lock. Whoever has it finds the ledger whole: a restore
/// that was interrupted is finished or undone, and so is a change of the database outside its log.
pub(crate) fn take(directory: &Path) -> Result<Lock, OpenError> {
    make_directory(directory).map_err(unusable(directory))?;
    let path = directory.join(LOCK);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(unusable(&path))?;
    // Made by another user, it may not be ours to give away.
    let _ = Owner::of(directory).and_then(|owner| owner.take(&path));
    match file.try_lock() {
        Ok(()) => {
            if names::below(directory).is_none() || interrupted::is_there(directory) {
                modes::tighten(directory); // before SQLite makes more files like them
            }
            interrupted::settle(directory)?;
            roll_back(&names::database(directory))?;
            Ok(Lock(file))
        }
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(directory.to_owned())),
        Err(TryLockError::Error(source)) => Err(OpenError::Directory { path, source }),
    }
}

/// Makes the directory and those above it that are missing: their names are on stable storage, as what is
/// in them will be.
fn make_directory(directory: &Path) -> io::Result<()> {
    let is_named = |path: &&Path| !path.as_os_str().is_empty();
    let missing = directory.ancestors().take_while(|path| is_named(path) && !path.exists());
    let missing: Vec<&Path> = missing.collect();
    fs::create_dir_all(directory)?;
    // A start that was killed may have made it and come no further.
    let is_new = missing.is_empty() && !names::database(directory).exists();
    for made in missing.into_iter().chain(is_new.then_some(directory)) {
        let above = made.parent().filter(is_named).unwrap_or(Path::new("."));
        match File::open(above) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {} // not ours to read
            opened => opened?.sync_all()?,
        }
    }
    Ok(())
}

/// Undoes a change that a kill has interrupted before there was a log: while the ledger was made, or
/// first opened after a restore. Whoever opens the database only to read cannot do it. Nobody else may
/// have the ledger.
fn roll_back(database: &Path) -> Result<(), OpenError> {
    let journal = with_suffix(database, "-journal");
    if !fs::metadata(journal).is_ok_and(|journal| journal.len() > 0) {
        return Ok(());
    }
    soundness::log(database)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags)?;
    schema::pragma(&connection, "schema_version")?; // the first reading rolls it back
    Ok(())
}
