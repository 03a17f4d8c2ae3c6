//! Reconciliations that are under way, and what is left of each.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::ledger::embedded::tables::checksum::{self, Checksum};
use crate::ledger::{Changed, ReconciliationStep, ReconciliationView, Stage, Stager};
use crate::membership::{AudienceId, DestinationName, Timestamp};

const COLUMNS: &str = "id, destination, audience_id, process, stage, about, since, ended_at, total, done, entered, left,
     checksum";

/// A reconciliation as it is stored.
struct Stored {
    id: i64,
    destination: String,
    audience: String,
    process: i64,
    stage: Stage,
    about: String,
    since: i64,
    ended_at: Option<i64>,
    total: u64,
    changed: Changed,
}

impl Stored {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let stage: String = row.get(4)?;
        let damaged = || checksum::damage("a reconciliation");
        let stored = Self {
            id: row.get(0)?,
            destination: row.get(1)?,
            audience: row.get(2)?,
            process: row.get(3)?,
            stage: Stage::parse(&stage).ok_or_else(damaged)?,
            about: row.get(5)?,
            since: row.get(6)?,
            ended_at: row.get(7)?,
            total: row.get(8)?,
            changed: Changed { done: row.get(9)?, entered: row.get(10)?, left: row.get(11)? },
        };
        checksum::verify(row.get(12)?, || stored.checksum(), "a reconciliation")?;
        Ok(stored)
    }

    fn checksum(&self) -> u32 {
        let Changed { done, entered, left } = self.changed;
        let mut sum = Checksum::new();
        sum.number(self.id).text(&self.destination).text(&self.audience).number(self.process);
        sum.text(self.stage.name()).text(&self.about).number(self.since).maybe(self.ended_at);
        for count in [self.total, done, entered, left] {
            sum.number(count.cast_signed());
        }
        sum.finish()
    }

    fn write(&self, db: &Connection) -> rusqlite::Result<()> {
        let Changed { done, entered, left } = self.changed;
        db.prepare_cached(
            "UPDATE reconciliation SET process = ?2, stage = ?3, about = ?4, since = ?5, ended_at = ?6, total = ?7,
                 done = ?8, entered = ?9, left = ?10, checksum = ?11 WHERE id = ?1",
        )?
        .execute(params![
            self.id,
            self.process,
            self.stage.name(),
            self.about,
            self.since,
            self.ended_at,
            self.total,
            done,
            entered,
            left,
            self.checksum(),
        ])?;
        Ok(())
    }

    fn view(self, process: i64) -> Option<ReconciliationView> {
        Some(ReconciliationView {
            id: self.id,
            destination: DestinationName::new(&self.destination)?,
            audience: AudienceId::new(&self.audience)?,
            stage: self.stage,
            stager: if self.process == process { Stager::Here } else { Stager::Gone },
            about: self.about,
            since: Timestamp(self.since),
            ended_at: self.ended_at.map(Timestamp),
            total: self.total,
            changed: self.changed,
        })
    }
}

/// All of them.
fn stored(db: &Connection) -> rusqlite::Result<Vec<Stored>> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM reconciliation ORDER BY id"))?
        .query_map([], Stored::of)?
        .collect()
}

/// All of them, as this process sees them.
pub(crate) fn all(db: &Connection, process: i64) -> rusqlite::Result<Vec<ReconciliationView>> {
    Ok(stored(db)?.into_iter().filter_map(|of| of.view(process)).collect())
}

/// Whether anything is left of any.
pub(crate) fn is_any_staged(db: &Connection) -> rusqlite::Result<bool> {
    Ok(stored(db)?.iter().any(|of| of.stage == Stage::Staged))
}

/// The first piece of one that is staged.
pub(crate) fn piece(db: &Connection, id: i64) -> rusqlite::Result<Option<(i64, Vec<u8>)>> {
    let sql = "SELECT p.no, p.body, p.checksum, p.reconciliation FROM reconciliation r
         JOIN reconciliation_piece p ON p.reconciliation = r.id
         WHERE r.id = ?1 AND r.stage = ?2 ORDER BY p.no LIMIT 1";
    db.prepare_cached(sql)?.query_row(params![id, Stage::Staged.name()], piece_of).optional()
}

fn piece_of(row: &Row<'_>) -> rusqlite::Result<(i64, Vec<u8>)> {
    let (no, body): (i64, Vec<u8>) = (row.get(0)?, row.get(1)?);
    let id: i64 = row.get(3)?;
    let what = "a piece of a reconciliation";
    checksum::verify(row.get(2)?, || checksum_of(id, no, &body), what)?;
    Ok((no, body))
}

fn checksum_of(id: i64, no: i64, body: &[u8]) -> u32 {
    Checksum::new().number(id).number(no).bytes(body).finish()
}

/// Begins one; its number, or zero if one of that audience is under way.
pub(crate) fn begin(
    db: &Connection,
    destination: &DestinationName,
    audience: &AudienceId,
    process: i64,
    now: Timestamp,
) -> rusqlite::Result<i64> {
    let is_it =
        |of: &Stored| of.destination == destination.as_str() && of.audience == audience.as_str();
    if stored(db)?.iter().any(|of| of.stage.is_under_way() && is_it(of)) {
        return Ok(0);
    }
    db.prepare_cached(
        "INSERT INTO reconciliation (destination, audience_id, process, stage, about, since, total, done, entered, left)
         VALUES (?1, ?2, ?3, ?4, '', ?5, 0, 0, 0, 0)",
    )?
    .execute(params![
        destination.as_str(),
        audience.as_str(),
        process,
        Stage::Staging.name(),
        now.0
    ])?;
    let id = db.last_insert_rowid();
    if let Some(of) = one(db, id)? {
        of.write(db)?; // with its checksum
    }
    Ok(id)
}

fn one(db: &Connection, id: i64) -> rusqlite::Result<Option<Stored>> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM reconciliation WHERE id = ?1"))?
        .query_row([id], Stored::of)
        .optional()
}

/// Takes a step; whether it was in time.
pub(crate) fn step(
    db: &Connection,
    id: i64,
    step: &ReconciliationStep,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    use ReconciliationStep::{Abandon, Applied, End, Plan, Remove, Stage, Staged, Stop, Sweep};
    let Some(mut of) = one(db, id)?.filter(|of| step.from().contains(&of.stage)) else {
        return Ok(false);
    };
    let erase = |no: i64| {
        db.prepare_cached("DELETE FROM reconciliation_piece WHERE reconciliation = ?1 AND no = ?2")?
            .execute(params![id, no])
    };
    match step {
        Plan { about, total, changed } => {
            (of.about, of.total, of.changed) = (about.clone(), *total, *changed);
        }
        Stage { no, body } => {
            db.prepare_cached("INSERT INTO reconciliation_piece VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![id, no, body, checksum_of(id, *no, body)])?;
            return Ok(true);
        }
        Staged { total } => of.total = *total,
        Applied { no, changed } => {
            if erase(*no)? == 0 {
                return Ok(false);
            }
            of.changed = of.changed.and(*changed);
        }
        Stop | Abandon => {}
        End { .. } => of.ended_at = Some(now.0),
        Sweep => {
            let sql = "DELETE FROM reconciliation_piece WHERE reconciliation = ?1 AND no IN (
                 SELECT no FROM reconciliation_piece WHERE reconciliation = ?1 ORDER BY no LIMIT ?2)";
            let swept = db.prepare_cached(sql)?.execute(params![id, ReconciliationStep::SWEPT])?;
            return Ok(swept > 0);
        }
        Remove => {
            db.execute("DELETE FROM reconciliation_piece WHERE reconciliation = ?1", [id])?;
            db.execute("DELETE FROM reconciliation WHERE id = ?1", [id])?;
            return Ok(true);
        }
    }
    of.stage = step.leads_to().unwrap_or(of.stage);
    of.write(db)?;
    Ok(true)
}

/// Stops those of an audience, or of a whole destination.
pub(crate) fn stop(
    db: &Connection,
    destination: &DestinationName,
    audience: Option<&AudienceId>,
) -> rusqlite::Result<()> {
    for mut of in stored(db)? {
        let is_it = of.destination == destination.as_str()
            && audience.is_none_or(|audience| of.audience == audience.as_str());
        if is_it && of.stage.is_under_way() {
            of.stage = Stage::Stopping;
            of.write(db)?;
        }
    }
    Ok(())
}

/// Gives what is under way to a destination or an audience that has another name now.
pub(crate) fn rename(
    db: &Connection,
    (from, to): (&DestinationName, &DestinationName),
    audience: Option<(&AudienceId, &AudienceId)>,
) -> rusqlite::Result<()> {
    for mut of in stored(db)?.into_iter().filter(|of| of.destination == from.as_str()) {
        match audience {
            Some((before, _)) if of.audience != before.as_str() => continue,
            Some((_, after)) => after.as_str().clone_into(&mut of.audience),
            None => {}
        }
        to.as_str().clone_into(&mut of.destination);
        db.execute(
            "UPDATE reconciliation SET destination = ?2, audience_id = ?3 WHERE id = ?1",
            params![of.id, of.destination, of.audience],
        )?;
        of.write(db)?;
    }
    Ok(())
}

/// Verifies all of them and all of their pieces; damage is an error.
pub(crate) fn verify_all(db: &Connection) -> rusqlite::Result<()> {
    stored(db)?;
    db.prepare("SELECT no, body, checksum, reconciliation FROM reconciliation_piece")?
        .query_map([], |row| piece_of(row).map(|_| ()))?
        .collect()
}
