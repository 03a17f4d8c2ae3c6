//! Why a ledger could not be opened.

use std::path::{Path, PathBuf};

use crate::ledger::copied::RECONCILES;
use crate::ledger::embedded::directory::on_disk::Unusable;
use crate::ledger::embedded::directory::reserve;
use crate::ledger::embedded::tables::checksum;
use crate::ledger::embedded::tables::version::VERSION;
use crate::ledger::embedded::wal::{ScanError, VERSION as JOURNAL_VERSION};
use crate::ledger::error::WriterFailure;

/// Why the ledger could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the ledger at {0} is in use by another process")]
    InUse(PathBuf),
    /// The directory or the lock cannot be made or opened.
    #[error("the ledger directory {path} cannot be used")]
    Directory {
        /// Which path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Written by a newer version of cohortd.
    #[error(
        "the ledger has schema version {found}, this binary knows up to {VERSION}: \
         run the version of cohortd that wrote it, or a newer one"
    )]
    Newer {
        /// The version found.
        found: i64,
    },
    /// The same of the journal.
    #[error(
        "the ledger's journal has format version {found}, this binary knows up to {JOURNAL_VERSION}: \
         run the version of cohortd that wrote it, or a newer one"
    )]
    NewerJournal {
        /// The version found.
        found: u8,
    },
    /// Written by an older version of cohortd, and not opened by this one yet.
    #[error(
        "the ledger has schema version {found}: start this version of cohortd once, which brings it \
         to {VERSION}"
    )]
    Older {
        /// The version found.
        found: i64,
    },
    /// A file of that name is there, and it is no ledger.
    #[error("{0} is not a cohortd ledger")]
    NotALedger(PathBuf),
    /// Nothing is there, and a ledger beside or below that was there until now, or is meant: going on would begin with an
    /// empty one.
    #[error("there is no ledger at {path}, and one at {other}: {remedy}")]
    Overlooked {
        /// The ledger's directory.
        path: PathBuf,
        /// The other one.
        other: PathBuf,
        /// What to do.
        remedy: &'static str,
    },
    /// There is no ledger in the directory, and something else is: its mode, and that of what is in it, would be changed.
    #[error(
        "there is no ledger in {path}, and it is not empty: {found}. A ledger has a directory of its own: set ledger.path \
         to {path}/ledger, or to another one"
    )]
    NotItsOwn {
        /// The directory.
        path: PathBuf,
        /// What is in it.
        found: String,
    },
    /// A copy that was begun, and is not finished.
    #[error(
        "{0} holds a copy of a ledger that is not finished: run the same `cohortd ledger copy` again, which goes on where \
         it was, or remove that directory"
    )]
    Unfinished(PathBuf),
    /// It cannot be copied now.
    #[error("{RECONCILES}")]
    Reconciling,
    /// Nothing is there to be read.
    #[error("there is no ledger at {0}")]
    Missing(PathBuf),
    /// Its disk has no space for what opening it takes, or a quota is used up.
    #[error("the disk of the ledger at {} has no space", path.display())]
    NoSpace {
        /// The ledger's directory.
        path: PathBuf,
        /// What could not be written.
        #[source]
        source: Box<OpenError>,
    },
    /// A daemon has it and is busy putting what it accepted into its place.
    #[error(
        "the daemon that uses the ledger at {0} is busy merging its journal into the database: \
         try again when it is less busy"
    )]
    Merging(PathBuf),
    /// A daemon has it and puts nothing of what it accepted into its place.
    #[error(
        "the daemon that uses the ledger at {path} has merged nothing from its journal for ten \
         seconds, and its disk has {free_mib} MiB free: make space if that is too little; cohortd \
         status says what else is wrong"
    )]
    Stalled {
        /// The ledger's directory.
        path: PathBuf,
        /// What is left of its disk.
        free_mib: u64,
    },
    /// What was accepted could not be put into its place.
    #[error(transparent)]
    Failed(#[from] WriterFailure),
    /// What is there is not what was written.
    #[error("the ledger is damaged: stop everything that uses it and restore a backup: {}", .0.join("; "))]
    Damaged(Vec<String>),
    /// The database cannot be read or written.
    #[error("the ledger's database cannot be opened")]
    Database(#[source] rusqlite::Error),
}

impl OpenError {
    /// The same, as what it means if it is the disk of `directory` that has no space.
    pub(crate) fn on(self, directory: &Path) -> Self {
        let is_full = match &self {
            Self::Database(error) => reserve::is_full(error, directory),
            Self::Directory { source, .. } => reserve::is_want_of_space(source),
            Self::Failed(failure) => failure.is_want_of_space(),
            _ => false,
        };
        if !is_full {
            return self;
        }
        Self::NoSpace { path: directory.to_owned(), source: Box::new(self) }
    }
}

impl From<Unusable> for OpenError {
    fn from(Unusable { path, source }: Unusable) -> Self {
        Self::Directory { path, source }
    }
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        if checksum::is_damage(&error) {
            return Self::Damaged(vec![error.to_string()]);
        }
        Self::Database(error)
    }
}

impl From<ScanError> for OpenError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Damaged(fault) => Self::Damaged(vec![fault]),
            ScanError::Newer(found) => Self::NewerJournal { found },
            ScanError::File { path, source } => Self::Directory { path, source },
        }
    }
}
