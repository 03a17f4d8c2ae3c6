//! Counts: each transaction adds a row of what it has changed, and the owner of a destination folds those rows into its
//! audiences. Nobody waits for a row that everybody counts in.

use tokio_postgres::types::{ToSql, Type};

use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::guarding;
use crate::ledger::postgres::members::{Change, Changes};
use crate::ledger::postgres::pool::Tx;
use crate::ledger::postgres::shared::Shared;

/// Adds what a transaction has changed, if it has changed anything.
pub(crate) async fn write_any(
    shared: &Shared,
    tx: &Tx,
    destination_no: i32,
    changes: &Changes,
) -> Result<(), Failure> {
    if changes.is_empty() { Ok(()) } else { write(shared, tx, destination_no, changes).await }
}

/// Adds what a transaction has changed, and the latest stamp, so that the next process gives out larger ones.
pub(crate) async fn write(
    shared: &Shared,
    tx: &Tx,
    destination_no: i32,
    changes: &Changes,
) -> Result<(), Failure> {
    let difference = |of: fn(&Change) -> (u64, u64), change: &Change| {
        let (before, after) = of(change);
        after.cast_signed() - before.cast_signed()
    };
    let column = |of: fn(&Change) -> (u64, u64)| -> Vec<i64> {
        changes.values().map(|change| difference(of, change)).collect()
    };
    let mut audiences: Vec<i32> = changes.keys().copied().collect();
    let mut members: Vec<i64> = changes.values().map(|change| change.members).collect();
    let mut included = column(|change| (change.before.included, change.after.included));
    let mut pending = column(|change| (change.before.pending, change.after.pending));
    let mut parked = column(|change| (change.before.parked, change.after.parked));
    if audiences.is_empty() {
        audiences.push(0);
        for column in [&mut members, &mut included, &mut pending, &mut parked] {
            column.push(0);
        }
    }
    let arrival = shared.stamps.fresh().0;
    let params: [(&(dyn ToSql + Sync), Type); 7] = [
        (&destination_no, Type::INT4),
        (&audiences, Type::INT4_ARRAY),
        (&members, Type::INT8_ARRAY),
        (&included, Type::INT8_ARRAY),
        (&pending, Type::INT8_ARRAY),
        (&parked, Type::INT8_ARRAY),
        (&arrival, Type::INT8),
    ];
    let sql = "INSERT INTO change (destination_no, audience_no, members, included, pending, parked, arrival)
         SELECT $1, *, $7 FROM unnest($2, $3, $4, $5, $6)";
    tx.steady_execute(sql, &params).await?;
    let erased = changes.iter().filter(|(_, change)| change.is_erased).map(|(no, _)| *no);
    let erased: Vec<i32> = erased.collect();
    if erased.is_empty() { Ok(()) } else { guarding::empty(tx, &erased).await }
}

/// Folds the rows of a destination into its audiences, and keeps where their queues begin for the next owner.
pub(crate) async fn fold(shared: &Shared, tx: &Tx, destination_no: i32) -> Result<(), Failure> {
    let (numbers, fronts) = shared.fronts.all();
    let sql = "WITH gone AS (
             DELETE FROM change WHERE destination_no = $1 RETURNING *
         ), sums AS (
             SELECT audience_no, sum(members)::int8 AS members, sum(included)::int8 AS included,
                 sum(pending)::int8 AS pending, sum(parked)::int8 AS parked
             FROM gone GROUP BY audience_no
         ), latest AS (
             UPDATE cohortd SET value = convert_to(greatest(convert_from(value, 'UTF8')::int8,
                 (SELECT max(arrival) FROM gone))::text, 'UTF8')
             WHERE name = 'arrival' AND EXISTS (SELECT 1 FROM gone)
         )
         UPDATE audience a SET members = a.members + s.members, included = a.included + s.included,
             pending = a.pending + s.pending, parked = a.parked + s.parked,
             front = coalesce(CASE WHEN ($2)[width_bucket(a.no, $2)] = a.no THEN ($3)[width_bucket(a.no, $2)] END, a.front)
         FROM sums s WHERE a.no = s.audience_no";
    let params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&destination_no, Type::INT4), (&numbers, Type::INT4_ARRAY), (&fronts, Type::INT8_ARRAY)];
    tx.execute(sql, &params).await.map(|_| ())
}
