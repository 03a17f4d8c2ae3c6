//! What can go wrong with a statement, by what is done next. PostgreSQL's own words may quote rows, so only its
//! SQLSTATE goes any further ([P8](crate::design::P8)).

use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use crate::ledger::LedgerError;

/// Why a transaction was not committed, or may not have been.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Another transaction was in the way: the same again.
    #[error("other transactions are in the way ({0})")]
    Again(String),
    /// The connection is gone, or does not reach a server that takes writes: the same again on a new one.
    #[error("the connection to the database is lost ({0})")]
    Lost(String),
    /// The database cannot do it now.
    #[error("{0}")]
    Unavailable(String),
    /// The lease of the destination is not this process's any more: nothing was changed.
    #[error("another replica owns the destination")]
    Stale,
    /// The answer is an error that the caller knows.
    #[error(transparent)]
    Refused(#[from] LedgerError),
}

impl Failure {
    /// A row was changed by somebody else since it was read.
    pub fn overtaken() -> Self {
        Self::Again("a row has changed".to_owned())
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(state) = error.code() else {
            return Self::Lost(kind_of(&error).to_owned());
        };
        let code = state.code();
        let said = |what: &str| format!("{what} (SQLSTATE {code})");
        let again = [
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::LOCK_NOT_AVAILABLE,
        ];
        let lost = [
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::READ_ONLY_SQL_TRANSACTION,
            SqlState::TOO_MANY_CONNECTIONS,
            SqlState::IN_FAILED_SQL_TRANSACTION,
        ];
        match state {
            _ if again.contains(state) => Self::Again(code.to_owned()),
            _ if lost.contains(state) || code.starts_with("08") => Self::Lost(code.to_owned()),
            _ if code.starts_with("53") => {
                Self::Unavailable(said("the database has no room: give it disk or memory"))
            }
            _ if code.starts_with("28") => Self::Unavailable(said(
                "the database refuses the user or the password: see ledger.url",
            )),
            _ if *state == SqlState::UNDEFINED_DATABASE => {
                Self::Unavailable(said("there is no such database: create it, or see ledger.url"))
            }
            _ if *state == SqlState::INSUFFICIENT_PRIVILEGE => Self::Unavailable(said(
                "the user of the database lacks rights: it must own its schema",
            )),
            _ if *state == SqlState::UNDEFINED_TABLE => Self::Unavailable(said(
                "tables of the ledger are missing: the user's search_path leads elsewhere, or somebody dropped them",
            )),
            _ if *state == SqlState::QUERY_CANCELED => {
                Self::Unavailable(said("the database took longer than ledger.statement_timeout_ms"))
            }
            _ => Self::Unavailable(said("the database refuses a statement")),
        }
    }
}

impl From<Failure> for LedgerError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(error) => error,
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// What broke, without the text of a value.
fn kind_of(error: &tokio_postgres::Error) -> &'static str {
    if error.is_closed() { "closed" } else { "it cannot be reached, or does not understand" }
}

/// The tries of one transaction.
#[derive(Debug)]
pub(crate) struct Attempts {
    began: Instant,
    pub count: u32,
}

/// How long a transaction is tried again: half of what Segment waits for an answer.
const PATIENCE: Duration = Duration::from_millis(2200);
/// Tries at least, however long each takes: every idle connection may be of before a restart of the database.
const LEAST: u32 = 2;
/// The first pause.
const PAUSE: Duration = Duration::from_millis(4);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

impl Default for Attempts {
    fn default() -> Self {
        Self { began: Instant::now(), count: 0 }
    }
}

impl Attempts {
    /// Whether to try again after this failure: waits until it is time.
    pub async fn again(&mut self, failure: &Failure) -> bool {
        let may_help = matches!(failure, Failure::Again(_) | Failure::Lost(_));
        self.count += 1;
        if !may_help || (self.count >= LEAST && self.began.elapsed() > PATIENCE) {
            return false;
        }
        if self.count > 1 {
            let most = (PAUSE * 2_u32.pow(self.count.min(8))).min(LONGEST_PAUSE);
            let share = rand::rng().random_range(0.5..1.0);
            tokio::time::sleep(most.mul_f64(share)).await;
        }
        true
    }
}
