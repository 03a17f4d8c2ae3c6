//! What requests bring, applied in one transaction: one item after the other, as the rules say.

mod deleting;
mod loading;
mod writing;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tokio::try_join;
use tokio_postgres::types::Type;

use crate::ledger::counters::Tally;
use crate::ledger::deletion::Tombstone;
use crate::ledger::hashes::Hash;
use crate::ledger::intake::MESSAGE_KEPT;
use crate::ledger::member::{self, Change, Member, Next};
use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::guarding::{self, Flip};
use crate::ledger::postgres::locks::Lock;
use crate::ledger::postgres::members::{Changes, MemberKey, Members};
use crate::ledger::postgres::places::Place;
use crate::ledger::postgres::pool::Tx;
use crate::ledger::postgres::shared::Shared;
use crate::ledger::{
    DestinationSettings, Intake, Origin, Recorded, RejectedEvent, Route, Unrecorded,
};
use crate::membership::{
    AudienceId, DestinationName, MembershipDelta, Message, MessageHash, Timestamp, UserId,
};

/// What became of the intakes of a group.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// In the order of the intakes.
    pub recorded: Vec<Recorded>,
    /// What is counted once it is committed.
    pub counted: Vec<Counted>,
    pub rows: u64,
}

/// What is counted of a destination.
#[derive(Debug)]
pub(crate) struct Counted {
    pub destination: DestinationName,
    pub tally: Tally,
    pub changes: Changes,
    pub audiences: HashMap<i32, AudienceId>,
}

/// Applies intakes in their order.
pub(crate) async fn apply(
    shared: &Shared,
    tx: &Tx,
    attempt: u32,
    intakes: &[&Intake],
) -> Result<Applied, Failure> {
    let mut by_destination: BTreeMap<i32, (DestinationName, DestinationSettings, Vec<usize>)> =
        BTreeMap::new();
    for (at, intake) in intakes.iter().enumerate() {
        let (no, settings) = shared.destination(&intake.destination)?;
        let of = by_destination.entry(no);
        of.or_insert_with(|| (intake.destination.clone(), settings, Vec::new())).2.push(at);
        shared.stamps.note(intake.arrival);
    }
    let mut applied =
        Applied { recorded: vec![Recorded::default(); intakes.len()], ..Applied::default() };
    let has_deletions = intakes.iter().any(|intake| !intake.deletions.is_empty());
    let lock = if has_deletions { Lock::Exclusive } else { Lock::at(attempt) };
    // All of them before anything is read: the first reading goes along.
    let mut unlocked: Vec<i32> = by_destination.keys().copied().collect();
    for (no, (name, settings, places)) in by_destination {
        let theirs: Vec<&Intake> = places.iter().map(|at| intakes[*at]).collect();
        let locks = std::mem::take(&mut unlocked);
        let begin = Group::begin(shared, tx, lock, (no, name, settings), &theirs);
        let ((), mut group) = try_join!(biased; lock.hold_all(tx, &locks), begin)?;
        for (at, intake) in places.iter().zip(theirs) {
            applied.recorded[*at] = group.take(intake).await?;
            applied.rows += intake.items() as u64;
        }
        applied.counted.push(group.end().await?);
    }
    Ok(applied)
}

/// Whom intakes are about, in audiences of these numbers.
fn keys(intakes: &[&Intake], numbers: &HashMap<AudienceId, i32>) -> BTreeSet<MemberKey> {
    let deltas = intakes.iter().flat_map(|intake| &intake.deltas);
    let keys = deltas
        .filter_map(|delta| Some((*numbers.get(&delta.audience)?, delta.context_key.clone())));
    keys.collect()
}

/// When messages came first, and when they count, by their keyed hashes.
type Messages = BTreeMap<Hash, (Timestamp, Timestamp)>;

/// The items of one destination.
struct Group<'a> {
    shared: &'a Shared,
    tx: &'a Tx,
    lock: Lock,
    no: i32,
    name: DestinationName,
    settings: DestinationSettings,
    places: HashMap<AudienceId, Place>,
    /// These are all audiences of the destination: nobody else adds one until the transaction ends.
    has_all_places: bool,
    /// Audiences that have a place by what is in the tables, once somebody asks.
    taken: Option<HashSet<Vec<u8>>>,
    /// Who was read at the beginning; others are of audiences that are new, and not there.
    members: Members,
    /// Nobody was read: they are likely to be new, as in a backfill.
    is_guessed: bool,
    changes: Changes,
    /// When a message came first, and when it counts.
    messages: HashMap<MessageHash, (Timestamp, Timestamp)>,
    new_messages: Messages,
    tombstones: HashMap<Hash, Tombstone>,
    rejected: Vec<(Timestamp, RejectedEvent)>,
    tally: Tally,
    /// What each request has changed.
    flips: Vec<Vec<Flip>>,
}

/// What is seen within one request, up to a deletion of it and from there on.
#[derive(Default)]
struct Seen {
    /// Audiences of which something arrives.
    arriving: BTreeSet<AudienceId>,
    /// Messages that it brought: an event may change several members.
    messages: BTreeSet<MessageHash>,
}

impl<'a> Group<'a> {
    async fn begin(
        shared: &'a Shared,
        tx: &'a Tx,
        lock: Lock,
        (no, name, settings): (i32, DestinationName, DestinationSettings),
        intakes: &[&Intake],
    ) -> Result<Self, Failure> {
        let deltas = || intakes.iter().flat_map(|intake| &intake.deltas);
        let ids: HashSet<&AudienceId> = deltas().map(|delta| &delta.audience).collect();
        let ids: Vec<&AudienceId> = ids.into_iter().collect();
        let is_guessed = lock == Lock::Shared && shared.newcomers.is_likely(no);
        // Most audiences are what they were: their members are asked for at once.
        let likely = if is_guessed { HashMap::new() } else { shared.numbers(&name, &ids) };
        let mut members = Members::default();
        let (places, messages, has_tombstones, ()) = try_join!(
            biased;
            Place::these(tx, &name, no, &ids),
            loading::messages(shared, tx, no, intakes),
            loading::has_tombstones(tx, no),
            members.load(tx, keys(intakes, &likely)),
        )?;
        let tombstones = if has_tombstones {
            loading::tombstones(shared, tx, no, intakes).await?
        } else {
            HashMap::new()
        };
        let places: HashMap<AudienceId, Place> =
            places.into_iter().map(|place| (place.route.audience.clone(), place)).collect();
        shared.note_numbers(&name, places.iter().map(|(id, place)| (id, place.no)));
        let mut group = Self {
            shared,
            tx,
            lock,
            no,
            name,
            settings,
            places,
            has_all_places: false,
            taken: None,
            members,
            is_guessed,
            changes: Changes::default(),
            messages,
            new_messages: Messages::new(),
            tombstones,
            rejected: Vec::new(),
            tally: Tally::default(),
            flips: Vec::new(),
        };
        if lock == Lock::Shared && deltas().any(|delta| group.needs_others_away(delta)) {
            return Err(Failure::Again("an audience is new".to_owned()));
        }
        if is_guessed {
            return Ok(group);
        }
        let numbers: HashMap<AudienceId, i32> =
            group.places.iter().map(|(id, place)| (id.clone(), place.no)).collect();
        if numbers != likely {
            group.members.load(tx, keys(intakes, &numbers)).await?;
        }
        if !numbers.is_empty() {
            shared.newcomers.note(no, group.members.are_new(), false);
        }
        Ok(group)
    }

    /// Whether a delta makes or changes an audience.
    fn needs_others_away(&self, delta: &MembershipDelta) -> bool {
        let Some(place) = self.places.get(&delta.audience) else { return true };
        let is_other_kind = place.route.context_kind != delta.context_kind;
        if is_other_kind {
            place.members == 0
        } else {
            place.route.audience_key != delta.audience_key
        }
    }

    async fn take(&mut self, intake: &Intake) -> Result<Recorded, Failure> {
        self.flips.push(Vec::new());
        let mut recorded = Recorded::default();
        let (mut deltas, mut events) = (0, 0);
        let ends = intake.deletions.iter().map(|of| (of.after_deltas, of.after_rejected, Some(of)));
        let last = (intake.deltas.len(), intake.rejected.len(), None);
        for (to, events_to, deletion) in ends.chain([last]) {
            let mut seen = Seen::default();
            for delta in intake.deltas.iter().take(to).skip(deltas) {
                match self.take_delta(delta, intake.origin, &mut seen).await? {
                    Ok(()) => {}
                    Err(Unrecorded::OtherKind) => recorded.kind_conflicts.push(deltas),
                    Err(Unrecorded::TooManyAudiences) => recorded.without_place.push(deltas),
                }
                deltas += 1;
            }
            for event in intake.rejected.iter().take(events_to).skip(events) {
                self.keep(intake.arrival, event);
                events += 1;
            }
            if let Some(deletion) = deletion {
                self.delete(deletion, intake.arrival).await?;
            }
        }
        Ok(recorded)
    }

    async fn take_delta(
        &mut self,
        delta: &MembershipDelta,
        origin: Origin,
        seen: &mut Seen,
    ) -> Result<Result<(), Unrecorded>, Failure> {
        let (event_at, is_repeat) =
            self.count_message(delta.message, delta.event_at, &mut seen.messages);
        if let Err(reason) = self.resolve(delta, &mut seen.arriving).await? {
            return Ok(Err(reason));
        }
        if origin == Origin::Snapshot
            && let Some(place) = self.places.get_mut(&delta.audience)
            && place.snapshot_at < delta.event_at
        {
            if self.lock == Lock::Shared {
                return Err(Failure::Again("a snapshot begins".to_owned()));
            }
            place.raise_snapshot(self.tx, delta.event_at).await?;
        }
        let subject = loading::subject_of(delta);
        if self.is_too_late(subject, event_at, is_repeat) {
            return Ok(Ok(()));
        }
        let other =
            delta.user_id.as_ref().filter(|user| user.as_str() != delta.context_key.as_str());
        let person = other.map(|user| self.person(user.as_str()));
        let change = Change {
            membership: delta.membership,
            event_at,
            key_rule: delta.key_rule,
            person,
            is_repeat,
        };
        let Some(place) = self.places.get_mut(&delta.audience) else { return Ok(Ok(())) };
        let key = (place.no, delta.context_key.clone());
        self.members.is_new(key.clone());
        let before = self.members.get(&key);
        let moment = place.moment(self.shared, &self.settings);
        let mut next = member::record(before, &change, &moment);
        self.tally.add(before, &change, &next, &moment);
        match (origin, member::flip_by_event(before, next.or(before)), self.flips.last_mut()) {
            (Origin::Snapshot, ..) => next = member::confirmed(next),
            (Origin::Events, Some(now), Some(flips)) => {
                let members = place.included.unsigned_abs();
                flips.push(Flip { audience_no: place.no, now, at: moment.stamp, members });
            }
            (Origin::Events, ..) => {}
        }
        let is_in =
            |member: Option<&Member>| i64::from(member.is_some_and(|of| of.membership.as_bool()));
        place.included += is_in(next.or(before)) - is_in(before);
        place.members += i64::from(before.is_none() && next != Next::Same);
        self.members.put(&key, next);
        Ok(Ok(()))
    }

    /// When a message counts, and whether it was recorded before this request.
    fn count_message(
        &mut self,
        message: Option<Message>,
        at: Timestamp,
        fresh: &mut BTreeSet<MessageHash>,
    ) -> (Timestamp, bool) {
        let Some(Message { hash, moves }) = message else { return (at, false) };
        let now = self.shared.stamps.fresh();
        let known = self.messages.get(&hash);
        if let Some((_, counts_at)) =
            known.filter(|(seen_at, _)| *seen_at > now.before(MESSAGE_KEPT))
        {
            return (*counts_at, !fresh.contains(&hash));
        }
        if moves {
            self.messages.insert(hash, (now, at));
            let keyed = self.shared.hashes.message(self.no.into(), &hash.0);
            self.new_messages.insert(keyed, (now, at));
            fresh.insert(hash);
        }
        (at, false)
    }

    /// Makes sure that the audience of a delta is there, has its name, and has its kind.
    async fn resolve(
        &mut self,
        delta: &MembershipDelta,
        arriving: &mut BTreeSet<AudienceId>,
    ) -> Result<Result<(), Unrecorded>, Failure> {
        let route = Route {
            destination: self.name.clone(),
            audience: delta.audience.clone(),
            audience_key: delta.audience_key.clone(),
            context_kind: delta.context_kind.clone(),
        };
        if let Some(place) = self.places.get_mut(&delta.audience) {
            let is_taken = arriving.contains(&delta.audience) || place.members > 0;
            if place.route.context_kind != route.context_kind && is_taken {
                return Ok(Err(Unrecorded::OtherKind));
            }
            if *place.route != route {
                place.rename(self.tx, route).await?;
            }
        } else if self.lock == Lock::Shared {
            return Err(Failure::Again("an audience is new".to_owned()));
        } else if self.has_place(&delta.audience, arriving).await? {
            let place = Place::create(self.tx, self.no, route).await?;
            self.places.insert(delta.audience.clone(), place);
        } else {
            return Ok(Err(Unrecorded::TooManyAudiences));
        }
        arriving.insert(delta.audience.clone());
        Ok(Ok(()))
    }

    /// Whether there is a place for an audience. A place is taken by each that has a member, one in a call, or one
    /// that is just arriving.
    async fn has_place(
        &mut self,
        new: &AudienceId,
        arriving: &BTreeSet<AudienceId>,
    ) -> Result<bool, Failure> {
        let taken = match self.taken.take() {
            Some(taken) => taken,
            None => self.taken_places().await?,
        };
        let taken = self.taken.insert(taken);
        let is_taken = |id: &AudienceId| taken.contains(id.as_str().as_bytes());
        let most = self.shared.settings.max_audiences;
        // There may be many that are new: they are counted where it matters.
        if taken.len() + self.places.len() + arriving.len() < most || is_taken(new) {
            return Ok(true);
        }
        let here = self.places.values().filter(|place| place.members > 0);
        let here = here.map(|place| &place.route.audience).chain(arriving);
        let here: HashSet<&AudienceId> = here.filter(|id| !is_taken(id)).collect();
        Ok(taken.len() + here.len() < most)
    }

    /// Audiences that have a place by what is in the tables.
    async fn taken_places(&self) -> Result<HashSet<Vec<u8>>, Failure> {
        let sql = "SELECT a.audience_id FROM audience a
             WHERE a.destination_no = $1 AND NOT a.is_erased AND a.members +
                 (SELECT coalesce(sum(members), 0) FROM change WHERE audience_no = a.no) > 0
             UNION SELECT audience_id FROM call_out WHERE destination_no = $1";
        let rows = self.tx.query(sql, &[(&self.no, Type::INT4)]).await?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
    }

    fn is_too_late(&self, subject: &str, event_at: Timestamp, is_repeat: bool) -> bool {
        if self.tombstones.is_empty() {
            return false;
        }
        let person = self.person(subject);
        self.tombstones.get(&person).is_some_and(|of| of.outlasts(event_at, is_repeat))
    }

    /// The hash of a person of the destination.
    fn person(&self, user_id: &str) -> Hash {
        self.shared.hashes.person(self.no.into(), user_id)
    }

    fn keep(&mut self, arrival: Timestamp, event: &RejectedEvent) {
        let kept = self.shared.settings.rejected;
        let is_too_large = kept.max_count == 0 || event.body.len() as u64 > kept.max_bytes;
        let person = event.user_id.as_ref().map(UserId::as_str);
        let is_late = person.is_some_and(|person| self.is_too_late(person, event.event_at, false));
        if !is_too_large && !is_late {
            self.rejected.push((arrival, event.clone()));
        }
    }

    async fn end(mut self) -> Result<Counted, Failure> {
        let flips = std::mem::take(&mut self.flips);
        let (shared, tx, limits) = (self.shared, self.tx, self.settings.guard);
        let (no, is_guessed) = (self.no, self.is_guessed);
        let done = try_join!(biased; self.flush(), guarding::count(shared, tx, &flips, &limits));
        if is_guessed && matches!(done, Ok(_) | Err(Failure::Again(_))) {
            shared.newcomers.note(no, done.is_ok(), true);
        }
        done?;
        let audiences = self.places.into_iter().map(|(id, place)| (place.no, id)).collect();
        Ok(Counted { destination: self.name, tally: self.tally, changes: self.changes, audiences })
    }
}
