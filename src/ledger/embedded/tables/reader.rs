//! Reading beside the writer: counts and listings for people and tests, never for decisions.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension, Row, Rows, params};

use crate::ledger::embedded::directory::reserve;
use crate::ledger::embedded::ids::AudienceRowId;
use crate::ledger::embedded::tables::audiences::{self, AudienceRow};
use crate::ledger::embedded::tables::counted::Counted;
use crate::ledger::embedded::tables::persons::Persons;
use crate::ledger::embedded::tables::walk::Walk;
use crate::ledger::embedded::tables::{checksum, destinations, members, parked, rejected};
use crate::ledger::member::Member;
use crate::ledger::{
    AudienceView, DestinationView, Fact, MemberView, ParkReason, ParkedAfter, ParkedView,
    RejectedView, Standing, WalkView,
};
use crate::membership::{AudienceId, ContextKey, DestinationName, Timestamp, UserId};

/// Bodies of rejected events in one reading: a page of large ones is a short page ([P6](crate::design::P6)).
const PAGE_BYTES: usize = 4 << 20;

/// A connection of its own; one reading at a time.
#[derive(Debug)]
pub struct Reader(Mutex<Connection>);

/// What is stored of a walk, in an audience of so many members.
fn walk_of(stored: Option<String>, included: u64) -> Option<WalkView> {
    let walk = Walk::parse(&stored?, Some(String::new()))?;
    Some(WalkView {
        task: walk.task.name(),
        since: walk.since,
        visited: walk.visited,
        expected: if walk.expected == 0 { included } else { walk.expected },
    })
}

/// When a walk began, if that was written down.
fn begun_at(walk: &WalkView) -> Option<Timestamp> {
    (walk.since != Timestamp::EPOCH).then_some(walk.since)
}

/// Whom a walk has not come past is not pending yet, and waits to be told all the same.
fn add_unvisited(db: &Connection, views: &mut [DestinationView]) -> rusqlite::Result<()> {
    let mut walked = db.prepare_cached(
        "SELECT name, walk, included FROM audience
         JOIN destination ON destination.id = audience.destination
         WHERE walk IS NOT NULL AND dropped = 0",
    )?;
    let mut rows = walked.query([])?;
    while let Some(row) = rows.next()? {
        let (name, walk, included): (String, _, _) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let Some(walk) = walk_of(walk, included) else { continue };
        let Some(view) = views.iter_mut().find(|view| view.name == name) else { continue };
        view.unvisited += walk.unvisited();
        view.pending += walk.unvisited();
        view.pending_since = view.pending_since.or_else(|| begun_at(&walk));
    }
    Ok(())
}

impl Reader {
    pub(crate) fn new(connection: Connection) -> Self {
        Self(Mutex::new(connection))
    }

    /// What is read on this connection.
    pub(crate) fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        read(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Every destination that has rows; which of them are configured is not known here. What was
    /// counted besides corrects what the tables say.
    pub(crate) fn destinations(
        &self,
        counted: &[Counted],
    ) -> rusqlite::Result<Vec<DestinationView>> {
        self.with(|db| {
            let db = db.unchecked_transaction()?; // both readings are of one moment
            let mut statement = db.prepare_cached(
                "SELECT name, paused_at,
                     (SELECT count(*) FROM rejected WHERE rejected.destination = destination.id),
                     coalesce(sum(EXISTS (
                         SELECT 1 FROM member WHERE member.audience = audience.id)), 0),
                     coalesce(sum(included), 0), coalesce(sum(pending), 0),
                     coalesce(sum(parked), 0),
                     min(CASE WHEN pending > 0 THEN (
                         SELECT min(pending_since) FROM member
                         WHERE member.audience = audience.id AND pending_since IS NOT NULL) END),
                     min(CASE WHEN parked > 0 THEN (
                         SELECT min(parked.parked_at)
                         FROM parked JOIN member USING (audience, context_key)
                         WHERE parked.audience = audience.id AND pending_since IS NULL) END),
                     (SELECT received_at FROM rejected
                         WHERE rejected.destination = destination.id ORDER BY id LIMIT 1)
                 FROM destination LEFT JOIN audience ON audience.destination = destination.id
                 WHERE dropped = 0 GROUP BY destination.id ORDER BY name",
            )?;
            let views = statement.query_map([], |row| {
                Ok(DestinationView {
                    name: row.get(0)?,
                    configured: false,
                    paused_since: row.get::<_, Option<i64>>(1)?.map(Timestamp),
                    rejected: row.get(2)?,
                    audiences: row.get(3)?,
                    included: row.get(4)?,
                    pending: row.get(5)?,
                    unvisited: 0,
                    parked: row.get(6)?,
                    pending_since: row.get::<_, Option<i64>>(7)?.map(Timestamp),
                    parked_since: row.get::<_, Option<i64>>(8)?.map(Timestamp),
                    rejected_since: row.get::<_, Option<i64>>(9)?.map(Timestamp),
                })
            })?;
            let mut views: Vec<_> = views.collect::<rusqlite::Result<_>>()?;
            counted.iter().try_for_each(|counted| counted.correct(&db, &mut views))?;
            add_unvisited(&db, &mut views)?;
            Ok(views)
        })
    }

    /// The size of the ledger's files, and what its disk could still take if the system says so.
    pub fn facts(&self) -> rusqlite::Result<Vec<Fact>> {
        self.with(|db| {
            let directory = db.path().and_then(|path| Path::new(path).parent());
            let files = directory.and_then(|directory| std::fs::read_dir(directory).ok());
            let sizes = files.into_iter().flatten().filter_map(|file| file.ok()?.metadata().ok());
            let bytes = Fact::Bytes(sizes.map(|file| file.len()).sum());
            let free = directory.and_then(reserve::free_bytes).map(Fact::FreeBytes);
            Ok([bytes].into_iter().chain(free).collect())
        })
    }

    /// The audiences of a destination that have members; `None`: it is not known.
    pub fn audiences(
        &self,
        destination: &DestinationName,
    ) -> rusqlite::Result<Option<Vec<AudienceView>>> {
        self.with(|db| {
            let Some(destination) = destinations::find(db, destination)? else { return Ok(None) };
            db.prepare_cached(
                "SELECT audience_id, audience_key, context_kind, included, pending,
                     (SELECT min(pending_since) FROM member
                      WHERE member.audience = audience.id AND pending_since IS NOT NULL),
                     parked,
                     (SELECT min(parked.parked_at) FROM parked
                      JOIN member USING (audience, context_key)
                      WHERE parked.audience = audience.id AND pending_since IS NULL),
                     walk, snapshot_at
                 FROM audience WHERE destination = ?1
                     AND EXISTS (SELECT 1 FROM member WHERE member.audience = audience.id)
                 ORDER BY audience_key, audience_id",
            )?
            .query_map([destination], |row| {
                let included = row.get(3)?;
                let walk = walk_of(row.get(8)?, included);
                let pending: u64 = row.get(4)?;
                let pending_since = row.get::<_, Option<i64>>(5)?.map(Timestamp);
                Ok(AudienceView {
                    audience: row.get(0)?,
                    audience_key: row.get(1)?,
                    context_kind: row.get(2)?,
                    included,
                    pending: pending + walk.as_ref().map_or(0, WalkView::unvisited),
                    pending_since: pending_since.or_else(|| walk.as_ref().and_then(begun_at)),
                    parked: row.get(6)?,
                    parked_since: row.get::<_, Option<i64>>(7)?.map(Timestamp),
                    walk,
                    snapshot_at: Some(Timestamp(row.get(9)?)).filter(|at| *at != Timestamp::EPOCH),
                })
            })?
            .collect::<rusqlite::Result<_>>()
            .map(Some)
        })
    }

    /// Every member of a destination, in the order of the table.
    pub fn members(&self, destination: &DestinationName) -> rusqlite::Result<Vec<MemberView>> {
        self.with(|db| {
            let Some(id) = destinations::find(db, destination)? else { return Ok(Vec::new()) };
            let mut views = Vec::new();
            for audience in audiences::of_destination(db, id, destination)? {
                for (key, member) in members::walk_in(db, audience.id, "", usize::MAX >> 1)? {
                    views.push(view(&audience, key, &member));
                }
            }
            Ok(views)
        })
    }

    /// The members of an audience behind `after`, in the order of their keys, at most `limit`.
    pub fn standings(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
        after: Option<&ContextKey>,
        limit: u32,
    ) -> rusqlite::Result<Vec<Standing>> {
        self.with(|db| {
            let row = db
                .prepare_cached(
                    "SELECT audience.id FROM audience
                     JOIN destination ON destination.id = audience.destination
                     WHERE name = ?1 AND audience_id = ?2",
                )?
                .query_row([destination.as_str(), audience.as_str()], |row| row.get(0))
                .optional()?;
            let Some(row) = row else { return Ok(Vec::new()) };
            let after = after.map_or("", ContextKey::as_str);
            let found = members::walk_in(db, row, after, limit as usize)?;
            let standing = |(key, member): (String, Member)| {
                let context_key = ContextKey::new(&key)?;
                let included = member.membership.as_bool();
                Some(Standing { context_key, included, event_at: member.event_at })
            };
            Ok(found.into_iter().filter_map(standing).collect())
        })
    }

    /// Every audience of a person, by context key or user id; `None`: the destination is not known.
    pub fn member(
        &self,
        destination: &DestinationName,
        key: &str,
    ) -> rusqlite::Result<Option<Vec<MemberView>>> {
        self.with(|db| {
            let Some(id) = destinations::find(db, destination)? else { return Ok(None) };
            let person = Persons::open(db)?.hash(id, key);
            let mut found = members::of_person(db, person)?;
            let audiences = audiences::of_destination(db, id, destination)?;
            found.extend(audiences.iter().map(|audience| (audience.id, key.to_owned())));
            found.sort_unstable();
            found.dedup();
            let mut views = Vec::new();
            for (row, key) in found {
                let Some(audience) = audiences.iter().find(|of| of.id == row) else { continue };
                if let Some(member) = members::load(db, row, &key)? {
                    views.push(view(audience, key, &member));
                }
            }
            Ok(Some(views))
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
            let found: Vec<(AudienceRowId, String, String)> = db
                .prepare_cached(
                    "SELECT audience.id, audience_id, parked.context_key FROM parked
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
                    |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
                )?
                .collect::<rusqlite::Result<_>>()?;
            let mut views = Vec::with_capacity(found.len());
            for (row, audience, context_key) in found {
                let Some((parked_at, reason)) = parked::load(db, row, &context_key)? else {
                    continue;
                };
                let ParkReason { status, code, message, id: answer_id } = reason;
                views.push(ParkedView {
                    audience,
                    context_key,
                    parked_at,
                    status,
                    code,
                    message,
                    answer_id,
                });
            }
            Ok(views)
        })
    }

    /// The rejected events of a destination with larger numbers than `after`, the oldest first, at
    /// most `limit`; fewer if they are large, and none only if there is none.
    pub fn rejected(
        &self,
        destination: &DestinationName,
        after: i64,
        limit: u32,
    ) -> rusqlite::Result<Vec<RejectedView>> {
        self.with(|db| {
            let mut statement = db.prepare_cached(
                "SELECT rejected.id, received_at, reason, detail, body, rejected.checksum
                 FROM rejected JOIN destination ON destination.id = rejected.destination
                 WHERE name = ?1 AND rejected.id > ?2 ORDER BY rejected.id LIMIT ?3",
            )?;
            rejected_page(statement.query(params![destination.as_str(), after, limit])?)
        })
    }

    /// The same of those of a person.
    pub fn rejected_of(
        &self,
        destination: &DestinationName,
        user_id: &UserId,
        after: i64,
        limit: u32,
    ) -> rusqlite::Result<Vec<RejectedView>> {
        self.with(|db| {
            let Some(id) = destinations::find(db, destination)? else { return Ok(Vec::new()) };
            let person = Persons::open(db)?.hash(id, user_id.as_str());
            let mut statement = db.prepare_cached(
                "SELECT id, received_at, reason, detail, body, checksum FROM rejected
                 WHERE person = ?1 AND id > ?2 ORDER BY id LIMIT ?3",
            )?;
            rejected_page(statement.query(params![person, after, limit])?)
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

fn rejected_page(mut rows: Rows<'_>) -> rusqlite::Result<Vec<RejectedView>> {
    let (mut events, mut bytes) = (Vec::new(), 0);
    while bytes < PAGE_BYTES
        && let Some(row) = rows.next()?
    {
        let event = rejected_view(row)?;
        bytes += event.body.len();
        events.push(event);
    }
    Ok(events)
}

fn rejected_view(row: &Row<'_>) -> rusqlite::Result<RejectedView> {
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
}

fn view(audience: &AudienceRow, context_key: String, member: &Member) -> MemberView {
    let told = member.told.filter(|told| told.at >= audience.told_counts_from);
    MemberView {
        audience: audience.route.audience.as_str().to_owned(),
        audience_key: audience.route.audience_key.as_str().to_owned(),
        context_kind: audience.route.context_kind.as_str().to_owned(),
        context_key,
        included: member.membership.as_bool(),
        event_at: member.event_at,
        told: told.map(|told| told.membership.as_bool()),
        told_at: told.map(|told| told.at),
        pending: member.pending_since.is_some(),
        parked: member.is_parked(),
        expired: member.is_expired,
    }
}
