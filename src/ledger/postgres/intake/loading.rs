//! What a group has to know before anything of it is applied: its messages, and deletions of its people.

use std::collections::{BTreeSet, HashMap};

use tokio_postgres::types::{ToSql, Type};

use crate::ledger::Intake;
use crate::ledger::deletion::Tombstone;
use crate::ledger::hashes::Hash;
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::pool::Tx;
use crate::ledger::postgres::rows::damaged;
use crate::ledger::postgres::shared::Shared;
use crate::membership::{MembershipDelta, MessageHash, Timestamp, UserId};

/// Messages of a destination that were recorded before.
pub(super) async fn messages(
    shared: &Shared,
    tx: &Tx,
    no: i32,
    intakes: &[&Intake],
) -> Result<HashMap<MessageHash, (Timestamp, Timestamp)>, Failure> {
    let of_deltas = intakes.iter().flat_map(|intake| &intake.deltas);
    let of_deltas = of_deltas.filter_map(|delta| Some(delta.message?.hash));
    let of_deletions = intakes.iter().flat_map(|intake| &intake.deletions);
    let of_deletions = of_deletions.filter_map(|ordered| ordered.deletion.message);
    let by_hash: HashMap<Hash, MessageHash> = of_deltas
        .chain(of_deletions)
        .map(|message| (shared.hashes.message(no.into(), &message.0), message))
        .collect();
    let mut messages = HashMap::new();
    if by_hash.is_empty() {
        return Ok(messages);
    }
    let hashes: Vec<&[u8]> = by_hash.keys().map(|hash| &hash[..]).collect();
    let sql = "SELECT hash, seen_at, counts_at FROM message
         WHERE destination_no = $1 AND hash = ANY($2)";
    let params: [(&(dyn ToSql + Sync), Type); 2] =
        [(&no, Type::INT4), (&hashes, Type::BYTEA_ARRAY)];
    for row in tx.steady_query(sql, &params).await? {
        let (hash, seen_at, counts_at): (&[u8], i64, i64) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if let Some(message) = by_hash.get(hash) {
            messages.insert(*message, (Timestamp(seen_at), Timestamp(counts_at)));
        }
    }
    Ok(messages)
}

/// Whether anybody of a destination was deleted.
pub(super) async fn has_tombstones(tx: &Tx, no: i32) -> Result<bool, Failure> {
    let any = "SELECT 1 FROM deleted WHERE destination_no = $1 LIMIT 1";
    Ok(!tx.steady_query(any, &[(&no, Type::INT4)]).await?.is_empty())
}

/// Deletions of those whom these intakes are about.
pub(super) async fn tombstones(
    shared: &Shared,
    tx: &Tx,
    no: i32,
    intakes: &[&Intake],
) -> Result<HashMap<Hash, Tombstone>, Failure> {
    let deltas = intakes.iter().flat_map(|intake| &intake.deltas).map(subject_of);
    let events = intakes.iter().flat_map(|intake| &intake.rejected);
    let events = events.filter_map(|event| Some(event.user_id.as_ref()?.as_str()));
    let persons: BTreeSet<Hash> =
        deltas.chain(events).map(|subject| shared.hashes.person(no.into(), subject)).collect();
    let persons: Vec<&[u8]> = persons.iter().map(|person| &person[..]).collect();
    let sql = "SELECT person, at FROM deleted WHERE destination_no = $1 AND person = ANY($2)";
    let params: [(&(dyn ToSql + Sync), Type); 2] =
        [(&no, Type::INT4), (&persons, Type::BYTEA_ARRAY)];
    let mut tombstones = HashMap::new();
    for row in tx.steady_query(sql, &params).await? {
        let person: &[u8] = row.try_get(0)?;
        let person = person.try_into().map_err(|_| damaged())?;
        tombstones.insert(person, Tombstone(Timestamp(row.try_get(1)?)));
    }
    Ok(tombstones)
}

/// Whom a delta is about, as a deletion would call them.
pub(super) fn subject_of(delta: &MembershipDelta) -> &str {
    delta.user_id.as_ref().map_or(delta.context_key.as_str(), UserId::as_str)
}
