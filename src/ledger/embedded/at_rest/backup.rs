//! A copy of the ledger.
//!
//! # What always holds
//! * A copy is of one moment, sound and on stable storage before its name appears.
//! * Nothing is overwritten: a backup needs a new name.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::ledger::embedded::at_rest::prepare;
use crate::ledger::embedded::at_rest::prepare::Prepared;
use crate::ledger::embedded::directory::names;
use crate::ledger::embedded::directory::on_disk::Unusable;
use crate::ledger::embedded::directory::on_disk::remove_if_there;
use crate::ledger::embedded::directory::on_disk::sync;
use crate::ledger::embedded::directory::on_disk::sync_name;
use crate::ledger::embedded::directory::on_disk::unusable;
use crate::ledger::embedded::directory::on_disk::with_suffix;
use crate::ledger::embedded::directory::reserve;
use crate::ledger::embedded::opening::interrupted::STREAMED;
use crate::ledger::embedded::opening::interrupted::UNFINISHED;
use crate::ledger::embedded::opening::interrupted::remove_unfinished;
use crate::ledger::embedded::tables::connections;
use crate::ledger::embedded::tables::open_error::OpenError;
use crate::ledger::embedded::tables::schema;
use crate::ledger::embedded::tables::soundness;
use crate::ledger::embedded::tables::soundness::Damage;

/// Why a copy was not made or not put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The ledger or the copy cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A file of that name is there already.
    #[error("{} exists already: choose another name", .0.display())]
    Exists(PathBuf),
    /// What is to be restored is only a part of something.
    #[error(
        "{} stands beside {}, which is not all of a ledger without it: name the directory that they \
         are in",
        beside.display(),
        file.display()
    )]
    Part {
        /// What was named.
        file: PathBuf,
        /// What belongs to it.
        beside: PathBuf,
    },
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
    /// Standard input or output failed before all of the copy had passed.
    #[error("the copy did not pass whole")]
    Stream(#[source] io::Error),
    /// What comes is no backup.
    #[error("what comes is not a copy that `cohortd ledger backup` made")]
    NotACopy,
    /// What is to be restored was taken from under a daemon.
    #[error(
        "{} is no backup but the database of a ledger, copied by itself: what a daemon had not yet written there is \
         missing. `cohortd ledger backup` makes a whole copy, also beside a daemon; or name the directory that it is \
         from. If there is nothing else, put it into an empty directory, as ledger.db, and name that",
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
    /// The same of what was copied from `path`, by whose name whoever asked knows it.
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

/// A copy was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackedUp {
    /// The daemon that had the ledger ended while it was waited for: the copy was made without it.
    pub daemon_ended: bool,
}

/// Copies the ledger at `directory` into a new file, beside a daemon or without one.
pub fn backup(directory: &Path, file: &Path) -> Result<BackedUp, BackupError> {
    if file.exists() {
        return Err(BackupError::Exists(file.to_owned()));
    }
    let unfinished = with_suffix(file, UNFINISHED);
    remove_unfinished(&unfinished)?;
    let prepared = prepare::prepare(directory)?;
    let db = connections::open_to_read(&names::database(directory))?;
    if schema::version(&db).map_err(OpenError::from)? == 0 {
        return Err(OpenError::Missing(directory.to_owned()).into()); // no start has come to make it
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
        // What is left would only look like a backup.
        remove_unfinished(&unfinished).ok();
    }
    finished.map(|()| BackedUp { daemon_ended: prepared == Prepared::DaemonEnded })
}

/// Writes a copy of the ledger at `directory` to `out`, beside a daemon or without one. It is made whole and
/// checked in the ledger's directory first, which is as protected as the ledger is, and does not stay there.
pub fn backup_to(directory: &Path, out: &mut impl io::Write) -> Result<BackedUp, BackupError> {
    let turn = File::open(directory).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => OpenError::Missing(directory.to_owned()).into(),
        _ => BackupError::from(unusable(directory)(error)),
    })?;
    turn.lock().map_err(unusable(directory))?; // of those who stream; the ledger's own lock is a file
    let copy = directory.join(STREAMED);
    remove_if_there(&copy)?; // of one that was killed
    let backed_up = backup(directory, &copy)?;
    let opened = File::open(&copy).map_err(unusable(&copy));
    remove_if_there(&copy)?;
    drop(turn); // whoever reads slowly keeps nobody waiting
    io::copy(&mut opened?, out).and_then(|_| out.flush()).map_err(BackupError::Stream)?;
    Ok(backed_up)
}

/// Reads all of the database `file`.
pub(crate) fn verify(file: &Path) -> Result<(), BackupError> {
    let db = connections::open_to_read(file)?;
    let faults = soundness::faults(&db).unwrap_or_else(Damage::faults);
    if faults.is_empty() {
        return Ok(());
    }
    Err(BackupError::Damaged { path: file.to_owned(), faults })
}
