//! Rows of audiences.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::ledger::Route;
use crate::ledger::counts::Counts;
use crate::ledger::embedded::ids::{AudienceRowId, DestinationRowId};
use crate::ledger::embedded::tables::checksum::{self, Checksum};
use crate::ledger::embedded::tables::walk::Walk;
use crate::ledger::guard::Guard;
use crate::membership::{AudienceId, AudienceKey, ContextKind, DestinationName, Timestamp};

/// The row of an audience.
#[derive(Debug)]
pub(crate) struct AudienceRow {
    pub id: AudienceRowId,
    pub route: Arc<Route>,
    pub acknowledged: bool,
    pub told_counts_from: Timestamp,
    pub snapshot_at: Timestamp,
    pub claimed_through: Timestamp,
    pub unheard_through: Timestamp,
    pub walk: Option<Walk>,
    pub counts: Counts,
    pub guard: Guard,
    /// Checksum of the stored row; `None` if it has none or is new.
    pub stored: Option<u32>,
}

impl AudienceRow {
    /// The audience's row id and its claim mark.
    pub fn mark(&self) -> (AudienceRowId, Timestamp) {
        (self.id, self.claimed_through)
    }

    pub fn write(&self, db: &Connection) -> rusqlite::Result<()> {
        db.prepare_cached(
            "UPDATE audience SET audience_key = ?2, context_kind = ?3, acknowledged = ?4,
                 told_counts_from = ?5, claimed_through = ?6, unheard_through = ?7,
                 walk_after = ?8, walk = ?9, included = ?10, pending = ?11, parked = ?12,
                 checksum = ?13, guard = ?14, snapshot_at = ?15
             WHERE id = ?1",
        )?
        .execute(params![
            self.id,
            self.route.audience_key.as_str(),
            self.route.context_kind.as_str(),
            self.acknowledged,
            self.told_counts_from.0,
            self.claimed_through.0,
            self.unheard_through.0,
            self.walk.as_ref().map(|walk| &walk.after),
            self.walk.as_ref().map(Walk::to_string),
            self.counts.included,
            self.counts.pending,
            self.counts.parked,
            self.checksum(),
            self.guard_text(),
            self.snapshot_at.0,
        ])?;
        Ok(())
    }

    /// What is stored of its guard; a guard that has counted nothing leaves the row as earlier versions wrote it.
    fn guard_text(&self) -> Option<String> {
        (self.guard != Guard::default()).then(|| self.guard.to_string())
    }

    pub fn checksum(&self) -> u32 {
        let Counts { included, pending, parked } = self.counts;
        let counts = [included, pending, parked].map(u64::cast_signed);
        let walk = self.walk.as_ref();
        let mut sum = Checksum::new();
        sum.number(self.id.0)
            .text(self.route.audience.as_str())
            .text(self.route.audience_key.as_str())
            .text(self.route.context_kind.as_str())
            .number(i64::from(self.acknowledged))
            .number(self.told_counts_from.0)
            .number(self.claimed_through.0)
            .number(self.unheard_through.0)
            .text(&walk.map(Walk::to_string).unwrap_or_default())
            .text(walk.map_or("", |walk| &walk.after));
        counts.into_iter().fold(&mut sum, Checksum::number);
        if let Some(guard) = self.guard_text() {
            sum.text(&guard);
        }
        if self.snapshot_at != Timestamp::EPOCH {
            sum.number(self.snapshot_at.0); // without one the row is as earlier versions wrote it
        }
        sum.finish()
    }

    /// Decodes and verifies a row of [`COLUMNS`].
    fn read(row: &Row<'_>, name: &DestinationName) -> rusqlite::Result<Self> {
        let route = Route {
            destination: name.clone(),
            audience: stored(AudienceId::new(&row.get::<_, String>(1)?))?,
            audience_key: stored(AudienceKey::new(&row.get::<_, String>(2)?))?,
            context_kind: stored(ContextKind::new(&row.get::<_, String>(3)?))?,
        };
        let walk: Option<String> = row.get(9)?;
        let guard: Option<String> = row.get(14)?;
        let read = Self {
            id: row.get(0)?,
            route: Arc::new(route),
            acknowledged: row.get(4)?,
            told_counts_from: Timestamp(row.get(5)?),
            snapshot_at: Timestamp(row.get(15)?),
            claimed_through: Timestamp(row.get(6)?),
            unheard_through: Timestamp(row.get(7)?),
            walk: match walk {
                Some(walk) => Some(stored(Walk::parse(&walk, row.get(8)?))?),
                None => None,
            },
            counts: Counts { included: row.get(10)?, pending: row.get(11)?, parked: row.get(12)? },
            guard: guard.map_or(Ok(Guard::default()), |guard| stored(Guard::parse(&guard)))?,
            stored: row.get(13)?,
        };
        checksum::verify(read.stored, || read.checksum(), "an audience")?;
        Ok(read)
    }
}

/// The columns that [`AudienceRow::read`] expects, in its order.
pub(crate) const COLUMNS: &str =
    "id, audience_id, audience_key, context_kind, acknowledged, told_counts_from, claimed_through,
     unheard_through, walk_after, walk, included, pending, parked, checksum,
     guard, snapshot_at";

/// Inserts a row for a new audience and returns its id.
pub(crate) fn insert(
    db: &Connection,
    destination: DestinationRowId,
    route: &Route,
) -> rusqlite::Result<AudienceRowId> {
    db.prepare_cached(
        "INSERT INTO audience (destination, audience_id, audience_key, context_kind)
         VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![
        destination,
        route.audience.as_str(),
        route.audience_key.as_str(),
        route.context_kind.as_str(),
    ])?;
    Ok(AudienceRowId(db.last_insert_rowid()))
}

/// The audiences of a destination.
pub(crate) fn of_destination(
    db: &Connection,
    destination: DestinationRowId,
    name: &DestinationName,
) -> rusqlite::Result<Vec<AudienceRow>> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM audience WHERE destination = ?1"))?
        .query_map([destination], |row| AudienceRow::read(row, name))?
        .collect()
}

/// Unwraps a text that was valid when it was stored: anything else is damage.
pub(crate) fn stored<T>(checked: Option<T>) -> rusqlite::Result<T> {
    checked.ok_or(rusqlite::Error::InvalidQuery)
}

/// Erases the audiences that have no member and were never in a call.
pub(crate) fn erase_unused(db: &Connection) -> rusqlite::Result<()> {
    db.execute(
        "DELETE FROM audience
         WHERE claimed_through = 0
             AND NOT EXISTS (SELECT 1 FROM member WHERE member.audience = audience.id)",
        [],
    )?;
    Ok(())
}

/// The row id of an audience.
pub(crate) fn find(
    db: &Connection,
    destination: DestinationRowId,
    audience: &AudienceId,
) -> rusqlite::Result<Option<AudienceRowId>> {
    db.prepare_cached("SELECT id FROM audience WHERE destination = ?1 AND audience_id = ?2")?
        .query_row(params![destination, audience.as_str()], |row| row.get(0))
        .optional()
}

/// Erases the row of an audience without members.
pub(crate) fn erase(db: &Connection, audience: AudienceRowId) -> rusqlite::Result<()> {
    db.execute("DELETE FROM audience WHERE id = ?1", [audience])?;
    Ok(())
}
