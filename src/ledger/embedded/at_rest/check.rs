//! Checks every page and every row of a ledger, and the invariants between its tables.

use std::path::Path;

use crate::ledger::embedded::at_rest::prepare;
use crate::ledger::embedded::directory::names;
use crate::ledger::embedded::opening::open;
use crate::ledger::embedded::tables::open_error::OpenError;
use crate::ledger::embedded::tables::soundness::{self, Damage};
use crate::ledger::embedded::tables::{connections, schema};
use rusqlite::Connection;

/// What a sound ledger contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sound {
    /// Members of all audiences, including those that left.
    pub members: u64,
    /// Audiences of all destinations.
    pub audiences: u64,
    /// Members that wait to be told.
    pub pending: u64,
    /// Rejected events that are kept.
    pub rejected: u64,
    /// Blocks of the log that were accepted and are not merged, for want of space. They are sound.
    pub unmerged: u64,
}

/// Checks the ledger at `directory`, with or without a running daemon. Takes as long as reading the file. The
/// inner error lists every fault.
pub fn check(directory: &Path) -> Result<Result<Sound, Vec<String>>, OpenError> {
    let database = names::database(directory);
    let opened = prepare::prepare(directory).and_then(|_| connections::open_to_read(&database));
    match opened {
        Ok(db) => read(directory, &db, 0),
        Err(OpenError::Damaged(faults)) => Ok(Err(faults)),
        // On a full disk everything can still be read, only without the index (`-shm`) that SQLite would
        // create.
        Err(OpenError::NoSpace { .. }) => {
            let _lock = open::lock(directory)?;
            let db = connections::open_without_space(&database)?;
            match open::scan(directory, &db) {
                Ok(found) => read(directory, &db, found.blocks.len() as u64),
                Err(OpenError::Damaged(faults)) => Ok(Err(faults)),
                Err(error) => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

fn read(
    directory: &Path,
    db: &Connection,
    unmerged: u64,
) -> Result<Result<Sound, Vec<String>>, OpenError> {
    if schema::version(db)? == 0 {
        return Err(OpenError::Missing(directory.to_owned())); // no start has created its tables yet
    }
    let read = soundness::faults(db).and_then(|faults| {
        if faults.is_empty() { Ok(sound(db, unmerged)?) } else { Err(Damage::Found(faults)) }
    });
    Ok(read.map_err(Damage::faults))
}

fn sound(db: &Connection, unmerged: u64) -> rusqlite::Result<Sound> {
    let count = |what: &str| {
        db.query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get::<_, u64>(0))
    };
    Ok(Sound {
        members: count("member")?,
        audiences: count("audience")?,
        pending: count("member WHERE pending_since IS NOT NULL")?,
        rejected: count("rejected")?,
        unmerged,
    })
}
