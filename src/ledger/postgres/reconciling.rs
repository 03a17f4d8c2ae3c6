//! What is left of reconciliations. Any replica begins one; the owner of the destination records its pieces.

use async_trait::async_trait;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::ledger::postgres::PostgresLedger;
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::pool::{Tx, transact};
use crate::ledger::postgres::rows::{damaged, text};
use crate::ledger::postgres::shared::Shared;
use crate::ledger::{
    Changed, LedgerError, ReconciliationStep, ReconciliationView, Reconciliations, Stage, Stager,
};
use crate::membership::{AudienceId, DestinationName, Timestamp};

/// How long one that stages may say nothing before it counts as gone, in seconds.
const SILENT_S: f64 = 15.0;

#[async_trait]
impl Reconciliations for PostgresLedger {
    async fn begin_reconciliation(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
    ) -> Result<Option<i64>, LedgerError> {
        let shared = &self.shared;
        shared.configured(destination)?;
        let (name, id) = (destination.as_str(), audience.as_str().as_bytes());
        let now = shared.stamps.arrival().0;
        let params: [(&(dyn ToSql + Sync), Type); 6] = [
            (&name, Type::TEXT),
            (&id, Type::BYTEA),
            (&shared.settings.replica.name, Type::TEXT),
            (&shared.process, Type::INT8),
            (&Stage::Staging.name(), Type::TEXT),
            (&now, Type::INT8),
        ];
        let sql = "INSERT INTO reconciliation
                 (destination, audience_id, replica, process, stage, about, since, total, done, entered, gone)
             VALUES ($1, $2, $3, $4, $5, '', $6, 0, 0, 0, 0)
             ON CONFLICT (destination, audience_id) WHERE ended_at IS NULL DO NOTHING RETURNING id";
        let begin = async |tx: &Tx, attempt: u32| -> Result<Option<i64>, Failure> {
            let mut begun = tx.first(sql, &params).await?;
            if begun.is_none() && attempt > 0 {
                // The answer to the attempt before may have been lost.
                let sql =
                    "SELECT id FROM reconciliation WHERE destination = $1 AND audience_id = $2
                     AND process = $3 AND stage = $4";
                let own = [0, 1, 3, 4].map(|at| params[at].clone());
                begun = tx.first(sql, &own).await?;
            }
            Ok(begun.map(|row| row.try_get(0)).transpose()?)
        };
        Ok(transact!(shared.pool, |tx, attempt| begin(&tx, attempt))?)
    }

    async fn step_reconciliation(
        &self,
        id: i64,
        step: ReconciliationStep,
    ) -> Result<bool, LedgerError> {
        let now = self.shared.stamps.arrival();
        Ok(transact!(self.shared.pool, |tx, attempt| take(&tx, id, &step, (now, attempt > 0)))?)
    }

    async fn reconciliations(&self) -> Result<Vec<ReconciliationView>, LedgerError> {
        Ok(transact!(self.shared.pool, |tx, _attempt| views(&self.shared, &tx))?)
    }

    async fn reconciliation_piece(&self, id: i64) -> Result<Option<(i64, Vec<u8>)>, LedgerError> {
        let sql = "SELECT p.no, p.body FROM reconciliation r JOIN reconciliation_piece p ON p.reconciliation = r.id
             WHERE r.id = $1 AND r.stage = $2 ORDER BY p.no LIMIT 1";
        let params: [(&(dyn ToSql + Sync), Type); 2] =
            [(&id, Type::INT8), (&Stage::Staged.name(), Type::TEXT)];
        let row = transact!(self.shared.pool, |tx, _attempt| tx.first(sql, &params))?;
        let piece = row.map(|row| Ok::<_, Failure>((row.try_get(0)?, row.try_get(1)?)));
        Ok(piece.transpose()?)
    }
}

async fn views(shared: &Shared, tx: &Tx) -> Result<Vec<ReconciliationView>, Failure> {
    let sql = "SELECT r.id, r.destination, r.audience_id, r.stage, r.about, r.since, r.ended_at, r.total, r.done,
             r.entered, r.gone, r.process = $1,
             r.replica <> $2 AND EXISTS (SELECT 1 FROM replica p WHERE p.name = r.replica
                 AND p.seen_at > clock_timestamp() - $3 * interval '1 second')
         FROM reconciliation r ORDER BY r.id";
    let params: [(&(dyn ToSql + Sync), Type); 3] = [
        (&shared.process, Type::INT8),
        (&shared.settings.replica.name, Type::TEXT),
        (&SILENT_S, Type::FLOAT8),
    ];
    tx.query(sql, &params).await?.iter().map(view).collect()
}

fn view(row: &Row) -> Result<ReconciliationView, Failure> {
    let count = |at| Ok::<u64, Failure>(row.try_get::<_, i64>(at)?.unsigned_abs());
    let (is_here, is_elsewhere): (bool, bool) = (row.try_get(11)?, row.try_get(12)?);
    Ok(ReconciliationView {
        id: row.try_get(0)?,
        destination: DestinationName::new(row.try_get(1)?).ok_or_else(damaged)?,
        audience: text(row.try_get(2)?).and_then(|id| AudienceId::new(&id)).ok_or_else(damaged)?,
        stage: Stage::parse(row.try_get(3)?).ok_or_else(damaged)?,
        stager: match (is_here, is_elsewhere) {
            (true, _) => Stager::Here,
            (false, true) => Stager::Elsewhere,
            (false, false) => Stager::Gone,
        },
        about: text(row.try_get(4)?).ok_or_else(damaged)?,
        since: Timestamp(row.try_get(5)?),
        ended_at: row.try_get::<_, Option<i64>>(6)?.map(Timestamp),
        total: count(7)?,
        changed: Changed { done: count(8)?, entered: count(9)?, left: count(10)? },
    })
}

/// Takes a step, if it is in time. One that may have been taken before, whose answer was lost, counts as taken.
async fn take(
    tx: &Tx,
    id: i64,
    step: &ReconciliationStep,
    (now, is_again): (Timestamp, bool),
) -> Result<bool, Failure> {
    use ReconciliationStep::{Abandon, Applied, End, Plan, Remove, Stage, Staged, Stop, Sweep};
    let sql = "SELECT stage FROM reconciliation WHERE id = $1 FOR UPDATE";
    let Some(row) = tx.first(sql, &[(&id, Type::INT8)]).await? else { return Ok(false) };
    let stage = crate::ledger::Stage::parse(row.try_get(0)?).ok_or_else(damaged)?;
    if !step.from().contains(&stage) {
        return Ok(is_again && step.leads_to() == Some(stage));
    }
    let count = |count: &u64| i64::try_from(*count).unwrap_or(i64::MAX);
    let three = |of: &Changed| (count(&of.done), count(&of.entered), count(&of.left));
    let erase = "DELETE FROM reconciliation_piece WHERE reconciliation = $1 AND no = $2";
    match step {
        Plan { about, total, changed } => {
            let (about, total, (done, entered, left)) =
                (about.as_bytes(), count(total), three(changed));
            let params: [(&(dyn ToSql + Sync), Type); 6] = [
                (&id, Type::INT8),
                (&about, Type::BYTEA),
                (&total, Type::INT8),
                (&done, Type::INT8),
                (&entered, Type::INT8),
                (&left, Type::INT8),
            ];
            let sql = "UPDATE reconciliation SET about = $2, total = $3, done = $4, entered = $5, gone = $6
                 WHERE id = $1";
            tx.execute(sql, &params).await?;
        }
        Stage { no, body } => {
            let params: [(&(dyn ToSql + Sync), Type); 3] =
                [(&id, Type::INT8), (no, Type::INT8), (body, Type::BYTEA)];
            let sql = "INSERT INTO reconciliation_piece VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
            tx.execute(sql, &params).await?;
        }
        Staged { total } => {
            let sql = "UPDATE reconciliation SET total = $2 WHERE id = $1";
            tx.execute(sql, &[(&id, Type::INT8), (&count(total), Type::INT8)]).await?;
        }
        Applied { no, changed } => {
            if tx.execute(erase, &[(&id, Type::INT8), (no, Type::INT8)]).await? == 0 {
                return Ok(is_again);
            }
            let (done, entered, left) = three(changed);
            let params: [(&(dyn ToSql + Sync), Type); 4] = [
                (&id, Type::INT8),
                (&done, Type::INT8),
                (&entered, Type::INT8),
                (&left, Type::INT8),
            ];
            let sql = "UPDATE reconciliation SET done = done + $2, entered = entered + $3, gone = gone + $4
                 WHERE id = $1";
            tx.execute(sql, &params).await?;
        }
        Stop | Abandon => {}
        End { .. } => {
            let sql = "UPDATE reconciliation SET ended_at = $2 WHERE id = $1";
            tx.execute(sql, &[(&id, Type::INT8), (&now.0, Type::INT8)]).await?;
        }
        Sweep => {
            let swept = i64::from(ReconciliationStep::SWEPT);
            let sql = "DELETE FROM reconciliation_piece WHERE reconciliation = $1 AND no IN (
                 SELECT no FROM reconciliation_piece WHERE reconciliation = $1 ORDER BY no LIMIT $2)";
            return Ok(tx.execute(sql, &[(&id, Type::INT8), (&swept, Type::INT8)]).await? > 0);
        }
        Remove => {
            tx.execute("DELETE FROM reconciliation WHERE id = $1", &[(&id, Type::INT8)]).await?;
        }
    }
    if let Some(next) = step.leads_to() {
        let sql = "UPDATE reconciliation SET stage = $2 WHERE id = $1";
        tx.execute(sql, &[(&id, Type::INT8), (&next.name(), Type::TEXT)]).await?;
    }
    Ok(true)
}

/// Stops those of an audience, or of a whole destination.
pub(crate) async fn stop(
    tx: &Tx,
    destination: &DestinationName,
    audience: Option<&AudienceId>,
) -> Result<(), Failure> {
    let (name, id) = (destination.as_str(), audience.map(|of| of.as_str().as_bytes()));
    let params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&name, Type::TEXT), (&id, Type::BYTEA), (&Stage::Stopping.name(), Type::TEXT)];
    let sql = "UPDATE reconciliation SET stage = $3
         WHERE destination = $1 AND ($2 IS NULL OR audience_id = $2) AND ended_at IS NULL";
    tx.execute(sql, &params).await.map(|_| ())
}
