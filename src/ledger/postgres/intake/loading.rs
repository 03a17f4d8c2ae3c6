//! What a group has to know before anything of it is applied: its messages, and deletions of its people.

use std::collections::{BTreeSet, HashMap};

use tokio_postgres::types::{ToSql, Type};

use crate::ledger::Intake;
use crate::ledger::deletion::Tombstone;
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::intake::{Group, subject_of};
use crate::membership::{MessageHash, Timestamp};

impl Group<'_> {
    pub async fn load_messages(&mut self, intakes: &[&Intake]) -> Result<(), Failure> {
        let of_deltas = intakes.iter().flat_map(|intake| &intake.deltas);
        let of_deltas = of_deltas.filter_map(|delta| Some(delta.message?.hash));
        let of_deletions = intakes.iter().flat_map(|intake| &intake.deletions);
        let of_deletions = of_deletions.filter_map(|ordered| ordered.deletion.message);
        let by_hash: HashMap<Vec<u8>, MessageHash> = of_deltas
            .chain(of_deletions)
            .map(|message| (self.shared.hashes.message(&self.name, message), message))
            .collect();
        if by_hash.is_empty() {
            return Ok(());
        }
        let hashes: Vec<&Vec<u8>> = by_hash.keys().collect();
        let sql = "SELECT hash, seen_at, counts_at FROM message
             WHERE destination_no = $1 AND hash = ANY($2)";
        let params: [(&(dyn ToSql + Sync), Type); 2] =
            [(&self.no, Type::INT4), (&hashes, Type::BYTEA_ARRAY)];
        for row in self.tx.query(sql, &params).await? {
            let (hash, seen_at, counts_at): (Vec<u8>, i64, i64) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            if let Some(message) = by_hash.get(&hash) {
                self.messages.insert(*message, (Timestamp(seen_at), Timestamp(counts_at)));
            }
        }
        Ok(())
    }

    pub async fn load_tombstones(&mut self, intakes: &[&Intake]) -> Result<(), Failure> {
        let any = "SELECT 1 FROM deleted WHERE destination_no = $1 LIMIT 1";
        if self.tx.first(any, &[(&self.no, Type::INT4)]).await?.is_none() {
            return Ok(());
        }
        let deltas = intakes.iter().flat_map(|intake| &intake.deltas).map(subject_of);
        let events = intakes.iter().flat_map(|intake| &intake.rejected);
        let events = events.filter_map(|event| Some(event.user_id.as_ref()?.as_str()));
        let persons: BTreeSet<Vec<u8>> = deltas
            .chain(events)
            .map(|subject| self.shared.hashes.person(&self.name, subject))
            .collect();
        let persons: Vec<Vec<u8>> = persons.into_iter().collect();
        let sql = "SELECT person, at FROM deleted WHERE destination_no = $1 AND person = ANY($2)";
        let params: [(&(dyn ToSql + Sync), Type); 2] =
            [(&self.no, Type::INT4), (&persons, Type::BYTEA_ARRAY)];
        for row in self.tx.query(sql, &params).await? {
            self.tombstones.insert(row.try_get(0)?, Tombstone(Timestamp(row.try_get(1)?)));
        }
        Ok(())
    }
}
