//! Migrates the tables of an older version to this one, a version at a time.
//!
//! # What always holds
//! * A step and its new version number are one transaction: a kill leaves the ledger as it was before the
//!   step, and the next start continues there.
//! * A new ledger and a migrated one have the same tables (`tests`).

use std::path::Path;

use rusqlite::Connection;

use crate::ledger::embedded::tables::open_error::OpenError;
use crate::ledger::embedded::tables::version::VERSION;
use crate::ledger::embedded::tables::{meta, schema};

/// The step at `index` leads from version `index + 1` to the next.
const STEPS: [&str; 6] = [
    "
ALTER TABLE destination ADD COLUMN paused_at INTEGER;
ALTER TABLE destination ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0;
ALTER TABLE destination ADD COLUMN checksum INTEGER;
ALTER TABLE audience RENAME COLUMN resync_after TO walk_after;
ALTER TABLE audience ADD COLUMN walk TEXT;
ALTER TABLE audience ADD COLUMN included INTEGER NOT NULL DEFAULT 0;
ALTER TABLE audience ADD COLUMN pending INTEGER NOT NULL DEFAULT 0;
ALTER TABLE audience ADD COLUMN parked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE audience ADD COLUMN checksum INTEGER;
UPDATE audience SET walk = 'resync' WHERE walk_after IS NOT NULL;
UPDATE audience SET (included, pending, parked) = (
    SELECT coalesce(sum(member.included), 0), count(member.pending_since),
        coalesce(sum(member.parked_at IS NOT NULL AND member.pending_since IS NULL), 0)
    FROM member WHERE member.audience = audience.id);
ALTER TABLE member ADD COLUMN refused_with INTEGER;
ALTER TABLE member ADD COLUMN checksum INTEGER;
ALTER TABLE parked ADD COLUMN checksum INTEGER;
ALTER TABLE reassertion ADD COLUMN checksum INTEGER;
ALTER TABLE forgotten ADD COLUMN checksum INTEGER;
DELETE FROM meta WHERE name IN ('rejected_count', 'rejected_bytes');
CREATE INDEX parked_since ON parked (parked_at);
ALTER TABLE rejected ADD COLUMN checksum INTEGER;
CREATE INDEX rejected_destination ON rejected (destination);
",
    // A walk stores when it began, its progress and its size.
    "
UPDATE audience SET walk = walk || ';0 0 0', checksum = NULL WHERE walk IS NOT NULL;
",
    // There is a log in front of the tables: a version that does not know it would lose its contents.
    "
INSERT OR IGNORE INTO meta VALUES ('merged', 0);
",
    // A deletion counts at its own time, so its arrival is stored beside it; and messages without a reliable
    // time are remembered.
    "
ALTER TABLE forgotten ADD COLUMN seen_at INTEGER;
ALTER TABLE rejected ADD COLUMN event_at INTEGER;
CREATE TABLE message (
    seen_at INTEGER PRIMARY KEY,
    message BLOB NOT NULL UNIQUE,
    counts_at INTEGER NOT NULL,
    checksum INTEGER
) STRICT;
",
    // The guard of an audience, and the time of its snapshot, which outdoes what is older. A member may be out because
    // its entry has expired, or because an event said so, which an operator can take back: flags that an earlier version
    // takes for damage.
    "
ALTER TABLE audience ADD COLUMN guard TEXT;
ALTER TABLE audience ADD COLUMN snapshot_at INTEGER NOT NULL DEFAULT 0;
",
    // What is left of a reconciliation is kept until all of it is recorded.
    "
CREATE TABLE reconciliation (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    destination TEXT NOT NULL,
    audience_id TEXT NOT NULL,
    process INTEGER NOT NULL,
    stage TEXT NOT NULL,
    about TEXT NOT NULL,
    since INTEGER NOT NULL,
    ended_at INTEGER,
    total INTEGER NOT NULL,
    done INTEGER NOT NULL,
    entered INTEGER NOT NULL,
    left INTEGER NOT NULL,
    checksum INTEGER
) STRICT;
CREATE TABLE reconciliation_piece (
    reconciliation INTEGER NOT NULL,
    no INTEGER NOT NULL,
    body BLOB NOT NULL,
    checksum INTEGER,
    PRIMARY KEY (reconciliation, no)
) STRICT;
",
];

/// Migrates a ledger of version `found` to [`VERSION`].
pub(crate) fn run(db: &Connection, found: i64) -> rusqlite::Result<()> {
    for (from, step) in (1..).zip(STEPS).skip_while(|(from, _)| *from < found) {
        tracing::info!(from, to = from + 1, of = VERSION, "migrating the ledger");
        db.execute_batch(&format!(
            "BEGIN IMMEDIATE; {step} PRAGMA user_version = {}; COMMIT;",
            from + 1
        ))?;
    }
    Ok(())
}

/// Migrates a database that nobody has open to [`VERSION`].
pub(crate) fn migrate(database: &Path) -> Result<(), OpenError> {
    let connection = Connection::open(database)?;
    connection.execute_batch(
        "PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;",
    )?;
    run(&connection, schema::version(&connection)?)?;
    meta::complete(&connection)?;
    Ok(())
}
