//! The ledger as rows of no store's own, a page at a time.

use rusqlite::params;

use crate::ledger::copied::{
    CopiedAudience, CopiedDeletion, CopiedDestination, CopiedEvent, CopiedMember, CopiedMessage,
    CopiedParking, CopiedReassertion, CopiedTask, CopiedWalk, Kind, Page, Position, Rows,
};
use crate::ledger::embedded::at_rest::copying::DirectoryCopy;
use crate::ledger::embedded::ids::AudienceRowId;
use crate::ledger::embedded::tables::audiences::{self, AudienceRow};
use crate::ledger::embedded::tables::open_error::OpenError;
use crate::ledger::embedded::tables::walk::{Task, Walk};
use crate::ledger::embedded::tables::{checksum, members, parked};
use crate::ledger::guard::Guard;
use crate::ledger::member::{Member, Next, unheard};
use crate::membership::{ContextKey, DestinationName, Timestamp};

/// Rows of one page.
const ROWS: usize = if cfg!(test) { 4 } else { 5000 };
/// Bytes of rejected events in one page, but for the last of them.
const BYTES: usize = if cfg!(test) { 8 } else { 1 << 20 };

/// The row that was read last, and whether there is none behind it.
type Last = (Option<(i64, Vec<u8>)>, bool);

impl DirectoryCopy {
    /// The rows behind a position.
    ///
    /// # Errors
    /// They cannot be read, or are not what was written.
    pub fn page(&mut self, at: &Position) -> Result<Page, OpenError> {
        let (rows, (last, is_last)) = match at.kind {
            Kind::Destinations => {
                self.know()?;
                (Rows::Destinations(self.copied_destinations()?), (None, true))
            }
            Kind::Audiences => self.copied_audiences(at),
            Kind::Members => self.copied_members(at)?,
            Kind::Parkings => self.copied_parkings(at)?,
            Kind::Reassertions => self.copied_reassertions(at)?,
            Kind::Events => self.copied_events(at)?,
            // A hash goes by a destination: without any, none is found again.
            Kind::Messages if self.destinations.is_empty() => {
                (Rows::Messages(Vec::new()), (None, true))
            }
            Kind::Messages => self.copied_messages(at)?,
            Kind::Deletions if self.destinations.is_empty() => {
                (Rows::Deletions(Vec::new()), (None, true))
            }
            Kind::Deletions => self.copied_deletions(at)?,
        };
        Ok(Page { rows, next: at.behind(last, is_last) })
    }

    fn copied_destinations(&self) -> rusqlite::Result<Vec<CopiedDestination>> {
        self.db
            .prepare(
                "SELECT id, name, environment, paused_at FROM destination WHERE dropped = 0 ORDER BY id",
            )?
            .query_map([], |row| {
                Ok(CopiedDestination {
                    no: row.get(0)?,
                    name: row.get(1)?,
                    environment: row.get(2)?,
                    paused_since: row.get::<_, Option<i64>>(3)?.map(Timestamp),
                })
            })?
            .collect()
    }

    fn copied_audiences(&self, at: &Position) -> (Rows, Last) {
        let behind = at.no.saturating_add(1); // the first position is before every number that there is
        let rows: Vec<CopiedAudience> = self
            .audiences
            .range(behind..)
            .take(ROWS)
            .filter_map(|(_, row)| self.copied_audience(row))
            .collect();
        let last = rows.last().map(|row| (row.no, Vec::new()));
        let is_last = rows.len() < ROWS;
        (Rows::Audiences(rows), (last, is_last))
    }

    fn copied_audience(&self, row: &AudienceRow) -> Option<CopiedAudience> {
        let route = &row.route;
        let is_it = |(_, name): &(&i64, &DestinationName)| **name == route.destination;
        let (destination_no, _) = self.destinations.iter().find(is_it)?;
        Some(CopiedAudience {
            no: row.id.0,
            destination_no: *destination_no,
            audience_id: route.audience.as_str().to_owned(),
            audience_key: route.audience_key.as_str().to_owned(),
            context_kind: route.context_kind.as_str().to_owned(),
            acknowledged: row.acknowledged,
            told_counts_from: row.told_counts_from,
            snapshot_at: row.snapshot_at,
            guard: (row.guard != Guard::default()).then(|| row.guard.to_string()),
            walk: row.walk.as_ref().map(copied_walk),
        })
    }

    fn copied_members(&self, at: &Position) -> rusqlite::Result<(Rows, Last)> {
        let after = text(&at.key)?;
        let rows = members::walk(&self.db, (AudienceRowId(at.no), &after), ROWS)?;
        let is_last = rows.len() < ROWS;
        let last = rows.last().map(|(audience, key, _)| (audience.0, key.clone().into_bytes()));
        let mut copied = Vec::with_capacity(rows.len());
        for (audience, key, member) in rows {
            let Some(row) = self.audiences.get(&audience.0) else { continue };
            let context_key = audiences::stored(ContextKey::new(&key))?;
            let member = as_heard(row, member);
            copied.push(CopiedMember { audience_no: audience.0, context_key, member });
        }
        Ok((Rows::Members(copied), (last, is_last)))
    }

    fn copied_parkings(&self, at: &Position) -> rusqlite::Result<(Rows, Last)> {
        let sql =
            "SELECT audience, context_key FROM parked WHERE (audience, context_key) > (?1, ?2)
             ORDER BY audience, context_key LIMIT ?3";
        let (keys, last) = self.keys(sql, at)?;
        let mut copied = Vec::with_capacity(keys.len());
        for (audience_no, context_key) in keys {
            let stored = parked::load(&self.db, AudienceRowId(audience_no), &context_key)?;
            let (at, reason) = audiences::stored(stored)?;
            copied.push(CopiedParking { audience_no, context_key, at, reason });
        }
        Ok((Rows::Parkings(copied), last))
    }

    fn copied_reassertions(&self, at: &Position) -> rusqlite::Result<(Rows, Last)> {
        let sql = "SELECT DISTINCT audience, context_key FROM reassertion
             WHERE (audience, context_key) > (?1, ?2) ORDER BY audience, context_key LIMIT ?3";
        let (keys, last) = self.keys(sql, at)?;
        let copied = keys
            .into_iter()
            .map(|(audience_no, context_key)| CopiedReassertion { audience_no, context_key });
        Ok((Rows::Reassertions(copied.collect()), last))
    }

    /// Keys of members behind a position, without those of audiences that are being erased.
    fn keys(&self, sql: &str, at: &Position) -> rusqlite::Result<(Vec<(i64, String)>, Last)> {
        let mut keys: Vec<(i64, String)> = self
            .db
            .prepare_cached(sql)?
            .query_map(params![at.no, text(&at.key)?, ROWS], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        let is_last = keys.len() < ROWS;
        let last = keys.last().map(|(audience, key)| (*audience, key.clone().into_bytes()));
        keys.retain(|(audience, _)| self.audiences.contains_key(audience));
        Ok((keys, (last, is_last)))
    }

    fn copied_events(&self, at: &Position) -> rusqlite::Result<(Rows, Last)> {
        let mut statement = self.db.prepare_cached(
            "SELECT id, destination, received_at, coalesce(event_at, received_at), person, reason, detail, body
             FROM rejected WHERE id > ?1 ORDER BY id LIMIT ?2",
        )?;
        let mut rows = statement.query(params![at.no, ROWS])?;
        let (mut copied, mut seen, mut bytes, mut last) = (Vec::new(), 0, 0, None);
        while bytes < BYTES
            && let Some(row) = rows.next()?
        {
            seen += 1;
            let (id, destination_no): (i64, i64) = (row.get(0)?, row.get(1)?);
            last = Some((id, Vec::new()));
            if !self.destinations.contains_key(&destination_no) {
                continue;
            }
            let body: Vec<u8> = row.get(7)?;
            bytes += body.len();
            copied.push(CopiedEvent {
                id,
                destination_no,
                received_at: Timestamp(row.get(2)?),
                event_at: Timestamp(row.get(3)?),
                person: row.get(4)?,
                reason: without_nul(row.get(5)?),
                detail: without_nul(row.get(6)?),
                body,
            });
        }
        let is_last = bytes < BYTES && seen < ROWS;
        Ok((Rows::Events(copied), (last, is_last)))
    }

    fn copied_messages(&self, at: &Position) -> rusqlite::Result<(Rows, Last)> {
        let rows: Vec<CopiedMessage> = self
            .db
            .prepare_cached(
                "SELECT message, seen_at, counts_at FROM message WHERE message > ?1
                 ORDER BY message LIMIT ?2",
            )?
            .query_map(params![at.key, ROWS], |row| {
                Ok(CopiedMessage {
                    hash: row.get(0)?,
                    seen_at: Timestamp(row.get(1)?),
                    counts_at: Timestamp(row.get(2)?),
                })
            })?
            .collect::<Result<_, _>>()?;
        let last = rows.last().map(|row| (0, row.hash.to_vec()));
        let is_last = rows.len() < ROWS;
        Ok((Rows::Messages(rows), (last, is_last)))
    }

    fn copied_deletions(&self, at: &Position) -> rusqlite::Result<(Rows, Last)> {
        // Tombstones of older versions have no `seen_at`: their deletions counted at their arrival.
        let rows: Vec<CopiedDeletion> = self
            .db
            .prepare_cached(
                "SELECT person, forgotten_at, coalesce(seen_at, forgotten_at) FROM forgotten
                 WHERE person > ?1 ORDER BY person LIMIT ?2",
            )?
            .query_map(params![at.key, ROWS], |row| {
                Ok(CopiedDeletion {
                    person: row.get(0)?,
                    at: Timestamp(row.get(1)?),
                    arrival: Timestamp(row.get(2)?),
                })
            })?
            .collect::<Result<_, _>>()?;
        let last = rows.last().map(|row| (0, row.person.to_vec()));
        let is_last = rows.len() < ROWS;
        Ok((Rows::Deletions(rows), (last, is_last)))
    }
}

/// Who may have been in a call when the daemon ended is unheard: the marks of claims stay here.
fn as_heard(row: &AudienceRow, member: Member) -> Member {
    let through = row.claimed_through.max(row.unheard_through);
    if member.pending_since.is_none_or(|since| since > through) {
        return member;
    }
    match unheard(&member) {
        Next::Write(after) => after,
        Next::Same | Next::Delete => member,
    }
}

fn copied_walk(walk: &Walk) -> CopiedWalk {
    let Walk { task, after, since, visited, expected } = walk;
    let (task, since) = match task {
        Task::Resync => (CopiedTask::Resync, since),
        Task::Retract { through } => (CopiedTask::Retract, through),
        Task::RetractStale { current } => {
            (CopiedTask::RetractStale { current: current.clone() }, since)
        }
        Task::Reenter { since, at } => (CopiedTask::Reenter { since: *since }, at),
    };
    let after = after.clone();
    CopiedWalk { task, since: *since, after, visited: *visited, expected: *expected }
}

/// The text of a key that a position holds.
fn text(key: &[u8]) -> rusqlite::Result<String> {
    String::from_utf8(key.to_vec()).map_err(|_| checksum::corrupt("a key is no text"))
}

/// PostgreSQL takes no text with such a character.
fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}
