//! Who shares the ledger: each replica says again and again that it is there, which also shows whether the database takes
//! writes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::TryFutureExt;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_postgres::types::{ToSql, Type};
use tracing::warn;

use crate::clock::Seldom;
use crate::ledger::ReplicaView;
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::locks::Lock;
use crate::ledger::postgres::pool::{Tx, transact};
use crate::ledger::postgres::shared::Shared;
use crate::membership::Timestamp;

/// How often a replica says that it is there.
const SAY_EVERY: Duration = Duration::from_secs(1);
/// Takes the tables as recording does, at once or not at all.
const TAKE_TABLES: &str = "LOCK TABLE destination IN ROW SHARE MODE NOWAIT;
     LOCK TABLE audience, member, pending, change, call_out, parked, rejected, message, deleted, reassertion IN ROW EXCLUSIVE MODE NOWAIT";
/// How long the database may take to answer before events are better sent to another replica: most of what Segment waits.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);
/// What is said if it takes longer.
const SILENT: &str = "the database does not answer: see whether it is overloaded, and whether the network between it and \
     this machine is well";
/// What is said if it takes longer to get a connection.
const BUSY: &str = "every connection of this replica to the database is in use for longer than it should be: statements wait \
     for locks (pg_locks, pg_blocking_pids), or the database is overloaded";
/// How long one that is silent is remembered, in seconds.
const REMEMBERED_S: f64 = 600.0;

/// Says that this replica is there until the ledger is closed, and warns if others are not like it.
pub(crate) async fn keep_saying(shared: &Shared) {
    let started_at = shared.stamps.arrival();
    let mut often = interval(SAY_EVERY);
    often.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut warned = Seldom::default();
    while shared.comes(&mut often).await {
        let (is_locked_out, has_begun) = (shared.is_locked_out(), AtomicBool::new(false));
        // Whoever is asked to wait for longer than that is not ready, however it ends.
        let said = async {
            transact!(shared.looks, |tx, _attempt| async {
                has_begun.store(true, Ordering::Relaxed);
                let others = say(shared, &tx, started_at).await?;
                if is_locked_out {
                    get_locks(shared, &tx).await?;
                }
                Ok(others)
            }
            .map_err(Failure::at_once))
        };
        let there = timeout(ANSWERS_WITHIN, said).await.unwrap_or_else(|_| {
            let is_busy = !has_begun.load(Ordering::Relaxed) && shared.pool.is_exhausted();
            Err(if is_busy {
                Failure::Unavailable(BUSY.to_owned())
            } else {
                Failure::Lost(SILENT.to_owned())
            })
        });
        shared.is_there(&there, is_locked_out);
        let Ok(others) = there else { continue }; // the status shows it, and so does the probe
        if let Some(difference) = difference(shared, &others)
            && warned.is_due()
        {
            warn!("{difference}");
        }
    }
    let me = &shared.settings.replica.name;
    let sql = "DELETE FROM replica WHERE name = $1";
    // Whoever cannot say goodbye is forgotten after a while.
    let _ = transact!(shared.pool, |tx, _attempt| tx.execute(sql, &[(me, Type::TEXT)]));
}

/// Versions and configurations of those that are there.
type Others = BTreeSet<(String, String)>;

async fn say(shared: &Shared, tx: &Tx, started_at: Timestamp) -> Result<Others, Failure> {
    let me = &shared.settings.replica;
    let sql = "INSERT INTO replica (name, version, configuration, started_at, seen_at)
         VALUES ($1, $2, $3, $4, clock_timestamp())
         ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at";
    let params: [(&(dyn ToSql + Sync), Type); 4] = [
        (&me.name, Type::TEXT),
        (&me.version, Type::TEXT),
        (&me.configuration, Type::TEXT),
        (&started_at.0, Type::INT8),
    ];
    tx.execute(sql, &params).await?;
    let sql = "DELETE FROM replica WHERE seen_at < clock_timestamp() - $1 * interval '1 second'";
    tx.execute(sql, &[(&REMEMBERED_S, Type::FLOAT8)]).await?;
    let sql = "SELECT DISTINCT version, configuration FROM replica WHERE seen_at > clock_timestamp() - interval '10 seconds'";
    let rows = tx.query(sql, &[]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Takes the locks that recording takes, if nobody keeps them.
async fn get_locks(shared: &Shared, tx: &Tx) -> Result<(), Failure> {
    tx.batch(TAKE_TABLES).await?;
    let mut numbers: Vec<i32> = shared.known().values().map(|of| of.no).collect();
    numbers.sort_unstable(); // as everybody takes them
    Lock::Shared.hold_all(tx, &numbers).await
}

fn difference(shared: &Shared, others: &Others) -> Option<&'static str> {
    let me = &shared.settings.replica;
    if others.iter().any(|(version, _)| *version != me.version) {
        Some(
            "replicas of another version share the ledger: cohortd status shows them; bring all to the same one",
        )
    } else if others.iter().any(|(_, configuration)| *configuration != me.configuration) {
        Some(
            "replicas with another configuration share the ledger: cohortd status shows them; give all the same \
             destinations, routes, delivery and ledger sections",
        )
    } else {
        None
    }
}

/// What this replica says of itself to the others.
pub(crate) async fn tell(shared: &Shared, words: &str) -> Result<(), Failure> {
    let me = &shared.settings.replica.name;
    let sql = "UPDATE replica SET said = $2 WHERE name = $1";
    let params: [(&(dyn ToSql + Sync), Type); 2] = [(me, Type::TEXT), (&words, Type::TEXT)];
    transact!(shared.pool, |tx, _attempt| tx.execute(sql, &params)).map(|_| ())
}

/// Everybody who shares the ledger.
pub(crate) async fn everybody(shared: &Shared) -> Result<Vec<ReplicaView>, Failure> {
    let sql = "SELECT r.name, r.version, r.configuration, r.started_at, r.said,
             greatest(extract(epoch FROM clock_timestamp() - r.seen_at), 0)::float8,
             ARRAY(SELECT d.name FROM lease l JOIN destination d ON d.no = l.destination_no
                 WHERE l.owner = r.name AND l.expires_at > clock_timestamp() ORDER BY d.name)
         FROM replica r ORDER BY r.name";
    let rows =
        transact!(shared.looks, |tx, _attempt| tx.query(sql, &[]).map_err(Failure::at_once))?;
    let view = |row: &tokio_postgres::Row| -> Result<ReplicaView, Failure> {
        let name: String = row.try_get(0)?;
        Ok(ReplicaView {
            is_here: name == shared.settings.replica.name,
            name,
            version: row.try_get(1)?,
            configuration: row.try_get(2)?,
            started_at: Timestamp(row.try_get(3)?),
            said: row.try_get(4)?,
            silent_for: Duration::try_from_secs_f64(row.try_get(5)?).unwrap_or_default(),
            delivers: row.try_get(6)?,
        })
    };
    rows.iter().map(view).collect()
}
