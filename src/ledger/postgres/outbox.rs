//! The ledger as the courier of a destination sees it: only the replica that owns the destination has anything to
//! deliver.

mod claiming;
mod reporting;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_postgres::types::{ToSql, Type};
use tracing::warn;

use crate::clock::since_boot;
use crate::ledger::postgres::calls;
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::members::Changes;
use crate::ledger::postgres::pool::{Tx, transact};
use crate::ledger::postgres::rows::{Stored, damaged, text};
use crate::ledger::postgres::shared::Handle;
use crate::ledger::{Backlog, Batch, Claim, LedgerError, Outbox, Report};
use crate::membership::{AudienceId, ContextKey, DestinationName, Timestamp};

/// Members read at a time, of those that wait.
const PAGE: i64 = 1024;
/// How often it is seen whether a lease is over, at least.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The members of one destination that wait.
#[derive(Debug)]
pub(crate) struct SharedOutbox {
    shared: Handle,
    name: DestinationName,
    /// For a destination that is not known.
    silent: watch::Sender<()>,
}

/// A claim that was made.
struct Made {
    batch: Batch,
    place: i32,
    /// The members of the batch.
    rows: Vec<Stored>,
    call: i64,
    changes: Changes,
}

impl SharedOutbox {
    pub fn new(shared: Handle, name: DestinationName) -> Self {
        Self { shared, name, silent: watch::Sender::new(()) }
    }

    /// Who is in a call, by the number of the audience; and who is in one of an audience that was erased.
    fn claimed(&self) -> HashMap<i32, i64> {
        let mut claimed = HashMap::new();
        if let Some(of) = self.shared.known().get(&self.name) {
            for (_, one) in of.claims.all() {
                *claimed.entry(one.row.audience_no).or_default() += 1;
            }
        }
        claimed
    }

    /// Who is in a call of an audience.
    fn claimed_of(&self, audience: &AudienceId) -> HashSet<ContextKey> {
        let known = self.shared.known();
        let all = known.get(&self.name).into_iter().flat_map(|of| of.claims.all());
        all.filter(|(id, _)| *id == audience)
            .map(|(_, claimed)| claimed.row.context_key.clone())
            .collect()
    }

    /// Notes whether a claim may be in the database of which nobody here knows; whether there was one before.
    fn doubt(&self, is_in_doubt: bool) -> bool {
        let mut known = self.shared.known();
        let of = known.get_mut(&self.name);
        of.is_some_and(|of| std::mem::replace(&mut of.is_claim_in_doubt, is_in_doubt))
    }

    /// Whether somebody is in a call of the present reign.
    fn is_claimed(&self, audience: &AudienceId, key: &ContextKey) -> bool {
        self.shared.known().get(&self.name).is_some_and(|of| of.claims.contains(audience, key))
    }

    async fn read_backlog(&self, tx: &Tx, no: i32) -> Result<Vec<Backlog>, Failure> {
        let claimed = self.claimed();
        let numbers: Vec<i32> = claimed.keys().copied().collect();
        let counts: Vec<i64> = claimed.values().copied().collect();
        let (fronts_of, fronts) = self.shared.fronts.all();
        // Those in calls are the longest pending: whoever waits longest comes behind them. Fronts are in the order of their
        // numbers, and found by halves.
        let sql = "SELECT a.no, a.audience_id, a.acknowledged, w.pending, o.since, a.is_held FROM audience a
             LEFT JOIN unnest($2, $3) AS c(no, claimed) ON c.no = a.no
             CROSS JOIN LATERAL (SELECT a.pending + coalesce(sum(pending), 0)::int8 - coalesce(c.claimed, 0) AS pending
                 FROM change WHERE audience_no = a.no) w
             CROSS JOIN LATERAL (SELECT coalesce(
                 (SELECT p.since FROM pending p WHERE p.audience_no = a.no AND p.since >= coalesce(
                         CASE WHEN ($4)[width_bucket(a.no, $4)] = a.no THEN ($5)[width_bucket(a.no, $4)] END, a.front, $6)
                     ORDER BY p.since OFFSET coalesce(c.claimed, 0) LIMIT 1),
                 (SELECT max(since) FROM pending WHERE audience_no = a.no)) AS since) o
             WHERE a.destination_no = $1 AND NOT a.is_erased AND w.pending > 0 AND o.since IS NOT NULL";
        let params: [(&(dyn ToSql + Sync), Type); 6] = [
            (&no, Type::INT4),
            (&numbers, Type::INT4_ARRAY),
            (&counts, Type::INT8_ARRAY),
            (&fronts_of, Type::INT4_ARRAY),
            (&fronts, Type::INT8_ARRAY),
            (&i64::MIN, Type::INT8),
        ];
        let (now, here) = (self.shared.stamps.arrival(), Instant::now());
        let mut backlog = Vec::new();
        let mut numbers = Vec::new();
        for row in tx.query(sql, &params).await? {
            let (pending, since): (i64, i64) = (row.try_get(3)?, row.try_get(4)?);
            let audience = text(row.try_get(1)?).and_then(|id| AudienceId::new(&id));
            let audience = audience.ok_or_else(damaged)?;
            let (pending, since) = if row.try_get(5)? {
                self.who_passes(tx, row.try_get(0)?, &audience, since).await?
            } else {
                (pending, since)
            };
            let waited = now.since(Timestamp(since));
            backlog.push(Backlog {
                audience,
                waiting: pending.unsigned_abs(),
                waiting_since: here.checked_sub(waited).unwrap_or(here),
                acknowledged: row.try_get(2)?,
            });
            numbers.push(row.try_get::<_, i32>(0)?);
        }
        self.without_those_in_calls_of_before(tx, &mut backlog, &numbers).await?;
        Ok(backlog)
    }

    /// Of those who wait in an audience that is held, and are told all the same: how many, and since when.
    async fn who_passes(
        &self,
        tx: &Tx,
        no: i32,
        audience: &AudienceId,
        since: i64,
    ) -> Result<(i64, i64), Failure> {
        let sql = "SELECT since, context_key FROM pending WHERE audience_no = $1 AND passes_guard
             ORDER BY since LIMIT $2";
        let (mut count, mut first) = (0, None);
        for row in tx.query(sql, &[(&no, Type::INT4), (&PAGE, Type::INT8)]).await? {
            let key =
                text(row.try_get(1)?).and_then(|key| ContextKey::new(&key)).ok_or_else(damaged)?;
            if !self.is_claimed(audience, &key) {
                count += 1;
                first = first.or(Some(row.try_get(0)?));
            }
        }
        Ok((count, first.unwrap_or(since)))
    }

    /// Whoever waits in an audience that was erased and has come again may still be in a call of before.
    async fn without_those_in_calls_of_before(
        &self,
        tx: &Tx,
        backlog: &mut Vec<Backlog>,
        numbers: &[i32],
    ) -> Result<(), Failure> {
        for (of, no) in backlog.iter_mut().zip(numbers) {
            let keys: Vec<Vec<u8>> = {
                let known = self.shared.known();
                let all = known.get(&self.name).into_iter().flat_map(|of| of.claims.all());
                let others = all
                    .filter(|(id, claimed)| **id == of.audience && claimed.row.audience_no != *no);
                others.map(|(_, claimed)| claimed.row.context_key.as_str().into()).collect()
            };
            if keys.is_empty() {
                continue;
            }
            let sql = "SELECT count(*) FROM member
                 WHERE audience_no = $1 AND context_key = ANY($2) AND pending_since IS NOT NULL";
            let row = tx.first(sql, &[(no, Type::INT4), (&keys, Type::BYTEA_ARRAY)]).await?;
            let called: i64 = row.map_or(Ok(0), |row| row.try_get(0))?;
            of.waiting = of.waiting.saturating_sub(called.unsigned_abs());
        }
        backlog.retain(|of| of.waiting > 0);
        Ok(())
    }
}

#[async_trait]
impl Outbox for SharedOutbox {
    async fn backlog(&self) -> Result<Vec<Backlog>, LedgerError> {
        let (no, _) = self.shared.destination(&self.name)?;
        if self.shared.token(&self.name).is_none() {
            return Ok(Vec::new());
        }
        Ok(transact!(self.shared.pool, |tx, _attempt| self.read_backlog(&tx, no))?)
    }

    fn news(&self) -> watch::Receiver<()> {
        let known = self.shared.known();
        known.get(&self.name).map_or_else(|| self.silent.subscribe(), |of| of.news.subscribe())
    }

    fn paused_since(&self) -> Option<Timestamp> {
        self.shared.known().get(&self.name)?.paused_since
    }

    async fn claim(&self, claim: Claim) -> Result<Option<Batch>, LedgerError> {
        self.shared.destination(&self.name)?;
        let Some(token) = self.shared.token(&self.name) else { return Ok(None) };
        let is_in_doubt = self.doubt(true);
        let made = transact!(self.shared.pool, |tx, attempt| self.make(
            &tx,
            is_in_doubt || attempt > 0,
            &claim,
            token
        ));
        let made = match made {
            Err(Failure::Stale) => {
                self.shared.is_stale(&self.name, token);
                None
            }
            made => made?,
        };
        self.doubt(false);
        let Some(Made { batch, place, rows, call, changes }) = made else { return Ok(None) };
        let audience = batch.route.audience.clone();
        {
            let mut known = self.shared.known();
            let of = known.get_mut(&self.name).filter(|of| of.lease.token() == Some(token));
            let Some(of) = of else { return Ok(None) }; // the next owner has found the claim
            of.claims.add(&audience, rows, call, token);
        }
        self.shared.count(&self.name, &changes, &HashMap::from([(place, audience)]));
        Ok(Some(batch))
    }

    async fn report(&self, report: Report) -> Result<(), LedgerError> {
        let (no, _) = self.shared.destination(&self.name)?;
        // Whether the lease has run out meanwhile does not matter, as long as nobody else has taken it.
        let Some(token) = report.batches().first().map(|batch| batch.token) else { return Ok(()) };
        let done =
            transact!(self.shared.pool, |tx, attempt| self.apply(&tx, attempt, &report, token));
        let reported = match done {
            Err(Failure::Stale) => {
                self.shared.is_stale(&self.name, token);
                return self.tell_the_owner(no, &report).await;
            }
            done => done?,
        };
        self.end_claims(&report);
        self.shared.tell_once_more(&self.name, token, reported.again);
        self.shared.count(&self.name, &reported.changes, &reported.audiences);
        self.shared.wake(&self.name);
        Ok(())
    }

    fn may_call(&self, batch: &Batch) -> bool {
        let known = self.shared.known();
        known.get(&self.name).is_some_and(|of| of.lease.may_call(batch.token, since_boot()))
    }

    async fn until_over(&self, batch: &Batch) {
        loop {
            let left = {
                let known = self.shared.known();
                let of = known.get(&self.name);
                of.map_or(Duration::ZERO, |of| of.lease.left(batch.token, since_boot()))
            };
            if left.is_zero() {
                return;
            }
            // The lease may have been renewed, or lost, by then. Timers stand still in a machine that is suspended.
            tokio::time::sleep(left.min(LOOK_EVERY)).await;
        }
    }
}

impl SharedOutbox {
    /// A call of an earlier reign came back: the present owner cannot know when it was applied.
    async fn tell_the_owner(&self, no: i32, report: &Report) -> Result<(), LedgerError> {
        let Some(batch) = report.called() else { return Ok(()) };
        let is_known =
            transact!(self.shared.pool, |tx, _attempt| calls::ended_late(&tx, no, batch))?;
        if !is_known {
            return Ok(()); // the audience was erased
        }
        let said = {
            let mut known = self.shared.known();
            known.get_mut(&self.name).and_then(|of| of.late.more(batch.members.len() as u64))
        };
        if let Some(members) = said {
            warn!(
                destination.name = %self.name,
                members,
                "calls ended after another replica had taken over: it tells their members once more. This process \
                 could not reach the database meanwhile, or stood still: see that it gets processor time"
            );
        }
        Ok(())
    }
}

/// The outbox of a destination.
pub(crate) fn of(shared: &Handle, name: &DestinationName) -> Arc<dyn Outbox> {
    Arc::new(SharedOutbox::new(Arc::clone(shared), name.clone()))
}
