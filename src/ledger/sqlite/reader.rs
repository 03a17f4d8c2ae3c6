//! Reading beside the writer: counts and listings for people and tests, never for decisions.

use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, params};

use crate::ledger::Summary;
use crate::membership::DestinationName;

/// A connection of its own; one reading at a time.
#[derive(Debug)]
pub struct Reader(Mutex<Connection>);

/// A member as an operator sees it. Personal.
#[derive(Clone, PartialEq, Eq)]
pub struct MemberView {
    /// The audience's id.
    pub audience: String,
    /// Who.
    pub context_key: String,
    /// What it should be.
    pub included: bool,
    /// What LaunchDarkly was last told.
    pub told: Option<bool>,
    /// Whether it waits to be told.
    pub pending: bool,
}

/// A parked member as an operator sees it. Personal.
#[derive(Clone, PartialEq, Eq)]
pub struct ParkedView {
    /// The audience's id.
    pub audience: String,
    /// Who.
    pub context_key: String,
    /// The HTTP status of the refusal.
    pub status: u16,
    /// LaunchDarkly's `code`.
    pub code: String,
    /// LaunchDarkly's `message`.
    pub message: String,
    /// LaunchDarkly's `id`, for its support.
    pub answer_id: String,
}

/// A rejected event as an operator sees it. Personal.
#[derive(Clone, PartialEq, Eq)]
pub struct RejectedView {
    /// Its number in the ledger.
    pub id: i64,
    /// The stable word.
    pub reason: String,
    /// The sentence.
    pub detail: String,
    /// The event as it came.
    pub body: Vec<u8>,
}

impl Reader {
    pub(super) fn new(connection: Connection) -> Self {
        Self(Mutex::new(connection))
    }

    fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        read(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts the members of a destination. Reads every row: slow on a large ledger.
    pub fn summary(&self, destination: &DestinationName) -> rusqlite::Result<Summary> {
        self.with(|db| {
            let (included, pending, parked) = db
                .prepare_cached(
                    "SELECT coalesce(sum(included), 0), count(pending_since),
                         coalesce(sum(parked_at IS NOT NULL AND pending_since IS NULL), 0)
                     FROM member WHERE audience IN (SELECT audience.id FROM audience
                         JOIN destination ON destination.id = destination WHERE name = ?1)",
                )?
                .query_row([destination.as_str()], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })?;
            let rejected = db
                .prepare_cached(
                    "SELECT count(*) FROM rejected
                     WHERE destination = (SELECT id FROM destination WHERE name = ?1)",
                )?
                .query_row([destination.as_str()], |row| row.get(0))?;
            Ok(Summary { included, pending, parked, rejected })
        })
    }

    /// Every member of a destination, in the order of the table.
    pub fn members(&self, destination: &DestinationName) -> rusqlite::Result<Vec<MemberView>> {
        self.with(|db| {
            db.prepare_cached(
                "SELECT audience_id, context_key, included, told, pending_since IS NOT NULL
                 FROM member JOIN audience ON audience.id = member.audience
                 JOIN destination ON destination.id = audience.destination
                 WHERE destination.name = ?1 ORDER BY member.audience, context_key",
            )?
            .query_map([destination.as_str()], |row| {
                Ok(MemberView {
                    audience: row.get(0)?,
                    context_key: row.get(1)?,
                    included: row.get(2)?,
                    told: row.get(3)?,
                    pending: row.get(4)?,
                })
            })?
            .collect()
        })
    }

    /// The parked members of a destination, at most `limit`.
    pub fn parked(
        &self,
        destination: &DestinationName,
        limit: u32,
    ) -> rusqlite::Result<Vec<ParkedView>> {
        self.with(|db| {
            db.prepare_cached(
                "SELECT audience_id, parked.context_key, status, code, message, answer_id
                 FROM parked
                 JOIN member ON member.audience = parked.audience
                     AND member.context_key = parked.context_key AND pending_since IS NULL
                 JOIN audience ON audience.id = parked.audience
                 JOIN destination ON destination.id = audience.destination
                 WHERE destination.name = ?1 ORDER BY parked.audience, parked.context_key LIMIT ?2",
            )?
            .query_map(params![destination.as_str(), limit], |row| {
                Ok(ParkedView {
                    audience: row.get(0)?,
                    context_key: row.get(1)?,
                    status: row.get(2)?,
                    code: row.get(3)?,
                    message: row.get(4)?,
                    answer_id: row.get(5)?,
                })
            })?
            .collect()
        })
    }

    /// The rejected events of a destination, the oldest first, at most `limit`.
    pub fn rejected(
        &self,
        destination: &DestinationName,
        limit: u32,
    ) -> rusqlite::Result<Vec<RejectedView>> {
        self.with(|db| {
            db.prepare_cached(
                "SELECT rejected.id, reason, detail, body FROM rejected
                 JOIN destination ON destination.id = rejected.destination
                 WHERE name = ?1 ORDER BY rejected.id LIMIT ?2",
            )?
            .query_map(params![destination.as_str(), limit], |row| {
                Ok(RejectedView {
                    id: row.get(0)?,
                    reason: row.get(1)?,
                    detail: row.get(2)?,
                    body: row.get(3)?,
                })
            })?
            .collect()
        })
    }
}
