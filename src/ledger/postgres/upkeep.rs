//! What the owner of a destination does beside deliveries, a slice at a time: counts are folded, members are told once
//! more, entries expire, and what is spent, too old or too much goes.

use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;
use tokio_postgres::types::{ToSql, Type};

use crate::ledger::DestinationSettings;
use crate::ledger::intake::MESSAGE_KEPT;
use crate::ledger::member::{self, Next};
use crate::ledger::postgres::calls;
use crate::ledger::postgres::changes;
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::locks::{Lock, holds};
use crate::ledger::postgres::members::{Changes, MemberKey, Members};
use crate::ledger::postgres::places::Place;
use crate::ledger::postgres::pool::{Tx, transact};
use crate::ledger::postgres::rows::{COLUMNS, Stored, damaged, text};
use crate::ledger::postgres::shared::Shared;
use crate::ledger::postgres::walks;
use crate::membership::{AudienceId, ContextKey, DestinationName};

/// Rows that a sweep looks at in one transaction.
const SLICE: i64 = 2_000;
/// Rows of an erased audience that go in one transaction.
const ERASED: i64 = 5_000;

/// A destination that this process owns, for one piece of work.
#[derive(Clone, Copy)]
struct Owned<'a> {
    shared: &'a Shared,
    name: &'a DestinationName,
    no: i32,
    token: i64,
    settings: &'a DestinationSettings,
}

/// What a transaction has changed, to be counted once it is committed.
type Counted = (Changes, HashMap<i32, AudienceId>);

/// What is due at once: folds the counts, tells members once more, and advances walks.
pub(crate) async fn often(shared: &Shared) -> Result<(), Failure> {
    for (name, no, token, settings) in owned(shared) {
        let of = Owned { shared, name: &name, no, token, settings: &settings };
        of.unless_lost(of.often().await)?;
    }
    Ok(())
}

/// What may take its time: entries expire, and what is spent, too old or too much goes. `place` is how far each
/// destination was swept.
pub(crate) async fn seldom(
    shared: &Shared,
    place: &mut HashMap<i32, MemberKeyBytes>,
) -> Result<(), Failure> {
    for (name, no, token, settings) in owned(shared) {
        let of = Owned { shared, name: &name, no, token, settings: &settings };
        let at = place.remove(&no);
        let next = of.unless_lost(of.seldom(at).await)?;
        place.extend(next.flatten().map(|next| (no, next)));
    }
    transact!(shared.pool, |tx, _attempt| bound_rejected(shared, &tx))
}

/// The number of an audience, and the last context key that was looked at.
pub(crate) type MemberKeyBytes = (i32, Vec<u8>);

fn owned(shared: &Shared) -> Vec<(DestinationName, i32, i64, DestinationSettings)> {
    let names: Vec<DestinationName> = shared.known().keys().cloned().collect();
    let all = names.into_iter().filter_map(|name| {
        let token = shared.token(&name)?;
        let (no, settings) = shared.destination(&name).ok()?;
        Some((name, no, token, settings))
    });
    all.collect()
}

impl Owned<'_> {
    /// A destination that was lost meanwhile is the next owner's, and keeps nobody from looking after the others.
    fn unless_lost<T>(&self, done: Result<T, Failure>) -> Result<Option<T>, Failure> {
        if let Err(Failure::Stale) = done {
            self.shared.is_stale(self.name, self.token);
            return Ok(None);
        }
        done.map(Some)
    }

    async fn often(&self) -> Result<(), Failure> {
        if transact!(self.shared.pool, |tx, _attempt| self.fold(&tx))? {
            self.take_in_late_calls().await?;
        }
        self.reassert_due().await?;
        if walks::step(self.shared, self.name, self.token).await? {
            self.shared.wake(self.name);
        }
        Ok(())
    }

    async fn seldom(&self, at: Option<MemberKeyBytes>) -> Result<Option<MemberKeyBytes>, Failure> {
        let next = self.sweep(at).await?;
        transact!(self.shared.pool, |tx, _attempt| self.forget_the_old(&tx))?;
        self.bound_parked().await?;
        transact!(self.shared.pool, |tx, _attempt| self.free_places(&tx))?;
        transact!(self.shared.pool, |tx, _attempt| self.empty_erased(&tx))?;
        Ok(next)
    }

    async fn hold(&self, tx: &Tx, lock: Lock) -> Result<(), Failure> {
        lock.hold(tx, self.no).await?;
        holds(tx, self.no, self.token).await
    }

    /// Folds the counts; whether calls of owners before have ended late.
    async fn fold(&self, tx: &Tx) -> Result<bool, Failure> {
        self.hold(tx, Lock::Shared).await?;
        changes::fold(self.shared, tx, self.no).await?;
        calls::is_any_late(tx, self.no).await
    }

    async fn take_in_late_calls(&self) -> Result<(), Failure> {
        let work = async |tx: &Tx, attempt: u32| {
            self.hold(tx, Lock::at(attempt)).await?;
            calls::late(self.shared, tx, self.no).await
        };
        let (_, again) = transact!(self.shared.pool, |tx, attempt| work(&tx, attempt))?;
        self.shared.tell_once_more(self.name, self.token, again);
        Ok(())
    }

    fn count(&self, (changes, audiences): &Counted) {
        self.shared.count(self.name, changes, audiences);
        if !changes.is_empty() {
            self.shared.wake(self.name);
        }
    }

    /// Who is to be told once more by now waits, or is told once more after the call that is out.
    async fn reassert_due(&self) -> Result<(), Failure> {
        let now = Instant::now();
        let due: BTreeSet<MemberKey> = {
            let known = self.shared.known();
            let all = known.get(self.name).into_iter().flat_map(|of| &of.reassertions);
            all.filter(|(at, _)| *at <= now).map(|(_, key)| key.clone()).collect()
        };
        if due.is_empty() {
            return Ok(());
        }
        let counted = transact!(self.shared.pool, |tx, attempt| self.reassert(&tx, attempt, &due))?;
        if let Some(of) = self.shared.known().get_mut(self.name) {
            of.reassertions.retain(|(at, _)| *at > now);
        }
        self.count(&counted);
        Ok(())
    }

    async fn reassert(
        &self,
        tx: &Tx,
        attempt: u32,
        due: &BTreeSet<MemberKey>,
    ) -> Result<Counted, Failure> {
        self.hold(tx, Lock::at(attempt)).await?;
        let places = Place::all(tx, self.name, self.no).await?;
        let places: HashMap<i32, Place> =
            places.into_iter().map(|place| (place.no, place)).collect();
        let mut members = Members::default();
        members.load(tx, due.clone()).await?;
        for key in due {
            let (Some(place), Some(before)) = (places.get(&key.0), members.get(key)) else {
                continue;
            };
            let is_called = {
                let known = self.shared.known();
                known
                    .get(self.name)
                    .is_some_and(|of| of.claims.contains(&place.route.audience, &key.1))
            };
            let moment = place.moment(self.shared, self.settings);
            let next = member::reassert_after_silence(before, is_called, &moment);
            members.put(key, next);
        }
        let audiences: Vec<i32> = due.iter().map(|key| key.0).collect();
        let keys: Vec<&[u8]> = due.iter().map(|key| key.1.as_str().as_bytes()).collect();
        let sql = "DELETE FROM reassertion r USING unnest($1, $2) AS i(audience_no, context_key)
             WHERE r.audience_no = i.audience_no AND r.context_key = i.context_key";
        tx.execute(sql, &[(&audiences, Type::INT4_ARRAY), (&keys, Type::BYTEA_ARRAY)]).await?;
        self.end(tx, members, places.values()).await
    }

    /// Writes members, and says what is to be counted.
    async fn end<'p>(
        &self,
        tx: &Tx,
        mut members: Members,
        places: impl Iterator<Item = &'p Place>,
    ) -> Result<Counted, Failure> {
        let changes = members.flush(tx).await?;
        changes::write_any(self.shared, tx, self.no, &changes).await?;
        Ok((changes, places.map(|place| (place.no, place.route.audience.clone())).collect()))
    }

    /// Looks at the next slice of members: whose entries have expired leave, and who left long ago is forgotten.
    /// Returns where to go on; nowhere once everybody was looked at.
    async fn sweep(&self, at: Option<MemberKeyBytes>) -> Result<Option<MemberKeyBytes>, Failure> {
        let swept =
            transact!(self.shared.pool, |tx, attempt| self.sweep_slice(&tx, attempt, at.clone()))?;
        let Some((counted, next)) = swept else { return Ok(None) };
        self.count(&counted);
        Ok(next)
    }

    async fn sweep_slice(
        &self,
        tx: &Tx,
        attempt: u32,
        at: Option<MemberKeyBytes>,
    ) -> Result<Option<(Counted, Option<MemberKeyBytes>)>, Failure> {
        self.hold(tx, Lock::at(attempt)).await?;
        let (first, after) = at.unwrap_or_default();
        let mut places = Place::all(tx, self.name, self.no).await?;
        places.sort_by_key(|place| place.no);
        let mut places = places.into_iter().filter(|place| place.no >= first && place.members > 0);
        let Some(place) = places.next() else { return Ok(None) };
        let after = if place.no == first { after } else { Vec::new() };
        let sql = "SELECT context_key FROM member WHERE audience_no = $1 AND context_key > $2
             ORDER BY context_key OFFSET $3 LIMIT 1";
        let last = SLICE - 1;
        let params: [(&(dyn ToSql + Sync), Type); 3] =
            [(&place.no, Type::INT4), (&after, Type::BYTEA), (&last, Type::INT8)];
        let until: Option<Vec<u8>> =
            tx.first(sql, &params).await?.map(|row| row.try_get(0)).transpose()?;
        let now = self.shared.stamps.fresh();
        let (ttl, expires) = (
            self.shared.settings.tombstone_ttl,
            self.settings.expires_after.get(&place.route.audience_key),
        );
        let (told_by, entered_by) =
            (now.before(ttl).0, expires.map_or(i64::MIN, |after| now.before(*after).0));
        let sql = format!(
            "SELECT {COLUMNS} FROM member m WHERE m.audience_no = $1 AND m.context_key > $2
                 AND ($3::bytea IS NULL OR m.context_key <= $3)
                 AND (m.flags & 1 = 0 AND m.told_at <= $4 AND m.pending_since IS NULL AND m.parked_at IS NULL
                     OR m.flags & 1 = 1 AND m.event_at <= $5)
             ORDER BY m.context_key"
        );
        let params: [(&(dyn ToSql + Sync), Type); 5] = [
            (&place.no, Type::INT4),
            (&after, Type::BYTEA),
            (&until, Type::BYTEA),
            (&told_by, Type::INT8),
            (&entered_by, Type::INT8),
        ];
        let mut members = Members::default();
        for row in tx.query(&sql, &params).await? {
            let stored = Stored::of(&row, 0)?;
            let key = (stored.audience_no, stored.context_key.clone());
            members.add(stored);
            let Some(before) = members.get(&key) else { continue };
            let next = if before.is_spent_tombstone(now, ttl) {
                Next::Delete
            } else {
                member::expire(before, &place.moment(self.shared, self.settings))
            };
            members.put(&key, next);
        }
        let counted = self.end(tx, members, std::iter::once(&place)).await?;
        let next = match until {
            Some(until) => Some((place.no, until)),
            None => places.next().map(|next| (next.no, Vec::new())),
        };
        Ok(Some((counted, next)))
    }

    /// Messages that nobody posts again, and deletions that nobody is late for.
    async fn forget_the_old(&self, tx: &Tx) -> Result<(), Failure> {
        let now = self.shared.stamps.fresh();
        let (seen, deleted) =
            (now.before(MESSAGE_KEPT).0, now.before(self.shared.settings.tombstone_ttl).0);
        let sql = "DELETE FROM message WHERE destination_no = $1 AND seen_at <= $2";
        tx.execute(sql, &[(&self.no, Type::INT4), (&seen, Type::INT8)]).await?;
        let sql = "DELETE FROM deleted WHERE destination_no = $1 AND greatest(at, arrival) < $2";
        tx.execute(sql, &[(&self.no, Type::INT4), (&deleted, Type::INT8)]).await.map(|_| ())
    }

    /// Discards parked members that are too old or too many, the oldest first.
    async fn bound_parked(&self) -> Result<(), Failure> {
        let counted = transact!(self.shared.pool, |tx, attempt| self.discard_parked(&tx, attempt))?;
        self.count(&counted);
        Ok(())
    }

    async fn discard_parked(&self, tx: &Tx, attempt: u32) -> Result<Counted, Failure> {
        self.hold(tx, Lock::at(attempt)).await?;
        let kept = self.shared.settings.parked;
        let oldest = self.shared.stamps.fresh().before(kept.max_age).0;
        let (count, bytes) = (whole(kept.max_count), whole(kept.max_bytes));
        let sql = "SELECT p.audience_no, p.context_key FROM (
                 SELECT *, row_number() OVER newest AS count,
                     sum(length(context_key) + length(code) + length(message) + length(answer_id)) OVER newest AS bytes
                 FROM parked WINDOW newest AS (ORDER BY parked_at DESC, audience_no, context_key
                     ROWS UNBOUNDED PRECEDING)
             ) p JOIN audience a ON a.no = p.audience_no
             WHERE a.destination_no = $1 AND (p.parked_at < $2 OR p.count > $3 OR p.bytes > $4)";
        let params: [(&(dyn ToSql + Sync), Type); 4] = [
            (&self.no, Type::INT4),
            (&oldest, Type::INT8),
            (&count, Type::INT8),
            (&bytes, Type::INT8),
        ];
        let mut keys = BTreeSet::new();
        for row in tx.query(sql, &params).await? {
            let key = text(row.try_get(1)?).and_then(|key| ContextKey::new(&key));
            keys.insert((row.try_get::<_, i32>(0)?, key.ok_or_else(damaged)?));
        }
        let mut members = Members::default();
        members.load(tx, keys.clone()).await?;
        for key in &keys {
            members.unsay(key);
            if let Some(before) = members.get(key) {
                let next = member::discard(before);
                members.put(key, next);
            }
        }
        let places = Place::all(tx, self.name, self.no).await?;
        self.end(tx, members, places.iter()).await
    }

    /// An audience that nobody is in leaves its place, unless a call or a walk of it is under way.
    async fn free_places(&self, tx: &Tx) -> Result<(), Failure> {
        let sql = "SELECT 1 FROM audience WHERE destination_no = $1 AND members <= 0 LIMIT 1";
        if tx.first(sql, &[(&self.no, Type::INT4)]).await?.is_none() {
            return Ok(());
        }
        self.hold(tx, Lock::Exclusive).await?;
        changes::fold(self.shared, tx, self.no).await?;
        let sql = "DELETE FROM audience a WHERE a.destination_no = $1 AND a.members = 0
             AND (a.is_erased OR a.walk IS NULL)
             AND NOT EXISTS (SELECT 1 FROM call_out WHERE audience_no = a.no)
             AND NOT EXISTS (SELECT 1 FROM member WHERE audience_no = a.no)";
        tx.execute(sql, &[(&self.no, Type::INT4)]).await.map(|_| ())
    }

    /// Rows of audiences that were erased.
    async fn empty_erased(&self, tx: &Tx) -> Result<(), Failure> {
        let sql = "SELECT no FROM audience WHERE destination_no = $1 AND is_erased";
        for row in tx.query(sql, &[(&self.no, Type::INT4)]).await? {
            let no: i32 = row.try_get(0)?;
            for table in ["pending", "parked", "reassertion", "member"] {
                let sql = format!(
                    "DELETE FROM {table} t USING (SELECT ctid FROM {table} WHERE audience_no = $1 LIMIT $2) i
                     WHERE t.ctid = i.ctid"
                );
                tx.execute(&sql, &[(&no, Type::INT4), (&ERASED, Type::INT8)]).await?;
            }
            let sql = "UPDATE audience SET members = 0 WHERE no = $1
                 AND NOT EXISTS (SELECT 1 FROM member WHERE audience_no = $1)";
            tx.execute(sql, &[(&no, Type::INT4)]).await?;
        }
        Ok(())
    }
}

/// A destination that nobody configures goes with everything of it.
pub(crate) async fn empty_unknown(tx: &Tx, name: &DestinationName) -> Result<(), Failure> {
    let name = name.as_str();
    let sql = "SELECT no FROM destination WHERE name = $1";
    let Some(row) = tx.first(sql, &[(&name, Type::TEXT)]).await? else { return Ok(()) };
    let no: i32 = row.try_get(0)?;
    Lock::Exclusive.hold(tx, no).await?;
    for table in ["pending", "parked", "reassertion", "member", "change"] {
        let sql = format!(
            "DELETE FROM {table} t USING audience a WHERE a.destination_no = $1 AND t.audience_no = a.no"
        );
        tx.execute(&sql, &[(&no, Type::INT4)]).await?;
    }
    tx.execute("DELETE FROM destination WHERE no = $1", &[(&no, Type::INT4)]).await.map(|_| ())
}

/// Rejected events that are too old or too many go, the oldest first.
pub(crate) async fn bound_rejected(shared: &Shared, tx: &Tx) -> Result<(), Failure> {
    let kept = shared.settings.rejected;
    let oldest = shared.stamps.fresh().before(kept.max_age).0;
    let (count, bytes) = (whole(kept.max_count), whole(kept.max_bytes));
    let sql = "DELETE FROM rejected WHERE received_at < $1 OR id <= (
             SELECT max(id) FROM (
                 SELECT id, row_number() OVER newest AS count, sum(length(body)) OVER newest AS bytes
                 FROM rejected WHERE received_at >= $1 WINDOW newest AS (ORDER BY id DESC ROWS UNBOUNDED PRECEDING)
             ) r WHERE count > $2 OR bytes > $3)";
    let params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&oldest, Type::INT8), (&count, Type::INT8), (&bytes, Type::INT8)];
    tx.execute(sql, &params).await.map(|_| ())
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
