//! Reports: what became of claimed members.

use std::collections::{BTreeSet, HashMap};

use tokio_postgres::types::Type;

use crate::ledger::member::{self, Member, Moment, Next};
use crate::ledger::postgres::changes;
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::locks::{Lock, holds};
use crate::ledger::postgres::members::{Changes, MemberKey, Members};
use crate::ledger::postgres::outbox::SharedOutbox;
use crate::ledger::postgres::places::Place;
use crate::ledger::postgres::pool::Tx;
use crate::ledger::postgres::rows::Stored;
use crate::ledger::{ClaimedMember, Report};
use crate::membership::{AudienceId, ContextKey, Timestamp};

/// What a report has changed.
#[derive(Default)]
pub(super) struct Reported {
    pub changes: Changes,
    pub audiences: HashMap<i32, AudienceId>,
    /// Who is to be told once more.
    pub again: Vec<MemberKey>,
}

impl Reported {
    /// Puts a member through the rule of a report.
    fn rule(
        &mut self,
        report: &Report,
        members: &mut Members,
        (key, claimed): (&MemberKey, &ClaimedMember),
        before: Option<&Member>,
        (moment, half): (&Moment, Timestamp),
    ) -> Next {
        match report {
            Report::Settle(_) => {
                let (next, again) = member::settle(before, claimed, moment);
                if before.is_some_and(|before| before.parked_at.is_some()) {
                    members.unsay(key);
                }
                if again {
                    members.tell_once_more(key);
                    self.again.push(key.clone());
                }
                next
            }
            Report::Release(_, unheard) => member::release(before, *unheard, moment),
            Report::Park(_, reason) => {
                let (next, is_parked) = member::park(before, claimed, moment);
                if is_parked {
                    members.say(key, moment.stamp, reason);
                }
                next
            }
            Report::Split(_) => before.map_or(Next::Same, |before| member::split(before, half)),
            Report::Unpark(_) => {
                before.map_or(Next::Same, |before| member::requeue(before, moment))
            }
        }
    }
}

impl SharedOutbox {
    pub(super) async fn apply(
        &self,
        tx: &Tx,
        attempt: u32,
        report: &Report,
        token: i64,
    ) -> Result<Reported, Failure> {
        let (no, settings) = self.shared.destination(&self.name)?;
        Lock::at(attempt).hold(tx, no).await?;
        holds(tx, no, token).await?;
        let mut reported = Reported::default();
        let mut members = Members::default();
        // Most are what they were when they were claimed, and a settle writes each of them: its update tells.
        let is_settled = matches!(report, Report::Settle(_));
        let untouched = &self.shared.untouched;
        let is_guessed = is_settled && attempt == 0 && untouched.is_likely(no);
        for batch in report.batches() {
            let audience = &batch.route.audience;
            let Some(place) = Place::one(tx, &self.name, no, audience).await? else { continue };
            // A report of a process before this one, or a second one, says nothing.
            let is_claimed = |key: &ContextKey| match report {
                Report::Split(_) | Report::Unpark(_) => true,
                _ => self.is_claimed(audience, key),
            };
            let claimed: Vec<&ClaimedMember> =
                batch.members.iter().filter(|of| is_claimed(&of.context_key)).collect();
            let keys: BTreeSet<MemberKey> =
                claimed.iter().map(|of| (place.no, of.context_key.clone())).collect();
            let rows = if is_settled { self.rows_of(audience, &keys) } else { Vec::new() };
            if is_guessed {
                for row in rows {
                    members.add(row);
                }
                members.load(tx, keys).await?;
            } else {
                members.load(tx, keys).await?;
                if !rows.is_empty() {
                    untouched.note(no, rows.iter().all(|row| members.holds(row)), false);
                }
            }
            let half = self.shared.stamps.fresh();
            for of in &claimed {
                let key = (place.no, of.context_key.clone());
                let moment = place.moment(&self.shared, &settings);
                let before = members.get(&key).cloned();
                let next = reported.rule(
                    report,
                    &mut members,
                    (&key, of),
                    before.as_ref(),
                    (&moment, half),
                );
                members.put(&key, next);
            }
            if is_settled && !place.acknowledged && !claimed.is_empty() {
                let sql = "UPDATE audience SET acknowledged = true WHERE no = $1";
                tx.execute(sql, &[(&place.no, Type::INT4)]).await?;
            }
            reported.audiences.insert(place.no, audience.clone());
        }
        let flushed = members.flush(tx).await;
        if is_guessed && matches!(flushed, Ok(_) | Err(Failure::Again(_))) {
            untouched.note(no, flushed.is_ok(), true);
        }
        reported.changes = flushed?;
        changes::write_any(&self.shared, tx, no, &reported.changes).await?;
        let over = self.calls_over(report);
        if !over.is_empty() {
            let sql = "DELETE FROM call_out WHERE id = ANY($1)";
            tx.execute(sql, &[(&over, Type::INT8_ARRAY)]).await?;
        }
        Ok(reported)
    }

    /// What the claimed of an audience were when their calls were made.
    fn rows_of(&self, audience: &AudienceId, keys: &BTreeSet<MemberKey>) -> Vec<Stored> {
        let known = self.shared.known();
        let Some(of) = known.get(&self.name) else { return Vec::new() };
        let rows = keys.iter().filter_map(|(no, key)| {
            let row = &of.claims.of(audience, key)?.row;
            (row.audience_no == *no).then(|| row.clone())
        });
        rows.collect()
    }

    /// The calls that are over with a report.
    fn calls_over(&self, report: &Report) -> Vec<i64> {
        let (Report::Settle(batch) | Report::Release(batch, _) | Report::Park(batch, _)) = report
        else {
            return Vec::new();
        };
        let known = self.shared.known();
        let Some(of) = known.get(&self.name) else { return Vec::new() };
        let keys = batch.members.iter().map(|of| &of.context_key);
        of.claims.over_with(&batch.route.audience, keys)
    }

    /// A report was applied: its claims are over.
    pub(super) fn end_claims(&self, report: &Report) {
        let (Report::Settle(batch) | Report::Release(batch, _) | Report::Park(batch, _)) = report
        else {
            return;
        };
        if let Some(of) = self.shared.known().get_mut(&self.name) {
            for member in &batch.members {
                of.claims.remove(&batch.route.audience, &member.context_key, batch.token);
            }
        }
    }
}
