//! A copy of the ledger, and the way back.
//!
//! # What always holds
//! * A copy is of one moment, sound and on stable storage before its name appears.
//! * Nothing is overwritten: a backup needs a new name, and a restore moves the ledger that was there
//!   aside.
//! * After a restore everything is told again: what LaunchDarkly was told since is not known.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::at_rest;
use super::integrity::{self, Damage};
use super::journal::{ANSWERED, FILES};
use super::schema::{self, OpenError};

/// Why a copy was not made or not put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The ledger or the copy cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A file of that name is there already.
    #[error("{} exists already: choose another name", .0.display())]
    Exists(PathBuf),
    /// What was read is not what was written.
    #[error("{} is damaged: {}", path.display(), faults.join("; "))]
    Damaged {
        /// The database.
        path: PathBuf,
        /// All that is wrong with it.
        faults: Vec<String>,
    },
    /// A file cannot be read, written or moved.
    #[error("{} cannot be used", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The database failed while it was copied.
    #[error("the copy failed")]
    Copy(#[source] rusqlite::Error),
}

/// Copies the ledger at `directory` into a new file, beside a daemon or without one.
pub fn backup(directory: &Path, file: &Path) -> Result<(), BackupError> {
    if file.exists() {
        return Err(BackupError::Exists(file.to_owned()));
    }
    let unfinished = with_suffix(file, ".unfinished");
    remove_if_there(&unfinished)?;
    at_rest::prepare(directory)?;
    let db = schema::open_to_read(&schema::database(directory))?;
    File::create(&unfinished).map_err(failed(&unfinished))?; // SQLite would not say why it cannot
    let name = unfinished.to_string_lossy();
    let copied = db.execute("VACUUM INTO ?1", [&name]).map_err(BackupError::Copy);
    let finished = copied.and_then(|_| {
        verify(&unfinished)?;
        sync(&unfinished)?;
        fs::rename(&unfinished, file).map_err(failed(file))?;
        sync_folder(file)
    });
    if finished.is_err() {
        // What is left would only look like a backup.
        remove_if_there(&unfinished).ok();
    }
    finished
}

/// Puts a backup in the place of the ledger at `directory`, which no daemon may be using. Gives back
/// where the ledger that was there is now, if there was one.
pub fn restore(directory: &Path, file: &Path) -> Result<Option<PathBuf>, BackupError> {
    verify(file)?;
    let _lock = schema::lock(directory)?;
    let database = schema::database(directory);
    let arriving = with_suffix(&database, ".arriving");
    remove_if_there(&arriving)?;
    fs::copy(file, &arriving).map_err(failed(&arriving))?;
    schema::migrate(&arriving)?;
    forget_what_was_told(&arriving).map_err(BackupError::Copy)?;
    sync(&arriving)?;

    let aside = aside(directory)?;
    let mut moved = false;
    let of_database = ["", "-wal", "-shm"].map(|suffix| with_suffix(&database, suffix));
    let of_journal = FILES.into_iter().chain([ANSWERED]).map(|name| directory.join(name));
    for part in of_database.into_iter().chain(of_journal) {
        if part.exists() {
            fs::create_dir_all(&aside).map_err(failed(&aside))?;
            let there = aside.join(part.file_name().unwrap_or_default());
            fs::rename(&part, there).map_err(failed(&part))?;
            moved = true;
        }
    }
    fs::rename(&arriving, &database).map_err(failed(&database))?;
    sync_folder(&database)?;
    Ok(moved.then_some(aside))
}

fn verify(file: &Path) -> Result<(), BackupError> {
    let db = schema::open_to_read(file)?;
    let faults = integrity::faults(&db).unwrap_or_else(Damage::faults);
    if faults.is_empty() {
        return Ok(());
    }
    Err(BackupError::Damaged { path: file.to_owned(), faults })
}

/// No environment has this name: opened with a real one, the ledger forgets what it told the other.
fn forget_what_was_told(database: &Path) -> rusqlite::Result<()> {
    let db = Connection::open(database)?;
    db.execute_batch(
        "PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL;
         UPDATE destination SET environment = 'restored', checksum = NULL;",
    )
}

/// A folder beside the ledger's that is not there yet.
fn aside(directory: &Path) -> Result<PathBuf, BackupError> {
    (1..=1000)
        .map(|number| with_suffix(directory, &format!(".before-restore-{number}")))
        .find(|folder| !folder.exists())
        .ok_or_else(|| BackupError::Exists(with_suffix(directory, ".before-restore-1000")))
}

/// A path beside another one.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn remove_if_there(path: &Path) -> Result<(), BackupError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path)(error)),
        _ => Ok(()),
    }
}

fn sync(file: &Path) -> Result<(), BackupError> {
    File::open(file).and_then(|opened| opened.sync_all()).map_err(failed(file))
}

/// So that the name is on stable storage too.
fn sync_folder(file: &Path) -> Result<(), BackupError> {
    let folder = match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    sync(folder)
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::File { path, source }
}
