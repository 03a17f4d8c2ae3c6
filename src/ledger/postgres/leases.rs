//! Who delivers to a destination: one replica at a time, for as long as it renews its [lease](crate::ledger::lease).
//!
//! # What always holds
//! * A token grows with every owner. What an owner writes of deliveries is written under the condition that its token
//!   still is the latest one, checked in the same transaction.
//! * A lease counts from before it was asked for, and what the database says of it is counted later: an owner stops
//!   before anybody else may begin, whatever happens to the clocks that people set on the machines of replicas.
//! * What the owner before had in a call ended without an answer: it is told once more.
//! * A process does not wait for itself: if it does not learn whether it got a lease, it may take it again.
//!
//! # What does not
//! A process that stood still may end a call after another has taken over. The new owner hears of it
//! ([`calls`]), unless the process dies first.

use std::collections::HashMap;

use tokio::time::{Instant, timeout};
use tokio_postgres::types::{ToSql, Type};
use tracing::info;

use crate::clock::since_boot;
use crate::ledger::DestinationSettings;
use crate::ledger::lease::{Answer, Change, Question};
use crate::ledger::postgres::calls;
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::locks::Lock;
use crate::ledger::postgres::members::MemberKey;
use crate::ledger::postgres::places::Place;
use crate::ledger::postgres::pool::{Tx, transact};
use crate::ledger::postgres::rows::{damaged, text};
use crate::ledger::postgres::schema;
use crate::ledger::postgres::shared::Shared;
use crate::ledger::postgres::walk::Task;
use crate::ledger::postgres::walks;
use crate::membership::{ContextKey, DestinationName};

/// How long a lease lasts, as PostgreSQL takes it.
fn ttl(shared: &Shared) -> f64 {
    shared.settings.lease_ttl.as_secs_f64()
}

/// Renews the leases of this process, all at once.
pub(crate) async fn renew(shared: &Shared) -> Result<(), Failure> {
    let held: Vec<(DestinationName, i32, i64)> = {
        let known = shared.known();
        let of = known.iter();
        of.filter_map(|(name, of)| Some((name.clone(), of.no, of.lease.token()?))).collect()
    };
    if held.is_empty() {
        return Ok(());
    }
    let asked_at = since_boot();
    // An answer that comes later is of no use: the next question goes through another connection.
    let limit = shared.settings.lease_ttl / 2;
    let renewed = timeout(limit, extend(shared, &held)).await;
    let renewed = renewed.map_err(|_| Failure::Lost("no answer in time".to_owned()))??;
    for (name, no, token) in held {
        let is_renewed = renewed.contains(&(no, token));
        let answer = if is_renewed { Answer::Granted { token } } else { Answer::Refused };
        shared.learn(&name, |lease| lease.answered(Question::Renew { token }, asked_at, answer));
    }
    Ok(())
}

/// Which of these leases still were the latest ones, and are extended.
async fn extend(
    shared: &Shared,
    held: &[(DestinationName, i32, i64)],
) -> Result<Vec<(i32, i64)>, Failure> {
    let lasts = ttl(shared);
    let numbers: Vec<i32> = held.iter().map(|(_, no, _)| *no).collect();
    let tokens: Vec<i64> = held.iter().map(|(_, _, token)| *token).collect();
    transact!(shared.pool, |tx, _attempt| async {
        let sql = "UPDATE lease l SET expires_at = clock_timestamp() + $3 * interval '1 second'
             FROM unnest($1, $2) AS i(no, token)
             WHERE l.destination_no = i.no AND l.token = i.token RETURNING i.no, i.token";
        let params: [(&(dyn ToSql + Sync), Type); 3] =
            [(&numbers, Type::INT4_ARRAY), (&tokens, Type::INT8_ARRAY), (&lasts, Type::FLOAT8)];
        let rows = tx.query(sql, &params).await?;
        let pairs = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        pairs.collect::<Result<_, Failure>>()
    })
}

/// Takes the leases that are free, of those destinations that are configured.
pub(crate) async fn take_free(shared: &Shared) -> Result<(), Failure> {
    let _one_at_a_time = shared.taking.lock().await;
    let wanted: Vec<DestinationName> = {
        let known = shared.known();
        let of = known.iter().filter(|(_, of)| of.is_configured);
        of.filter(|(_, of)| of.lease.question() == Question::Take)
            .map(|(name, _)| name.clone())
            .collect()
    };
    let mut result = Ok(());
    for name in wanted {
        if shared.is_closing() {
            break;
        }
        result = acquire(shared, &name).await.and(result); // one that fails keeps no other
    }
    result
}

/// Takes a lease that is free, with what its last owner has left.
async fn acquire(shared: &Shared, name: &DestinationName) -> Result<(), Failure> {
    let (no, settings) = shared.destination(name)?;
    let asked_at = since_boot();
    let taken = transact!(shared.pool, |tx, _attempt| take(shared, &tx, (name, no), &settings))?;
    let Some(Taken { token, reassertions }) = taken else { return Ok(()) };
    let answer = Answer::Granted { token };
    let change = shared.learn(name, |lease| lease.answered(Question::Take, asked_at, answer));
    if change != Change::Taken {
        return Ok(());
    }
    let due = Instant::now() + settings.reassert_after;
    if let Some(of) = shared.known().get_mut(name) {
        of.reassertions = reassertions.into_iter().map(|key| (due, key)).collect();
    }
    info!(destination = %name, token, "this replica delivers");
    Ok(())
}

struct Taken {
    token: i64,
    reassertions: Vec<MemberKey>,
}

async fn take(
    shared: &Shared,
    tx: &Tx,
    (name, no): (&DestinationName, i32),
    settings: &DestinationSettings,
) -> Result<Option<Taken>, Failure> {
    let sql = "SELECT 1 FROM lease
         WHERE destination_no = $1 AND expires_at > clock_timestamp() AND process <> $2";
    let params: [(&(dyn ToSql + Sync), Type); 2] =
        [(&no, Type::INT4), (&shared.process, Type::INT8)];
    if tx.first(sql, &params).await?.is_some() {
        return Ok(None); // without being in anybody's way
    }
    schema::can_be_used(tx).await?;
    // In the order of those who report: first this lock, then the row.
    Lock::Exclusive.hold(tx, no).await?;
    let lasts = ttl(shared);
    let sql = "INSERT INTO lease AS l (destination_no, owner, process, token, expires_at)
         VALUES ($1, $2, $3, 1, clock_timestamp() + $4 * interval '1 second') ON CONFLICT (destination_no)
         DO UPDATE SET owner = excluded.owner, process = excluded.process, token = l.token + 1,
             expires_at = excluded.expires_at
         WHERE l.expires_at <= clock_timestamp() OR l.process = excluded.process RETURNING token";
    let params: [(&(dyn ToSql + Sync), Type); 4] = [
        (&no, Type::INT4),
        (&shared.settings.replica.name, Type::TEXT),
        (&shared.process, Type::INT8),
        (&lasts, Type::FLOAT8),
    ];
    let Some(row) = tx.first(sql, &params).await? else { return Ok(None) };
    let token = row.try_get(0)?;
    calls::of_before(shared, tx, no).await?;
    follow_environment(shared, tx, (name, no), settings).await?;
    let sql = "SELECT r.audience_no, r.context_key FROM reassertion r JOIN audience a ON a.no = r.audience_no
         WHERE a.destination_no = $1 AND NOT a.is_erased";
    let mut reassertions = Vec::new();
    for row in tx.query(sql, &[(&no, Type::INT4)]).await? {
        let key =
            text(row.try_get(1)?).and_then(|key| ContextKey::new(&key)).ok_or_else(damaged)?;
        reassertions.push((row.try_get(0)?, key));
    }
    Ok(Some(Taken { token, reassertions }))
}

/// What was told went to another environment: everybody is told again.
pub(crate) async fn follow_environment(
    shared: &Shared,
    tx: &Tx,
    (name, no): (&DestinationName, i32),
    settings: &DestinationSettings,
) -> Result<(), Failure> {
    let sql = "UPDATE destination SET environment = $2 WHERE no = $1 AND environment <> $2";
    let params: [(&(dyn ToSql + Sync), Type); 2] =
        [(&no, Type::INT4), (&settings.environment, Type::TEXT)];
    if tx.execute(sql, &params).await? == 0 {
        return Ok(());
    }
    for place in Place::all(tx, name, no).await? {
        match &place.walk {
            Some(walk) if walk.task != Task::Resync => {
                let sql = "UPDATE audience SET told_counts_from = $2 WHERE no = $1";
                let from = shared.stamps.fresh().0;
                tx.execute(sql, &[(&place.no, Type::INT4), (&from, Type::INT8)]).await?;
            }
            _ => walks::start(shared, tx, &place, &Task::Resync).await?,
        }
    }
    let sql = "UPDATE audience SET acknowledged = false WHERE destination_no = $1";
    tx.execute(sql, &[(&no, Type::INT4)]).await.map(|_| ())
}

/// Gives up the leases of this process, so that others need not wait.
pub(crate) async fn hand_over(shared: &Shared) -> Result<(), Failure> {
    let held: HashMap<i32, i64> = {
        let mut known = shared.known();
        let of = known.values_mut();
        of.filter_map(|of| Some((of.no, of.lease.hand_over()?))).collect()
    };
    let (numbers, tokens): (Vec<i32>, Vec<i64>) = held.into_iter().unzip();
    transact!(shared.pool, |tx, _attempt| async {
        let sql =
            "UPDATE lease l SET expires_at = clock_timestamp() FROM unnest($1, $2) AS i(no, token)
             WHERE l.destination_no = i.no AND l.token = i.token";
        let params: [(&(dyn ToSql + Sync), Type); 2] =
            [(&numbers, Type::INT4_ARRAY), (&tokens, Type::INT8_ARRAY)];
        tx.execute(sql, &params).await
    })
    .map(|_| ())
}
