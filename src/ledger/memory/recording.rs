//! What requests bring to the model: one item after the other.

use std::collections::BTreeSet;

use crate::counting::PerDestination;
use crate::ledger::counters::Tally;
use crate::ledger::deletion::{Reach, Tombstone};
use crate::ledger::intake::MESSAGE_KEPT;
use crate::ledger::member::{self, Change, Next};
use crate::ledger::memory::state::{
    Audience, Bounds, Deleted, Destination, Kept, Key, Rejected, Stamps, State,
};
use crate::ledger::{
    Intake, OrderedDeletion, Origin, Recorded, Recordings, RejectedEvent, RejectedView, Route,
    Unrecorded,
};
use crate::membership::{
    AudienceId, ContextKey, Membership, MembershipDelta, Message, MessageHash, Timestamp, UserId,
};

/// What is seen within one request, up to a deletion of it and from there on.
#[derive(Default)]
struct Seen {
    /// Audiences of which something arrives.
    arriving: BTreeSet<AudienceId>,
    /// Messages that it brought: an event may change several members.
    messages: BTreeSet<MessageHash>,
}

impl State {
    /// Records what a request asks of one destination.
    pub fn record(&mut self, intake: Intake, recordings: &PerDestination<Recordings>) -> Recorded {
        let Self { stamps, bounds, destinations, rejected, .. } = self;
        let Intake { destination: name, arrival, deltas, deletions, rejected: events, origin } =
            intake;
        let Some(destination) = destinations.get_mut(&name) else { return Recorded::default() };
        stamps.note(arrival);
        let (mut recorded, mut tally) = (Recorded::default(), Tally::default());
        let (all, all_rejected) = (deltas.len(), events.len());
        let mut deltas = deltas.into_iter().enumerate();
        let mut events = events.into_iter();
        let ends = deletions.iter().map(|of| (of.after_deltas, of.after_rejected, Some(of)));
        for (to, rejected_to, deletion) in ends.chain([(all, all_rejected, None)]) {
            let mut seen = Seen::default();
            while deltas.len() > all.saturating_sub(to)
                && let Some((position, delta)) = deltas.next()
            {
                match destination.take((stamps, bounds), (delta, origin), &mut seen, &mut tally) {
                    Ok(()) => {}
                    Err(Unrecorded::OtherKind) => recorded.kind_conflicts.push(position),
                    Err(Unrecorded::TooManyAudiences) => recorded.without_place.push(position),
                }
            }
            while events.len() > all_rejected.saturating_sub(rejected_to)
                && let Some(event) = events.next()
            {
                destination.keep_rejected(stamps, bounds, rejected, (arrival, event));
            }
            if let Some(deletion) = deletion {
                tally.outlived += destination.delete(stamps, rejected, deletion, arrival);
            }
        }
        destination.judge(stamps);
        recordings.of(&name).count(tally);
        recorded
    }
}

impl Destination {
    fn take(
        &mut self,
        (stamps, bounds): (&mut Stamps, &Bounds),
        (delta, origin): (MembershipDelta, Origin),
        seen: &mut Seen,
        tally: &mut Tally,
    ) -> Result<(), Unrecorded> {
        let (event_at, is_repeat) =
            self.count_message(stamps, delta.message, delta.event_at, &mut seen.messages);
        self.resolve(&delta, bounds, &mut seen.arriving)?;
        if origin == Origin::Snapshot
            && let Some(audience) = self.audiences.get_mut(&delta.audience)
        {
            audience.snapshot_at = audience.snapshot_at.max(delta.event_at);
        }
        let subject = delta.user_id.as_ref().map_or(delta.context_key.as_str(), UserId::as_str);
        if self.deleted.get(subject).is_some_and(|of| of.at.outlasts(event_at, is_repeat)) {
            return Ok(());
        }
        let other = delta.user_id.filter(|user| user.as_str() != delta.context_key.as_str());
        let person = other.map(|user| self.person(&user));
        let change = Change {
            membership: delta.membership,
            event_at,
            key_rule: delta.key_rule,
            person,
            is_repeat,
        };
        let key = (delta.audience, delta.context_key);
        let before = self.members.get(&key);
        let moment = self.moment(stamps, &key.0);
        let mut next = member::record(before, &change, &moment);
        tally.add(before, &change, &next, &moment);
        match origin {
            Origin::Events => self.count_flip(&key, &next, moment.stamp),
            Origin::Snapshot => next = member::confirmed(next),
        }
        self.put(&key, &next);
        Ok(())
    }

    /// When a message counts, and whether it was recorded before this request.
    fn count_message(
        &mut self,
        stamps: &mut Stamps,
        message: Option<Message>,
        at: Timestamp,
        fresh: &mut BTreeSet<MessageHash>,
    ) -> (Timestamp, bool) {
        let Some(Message { hash, moves }) = message else { return (at, false) };
        let now = stamps.fresh();
        if let Some((_, counts_at)) =
            self.messages.get(&hash).filter(|(seen_at, _)| *seen_at > now.before(MESSAGE_KEPT))
        {
            return (*counts_at, !fresh.contains(&hash));
        }
        if moves {
            self.messages.insert(hash, (now, at));
            fresh.insert(hash);
        }
        (at, false)
    }

    /// Makes sure that the audience of a delta is there, has its name, and has its kind.
    fn resolve(
        &mut self,
        delta: &MembershipDelta,
        bounds: &Bounds,
        arriving: &mut BTreeSet<AudienceId>,
    ) -> Result<(), Unrecorded> {
        let route = Route {
            destination: self.settings.name.clone(),
            audience: delta.audience.clone(),
            audience_key: delta.audience_key.clone(),
            context_kind: delta.context_kind.clone(),
        };
        if let Some(known) = self.audiences.get_mut(&delta.audience) {
            known.is_dropped = false;
            let has_members = || self.members.keys().any(|(of, _)| *of == delta.audience);
            if known.route.context_kind != route.context_kind
                && (arriving.contains(&delta.audience) || has_members())
            {
                return Err(Unrecorded::OtherKind);
            }
            if *known.route != route {
                known.route = route.into();
            }
        } else if self.places_taken(arriving) < bounds.max_audiences {
            self.audiences.insert(delta.audience.clone(), Audience::new(route));
        } else {
            return Err(Unrecorded::TooManyAudiences);
        }
        arriving.insert(delta.audience.clone());
        Ok(())
    }

    /// How many audiences have a member, one in a call, or one that is just arriving.
    fn places_taken(&self, arriving: &BTreeSet<AudienceId>) -> usize {
        let with_members = self.members.keys().chain(&self.claimed).map(|(audience, _)| audience);
        with_members.chain(arriving).collect::<BTreeSet<_>>().len()
    }

    /// What stands for a user id.
    fn person(&mut self, user: &UserId) -> [u8; 16] {
        let next = self.persons.len() as u128;
        *self.persons.entry(user.as_str().to_owned()).or_insert(next.to_be_bytes())
    }

    fn keep_rejected(
        &self,
        stamps: &mut Stamps,
        bounds: &Bounds,
        rejected: &mut Rejected,
        (arrival, event): (Timestamp, RejectedEvent),
    ) {
        let RejectedEvent { reason, detail, body, user_id, event_at } = event;
        let person = user_id.map(|user| user.as_str().to_owned());
        let deleted = person.as_ref().and_then(|person| self.deleted.get(person));
        let is_too_large =
            bounds.rejected.max_count == 0 || body.len() as u64 > bounds.rejected.max_bytes;
        if is_too_large || deleted.is_some_and(|of| of.at.outlasts(event_at, false)) {
            return;
        }
        rejected.last += 1;
        let (id, reason) = (rejected.last, reason.into_owned());
        let view = RejectedView { id, received_at: arrival, reason, detail, body };
        let destination = self.settings.name.clone();
        rejected.kept.insert(id, Kept { destination, person, event_at, view });
        rejected.purge(stamps.fresh(), bounds);
    }

    /// Deletes a person as of when that was asked for; how many entries stay that were ahead of their arrival.
    fn delete(
        &mut self,
        stamps: &mut Stamps,
        rejected: &mut Rejected,
        asked: &OrderedDeletion,
        arrival: Timestamp,
    ) -> u64 {
        let user = asked.deletion.user_id.as_str();
        let message = asked.deletion.message.map(|hash| Message { hash, moves: true });
        let asked_at = asked.deletion.event_at.min(arrival);
        let (at, is_repeat) = self.count_message(stamps, message, asked_at, &mut BTreeSet::new());
        let reach =
            if asked.is_unconditional { Reach::EVERYTHING } else { Reach::until(at, is_repeat) };
        rejected.kept.retain(|_, event| {
            event.destination != self.settings.name
                || event.person.as_deref() != Some(user)
                || event.event_at > reach.0
        });
        let person = self.persons.get(user).copied();
        let is_theirs = |(key, member): &(&Key, &member::Member)| {
            key.1.as_str() == user || (person.is_some() && member.person == person)
        };
        let theirs = self.members.iter().filter(is_theirs).map(|(key, _)| key.clone());
        let (mut taken, mut outlived) = (None, 0);
        let mut subjects = BTreeSet::from([user.to_owned()]);
        for key in theirs.collect::<Vec<(AudienceId, ContextKey)>>() {
            let mut is_taken = false;
            self.put_through(stamps, &key, |before, moment| {
                if !reach.takes(before) {
                    let is_entry = before.membership == Membership::In;
                    outlived += u64::from(before.is_ahead && is_entry && !is_repeat);
                    return Next::Same;
                }
                taken = taken.max(Some(before.event_at));
                is_taken = true;
                member::forget(before, at, moment)
            });
            if is_taken {
                self.words.remove(&key);
                subjects.insert(key.1.as_str().to_owned());
            }
        }
        let Tombstone(through) = Tombstone::of(at, reach, taken);
        let new = Deleted { at: Tombstone(through), arrival };
        for subject in subjects {
            let known = self.deleted.entry(subject).or_insert(new);
            known.at = Tombstone(known.at.0.max(through));
            known.arrival = known.arrival.max(arrival);
        }
        outlived
    }
}
