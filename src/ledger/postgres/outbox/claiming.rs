//! Claims: who is told next, and that they may be in a call from now on.

use std::collections::BTreeSet;

use tokio_postgres::types::{ToSql, Type};

use crate::ledger::member;
use crate::ledger::picking::{Picked, Picking};
use crate::ledger::postgres::changes;
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::fronts::Reading;
use crate::ledger::postgres::locks::{Lock, holds};
use crate::ledger::postgres::members::{Changes, Members};
use crate::ledger::postgres::outbox::{Made, PAGE, SharedOutbox};
use crate::ledger::postgres::places::Place;
use crate::ledger::postgres::pool::Tx;
use crate::ledger::postgres::rows::{Stored, damaged, text};
use crate::ledger::{Batch, Claim, ClaimedMember, DestinationSettings, Room};
use crate::membership::{AudienceId, ContextKey};

/// Members of one audience, to be told.
struct Taken {
    place: Place,
    members: Vec<ClaimedMember>,
    /// Their rows, once what was written is committed.
    rows: Vec<Stored>,
    changes: Changes,
}

impl Taken {
    fn of(place: Place, members: Vec<ClaimedMember>, read: &Members, changes: Changes) -> Self {
        let rows = members.iter().filter_map(|of| read.stored(&(place.no, of.context_key.clone())));
        Self { rows: rows.collect(), place, members, changes }
    }
}

impl SharedOutbox {
    pub(super) async fn make(
        &self,
        tx: &Tx,
        is_in_doubt: bool,
        claim: &Claim,
        token: i64,
    ) -> Result<Option<Made>, Failure> {
        let (no, settings) = self.shared.destination(&self.name)?;
        let lock = if is_in_doubt { Lock::Exclusive } else { Lock::Shared };
        lock.hold(tx, no).await?; // which waits for a commit that is under way
        holds(tx, no, token).await?;
        if is_in_doubt {
            self.take_back_what_nobody_knows(tx, no, token).await?;
        }
        let claimed = match claim {
            Claim::Longest { audience, room } => self.longest(tx, no, audience, *room).await?,
            Claim::Again { route, context_key } => {
                self.again(tx, (no, &settings), &route.audience, context_key).await?
            }
            Claim::Told { after } => self.told(tx, (no, &settings), after.as_ref()).await?,
        };
        let Some(Taken { place, members, rows, changes }) = claimed else { return Ok(None) };
        changes::write_any(&self.shared, tx, no, &changes).await?;
        let keys: Vec<&[u8]> =
            members.iter().map(|of| of.context_key.as_str().as_bytes()).collect();
        let audience = place.route.audience.as_str().as_bytes();
        let params: [(&(dyn ToSql + Sync), Type); 5] = [
            (&no, Type::INT4),
            (&token, Type::INT8),
            (&place.no, Type::INT4),
            (&audience, Type::BYTEA),
            (&keys, Type::BYTEA_ARRAY),
        ];
        let sql =
            "INSERT INTO call_out (destination_no, token, audience_no, audience_id, context_keys)
             VALUES ($1, $2, $3, $4, $5) RETURNING id";
        let row = tx.first(sql, &params).await?.ok_or_else(damaged)?;
        let call: i64 = row.try_get(0)?;
        drop(keys);
        let (place, route) = (place.no, place.route);
        Ok(Some(Made { batch: Batch { route, members, token }, place, rows, call, changes }))
    }

    /// A claim whose commit was not confirmed may be there: nobody made its call, and nobody will report it.
    async fn take_back_what_nobody_knows(
        &self,
        tx: &Tx,
        no: i32,
        token: i64,
    ) -> Result<(), Failure> {
        let known: Vec<i64> =
            self.shared.known().get(&self.name).map_or(Vec::new(), |of| of.claims.calls());
        let sql = "DELETE FROM call_out WHERE destination_no = $1 AND token = $2 AND id <> ALL($3) AND NOT is_late";
        let params: [(&(dyn ToSql + Sync), Type); 3] =
            [(&no, Type::INT4), (&token, Type::INT8), (&known, Type::INT8_ARRAY)];
        tx.execute(sql, &params).await.map(|_| ())
    }

    async fn longest(
        &self,
        tx: &Tx,
        no: i32,
        audience: &AudienceId,
        room: Room,
    ) -> Result<Option<Taken>, Failure> {
        let Some(place) = Place::one(tx, &self.name, no, audience).await? else { return Ok(None) };
        let reading = self.shared.reading(place.no, place.front);
        let (mut members, mut read) = self.pick(tx, &place, room, reading).await?;
        if members.is_empty()
            && let Some(whole) = reading.whole()
        {
            (members, read) = self.pick(tx, &place, room, whole).await?;
        }
        Ok((!members.is_empty()).then(|| Taken::of(place, members, &read, Changes::default())))
    }

    /// Reads the queue of an audience: who is taken, and all that was read.
    async fn pick(
        &self,
        tx: &Tx,
        place: &Place,
        room: Room,
        reading: Reading,
    ) -> Result<(Vec<ClaimedMember>, Members), Failure> {
        let audience = &place.route.audience;
        let mut picking = Picking::new(room, &place.route);
        // Taken before anything is read: whoever is settled meanwhile may still be read as one who waits.
        let claimed = self.claimed_of(audience);
        let page = PAGE + i64::try_from(claimed.len()).unwrap_or_default();
        // From the front each time: what commits later may stand before what was read.
        let (mut since, mut after) = (reading.from, Vec::new());
        let mut first = None;
        let is_held = place.guard.is_held();
        let sql = "SELECT since, context_key FROM pending
             WHERE audience_no = $1 AND (since, context_key) > ($2, $3) AND (passes_guard OR NOT $5)
             ORDER BY since, context_key LIMIT $4";
        let mut read = Members::default();
        loop {
            let params: [(&(dyn ToSql + Sync), Type); 5] = [
                (&place.no, Type::INT4),
                (&since, Type::INT8),
                (&after, Type::BYTEA),
                (&page, Type::INT8),
                (&is_held, Type::BOOL),
            ];
            let rows = tx.query(sql, &params).await?;
            let is_last = i64::try_from(rows.len()).is_ok_and(|rows| rows < page);
            let mut keys = Vec::new();
            for row in rows {
                (since, after) = (row.try_get(0)?, row.try_get(1)?);
                first = first.or(Some(since));
                let key = text(&after).and_then(|key| ContextKey::new(&key));
                let key = key.ok_or_else(damaged)?;
                if !claimed.contains(&key) && !self.is_claimed(audience, &key) {
                    keys.push((place.no, key));
                }
            }
            read.load(tx, keys.iter().cloned().collect()).await?;
            let waiting = keys.iter().filter_map(|key| Some((&key.1, read.get(key)?)));
            let mut waiting = waiting.filter(|(_, member)| member.pending_since.is_some());
            let is_full = waiting.any(|(key, of)| picking.offer(key, of) == Picked::Enough);
            if is_full || is_last {
                break;
            }
        }
        if !is_held {
            self.shared.found(place.no, reading, first);
        }
        Ok((picking.taken(), read))
    }

    async fn again(
        &self,
        tx: &Tx,
        (no, settings): (i32, &DestinationSettings),
        audience: &AudienceId,
        context_key: &ContextKey,
    ) -> Result<Option<Taken>, Failure> {
        if self.is_claimed(audience, context_key) {
            return Ok(None);
        }
        let Some(place) = Place::one(tx, &self.name, no, audience).await? else { return Ok(None) };
        let key = (place.no, context_key.clone());
        let mut members = Members::default();
        members.load(tx, BTreeSet::from([key.clone()])).await?;
        let Some(before) = members.get(&key) else { return Ok(None) };
        if place.guard.is_held() && !before.erase {
            return Ok(None);
        }
        let next = member::reassert(before, &place.moment(&self.shared, settings));
        members.put(&key, next);
        let changes = members.flush(tx).await?;
        let Some(after) = members.get(&key).filter(|of| of.pending_since.is_some()) else {
            return Ok(None);
        };
        let (membership, version) = (after.membership, after.version);
        let claimed = ClaimedMember { context_key: context_key.clone(), membership, version };
        Ok(Some(Taken::of(place, vec![claimed], &members, changes)))
    }

    async fn told(
        &self,
        tx: &Tx,
        of: (i32, &DestinationSettings),
        after: Option<&(AudienceId, ContextKey)>,
    ) -> Result<Option<Taken>, Failure> {
        let sql = "SELECT a.audience_id, m.context_key FROM audience a
             CROSS JOIN LATERAL (SELECT context_key FROM member
                 WHERE audience_no = a.no AND (a.audience_id, context_key) > ($2, $3)
                     AND told_at IS NOT NULL AND pending_since IS NULL AND parked_at IS NULL
                 ORDER BY context_key LIMIT 32) m
             WHERE a.destination_no = $1 AND NOT a.is_erased AND NOT a.is_held AND a.acknowledged AND a.audience_id >= $2
             ORDER BY a.audience_id, m.context_key LIMIT 32";
        let (audience, key) = after.map_or((&b""[..], &b""[..]), |(audience, key)| {
            (audience.as_str().as_bytes(), key.as_str().as_bytes())
        });
        let params: [(&(dyn ToSql + Sync), Type); 3] =
            [(&of.0, Type::INT4), (&audience, Type::BYTEA), (&key, Type::BYTEA)];
        for row in tx.query(sql, &params).await? {
            let audience = text(row.try_get(0)?).and_then(|id| AudienceId::new(&id));
            let key = text(row.try_get(1)?).and_then(|key| ContextKey::new(&key));
            let (audience, key) = (audience.ok_or_else(damaged)?, key.ok_or_else(damaged)?);
            if !self.is_claimed(&audience, &key) {
                return self.again(tx, of, &audience, &key).await;
            }
        }
        Ok(None)
    }
}
