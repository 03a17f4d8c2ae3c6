//! Connections to the database, and transactions on them.
//!
//! # What always holds
//! * A connection goes back to the pool only after its transaction has ended. One whose transaction was given up in
//!   the middle is closed: nobody finds half of it, and a commit whose outcome is unknown is never cancelled.
//! * Nothing outlives a transaction: no prepared statements, no settings of the session, no session locks. A pooler
//!   in transaction mode may stand in between. Statements are planned each time they run, for the values they have, so
//!   that no plan is from a time when the tables were empty.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls, Row};

use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::settings::DatabaseSettings;

/// The oldest version of PostgreSQL that is used.
const OLDEST_VERSION: i32 = 140_000;
/// What a statement may take longer than its own limit: the way there and back.
const ON_THE_WAY: Duration = Duration::from_secs(2);

/// Runs a transaction, again if it has to be. In `$work`, `$tx` is the transaction and `$attempt` how often it was
/// tried before.
macro_rules! transact {
    ($pool:expr, |$tx:ident, $attempt:ident| $work:expr) => {{
        let mut attempts = $crate::ledger::postgres::failure::Attempts::default();
        loop {
            let $attempt = attempts.count;
            let done = match $pool.begin().await {
                Ok($tx) => match $work.await {
                    Ok(done) => $tx.commit().await.map(|()| done),
                    Err(failure) => {
                        $tx.rollback().await;
                        Err(failure)
                    }
                },
                Err(failure) => Err(failure),
            };
            match done {
                Ok(done) => break Ok(done),
                Err(failure) => {
                    if !attempts.again(&failure).await {
                        break Err(failure);
                    }
                }
            }
        }
    }};
}

pub(crate) use transact;

/// The connections of a process.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    settings: DatabaseSettings,
    idle: Arc<Mutex<Vec<Session>>>,
    places: Arc<Semaphore>,
}

/// A connection.
#[derive(Debug)]
struct Session {
    client: Client,
    driver: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A transaction that is under way. Dropped, its connection is closed.
#[derive(Debug)]
pub(crate) struct Tx {
    session: Session,
    limit: Duration,
    idle: Arc<Mutex<Vec<Session>>>,
    _place: OwnedSemaphorePermit,
}

impl Pool {
    pub fn new(settings: DatabaseSettings) -> Self {
        let places = Arc::new(Semaphore::new(settings.connections));
        Self { settings, idle: Arc::default(), places }
    }

    /// Begins a transaction, on a connection that is idle or a new one.
    pub async fn begin(&self) -> Result<Tx, Failure> {
        let closed = || Failure::Lost("closed".to_owned());
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| closed())?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let session = match idle.filter(|session| !session.client.is_closed()) {
            Some(session) => session,
            None => self.connect().await?,
        };
        let limit = self.settings.statement_timeout;
        let tx =
            Tx { session, limit: limit + ON_THE_WAY, idle: Arc::clone(&self.idle), _place: place };
        // Every statement names its rows: they are found by an index, whatever is known of the tables so far.
        let begin = format!(
            "BEGIN; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {0}; SET LOCAL jit = off; \
             SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; \
             SET LOCAL enable_bitmapscan = off; SET LOCAL synchronous_commit = on",
            limit.as_millis()
        );
        tx.within(tx.session.client.batch_execute(&begin)).await?;
        Ok(tx)
    }

    async fn connect(&self) -> Result<Session, Failure> {
        let limit = self.settings.statement_timeout + ON_THE_WAY;
        let connected = timeout(limit, self.settings.config.connect(NoTls)).await;
        let (client, connection) = connected.map_err(|_| late())??;
        let driver = tokio::spawn(async move {
            let _ = connection.await; // whoever uses the client learns of it
        });
        let session = Session { client, driver };
        let asked = session.client.query_typed(
            "SELECT current_setting('server_version_num')::int4, current_setting('fsync')",
            &[],
        );
        let rows = timeout(limit, asked).await.map_err(|_| late())??;
        let row = rows.first().ok_or_else(late)?;
        let (version, fsync): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
        if version < OLDEST_VERSION {
            return Err(Failure::Unavailable(format!(
                "the database is PostgreSQL {}: it must be 14 or newer",
                version / 10_000
            )));
        }
        if fsync == "off" {
            return Err(Failure::Unavailable(
                "the database runs with fsync = off, and may lose what it has confirmed: set it to on".to_owned(),
            ));
        }
        Ok(session)
    }

    /// Closes what is idle, and opens nothing any more.
    pub fn close(&self) {
        self.places.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn late() -> Failure {
    Failure::Lost("no answer".to_owned())
}

/// The parameters of a statement, with their types: they are sent along, so that nothing has to be asked first.
pub(crate) type Params<'a> = [(&'a (dyn ToSql + Sync), Type)];

impl Tx {
    /// The rows of a statement.
    pub async fn query(&self, sql: &str, params: &Params<'_>) -> Result<Vec<Row>, Failure> {
        self.within(self.session.client.query_typed(sql, params)).await
    }

    /// The first row of a statement, if it has any.
    pub async fn first(&self, sql: &str, params: &Params<'_>) -> Result<Option<Row>, Failure> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    /// How many rows a statement has changed.
    pub async fn execute(&self, sql: &str, params: &Params<'_>) -> Result<u64, Failure> {
        self.within(self.session.client.execute_typed(sql, params)).await
    }

    /// Statements without parameters.
    pub async fn batch(&self, sql: &str) -> Result<(), Failure> {
        self.within(self.session.client.batch_execute(sql)).await
    }

    /// After an error the commit may have happened or not.
    pub async fn commit(self) -> Result<(), Failure> {
        self.within(self.session.client.batch_execute("COMMIT")).await?;
        self.give_back();
        Ok(())
    }

    pub async fn rollback(self) {
        let ended = self.within(self.session.client.batch_execute("ROLLBACK")).await;
        if ended.is_ok() {
            self.give_back();
        }
    }

    fn give_back(self) {
        let Self { session, idle, .. } = self;
        idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }

    async fn within<T>(
        &self,
        asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Failure> {
        Ok(timeout(self.limit, asked).await.map_err(|_| late())??)
    }
}
