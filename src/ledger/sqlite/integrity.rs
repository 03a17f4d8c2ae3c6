//! Whether a ledger says what was written into it: every page, and what holds between the tables.

use std::path::Path;

use rusqlite::Connection;

use super::schema::{self, OpenError};

/// Most faults that are told: more say no more.
const MOST: u32 = 20;

/// What holds between tables, and what a row that breaks it is.
const BETWEEN_TABLES: [(&str, &str); 5] = [
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
        "rejected events of an unknown destination",
        "SELECT count(*) FROM rejected WHERE destination NOT IN (SELECT id FROM destination)",
    ),
];

/// What was read of a sound ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sound {
    /// Members of all audiences, those that left included.
    pub members: u64,
    /// Audiences of all destinations.
    pub audiences: u64,
    /// Members that wait to be told.
    pub pending: u64,
    /// Rejected events that are kept.
    pub rejected: u64,
}

/// Reads everything at `directory`, beside a daemon or without one. Takes as long as reading the
/// file does. The inner error: everything that is wrong.
pub fn check(directory: &Path) -> Result<Result<Sound, Vec<String>>, OpenError> {
    let db = schema::open_to_read(&schema::database(directory))?;
    let read = faults(&db).and_then(|faults| {
        if faults.is_empty() { Ok(sound(&db)?) } else { Err(Damage::Found(faults)) }
    });
    Ok(read.map_err(Damage::faults))
}

/// Everything that is wrong with this database, at most [`MOST`] lines of each kind.
pub(super) fn faults(db: &Connection) -> Result<Vec<String>, Damage> {
    let mut faults: Vec<String> = db
        .prepare(&format!("PRAGMA integrity_check({MOST})"))?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    faults.retain(|line| line != "ok");
    if !faults.is_empty() {
        return Ok(faults);
    }
    for (what, count) in BETWEEN_TABLES {
        let count: u64 = db.query_row(count, [], |row| row.get(0))?;
        if count > 0 {
            faults.push(format!("{count} {what}"));
        }
    }
    Ok(faults)
}

/// Why a database is not sound.
#[derive(Debug)]
pub(super) enum Damage {
    Found(Vec<String>),
    Unreadable(rusqlite::Error),
}

impl Damage {
    /// What cannot even be read is a fault too, and no reason to give up without a word.
    pub(super) fn faults(self) -> Vec<String> {
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

fn sound(db: &Connection) -> rusqlite::Result<Sound> {
    let count = |what: &str| {
        db.query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get::<_, u64>(0))
    };
    Ok(Sound {
        members: count("member")?,
        audiences: count("audience")?,
        pending: count("member WHERE pending_since IS NOT NULL")?,
        rejected: count("rejected")?,
    })
}
