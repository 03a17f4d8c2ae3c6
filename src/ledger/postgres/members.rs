//! Members within one transaction: read, put through the rules, written.
//!
//! Rows are read without locks. Each is written under the condition that nobody has written it since; if somebody
//! has, the transaction is done again, and then no other one runs beside it ([`Lock`](super::locks::Lock)). Rows are
//! written in the order of their keys, so that two transactions do not wait for each other.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::try_join;
use tokio_postgres::types::{ToSql, Type};

use crate::ledger::counts::Counts;
use crate::ledger::member::{Member, Next};
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::pool::Tx;
use crate::ledger::postgres::rows::{COLUMNS, Columns, Stored};
use crate::ledger::{ParkReason, Turnover};
use crate::membership::{ContextKey, Timestamp};

/// A member: the number of its audience, and its context key.
pub(crate) type MemberKey = (i32, ContextKey);

/// The members that a transaction is about.
#[derive(Debug, Default)]
pub(crate) struct Members {
    slots: BTreeMap<MemberKey, Slot>,
    /// Of whom nothing is said any more, and who is spoken of.
    words: BTreeMap<MemberKey, Option<(Timestamp, ParkReason)>>,
    /// Who is to be told once more.
    reassertions: BTreeSet<MemberKey>,
}

#[derive(Debug)]
struct Slot {
    /// As it is in the table, and how often it was written.
    stored: Option<(Member, i32)>,
    now: Option<Member>,
}

/// What a transaction has changed, by the number of the audience.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Change {
    pub before: Counts,
    pub after: Counts,
    /// Rows more, or less.
    pub members: i64,
    /// A row was erased.
    pub is_erased: bool,
    pub turnover: Turnover,
}

pub(crate) type Changes = HashMap<i32, Change>;

impl Members {
    /// Reads those of these that were not read yet.
    pub async fn load(&mut self, tx: &Tx, keys: BTreeSet<MemberKey>) -> Result<(), Failure> {
        let missing: Vec<&MemberKey> =
            keys.iter().filter(|key| !self.slots.contains_key(*key)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let audiences: Vec<i32> = missing.iter().map(|key| key.0).collect();
        let context_keys: Vec<&[u8]> =
            missing.iter().map(|key| key.1.as_str().as_bytes()).collect();
        // One after the other, whatever the table holds: that is what OFFSET 0 says.
        let sql = format!(
            "SELECT m.* FROM unnest($1, $2) AS i(audience_no, context_key)
             CROSS JOIN LATERAL (SELECT {COLUMNS} FROM member m
                 WHERE m.audience_no = i.audience_no AND m.context_key = i.context_key OFFSET 0) m"
        );
        let params: [(&(dyn ToSql + Sync), Type); 2] =
            [(&audiences, Type::INT4_ARRAY), (&context_keys, Type::BYTEA_ARRAY)];
        let rows = tx.steady_query(&sql, &params).await?;
        for row in rows {
            self.add(Stored::of(&row, 0)?);
        }
        for key in keys {
            self.slots.entry(key).or_insert(Slot { stored: None, now: None });
        }
        Ok(())
    }

    /// Takes in a row that was read in this transaction.
    pub fn add(&mut self, row: Stored) {
        let Stored { audience_no, context_key, member, revision } = row;
        self.slots.entry((audience_no, context_key)).or_insert_with(|| Slot {
            now: Some(member.clone()),
            stored: Some((member, revision)),
        });
    }

    /// This one is in no table, unless it was read: its audience is new, or that is guessed.
    pub fn is_new(&mut self, key: MemberKey) {
        self.slots.entry(key).or_insert(Slot { stored: None, now: None });
    }

    /// Whether nobody of them is in the table.
    pub fn are_new(&self) -> bool {
        self.slots.values().all(|slot| slot.stored.is_none())
    }

    /// Whether each of them is there, or comes.
    pub fn are_there(&self) -> bool {
        self.slots.values().all(|slot| slot.now.is_some())
    }

    /// A member that was read.
    pub fn get(&self, key: &MemberKey) -> Option<&Member> {
        self.slots.get(key)?.now.as_ref()
    }

    /// Whether this is how a member was read.
    pub fn holds(&self, row: &Stored) -> bool {
        let key = (row.audience_no, row.context_key.clone());
        self.stored(&key).as_ref() == Some(row)
    }

    /// A member as it is in the table, once what was written is committed.
    pub fn stored(&self, (audience_no, context_key): &MemberKey) -> Option<Stored> {
        let slot = self.slots.get(&(*audience_no, context_key.clone()))?;
        let (member, revision) = slot.stored.clone()?;
        let (audience_no, context_key) = (*audience_no, context_key.clone());
        Some(Stored { audience_no, context_key, member, revision })
    }

    /// Makes a member what the rules decided.
    pub fn put(&mut self, key: &MemberKey, next: Next) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        match next {
            Next::Same => {}
            Next::Write(after) => slot.now = Some(after),
            Next::Delete => {
                slot.now = None;
                self.words.insert(key.clone(), None);
            }
        }
    }

    /// LaunchDarkly said this of a member.
    pub fn say(&mut self, key: &MemberKey, at: Timestamp, reason: &ParkReason) {
        self.words.insert(key.clone(), Some((at, reason.clone())));
    }

    /// What LaunchDarkly said of a member is erased.
    pub fn unsay(&mut self, key: &MemberKey) {
        self.words.insert(key.clone(), None);
    }

    /// A member is to be told once more.
    pub fn tell_once_more(&mut self, key: &MemberKey) {
        self.reassertions.insert(key.clone());
    }

    /// Writes what has changed.
    pub async fn flush(&mut self, tx: &Tx) -> Result<Changes, Failure> {
        let written = self.take_changed();
        written.write(tx).await?;
        Ok(written.changes)
    }

    /// What has changed, to be written.
    pub fn take_changed(&mut self) -> Changed {
        let mut all = Changed {
            words: std::mem::take(&mut self.words),
            reassertions: std::mem::take(&mut self.reassertions),
            ..Changed::default()
        };
        for ((audience, key), slot) in &mut self.slots {
            let before = slot.stored.as_ref().map(|(member, _)| member);
            if before == slot.now.as_ref() {
                continue;
            }
            let change = all.changes.entry(*audience).or_default();
            change.before += Counts::of(before);
            change.after += Counts::of(slot.now.as_ref());
            change.members += i64::from(slot.now.is_some()) - i64::from(before.is_some());
            change.turnover.change(before, slot.now.as_ref());
            let waits_as = |member: Option<&Member>| {
                let member = member?;
                Some((member.pending_since?, member.erase))
            };
            if waits_as(before) != waits_as(slot.now.as_ref()) {
                all.waits_no_more.push(*audience, key, waits_as(before));
                all.waits.push(*audience, key, waits_as(slot.now.as_ref()));
            }
            change.is_erased |= slot.now.is_none();
            match (&slot.stored, &slot.now) {
                (Some((_, revision)), Some(now)) => {
                    all.updated.push(*audience, key, now, *revision);
                }
                (Some((before, revision)), None) => {
                    all.deleted.push(*audience, key, before, *revision);
                }
                (None, Some(now)) => all.inserted.push(*audience, key, now, first_revision(now)),
                (None, None) => {}
            }
            let next = slot.stored.as_ref().map(|(_, revision)| revision.wrapping_add(1));
            slot.stored = slot.now.clone().map(|now| {
                let revision = next.unwrap_or_else(|| first_revision(&now));
                (now, revision)
            });
        }
        all
    }
}

/// With what revision a row begins. Somebody who was erased and comes again must not be taken for whom they were, so it is
/// another one each time.
fn first_revision(member: &Member) -> i32 {
    i32::try_from(member.version.0 & 0x3fff_ffff).unwrap_or_default()
}

/// What a transaction has changed of its members.
#[derive(Default)]
pub(crate) struct Changed {
    inserted: Columns,
    updated: Columns,
    deleted: Columns,
    waits_no_more: Queue,
    waits: Queue,
    words: BTreeMap<MemberKey, Option<(Timestamp, ParkReason)>>,
    reassertions: BTreeSet<MemberKey>,
    pub changes: Changes,
}

impl Changed {
    /// Writes it.
    pub async fn write(&self, tx: &Tx) -> Result<(), Failure> {
        try_join!(
            biased;
            insert(tx, &self.inserted),
            update(tx, &self.updated),
            delete(tx, &self.deleted),
            self.waits_no_more.delete(tx),
            self.waits.insert(tx),
            self.write_words(tx),
            self.write_reassertions(tx),
        )
        .map(|_| ())
    }

    async fn write_words(&self, tx: &Tx) -> Result<(), Failure> {
        let (mut silent, mut said) = (Queue::default(), Vec::new());
        for ((audience, key), words) in &self.words {
            silent.push(*audience, key, Some((Timestamp::EPOCH, false)));
            said.extend(words.as_ref().map(|words| (*audience, key, words)));
        }
        if !silent.audience_no.is_empty() {
            tx.execute(
                "DELETE FROM parked p USING unnest($1, $2) AS i(audience_no, context_key)
                 WHERE p.audience_no = i.audience_no AND p.context_key = i.context_key",
                &[
                    (&silent.audience_no, Type::INT4_ARRAY),
                    (&silent.context_key, Type::BYTEA_ARRAY),
                ],
            )
            .await?;
        }
        if said.is_empty() {
            return Ok(());
        }
        let audiences: Vec<i32> = said.iter().map(|of| of.0).collect();
        let keys: Vec<&[u8]> = said.iter().map(|of| of.1.as_str().as_bytes()).collect();
        let times: Vec<i64> = said.iter().map(|of| of.2.0.0).collect();
        let statuses: Vec<i32> = said.iter().map(|of| i32::from(of.2.1.status)).collect();
        let codes: Vec<&[u8]> = said.iter().map(|of| of.2.1.code.as_bytes()).collect();
        let messages: Vec<&[u8]> = said.iter().map(|of| of.2.1.message.as_bytes()).collect();
        let answers: Vec<&[u8]> = said.iter().map(|of| of.2.1.id.as_bytes()).collect();
        tx.execute(
            "INSERT INTO parked (audience_no, context_key, parked_at, status, code, message, answer_id)
             SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7)",
            &[
                (&audiences, Type::INT4_ARRAY),
                (&keys, Type::BYTEA_ARRAY),
                (&times, Type::INT8_ARRAY),
                (&statuses, Type::INT4_ARRAY),
                (&codes, Type::BYTEA_ARRAY),
                (&messages, Type::BYTEA_ARRAY),
                (&answers, Type::BYTEA_ARRAY),
            ],
        )
        .await?;
        Ok(())
    }

    async fn write_reassertions(&self, tx: &Tx) -> Result<(), Failure> {
        let mut all = Queue::default();
        for (audience, key) in &self.reassertions {
            all.push(*audience, key, Some((Timestamp::EPOCH, false)));
        }
        if !all.audience_no.is_empty() {
            tx.execute(
                "INSERT INTO reassertion (audience_no, context_key) SELECT * FROM unnest($1, $2)
                 ON CONFLICT DO NOTHING",
                &[(&all.audience_no, Type::INT4_ARRAY), (&all.context_key, Type::BYTEA_ARRAY)],
            )
            .await?;
        }
        Ok(())
    }
}

/// Rows of the queue.
#[derive(Default)]
struct Queue {
    audience_no: Vec<i32>,
    since: Vec<i64>,
    context_key: Vec<Vec<u8>>,
    /// They are told although their audience is held.
    passes_guard: Vec<bool>,
}

impl Queue {
    fn push(&mut self, audience: i32, key: &ContextKey, waits_as: Option<(Timestamp, bool)>) {
        let Some((since, passes_guard)) = waits_as else { return };
        self.passes_guard.push(passes_guard);
        self.audience_no.push(audience);
        self.since.push(since.0);
        self.context_key.push(key.as_str().as_bytes().to_vec());
    }

    async fn delete(&self, tx: &Tx) -> Result<(), Failure> {
        if self.since.is_empty() {
            return Ok(());
        }
        let sql = "DELETE FROM pending p USING unnest($1, $2, $3) AS i(audience_no, since, context_key)
             WHERE p.audience_no = i.audience_no AND p.since = i.since AND p.context_key = i.context_key";
        let params: [(&(dyn ToSql + Sync), Type); 3] = [
            (&self.audience_no, Type::INT4_ARRAY),
            (&self.since, Type::INT8_ARRAY),
            (&self.context_key, Type::BYTEA_ARRAY),
        ];
        tx.execute(sql, &params).await.map(|_| ())
    }

    /// In the order in which they wait: each row comes behind the one before it, in the index too.
    async fn insert(&self, tx: &Tx) -> Result<(), Failure> {
        if self.since.is_empty() {
            return Ok(());
        }
        let sql = "INSERT INTO pending (audience_no, since, context_key, passes_guard)
             SELECT * FROM unnest($1, $2, $3, $4) AS i(audience_no, since, context_key, passes_guard)
             ORDER BY audience_no, since";
        let params: [(&(dyn ToSql + Sync), Type); 4] = [
            (&self.audience_no, Type::INT4_ARRAY),
            (&self.since, Type::INT8_ARRAY),
            (&self.context_key, Type::BYTEA_ARRAY),
            (&self.passes_guard, Type::BOOL_ARRAY),
        ];
        tx.steady_execute(sql, &params).await.map(|_| ())
    }
}

/// The parameters of a statement that writes members.
macro_rules! written {
    ($columns:expr) => {
        &[
            (&$columns.audience_no, Type::INT4_ARRAY),
            (&$columns.context_key, Type::BYTEA_ARRAY),
            (&$columns.event_at, Type::INT8_ARRAY),
            (&$columns.version, Type::INT8_ARRAY),
            (&$columns.told_at, Type::INT8_ARRAY),
            (&$columns.pending_since, Type::INT8_ARRAY),
            (&$columns.parked_at, Type::INT8_ARRAY),
            (&$columns.refused_with, Type::INT8_ARRAY),
            (&$columns.flags, Type::INT4_ARRAY),
            (&$columns.revision, Type::INT4_ARRAY),
            (&$columns.key_rule, Type::INT8_ARRAY),
            (&$columns.person, Type::BYTEA_ARRAY),
        ]
    };
}

async fn insert(tx: &Tx, new: &Columns) -> Result<(), Failure> {
    if new.len() == 0 {
        return Ok(());
    }
    let sql = "INSERT INTO member (audience_no, context_key, event_at, version, told_at, pending_since, parked_at,
             refused_with, flags, revision, key_rule, person)
         SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
         ON CONFLICT DO NOTHING";
    all_of(new, tx.steady_execute(sql, written!(new)).await?)
}

async fn update(tx: &Tx, changed: &Columns) -> Result<(), Failure> {
    if changed.len() == 0 {
        return Ok(());
    }
    let sql = "UPDATE member m SET event_at = i.event_at, version = i.version, told_at = i.told_at,
             pending_since = i.pending_since, parked_at = i.parked_at, refused_with = i.refused_with,
             flags = i.flags, revision = m.revision + 1, key_rule = i.key_rule, person = i.person
         FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
             AS i(audience_no, context_key, event_at, version, told_at, pending_since, parked_at, refused_with, flags,
                 revision, key_rule, person)
         WHERE m.audience_no = i.audience_no AND m.context_key = i.context_key AND m.revision = i.revision";
    all_of(changed, tx.execute(sql, written!(changed)).await?)
}

async fn delete(tx: &Tx, gone: &Columns) -> Result<(), Failure> {
    if gone.len() == 0 {
        return Ok(());
    }
    let sql = "DELETE FROM member m USING unnest($1, $2, $3) AS i(audience_no, context_key, revision)
         WHERE m.audience_no = i.audience_no AND m.context_key = i.context_key AND m.revision = i.revision";
    let params: [(&(dyn ToSql + Sync), Type); 3] = [
        (&gone.audience_no, Type::INT4_ARRAY),
        (&gone.context_key, Type::BYTEA_ARRAY),
        (&gone.revision, Type::INT4_ARRAY),
    ];
    all_of(gone, tx.execute(sql, &params).await?)
}

fn all_of(columns: &Columns, rows: u64) -> Result<(), Failure> {
    if rows == columns.len() as u64 { Ok(()) } else { Err(Failure::overtaken()) }
}
