//! Walks: an operator's tasks over all members of an audience, done a slice at a time by the owner of the destination
//! and no faster than the members are delivered. Progress is in the row of the audience, so that the next owner goes
//! on.

use std::collections::HashMap;

use tokio_postgres::types::{ToSql, Type};

use crate::ledger::member::{self, Member, Moment, Next};
use crate::ledger::postgres::changes;
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::guarding;
use crate::ledger::postgres::locks::{Lock, holds};
use crate::ledger::postgres::members::Members;
use crate::ledger::postgres::places::Place;
use crate::ledger::postgres::pool::{Tx, transact};
use crate::ledger::postgres::rows::{COLUMNS, Stored};
use crate::ledger::postgres::shared::Shared;
use crate::ledger::postgres::walk::{Task, Walk};
use crate::membership::DestinationName;

/// Members in one slice.
const SLICE: i64 = 500;
/// A walk pauses while this many members of the audience wait.
const AHEAD: i64 = 5_000;

/// Begins a walk in place of any other.
pub(crate) async fn start(
    shared: &Shared,
    tx: &Tx,
    place: &Place,
    task: &Task,
) -> Result<(), Failure> {
    let since = shared.stamps.fresh();
    let rules = match task {
        Task::RetractStale(rules) => Some(rules.clone()),
        Task::Reenter { since } => Some(vec![since.0]),
        Task::Resync | Task::Retract => None,
    };
    let name = task.name();
    let params: [(&(dyn ToSql + Sync), Type); 5] = [
        (&place.no, Type::INT4),
        (&name, Type::TEXT),
        (&rules, Type::INT8_ARRAY),
        (&since.0, Type::INT8),
        (&place.members, Type::INT8),
    ];
    let sql = "UPDATE audience SET walk = $2, walk_rules = $3, walk_since = $4, walk_after = '', walk_visited = 0,
             walk_expected = $5,
             told_counts_from = CASE WHEN $2 = 'resync' THEN $4 ELSE told_counts_from END
         WHERE no = $1";
    tx.execute(sql, &params).await.map(|_| ())
}

/// Stops a resync where it is.
pub(crate) async fn stop_resync(tx: &Tx, place: &Place) -> Result<(), Failure> {
    let sql = "UPDATE audience SET walk = NULL WHERE no = $1 AND walk = 'resync'";
    tx.execute(sql, &[(&place.no, Type::INT4)]).await.map(|_| ())
}

/// Does a slice of each walk of a destination; whether any has moved.
pub(crate) async fn step(
    shared: &Shared,
    name: &DestinationName,
    token: i64,
) -> Result<bool, Failure> {
    let (no, settings) = shared.destination(name)?;
    let places = transact!(shared.pool, |tx, _attempt| Place::walked(&tx, name, no))?;
    let mut has_moved = false;
    for place in places {
        let step = async |tx: &Tx, attempt: u32| -> Result<_, Failure> {
            Lock::at(attempt).hold(tx, no).await?;
            holds(tx, no, token).await?;
            let id = &place.route.audience;
            let Some(place) = Place::one(tx, name, no, id).await? else { return Ok(None) };
            // Who waits in an audience that is held waits for an operator.
            let may_go_on = place.pending < AHEAD || place.guard.is_held();
            let Some(walk) = place.walk.clone().filter(|_| may_go_on) else {
                return Ok(None);
            };
            let sql = format!(
                "SELECT {COLUMNS} FROM member m WHERE m.audience_no = $1 AND m.context_key > $2
                 ORDER BY m.context_key LIMIT $3"
            );
            let params: [(&(dyn ToSql + Sync), Type); 3] =
                [(&place.no, Type::INT4), (&walk.after, Type::BYTEA), (&SLICE, Type::INT8)];
            let rows = tx.query(&sql, &params).await?;
            let visited = i64::try_from(rows.len()).unwrap_or(i64::MAX);
            let mut members = Members::default();
            let mut after = walk.after.clone();
            for row in rows {
                let stored = Stored::of(&row, 0)?;
                let key = (stored.audience_no, stored.context_key.clone());
                after = stored.context_key.as_str().as_bytes().to_vec();
                members.add(stored);
                let Some(before) = members.get(&key) else { continue };
                let next = next(&walk, before, &place.moment(shared, &settings));
                members.put(&key, next);
            }
            let changes = members.flush(tx).await?;
            changes::write_any(shared, tx, no, &changes).await?;
            let is_over = visited < SLICE;
            let params: [(&(dyn ToSql + Sync), Type); 4] = [
                (&place.no, Type::INT4),
                (&after, Type::BYTEA),
                (&visited, Type::INT8),
                (&is_over, Type::BOOL),
            ];
            let sql = "UPDATE audience SET walk_after = $2, walk_visited = walk_visited + $3,
                 walk = CASE WHEN $4 THEN NULL ELSE walk END WHERE no = $1";
            tx.execute(sql, &params).await?;
            if is_over && matches!(walk.task, Task::Reenter { .. }) {
                let Some(place) = Place::one(tx, name, no, id).await? else { return Ok(None) };
                let mut guard = place.guard;
                guard.taken_back(
                    shared.stamps.fresh(),
                    place.included.unsigned_abs(),
                    &settings.guard,
                );
                guarding::write(tx, place.no, &guard).await?;
            }
            Ok(Some((changes, HashMap::from([(place.no, id.clone())]))))
        };
        let done = transact!(shared.pool, |tx, attempt| step(&tx, attempt))?;
        if let Some((changes, audiences)) = done {
            shared.count(name, &changes, &audiences);
            has_moved = true;
        }
    }
    Ok(has_moved)
}

/// What a walk does to a member. A member that stays is told again if what was told does not count, whatever the task:
/// the walk may have replaced a resync.
fn next(walk: &Walk, before: &Member, moment: &Moment) -> Next {
    let goes = match &walk.task {
        Task::Resync => false,
        Task::Reenter { since } => match member::reenter(before, (*since, walk.since), moment) {
            Next::Same => false,
            next => return next,
        },
        Task::Retract => before.version <= walk.since,
        Task::RetractStale(current) => !current.contains(&i64::from(before.key_rule)),
    };
    if goes {
        member::retract(before, moment)
    } else if before.told.is_some_and(|told| told.at >= moment.told_counts_from) {
        Next::Same
    } else {
        member::reassert(before, moment)
    }
}
