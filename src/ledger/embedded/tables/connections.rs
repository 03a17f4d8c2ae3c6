//! Connections to the database, each for one purpose.

use std::path::Path;

use crate::ledger::embedded::directory::names::DATABASE;
use crate::ledger::embedded::tables::meta::{self, UNFINISHED_COPY};
use crate::ledger::embedded::tables::open_error::OpenError;
use crate::ledger::embedded::tables::schema::{self, APPLICATION_ID};
use crate::ledger::embedded::tables::version::VERSION;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

/// Opens a database for reading, whether or not a daemon has it, if it is one of ours.
pub(crate) fn open_to_read(database: &Path) -> Result<Connection, OpenError> {
    let (connection, _) = open_any_to_read(database)?;
    version_of_ours(&connection, database)?;
    Ok(connection)
}

/// The same of one that may be a copy that was not finished; and its version.
pub(crate) fn open_any_to_read(database: &Path) -> Result<(Connection, i64), OpenError> {
    if !database.exists() {
        return Err(OpenError::Missing(database.to_owned()));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags)?;
    connection
        .execute_batch("PRAGMA cache_size = -8192; PRAGMA busy_timeout = 2000;")
        .map_err(|error| unreadable(error, database))?;
    let version = version_of_any(&connection, database)?;
    Ok((connection, version))
}

/// Why a database cannot be read.
pub(crate) fn unreadable(error: rusqlite::Error, database: &Path) -> OpenError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenError::NotALedger(database.to_owned()),
        _ => OpenError::from(error).on(database.parent().unwrap_or(Path::new(""))),
    }
}

/// The version of a database that is open, if it is one of ours, whole, and this binary knows that.
pub(crate) fn version_of_ours(connection: &Connection, database: &Path) -> Result<i64, OpenError> {
    let found = version_of_any(connection, database)?;
    if found > 0 && meta::has(connection, UNFINISHED_COPY)? {
        return Err(OpenError::Unfinished(database.parent().unwrap_or(Path::new("")).to_owned()));
    }
    Ok(found)
}

/// The same of one that may be a copy that was not finished.
pub(crate) fn version_of_any(connection: &Connection, database: &Path) -> Result<i64, OpenError> {
    let application = schema::pragma(connection, "application_id")
        .map_err(|error| unreadable(error, database))?;
    let found = schema::version(connection)?;
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
pub(crate) fn open_without_space(database: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(database, flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA query_only = ON; PRAGMA cache_size = -8192;",
    )?;
    if schema::pragma(&connection, "application_id")? != APPLICATION_ID {
        return Err(OpenError::NotALedger(database.to_owned()));
    }
    match schema::version(&connection)? {
        found if found > VERSION => Err(OpenError::Newer { found }),
        _ => Ok(connection),
    }
}

/// Opens the database for reading beside the writer.
pub(crate) fn open_reader(directory: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(directory.join(DATABASE), flags)?;
    connection.execute_batch("PRAGMA cache_size = -2048; PRAGMA busy_timeout = 2000;")?;
    Ok(connection)
}

/// Opens the database for checkpoints beside the writer.
pub(crate) fn open_checkpointer(directory: &Path) -> Result<Connection, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(directory.join(DATABASE), flags)?;
    connection.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0; PRAGMA cache_size = -1024;",
    )?;
    Ok(connection)
}
