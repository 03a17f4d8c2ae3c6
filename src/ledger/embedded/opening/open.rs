//! From a directory to an open database: whole, of this version, with what waits in its journal.

use std::fs;
use std::path::Path;

use crate::ledger::embedded::directory::names::{self, DATABASE, LOCK};
use crate::ledger::embedded::directory::on_disk::with_suffix;
use crate::ledger::embedded::opening::its_own::is_its_own;
use crate::ledger::embedded::opening::lock::{self, Lock};
use crate::ledger::embedded::opening::{interrupted, moved};
use crate::ledger::embedded::record::{self, Outline};
use crate::ledger::embedded::tables::open_error::OpenError;
use crate::ledger::embedded::tables::version::JOURNALED;
use crate::ledger::embedded::tables::{connections, meta, migration, schema, soundness};
use crate::ledger::embedded::wal;
use rusqlite::Connection;

/// Takes the lock as [`lock::take`] does; a ledger that was kept in the directory around this one until now is
/// moved in first.
pub(crate) fn lock(directory: &Path) -> Result<Lock, OpenError> {
    moved::take_in(directory)?;
    is_its_own(directory)?;
    lock::take(directory)
}

/// The lock of a directory that may have none: of a ledger that was set aside.
pub(crate) fn lock_if_there(directory: &Path) -> Result<Option<Lock>, OpenError> {
    directory.join(LOCK).exists().then(|| lock(directory)).transpose()
}

/// Opens the database for writing, made, migrated or checked to be of [`VERSION`](crate::ledger::embedded::tables::version::VERSION), and says what is in
/// the journal.
pub(crate) fn open(directory: &Path, cache_kib: u32) -> Result<(Connection, Found), OpenError> {
    let path = names::database(directory);
    // Looked at before it is opened for writing, which would already change something.
    let (found, in_journal) = match fs::metadata(&path) {
        Ok(file) if file.len() > 0 => {
            soundness::header(&path)?;
            soundness::log(&path)?;
            let db = connections::open_to_read(&path)?;
            let found = schema::version(&db)?;
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
        None | Some(0) => schema::make(&connection)?,
        Some(found) => {
            migration::run(&connection, found)?;
            meta::complete(&connection)?;
            soundness::roots(&connection)?;
        }
    }
    // Whoever opens it to write may change it: a copy that was begun from it is not one of this any more.
    meta::keep_of_copy(&connection, meta::SOURCE_OF_COPY, None)?;
    connection.set_prepared_statement_cache_capacity(64);
    let in_journal = match in_journal {
        Some(found) => found,
        None => scan(directory, &connection)?,
    };
    Ok((connection, in_journal))
}

/// What is in the journal and not merged.
pub(crate) type Found = wal::Found<Vec<Outline>>;

/// What is in the journal of this database and not merged.
pub(crate) fn scan(directory: &Path, db: &Connection) -> Result<Found, OpenError> {
    Ok(wal::scan(directory, meta::merged(db)?, meta::seal(db)?, record::outlines)?)
}

/// A new ledger beside what was committed or accepted before would be an empty one, without a word; so would one around
/// the ledger that is meant. An error, unless there is a database or nothing of that is so.
pub fn may_begin(directory: &Path) -> Result<(), OpenError> {
    if fs::metadata(names::database(directory)).is_ok_and(|database| database.len() > 0) {
        return Ok(());
    }
    let mut entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let set_aside = entries.find(|entry| interrupted::is_set_aside(&entry.file_name()));
    let below = names::below(directory);
    let other = set_aside
        .map(|aside| {
            (aside.path(), "`cohortd ledger restore` with that path brings it back; move it away to start with an empty ledger")
        })
        .or_else(|| below.map(|below| (below, "set ledger.path to that, or move it away to start with an empty ledger")));
    if let Some((other, remedy)) = other {
        return Err(OpenError::Overlooked { path: directory.to_owned(), other, remedy });
    }
    let log = with_suffix(&names::database(directory), "-wal");
    let has_log = fs::metadata(&log).is_ok_and(|log| log.len() > 0);
    if !has_log && !wal::exist(directory) {
        return is_its_own(directory);
    }
    let fault = format!(
        "SQLite's log or the journal is in {}, but {DATABASE} is missing",
        directory.display()
    );
    Err(OpenError::Damaged(vec![fault]))
}
