//! An operator pauses the delivery of a destination, or resumes it.

use tokio_postgres::types::{ToSql, Type};

use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::pool::transact;
use crate::ledger::postgres::shared::Shared;
use crate::membership::DestinationName;

/// Pauses it from now on, or since it was paused before; or resumes it. This replica knows at once, the others with
/// their next look.
pub(crate) async fn pause(
    shared: &Shared,
    (name, no): (&DestinationName, i32),
    paused: bool,
) -> Result<(), Failure> {
    let _no_look_is_under_way = shared.looking.lock().await;
    let stamp = shared.stamps.fresh().0;
    let sql =
        "UPDATE destination SET paused_since = CASE WHEN $2 THEN coalesce(paused_since, $3) END
         WHERE no = $1 RETURNING paused_since";
    let params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&no, Type::INT4), (&paused, Type::BOOL), (&stamp, Type::INT8)];
    let row = transact!(shared.pool, |tx, _attempt| tx.first(sql, &params))?;
    shared.is_paused(name, row.map_or(Ok(None), |row| row.try_get(0))?);
    Ok(())
}
