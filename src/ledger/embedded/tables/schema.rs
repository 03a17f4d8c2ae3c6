//! The tables, and how a file is known to hold them.

use rusqlite::Connection;

use crate::ledger::embedded::tables::meta;
use crate::ledger::embedded::tables::version::VERSION;

/// Marks the file as ours (`PRAGMA application_id`): "chrt".
pub(crate) const APPLICATION_ID: i64 = 0x6368_7274;

/// Clustered on (audience, context key): a member is one row, found in one descent. The pending rows
/// alone are indexed, in the order in which they began to wait. Times are microseconds of the
/// ledger's own clock, except `event_at`, `forgotten_at`, `counts_at` and `snapshot_at`, which are the event's.
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
    guard TEXT,
    snapshot_at INTEGER NOT NULL DEFAULT 0,
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
";

/// Makes the tables of a new ledger, and what they begin with: all of it or nothing, with one sync.
pub(crate) fn make(connection: &Connection) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(&format!(
        "PRAGMA application_id = {APPLICATION_ID};
         PRAGMA user_version = {VERSION};
         {TABLES}
         INSERT INTO meta VALUES ('arrival', 0), ('merged', 0), ('person_key', randomblob(32));"
    ))?;
    meta::complete(&transaction)?;
    transaction.commit()
}

/// The version of the tables.
pub(crate) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    pragma(connection, "user_version")
}

/// The value of a pragma that is a number.
pub(crate) fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))
}
