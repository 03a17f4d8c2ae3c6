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

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tracing::warn;

use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::pool::Pool;
use crate::ledger::postgres::session::Session;

/// How long a host may take until it has let somebody in and said what it is.
const ONE_HOST: Duration = Duration::from_secs(3);
/// How long the others are waited for once one takes writes.
const THE_OTHERS: Duration = Duration::from_millis(300);

impl Pool {
    /// A connection to the best of several hosts.
    pub(super) async fn connect_to_best(&self) -> Result<Session, Failure> {
        let hosts = self.address().hosts();
        let mut asked: FuturesUnordered<_> = hosts
            .iter()
            .enumerate()
            .map(async |(at, host)| {
                let opened = timeout(ONE_HOST, self.connect_to(host, true)).await;
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
        let latest = self.latest().fetch_max(session.timeline, Ordering::SeqCst);
        if session.timeline < latest {
            return Err(Failure::unreached(
                &hosts[at],
                "another server was promoted since, which does not answer: this one is left alone, because what it \
                 would confirm is not there",
            ));
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
        if self.address().hosts().len() > 1 {
            let _ = self.connect_to_best().await; // it has noted what it saw
        }
    }
}

/// The timeline of a server that takes writes; 0 for what speaks PostgreSQL's protocol but has none.
pub(super) async fn timeline(client: &Client) -> Result<u32, Failure> {
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
