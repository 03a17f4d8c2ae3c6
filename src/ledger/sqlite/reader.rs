//! Reading beside the writer: counts and listings for people and tests, never for decisions.

use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::persons::Persons;
use super::{checksum, rejected};
use crate::ledger::{
    AudienceView, DestinationView, MemberView, ParkedAfter, ParkedView, RejectedView,
};
use crate::membership::{AudienceId, DestinationName, Timestamp};

/// A connection of its own; one reading at a time.
#[derive(Debug)]
pub struct Reader(Mutex<Connection>);

/// The columns that [`member`] reads, in its order.
macro_rules! member_columns {
    () => {
        "audience_id, audience_key, context_kind, context_key, member.included, event_at,
         CASE WHEN told_at >= told_counts_from THEN told END,
         CASE WHEN told_at >= told_counts_from THEN told_at END,
         pending_since IS NOT NULL, parked_at IS NOT NULL AND pending_since IS NULL"
    };
}

impl Reader {
    pub(super) fn new(connection: Connection) -> Self {
        Self(Mutex::new(connection))
    }

    fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        read(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Every destination that has rows; which of them are configured is not known here.
    pub fn destinations(&self) -> rusqlite::Result<Vec<DestinationView>> {
        self.with(|db| {
            db.prepare_cached(
                "SELECT name, paused_at,
                     (SELECT count(*) FROM rejected WHERE rejected.destination = destination.id),
                     count(audience.id), coalesce(sum(included), 0), coalesce(sum(pending), 0),
                     coalesce(sum(parked), 0)
                 FROM destination LEFT JOIN audience ON audience.destination = destination.id
                 WHERE dropped = 0 GROUP BY destination.id ORDER BY name",
            )?
            .query_map([], |row| {
                Ok(DestinationView {
                    name: row.get(0)?,
                    configured: false,
                    paused_since: row.get::<_, Option<i64>>(1)?.map(Timestamp),
                    rejected: row.get(2)?,
                    audiences: row.get(3)?,
                    included: row.get(4)?,
                    pending: row.get(5)?,
                    parked: row.get(6)?,
                })
            })?
            .collect()
        })
    }

    /// The audiences of a destination that have members; `None`: it is not known.
    pub fn audiences(
        &self,
        destination: &DestinationName,
    ) -> rusqlite::Result<Option<Vec<AudienceView>>> {
        self.with(|db| {
            let Some(destination) = id_of(db, destination)? else { return Ok(None) };
            db.prepare_cached(
                "SELECT audience_id, audience_key, context_kind, included, pending,
                     (SELECT min(pending_since) FROM member
                      WHERE member.audience = audience.id AND pending_since IS NOT NULL),
                     parked,
                     (SELECT min(parked_at) FROM parked WHERE parked.audience = audience.id),
                     walk
                 FROM audience WHERE destination = ?1
                     AND EXISTS (SELECT 1 FROM member WHERE member.audience = audience.id)
                 ORDER BY audience_key, audience_id",
            )?
            .query_map([destination], |row| {
                let walk: Option<String> = row.get(8)?;
                Ok(AudienceView {
                    audience: row.get(0)?,
                    audience_key: row.get(1)?,
                    context_kind: row.get(2)?,
                    included: row.get(3)?,
                    pending: row.get(4)?,
                    pending_since: row.get::<_, Option<i64>>(5)?.map(Timestamp),
                    parked: row.get(6)?,
                    parked_since: row.get::<_, Option<i64>>(7)?.map(Timestamp),
                    walk: walk.map(|walk| walk.split(' ').next().unwrap_or_default().to_owned()),
                })
            })?
            .collect::<rusqlite::Result<_>>()
            .map(Some)
        })
    }

    /// Every member of a destination, in the order of the table.
    pub fn members(&self, destination: &DestinationName) -> rusqlite::Result<Vec<MemberView>> {
        self.with(|db| {
            db.prepare_cached(concat!(
                "SELECT ",
                member_columns!(),
                " FROM member JOIN audience ON audience.id = member.audience
                 JOIN destination ON destination.id = audience.destination
                 WHERE destination.name = ?1 ORDER BY member.audience, context_key"
            ))?
            .query_map([destination.as_str()], member)?
            .collect()
        })
    }

    /// Every audience of a person, by context key or user id; `None`: the destination is not known.
    pub fn member(
        &self,
        destination: &DestinationName,
        key: &str,
    ) -> rusqlite::Result<Option<Vec<MemberView>>> {
        self.with(|db| {
            let Some(destination) = id_of(db, destination)? else { return Ok(None) };
            let person = Persons::open(db)?.hash(destination, key);
            db.prepare_cached(concat!(
                "SELECT ",
                member_columns!(),
                " FROM audience JOIN member ON member.audience = audience.id
                 WHERE audience.destination = ?1 AND member.context_key = ?2
                 UNION SELECT ",
                member_columns!(),
                " FROM member JOIN audience ON audience.id = member.audience
                 WHERE member.person = ?3 AND audience.destination = ?1
                 ORDER BY 2, 1, 4"
            ))?
            .query_map(params![destination, key, person], member)?
            .collect::<rusqlite::Result<_>>()
            .map(Some)
        })
    }

    /// The parked members of a destination behind `after`, at most `limit`.
    pub fn parked(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
        after: &ParkedAfter,
        limit: u32,
    ) -> rusqlite::Result<Vec<ParkedView>> {
        self.with(|db| {
            db.prepare_cached(
                "SELECT audience_id, parked.context_key, parked.parked_at, status, code, message,
                     answer_id
                 FROM parked
                 JOIN member ON member.audience = parked.audience
                     AND member.context_key = parked.context_key AND pending_since IS NULL
                 JOIN audience ON audience.id = parked.audience
                 JOIN destination ON destination.id = audience.destination
                 WHERE destination.name = ?1 AND (?2 IS NULL OR audience_id = ?2)
                     AND (audience_id, parked.context_key) > (?3, ?4)
                 ORDER BY audience_id, parked.context_key LIMIT ?5",
            )?
            .query_map(
                params![
                    destination.as_str(),
                    audience.map(AudienceId::as_str),
                    after.audience,
                    after.context_key,
                    limit
                ],
                |row| {
                    Ok(ParkedView {
                        audience: row.get(0)?,
                        context_key: row.get(1)?,
                        parked_at: Timestamp(row.get(2)?),
                        status: row.get(3)?,
                        code: row.get(4)?,
                        message: row.get(5)?,
                        answer_id: row.get(6)?,
                    })
                },
            )?
            .collect()
        })
    }

    /// The rejected events of a destination with larger numbers than `after`, the oldest first, at
    /// most `limit`.
    pub fn rejected(
        &self,
        destination: &DestinationName,
        after: i64,
        limit: u32,
    ) -> rusqlite::Result<Vec<RejectedView>> {
        self.with(|db| {
            db.prepare_cached(
                "SELECT rejected.id, received_at, reason, detail, body, rejected.checksum
                 FROM rejected JOIN destination ON destination.id = rejected.destination
                 WHERE name = ?1 AND rejected.id > ?2 ORDER BY rejected.id LIMIT ?3",
            )?
            .query_map(params![destination.as_str(), after, limit], |row| {
                let event = RejectedView {
                    id: row.get(0)?,
                    received_at: Timestamp(row.get(1)?),
                    reason: row.get(2)?,
                    detail: row.get(3)?,
                    body: row.get(4)?,
                };
                let RejectedView { received_at, reason, detail, body, .. } = &event;
                let read = || rejected::checksum_of(*received_at, reason, detail, body);
                checksum::verify(row.get(5)?, read, "a rejected event")?;
                Ok(event)
            })?
            .collect()
        })
    }

    /// Whether any member in the audience has a key that one of these rules chose.
    pub fn any_under_rules(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
        rules: &[u32],
    ) -> rusqlite::Result<bool> {
        self.with(|db| {
            let mut statement = db.prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM member WHERE included = 1 AND key_rule = ?3
                     AND audience = (SELECT audience.id FROM audience
                         JOIN destination ON destination.id = audience.destination
                         WHERE name = ?1 AND audience_id = ?2))",
            )?;
            for rule in rules {
                let values = params![destination.as_str(), audience.as_str(), rule];
                if statement.query_row(values, |row| row.get(0))? {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }
}

fn id_of(db: &Connection, destination: &DestinationName) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT id FROM destination WHERE name = ?1")?
        .query_row([destination.as_str()], |row| row.get(0))
        .optional()
}

fn member(row: &Row<'_>) -> rusqlite::Result<MemberView> {
    Ok(MemberView {
        audience: row.get(0)?,
        audience_key: row.get(1)?,
        context_kind: row.get(2)?,
        context_key: row.get(3)?,
        included: row.get(4)?,
        event_at: Timestamp(row.get(5)?),
        told: row.get(6)?,
        told_at: row.get::<_, Option<i64>>(7)?.map(Timestamp),
        pending: row.get(8)?,
        parked: row.get(9)?,
    })
}
