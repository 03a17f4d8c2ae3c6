//! Connections to the database, and transactions on them.
//!
//! # What always holds
//! * A connection goes back to the pool only after its transaction has ended. One whose transaction was given up in
//!   the middle is closed: nobody finds half of it, and a commit whose outcome is unknown is never cancelled.
//! * Statements that are asked for together are sent together, and done in their order: each way there and back costs
//!   more than most of them. The first one takes the transaction's beginning along, and the commit takes the
//!   [last words](Tx::last).
//! * Nothing that matters outlives a transaction: no settings of the session but its mark
//!   ([`Session`]), no session locks. A pooler in transaction mode may stand in between.
//! * Statements are parsed once a connection, which takes as long as many of them do, unless a pooler cannot have that;
//!   they are planned each time they run, for the values they have, so that no plan is from a time when the tables were
//!   empty. Where many small transactions are recorded, planning takes longer than the work: there, statements that
//!   have [one good plan](Tx::steady_query) are planned once as well, and the others are parsed each time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all, join3};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::hosts::Hosts;
use crate::ledger::postgres::session::{Commit, Params, Session};
use crate::ledger::postgres::settings::DatabaseSettings;

/// What a statement may take longer than its own limit: the way there and back.
const ON_THE_WAY: Duration = Duration::from_secs(2);

/// How long a process may stand still in a transaction: then the database ends it, and others go on.
const STANDSTILL: Duration = Duration::from_millis(1500);

/// How long what is recorded waits for a lock: twice that is done before Segment hangs up.
const RECORDING_WAITS: Duration = Duration::from_secs(2);
/// The same of what people look at.
const LOOKS_WAIT: Duration = Duration::from_millis(700);

/// Sets what is for one transaction.
const SET: &str = "SELECT set_config(name, value, true) FROM unnest($1, $2) AS of(name, value)";

/// Why nothing was answered.
enum Unanswered {
    /// The server's connection is not the session's own.
    Elsewhere,
    Failed(tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for Unanswered {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Failed(error)
    }
}

/// Names and values of settings.
type Opening = Vec<(&'static str, String)>;

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
                        $tx.undo(&failure).await;
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
    hosts: Hosts,
    kind: Kind,
}

/// What transactions are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Statements are planned whenever they run.
    Usual,
    /// They are small and alike: statements that have one good plan are planned once a connection.
    Small,
    /// They show something to people, who are told of locks rather than wait for them.
    Looks,
    /// Everything is read as of one moment, and nothing is written.
    Reading,
}

/// A transaction that is under way. Dropped, its connection is closed.
pub(crate) struct Tx {
    session: Session,
    kind: Kind,
    /// How it begins, until it has begun.
    opening: Mutex<Option<Opening>>,
    last: Mutex<Vec<Last>>,
    limit: Duration,
    idle: Arc<Mutex<Vec<Session>>>,
    _place: OwnedSemaphorePermit,
}

impl Pool {
    pub fn new(settings: DatabaseSettings) -> Self {
        let places = Arc::new(Semaphore::new(settings.connections));
        let limit = settings.statement_timeout + ON_THE_WAY;
        let hosts = Hosts::new(settings.address.clone(), limit);
        Self { settings, idle: Arc::default(), places, hosts, kind: Kind::Usual }
    }

    /// The same connections, for transactions that see one moment and write nothing.
    pub fn for_reading(&self) -> Self {
        Self { kind: Kind::Reading, ..self.clone() }
    }

    /// The same connections, for small transactions that are alike.
    pub fn for_small(&self) -> Self {
        Self { kind: Kind::Small, ..self.clone() }
    }

    /// The same connections, for what people look at.
    pub fn for_looks(&self) -> Self {
        Self { kind: Kind::Looks, ..self.clone() }
    }

    /// Whether all connections are in use, or wait for something.
    pub fn is_exhausted(&self) -> bool {
        self.places.available_permits() == 0
    }

    /// See [`Hosts::look_around`].
    pub async fn look_around(&self) {
        self.hosts.look_around().await;
    }

    /// Begins a transaction, on a connection that is idle or a new one.
    pub async fn begin(&self) -> Result<Tx, Failure> {
        let closed = || Failure::lost("closed");
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| closed())?;
        let session = match self.idle() {
            Some(session) => session,
            None => self.hosts.connect().await?,
        };
        let limit = self.settings.statement_timeout;
        let (opening, last) = (Mutex::new(Some(self.opening())), Mutex::default());
        let (limit, idle) = (limit + ON_THE_WAY, Arc::clone(&self.idle));
        Ok(Tx { session, kind: self.kind, opening, last, limit, idle, _place: place })
    }

    /// The settings of a transaction.
    fn opening(&self) -> Opening {
        let limit = self.settings.statement_timeout;
        let most = match self.kind {
            Kind::Usual | Kind::Reading => limit,
            Kind::Small => RECORDING_WAITS,
            Kind::Looks => LOOKS_WAIT,
        };
        let lock_limit = most.min(limit * 9 / 10); // first: it says that others are in the way
        let plans = match self.kind {
            Kind::Usual | Kind::Reading | Kind::Looks => "force_custom_plan",
            Kind::Small => "force_generic_plan",
        };
        vec![
            ("statement_timeout", limit.as_millis().to_string()),
            ("lock_timeout", lock_limit.as_millis().to_string()),
            ("idle_in_transaction_session_timeout", STANDSTILL.as_millis().to_string()),
            ("synchronous_commit", "on".to_owned()),
            ("plan_cache_mode", plans.to_owned()),
            ("jit", "off".to_owned()),
            // Every statement names its rows: they are found by an index, whatever is known of the tables so far.
            ("enable_seqscan", "off".to_owned()),
            ("enable_hashjoin", "off".to_owned()),
            ("enable_mergejoin", "off".to_owned()),
            ("enable_bitmapscan", "off".to_owned()),
        ]
    }

    /// One that is idle, and of the latest primary.
    fn idle(&self) -> Option<Session> {
        let mut idle = locked(&self.idle);
        while let Some(session) = idle.pop() {
            if !session.client.is_closed() && self.hosts.is_current(&session) {
                return Some(session);
            }
        }
        None
    }

    /// Closes what is idle, and opens nothing any more.
    pub fn close(&self) {
        self.places.close();
        locked(&self.idle).clear();
    }
}

fn late() -> Failure {
    Failure::lost("no answer")
}

/// A statement with parameters of its own.
struct Last {
    sql: &'static str,
    params: Vec<(Box<dyn ToSql + Send + Sync>, Type)>,
}

impl Tx {
    /// The rows of a statement.
    pub async fn query(&self, sql: &str, params: &Params<'_>) -> Result<Vec<Row>, Failure> {
        self.within(self.session.query(sql, params, self.kind != Kind::Small)).await
    }

    /// The rows of a statement that has one good plan: whatever the tables hold, and however many rows it is about.
    pub async fn steady_query(&self, sql: &str, params: &Params<'_>) -> Result<Vec<Row>, Failure> {
        self.within(self.session.query(sql, params, true)).await
    }

    /// The first row of a statement, if it has any.
    pub async fn first(&self, sql: &str, params: &Params<'_>) -> Result<Option<Row>, Failure> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    /// How many rows a statement has changed.
    pub async fn execute(&self, sql: &str, params: &Params<'_>) -> Result<u64, Failure> {
        self.within(self.session.execute(sql, params, self.kind != Kind::Small)).await
    }

    /// The same of a statement that has one good plan.
    pub async fn steady_execute(&self, sql: &str, params: &Params<'_>) -> Result<u64, Failure> {
        self.within(self.session.execute(sql, params, true)).await
    }

    /// Statements without parameters.
    pub async fn batch(&self, sql: &str) -> Result<(), Failure> {
        self.within(self.session.client.batch_execute(sql)).await
    }

    /// A statement that is done just before the commit, whatever it changes; it has one good plan.
    pub fn last(&self, sql: &'static str, params: Vec<(Box<dyn ToSql + Send + Sync>, Type)>) {
        locked(&self.last).push(Last { sql, params });
    }

    /// After an error the commit may have happened or not.
    pub async fn commit(self) -> Result<(), Failure> {
        if self.has_begun() {
            let last = std::mem::take(&mut *locked(&self.last));
            let last = last.iter().map(async |Last { sql, params }| {
                let params: Vec<(&(dyn ToSql + Sync), Type)> =
                    params.iter().map(|(value, of)| (&**value as _, of.clone())).collect();
                self.session.execute(sql, &params, true).await.map(|_| ())
            });
            // In this order: what fails makes a rollback of the commit.
            let all = join3(join_all(last), self.session.parse(), self.session.commit());
            let committed = self
                .within(async {
                    let (last, parsed, done) = all.await;
                    last.into_iter().chain([parsed]).collect::<Result<(), _>>()?;
                    done
                })
                .await?;
            if committed == Commit::Doubtful {
                return Err(Failure::lost("a commit was confirmed without its standby"));
            }
        }
        self.give_back();
        Ok(())
    }

    /// Ends it after this failure. A connection that does not answer is not asked for anything more: that would take as
    /// long once again.
    pub async fn undo(self, failure: &Failure) {
        if matches!(failure, Failure::Lost(_)) {
            return;
        }
        if !self.has_begun()
            || self.within(self.session.client.batch_execute("ROLLBACK")).await.is_ok()
        {
            self.give_back();
        }
    }

    fn has_begun(&self) -> bool {
        locked(&self.opening).is_none()
    }

    /// The connection does not answer. What swallowed the answer, a router that has forgotten its connections, or a server
    /// that is gone without a word, has most likely swallowed those of the idle ones too: they are not tried in turn.
    fn silent(&self) -> Failure {
        locked(&self.idle).clear();
        late()
    }

    fn give_back(self) {
        let Self { session, idle, .. } = self;
        locked(&idle).push(session);
    }

    /// On the heap: whoever asks for much at once would have all of it in one future.
    fn within<'a, T: Send + 'a>(
        &'a self,
        asked: impl Future<Output = Result<T, tokio_postgres::Error>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, Failure>> {
        Box::pin(async move {
            let opening = locked(&self.opening).take();
            let answered = async {
                let Some(opening) = opening else { return Ok(asked.await?) };
                let begin = self.session.begin(match self.kind {
                    Kind::Usual | Kind::Small | Kind::Looks => "BEGIN",
                    Kind::Reading => "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
                });
                let (names, values): (Vec<&str>, Vec<String>) = opening.into_iter().unzip();
                let params: [(&(dyn ToSql + Sync), Type); 2] =
                    [(&names, Type::TEXT_ARRAY), (&values, Type::TEXT_ARRAY)];
                let set = self.session.execute(SET, &params, true);
                let (is_ours, set, answer) = join3(begin, set, asked).await;
                if !is_ours? {
                    return Err(Unanswered::Elsewhere);
                }
                set?;
                Ok(answer?)
            };
            let answer = timeout(self.limit, answered).await.map_err(|_| self.silent())?;
            answer.map_err(|unanswered| match unanswered {
                Unanswered::Elsewhere => {
                    Failure::Again("a pooler shares the connection".to_owned())
                }
                Unanswered::Failed(error) => {
                    self.session.note(&error);
                    error.into()
                }
            })
        })
    }
}

fn locked<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
