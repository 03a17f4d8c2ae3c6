//! Rows of members: read one, write one, find the pending ones. No rule is decided here.

use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, Statement, ToSql, params};

use crate::ledger::embedded::ids::AudienceRowId;
use crate::ledger::embedded::tables::checksum::{self, Checksum};
use crate::ledger::member::{Member, Told};
use crate::membership::{Membership, Timestamp};

const UNHEARD: i64 = 1;
const ERASE: i64 = 2;
const AHEAD: i64 = 4;
const EXPIRED: i64 = 8;
const HAS_LEFT: i64 = 16;

/// The columns that [`from_row`] expects, in its order.
macro_rules! columns {
    () => {
        "included, event_at, version, told, told_at, pending_since, parked_at, flags, key_rule,
         person, refused_with, checksum"
    };
}

/// Inserts the members of these `values`. The columns are in the order of the table, so that SQLite takes the
/// values from where they are bound. `OR FAIL`, because a failed transaction is rolled back as a whole:
/// SQLite need not be able to undo a single statement.
macro_rules! insert {
    ($($members:expr),+) => {
        concat!(
            "INSERT OR FAIL INTO member (audience, context_key, included, event_at, version, told,
                 told_at, pending_since, parked_at, flags, key_rule, person, refused_with, checksum)
             VALUES ",
            $($members),+
        )
    };
}

/// The placeholders of one member, as [`bind`] fills them, or of four.
macro_rules! values {
    () => {
        "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    };
    (4) => {
        concat!(values!(), ", ", values!(), ", ", values!(), ", ", values!())
    };
}
const VALUES: usize = 14;

/// Members inserted with one statement if there are as many: a fifth faster than one by one.
pub(crate) const TOGETHER: usize = 8;

/// The member, if the ledger knows it.
pub(crate) fn load(
    db: &Connection,
    audience: AudienceRowId,
    key: &str,
) -> rusqlite::Result<Option<Member>> {
    db.prepare_cached(concat!(
        "SELECT ",
        columns!(),
        " FROM member WHERE audience = ?1 AND context_key = ?2"
    ))?
    .query_row(params![audience, key], |row| from_row(row, audience, key))
    .optional()
}

/// Up to `limit` members of all audiences after `after`, in table order.
pub(crate) fn walk(
    db: &Connection,
    after: (AudienceRowId, &str),
    limit: usize,
) -> rusqlite::Result<Vec<(AudienceRowId, String, Member)>> {
    let mut last = (after.0, after.1.to_owned());
    db.prepare_cached(concat!(
        "SELECT ",
        columns!(),
        ", audience, context_key FROM member WHERE (audience, context_key) > (?1, ?2)
         ORDER BY audience, context_key LIMIT ?3"
    ))?
    .query_map(params![after.0, after.1, limit], |row| {
        let place: (AudienceRowId, String) = (row.get(12)?, row.get(13)?);
        in_order(&last, &place)?;
        last.clone_from(&place);
        let member = from_row(row, place.0, &place.1)?;
        Ok((place.0, place.1, member))
    })?
    .collect()
}

/// Up to `limit` members of one audience after `after`, in key order.
pub(crate) fn walk_in(
    db: &Connection,
    audience: AudienceRowId,
    after: &str,
    limit: usize,
) -> rusqlite::Result<Vec<(String, Member)>> {
    let mut last = after.to_owned();
    db.prepare_cached(concat!(
        "SELECT ",
        columns!(),
        ", context_key FROM member WHERE audience = ?1 AND context_key > ?2
         ORDER BY context_key LIMIT ?3"
    ))?
    .query_map(params![audience, after, limit], |row| {
        let key: String = row.get(12)?;
        in_order(&last, &key)?;
        last.clone_from(&key);
        let member = from_row(row, audience, &key)?;
        Ok((key, member))
    })?
    .collect()
}

/// Each row of a walk comes behind the one before. A page in the wrong place breaks that order, and a walk that went
/// on from such a row might never end.
fn in_order<K: Ord>(last: &K, next: &K) -> rusqlite::Result<()> {
    if last < next {
        Ok(())
    } else {
        Err(checksum::corrupt("the rows of members are out of order"))
    }
}

/// The members, of all audiences, with this hash of a person.
pub(crate) fn of_person(
    db: &Connection,
    person: [u8; 16],
) -> rusqlite::Result<Vec<(AudienceRowId, String)>> {
    db.prepare_cached("SELECT audience, context_key FROM member WHERE person = ?1")?
        .query_map([person], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

fn from_row(row: &Row<'_>, audience: AudienceRowId, key: &str) -> rusqlite::Result<Member> {
    let told: Option<bool> = row.get(3)?;
    let told_at: Option<i64> = row.get(4)?;
    let flags: i64 = row.get(7)?;
    let member = Member {
        membership: Membership::from_bool(row.get(0)?),
        event_at: Timestamp(row.get(1)?),
        version: Timestamp(row.get(2)?),
        told: told
            .zip(told_at)
            .map(|(told, at)| Told { membership: Membership::from_bool(told), at: Timestamp(at) }),
        pending_since: row.get::<_, Option<i64>>(5)?.map(Timestamp),
        parked_at: row.get::<_, Option<i64>>(6)?.map(Timestamp),
        unheard: flags & UNHEARD != 0,
        erase: flags & ERASE != 0,
        key_rule: row.get(8)?,
        person: row.get(9)?,
        refused_with: row.get::<_, Option<i64>>(10)?.map(Timestamp),
        is_ahead: flags & AHEAD != 0,
        is_expired: flags & EXPIRED != 0,
        has_left: flags & HAS_LEFT != 0,
    };
    checksum::verify(row.get(11)?, || checksum_of(audience, key, &member), "a member")?;
    Ok(member)
}

fn checksum_of(audience: AudienceRowId, key: &str, member: &Member) -> u32 {
    let stamp = |at: Timestamp| at.0;
    let told = member.told.map(|told| i64::from(told.membership.as_bool()));
    Checksum::new()
        .number(audience.0)
        .text(key)
        .number(i64::from(member.membership.as_bool()))
        .number(member.event_at.0)
        .number(member.version.0)
        .maybe(told)
        .maybe(member.told.map(|told| told.at.0))
        .maybe(member.pending_since.map(stamp))
        .maybe(member.parked_at.map(stamp))
        .number(flags_of(member))
        .number(i64::from(member.key_rule))
        .bytes(member.person.as_ref().map_or(&[], |person| &person[..]))
        .maybe(member.refused_with.map(stamp))
        .finish()
}

fn flags_of(member: &Member) -> i64 {
    i64::from(member.unheard) * UNHEARD
        + i64::from(member.erase) * ERASE
        + i64::from(member.is_ahead) * AHEAD
        + i64::from(member.is_expired) * EXPIRED
        + i64::from(member.has_left) * HAS_LEFT
}

/// What must be known of a stored row to update it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// It has the same `pending_since` as what is written, or neither is pending.
    pub keeps_since: bool,
}

/// Stores what the rules decided; `None` stands for no row.
pub(crate) fn store(
    db: &Connection,
    audience: AudienceRowId,
    key: &str,
    before: Option<&Member>,
    after: Option<&Member>,
) -> rusqlite::Result<()> {
    let since = |member: Option<&Member>| member.and_then(|member| member.pending_since);
    let stored = before.map(|_| Stored { keeps_since: since(before) == since(after) });
    Storing::into(db).store(audience, key, stored, after)
}

/// Stores rows one after the other; neighbours mostly use the same prepared statement.
pub(crate) struct Storing<'a> {
    db: &'a Connection,
    last: Option<(&'static str, CachedStatement<'a>)>,
}

impl<'a> Storing<'a> {
    pub fn into(db: &'a Connection) -> Self {
        Self { db, last: None }
    }

    /// See [`store`].
    pub fn store(
        &mut self,
        audience: AudienceRowId,
        key: &str,
        before: Option<Stored>,
        after: Option<&Member>,
    ) -> rusqlite::Result<()> {
        let Some(after) = after else {
            self.db
                .prepare_cached("DELETE FROM member WHERE audience = ?1 AND context_key = ?2")?
                .execute(params![audience, key])?;
            return Ok(());
        };
        let sql = match before {
            None => insert!(values!()),
            // Leaving out `pending_since` saves a delete and an insert in the index of pending members.
            Some(Stored { keeps_since: true }) => {
                "UPDATE member SET included = ?3, event_at = ?4, version = ?5, told = ?6,
                     told_at = ?7, parked_at = ?9, flags = ?10, key_rule = ?11, person = ?12,
                     refused_with = ?13, checksum = ?14
                 WHERE audience = ?1 AND context_key = ?2 AND pending_since IS ?8"
            }
            Some(Stored { keeps_since: false }) => {
                "UPDATE member SET included = ?3, event_at = ?4, version = ?5, told = ?6,
                     told_at = ?7, pending_since = ?8, parked_at = ?9, flags = ?10, key_rule = ?11,
                     person = ?12, refused_with = ?13, checksum = ?14
                 WHERE audience = ?1 AND context_key = ?2"
            }
        };
        write(self.statement(sql)?, audience, key, after)?;
        Ok(())
    }

    /// Starts an insert of [`TOGETHER`] members that have no row.
    pub fn insert_together(&mut self) -> rusqlite::Result<Together<'_, 'a>> {
        let sql = insert!(values!(4), ", ", values!(4));
        Ok(Together { statement: self.statement(sql)?, bound: 0 })
    }

    fn statement(&mut self, sql: &'static str) -> rusqlite::Result<&mut Statement<'a>> {
        if self.last.as_ref().is_none_or(|(last, _)| *last != sql) {
            self.last = Some((sql, self.db.prepare_cached(sql)?));
        }
        Ok(&mut self.last.as_mut().expect("there is one now").1)
    }
}

/// Members that are inserted with one statement.
pub(crate) struct Together<'s, 'a> {
    statement: &'s mut Statement<'a>,
    bound: usize,
}

impl Together<'_, '_> {
    /// Binds the next member.
    pub fn add(
        &mut self,
        audience: AudienceRowId,
        key: &str,
        member: &Member,
    ) -> rusqlite::Result<()> {
        bind(self.statement, self.bound, audience, key, member)?;
        self.bound += 1;
        Ok(())
    }

    /// Executes the statement after the last member.
    pub fn insert(self) -> rusqlite::Result<()> {
        debug_assert_eq!(self.bound, TOGETHER, "what is not bound is not a member");
        self.statement.raw_execute().map(|_| ())
    }
}

/// Executes a statement with one member; returns how many rows were written.
fn write(
    statement: &mut Statement<'_>,
    audience: AudienceRowId,
    key: &str,
    member: &Member,
) -> rusqlite::Result<usize> {
    bind(statement, 0, audience, key, member)?;
    statement.raw_execute()
}

/// Binds the values of a member, after those of `others` members.
fn bind(
    statement: &mut Statement<'_>,
    others: usize,
    audience: AudienceRowId,
    key: &str,
    member: &Member,
) -> rusqlite::Result<()> {
    let mut values = Values { statement, last: others * VALUES };
    values.add(audience)?;
    values.add(key)?;
    values.add(member.membership.as_bool())?;
    values.add(member.event_at.0)?;
    values.add(member.version.0)?;
    values.add(member.told.map(|told| told.membership.as_bool()))?;
    values.add(member.told.map(|told| told.at.0))?;
    values.add(member.pending_since.map(|since| since.0))?;
    values.add(member.parked_at.map(|at| at.0))?;
    values.add(flags_of(member))?;
    values.add(member.key_rule)?;
    values.add(member.person)?;
    values.add(member.refused_with.map(|with| with.0))?;
    values.add(checksum_of(audience, key, member))
}

/// Binds one value after the other.
struct Values<'s, 'a> {
    statement: &'s mut Statement<'a>,
    last: usize,
}

impl Values<'_, '_> {
    fn add(&mut self, value: impl ToSql) -> rusqlite::Result<()> {
        self.last += 1;
        self.statement.raw_bind_parameter(self.last, value)
    }
}

/// Shows the members of an audience that are pending since later than `after` to `visit`, the longest pending
/// first, until it returns `false`.
pub(crate) fn visit_pending(
    db: &Connection,
    audience: AudienceRowId,
    after: Timestamp,
    mut visit: impl FnMut(&str, &Member) -> bool,
) -> rusqlite::Result<()> {
    let mut statement = db.prepare_cached(concat!(
        "SELECT ",
        columns!(),
        ", context_key FROM member WHERE audience = ?1 AND pending_since > ?2
         ORDER BY pending_since"
    ))?;
    let mut rows = statement.query(params![audience, after.0])?;
    while let Some(row) = rows.next()? {
        let key: String = row.get(12)?;
        if !visit(&key, &from_row(row, audience, &key)?) {
            break;
        }
    }
    Ok(())
}

/// How many members of an audience are pending.
pub(crate) fn count_pending(db: &Connection, audience: AudienceRowId) -> rusqlite::Result<u64> {
    db.prepare_cached(
        "SELECT count(*) FROM member WHERE audience = ?1 AND pending_since IS NOT NULL",
    )?
    .query_row(params![audience], |row| row.get(0))
}

/// Whether the audience has any member row.
pub(crate) fn any(db: &Connection, audience: AudienceRowId) -> rusqlite::Result<bool> {
    db.prepare_cached("SELECT EXISTS (SELECT 1 FROM member WHERE audience = ?1)")?
        .query_row(params![audience], |row| row.get(0))
}

/// Whether any member of the audience is pending.
pub(crate) fn any_pending(db: &Connection, audience: AudienceRowId) -> rusqlite::Result<bool> {
    db.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM member WHERE audience = ?1 AND pending_since IS NOT NULL)",
    )?
    .query_row(params![audience], |row| row.get(0))
}
