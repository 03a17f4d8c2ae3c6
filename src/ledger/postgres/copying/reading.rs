//! The ledger as rows of no store's own, a page at a time.

use std::collections::BTreeSet;

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::ledger::ParkReason;
use crate::ledger::copied::{
    CopiedAudience, CopiedDeletion, CopiedDestination, CopiedEvent, CopiedMember, CopiedMessage,
    CopiedParking, CopiedReassertion, CopiedTask, CopiedWalk, Kind, Page, Position, Rows,
};
use crate::ledger::guard::Guard;
use crate::ledger::hashes::Hash;
use crate::ledger::member::{self, Next};
use crate::ledger::postgres::copying::{Calls, DatabaseCopy, keep_mark};
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::members::Members;
use crate::ledger::postgres::places::Place;
use crate::ledger::postgres::pool::{Tx, transact};
use crate::ledger::postgres::rows::{COLUMNS, Stored, damaged, text};
use crate::ledger::postgres::walk::{Task, Walk};
use crate::membership::{ContextKey, DestinationName, Timestamp};

/// Rows of one page.
const ROWS: i64 = if cfg!(test) { 4 } else { 5000 };
/// Bytes of rejected events in one page, but for the last of them.
const BYTES: i64 = if cfg!(test) { 8 } else { 1 << 20 };

/// The row that was read last, and whether there is none behind it.
type Last = (Option<(i64, Vec<u8>)>, bool);

impl DatabaseCopy {
    /// The rows behind a position.
    ///
    /// # Errors
    /// They cannot be read; [`Failure::Stale`]: a replica has been there since the copy was begun.
    pub async fn page(&mut self, at: &Position) -> Result<Page, Failure> {
        if at.kind == Kind::Destinations || self.destinations.is_empty() {
            self.know().await?;
        }
        let (rows, (last, is_last)) = transact!(self.pool, |tx, _attempt| self.read(&tx, at))?;
        Ok(Page { rows, next: at.behind(last, is_last) })
    }

    /// Reads the destinations and audiences that there are now, and who is in a call.
    async fn know(&mut self) -> Result<(), Failure> {
        let know = async |tx: &Tx| -> Result<_, Failure> {
            let (mut destinations, mut audiences) = (Vec::new(), Vec::new());
            for row in tx.query("SELECT no, name FROM destination ORDER BY no", &[]).await? {
                let (no, name): (i32, &str) = (row.try_get(0)?, row.try_get(1)?);
                let name = DestinationName::new(name).ok_or_else(damaged)?;
                let places = Place::all(tx, &name, no).await?;
                audiences.extend(places.into_iter().map(|place| (no, place)));
                destinations.push((no, name));
            }
            audiences.sort_by_key(|(_, place)| place.no);
            Ok((destinations, audiences, calls(tx).await?))
        };
        (self.destinations, self.audiences, self.calls) =
            transact!(self.pool, |tx, _attempt| know(&tx))?;
        Ok(())
    }

    async fn read(&self, tx: &Tx, at: &Position) -> Result<(Rows, Last), Failure> {
        keep_mark(tx, self.copy.as_deref()).await?;
        match at.kind {
            Kind::Destinations => Ok((copied_destinations(tx).await?, (None, true))),
            Kind::Audiences => Ok(self.copied_audiences(at)),
            Kind::Members => self.copied_members(tx, at).await,
            Kind::Parkings => self.copied_parkings(tx, at).await,
            Kind::Reassertions => self.copied_reassertions(tx, at).await,
            Kind::Events => copied_events(tx, at).await,
            Kind::Messages => self.copied_messages(tx, at).await,
            Kind::Deletions => self.copied_deletions(tx, at).await,
        }
    }

    fn is_known(&self, audience_no: i32) -> bool {
        self.audiences.binary_search_by_key(&audience_no, |(_, place)| place.no).is_ok()
    }

    fn copied_audiences(&self, at: &Position) -> (Rows, Last) {
        let behind = self.audiences.partition_point(|(_, place)| i64::from(place.no) <= at.no);
        let most = usize::try_from(ROWS).unwrap_or(usize::MAX);
        let rows: Vec<CopiedAudience> = self.audiences[behind..]
            .iter()
            .take(most)
            .map(|(destination_no, place)| copied_audience(*destination_no, place))
            .collect();
        let last = rows.last().map(|row| (row.no, Vec::new()));
        let is_last = rows.len() < most;
        (Rows::Audiences(rows), (last, is_last))
    }

    async fn copied_members(&self, tx: &Tx, at: &Position) -> Result<(Rows, Last), Failure> {
        let sql = format!(
            "SELECT {COLUMNS} FROM member m WHERE (m.audience_no, m.context_key) > ($1, $2)
             ORDER BY m.audience_no, m.context_key LIMIT $3"
        );
        let rows = tx.query(&sql, &behind(&number(at), &at.key)).await?;
        let last = last_of(&rows)?;
        let mut copied = Vec::with_capacity(rows.len());
        for row in &rows {
            let Stored { audience_no, context_key, mut member, .. } = Stored::of(row, 0)?;
            if !self.is_known(audience_no) {
                continue;
            }
            if !self.calls.of.is_empty() {
                let key = (audience_no, context_key.as_str().to_owned());
                let next = match self.calls.of.get(&key) {
                    None => Next::Same,
                    Some(false) => member::unheard(&member),
                    Some(true) => member::told_late(&member).0,
                };
                if let Next::Write(after) = next {
                    member = after;
                }
            }
            copied.push(CopiedMember { audience_no: audience_no.into(), context_key, member });
        }
        Ok((Rows::Members(copied), last))
    }

    async fn copied_parkings(&self, tx: &Tx, at: &Position) -> Result<(Rows, Last), Failure> {
        let sql = "SELECT audience_no, context_key, parked_at, status, code, message, answer_id FROM parked
             WHERE (audience_no, context_key) > ($1, $2) ORDER BY audience_no, context_key LIMIT $3";
        let rows = tx.query(sql, &behind(&number(at), &at.key)).await?;
        let last = last_of(&rows)?;
        let mut copied = Vec::with_capacity(rows.len());
        for row in &rows {
            let audience_no: i32 = row.try_get(0)?;
            let word = |column| -> Result<String, Failure> {
                text(row.try_get(column)?).ok_or_else(damaged)
            };
            let reason = ParkReason {
                status: u16::try_from(row.try_get::<_, i32>(3)?).map_err(|_| damaged())?,
                code: word(4)?,
                message: word(5)?,
                id: word(6)?,
            };
            let (at, context_key) = (Timestamp(row.try_get(2)?), word(1)?);
            if self.is_known(audience_no) {
                let audience_no = audience_no.into();
                copied.push(CopiedParking { audience_no, context_key, at, reason });
            }
        }
        Ok((Rows::Parkings(copied), last))
    }

    async fn copied_reassertions(&self, tx: &Tx, at: &Position) -> Result<(Rows, Last), Failure> {
        let (audiences, keys): (Vec<i32>, Vec<&[u8]>) =
            self.calls.again.iter().map(|(no, key)| (*no, key.as_bytes())).unzip();
        let sql = "SELECT audience_no, context_key FROM (
                 SELECT audience_no, context_key FROM reassertion UNION SELECT * FROM unnest($4, $5)
             ) r WHERE (audience_no, context_key) > ($1, $2) ORDER BY audience_no, context_key LIMIT $3";
        let number = number(at);
        let [first, second, third] = behind(&number, &at.key);
        let params =
            [first, second, third, (&audiences as _, Type::INT4_ARRAY), (&keys, Type::BYTEA_ARRAY)];
        let rows = tx.query(sql, &params).await?;
        let last = last_of(&rows)?;
        let mut copied = Vec::with_capacity(rows.len());
        for row in &rows {
            let audience_no: i32 = row.try_get(0)?;
            let context_key = text(row.try_get(1)?).ok_or_else(damaged)?;
            if self.is_known(audience_no) {
                copied.push(CopiedReassertion { audience_no: audience_no.into(), context_key });
            }
        }
        Ok((Rows::Reassertions(copied), last))
    }

    /// A message may be there for several destinations, of which only one has it ([`writing`](super::writing)).
    async fn copied_messages(&self, tx: &Tx, at: &Position) -> Result<(Rows, Last), Failure> {
        let sql = "SELECT h.hash, m.seen_at, m.counts_at FROM (
                 SELECT DISTINCT i.hash FROM unnest($1) AS d(no)
                 CROSS JOIN LATERAL (SELECT hash FROM message WHERE destination_no = d.no AND hash > $2
                     ORDER BY hash LIMIT $3) i ORDER BY i.hash LIMIT $3
             ) h CROSS JOIN LATERAL (
                 SELECT seen_at, counts_at FROM message WHERE destination_no = ANY($1) AND hash = h.hash
                 ORDER BY seen_at DESC LIMIT 1
             ) m ORDER BY h.hash";
        let rows = tx.query(sql, &hashes_behind(&self.numbers(), &at.key)).await?;
        let mut copied = Vec::with_capacity(rows.len());
        for row in &rows {
            let (hash, seen_at) = (hash(row)?, Timestamp(row.try_get(1)?));
            let counts_at = Timestamp(row.try_get(2)?);
            copied.push(CopiedMessage { hash, seen_at, counts_at });
        }
        let last = copied.last().map(|row| (0, row.hash.to_vec()));
        Ok((Rows::Messages(copied), (last, is_short(&rows))))
    }

    /// The same holds of a deletion.
    async fn copied_deletions(&self, tx: &Tx, at: &Position) -> Result<(Rows, Last), Failure> {
        let sql = "SELECT h.person, m.at, m.arrival FROM (
                 SELECT DISTINCT i.person FROM unnest($1) AS d(no)
                 CROSS JOIN LATERAL (SELECT person FROM deleted WHERE destination_no = d.no AND person > $2
                     ORDER BY person LIMIT $3) i ORDER BY i.person LIMIT $3
             ) h CROSS JOIN LATERAL (
                 SELECT max(at) AS at, max(arrival) AS arrival FROM deleted
                 WHERE destination_no = ANY($1) AND person = h.person
             ) m ORDER BY h.person";
        let rows = tx.query(sql, &hashes_behind(&self.numbers(), &at.key)).await?;
        let mut copied = Vec::with_capacity(rows.len());
        for row in &rows {
            let (person, at) = (hash(row)?, Timestamp(row.try_get(1)?));
            copied.push(CopiedDeletion { person, at, arrival: Timestamp(row.try_get(2)?) });
        }
        let last = copied.last().map(|row| (0, row.person.to_vec()));
        Ok((Rows::Deletions(copied), (last, is_short(&rows))))
    }

    fn numbers(&self) -> Vec<i32> {
        self.destinations.iter().map(|(no, _)| *no).collect()
    }
}

/// The number of a position, as the tables have it.
fn number(at: &Position) -> i32 {
    i32::try_from(at.no).unwrap_or(i32::MIN)
}

fn behind<'a>(number: &'a i32, key: &'a Vec<u8>) -> [(&'a (dyn ToSql + Sync), Type); 3] {
    [(number, Type::INT4), (key, Type::BYTEA), (&ROWS, Type::INT8)]
}

fn hashes_behind<'a>(
    numbers: &'a Vec<i32>,
    hash: &'a Vec<u8>,
) -> [(&'a (dyn ToSql + Sync), Type); 3] {
    [(numbers, Type::INT4_ARRAY), (hash, Type::BYTEA), (&ROWS, Type::INT8)]
}

/// The audience and the context key of the last row.
fn last_of(rows: &[Row]) -> Result<Last, Failure> {
    let last = match rows.last() {
        Some(row) => Some((row.try_get::<_, i32>(0)?.into(), row.try_get(1)?)),
        None => None,
    };
    Ok((last, is_short(rows)))
}

fn is_short(rows: &[Row]) -> bool {
    i64::try_from(rows.len()).is_ok_and(|rows| rows < ROWS)
}

fn hash(row: &Row) -> Result<Hash, Failure> {
    row.try_get::<_, &[u8]>(0)?.try_into().map_err(|_| damaged())
}

/// Who is in a call: what the next owner would take in ([`calls`](crate::ledger::postgres::calls)).
async fn calls(tx: &Tx) -> Result<Calls, Failure> {
    let sql = "SELECT a.no, k, bool_or(c.is_late) FROM call_out c
         JOIN audience a ON a.destination_no = c.destination_no AND a.audience_id = c.audience_id AND NOT a.is_erased,
         unnest(c.context_keys) k GROUP BY a.no, k";
    let mut calls = Calls::default();
    let mut late = BTreeSet::new();
    for row in tx.query(sql, &[]).await? {
        let (no, key) = (row.try_get(0)?, text(row.try_get(1)?).ok_or_else(damaged)?);
        let is_late: bool = row.try_get(2)?;
        if is_late {
            late.insert((no, ContextKey::new(&key).ok_or_else(damaged)?));
        }
        calls.of.insert((no, key), is_late);
    }
    let mut members = Members::default();
    members.load(tx, late.clone()).await?;
    let again =
        late.into_iter().filter(|key| members.get(key).is_some_and(|of| member::told_late(of).1));
    calls.again = again.map(|(no, key)| (no, key.as_str().to_owned())).collect();
    Ok(calls)
}

async fn copied_destinations(tx: &Tx) -> Result<Rows, Failure> {
    let sql = "SELECT no, name, environment, paused_since FROM destination ORDER BY no";
    let copied = |row: &Row| -> Result<CopiedDestination, Failure> {
        Ok(CopiedDestination {
            no: row.try_get::<_, i32>(0)?.into(),
            name: row.try_get(1)?,
            environment: row.try_get(2)?,
            paused_since: row.try_get::<_, Option<i64>>(3)?.map(Timestamp),
        })
    };
    Ok(Rows::Destinations(tx.query(sql, &[]).await?.iter().map(copied).collect::<Result<_, _>>()?))
}

fn copied_audience(destination_no: i32, place: &Place) -> CopiedAudience {
    let route = &place.route;
    CopiedAudience {
        no: place.no.into(),
        destination_no: destination_no.into(),
        audience_id: route.audience.as_str().to_owned(),
        audience_key: route.audience_key.as_str().to_owned(),
        context_kind: route.context_kind.as_str().to_owned(),
        acknowledged: place.acknowledged,
        told_counts_from: place.told_counts_from,
        snapshot_at: place.snapshot_at,
        guard: (place.guard != Guard::default()).then(|| place.guard.to_string()),
        walk: place.walk.as_ref().map(copied_walk),
    }
}

fn copied_walk(walk: &Walk) -> CopiedWalk {
    let Walk { task, since, after, visited, expected } = walk;
    let task = match task {
        Task::Resync => CopiedTask::Resync,
        Task::Retract => CopiedTask::Retract,
        Task::RetractStale(rules) => CopiedTask::RetractStale {
            current: rules.iter().filter_map(|rule| u32::try_from(*rule).ok()).collect(),
        },
        Task::Reenter { since } => CopiedTask::Reenter { since: *since },
    };
    let (visited, expected) = (visited.unsigned_abs(), expected.unsigned_abs());
    CopiedWalk { task, since: *since, after: text(after).unwrap_or_default(), visited, expected }
}

async fn copied_events(tx: &Tx, at: &Position) -> Result<(Rows, Last), Failure> {
    let sql = "SELECT id, destination_no, received_at, event_at, person, reason, detail, body FROM (
             SELECT r.*, coalesce(sum(length(body)) OVER (ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
                 0) AS bytes
             FROM (SELECT * FROM rejected WHERE id > $1 ORDER BY id LIMIT $2) r
         ) r WHERE bytes < $3 ORDER BY id";
    let params: [(&(dyn ToSql + Sync), Type); 3] =
        [(&at.no, Type::INT8), (&ROWS, Type::INT8), (&BYTES, Type::INT8)];
    let mut copied = Vec::new();
    for row in &tx.query(sql, &params).await? {
        let person: Option<&[u8]> = row.try_get(4)?;
        copied.push(CopiedEvent {
            id: row.try_get(0)?,
            destination_no: row.try_get::<_, i32>(1)?.into(),
            received_at: Timestamp(row.try_get(2)?),
            event_at: Timestamp(row.try_get(3)?),
            person: person.map(|person| person.try_into().map_err(|_| damaged())).transpose()?,
            reason: row.try_get(5)?,
            detail: row.try_get(6)?,
            body: row.try_get(7)?,
        });
    }
    let last = copied.last().map(|row| (row.id, Vec::new()));
    let is_last = copied.is_empty(); // fewer may be all, or large
    Ok((Rows::Events(copied), (last, is_last)))
}
