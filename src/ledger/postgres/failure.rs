//! What can go wrong with a statement, by what is done next. PostgreSQL's own words may quote rows, so only its
//! SQLSTATE goes any further ([P8](crate::design::P8)).

use std::error::Error;
use std::io;
use std::iter;
use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use crate::certificate;
use crate::ledger::LedgerError;
use crate::ledger::postgres::address::DatabaseAddress;

/// What is wrong, and what to do, if the user may not make or change the tables.
pub(crate) const LACKS_RIGHTS: &str = "the user of the database lacks rights: let it own the schema that its search_path \
     begins with (CREATE SCHEMA cohortd AUTHORIZATION cohortd)";

/// Why a transaction was not committed, or may not have been.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Another transaction was in the way: the same again.
    #[error(
        "other transactions are in the way ({0}): if that lasts, see pg_stat_activity for one that keeps its locks, such \
         as VACUUM FULL"
    )]
    Again(String),
    /// A statement waited for a lock for longer than its limit: the same again.
    #[error(
        "the database answers, but a statement waited too long for a lock ({0}): another session keeps a table or rows \
         locked, as VACUUM FULL or a migration does; pg_locks and pg_blocking_pids() say which, see there whether it may \
         be ended"
    )]
    Locked(String),
    /// The connection is gone, or does not reach a server that takes writes: the same again on a new one.
    #[error("{0}")]
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

    /// For whoever cannot wait for it to be done again: a lock that is kept by others is said at once.
    pub fn at_once(self) -> Self {
        match self {
            Self::Locked(_) => Self::Unavailable(self.to_string()),
            other => other,
        }
    }

    /// The connection is gone.
    pub fn lost(how: &str) -> Self {
        Self::Lost(format!("the connection to the database is lost ({how})"))
    }

    /// No connection is to be had there.
    pub fn unreached(address: &DatabaseAddress, why: &str) -> Self {
        Self::Lost(format!("{address} cannot be reached: {why}"))
    }

    /// What became of an attempt to connect.
    pub fn of_connecting(address: &DatabaseAddress, error: tokio_postgres::Error) -> Self {
        if error.code().is_some() {
            return Self::from(error);
        }
        if let Some(words) = certificate::words(&error, "sslrootcert in ledger.url") {
            return Self::Unavailable(format!("{address}: {words}"));
        }
        let cause = iter::successors(error.source(), |error| (*error).source()).last();
        if address.config.get_password().is_none() && is_about_a_password(cause) {
            return Self::Unavailable(format!(
                "{address} asks for a password: ledger.url has none"
            ));
        }
        if is_refused_by_tls(&error) {
            return Self::Unavailable(format!(
                "{address} does not accept the certificate of this side: sslcert in ledger.url has to be signed by a CA \
                 that the server trusts (ssl_ca_file), and to be valid"
            ));
        }
        let io = cause.and_then(|cause| cause.downcast_ref::<io::Error>());
        match io.map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => {
                Self::unreached(address, "nobody listens there")
            }
            Some(io::ErrorKind::NotFound) => Self::unreached(address, "there is no such socket"),
            Some(io::ErrorKind::TimedOut) => Self::unreached(address, "it does not answer"),
            // The client's own words for a standby.
            Some(io::ErrorKind::PermissionDenied) => Self::Lost(format!(
                "{address} takes no writes: it is a standby, or was set read-only"
            )),
            Some(io::ErrorKind::UnexpectedEof) => Self::unreached(address, "it hung up"),
            Some(_) => Self::unreached(address, &io.map(ToString::to_string).unwrap_or_default()),
            // The client's own words: of what it was asked to do, not of any row.
            None => Self::unreached(
                address,
                &cause.map_or_else(|| error.to_string(), ToString::to_string),
            ),
        }
    }
}

/// The client's words for a password that it was asked for and has not got.
fn is_about_a_password(cause: Option<&(dyn Error + 'static)>) -> bool {
    cause.is_some_and(|cause| cause.to_string() == "password missing")
}

/// Whether the server has ended the handshake of TLS.
fn is_refused_by_tls(error: &tokio_postgres::Error) -> bool {
    let mut causes = iter::successors(error.source(), |error| (*error).source());
    causes.any(|cause| {
        let inside = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let inside = inside.and_then(|inside| inside.downcast_ref::<rustls::Error>());
        let of_tls = inside.or_else(|| cause.downcast_ref());
        matches!(of_tls, Some(rustls::Error::AlertReceived(_)))
    })
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(state) = error.code() else {
            return Self::lost(if error.is_closed() { "closed" } else { "broken" });
        };
        let code = state.code();
        let said = |what: &str| format!("{what} (SQLSTATE {code})");
        let again = [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED];
        let lost = [
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
            SqlState::INVALID_SQL_STATEMENT_NAME,
            SqlState::DUPLICATE_PSTATEMENT,
            SqlState::IN_FAILED_SQL_TRANSACTION,
        ];
        match state {
            _ if again.contains(state) => Self::Again(format!("SQLSTATE {code}")),
            _ if *state == SqlState::LOCK_NOT_AVAILABLE => Self::Locked(format!("SQLSTATE {code}")),
            _ if *state == SqlState::READ_ONLY_SQL_TRANSACTION => Self::Lost(said(
                "the database takes no writes: it is a standby, or was set read-only",
            )),
            _ if *state == SqlState::TOO_MANY_CONNECTIONS => Self::Lost(said(
                "the database has no connection left: raise its max_connections, or lower ledger.connections",
            )),
            _ if lost.contains(state) || code.starts_with("08") => Self::lost(code),
            _ if code.starts_with("53") => {
                Self::Unavailable(said("the database has no room: give it disk or memory"))
            }
            _ if *state == SqlState::INVALID_PASSWORD => Self::Unavailable(said(
                "the database refuses the user or the password: see ledger.url",
            )),
            _ if code.starts_with("28") => Self::Unavailable(said(
                "the database does not let this user in from here: see ledger.url, and pg_hba.conf on the server, which \
                 may want another user or address, encryption, or a client certificate (sslcert and sslkey in ledger.url)",
            )),
            _ if *state == SqlState::UNDEFINED_DATABASE => {
                Self::Unavailable(said("there is no such database: create it, or see ledger.url"))
            }
            _ if *state == SqlState::INSUFFICIENT_PRIVILEGE
                || *state == SqlState::INVALID_SCHEMA_NAME =>
            {
                Self::Unavailable(said(LACKS_RIGHTS))
            }
            _ if *state == SqlState::UNDEFINED_TABLE => Self::Unavailable(said(
                "tables of the ledger are missing: the user's search_path leads elsewhere, or somebody dropped them",
            )),
            _ if *state == SqlState::QUERY_CANCELED => Self::Unavailable(said(
                "the database took longer than ledger.statement_timeout_ms for a statement, or somebody has cancelled it",
            )),
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
        let may_help = matches!(failure, Failure::Again(_) | Failure::Locked(_) | Failure::Lost(_));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_transaction_is_tried_again_at_once_and_then_with_pauses_for_as_long_as_the_sender_waits()
     {
        let began = Instant::now();
        let mut attempts = Attempts::default();
        let mut tried_at = vec![Duration::ZERO];
        while attempts.again(&Failure::lost("closed")).await && tried_at.len() < 1000 {
            tried_at.push(began.elapsed());
        }
        assert_eq!(
            tried_at[1],
            Duration::ZERO,
            "a connection that was idle for long tells nothing"
        );
        assert!(tried_at.windows(2).skip(1).all(|of| of[0] < of[1]), "{tried_at:?}");
        assert!((10..40).contains(&tried_at.len()), "{} tries", tried_at.len());
        let last = *tried_at.last().expect("there is one");
        assert!(last > PATIENCE / 2 && last <= PATIENCE + LONGEST_PAUSE, "{last:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_cannot_help_with_is_not_tried_again() {
        for failure in [Failure::Unavailable("it is full".to_owned()), Failure::Stale] {
            assert!(!Attempts::default().again(&failure).await, "{failure}");
        }
    }
}
