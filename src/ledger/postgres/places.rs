//! Audiences as a transaction sees them.

use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::ledger::DestinationSettings;
use crate::ledger::Route;
use crate::ledger::guard::Guard;
use crate::ledger::member::Moment;
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::pool::Tx;
use crate::ledger::postgres::rows::{damaged, text};
use crate::ledger::postgres::shared::Shared;
use crate::ledger::postgres::walk::Walk;
use crate::membership::{AudienceId, AudienceKey, ContextKind, DestinationName, Timestamp};

/// An audience, with its counts.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub no: i32,
    pub route: Arc<Route>,
    pub acknowledged: bool,
    /// What was told before this does not count.
    pub told_counts_from: Timestamp,
    /// Rows of members.
    pub members: i64,
    pub included: i64,
    pub pending: i64,
    pub parked: i64,
    pub walk: Option<Walk>,
    pub guard: Guard,
    /// As of when the latest snapshot of it was.
    pub snapshot_at: Timestamp,
    /// Where its queue began, as far as its owner knew a moment ago.
    pub front: Option<i64>,
}

/// Reads audiences `a` that are not erased; what is asked of them follows.
const SELECT: &str = "SELECT a.no, a.audience_id, a.audience_key, a.context_kind, a.acknowledged, a.told_counts_from,
        a.members + c.members, a.included + c.included, a.pending + c.pending, a.parked + c.parked,
        a.walk, a.walk_rules, a.walk_since, a.walk_after, a.walk_visited, a.walk_expected, a.guard, a.snapshot_at, a.front
    FROM audience a
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(members), 0)::int8 AS members, coalesce(sum(included), 0)::int8 AS included,
            coalesce(sum(pending), 0)::int8 AS pending, coalesce(sum(parked), 0)::int8 AS parked
        FROM change WHERE audience_no = a.no
    ) c
    WHERE a.destination_no = $1 AND NOT a.is_erased";

impl Place {
    /// The audiences of a destination.
    pub async fn all(
        tx: &Tx,
        name: &DestinationName,
        destination_no: i32,
    ) -> Result<Vec<Self>, Failure> {
        Self::that(tx, name, destination_no, "true").await
    }

    /// Those in which something is done to every member.
    pub async fn walked(
        tx: &Tx,
        name: &DestinationName,
        destination_no: i32,
    ) -> Result<Vec<Self>, Failure> {
        Self::that(tx, name, destination_no, "a.walk IS NOT NULL").await
    }

    /// Those that are held.
    pub async fn held(
        tx: &Tx,
        name: &DestinationName,
        destination_no: i32,
    ) -> Result<Vec<Self>, Failure> {
        Self::that(tx, name, destination_no, "a.is_held").await
    }

    async fn that(
        tx: &Tx,
        name: &DestinationName,
        destination_no: i32,
        condition: &str,
    ) -> Result<Vec<Self>, Failure> {
        let sql = format!("{SELECT} AND {condition}");
        let rows = tx.query(&sql, &[(&destination_no, Type::INT4)]).await?;
        rows.iter().map(|row| Self::of(name, row)).collect()
    }

    /// Those of these audiences that are there.
    pub async fn these(
        tx: &Tx,
        name: &DestinationName,
        destination_no: i32,
        ids: &[&AudienceId],
    ) -> Result<Vec<Self>, Failure> {
        let ids: Vec<&[u8]> = ids.iter().map(|id| id.as_str().as_bytes()).collect();
        let sql = format!("{SELECT} AND a.audience_id = ANY($2)");
        let params: [(&(dyn ToSql + Sync), Type); 2] =
            [(&destination_no, Type::INT4), (&ids, Type::BYTEA_ARRAY)];
        let rows = tx.steady_query(&sql, &params).await?;
        rows.iter().map(|row| Self::of(name, row)).collect()
    }

    /// One audience, if it is there.
    pub async fn one(
        tx: &Tx,
        name: &DestinationName,
        destination_no: i32,
        id: &AudienceId,
    ) -> Result<Option<Self>, Failure> {
        Ok(Self::these(tx, name, destination_no, &[id]).await?.pop())
    }

    /// Makes a place for a new audience.
    pub async fn create(tx: &Tx, destination_no: i32, route: Route) -> Result<Self, Failure> {
        let params: [(&(dyn ToSql + Sync), Type); 4] = [
            (&destination_no, Type::INT4),
            (&route.audience.as_str().as_bytes(), Type::BYTEA),
            (&route.audience_key.as_str().as_bytes(), Type::BYTEA),
            (&route.context_kind.as_str().as_bytes(), Type::BYTEA),
        ];
        let sql = "INSERT INTO audience (destination_no, audience_id, audience_key, context_kind)
             VALUES ($1, $2, $3, $4) RETURNING no";
        let row = tx.first(sql, &params).await?.ok_or_else(damaged)?;
        Ok(Self {
            no: row.try_get(0)?,
            route: route.into(),
            acknowledged: false,
            told_counts_from: Timestamp::EPOCH,
            members: 0,
            included: 0,
            pending: 0,
            parked: 0,
            walk: None,
            guard: Guard::default(),
            snapshot_at: Timestamp::EPOCH,
            front: None,
        })
    }

    /// Gives the audience this name and kind.
    pub async fn rename(&mut self, tx: &Tx, route: Route) -> Result<(), Failure> {
        let params: [(&(dyn ToSql + Sync), Type); 3] = [
            (&self.no, Type::INT4),
            (&route.audience_key.as_str().as_bytes(), Type::BYTEA),
            (&route.context_kind.as_str().as_bytes(), Type::BYTEA),
        ];
        let sql = "UPDATE audience SET audience_key = $2, context_kind = $3 WHERE no = $1";
        tx.execute(sql, &params).await?;
        self.route = route.into();
        Ok(())
    }

    /// A snapshot of the audience as of this time is recorded.
    pub async fn raise_snapshot(&mut self, tx: &Tx, at: Timestamp) -> Result<(), Failure> {
        self.snapshot_at = at;
        let sql = "UPDATE audience SET snapshot_at = $2 WHERE no = $1";
        tx.execute(sql, &[(&self.no, Type::INT4), (&at.0, Type::INT8)]).await.map(|_| ())
    }

    /// What the rules need to know of the audience, now.
    pub fn moment(&self, shared: &Shared, settings: &DestinationSettings) -> Moment {
        Moment {
            stamp: shared.stamps.fresh(),
            told_counts_from: self.told_counts_from,
            repeat_window: settings.repeat_window,
            unheard_through: Timestamp::EPOCH, // who takes over marks who was in a call
            expires_after: settings.expires_after.get(&self.route.audience_key).copied(),
            snapshot_at: self.snapshot_at,
        }
    }

    fn of(name: &DestinationName, row: &Row) -> Result<Self, Failure> {
        let word =
            |column| -> Result<String, Failure> { text(row.try_get(column)?).ok_or_else(damaged) };
        let route = Route {
            destination: name.clone(),
            audience: AudienceId::new(&word(1)?).ok_or_else(damaged)?,
            audience_key: AudienceKey::new(&word(2)?).ok_or_else(damaged)?,
            context_kind: ContextKind::new(&word(3)?).ok_or_else(damaged)?,
        };
        Ok(Self {
            no: row.try_get(0)?,
            route: route.into(),
            acknowledged: row.try_get(4)?,
            told_counts_from: Timestamp(row.try_get(5)?),
            members: row.try_get(6)?,
            included: row.try_get(7)?,
            pending: row.try_get(8)?,
            parked: row.try_get(9)?,
            walk: Walk::of(row, 10)?,
            guard: guard_of(row.try_get(16)?)?,
            snapshot_at: Timestamp(row.try_get(17)?),
            front: row.try_get(18)?,
        })
    }
}

/// The guard that a row holds.
pub(crate) fn guard_of(text: Option<&str>) -> Result<Guard, Failure> {
    text.map_or(Ok(Guard::default()), |text| Guard::parse(text).ok_or_else(damaged))
}
