//! Deletions, and events that come too late for a deleted person: applies the rules of
//! [`crate::ledger::deletion`] to the rows of a person.

use std::collections::BTreeSet;

use crate::ledger::deletion::{Reach, Tombstone};
use crate::ledger::embedded::engine::state::State;
use crate::ledger::embedded::ids::{AudienceIndex, AudienceRowId, DestinationIndex};
use crate::ledger::embedded::tables::database::Database;
use crate::ledger::embedded::tables::members;
use crate::ledger::embedded::tables::messages::Counts;
use crate::ledger::embedded::tables::parked::Parked;
use crate::ledger::member::{self, Change};
use crate::ledger::{OrderedDeletion, RejectedEvent};
use crate::membership::{ContextKey, Membership, MembershipDelta, Message, Timestamp, UserId};

impl State {
    /// Resolves the messages of one request's deltas: sets the event time at which each message counts, and
    /// keeps the message only on deltas that are repeats.
    pub fn date_messages(
        &mut self,
        db: &Database,
        destination: DestinationIndex,
        deltas: &mut [MembershipDelta],
    ) -> rusqlite::Result<()> {
        self.messages.next_request();
        for delta in deltas {
            let Some(message) = &delta.message else { continue };
            let counts = self.count_message(db, destination, message, delta.event_at)?;
            delta.event_at = counts.at;
            delta.message = delta.message.filter(|_| counts.is_repeat);
        }
        Ok(())
    }

    fn count_message(
        &mut self,
        db: &Database,
        destination: DestinationIndex,
        message: &Message,
        at: Timestamp,
    ) -> rusqlite::Result<Counts> {
        let row = self.audiences[destination].row;
        let stamp = self.stamp();
        let hash = self.persons.hash_of_message(row, &message.hash.0);
        self.messages.count(db.connection()?, hash, message.moves, at, stamp)
    }

    /// The change that a delta makes, after [`State::date_messages`]; `None` if its person was deleted after
    /// it happened.
    pub fn change(
        &mut self,
        db: &Database,
        audience: AudienceIndex,
        delta: &MembershipDelta,
    ) -> rusqlite::Result<Option<Change>> {
        let destination = self.audiences[audience].destination;
        let row = self.audiences[destination].row;
        let user_id = delta.user_id.as_ref().map(UserId::as_str);
        let subject = user_id.unwrap_or(delta.context_key.as_str());
        let is_repeat = delta.message.is_some();
        let tombstone = self.persons.tombstone(db, row, subject)?;
        if tombstone.is_some_and(|tombstone| tombstone.outlasts(delta.event_at, is_repeat)) {
            return Ok(None);
        }
        let other = user_id.filter(|user| *user != delta.context_key.as_str());
        Ok(Some(Change {
            membership: delta.membership,
            event_at: delta.event_at,
            key_rule: delta.key_rule,
            person: other.map(|user| self.persons.hash(row, user)),
            is_repeat,
        }))
    }

    /// Keeps an event that could not be mapped, unless its person was deleted after it happened.
    pub fn keep_rejected(
        &mut self,
        db: &Database,
        destination: DestinationIndex,
        arrival: Timestamp,
        event: &RejectedEvent,
    ) -> rusqlite::Result<()> {
        let row = self.audiences[destination].row;
        let mut person = None;
        if let Some(user_id) = &event.user_id {
            let tombstone = self.persons.tombstone(db, row, user_id.as_str())?;
            if tombstone.is_some_and(|tombstone| tombstone.outlasts(event.event_at, false)) {
                return Ok(());
            }
            person = Some(self.persons.hash(row, user_id.as_str()));
        }
        self.rejected.keep(db.connection()?, row, arrival, event, person)
    }

    /// Removes a person from every audience of the destination, as of the time of the deletion; rows are
    /// erased once the removal was told. What happened later stays. Returns how many entries stay although
    /// their event time was ahead of their arrival.
    pub fn forget(
        &mut self,
        db: &Database,
        destination: DestinationIndex,
        asked: &OrderedDeletion,
        arrival: Timestamp,
    ) -> rusqlite::Result<u64> {
        let deletion = &asked.deletion;
        let mut counts = Counts { at: deletion.event_at.min(arrival), is_repeat: false };
        if let Some(hash) = deletion.message {
            self.messages.next_request();
            let message = Message { hash, moves: true };
            counts = self.count_message(db, destination, &message, counts.at)?;
        }
        let reach = if asked.is_unconditional {
            Reach::EVERYTHING
        } else {
            Reach::until(counts.at, counts.is_repeat)
        };
        let row = self.audiences[destination].row;
        let person = self.persons.hash(row, deletion.user_id.as_str());
        self.erasure.note();
        self.rejected.forget(db.connection()?, person, reach.0)?;
        let (mut taken, mut ahead) = (None, 0);
        let mut persons = BTreeSet::from([person]);
        for (audience, key) in self.members_of(db, destination, &deletion.user_id, person)? {
            let row = self.audiences[audience].row;
            let Some(before) = members::load(db.connection()?, row, key.as_str())? else {
                continue;
            };
            if !reach.takes(&before) {
                let is_entry = before.membership == Membership::In;
                ahead += u64::from(before.is_ahead && is_entry && !counts.is_repeat);
                continue;
            }
            taken = taken.max(Some(before.event_at));
            persons.insert(self.persons.hash(self.audiences[destination].row, key.as_str()));
            let next = member::forget(&before, counts.at, &self.moment(audience));
            Parked::erase(db.connection()?, row, key.as_str())?;
            let place = self.place(audience, key.as_str());
            self.put(db, audience, (&key, place), Some(&before), &next)?;
        }
        let tombstone = Tombstone::of(counts.at, reach, taken);
        for person in persons {
            self.persons.remember(db.connection()?, person, tombstone, arrival)?;
        }
        Ok(ahead)
    }

    /// Where a person may be a member: with their user id as the context key, or under another key that the
    /// hash of the user id finds.
    fn members_of(
        &self,
        db: &Database,
        destination: DestinationIndex,
        user_id: &UserId,
        person: [u8; 16],
    ) -> rusqlite::Result<Vec<(AudienceIndex, ContextKey)>> {
        let key = ContextKey::from(user_id.clone());
        let audiences = self.audiences.of_destination(destination).into_iter();
        let mut found: Vec<_> = audiences.map(|audience| (audience, key.clone())).collect();
        let by_hash = members::of_person(db.connection()?, person)?;
        let known = |(row, key): (AudienceRowId, String)| {
            Some((self.audiences.of_row(row)?, ContextKey::new(&key)?))
        };
        found.extend(by_hash.into_iter().filter_map(known));
        Ok(found)
    }
}
