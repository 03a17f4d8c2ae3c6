//! Every member of a ledger, one after the other, beside a daemon or without one.

use std::ops::ControlFlow;
use std::path::Path;

use rusqlite::Row;

use super::schema::{self, OpenError};
use crate::membership::Timestamp;

/// A member with all that is known of it. Personal.
#[derive(Clone, PartialEq, Eq)]
pub struct ExportedMember {
    /// The destination's name.
    pub destination: String,
    /// The audience's id.
    pub audience_id: String,
    /// The audience's latest key.
    pub audience_key: String,
    /// The kind of the audience's contexts.
    pub context_kind: String,
    /// Who.
    pub context_key: String,
    /// What it should be.
    pub included: bool,
    /// When the membership changed.
    pub event_at: Timestamp,
    /// Whether it waits to be told.
    pub pending: bool,
    /// What LaunchDarkly was last told, and when.
    pub told: Option<(bool, Timestamp)>,
    /// Why it is parked, if it is.
    pub parked: Option<ExportedParking>,
}

/// LaunchDarkly's words for refusing a member. Personal.
#[derive(Clone, PartialEq, Eq)]
pub struct ExportedParking {
    /// The HTTP status.
    pub status: u16,
    /// LaunchDarkly's `code`.
    pub code: String,
    /// LaunchDarkly's `message`.
    pub message: String,
    /// LaunchDarkly's `id`, for its support.
    pub id: String,
}

/// Hands every member to `each` until it breaks: of one moment, in flat memory.
pub fn export<B>(
    directory: &Path,
    destination: Option<&str>,
    mut each: impl FnMut(ExportedMember) -> ControlFlow<B>,
) -> Result<ControlFlow<B>, OpenError> {
    let db = schema::open_to_read(&schema::database(directory))?;
    let mut statement = db.prepare(
        "SELECT destination.name, audience_id, audience_key, context_kind, member.context_key,
             member.included, event_at, pending_since IS NOT NULL,
             CASE WHEN told_at >= told_counts_from THEN told END, told_at,
             status, code, message, answer_id
         FROM member JOIN audience ON audience.id = member.audience
         JOIN destination ON destination.id = audience.destination
         LEFT JOIN parked ON parked.audience = member.audience
             AND parked.context_key = member.context_key AND pending_since IS NULL
         WHERE dropped = 0 AND (?1 IS NULL OR destination.name = ?1)
         ORDER BY member.audience, member.context_key",
    )?;
    let mut rows = statement.query([destination])?;
    while let Some(row) = rows.next()? {
        let next = each(member(row)?);
        if next.is_break() {
            return Ok(next);
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn member(row: &Row<'_>) -> rusqlite::Result<ExportedMember> {
    let told: Option<bool> = row.get(8)?;
    let told_at: Option<i64> = row.get(9)?;
    let status: Option<u16> = row.get(10)?;
    Ok(ExportedMember {
        destination: row.get(0)?,
        audience_id: row.get(1)?,
        audience_key: row.get(2)?,
        context_kind: row.get(3)?,
        context_key: row.get(4)?,
        included: row.get(5)?,
        event_at: Timestamp(row.get(6)?),
        pending: row.get(7)?,
        told: told.zip(told_at.map(Timestamp)),
        parked: match status {
            Some(status) => Some(ExportedParking {
                status,
                code: row.get(11)?,
                message: row.get(12)?,
                id: row.get(13)?,
            }),
            None => None,
        },
    })
}
