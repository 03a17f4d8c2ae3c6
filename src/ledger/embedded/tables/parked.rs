//! LaunchDarkly's answers for parked members, kept until the member is taken, discarded, or expires by age or
//! number.

use rusqlite::{Connection, OptionalExtension, params};

use crate::ledger::ParkReason;
use crate::ledger::embedded::ids::AudienceRowId;
use crate::ledger::embedded::settings::Retention;
use crate::ledger::embedded::tables::checksum::{self, Checksum};
use crate::membership::Timestamp;

/// Retention of park reasons.
#[derive(Debug)]
pub(crate) struct Parked {
    kept: Retention,
    /// Whether anything was parked since they were last counted.
    may_be_too_many: bool,
}

/// The park reason of a member, and when it was stored.
pub(crate) fn load(
    db: &Connection,
    audience: AudienceRowId,
    key: &str,
) -> rusqlite::Result<Option<(Timestamp, ParkReason)>> {
    db.prepare_cached(
        "SELECT parked_at, status, code, message, answer_id, checksum FROM parked
         WHERE audience = ?1 AND context_key = ?2",
    )?
    .query_row(params![audience, key], |row| {
        let at = Timestamp(row.get(0)?);
        let reason = ParkReason {
            status: row.get(1)?,
            code: row.get(2)?,
            message: row.get(3)?,
            id: row.get(4)?,
        };
        let read = || checksum_of(audience, key, at, &reason);
        checksum::verify(row.get(5)?, read, "the reason of a parked member")?;
        Ok((at, reason))
    })
    .optional()
}

fn checksum_of(audience: AudienceRowId, key: &str, at: Timestamp, reason: &ParkReason) -> u32 {
    let ParkReason { status, code, message, id } = reason;
    let mut sum = Checksum::new();
    sum.number(audience.0).text(key).number(at.0).number((*status).into());
    sum.text(code).text(message).text(id).finish()
}

/// Verifies every park reason; damage is an error.
pub(crate) fn verify_all(db: &Connection) -> rusqlite::Result<()> {
    let mut statement = db.prepare("SELECT audience, context_key FROM parked")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        load(db, row.get(0)?, &row.get::<_, String>(1)?)?;
    }
    Ok(())
}

/// Stores the park reason of a member, in place of the previous one.
pub(crate) fn keep(
    db: &Connection,
    audience: AudienceRowId,
    key: &str,
    at: Timestamp,
    reason: &ParkReason,
) -> rusqlite::Result<()> {
    let ParkReason { status, code, message, id } = reason;
    let checksum = checksum_of(audience, key, at, reason);
    db.prepare_cached(
        "INSERT OR REPLACE INTO parked
             (audience, context_key, parked_at, status, code, message, answer_id, checksum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![audience, key, at.0, status, code, message, id, checksum])?;
    Ok(())
}

impl Parked {
    pub fn new(kept: Retention) -> Self {
        Self { kept, may_be_too_many: true }
    }

    /// Stores the reason of a member that was just parked.
    pub fn insert(
        &mut self,
        db: &Connection,
        audience: AudienceRowId,
        key: &str,
        at: Timestamp,
        reason: &ParkReason,
    ) -> rusqlite::Result<()> {
        self.may_be_too_many = true;
        keep(db, audience, key, at, reason)
    }

    /// The member was taken or its row is gone: erases its reason.
    pub fn erase(db: &Connection, audience: AudienceRowId, key: &str) -> rusqlite::Result<()> {
        db.prepare_cached("DELETE FROM parked WHERE audience = ?1 AND context_key = ?2")?
            .execute(params![audience, key])?;
        Ok(())
    }

    /// Erases a slice of the reasons that are too old or too many, oldest first; returns their members.
    pub fn take_slice(
        &mut self,
        db: &Connection,
        now: Timestamp,
        limit: usize,
    ) -> rusqlite::Result<Excess> {
        let kept = &self.kept;
        let mut excess = 0;
        if self.may_be_too_many {
            let (count, bytes): (u64, u64) = db
                .prepare_cached(
                    "SELECT count(*), coalesce(sum(length(context_key) + length(code)
                         + length(message) + length(answer_id)), 0) FROM parked",
                )?
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            // The same share of the entries as of the bytes: reasons are of similar size.
            let over = bytes.saturating_sub(kept.max_bytes);
            let for_bytes = (over * count).div_ceil(bytes.max(1));
            excess = count.saturating_sub(kept.max_count).max(for_bytes);
        }
        let oldest = now.before(kept.max_age);
        let found: Vec<(AudienceRowId, String, i64)> = db
            .prepare_cached(
                "SELECT audience, context_key, parked_at FROM parked ORDER BY parked_at LIMIT ?1",
            )?
            .query_map([limit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<Result<_, _>>()?;
        let mut members = Vec::new();
        for (audience, key, parked_at) in found {
            if parked_at >= oldest.0 && members.len() as u64 >= excess {
                break;
            }
            Self::erase(db, audience, &key)?;
            members.push((audience, key));
        }
        self.may_be_too_many = excess > members.len() as u64;
        Ok(Excess { is_more: members.len() == limit || self.may_be_too_many, members })
    }
}

/// Parked members that were too old or too many.
#[derive(Debug)]
pub(crate) struct Excess {
    /// The row of the audience and the context key of each.
    pub members: Vec<(AudienceRowId, String)>,
    /// There are more.
    pub is_more: bool,
}
