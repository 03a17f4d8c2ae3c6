//! Whether a database is sound: holds what was written into it.
//!
//! [`header`], [`log`] and [`roots`] are fast at any size and part of every start. [`faults`] reads every
//! page and every row, and checks the invariants between tables.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::ledger::embedded::ids::AudienceRowId;
use crate::ledger::embedded::tables::open_error::OpenError;
use crate::ledger::embedded::tables::version::VERSION;
use crate::ledger::embedded::tables::{
    destinations, members, messages, meta, parked, persons, reassertions, reconciliations,
    rejected, schema, sqlite_log,
};
use rusqlite::{Connection, params};

/// Most faults that are listed: more would tell no more.
const MOST: u32 = 20;

/// Members read at once.
const ROWS: usize = 1000;

/// Invariants between tables: what a violation is called, and a query that counts violations.
const BETWEEN_TABLES: [(&str, &str); 6] = [
    (
        "members of an unknown audience",
        "SELECT count(*) FROM member WHERE audience NOT IN (SELECT id FROM audience)",
    ),
    (
        "audiences of an unknown destination",
        "SELECT count(*) FROM audience WHERE destination NOT IN (SELECT id FROM destination)",
    ),
    (
        "parked records without a member",
        "SELECT count(*) FROM parked WHERE NOT EXISTS (SELECT 1 FROM member
             WHERE member.audience = parked.audience AND member.context_key = parked.context_key)",
    ),
    (
        "members with a value that is neither in nor out",
        "SELECT count(*) FROM member WHERE included NOT IN (0, 1) OR told NOT IN (0, 1)",
    ),
    (
        "audiences whose counts are not those of their members",
        "SELECT count(*) FROM audience JOIN destination ON destination.id = destination
         WHERE dropped = 0 AND (included, pending, parked) IS NOT (
             SELECT coalesce(sum(member.included), 0), count(member.pending_since),
                 coalesce(sum(member.parked_at IS NOT NULL AND member.pending_since IS NULL), 0)
             FROM member WHERE member.audience = audience.id)",
    ),
    (
        "rejected events of an unknown destination",
        "SELECT count(*) FROM rejected WHERE destination NOT IN (SELECT id FROM destination)",
    ),
];

/// Every fault of this database, at most [`MOST`] of each kind.
pub(crate) fn faults(db: &Connection) -> Result<Vec<String>, Damage> {
    let mut faults: Vec<String> = db
        .prepare(&format!("PRAGMA integrity_check({MOST})"))?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    faults.retain(|line| line != "ok");
    // The invariants of an older version are not known here.
    if !faults.is_empty() || schema::version(db)? < VERSION {
        return Ok(faults);
    }
    for (what, count) in BETWEEN_TABLES {
        let count: u64 = db.query_row(count, [], |row| row.get(0))?;
        if count > 0 {
            faults.push(format!("{count} {what}"));
        }
    }
    every_row(db)?;
    Ok(faults)
}

/// Verifies every row that has a checksum, except those of members; damage is an error.
pub(crate) fn few_rows(db: &Connection) -> rusqlite::Result<()> {
    meta::arrival(db)?;
    meta::blob(db, "person_key")?;
    meta::note(db)?;
    destinations::verify_all(db)?;
    parked::verify_all(db)?;
    persons::verify_all(db)?;
    messages::verify_all(db)?;
    rejected::verify_all(db)?;
    reconciliations::verify_all(db)?;
    reassertions::verify_all(db)
}

fn every_row(db: &Connection) -> rusqlite::Result<()> {
    few_rows(db)?;
    let mut after = (AudienceRowId(i64::MIN), String::new());
    loop {
        let rows = members::walk(db, (after.0, &after.1), ROWS)?;
        let Some((audience, key, _)) = rows.into_iter().next_back() else { return Ok(()) };
        after = (audience, key);
    }
}

/// Whether the file is as long as its header says, or the missing pages are in SQLite's log: a checkpoint may
/// have written the header before the last pages when it was killed. A truncated file is not sound.
pub(crate) fn header(path: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Directory { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut header = [0_u8; 100];
    let damaged = |what: String| Err(OpenError::Damaged(vec![what]));
    if file.read_exact(&mut header).is_err() {
        return damaged(format!("the database has only {length} bytes"));
    }
    let number =
        |at: usize| header[at..].iter().take(4).fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let page = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        size => u64::from(size),
    };
    let (pages, changed, valid_for) = (number(28), number(24), number(92));
    // Otherwise the header does not hold the number of pages (the SQLite file format, section 1.3.8).
    if changed == valid_for && length < pages * page {
        let lacking = length / page + 1..=pages;
        if !sqlite_log::has_pages(path, lacking).map_err(failed)? {
            return damaged(format!("the database has {length} bytes of {}", pages * page));
        }
    }
    Ok(())
}

/// Whether SQLite's log holds everything that was committed. Must run before anybody opens the database,
/// which would cut the log to what can be read of it; nobody may be writing it.
pub(crate) fn log(path: &Path) -> Result<(), OpenError> {
    match sqlite_log::damage(path) {
        Ok(None) => Ok(()),
        Ok(Some(fault)) => Err(OpenError::Damaged(vec![fault])),
        Err(source) => Err(OpenError::Directory { path: path.to_owned(), source }),
    }
}

/// Whether the tables are those of this version, and the first and last rows of each table and index can be
/// reached from its root.
pub(crate) fn roots(db: &Connection) -> Result<(), OpenError> {
    let expected = Connection::open_in_memory()?;
    schema::make(&expected)?;
    let (expected, found) = (shape(&expected)?, shape(db)?);
    let mut faults: Vec<String> = Vec::new();
    for (name, columns) in &expected {
        match found.get(name) {
            None => faults.push(format!("{name} is missing")),
            Some(other) if other != columns => {
                faults.push(format!("{name} is not as this version defines it"));
            }
            Some(_) => {}
        }
    }
    if faults.is_empty() {
        for name in found.keys() {
            let root: i64 = db.query_row(
                "SELECT rootpage FROM sqlite_schema WHERE name = ?1",
                [name],
                |row| row.get(0),
            )?;
            if root < 2 {
                faults.push(format!("{name} has no root"));
            }
        }
        for reach in REACH {
            if let Err(error) = db.query_row(reach, [], |_| Ok(())) {
                faults.push(error.to_string());
            }
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(OpenError::Damaged(faults)) }
}

/// Each descends from a root to both ends. One `min` or `max` in a subquery: two in one query are a scan.
const REACH: [&str; 20] = [
    "SELECT count(*) FROM (SELECT * FROM meta LIMIT 1)",
    "SELECT (SELECT min(id) FROM destination), (SELECT max(id) FROM destination)",
    "SELECT count(*) FROM (SELECT name FROM destination ORDER BY name LIMIT 1)",
    "SELECT (SELECT min(id) FROM audience), (SELECT max(id) FROM audience)",
    "SELECT count(*) FROM (SELECT 1 FROM audience ORDER BY destination, audience_id LIMIT 1)",
    "SELECT (SELECT min(audience) FROM member), (SELECT max(audience) FROM member)",
    "SELECT count(*) FROM (SELECT 1 FROM member INDEXED BY member_pending
         WHERE pending_since IS NOT NULL ORDER BY audience, pending_since LIMIT 1)",
    "SELECT count(*) FROM (SELECT 1 FROM member INDEXED BY member_pending
         WHERE pending_since IS NOT NULL ORDER BY audience DESC, pending_since DESC LIMIT 1)",
    "SELECT count(*) FROM (SELECT 1 FROM member INDEXED BY member_person
         WHERE person IS NOT NULL ORDER BY person LIMIT 1)",
    "SELECT (SELECT min(audience) FROM parked), (SELECT max(audience) FROM parked)",
    "SELECT (SELECT min(parked_at) FROM parked), (SELECT max(parked_at) FROM parked)",
    "SELECT (SELECT min(settled_at) FROM reassertion), (SELECT max(settled_at) FROM reassertion)",
    "SELECT (SELECT min(person) FROM forgotten), (SELECT max(person) FROM forgotten)",
    "SELECT (SELECT min(seen_at) FROM message), (SELECT max(seen_at) FROM message)",
    "SELECT (SELECT min(message) FROM message), (SELECT max(message) FROM message)",
    "SELECT (SELECT min(id) FROM rejected), (SELECT max(id) FROM rejected)",
    "SELECT (SELECT min(destination) FROM rejected), (SELECT max(destination) FROM rejected)",
    "SELECT count(*) FROM (SELECT 1 FROM rejected INDEXED BY rejected_person
         WHERE person IS NOT NULL ORDER BY person LIMIT 1)",
    "SELECT (SELECT min(id) FROM reconciliation), (SELECT max(id) FROM reconciliation)",
    "SELECT (SELECT min(reconciliation) FROM reconciliation_piece),
         (SELECT max(reconciliation) FROM reconciliation_piece)",
];

/// The columns of every table and index, by name.
fn shape(db: &Connection) -> rusqlite::Result<BTreeMap<String, Vec<String>>> {
    let named: Vec<(String, String)> = db
        .prepare(
            "SELECT type, name FROM sqlite_schema
             WHERE type IN ('table', 'index') AND name NOT GLOB 'sqlite_*'",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let columns_of = |(kind, name): (String, String)| {
        let columns = if kind == "table" {
            "SELECT name || ' ' || type || ' ' || \"notnull\" || ' ' || pk FROM pragma_table_info(?1)"
        } else {
            "SELECT name FROM pragma_index_info(?1)"
        };
        let columns = db
            .prepare(columns)?
            .query_map(params![name], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        Ok((name, columns))
    };
    named.into_iter().map(columns_of).collect()
}

/// Why a database is not sound.
#[derive(Debug)]
pub(crate) enum Damage {
    Found(Vec<String>),
    Unreadable(rusqlite::Error),
}

impl Damage {
    /// What cannot be read is a fault too.
    pub(crate) fn faults(self) -> Vec<String> {
        match self {
            Self::Found(faults) => faults,
            Self::Unreadable(error) => vec![error.to_string()],
        }
    }
}

impl From<rusqlite::Error> for Damage {
    fn from(error: rusqlite::Error) -> Self {
        Self::Unreadable(error)
    }
}
