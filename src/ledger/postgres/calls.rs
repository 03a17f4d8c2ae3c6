//! Calls that are out, and those of owners before: that were out when they lost the lease, or ended later than that. Either
//! may have been applied after what the present owner tells, so that their members are told once more.

use tokio_postgres::types::{ToSql, Type};

use crate::ledger::Batch;
use crate::ledger::member;
use crate::ledger::postgres::changes;
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::members::{Changes, MemberKey, Members};
use crate::ledger::postgres::pool::Tx;
use crate::ledger::postgres::rows::{damaged, text};
use crate::ledger::postgres::shared::Shared;
use crate::membership::{AudienceId, ContextKey};

/// Whether calls of an audience are out, which keep it known until they are over, even if it is erased meanwhile.
pub(crate) async fn are_out(tx: &Tx, no: i32, audience: &AudienceId) -> Result<bool, Failure> {
    let sql = "SELECT 1 FROM call_out WHERE destination_no = $1 AND audience_id = $2 LIMIT 1";
    let id = audience.as_str().as_bytes();
    let params: [(&(dyn ToSql + Sync), Type); 2] = [(&no, Type::INT4), (&id, Type::BYTEA)];
    Ok(tx.first(sql, &params).await?.is_some())
}

/// Takes in, at the beginning of a reign, what every owner before has left in calls.
pub(crate) async fn of_before(shared: &Shared, tx: &Tx, no: i32) -> Result<(), Failure> {
    take_in(shared, tx, no, false).await.map(|_| ())
}

/// Takes in the calls of which word was left that they ended late: what has changed, and who is to be told once more.
pub(crate) async fn late(
    shared: &Shared,
    tx: &Tx,
    no: i32,
) -> Result<(Changes, Vec<MemberKey>), Failure> {
    take_in(shared, tx, no, true).await
}

async fn take_in(
    shared: &Shared,
    tx: &Tx,
    no: i32,
    only_late: bool,
) -> Result<(Changes, Vec<MemberKey>), Failure> {
    // Word of another one may be left at any time: what goes is what was read. An audience that was erased and has come
    // again has the segment of before.
    let sql = "WITH gone AS (
             DELETE FROM call_out WHERE destination_no = $1 AND (is_late OR NOT $2)
             RETURNING audience_id, context_keys, is_late
         )
         SELECT a.no, k, bool_or(g.is_late) FROM gone g
         JOIN audience a ON a.destination_no = $1 AND a.audience_id = g.audience_id AND NOT a.is_erased,
         unnest(g.context_keys) k GROUP BY a.no, k";
    let params: [(&(dyn ToSql + Sync), Type); 2] = [(&no, Type::INT4), (&only_late, Type::BOOL)];
    let mut all: Vec<(MemberKey, bool)> = Vec::new();
    for row in tx.query(sql, &params).await? {
        let key =
            text(row.try_get(1)?).and_then(|key| ContextKey::new(&key)).ok_or_else(damaged)?;
        all.push(((row.try_get(0)?, key), row.try_get(2)?));
    }
    let mut members = Members::default();
    members.load(tx, all.iter().map(|(key, _)| key.clone()).collect()).await?;
    let mut again = Vec::new();
    for (key, is_late) in all {
        let Some(before) = members.get(&key) else { continue };
        let (next, is_told_again) =
            if is_late { member::told_late(before) } else { (member::unheard(before), false) };
        members.put(&key, next);
        if is_told_again {
            members.tell_once_more(&key);
            again.push(key);
        }
    }
    let changes = members.flush(tx).await?;
    changes::write_any(shared, tx, no, &changes).await?;
    Ok((changes, again))
}

/// Leaves word that a call of this process ended after another had taken over; whether anybody wants to know.
pub(crate) async fn ended_late(tx: &Tx, no: i32, batch: &Batch) -> Result<bool, Failure> {
    let keys: Vec<&[u8]> =
        batch.members.iter().map(|of| of.context_key.as_str().as_bytes()).collect();
    let audience = batch.route.audience.as_str().as_bytes();
    let sql = "INSERT INTO call_out (destination_no, token, audience_no, audience_id, context_keys, is_late)
         SELECT $1, $2, no, audience_id, $4, true FROM audience
         WHERE destination_no = $1 AND audience_id = $3 AND NOT is_erased";
    let params: [(&(dyn ToSql + Sync), Type); 4] = [
        (&no, Type::INT4),
        (&batch.token, Type::INT8),
        (&audience, Type::BYTEA),
        (&keys, Type::BYTEA_ARRAY),
    ];
    Ok(tx.execute(sql, &params).await? > 0)
}

/// Whether word was left of a call that ended late.
pub(crate) async fn is_any_late(tx: &Tx, no: i32) -> Result<bool, Failure> {
    let sql = "SELECT 1 FROM call_out WHERE destination_no = $1 AND is_late LIMIT 1";
    Ok(tx.first(sql, &[(&no, Type::INT4)]).await?.is_some())
}
