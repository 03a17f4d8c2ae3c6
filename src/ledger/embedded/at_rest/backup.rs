//! Backups of the ledger.
//!
//! # What always holds
//! * A backup is a snapshot of one moment, verified and synced before its name appears.
//! * Nothing is overwritten: a backup needs a new name.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::ledger::embedded::at_rest::prepare::{self, Prepared};
use crate::ledger::embedded::directory::on_disk::{
    Unusable, remove_if_there, sync, sync_name, unusable, with_suffix,
};
use crate::ledger::embedded::directory::{names, reserve};
use crate::ledger::embedded::opening::interrupted::{STREAMED, UNFINISHED, remove_unfinished};
use crate::ledger::embedded::tables::open_error::OpenError;
use crate::ledger::embedded::tables::soundness::{self, Damage};
use crate::ledger::embedded::tables::{connections, schema};

/// Why a backup was not made or not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The ledger or the copy cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A file of that name is there already.
    #[error("{} exists already: choose another name", .0.display())]
    Exists(PathBuf),
    /// What is to be restored is only one file of a ledger.
    #[error(
        "{} is next to {}, which is incomplete without it: name the directory that holds both",
        beside.display(),
        file.display()
    )]
    Part {
        /// The path that was given.
        file: PathBuf,
        /// The file beside it that belongs to the same ledger.
        beside: PathBuf,
    },
    /// The contents are not what was written.
    #[error("{} is damaged: {}", path.display(), faults.join("; "))]
    Damaged {
        /// The database.
        path: PathBuf,
        /// Every fault that was found.
        faults: Vec<String>,
    },
    /// A file cannot be read, written or moved.
    #[error("{} cannot be used", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// Standard input or output failed before the whole copy was transferred.
    #[error("the copy was not transferred completely")]
    Stream(#[source] io::Error),
    /// The input is not a backup.
    #[error("the input is not a copy that `cohortd ledger backup` made")]
    NotACopy,
    /// What is to be restored was taken from under a daemon.
    #[error(
        "{} is not a backup but a ledger's database file, copied on its own: what the daemon had \
         not yet written to it is missing. `cohortd ledger backup` makes a complete copy, even \
         while a daemon runs; or name the directory that the file came from. If the file is all \
         there is, put it into an empty directory as ledger.db, and name that directory",
        .0.display()
    )]
    Raw(PathBuf),
    /// The database failed while it was copied.
    #[error("the copy failed")]
    Copy(#[source] rusqlite::Error),
}

impl From<Unusable> for BackupError {
    fn from(Unusable { path, source }: Unusable) -> Self {
        Self::File { path, source }
    }
}

impl BackupError {
    /// Replaces the path in the error by `path`, the name that the caller used.
    pub(crate) fn of(self, path: &Path) -> Self {
        match self {
            Self::Damaged { faults, .. } => Self::Damaged { path: path.to_owned(), faults },
            Self::Open(OpenError::Damaged(faults)) => {
                Self::Damaged { path: path.to_owned(), faults }
            }
            Self::Open(OpenError::NotALedger(_)) => OpenError::NotALedger(path.to_owned()).into(),
            other => other,
        }
    }
}

/// The outcome of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackedUp {
    /// The daemon that held the ledger ended while we waited for it, so the copy was made without it.
    pub daemon_ended: bool,
}

/// Copies the ledger at `directory` into a new file, with or without a running daemon.
pub fn backup(directory: &Path, file: &Path) -> Result<BackedUp, BackupError> {
    if file.exists() {
        return Err(BackupError::Exists(file.to_owned()));
    }
    let unfinished = with_suffix(file, UNFINISHED);
    remove_unfinished(&unfinished)?;
    let prepared = prepare::prepare(directory)?;
    let db = connections::open_to_read(&names::database(directory))?;
    if schema::version(&db).map_err(OpenError::from)? == 0 {
        return Err(OpenError::Missing(directory.to_owned()).into()); // no start has created its tables yet
    }
    File::create(&unfinished).map_err(unusable(&unfinished))?; // SQLite would not say why it cannot
    let name = unfinished.to_string_lossy();
    let copied = db.execute("VACUUM INTO ?1", [&name]).map_err(|error| {
        let directory = unfinished.parent().unwrap_or(Path::new("."));
        if reserve::is_full(&error, directory) {
            let source = io::Error::new(io::ErrorKind::StorageFull, "no space left for the copy");
            return BackupError::File { path: unfinished.clone(), source };
        }
        BackupError::Copy(error)
    });
    let finished = copied.and_then(|_| {
        verify(&unfinished)?;
        sync(&unfinished)?;
        fs::rename(&unfinished, file).map_err(unusable(file))?;
        Ok(sync_name(file)?)
    });
    if finished.is_err() {
        // An unfinished file would be mistaken for a backup.
        remove_unfinished(&unfinished).ok();
    }
    finished.map(|()| BackedUp { daemon_ended: prepared == Prepared::DaemonEnded })
}

/// Writes a copy of the ledger at `directory` to `out`, with or without a running daemon. The copy is first
/// completed and checked in the ledger's directory, which is as protected as the ledger itself, and is
/// removed from there at once.
pub fn backup_to(directory: &Path, out: &mut impl io::Write) -> Result<BackedUp, BackupError> {
    let turn = File::open(directory).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => OpenError::Missing(directory.to_owned()).into(),
        _ => BackupError::from(unusable(directory)(error)),
    })?;
    turn.lock().map_err(unusable(directory))?; // serializes streamed backups; the ledger's own lock is a file
    let copy = directory.join(STREAMED);
    remove_if_there(&copy)?; // left by a backup that was killed
    let backed_up = backup(directory, &copy)?;
    let opened = File::open(&copy).map_err(unusable(&copy));
    remove_if_there(&copy)?;
    drop(turn); // a slow reader of `out` blocks no other backup
    io::copy(&mut opened?, out).and_then(|_| out.flush()).map_err(BackupError::Stream)?;
    Ok(backed_up)
}

/// Verifies the whole database `file`.
pub(crate) fn verify(file: &Path) -> Result<(), BackupError> {
    let db = connections::open_to_read(file)?;
    let faults = soundness::faults(&db).unwrap_or_else(Damage::faults);
    if faults.is_empty() {
        return Ok(());
    }
    Err(BackupError::Damaged { path: file.to_owned(), faults })
}
