//! A connection, and the statements that the server has parsed on it.
//!
//! To parse a statement takes as long as to do it, where it is about a few rows. A statement that is asked for the first
//! time goes with its text; its commit has the server parse it, for the transactions after it.
//!
//! A pooler may put another connection below, on which somebody else has given another statement the same name. So a
//! session leaves its mark on the server, each transaction sees first that it is there, and none commits without. Where
//! it is not, statements go with their text from then on. Whoever parses on a connection does it within such a
//! transaction, and so on one that bears its mark.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::try_join_all;
use rand::RngExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{
    AsyncMessage, Client, Connection, Error, NoTls, Row, SimpleQueryMessage, Statement,
};

use crate::ledger::postgres::address::DatabaseAddress;
use crate::ledger::postgres::failure::Failure;

/// The parameters of a statement, with their types: they are sent along, so that nothing has to be asked first.
pub(crate) type Params<'a> = [(&'a (dyn ToSql + Sync), Type)];

/// A connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub client: Client,
    /// What tells it from all others, on the server.
    mark: String,
    /// The timeline of the server; 0: nobody has asked, since there is only one.
    pub timeline: u32,
    /// The server has warned about a commit that it confirmed.
    is_doubtful: Arc<AtomicBool>,
    driver: JoinHandle<()>,
    /// What the server has parsed, by its text.
    parsed: Mutex<HashMap<String, Statement>>,
    /// What it is to parse, with the types of its parameters.
    unparsed: Mutex<HashMap<String, Vec<Type>>>,
    /// Whether what it has parsed is there in the next transaction, on any connection of the process.
    keeps_statements: Arc<AtomicBool>,
}

/// How a server has confirmed a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    /// As it should.
    Done,
    /// With a warning: it may be lost with this server.
    Doubtful,
}

impl Session {
    pub async fn open(
        address: &DatabaseAddress,
        keeps_statements: Arc<AtomicBool>,
    ) -> Result<Self, Failure> {
        let failed = |error| Failure::of_connecting(address, error);
        let is_doubtful = Arc::new(AtomicBool::new(false));
        let (client, driver) = match &address.tls {
            None => drive(address.config.connect(NoTls).await.map_err(failed)?, &is_doubtful),
            Some(tls) => {
                let connector = tls.connector().map_err(Failure::Unavailable)?;
                drive(address.config.connect(connector).await.map_err(failed)?, &is_doubtful)
            }
        };
        let mark = format!("{:032x}", rand::rng().random::<u128>());
        client.batch_execute(&format!("SET cohortd.session = '{mark}'")).await?;
        let (parsed, unparsed) = (Mutex::default(), Mutex::default());
        let timeline = 0;
        Ok(Self { client, mark, timeline, is_doubtful, driver, parsed, unparsed, keeps_statements })
    }

    /// Begins a transaction, and sees whether what this session has had parsed is what the server knows by its names.
    pub async fn begin(&self, begin: &str) -> Result<bool, Error> {
        if !self.keeps_statements.load(Ordering::Relaxed) {
            return self.client.batch_execute(begin).await.map(|()| true);
        }
        let sql = format!("{begin}; SELECT current_setting('cohortd.session', true)");
        let told = self.client.simple_query(&sql).await?;
        let is_ours = told.iter().any(|message| {
            matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some(&self.mark))
        });
        if !is_ours {
            self.keeps_statements.store(false, Ordering::Relaxed);
            locked(&self.unparsed).clear();
        }
        Ok(is_ours)
    }

    /// Has it commit. A server that waits for its standby and is told not to (`pg_cancel_backend`) says that it has
    /// committed, with a warning: only the warning is true.
    pub async fn commit(&self) -> Result<Commit, Error> {
        self.is_doubtful.store(false, Ordering::SeqCst);
        self.client.batch_execute("COMMIT").await?;
        let is_doubtful = self.is_doubtful.load(Ordering::SeqCst);
        Ok(if is_doubtful { Commit::Doubtful } else { Commit::Done })
    }

    /// The rows of a statement; `is_kept`: the server is to keep what it has parsed of it.
    pub async fn query(
        &self,
        sql: &str,
        params: &Params<'_>,
        is_kept: bool,
    ) -> Result<Vec<Row>, Error> {
        match is_kept.then(|| self.statement(sql, params)).flatten() {
            Some(statement) => self.client.query(&statement, &values(params)).await,
            None => self.client.query_typed(sql, params).await,
        }
    }

    /// How many rows a statement has changed; `is_kept` as for [`Self::query`].
    pub async fn execute(
        &self,
        sql: &str,
        params: &Params<'_>,
        is_kept: bool,
    ) -> Result<u64, Error> {
        match is_kept.then(|| self.statement(sql, params)).flatten() {
            Some(statement) => self.client.execute(&statement, &values(params)).await,
            None => self.client.execute_typed(sql, params).await,
        }
    }

    /// What the server has parsed of it; if it has not, it is to.
    fn statement(&self, sql: &str, params: &Params<'_>) -> Option<Statement> {
        if !self.keeps_statements.load(Ordering::Relaxed) {
            return None;
        }
        let statement = locked(&self.parsed).get(sql).cloned();
        if statement.is_none() {
            let types = params.iter().map(|(_, of)| of.clone()).collect();
            locked(&self.unparsed).insert(sql.to_owned(), types);
        }
        statement
    }

    /// Has the server parse what was asked for the first time; after an error there is nothing to commit.
    pub async fn parse(&self) -> Result<(), Error> {
        let unparsed = std::mem::take(&mut *locked(&self.unparsed));
        if !self.keeps_statements.load(Ordering::Relaxed) {
            return Ok(());
        }
        let parse = async |(sql, types): (String, Vec<Type>)| {
            let statement = self.client.prepare_typed(&sql, &types).await?;
            locked(&self.parsed).insert(sql, statement);
            Ok(())
        };
        try_join_all(unparsed.into_iter().map(parse)).await.map(|_| ())
    }

    /// A statement has failed; perhaps because what was parsed is not there.
    pub fn note(&self, error: &Error) {
        let unknown = [SqlState::INVALID_SQL_STATEMENT_NAME, SqlState::DUPLICATE_PSTATEMENT];
        if error.code().is_some_and(|code| unknown.contains(code)) {
            self.keeps_statements.store(false, Ordering::Relaxed);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Lets a connection run.
fn drive<S, T>(
    (client, mut connection): (Client, Connection<S, T>),
    is_doubtful: &Arc<AtomicBool>,
) -> (Client, JoinHandle<()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let is_doubtful = Arc::clone(is_doubtful);
    let driver = tokio::spawn(async move {
        // Whoever uses the client learns how it ends.
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notice(notice) = message
                && *notice.code() == SqlState::WARNING
            {
                is_doubtful.store(true, Ordering::SeqCst);
            }
        }
    });
    (client, driver)
}

fn values<'a>(params: &Params<'a>) -> Vec<&'a (dyn ToSql + Sync)> {
    params.iter().map(|(value, _)| *value).collect()
}

fn locked<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
