//! The guards of the audiences: counted in the transaction of the changes, and kept in the row of the audience.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::types::{ToSql, Type};

use crate::ledger::guard::Guard;
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::places::{Place, guard_of};
use crate::ledger::postgres::pool::{Tx, transact};
use crate::ledger::postgres::shared::Shared;
use crate::ledger::postgres::walk::Task;
use crate::ledger::{GuardLimits, HeldAudience};
use crate::membership::{DestinationName, Membership, Timestamp};

/// An event has made somebody a member, or not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flip {
    pub audience_no: i32,
    pub now: Membership,
    pub at: Timestamp,
    /// Members before.
    pub members: u64,
}

/// Writes a guard.
pub(crate) async fn write(tx: &Tx, audience_no: i32, guard: &Guard) -> Result<(), Failure> {
    let (text, is_held) = (guard.to_string(), guard.is_held());
    let params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&audience_no, Type::INT4), (&text, Type::TEXT), (&is_held, Type::BOOL)];
    let sql = "UPDATE audience SET guard = $2, is_held = $3 WHERE no = $1";
    tx.execute(sql, &params).await.map(|_| ())
}

/// Counts what each of some requests has changed, and judges after each. Others that change the same audiences wait
/// until this transaction ends, so it comes last.
pub(crate) async fn count(
    shared: &Shared,
    tx: &Tx,
    requests: &[Vec<Flip>],
    limits: &GuardLimits,
) -> Result<(), Failure> {
    let mut numbers: Vec<i32> = requests.iter().flatten().map(|flip| flip.audience_no).collect();
    numbers.sort_unstable();
    numbers.dedup();
    if numbers.is_empty() {
        return Ok(());
    }
    let sql = "SELECT no, guard FROM audience WHERE no = ANY($1) ORDER BY no FOR UPDATE";
    let mut guards = BTreeMap::new();
    for row in tx.steady_query(sql, &[(&numbers, Type::INT4_ARRAY)]).await? {
        guards.insert(row.try_get::<_, i32>(0)?, guard_of(row.try_get(1)?)?);
    }
    for flips in requests {
        for flip in flips {
            if let Some(guard) = guards.get_mut(&flip.audience_no) {
                guard.count(flip.now, flip.at, limits, || flip.members);
            }
        }
        let flipped: std::collections::BTreeSet<i32> =
            flips.iter().map(|of| of.audience_no).collect();
        for no in flipped {
            if let Some(guard) = guards.get_mut(&no) {
                guard.judge(shared.stamps.arrival(), limits);
            }
        }
    }
    let texts: Vec<String> = guards.values().map(Guard::to_string).collect();
    let are_held: Vec<bool> = guards.values().map(Guard::is_held).collect();
    let numbers: Vec<i32> = guards.into_keys().collect();
    tx.last(
        "UPDATE audience SET guard = $2[array_position($1, no)], is_held = $3[array_position($1, no)]
         WHERE no = ANY($1)",
        vec![
            (Box::new(numbers), Type::INT4_ARRAY),
            (Box::new(texts), Type::TEXT_ARRAY),
            (Box::new(are_held), Type::BOOL_ARRAY),
        ],
    );
    Ok(())
}

/// An audience that nobody is left of whom anything could be told begins anew.
pub(crate) async fn empty(tx: &Tx, audiences: &[i32]) -> Result<(), Failure> {
    let sql = "UPDATE audience a SET guard = NULL, is_held = false FROM (
             SELECT i.no, coalesce(sum(c.included), 0) AS included, coalesce(sum(c.pending), 0) AS pending,
                 coalesce(sum(c.parked), 0) AS parked
             FROM unnest($1) AS i(no) LEFT JOIN change c ON c.audience_no = i.no GROUP BY i.no
         ) s WHERE a.no = s.no AND a.included + s.included = 0 AND a.pending + s.pending = 0
             AND a.parked + s.parked = 0";
    tx.execute(sql, &[(&audiences, Type::INT4_ARRAY)]).await.map(|_| ())
}

/// What has happened to the audience is told, if it is held.
pub(crate) async fn release(shared: &Shared, tx: &Tx, place: &Place) -> Result<bool, Failure> {
    let mut guard = place.guard;
    if !guard.is_held() {
        return Ok(false);
    }
    guard.release(shared.stamps.fresh(), place.included.unsigned_abs());
    write(tx, place.no, &guard).await?;
    Ok(true)
}

/// Looks which audiences are held.
pub(crate) async fn look(shared: &Shared) -> Result<(), Failure> {
    let names: Vec<(DestinationName, i32)> =
        shared.known().iter().map(|(name, of)| (name.clone(), of.no)).collect();
    let read = async |tx: &Tx| -> Result<HashMap<DestinationName, Vec<HeldAudience>>, Failure> {
        let any =
            tx.first("SELECT 1 FROM audience WHERE is_held AND NOT is_erased LIMIT 1", &[]).await?;
        let mut held: HashMap<DestinationName, Vec<HeldAudience>> = HashMap::new();
        if any.is_none() {
            return Ok(held);
        }
        for (name, no) in &names {
            let mut places = Place::held(tx, name, *no).await?;
            places.sort_by(|a, b| a.route.audience.cmp(&b.route.audience));
            let of = places.iter().filter_map(|place| {
                let is_discarding = place
                    .walk
                    .as_ref()
                    .is_some_and(|walk| matches!(walk.task, Task::Reenter { .. }));
                let since = place.guard.held_since()?;
                Some(HeldAudience::of(&place.route, since, &place.guard, is_discarding))
            });
            held.insert(name.clone(), of.collect());
        }
        Ok(held)
    };
    let mut held = transact!(shared.pool, |tx, _attempt| read(&tx))?;
    for (name, of) in shared.known().iter_mut() {
        of.held = held.remove(name).unwrap_or_default();
    }
    Ok(())
}
