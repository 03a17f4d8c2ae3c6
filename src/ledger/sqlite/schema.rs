//! The files of the ledger: directory, lock, database, and the version of its schema.
//!
//! The lock is the first thing taken and the last thing given back: two daemons on one ledger would
//! each believe that they alone know which members are in a call.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::journal::{self, Found, ScanError, VERSION as JOURNAL_VERSION};
use super::on_disk::{Unusable, unusable, with_suffix};
use super::owner::Owner;
use super::writer::WriterFailure;
use super::{backup, checksum, integrity, meta, migration, modes, moved, reserve, restore};

/// Version of the tables below; an older binary refuses a newer ledger before it touches it.
pub(super) const VERSION: i64 = 5;
/// From this version on there is a journal.
pub(super) const JOURNALED: i64 = 4;
/// Marks the file as ours (`PRAGMA application_id`): "chrt".
const APPLICATION_ID: i64 = 0x6368_7274;

const DATABASE: &str = "ledger.db";
/// Names of what is in somebody else's directory, in a message.
const SHOWN: usize = 3;
pub(super) const LOCK: &str = "lock";

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
        "the daemon that uses the ledger at {0} is merging much that it accepted: try again when it \
         has less to do"
    )]
    Merging(PathBuf),
    /// A daemon has it and puts nothing of what it accepted into its place.
    #[error(
        "the daemon that uses the ledger at {path} has merged nothing of what it accepted for ten seconds, and its \
         disk has {free_mib} MiB free: make space if that is little; cohortd status says what else is wrong"
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
    pub(super) fn on(self, directory: &Path) -> Self {
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

/// Clustered on (audience, context key): a member is one row, found in one descent. The pending rows
/// alone are indexed, in the order in which they began to wait. Times are microseconds of the
/// ledger's own clock, except `event_at`, `forgotten_at` and `counts_at`, which are the event's.
const TABLES: &str = "
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;

CREATE TABLE destination (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    environment TEXT NOT NULL,
    paused_at INTEGER,
    dropped INTEGER NOT NULL DEFAULT 0,
    checksum INTEGER
) STRICT;

CREATE TABLE audience (
    id INTEGER PRIMARY KEY,
    destination INTEGER NOT NULL REFERENCES destination(id),
    audience_id TEXT NOT NULL,
    audience_key TEXT NOT NULL,
    context_kind TEXT NOT NULL,
    acknowledged INTEGER NOT NULL DEFAULT 0,
    told_counts_from INTEGER NOT NULL DEFAULT 0,
    claimed_through INTEGER NOT NULL DEFAULT 0,
    unheard_through INTEGER NOT NULL DEFAULT 0,
    walk_after TEXT,
    walk TEXT,
    included INTEGER NOT NULL DEFAULT 0,
    pending INTEGER NOT NULL DEFAULT 0,
    parked INTEGER NOT NULL DEFAULT 0,
    checksum INTEGER,
    UNIQUE (destination, audience_id)
) STRICT;

CREATE TABLE member (
    audience INTEGER NOT NULL,
    context_key TEXT NOT NULL,
    included INTEGER NOT NULL,
    event_at INTEGER NOT NULL,
    version INTEGER NOT NULL,
    told INTEGER,
    told_at INTEGER,
    pending_since INTEGER,
    parked_at INTEGER,
    flags INTEGER NOT NULL,
    key_rule INTEGER NOT NULL,
    person BLOB,
    refused_with INTEGER,
    checksum INTEGER,
    PRIMARY KEY (audience, context_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX member_pending ON member (audience, pending_since) WHERE pending_since IS NOT NULL;
CREATE INDEX member_person ON member (person) WHERE person IS NOT NULL;

CREATE TABLE parked (
    audience INTEGER NOT NULL,
    context_key TEXT NOT NULL,
    parked_at INTEGER NOT NULL,
    status INTEGER NOT NULL,
    code TEXT NOT NULL,
    message TEXT NOT NULL,
    answer_id TEXT NOT NULL,
    checksum INTEGER,
    PRIMARY KEY (audience, context_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX parked_since ON parked (parked_at);

CREATE TABLE reassertion (
    settled_at INTEGER NOT NULL,
    audience INTEGER NOT NULL,
    context_key TEXT NOT NULL,
    checksum INTEGER,
    PRIMARY KEY (settled_at, audience, context_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE forgotten (
    person BLOB PRIMARY KEY,
    forgotten_at INTEGER NOT NULL,
    checksum INTEGER,
    seen_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE message (
    seen_at INTEGER PRIMARY KEY,
    message BLOB NOT NULL UNIQUE,
    counts_at INTEGER NOT NULL,
    checksum INTEGER
) STRICT;

CREATE TABLE rejected (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    destination INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    body BLOB NOT NULL,
    person BLOB,
    checksum INTEGER,
    event_at INTEGER
) STRICT;
CREATE INDEX rejected_person ON rejected (person) WHERE person IS NOT NULL;
CREATE INDEX rejected_destination ON rejected (destination);
";

/// Held while the ledger is open; the operating system frees it when the process dies.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "held for its lock")] File);

/// The lock of a directory that may have none: of a ledger that was set aside.
pub(super) fn lock_if_there(directory: &Path) -> Result<Option<Lock>, OpenError> {
    directory.join(LOCK).exists().then(|| lock(directory)).transpose()
}

/// Makes the directory if needed and takes the lock. Whoever has it finds the ledger whole: a restore
/// that was interrupted is finished or undone, and so is a change of the database outside its log. A ledger
/// that was kept in the directory around it until now is moved in.
pub(super) fn lock(directory: &Path) -> Result<Lock, OpenError> {
    moved::take_in(directory)?;
    is_its_own(directory)?;
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
            if moved::below(directory).is_none() || is_there(directory) {
                modes::tighten(directory); // before SQLite makes more files like them
            }
            restore::settle(directory)?;
            roll_back(&directory.join(DATABASE))?;
            Ok(Lock(file))
        }
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(directory.to_owned())),
        Err(TryLockError::Error(source)) => Err(OpenError::Directory { path, source }),
    }
}

/// Whether a ledger is in the directory, or nothing that is not a ledger's: a directory of somebody else's is not
/// closed to them. What is hidden there is the file system's, as a rule.
pub(super) fn is_its_own(directory: &Path) -> Result<(), OpenError> {
    if is_there(directory) {
        return Ok(());
    }
    let below = moved::below(directory);
    let is_ours = |name: &OsStr| {
        let text = name.to_str().unwrap_or_default();
        files().any(|file| file == text)
            || [LOCK, "lost+found"].contains(&text)
            || text.starts_with('.')
            || restore::is_its(name)
            || backup::is_its(name)
            || moved::is_its(name)
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

/// Makes the directory and those above it that are missing: their names are on stable storage, as what is
/// in them will be.
fn make_directory(directory: &Path) -> io::Result<()> {
    let is_named = |path: &&Path| !path.as_os_str().is_empty();
    let missing = directory.ancestors().take_while(|path| is_named(path) && !path.exists());
    let missing: Vec<&Path> = missing.collect();
    fs::create_dir_all(directory)?;
    // A start that was killed may have made it and come no further.
    let is_new = missing.is_empty() && !database(directory).exists();
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
    integrity::log(database)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags)?;
    pragma(&connection, "schema_version")?; // the first reading rolls it back
    Ok(())
}

/// Opens the database for writing, made, migrated or checked to be of [`VERSION`], and says what is in
/// the journal.
pub(super) fn open(directory: &Path, cache_kib: u32) -> Result<(Connection, Found), OpenError> {
    let path = directory.join(DATABASE);
    // Looked at before it is opened for writing, which would already change something.
    let (found, in_journal) = match fs::metadata(&path) {
        Ok(file) if file.len() > 0 => {
            integrity::header(&path)?;
            integrity::log(&path)?;
            let db = open_to_read(&path)?;
            let found = version(&db)?;
            (Some(found), (found >= JOURNALED).then(|| scan(directory, &db)).transpose()?)
        }
        _ => {
            may_begin(directory)?;
            (None, None)
        }
    };
    let connection = Connection::open(&path)?;
    if found.is_none() {
        connection.execute_batch("PRAGMA page_size = 4096")?;
    }
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA secure_delete = ON;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA cache_size = -{cache_kib};
         PRAGMA temp_store = MEMORY;"
    ))?;
    match found {
        None | Some(0) => make(&connection)?,
        Some(found) => migration::run(&connection, found)?,
    }
    meta::complete(&connection)?;
    integrity::roots(&connection)?;
    connection.set_prepared_statement_cache_capacity(64);
    let in_journal = match in_journal {
        Some(found) => found,
        None => scan(directory, &connection)?,
    };
    Ok((connection, in_journal))
}

/// What is in the journal of this database and not merged.
pub(super) fn scan(directory: &Path, db: &Connection) -> Result<Found, OpenError> {
    Ok(journal::scan(directory, meta::merged(db)?, meta::seal(db)?)?)
}

/// A new ledger beside what was committed or accepted before would be an empty one, without a word; so would one around
/// the ledger that is meant. An error, unless there is a database or nothing of that is so.
pub fn may_begin(directory: &Path) -> Result<(), OpenError> {
    if fs::metadata(database(directory)).is_ok_and(|database| database.len() > 0) {
        return Ok(());
    }
    let mut entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let set_aside = entries.find(|entry| restore::is_set_aside(&entry.file_name()));
    let below = moved::below(directory);
    let other = set_aside
        .map(|aside| {
            (aside.path(), "`cohortd ledger restore` with that path brings it back; move it away to begin anew")
        })
        .or_else(|| below.map(|below| (below, "set ledger.path to that, or move it away to begin anew")));
    if let Some((other, remedy)) = other {
        return Err(OpenError::Overlooked { path: directory.to_owned(), other, remedy });
    }
    let log = with_suffix(&directory.join(DATABASE), "-wal");
    let has_log = fs::metadata(&log).is_ok_and(|log| log.len() > 0);
    if !has_log && !journal::exist(directory) {
        return is_its_own(directory);
    }
    let fault = format!("its log or journal is in {}, and {DATABASE} is not", directory.display());
    Err(OpenError::Damaged(vec![fault]))
}

/// Makes the tables of a new ledger.
pub(super) fn make(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         PRAGMA application_id = {APPLICATION_ID};
         PRAGMA user_version = {VERSION};
         {TABLES}
         INSERT INTO meta VALUES ('arrival', 0), ('merged', 0), ('person_key', randomblob(32));
         COMMIT;"
    ))
}

/// The names of all files of a ledger but its lock; the database first.
pub(super) fn files() -> impl Iterator<Item = &'static str> {
    let of_database = [DATABASE, "ledger.db-journal", "ledger.db-wal", "ledger.db-shm"];
    of_database.into_iter().chain(journal::FILES).chain([journal::ANSWERED])
}

/// Whether a ledger is in the directory, whole or in the middle of a restore that counts.
#[must_use]
pub fn is_there(directory: &Path) -> bool {
    database(directory).exists() || restore::has_counted(directory)
}

/// Where the database of a ledger's directory is.
#[must_use]
pub fn database(directory: &Path) -> PathBuf {
    directory.join(DATABASE)
}

/// Opens a database for reading, whether or not a daemon has it, if it is one of ours.
pub(super) fn open_to_read(database: &Path) -> Result<Connection, OpenError> {
    if !database.exists() {
        return Err(OpenError::Missing(database.to_owned()));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags)?;
    connection
        .execute_batch("PRAGMA cache_size = -8192; PRAGMA busy_timeout = 2000;")
        .map_err(|error| unreadable(error, database))?;
    version_of_ours(&connection, database)?;
    Ok(connection)
}

/// Why a database cannot be read.
pub(super) fn unreadable(error: rusqlite::Error, database: &Path) -> OpenError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::NotALedger(database.to_owned()),
        _ => OpenError::from(error).on(database.parent().unwrap_or(Path::new(""))),
    }
}

/// The version of a database that is open, if it is one of ours and this binary knows that.
pub(super) fn version_of_ours(connection: &Connection, database: &Path) -> Result<i64, OpenError> {
    let application =
        pragma(connection, "application_id").map_err(|error| unreadable(error, database))?;
    let found = version(connection)?;
    // The first start may have ended before it made the tables.
    let objects: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let fresh = objects == 0 && found == 0;
    if application != APPLICATION_ID && !fresh {
        return Err(OpenError::NotALedger(database.to_owned()));
    }
    if found > VERSION {
        return Err(OpenError::Newer { found });
    }
    Ok(found)
}

/// Opens the database for reading where there is no space for the index beside its log: that is kept in
/// memory, and nothing is written. Nobody else may have it open.
pub(super) fn open_without_space(database: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA query_only = ON; PRAGMA cache_size = -8192;",
    )?;
    if pragma(&connection, "application_id")? != APPLICATION_ID {
        return Err(OpenError::NotALedger(database.to_owned()));
    }
    match version(&connection)? {
        found if found > VERSION => Err(OpenError::Newer { found }),
        _ => Ok(connection),
    }
}

/// Opens the database for reading beside the writer.
pub(super) fn open_reader(directory: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(directory.join(DATABASE), flags)?;
    connection.execute_batch("PRAGMA cache_size = -2048; PRAGMA busy_timeout = 2000;")?;
    Ok(connection)
}

/// Opens the database for checkpoints beside the writer.
pub(super) fn open_checkpointer(directory: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(directory.join(DATABASE), flags)?;
    connection.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -1024;",
    )?;
    Ok(connection)
}

/// The version of the tables.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    pragma(connection, "user_version")
}

/// Brings a closed database to [`VERSION`].
pub(super) fn migrate(database: &Path) -> Result<(), OpenError> {
    let connection = Connection::open(database)?;
    connection.execute_batch(
        "PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;",
    )?;
    migration::run(&connection, version(&connection)?)?;
    meta::complete(&connection)?;
    Ok(())
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
}
