//! A member as a row of `member`.

use tokio_postgres::Row;

use crate::ledger::member::{Member, Told};
use crate::ledger::postgres::failure::Failure;
use crate::membership::{ContextKey, Membership, Timestamp};

/// Which bit of `flags` says what.
const IN: i32 = 1;
const TOLD_IN: i32 = 1 << 1;
const UNHEARD: i32 = 1 << 2;
const ERASE: i32 = 1 << 3;
const IS_AHEAD: i32 = 1 << 4;
const IS_EXPIRED: i32 = 1 << 5;
const HAS_LEFT: i32 = 1 << 6;

/// The columns that [`Stored::of`] reads, of a table `m`.
pub(crate) const COLUMNS: &str = "m.audience_no, m.context_key, m.event_at, m.version, m.told_at, m.pending_since, \
     m.parked_at, m.refused_with, m.flags, m.revision, m.key_rule, m.person";

/// A row: its key, the member, and how often it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub audience_no: i32,
    pub context_key: ContextKey,
    pub member: Member,
    pub revision: i32,
}

impl Stored {
    /// Reads [`COLUMNS`], which begin at the column `at`.
    pub fn of(row: &Row, at: usize) -> Result<Self, Failure> {
        let context_key: &[u8] = row.try_get(at + 1)?;
        let time = |column: usize| -> Result<Option<Timestamp>, Failure> {
            Ok(row.try_get::<_, Option<i64>>(at + column)?.map(Timestamp))
        };
        let flags: i32 = row.try_get(at + 8)?;
        let is = |flag: i32| flags & flag != 0;
        let person: Option<&[u8]> = row.try_get(at + 11)?;
        let member = Member {
            membership: Membership::from_bool(is(IN)),
            event_at: Timestamp(row.try_get(at + 2)?),
            version: Timestamp(row.try_get(at + 3)?),
            told: time(4)?.map(|at| Told { membership: Membership::from_bool(is(TOLD_IN)), at }),
            pending_since: time(5)?,
            parked_at: time(6)?,
            unheard: is(UNHEARD),
            erase: is(ERASE),
            key_rule: u32::try_from(row.try_get::<_, i64>(at + 10)?).unwrap_or_default(),
            person: person.and_then(|person| person.try_into().ok()),
            refused_with: time(7)?,
            is_ahead: is(IS_AHEAD),
            is_expired: is(IS_EXPIRED),
            has_left: is(HAS_LEFT),
        };
        let context_key = text(context_key).and_then(|key| ContextKey::new(&key));
        Ok(Self {
            audience_no: row.try_get(at)?,
            context_key: context_key.ok_or_else(damaged)?,
            member,
            revision: row.try_get(at + 9)?,
        })
    }
}

/// The text that a column of bytes holds.
pub(crate) fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

/// Somebody else has written to the tables.
pub(crate) fn damaged() -> Failure {
    Failure::Unavailable(
        "a row of the ledger holds what was never written: restore it from a backup".to_owned(),
    )
}

/// Rows to be written, column by column.
#[derive(Default)]
pub(crate) struct Columns {
    pub audience_no: Vec<i32>,
    pub context_key: Vec<Vec<u8>>,
    pub event_at: Vec<i64>,
    pub version: Vec<i64>,
    pub told_at: Vec<Option<i64>>,
    pub pending_since: Vec<Option<i64>>,
    pub parked_at: Vec<Option<i64>>,
    pub refused_with: Vec<Option<i64>>,
    pub flags: Vec<i32>,
    /// As it was read.
    pub revision: Vec<i32>,
    pub key_rule: Vec<i64>,
    pub person: Vec<Option<Vec<u8>>>,
}

impl Columns {
    pub fn push(
        &mut self,
        audience_no: i32,
        context_key: &ContextKey,
        member: &Member,
        revision: i32,
    ) {
        let time = |at: Option<Timestamp>| at.map(|at| at.0);
        let told_in = member.told.is_some_and(|told| told.membership.as_bool());
        let flags = [
            (member.membership.as_bool(), IN),
            (told_in, TOLD_IN),
            (member.unheard, UNHEARD),
            (member.erase, ERASE),
            (member.is_ahead, IS_AHEAD),
            (member.is_expired, IS_EXPIRED),
            (member.has_left, HAS_LEFT),
        ];
        self.audience_no.push(audience_no);
        self.context_key.push(context_key.as_str().as_bytes().to_vec());
        self.event_at.push(member.event_at.0);
        self.version.push(member.version.0);
        self.told_at.push(member.told.map(|told| told.at.0));
        self.pending_since.push(time(member.pending_since));
        self.parked_at.push(time(member.parked_at));
        self.refused_with.push(time(member.refused_with));
        self.flags.push(flags.iter().filter(|(is, _)| *is).map(|(_, flag)| flag).sum());
        self.revision.push(revision);
        self.key_rule.push(i64::from(member.key_rule));
        self.person.push(member.person.map(|person| person.to_vec()));
    }

    pub fn len(&self) -> usize {
        self.audience_no.len()
    }
}
