//! One end of a copy: a ledger that is read as rows of no store's own, or a new one that is made of such rows.
//!
//! # What always holds
//! * Nobody uses the place of a copy until it is finished: it has a mark that every replica refuses. How far the copy is
//!   stands in that mark, in the same transaction as its rows.
//! * Nobody uses the source while it is read: it has a mark that replicas refuse until a while after the last reading.
//!   Whoever uses it later takes the mark away, by which the copy knows that it is of another ledger.
//! * Replicas that are there are looked for under the same lock under which one begins.

mod reading;
mod writing;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};

use crate::ledger::Stage;
use crate::ledger::copied::{Found, Once, Progress, RECONCILES};
use crate::ledger::postgres::address::DatabaseAddress;
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::places::Place;
use crate::ledger::postgres::pool::{Pool, Tx, transact};
use crate::ledger::postgres::rows::{damaged, text};
use crate::ledger::postgres::schema::{self, FINISHED_COPY, SOURCE_OF_COPY, UNFINISHED_COPY};
use crate::ledger::postgres::settings::DatabaseSettings;
use crate::membership::{DestinationName, Timestamp};

/// How long the source is kept from replicas after it was last read, in seconds.
const KEPT_S: f64 = 30.0;
/// Longest time of a statement: nobody waits for an answer.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(120);

/// A database that a ledger is copied from or to.
pub(crate) struct DatabaseCopy {
    pool: Pool,
    /// The copy whose source it is.
    copy: Option<String>,
    destinations: Vec<(i32, DestinationName)>,
    audiences: Vec<(i32, Place)>,
    calls: Calls,
}

/// Who is in a call, or was when the process of that ended.
#[derive(Default)]
struct Calls {
    /// Whether the call ended late, by the number of the audience and the context key.
    of: HashMap<(i32, String), bool>,
    /// Who is to be told once more because of that.
    again: BTreeSet<(i32, String)>,
}

impl DatabaseCopy {
    /// Nothing is asked yet.
    pub fn new(address: DatabaseAddress) -> Self {
        let (connections, statement_timeout) = (2, STATEMENT_TIMEOUT);
        let pool = Pool::new(DatabaseSettings { address, connections, statement_timeout });
        let (destinations, audiences) = (Vec::new(), Vec::new());
        Self { pool, copy: None, destinations, audiences, calls: Calls::default() }
    }

    /// Finds the ledger that is to be copied; the copy whose mark it has as its source.
    ///
    /// # Errors
    /// There is none, it cannot be used, or a replica uses it.
    pub async fn source(&self) -> Result<Option<String>, Failure> {
        transact!(self.pool, |tx, _attempt| async {
            if !schema::is_there(&tx).await? {
                return Err(Failure::Unavailable(schema::NOT_THERE.to_owned()));
            }
            if value(&tx, UNFINISHED_COPY).await?.is_some() {
                return Err(Failure::Unavailable(
                    "the ledger in the database is itself a copy that is not finished".to_owned(),
                ));
            }
            nobody_is_there(&tx).await?;
            let sql = "SELECT 1 FROM reconciliation WHERE stage = $1 LIMIT 1";
            if tx.first(sql, &[(&Stage::Staged.name(), Type::TEXT)]).await?.is_some() {
                return Err(Failure::Unavailable(RECONCILES.to_owned()));
            }
            let mark = value(&tx, SOURCE_OF_COPY).await?;
            Ok(mark.and_then(|mark| Some(mark.split_once(' ')?.0.to_owned())))
        })
    }

    /// Makes it the source of this copy, or of none.
    pub async fn set_mark(&mut self, copy: Option<&str>) -> Result<(), Failure> {
        let set = async |tx: &Tx| -> Result<(), Failure> {
            schema::is_there(tx).await?; // with the lock under which replicas begin
            nobody_is_there(tx).await?;
            keep(tx, SOURCE_OF_COPY, copy.map(|copy| format!("{copy} 0"))).await?;
            keep_mark(tx, copy).await
        };
        transact!(self.pool, |tx, _attempt| set(&tx))?;
        self.copy = copy.map(str::to_owned);
        Ok(())
    }

    /// Goes on with the copy whose mark it has.
    pub fn go_on(&mut self, copy: &str) {
        self.copy = Some(copy.to_owned());
    }

    /// What it has once.
    pub async fn once(&self) -> Result<Once, Failure> {
        transact!(self.pool, |tx, _attempt| async {
            keep_mark(&tx, self.copy.as_deref()).await?;
            let sql = "SELECT greatest((SELECT max(arrival) FROM change),
                     (SELECT convert_from(value, 'UTF8')::int8 FROM cohortd WHERE name = 'arrival')),
                 (SELECT value FROM cohortd WHERE name = 'hash_key')";
            let row = tx.first(sql, &[]).await?.ok_or_else(damaged)?;
            let (arrival, hash_key): (Option<i64>, Option<Vec<u8>>) =
                (row.try_get(0)?, row.try_get(1)?);
            Ok(Once {
                arrival: Timestamp(arrival.unwrap_or_default()),
                hash_key: hash_key.ok_or_else(damaged)?,
                note: value(&tx, "note").await?,
            })
        })
    }

    /// What is in the place of a copy. Nothing is changed.
    ///
    /// # Errors
    /// It cannot be used, or a replica uses it.
    pub async fn target(&self) -> Result<Found, Failure> {
        transact!(self.pool, |tx, _attempt| found(&tx))
    }

    /// Begins a copy there, unless something has come there since it was looked at.
    pub async fn begin(&self, progress: &Progress, once: &Once) -> Result<(), Failure> {
        let begin = async |tx: &Tx| -> Result<(), Failure> {
            match found(tx).await? {
                Found::Nothing => {}
                Found::Unfinished(of) if of == *progress => return Ok(()), // it was not confirmed
                Found::Unfinished(_) | Found::Ledger { .. } => return Err(Failure::Stale),
            }
            if !schema::is_there(tx).await? {
                schema::make(tx).await?;
            }
            // What an audience has left that is gone, too: its number comes again.
            let tables = [
                "destination",
                "replica",
                "change",
                "pending",
                "parked",
                "reassertion",
                "member",
                "reconciliation",
            ];
            for table in tables {
                tx.execute(&format!("DELETE FROM {table}"), &[]).await?;
            }
            let sql = "UPDATE cohortd SET value = $1 WHERE name = 'hash_key'";
            tx.execute(sql, &[(&once.hash_key, Type::BYTEA)]).await?;
            keep(tx, "arrival", Some(once.arrival.0.to_string())).await?;
            keep(tx, "note", once.note.clone()).await?;
            keep(tx, UNFINISHED_COPY, Some(progress.to_string())).await
        };
        transact!(self.pool, |tx, _attempt| begin(&tx))
    }

    /// From now on it is a ledger as every other.
    pub async fn finish(&self, copy: &str) -> Result<(), Failure> {
        let finish = async |tx: &Tx| -> Result<(), Failure> {
            // The next number is behind all that are there.
            for (table, column) in [("destination", "no"), ("audience", "no"), ("rejected", "id")] {
                let sql = format!(
                    "SELECT setval(pg_get_serial_sequence('{table}', '{column}'), max({column})) FROM {table}
                     HAVING max({column}) > 0"
                );
                tx.query(&sql, &[]).await?;
            }
            keep(tx, UNFINISHED_COPY, None).await?;
            keep(tx, FINISHED_COPY, Some(copy.to_owned())).await
        };
        transact!(self.pool, |tx, _attempt| finish(&tx))?;
        // What is known of tables that were empty a moment ago would mislead; without it they are still right.
        let _ = transact!(self.pool, |tx, _attempt| tx.batch("ANALYZE member, pending, audience"));
        Ok(())
    }
}

async fn value(tx: &Tx, name: &str) -> Result<Option<String>, Failure> {
    let sql = "SELECT value FROM cohortd WHERE name = $1";
    let row = tx.first(sql, &[(&name, Type::TEXT)]).await?;
    let value = row.map(|row| row.try_get::<_, &[u8]>(0).map(text)).transpose()?;
    value.map(|text| text.ok_or_else(damaged)).transpose()
}

/// Keeps replicas away from the source of a copy for a while longer, in the transaction of every reading.
/// [`Failure::Stale`]: one has been there.
async fn keep_mark(tx: &Tx, copy: Option<&str>) -> Result<(), Failure> {
    let Some(copy) = copy else { return Ok(()) };
    let sql = "UPDATE cohortd SET value = convert_to($2 || ' ' ||
             (extract(epoch FROM clock_timestamp() + $3 * interval '1 second') * 1000000)::int8, 'UTF8')
         WHERE name = $1 AND split_part(convert_from(value, 'UTF8'), ' ', 1) = $2";
    let params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&SOURCE_OF_COPY, Type::TEXT), (&copy, Type::TEXT), (&KEPT_S, Type::FLOAT8)];
    if tx.execute(sql, &params).await? == 1 { Ok(()) } else { Err(Failure::Stale) }
}

/// Stores a text in place of the previous one; `None`: there is none any more.
async fn keep(tx: &Tx, name: &str, value: Option<String>) -> Result<(), Failure> {
    let Some(value) = value else {
        let sql = "DELETE FROM cohortd WHERE name = $1";
        return tx.execute(sql, &[(&name, Type::TEXT)]).await.map(|_| ());
    };
    let sql = "INSERT INTO cohortd VALUES ($1, convert_to($2, 'UTF8'))
         ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    tx.execute(sql, &[(&name, Type::TEXT), (&value, Type::TEXT)]).await.map(|_| ())
}

/// An error, if a replica was heard of lately or holds a lease.
async fn nobody_is_there(tx: &Tx) -> Result<(), Failure> {
    let sql = "SELECT name FROM replica WHERE seen_at > clock_timestamp() - interval '10 seconds'
         UNION SELECT owner FROM lease WHERE expires_at > clock_timestamp() ORDER BY 1";
    let rows = tx.query(sql, &[]).await?;
    let names: Vec<&str> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    if names.is_empty() {
        return Ok(());
    }
    Err(Failure::Unavailable(format!(
        "a replica uses the ledger in the database ({}): stop all of them; one that was killed counts until its lease has \
         run out (ledger.lease_ttl_s)",
        names.join(", ")
    )))
}

/// What is in the place of a copy, under the lock under which replicas begin.
async fn found(tx: &Tx) -> Result<Found, Failure> {
    if !schema::is_there(tx).await? {
        return Ok(Found::Nothing);
    }
    nobody_is_there(tx).await?;
    if let Some(text) = value(tx, UNFINISHED_COPY).await? {
        return Progress::parse(&text).map(Found::Unfinished).ok_or_else(damaged);
    }
    let sql = "SELECT EXISTS (SELECT 1 FROM audience) OR EXISTS (SELECT 1 FROM rejected)
             OR EXISTS (SELECT 1 FROM deleted) OR EXISTS (SELECT 1 FROM call_out)";
    let has_rows: bool = tx.first(sql, &[]).await?.map_or(Ok(false), |row| row.try_get(0))?;
    if has_rows {
        return Ok(Found::Ledger { copy: value(tx, FINISHED_COPY).await? });
    }
    Ok(Found::Nothing)
}
