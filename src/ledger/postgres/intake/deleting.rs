//! Deletions: applies the rules of [`crate::ledger::deletion`] to the rows of a person.

use std::collections::BTreeSet;

use tokio_postgres::types::{ToSql, Type};

use crate::ledger::OrderedDeletion;
use crate::ledger::deletion::{Reach, Tombstone};
use crate::ledger::member;
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::intake::Group;
use crate::ledger::postgres::members::MemberKey;
use crate::ledger::postgres::places::Place;
use crate::ledger::postgres::rows::{COLUMNS, Stored};
use crate::membership::{Membership, Message, Timestamp};

impl Group<'_> {
    /// Deletes a person as of when that was asked for.
    pub async fn delete(
        &mut self,
        asked: &OrderedDeletion,
        arrival: Timestamp,
    ) -> Result<(), Failure> {
        self.flush().await?;
        let user = asked.deletion.user_id.as_str();
        let person = self.person(user);
        let message = asked.deletion.message.map(|hash| Message { hash, moves: true });
        let asked_at = asked.deletion.event_at.min(arrival);
        let (at, is_repeat) = self.count_message(message, asked_at, &mut BTreeSet::new());
        let reach =
            if asked.is_unconditional { Reach::EVERYTHING } else { Reach::until(at, is_repeat) };
        let params: [(&(dyn ToSql + Sync), Type); 3] =
            [(&self.no, Type::INT4), (&&person[..], Type::BYTEA), (&reach.0.0, Type::INT8)];
        let sql =
            "DELETE FROM rejected WHERE destination_no = $1 AND person = $2 AND event_at <= $3";
        self.tx.execute(sql, &params).await?;

        let mut taken = None;
        let mut persons = BTreeSet::from([person]);
        for key in self.rows_of(user, &person).await? {
            let Some(place) = self.places.values_mut().find(|place| place.no == key.0) else {
                continue;
            };
            let Some(before) = self.members.get(&key) else { continue };
            if !reach.takes(before) {
                let is_entry = before.membership == Membership::In;
                self.tally.outlived += u64::from(before.is_ahead && is_entry && !is_repeat);
                continue;
            }
            taken = taken.max(Some(before.event_at));
            persons.insert(self.shared.hashes.person(self.no.into(), key.1.as_str()));
            place.included -= i64::from(before.membership.as_bool());
            let next = member::forget(before, at, &place.moment(self.shared, &self.settings));
            self.members.put(&key, next);
            self.members.unsay(&key);
        }
        let Tombstone(through) = Tombstone::of(at, reach, taken);
        for person in &persons {
            let known = self.tombstones.entry(*person).or_insert(Tombstone(through));
            known.0 = known.0.max(through);
        }
        let persons: Vec<&[u8]> = persons.iter().map(|person| &person[..]).collect();
        let params: [(&(dyn ToSql + Sync), Type); 4] = [
            (&self.no, Type::INT4),
            (&persons, Type::BYTEA_ARRAY),
            (&through.0, Type::INT8),
            (&arrival.0, Type::INT8),
        ];
        let sql =
            "INSERT INTO deleted AS d SELECT $1, person, $3, $4 FROM unnest($2) AS of(person) ON CONFLICT (destination_no, person)
             DO UPDATE SET at = greatest(d.at, $3), arrival = greatest(d.arrival, $4)";
        self.tx.execute(sql, &params).await?;
        self.flush().await
    }

    /// Reads every row of a person, and its audience.
    async fn rows_of(&mut self, user: &str, person: &[u8]) -> Result<Vec<MemberKey>, Failure> {
        if !self.has_all_places {
            for place in Place::all(self.tx, &self.name, self.no).await? {
                self.places.entry(place.route.audience.clone()).or_insert(place);
            }
            self.has_all_places = true;
        }
        let numbers: Vec<i32> = self.places.values().map(|place| place.no).collect();
        let sql = format!(
            "SELECT {COLUMNS} FROM member m WHERE m.audience_no = ANY($1) AND m.context_key = $2
             UNION SELECT {COLUMNS} FROM member m WHERE m.person = $3 AND m.audience_no = ANY($1)"
        );
        let user = user.as_bytes();
        let params: [(&(dyn ToSql + Sync), Type); 3] =
            [(&numbers, Type::INT4_ARRAY), (&user, Type::BYTEA), (&person, Type::BYTEA)];
        let mut keys = BTreeSet::new();
        for row in self.tx.query(&sql, &params).await? {
            let row = Stored::of(&row, 0)?;
            keys.insert((row.audience_no, row.context_key.clone()));
            self.members.add(row);
        }
        Ok(keys.into_iter().collect())
    }
}
