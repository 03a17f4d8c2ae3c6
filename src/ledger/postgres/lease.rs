//! Who delivers to a destination: one replica at a time, for as long as it renews its lease.
//!
//! # What always holds
//! * A token grows with every owner. What an owner writes of deliveries is written under the condition that its token
//!   still is the latest one.
//! * A lease counts by the clock since boot, from before its renewal was sent: an owner stops before anybody else may
//!   begin, whatever happens to the wall clocks.
//! * What the owner before had in a call ended without an answer: it is told once more.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::types::{ToSql, Type};
use tracing::{info, warn};

use crate::clock::since_boot;
use crate::ledger::DestinationSettings;
use crate::ledger::member::{Member, Next};
use crate::ledger::postgres::changes;
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::locks::Lock;
use crate::ledger::postgres::members::{MemberKey, Members};
use crate::ledger::postgres::places::Place;
use crate::ledger::postgres::pool::{Tx, transact};
use crate::ledger::postgres::rows::{damaged, text};
use crate::ledger::postgres::shared::{Lease, Shared};
use crate::ledger::postgres::walk::Task;
use crate::ledger::postgres::walks;
use crate::membership::{ContextKey, DestinationName};

/// Renews the leases of this process, and takes those that are free.
pub(crate) async fn keep(shared: &Shared) -> Result<(), Failure> {
    let all: Vec<(DestinationName, i32, Option<i64>, bool)> = {
        let known = shared.known();
        let of = known.iter();
        of.map(|(name, of)| {
            (name.clone(), of.no, of.lease.map(|lease| lease.token), of.is_configured)
        })
        .collect()
    };
    for (name, no, token, is_configured) in all {
        match token {
            Some(token) => renew(shared, &name, no, token).await?,
            None if is_configured && !shared.is_closing() => acquire(shared, &name).await?,
            None => {}
        }
    }
    Ok(())
}

/// How long a lease lasts, as PostgreSQL takes it.
fn ttl(shared: &Shared) -> f64 {
    shared.settings.lease_ttl.as_secs_f64()
}

async fn renew(
    shared: &Shared,
    name: &DestinationName,
    no: i32,
    token: i64,
) -> Result<(), Failure> {
    let asked = since_boot();
    let lasts = ttl(shared);
    let renewed = transact!(shared.pool, |tx, _attempt| async {
        let sql = "UPDATE lease SET expires_at = clock_timestamp() + $3 * interval '1 second'
             WHERE destination_no = $1 AND token = $2";
        let params: [(&(dyn ToSql + Sync), Type); 3] =
            [(&no, Type::INT4), (&token, Type::INT8), (&lasts, Type::FLOAT8)];
        tx.execute(sql, &params).await
    })?;
    let mut known = shared.known();
    let Some(of) = known.get_mut(name) else { return Ok(()) };
    if renewed == 1 {
        of.lease = Some(Lease { token, until: asked + shared.settings.lease_ttl });
    } else {
        warn!(destination = %name, "another replica has taken over: this one was silent for too long");
        of.lease = None;
        of.claims.clear();
        of.reassertions.clear();
    }
    Ok(())
}

/// Takes a lease that is free, with what its last owner has left.
async fn acquire(shared: &Shared, name: &DestinationName) -> Result<(), Failure> {
    let (no, settings) = shared.destination(name)?;
    let asked = since_boot();
    let taken = transact!(shared.pool, |tx, _attempt| take(shared, &tx, (name, no), &settings))?;
    let Some(Taken { token, reassertions }) = taken else { return Ok(()) };
    let due = Instant::now() + settings.reassert_after;
    if let Some(of) = shared.known().get_mut(name) {
        of.lease = Some(Lease { token, until: asked + shared.settings.lease_ttl });
        of.claims.clear();
        of.reassertions = reassertions.into_iter().map(|key| (due, key)).collect();
        of.news.send_replace(());
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
    let lasts = ttl(shared);
    let sql = "INSERT INTO lease AS l (destination_no, owner, token, expires_at)
         VALUES ($1, $2, 1, clock_timestamp() + $3 * interval '1 second') ON CONFLICT (destination_no)
         DO UPDATE SET owner = excluded.owner, token = l.token + 1, expires_at = excluded.expires_at
         WHERE l.expires_at <= clock_timestamp() RETURNING token";
    let params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&no, Type::INT4), (&shared.replica, Type::TEXT), (&lasts, Type::FLOAT8)];
    let Some(row) = tx.first(sql, &params).await? else { return Ok(None) };
    let token = row.try_get(0)?;
    Lock::Exclusive.hold(tx, no).await?;
    mark_unheard(shared, tx, no).await?;
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

/// Whoever was in a call of an owner before may still be told by it.
async fn mark_unheard(shared: &Shared, tx: &Tx, no: i32) -> Result<(), Failure> {
    let sql = "SELECT c.audience_no, k FROM call_out c JOIN audience a ON a.no = c.audience_no, unnest(c.context_keys) k
         WHERE c.destination_no = $1 AND NOT a.is_erased";
    let mut keys = BTreeSet::new();
    for row in tx.query(sql, &[(&no, Type::INT4)]).await? {
        let key =
            text(row.try_get(1)?).and_then(|key| ContextKey::new(&key)).ok_or_else(damaged)?;
        keys.insert((row.try_get::<_, i32>(0)?, key));
    }
    let mut members = Members::default();
    members.load(tx, keys.clone()).await?;
    for key in keys {
        let Some(before) = members.get(&key).filter(|of| of.pending_since.is_some()) else {
            continue;
        };
        let after = Member { unheard: true, ..before.clone() };
        members.put(&key, Next::Write(after));
    }
    let changes = members.flush(tx).await?;
    changes::write_any(shared, tx, no, &changes).await?;
    let sql = "DELETE FROM call_out WHERE destination_no = $1";
    tx.execute(sql, &[(&no, Type::INT4)]).await.map(|_| ())
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
        of.filter_map(|of| Some((of.no, of.lease.take()?.token))).collect()
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

/// How often leases are renewed.
pub(crate) fn interval(lease_ttl: Duration) -> Duration {
    lease_ttl / 3
}
