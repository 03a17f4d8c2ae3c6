//! Whether a start could open the ledger that is there, found out without changing anything: no lock is taken, no mode
//! is changed, and SQLite neither makes a file beside the database nor empties one.

use std::fs;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::ledger::embedded::directory::names;
use crate::ledger::embedded::directory::on_disk::with_suffix;
use crate::ledger::embedded::opening::open;
use crate::ledger::embedded::tables::open_error::OpenError;
use crate::ledger::embedded::tables::version::{JOURNALED, VERSION};
use crate::ledger::embedded::tables::{connections, schema, soundness};

/// What was seen of a ledger that can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is there, and nobody has it.
    Free,
    /// A daemon has it.
    InUse,
}

/// Looks at what a start would look at: that the database is one of ours, of a version this binary knows, as long as
/// it says, with its log and journal whole and its tables within reach. What only reading all of it shows is left to
/// [`check`](crate::ledger::check).
pub fn look(directory: &Path) -> Result<Seen, OpenError> {
    let database = names::database(directory);
    let opened = opened(&database);
    if opened.as_ref().is_err_and(is_busy) {
        // Its index is there, so that none is made.
        connections::open_to_read(&database)?;
        return Ok(Seen::InUse);
    }
    soundness::header(&database)?;
    soundness::log(&database)?;
    if has_change_to_undo(&database) {
        return Ok(Seen::Free); // a start undoes it, which only then can be read
    }
    let db = opened.map_err(|error| connections::unreadable(error, &database))?;
    let found = connections::version_of_ours(&db, &database)?;
    if found >= JOURNALED {
        open::scan(directory, &db)?;
    }
    if found == VERSION {
        soundness::roots(&db)?;
    }
    Ok(Seen::Free)
}

/// Opens a database to be read. With a log beside it, the index of that is kept in memory, for which nobody else may
/// have it open; without one, SQLite would make one, and is told that nothing changes meanwhile.
fn opened(database: &Path) -> rusqlite::Result<Connection> {
    let connection = if with_suffix(database, "-wal").exists() {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(database, flags)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE; PRAGMA query_only = ON;")?;
        connection
    } else {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_URI;
        let name = database.to_string_lossy();
        let name = name.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
        Connection::open_with_flags(format!("file:{name}?immutable=1"), flags)?
    };
    // A daemon does not let go of it.
    connection.execute_batch("PRAGMA cache_size = -8192; PRAGMA busy_timeout = 0;")?;
    schema::version(&connection)?;
    Ok(connection)
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn has_change_to_undo(database: &Path) -> bool {
    fs::metadata(with_suffix(database, "-journal")).is_ok_and(|journal| journal.len() > 0)
}
