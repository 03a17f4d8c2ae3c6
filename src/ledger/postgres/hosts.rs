//! Which host is used, of several that the URL names: the one that takes writes, and of those the one that was promoted
//! last.
//!
//! # What always holds
//! * All hosts are asked at once: one that takes connections and then says nothing keeps nobody from the next.
//! * A promotion begins a new timeline, with a larger number. From when this process has seen one, it uses no server of
//!   an earlier one: what an old primary would confirm, the new one would never have.
//! # What does not
//! A process that can reach the old primary only, and has never seen the new one, cannot know. Whoever promotes a standby
//! has to see to it that the old primary takes no writes any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tracing::warn;

use crate::ledger::postgres::address::DatabaseAddress;
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::session::Session;

/// How long a host may take until it has let somebody in and said what it is.
const ONE_HOST: Duration = Duration::from_secs(3);
/// How long the others are waited for once one takes writes.
const THE_OTHERS: Duration = Duration::from_millis(300);

/// The oldest version of PostgreSQL that is used.
const OLDEST_VERSION: i32 = 140_000;

/// The hosts of the database, and what is known of them.
#[derive(Clone, Debug)]
pub(crate) struct Hosts {
    address: DatabaseAddress,
    /// How long it may take to connect to the only one.
    limit: Duration,
    /// See [`Session`].
    keeps_statements: Arc<AtomicBool>,
    /// The latest timeline that was seen, of several hosts.
    latest: Arc<AtomicU32>,
}

impl Hosts {
    pub fn new(address: DatabaseAddress, limit: Duration) -> Self {
        let keeps_statements = Arc::new(AtomicBool::new(true));
        Self { address, limit, keeps_statements, latest: Arc::default() }
    }

    fn are_several(&self) -> bool {
        self.address.config.get_hosts().len() > 1
    }

    /// Whether a connection is to the primary that was promoted last, as far as is known.
    pub fn is_current(&self, session: &Session) -> bool {
        session.timeline >= self.latest.load(Ordering::SeqCst)
    }

    /// A new connection.
    pub async fn connect(&self) -> Result<Session, Failure> {
        if self.are_several() {
            return self.connect_to_best().await;
        }
        let opened = timeout(self.limit, self.connect_to(&self.address)).await;
        opened.unwrap_or_else(|_| Err(Failure::unreached(&self.address, "it does not answer")))
    }

    /// Connects to one host, and sees whether it is one that can be used.
    async fn connect_to(&self, host: &DatabaseAddress) -> Result<Session, Failure> {
        let mut session = Session::open(host, Arc::clone(&self.keeps_statements)).await?;
        let sql = "SELECT current_setting('server_version_num')::int4, current_setting('fsync')";
        let rows = session.client.query_typed(sql, &[]).await?;
        let row = rows.first().ok_or_else(|| Failure::lost("no answer"))?;
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
        if self.are_several() {
            session.timeline = timeline(&session.client).await?;
        }
        Ok(session)
    }

    /// A connection to the best of several hosts.
    async fn connect_to_best(&self) -> Result<Session, Failure> {
        let hosts = self.address.hosts();
        let mut asked: FuturesUnordered<_> = hosts
            .iter()
            .enumerate()
            .map(async |(at, host)| {
                let opened = timeout(ONE_HOST, self.connect_to(host)).await;
                let silent = || Err(Failure::unreached(host, "it does not answer"));
                (at, opened.unwrap_or_else(|_| silent()))
            })
            .collect();
        let mut best: Option<(usize, Session)> = None;
        let mut failures = Vec::new();
        let mut until = Instant::now() + ONE_HOST * 2;
        while let Ok(Some((at, opened))) = timeout_at(until, asked.next()).await {
            match opened {
                Err(failure) => failures.push((at, failure)),
                Ok(session) => {
                    until = until.min(Instant::now() + THE_OTHERS);
                    let is_better = best.as_ref().is_none_or(|(before, than)| {
                        (session.timeline, *before) > (than.timeline, at)
                    });
                    if is_better {
                        best = Some((at, session));
                    }
                }
            }
        }
        let Some((at, session)) = best else { return Err(none_of_them(failures)) };
        let latest = self.latest.fetch_max(session.timeline, Ordering::SeqCst);
        if session.timeline < latest {
            return Err(Failure::Lost(format!(
                "{} is left alone: another server was promoted since, which does not answer, and would not have what \
                 this one confirms",
                hosts[at]
            )));
        }
        if latest > 0 && session.timeline > latest {
            warn!(
                timeline = session.timeline,
                "another server of the database was promoted: it is used from now on"
            );
        }
        Ok(session)
    }

    /// Looks whether another host was promoted, while the one that is used may go on as if nothing were.
    pub async fn look_around(&self) {
        if self.are_several() {
            let _ = self.connect_to_best().await; // it has noted what it saw
        }
    }
}

/// The timeline of a server that takes writes; 0 for what speaks PostgreSQL's protocol but has none.
async fn timeline(client: &Client) -> Result<u32, Failure> {
    let sql = "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int4";
    let unknown = [SqlState::UNDEFINED_FUNCTION, SqlState::FEATURE_NOT_SUPPORTED];
    match client.query_typed(sql, &[]).await {
        Ok(rows) => {
            let number: i32 = rows.first().map_or(Ok(0), |row| row.try_get(0))?;
            Ok(number.unsigned_abs())
        }
        Err(error) if error.code().is_some_and(|code| unknown.contains(code)) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// What has to be done about it comes first: the others may be standbys, or away on purpose.
fn none_of_them(mut failures: Vec<(usize, Failure)>) -> Failure {
    failures.sort_by_key(|(at, _)| *at);
    let to_be_mended = failures.iter().position(|(_, of)| matches!(of, Failure::Unavailable(_)));
    if let Some(at) = to_be_mended {
        return failures.swap_remove(at).1;
    }
    let all: Vec<String> = failures.iter().map(|(_, of)| of.to_string()).collect();
    Failure::Lost(format!("no host takes writes: {}", all.join("; ")))
}
