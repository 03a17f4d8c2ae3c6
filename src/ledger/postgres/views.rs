//! What people see of the tables.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::TryFutureExt;
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};

use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::fronts::Reading;
use crate::ledger::postgres::places::Place;
use crate::ledger::postgres::pool::{Tx, transact};
use crate::ledger::postgres::rows::{COLUMNS, Stored, damaged, text};
use crate::ledger::postgres::shared::Shared;
use crate::ledger::{
    AudienceView, DestinationView, MemberView, ParkedAfter, ParkedView, RejectedView, Standing,
};
use crate::membership::{AudienceId, ContextKey, DestinationName, Timestamp};

/// Bytes of rejected events in one page.
const MOST_BYTES: usize = 4 << 20;
/// How long the database may take to say how large the ledger is.
const SIZE_WITHIN: Duration = Duration::from_secs(1);

/// How long it may take to say what the ledger holds.
const HOLDS_WITHIN: Duration = Duration::from_secs(2);

/// What people look at, or that it is not to be had while they wait.
pub(crate) async fn in_time<T>(
    shared: &Shared,
    asked: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout(HOLDS_WITHIN, asked).await.unwrap_or_else(|_| {
        let why = if shared.pool.is_exhausted() {
            "every connection of this replica to the database is in use"
        } else {
            "the database has taken longer than two seconds"
        };
        Err(Failure::Unavailable(why.to_owned()))
    })
}

/// The size of the tables, in bytes; `None` while the database does not say.
pub(crate) async fn bytes(shared: &Shared) -> Option<u64> {
    if shared.obstacle().is_some() {
        return None;
    }
    let sql = "SELECT coalesce(sum(pg_total_relation_size(name::regclass)), 0)::int8
         FROM unnest(ARRAY['member', 'pending', 'audience', 'rejected', 'parked', 'change']) AS of(name)";
    let asked = async {
        transact!(shared.looks, |tx, _attempt| tx.first(sql, &[]).map_err(Failure::at_once))
    };
    let row = timeout(SIZE_WITHIN, asked).await.ok()?.ok()??;
    row.try_get(0).ok().map(i64::unsigned_abs)
}

/// Every destination, with what its audiences add up to.
pub(crate) async fn destinations(shared: &Shared) -> Result<Vec<DestinationView>, Failure> {
    let asked = async {
        transact!(shared.looks, |tx, _attempt| sums(shared, &tx).map_err(Failure::at_once))
    };
    in_time(shared, asked).await
}

async fn sums(shared: &Shared, tx: &Tx) -> Result<Vec<DestinationView>, Failure> {
    let sql = "SELECT d.no, d.name, d.paused_since, r.rejected, r.rejected_since
         FROM destination d CROSS JOIN LATERAL (
             SELECT count(*) AS rejected, min(received_at) AS rejected_since FROM rejected WHERE destination_no = d.no
         ) r ORDER BY d.name";
    let mut views = Vec::new();
    for row in tx.query(sql, &[]).await? {
        let (no, name): (i32, &str) = (row.try_get(0)?, row.try_get(1)?);
        let rejected: i64 = row.try_get(3)?;
        let time = |column| -> Result<Option<Timestamp>, Failure> {
            Ok(row.try_get::<_, Option<i64>>(column)?.map(Timestamp))
        };
        let known = DestinationName::new(name).ok_or_else(damaged)?;
        let mut view = DestinationView {
            name: name.to_owned(),
            configured: false,
            paused_since: time(2)?,
            audiences: 0,
            included: 0,
            pending: 0,
            unvisited: 0,
            pending_since: None,
            parked: 0,
            parked_since: None,
            rejected: rejected.unsigned_abs(),
            rejected_since: time(4)?,
        };
        for of in audiences(shared, tx, &known, no).await? {
            let unvisited = of.walk.as_ref().map_or(0, crate::ledger::WalkView::unvisited);
            view.audiences += 1;
            view.included += of.included;
            view.pending += of.pending;
            view.unvisited += unvisited;
            view.parked += of.parked;
            let earlier = |one: Option<Timestamp>, other: Option<Timestamp>| {
                one.into_iter().chain(other).min()
            };
            view.pending_since = earlier(view.pending_since, of.pending_since);
            view.parked_since = earlier(view.parked_since, of.parked_since);
        }
        views.push(view);
    }
    Ok(views)
}

/// Since when anybody waits in audiences.
async fn waits(
    shared: &Shared,
    tx: &Tx,
    places: &[Place],
) -> Result<HashMap<i32, Timestamp>, Failure> {
    let waiting = places.iter().filter(|place| place.pending > 0);
    let mut readings: Vec<(i32, Reading)> =
        waiting.map(|place| (place.no, shared.reading(place.no, place.front))).collect();
    let sql = "SELECT i.no, (SELECT min(since) FROM pending WHERE audience_no = i.no AND since >= i.since)
         FROM unnest($1, $2) AS i(no, since)";
    let mut waits = HashMap::new();
    while !readings.is_empty() {
        let (numbers, from): (Vec<i32>, Vec<i64>) =
            readings.iter().map(|(no, reading)| (*no, reading.from)).unzip();
        let params: [(&(dyn ToSql + Sync), Type); 2] =
            [(&numbers, Type::INT4_ARRAY), (&from, Type::INT8_ARRAY)];
        let mut found: HashMap<i32, Option<i64>> = HashMap::new();
        for row in tx.query(sql, &params).await? {
            found.insert(row.try_get(0)?, row.try_get(1)?);
        }
        let mut again = Vec::new();
        for (no, reading) in readings {
            let first = found.get(&no).copied().flatten();
            shared.found(no, reading, first);
            waits.extend(first.map(|first| (no, Timestamp(first))));
            let whole = reading.whole().filter(|_| first.is_none());
            again.extend(whole.map(|whole| (no, whole)));
        }
        readings = again;
    }
    Ok(waits)
}

/// The audiences of a destination that have members.
pub(crate) async fn audiences(
    shared: &Shared,
    tx: &Tx,
    name: &DestinationName,
    destination_no: i32,
) -> Result<Vec<AudienceView>, Failure> {
    let places = Place::all(tx, name, destination_no).await?;
    let numbers: Vec<i32> = places.iter().map(|place| place.no).collect();
    let waits = waits(shared, tx, &places).await?;
    let sql = "SELECT i.no, (SELECT min(p.parked_at) FROM parked p JOIN member m USING (audience_no, context_key)
                 WHERE p.audience_no = i.no AND m.pending_since IS NULL)
         FROM unnest($1) AS i(no)";
    let mut parked = HashMap::new();
    for row in tx.query(sql, &[(&numbers, Type::INT4_ARRAY)]).await? {
        let (no, since): (i32, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
        parked.extend(since.map(|since| (no, Timestamp(since))));
    }
    let mut views: Vec<AudienceView> = places
        .into_iter()
        .filter(|place| place.members > 0)
        .map(|place| {
            let pending_since = waits.get(&place.no).copied();
            let parked_since = parked.get(&place.no).copied();
            let walk = place.walk.as_ref().map(super::walk::Walk::view);
            let unvisited = walk.as_ref().map_or(0, crate::ledger::WalkView::unvisited);
            AudienceView {
                audience: place.route.audience.as_str().to_owned(),
                audience_key: place.route.audience_key.as_str().to_owned(),
                context_kind: place.route.context_kind.as_str().to_owned(),
                included: place.included.unsigned_abs(),
                pending: place.pending.unsigned_abs() + unvisited,
                pending_since,
                parked: place.parked.unsigned_abs(),
                parked_since,
                walk,
                snapshot_at: Some(place.snapshot_at).filter(|at| *at != Timestamp::EPOCH),
            }
        })
        .collect();
    views.sort_by(|a, b| (&a.audience_key, &a.audience).cmp(&(&b.audience_key, &b.audience)));
    Ok(views)
}

/// Every membership of a person.
pub(crate) async fn member(
    tx: &Tx,
    (name, destination_no): (&DestinationName, i32),
    key: &str,
    person: &[u8],
) -> Result<Vec<MemberView>, Failure> {
    let places = Place::all(tx, name, destination_no).await?;
    let numbers: Vec<i32> = places.iter().map(|place| place.no).collect();
    let sql = format!(
        "SELECT {COLUMNS} FROM member m WHERE m.audience_no = ANY($1) AND m.context_key = $2
         UNION SELECT {COLUMNS} FROM member m WHERE m.person = $3 AND m.audience_no = ANY($1)"
    );
    let key = key.as_bytes();
    let params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&numbers, Type::INT4_ARRAY), (&key, Type::BYTEA), (&person, Type::BYTEA)];
    let mut views = Vec::new();
    for row in tx.query(&sql, &params).await? {
        let stored = Stored::of(&row, 0)?;
        let place = places.iter().find(|place| place.no == stored.audience_no);
        views.extend(place.map(|place| of(place, &stored)));
    }
    views.sort_by(|a, b| (&a.audience, &a.context_key).cmp(&(&b.audience, &b.context_key)));
    Ok(views)
}

/// Members of an audience behind `after`, in the order of their keys.
pub(crate) async fn standings(
    tx: &Tx,
    name: &DestinationName,
    audience: &AudienceId,
    after: Option<&ContextKey>,
    limit: u32,
) -> Result<Vec<Standing>, Failure> {
    let sql = format!(
        "SELECT {COLUMNS} FROM destination d JOIN audience a ON a.destination_no = d.no AND NOT a.is_erased
         JOIN member m ON m.audience_no = a.no
         WHERE d.name = $1 AND a.audience_id = $2 AND m.context_key > $3 ORDER BY m.context_key LIMIT $4"
    );
    let after = after.map_or(&b""[..], |key| key.as_str().as_bytes());
    let (name, id, limit) = (name.as_str(), audience.as_str().as_bytes(), i64::from(limit));
    let params: [(&(dyn ToSql + Sync), Type); 4] =
        [(&name, Type::TEXT), (&id, Type::BYTEA), (&after, Type::BYTEA), (&limit, Type::INT8)];
    let standing = |row| -> Result<Standing, Failure> {
        let Stored { context_key, member, .. } = Stored::of(&row, 0)?;
        let (included, event_at) = (member.membership.as_bool(), member.event_at);
        Ok(Standing { context_key, included, event_at })
    };
    tx.query(&sql, &params).await?.into_iter().map(standing).collect()
}

/// A member as people see it.
pub(crate) fn of(place: &Place, stored: &Stored) -> MemberView {
    let Stored { member, context_key, .. } = stored;
    let told = member.told.filter(|told| told.at >= place.told_counts_from);
    MemberView {
        audience: place.route.audience.as_str().to_owned(),
        audience_key: place.route.audience_key.as_str().to_owned(),
        context_kind: place.route.context_kind.as_str().to_owned(),
        context_key: context_key.as_str().to_owned(),
        included: member.membership.as_bool(),
        event_at: member.event_at,
        told: told.map(|told| told.membership.as_bool()),
        told_at: told.map(|told| told.at),
        pending: member.pending_since.is_some(),
        parked: member.is_parked(),
        expired: member.is_expired,
    }
}

/// Parked members of a destination, of one audience or all, behind `after`.
pub(crate) async fn parked(
    tx: &Tx,
    destination: &DestinationName,
    audience: Option<&AudienceId>,
    after: &ParkedAfter,
    limit: u32,
) -> Result<Vec<ParkedView>, Failure> {
    let sql =
        "SELECT a.audience_id, p.context_key, p.parked_at, p.status, p.code, p.message, p.answer_id
         FROM destination d JOIN audience a ON a.destination_no = d.no AND NOT a.is_erased
         JOIN parked p ON p.audience_no = a.no
         JOIN member m ON m.audience_no = p.audience_no AND m.context_key = p.context_key
         WHERE d.name = $1 AND ($2::bytea IS NULL OR a.audience_id = $2)
             AND (a.audience_id, p.context_key) > ($3, $4) AND m.pending_since IS NULL
         ORDER BY a.audience_id, p.context_key LIMIT $5";
    let name = destination.as_str();
    let audience = audience.map(|id| id.as_str().as_bytes());
    let (behind, key) = (after.audience.as_bytes(), after.context_key.as_bytes());
    let limit = i64::from(limit);
    let params: [(&(dyn ToSql + Sync), Type); 5] = [
        (&name, Type::TEXT),
        (&audience, Type::BYTEA),
        (&behind, Type::BYTEA),
        (&key, Type::BYTEA),
        (&limit, Type::INT8),
    ];
    let mut views = Vec::new();
    for row in tx.query(sql, &params).await? {
        let word =
            |column| -> Result<String, Failure> { text(row.try_get(column)?).ok_or_else(damaged) };
        views.push(ParkedView {
            audience: word(0)?,
            context_key: word(1)?,
            parked_at: Timestamp(row.try_get(2)?),
            status: u16::try_from(row.try_get::<_, i32>(3)?).unwrap_or_default(),
            code: word(4)?,
            message: word(5)?,
            answer_id: word(6)?,
        });
    }
    Ok(views)
}

/// Rejected events of a destination with larger numbers than `after`, of one person or all.
pub(crate) async fn rejected(
    tx: &Tx,
    destination: &DestinationName,
    person: Option<&[u8]>,
    after: i64,
    limit: u32,
) -> Result<Vec<RejectedView>, Failure> {
    let sql = "SELECT id, received_at, reason, detail, body FROM (
             SELECT r.*, coalesce(sum(length(r.body)) OVER (ORDER BY r.id ROWS BETWEEN UNBOUNDED PRECEDING
                 AND 1 PRECEDING), 0) AS bytes
             FROM rejected r WHERE r.destination_no = (SELECT no FROM destination WHERE name = $1)
                 AND r.id > $3 AND ($2::bytea IS NULL OR r.person = $2) ORDER BY r.id LIMIT $4
         ) r WHERE r.bytes < $5 ORDER BY id";
    let (name, limit) = (destination.as_str(), i64::from(limit));
    let most = i64::try_from(MOST_BYTES).unwrap_or(i64::MAX);
    let params: [(&(dyn ToSql + Sync), Type); 5] = [
        (&name, Type::TEXT),
        (&person, Type::BYTEA),
        (&after, Type::INT8),
        (&limit, Type::INT8),
        (&most, Type::INT8),
    ];
    let mut views = Vec::new();
    for row in tx.query(sql, &params).await? {
        views.push(RejectedView {
            id: row.try_get(0)?,
            received_at: Timestamp(row.try_get(1)?),
            reason: row.try_get(2)?,
            detail: row.try_get(3)?,
            body: row.try_get(4)?,
        });
    }
    Ok(views)
}
