//! What an operator dropped: its rows are erased a slice at a time.
//!
//! A dropped audience is moved to a destination with a name that nobody can configure, so that its own name
//! is free at once. Upkeep empties such destinations.

use rusqlite::{Connection, OptionalExtension, params};

use crate::ledger::embedded::ids::{AudienceRowId, DestinationRowId};
use crate::ledger::embedded::tables::audiences;
use crate::ledger::embedded::tables::rejected::Rejected;

/// Moves an audience, to be erased.
pub(crate) fn detach(db: &Connection, audience: AudienceRowId) -> rusqlite::Result<()> {
    let to = nameless(db)?;
    db.execute("UPDATE audience SET destination = ?2 WHERE id = ?1", params![audience, to])?;
    Ok(())
}

/// Marks a destination that is not configured, with everything it has, to be erased.
pub(crate) fn detach_destination(
    db: &Connection,
    destination: DestinationRowId,
) -> rusqlite::Result<()> {
    db.execute(
        "UPDATE destination SET name = '<dropped ' || id || '>', dropped = 1, checksum = NULL
         WHERE id = ?1",
        [destination],
    )?;
    Ok(())
}

/// Moves the rejected events of a destination that itself stays.
pub(crate) fn detach_rejected(
    db: &Connection,
    destination: DestinationRowId,
) -> rusqlite::Result<()> {
    let to = nameless(db)?;
    db.execute(
        "UPDATE rejected SET destination = ?2 WHERE destination = ?1",
        params![destination, to],
    )?;
    Ok(())
}

/// Creates a destination whose name has characters that no configured name may have.
fn nameless(db: &Connection) -> rusqlite::Result<i64> {
    db.execute(
        "INSERT INTO destination (name, environment, dropped)
         SELECT '<dropped ' || (coalesce(max(id), 0) + 1) || '>', '', 1 FROM destination",
        [],
    )?;
    Ok(db.last_insert_rowid())
}

/// Erases one slice. `true`: there is more.
pub(crate) fn erase_slice(
    rejected: &mut Rejected,
    db: &Connection,
    limit: usize,
) -> rusqlite::Result<bool> {
    let destination: Option<DestinationRowId> = db
        .prepare_cached("SELECT id FROM destination WHERE dropped = 1 LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    let Some(destination) = destination else { return Ok(false) };
    let audience: Option<AudienceRowId> = db
        .prepare_cached("SELECT id FROM audience WHERE destination = ?1 LIMIT 1")?
        .query_row([destination], |row| row.get(0))
        .optional()?;
    if let Some(audience) = audience {
        // In this order: a park reason without its member would count as damage.
        for table in ["parked", "member"] {
            let erase = format!(
                "DELETE FROM {table} WHERE audience = ?1 AND context_key IN (
                     SELECT context_key FROM {table} WHERE audience = ?1 LIMIT ?2)"
            );
            if db.prepare_cached(&erase)?.execute(params![audience, limit])? > 0 {
                return Ok(true);
            }
        }
        audiences::erase(db, audience)?;
        return Ok(true);
    }
    if !rejected.erase_slice_of(db, destination, limit)? {
        db.execute("DELETE FROM destination WHERE id = ?1", [destination])?;
    }
    Ok(true)
}
