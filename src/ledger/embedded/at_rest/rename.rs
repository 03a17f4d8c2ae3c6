//! Renames a destination or an audience, so that its rows follow a rename made elsewhere.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use crate::ledger::embedded::at_rest::prepare;
use crate::ledger::embedded::directory::names;
use crate::ledger::embedded::ids::AudienceRowId;
use crate::ledger::embedded::opening::{interrupted, open};
use crate::ledger::embedded::tables::open_error::OpenError;
use crate::ledger::embedded::tables::reconciliations;
use crate::ledger::embedded::tables::walk::{Task, Walk};
use crate::membership::{AudienceId, DestinationName, Timestamp};

/// What is renamed.
#[derive(Clone, Debug)]
pub enum Renamed {
    /// A destination that was renamed in the configuration.
    Destination {
        /// Its old name.
        from: DestinationName,
        /// Its new name.
        to: DestinationName,
    },
    /// An audience whose id changed in Segment: LaunchDarkly creates a new segment for it, which has to be
    /// told every member.
    Audience {
        /// The destination of the audience.
        destination: DestinationName,
        /// Its old id.
        from: AudienceId,
        /// Its new id.
        to: AudienceId,
    },
}

/// Why a rename failed.
#[derive(Debug, thiserror::Error)]
pub enum RenameError {
    /// The ledger cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Nothing has the old name.
    #[error("the ledger has no {0}")]
    Unknown(String),
    /// The new name is taken.
    #[error("the ledger has {0} already: drop it first, or choose another name")]
    Taken(String),
}

impl From<rusqlite::Error> for RenameError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Open(error.into())
    }
}

/// Renames in the ledger at `directory`, which no daemon may have open.
pub fn rename(directory: &Path, what: &Renamed) -> Result<(), RenameError> {
    if !names::database(directory).exists() && !interrupted::is_under_way(directory) {
        return Err(OpenError::Missing(directory.to_owned()).into());
    }
    let _lock = prepare::take(directory)?;
    let (mut db, _) = open::open(directory, 2048)?;
    let transaction = db.transaction()?;
    match what {
        Renamed::Destination { from, to } => rename_destination(&transaction, from, to)?,
        Renamed::Audience { destination, from, to } => {
            rename_audience(&transaction, destination, from, to)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn rename_destination(
    db: &Connection,
    from: &DestinationName,
    to: &DestinationName,
) -> Result<(), RenameError> {
    let words = |name: &DestinationName| format!("destination {name}");
    let row = destination(db, from)?.ok_or_else(|| RenameError::Unknown(words(from)))?;
    if let Some(other) = destination(db, to)? {
        // A start under the new name has already created a row; it may be replaced as long as it is empty.
        let in_use: bool = db.query_row(
            "SELECT EXISTS (SELECT 1 FROM audience WHERE destination = ?1)
                 OR EXISTS (SELECT 1 FROM rejected WHERE destination = ?1)",
            [other],
            |row| row.get(0),
        )?;
        if in_use {
            return Err(RenameError::Taken(words(to)));
        }
        db.execute("DELETE FROM destination WHERE id = ?1", [other])?;
    }
    // The checksum is set again when the daemon opens the ledger.
    db.execute(
        "UPDATE destination SET name = ?2, checksum = NULL WHERE id = ?1",
        params![row, to.as_str()],
    )?;
    reconciliations::rename(db, (from, to), None)?;
    Ok(())
}

fn rename_audience(
    db: &Connection,
    name: &DestinationName,
    from: &AudienceId,
    to: &AudienceId,
) -> Result<(), RenameError> {
    let unknown = || RenameError::Unknown(format!("destination {name}"));
    let of = destination(db, name)?.ok_or_else(unknown)?;
    let words = |audience: &AudienceId| format!("audience {}", audience.as_str());
    let find = |audience: &AudienceId| {
        db.query_row(
            "SELECT id FROM audience WHERE destination = ?1 AND audience_id = ?2",
            params![of, audience.as_str()],
            |row| row.get::<_, AudienceRowId>(0),
        )
        .optional()
    };
    let row = find(from)?.ok_or_else(|| RenameError::Unknown(words(from)))?;
    if let Some(other) = find(to)? {
        if crate::ledger::embedded::tables::members::any(db, other)? {
            return Err(RenameError::Taken(words(to)));
        }
        db.execute("DELETE FROM audience WHERE id = ?1", [other])?;
    }
    let since = Timestamp(crate::ledger::embedded::tables::meta::arrival(db)? + 1);
    let walk = Walk::of(Task::Resync, since, 0);
    db.execute(
        "UPDATE audience SET audience_id = ?2, acknowledged = 0, told_counts_from = ?3,
             walk = ?4, walk_after = ?5, checksum = NULL
         WHERE id = ?1",
        params![row, to.as_str(), since.0, walk.to_string(), walk.after],
    )?;
    reconciliations::rename(db, (name, name), Some((from, to)))?;
    Ok(())
}

fn destination(db: &Connection, name: &DestinationName) -> rusqlite::Result<Option<i64>> {
    db.query_row("SELECT id FROM destination WHERE name = ?1", [name.as_str()], |row| row.get(0))
        .optional()
}
