//! What a group leaves in the tables.

use tokio::try_join;
use tokio_postgres::types::{ToSql, Type};

use crate::ledger::RejectedEvent;
use crate::ledger::intake::MESSAGE_KEPT;
use crate::ledger::postgres::changes;
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::intake::{Group, Messages};
use crate::membership::Timestamp;

impl Group<'_> {
    /// Writes what has come so far.
    pub async fn flush(&mut self) -> Result<(), Failure> {
        // Whoever is left as they are may be there all the same; of the others, the insert tells.
        if self.is_guessed && !self.members.are_there() {
            return Err(Failure::overtaken());
        }
        self.taken = None;
        let changed = self.members.take_changed();
        let messages = std::mem::take(&mut self.new_messages);
        let rejected = std::mem::take(&mut self.rejected);
        try_join!(
            biased;
            changed.write(self.tx),
            changes::write(self.shared, self.tx, self.no, &changed.changes),
            self.write_messages(&messages),
            self.write_rejected(&rejected),
        )?;
        for (no, change) in changed.changes {
            let sum = self.changes.entry(no).or_default();
            sum.turnover.joined += change.turnover.joined;
            sum.turnover.left += change.turnover.left;
            sum.turnover.expired += change.turnover.expired;
        }
        Ok(())
    }

    async fn write_messages(&self, new: &Messages) -> Result<(), Failure> {
        if new.is_empty() {
            return Ok(());
        }
        let hashes: Vec<&[u8]> = new.keys().map(|hash| &hash[..]).collect();
        let seen_at: Vec<i64> = new.values().map(|(seen_at, _)| seen_at.0).collect();
        let counts_at: Vec<i64> = new.values().map(|(_, counts_at)| counts_at.0).collect();
        let kept = self.shared.stamps.fresh().before(MESSAGE_KEPT).0;
        let params: [(&(dyn ToSql + Sync), Type); 5] = [
            (&self.no, Type::INT4),
            (&hashes, Type::BYTEA_ARRAY),
            (&seen_at, Type::INT8_ARRAY),
            (&counts_at, Type::INT8_ARRAY),
            (&kept, Type::INT8),
        ];
        let sql = "INSERT INTO message AS m (destination_no, hash, seen_at, counts_at)
             SELECT $1, * FROM unnest($2, $3, $4) ON CONFLICT (destination_no, hash)
             DO UPDATE SET seen_at = excluded.seen_at, counts_at = excluded.counts_at WHERE m.seen_at <= $5";
        let rows = self.tx.steady_execute(sql, &params).await?;
        if rows == new.len() as u64 { Ok(()) } else { Err(Failure::overtaken()) }
    }

    async fn write_rejected(&self, rejected: &[(Timestamp, RejectedEvent)]) -> Result<(), Failure> {
        if rejected.is_empty() {
            return Ok(());
        }
        let person = |event: &RejectedEvent| {
            let user = event.user_id.as_ref()?;
            Some(self.person(user.as_str()).to_vec())
        };
        let received_at: Vec<i64> = rejected.iter().map(|(arrival, _)| arrival.0).collect();
        let event_at: Vec<i64> = rejected.iter().map(|(_, event)| event.event_at.0).collect();
        let persons: Vec<Option<Vec<u8>>> =
            rejected.iter().map(|(_, event)| person(event)).collect();
        let reasons: Vec<&str> = rejected.iter().map(|(_, event)| &*event.reason).collect();
        let details: Vec<&str> = rejected.iter().map(|(_, event)| &*event.detail).collect();
        let bodies: Vec<&[u8]> = rejected.iter().map(|(_, event)| &*event.body).collect();
        let params: [(&(dyn ToSql + Sync), Type); 7] = [
            (&self.no, Type::INT4),
            (&received_at, Type::INT8_ARRAY),
            (&event_at, Type::INT8_ARRAY),
            (&persons, Type::BYTEA_ARRAY),
            (&reasons, Type::TEXT_ARRAY),
            (&details, Type::TEXT_ARRAY),
            (&bodies, Type::BYTEA_ARRAY),
        ];
        let sql = "INSERT INTO rejected (destination_no, received_at, event_at, person, reason, detail, body)
             SELECT $1, * FROM unnest($2, $3, $4, $5, $6, $7)";
        self.tx.steady_execute(sql, &params).await.map(|_| ())
    }
}
