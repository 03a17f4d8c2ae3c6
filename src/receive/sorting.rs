//! Sorting: decides for each event of a body whether it is recorded, ignored or rejected.
//!
//! No I/O, so that a heavy body can be sorted on a blocking thread.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use memchr::memchr_iter;

use super::answer::{Account, Refusal};
use super::authentication::Presented;
use super::body::Place;
use super::counters::Tally;
use super::doors::Door;
use super::envelope::{self, Envelope, Fault};
use crate::json;
use crate::json::exact::{self, Exact};
use crate::ledger::{Intake, OrderedDeletion, Recorded, RejectedEvent, Unrecorded};
use crate::map::{Event, Mappings, Outcome, Reason, Rejection, happened_at, user_id};
use crate::membership::{Deletion, DestinationName, MembershipDelta, Timestamp, UserId};

/// Most events in one body for one destination: 128 MiB of events of half a KiB, where 1 KiB is usual.
/// Segment sends 4,000 at most; the rest is for backfills by other means.
pub(super) const MOST_EVENTS: usize = 250_000;

/// Most events in one body for this door: what all of its destinations make of them is in memory at once
/// ([P6](crate::design::P6)).
pub(super) fn most_events(door: &Door) -> usize {
    MOST_EVENTS / door.destinations.len().max(1)
}

/// Most bytes of an event that is parsed. Segment's have [at most 32 KB](crate::design::segment::requests),
/// and a customer may add fields. A parsed event takes many times its text, so that the whole body must not
/// be a single one ([P6](crate::design::P6)).
pub(super) const EVENT_LIMIT_BYTES: usize = 1024 * 1024;

/// Most values in an event: each takes up to [`BYTES_A_VALUE`] in memory, and may be written in two bytes.
/// Segment's largest event has room for 16,000.
const MOST_VALUES: usize = 50_000;

/// Most bytes that a value takes in a parsed tree, including its key and the spare room of growing lists and
/// objects.
const BYTES_A_VALUE: usize = 400;

/// The tree of a text up to this size is not charged: each thread holds one at a time.
const SMALL_TEXT_BYTES: usize = 32 * 1024;

/// Bytes of a sorted event on top of its text: a delta with its texts, or a rejection.
const BYTES_AN_EVENT: usize = 512;

/// The events of one body, sorted.
#[derive(Debug)]
pub(super) struct Sorted {
    /// One for each destination of the door, in its order.
    pub(super) shares: Vec<Share>,
    pub(super) account: Account,
    /// Bytes of event texts above that are not part of the body and are not charged yet.
    pub(super) uncharged_bytes: usize,
    /// Bytes already charged for such texts.
    pub(super) prepaid_bytes: usize,
}

/// The part of the sorted events that concerns one destination.
#[derive(Debug, Default)]
pub(super) struct Share {
    pub(super) deltas: Vec<MembershipDelta>,
    /// The event behind each delta, in case the ledger refuses the delta.
    pub(super) origins: Vec<Origin>,
    pub(super) deletions: Vec<OrderedDeletion>,
    /// Events that its mappings rejected and that are worth a replay.
    pub(super) kept: Vec<RejectedEvent>,
    tally: Tally,
    /// Bytes of the above beyond what is charged for each event.
    uncharged_bytes: usize,
}

/// The event behind a delta.
#[derive(Debug)]
pub(super) struct Origin {
    index: usize,
    event: Text,
}

/// The text of an event.
#[derive(Clone, Debug)]
pub(super) enum Text {
    /// A slice of the body, not a copy.
    OfBody(Range<usize>),
    Written(Bytes),
}

impl Text {
    /// The text of an event that is a slice of the body.
    fn in_body(body: &[u8], event: &[u8]) -> Self {
        let start = event.as_ptr().addr() - body.as_ptr().addr();
        Self::OfBody(start..start + event.len())
    }

    fn length(&self) -> usize {
        match self {
            Self::OfBody(place) => place.len(),
            Self::Written(text) => text.len(),
        }
    }

    fn show<'a>(&'a self, body: &'a [u8]) -> &'a [u8] {
        match self {
            Self::OfBody(place) => &body[place.clone()],
            Self::Written(text) => text,
        }
    }
}

/// Authenticates a body, then sorts its events. Memory for what is made of them is charged to the body's
/// place in the budget, mostly before it is used.
pub(super) fn sort(
    door: &Door,
    presented: &Presented,
    body: &[u8],
    place: &mut Place,
    arrival: Timestamp,
) -> Result<Sorted, Refusal> {
    let list_bytes = list_bytes(body, most_events(door));
    if list_bytes > 0 {
        place.charge(list_bytes)?;
    }
    let split = envelope::split(body, most_events(door));
    if !door.gate.admits(presented, body, &split, &door.extra_fields) {
        door.sample.look(door, presented, &split);
        return Err(Refusal::Unauthenticated);
    }
    door.count_request()?;
    let mappings = door.mappings();
    let mut sorted = Sorted::of(&mappings);
    match split {
        Ok(Envelope::Single(event)) => {
            let event = envelope::wrapped_event(event).unwrap_or(event);
            let tree_bytes = tree_bytes(event);
            place.charge(bytes_of_events(1, &mappings) + tree_bytes)?;
            sorted.expect(1);
            // what the fast path could read is known to be one value
            if !sorted.add_plain(&mappings, body, 0, event, arrival) {
                if !envelope::is_one_value(event) {
                    return Err(Refusal::BadJson);
                }
                sorted.add_read(&mappings, body, 0, event, arrival);
            }
            sorted.charge(place, tree_bytes)?;
        }
        Ok(Envelope::Array(_)) if !door.allow_batches => return Err(Refusal::BatchNotAllowed),
        Ok(Envelope::Array(elements)) => {
            place.charge(bytes_of_events(elements.len(), &mappings))?;
            place.discharge(list_bytes);
            sorted.expect(elements.len());
            for (index, element) in elements.into_iter().enumerate() {
                let event = envelope::wrapped_event(element).unwrap_or(element);
                let tree_bytes = tree_bytes(event);
                if tree_bytes > 0 {
                    place.charge(tree_bytes)?;
                }
                sorted.add_raw(&mappings, body, index, event, arrival);
                sorted.charge(place, tree_bytes)?;
            }
        }
        Err(unsplittable) => {
            return Err(match unsplittable.fault {
                Fault::NotJson => Refusal::BadJson,
                Fault::TooManyEvents => Refusal::TooManyEvents,
            });
        }
    }
    Ok(sorted)
}

/// Most bytes that the list of a body's elements can take, computed before it is built: there is at most one
/// element more than there are commas. 0 if the body is not an array.
fn list_bytes(body: &[u8], most_events: usize) -> usize {
    match json::without_mark(body).trim_ascii_start().first() {
        Some(b'[') => bytes_of_list(body, most_events),
        _ => 0,
    }
}

/// [`list_bytes`] for a body that contains an array.
pub(super) fn bytes_of_list(body: &[u8], most_events: usize) -> usize {
    let commas = memchr_iter(b',', body).count();
    most_events.min(commas + 1).next_power_of_two() * size_of::<&[u8]>() // it grows by doubling
}

/// Bytes that this many events take once they are sorted.
pub(super) fn bytes_of_events(events: usize, mappings: &[&Mappings]) -> usize {
    events * (size_of::<&[u8]>() + mappings.len() * BYTES_AN_EVENT)
}

/// Most bytes that an event takes while it is parsed; 0 if that is too little to be charged.
pub(super) fn tree_bytes(text: &[u8]) -> usize {
    if text.len() <= SMALL_TEXT_BYTES {
        return 0;
    }
    // an event with more values is not parsed
    let values = envelope::count_values(text).min(MOST_VALUES);
    let tree_bytes = text.len().min(EVENT_LIMIT_BYTES) + BYTES_A_VALUE * values;
    let is_twice = exact::may_be_inexact(text) || exact::may_be_beyond_floats(text);
    if is_twice { 3 * tree_bytes } else { tree_bytes }
}

impl Share {
    /// Whether nothing has to be durable before the answer.
    pub(super) fn leaves_no_trace(&self) -> bool {
        self.deltas.is_empty() && self.deletions.is_empty() && self.kept.is_empty()
    }

    fn accept(&mut self, index: usize, delta: MembershipDelta, event: Text) {
        self.uncharged_bytes += delta_bytes(&delta) - BYTES_AN_EVENT;
        self.origins.push(Origin { index, event });
        self.deltas.push(delta);
    }

    /// Keeps a rejected event that is worth a replay. `text` is empty for an event that must not be stored,
    /// since it contains a secret.
    fn keep(&mut self, rejection: &Rejection, text: &[u8], of: Subject) {
        if rejection.worth_keeping() && !text.is_empty() {
            self.uncharged_bytes += text.len();
            self.kept.push(rejected_event(rejection, text, of));
        }
    }

    /// Adds a deletion, which takes effect after everything before it in the body.
    fn delete(&mut self, deletion: Deletion) {
        self.uncharged_bytes += deletion.user_id.as_str().len();
        let (after_deltas, after_rejected) = (self.deltas.len(), self.kept.len());
        let is_unconditional = false;
        let ordered = OrderedDeletion { deletion, is_unconditional, after_deltas, after_rejected };
        self.deletions.push(ordered);
    }
}

impl Sorted {
    /// Empty, for destinations with these mappings.
    pub(super) fn of(mappings: &[&Mappings]) -> Self {
        Self {
            shares: mappings.iter().map(|_| Share::default()).collect(),
            account: Account { accepted: 0, ignored: 0, rejected: Vec::new() },
            uncharged_bytes: 0,
            prepaid_bytes: 0,
        }
    }

    /// Reserves capacity for this many events, most of which become one delta each.
    fn expect(&mut self, events: usize) {
        for share in &mut self.shares {
            share.deltas.reserve_exact(events);
            share.origins.reserve_exact(events);
        }
    }

    /// Charges what has accumulated since the last call, and gives back `given_back` bytes.
    pub(super) fn charge(&mut self, place: &mut Place, given_back: usize) -> Result<(), Refusal> {
        let own = std::mem::take(&mut self.uncharged_bytes);
        let of = |share: &mut Share| std::mem::take(&mut share.uncharged_bytes);
        let uncharged = own + self.shares.iter_mut().map(of).sum::<usize>();
        if given_back > 0 {
            place.discharge(given_back);
        }
        let prepaid = uncharged.min(self.prepaid_bytes);
        self.prepaid_bytes -= prepaid;
        if uncharged == prepaid {
            return Ok(());
        }
        place.charge(uncharged - prepaid)
    }

    /// What the ledger has to make durable for these destinations, and the account that is true if it does.
    pub(super) fn into_intakes<'a>(
        self,
        destinations: impl IntoIterator<Item = &'a DestinationName>,
        arrival: Timestamp,
    ) -> (Vec<Intake>, Unsure) {
        let given = Vec::with_capacity(self.shares.len());
        let mut intakes = Vec::with_capacity(self.shares.len());
        let mut unsure = Unsure { arrival, given, account: self.account };
        for (destination, share) in destinations.into_iter().zip(self.shares) {
            let is_recorded = !share.leaves_no_trace();
            let Share { deltas, origins, deletions, kept: rejected, tally, .. } = share;
            let destination = destination.clone();
            if is_recorded {
                let destination = destination.clone();
                let origin = crate::ledger::Origin::Events;
                intakes.push(Intake { destination, arrival, deltas, deletions, rejected, origin });
            }
            unsure.given.push(Given { destination, is_recorded, origins, tally });
        }
        (intakes, unsure)
    }

    /// Adds an event that is a slice of the body.
    pub(super) fn add_raw(
        &mut self,
        mappings: &[&Mappings],
        body: &[u8],
        index: usize,
        text: &[u8],
        arrival: Timestamp,
    ) {
        if !self.add_plain(mappings, body, index, text, arrival) {
            self.add_read(mappings, body, index, text, arrival);
        }
    }

    /// Adds an event of the usual form by the fast path, which builds no tree; `false` if it may not have
    /// that form.
    fn add_plain(
        &mut self,
        mappings: &[&Mappings],
        body: &[u8],
        index: usize,
        text: &[u8],
        arrival: Timestamp,
    ) -> bool {
        if let ([mappings], [share]) = (mappings, &mut self.shares[..])
            && text.len() <= EVENT_LIMIT_BYTES
            && let Some(delta) = mappings.map_plain(text, arrival)
        {
            share.accept(index, delta, Text::in_body(body, text));
            share.tally.accepted += 1;
            self.account.accepted += 1;
            return true;
        }
        false
    }

    /// Parses an event and adds it, or adds the rejection if it cannot be parsed.
    fn add_read(
        &mut self,
        mappings: &[&Mappings],
        body: &[u8],
        index: usize,
        text: &[u8],
        arrival: Timestamp,
    ) {
        match read(text) {
            Ok(event) => {
                let event = Event::from(&event);
                self.add(mappings, index, event, arrival, body, || Text::in_body(body, text));
            }
            Err(rejection) => self.reject(index, rejection, text, arrival),
        }
    }

    /// Adds a parsed event; `text` makes the text under which it is stored, if it is. The event is accepted
    /// if one destination accepts it, and each rejection is kept for the destination whose mappings it comes
    /// from.
    pub(super) fn add(
        &mut self,
        mappings: &[&Mappings],
        index: usize,
        event: Event<'_>,
        arrival: Timestamp,
        body: &[u8],
        text: impl Fn() -> Text,
    ) {
        let text = LazyCell::new(text);
        let (mut accepted, mut rejected): (bool, Option<Rejection>) = (false, None);
        for (mappings, share) in mappings.iter().zip(&mut self.shares) {
            match mappings.map(event, arrival) {
                Outcome::Accepted { deltas, rejection } => {
                    share.uncharged_bytes += BYTES_AN_EVENT * deltas.len().saturating_sub(1);
                    for delta in deltas {
                        share.accept(index, delta, text.clone());
                    }
                    // The event is accepted; a rejection by one of the mappings is kept nevertheless.
                    if let Some(rejection) = rejection {
                        share.keep(&rejection, text.show(body), Subject::of(event, arrival));
                    }
                    share.tally.accepted += 1;
                    share.tally.date(event, arrival);
                    accepted = true;
                }
                Outcome::Deletion(deletion) => {
                    share.delete(deletion);
                    share.tally.accepted += 1;
                    share.tally.date(event, arrival);
                    accepted = true;
                }
                Outcome::Ignored => {
                    share.tally.ignored += 1;
                    share.tally.names.count(event.numbers());
                }
                Outcome::Rejected(rejection) => {
                    share.tally.rejected.push(rejection.reason);
                    share.keep(&rejection, text.show(body), Subject::of(event, arrival));
                    rejected = Some(match rejected {
                        Some(before) => before.and(rejection),
                        None => rejection,
                    });
                }
            }
        }
        match rejected {
            _ if accepted => self.account.accepted += 1,
            Some(rejection) => self.account.rejected.push((index, rejection)),
            None => self.account.ignored += 1,
        }
    }

    /// Adds an event that no destination can read.
    pub(super) fn reject(
        &mut self,
        index: usize,
        rejection: Rejection,
        text: &[u8],
        arrival: Timestamp,
    ) {
        for share in &mut self.shares {
            share.tally.rejected.push(rejection.reason);
            share.keep(&rejection, text, Subject { user_id: None, event_at: arrival });
        }
        self.account.rejected.push((index, rejection));
    }
}

/// An account that is true unless the ledger refuses some of the audiences.
#[derive(Debug)]
pub(super) struct Unsure {
    arrival: Timestamp,
    /// One for each destination.
    given: Vec<Given>,
    pub(super) account: Account,
}

/// What the ledger was given for one destination.
#[derive(Debug)]
struct Given {
    destination: DestinationName,
    /// `false` if there was nothing to record.
    is_recorded: bool,
    origins: Vec<Origin>,
    tally: Tally,
}

impl Given {
    /// How many deltas an event became.
    fn deltas_of(&self, index: usize) -> usize {
        let start = self.origins.partition_point(|before| before.index < index);
        self.origins[start..].iter().take_while(|of| of.index == index).count()
    }
}

impl Unsure {
    /// Bytes that will be kept of events whose audience has another context kind, or is one too many.
    pub(super) fn conflicts_bytes(&self, recorded: &[Recorded]) -> usize {
        let given = self.given.iter().filter(|given| given.is_recorded);
        let of = |(given, recorded): (&Given, &Recorded)| -> usize {
            let unrecorded = recorded.unrecorded().into_iter();
            let events = unrecorded.filter_map(|(at, _)| given.origins.get(at));
            events.map(|origin| origin.event.length() + BYTES_AN_EVENT).sum()
        };
        given.zip(recorded).map(of).sum()
    }

    /// What became of the events, for each destination.
    pub(super) fn tallies(&self) -> impl Iterator<Item = &Tally> {
        self.given.iter().map(|given| &given.tally)
    }

    /// Moves events whose audience has another context kind, or is one too many, from the accepted to the
    /// rejected, if none of their deltas was recorded. Returns what has to be stored of them. `recorded` are
    /// the ledger's answers, in the order of the intakes; `body` is the body that the events came in.
    pub(super) fn without_conflicts(
        &mut self,
        recorded: Vec<Recorded>,
        body: &[u8],
    ) -> Vec<Intake> {
        if recorded.iter().all(|recorded| *recorded == Recorded::default()) {
            return Vec::new();
        }
        let mut refused: BTreeMap<usize, (usize, Rejection)> = BTreeMap::new();
        let mut kept = Vec::new();
        let recorded_of = self.given.iter_mut().filter(|given| given.is_recorded);
        for (given, recorded) in recorded_of.zip(recorded) {
            let unrecorded = recorded.unrecorded();
            if unrecorded.is_empty() {
                continue;
            }
            let of: Vec<(&Origin, Unrecorded)> = unrecorded
                .into_iter()
                .filter_map(|(at, why)| Some((given.origins.get(at)?, why)))
                .collect();
            let mut rejected = Vec::new();
            for deltas in of.chunk_by(|(one, _), (next, _)| one.index == next.index) {
                let (origin, why) = deltas[0];
                let rejection = Rejection::from(why);
                let (count, _) =
                    refused.entry(origin.index).or_insert_with(|| (0, rejection.clone()));
                *count += deltas.len();
                let event = origin.event.show(body);
                let unknown = || Subject { user_id: None, event_at: self.arrival };
                let of = read(event)
                    .map_or_else(|_| unknown(), |event| Subject::of((&event).into(), self.arrival));
                rejected.push(rejected_event(&rejection, event, of));
                // Deltas of the event from another mapping may have been recorded.
                if given.deltas_of(origin.index) == deltas.len() {
                    given.tally.accepted -= 1;
                    given.tally.rejected.push(rejection.reason);
                }
            }
            kept.push(Intake {
                destination: given.destination.clone(),
                arrival: self.arrival,
                deltas: Vec::new(),
                deletions: Vec::new(),
                rejected,
                origin: crate::ledger::Origin::Events,
            });
        }
        for (index, (count, rejection)) in refused {
            if self.given.iter().map(|given| given.deltas_of(index)).sum::<usize>() == count {
                self.account.rejected.push((index, rejection));
                self.account.accepted -= 1;
            }
        }
        self.account.rejected.sort_by_key(|(index, _)| *index);
        kept
    }
}

/// Bytes of a delta with its origin. Texts of usual length are included in [`BYTES_AN_EVENT`].
fn delta_bytes(delta: &MembershipDelta) -> usize {
    let names = delta.audience.as_str().len() + delta.audience_key.as_str().len();
    let user_id = delta.user_id.as_ref().map_or(0, |user_id| user_id.as_str().len());
    let texts = names + delta.context_key.as_str().len() + user_id;
    BYTES_AN_EVENT.max(BYTES_AN_EVENT / 2 + texts)
}

/// Whom an event concerns, and when it happened: by these a deletion finds it.
struct Subject {
    user_id: Option<UserId>,
    event_at: Timestamp,
}

impl Subject {
    fn of(event: Event<'_>, arrival: Timestamp) -> Self {
        Self { user_id: user_id(event), event_at: happened_at(event, arrival) }
    }
}

fn rejected_event(rejection: &Rejection, text: &[u8], of: Subject) -> RejectedEvent {
    let Rejection { reason, detail } = rejection.clone();
    let Subject { user_id, event_at } = of;
    RejectedEvent { reason: reason.as_str().into(), detail, body: text.to_vec(), user_id, event_at }
}

/// Parses one event. The parser's error is dropped: it may quote the event ([P8](crate::design::P8)).
pub(super) fn read(text: &[u8]) -> Result<Exact, Rejection> {
    match too_large(text) {
        Some(rejection) => Err(rejection),
        None => Exact::read(text).map_err(|_| Rejection::unreadable()),
    }
}

/// Why an event is not even parsed: that would take too much memory.
#[must_use]
pub fn too_large(text: &[u8]) -> Option<Rejection> {
    let detail = if text.len() > EVENT_LIMIT_BYTES {
        "An event may have at most 1 MiB, and Segment's own limit is 32 KB: send fewer fields."
    } else if text.len() > 2 * MOST_VALUES && envelope::count_values(text) > MOST_VALUES {
        "An event may hold at most 50,000 values: send fewer fields."
    } else {
        return None;
    };
    Some(Rejection::new(Reason::EventTooLarge, detail))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::map::{AudienceRules, Glob, Mapping, Subscription};
    use crate::membership::DestinationName;
    use crate::receive::body;
    use crate::receive::budget::Budget;
    use crate::receive::fake::{LIMITS, entrance};
    use crate::receive::{Credentials, Destination, Doors, Entrance};
    use crate::secret::Secret;

    const ARRIVAL: Timestamp = Timestamp(1_750_000_000_000_000);

    /// A route to `all`, which accepts identify calls for every audience, and to `few`, which accepts those
    /// for `vip` and needs an email.
    fn route() -> Arc<Door> {
        let mut few = Mapping::preset();
        few.subscribe(Subscription::parse("type = \"identify\"").expect("FQL"));
        few.set_field("context_key", &json!("email_only")).expect("a rule");
        let allow = vec![Glob::new("vip").expect("a glob")];
        few.set_audiences(AudienceRules { allow, ..AudienceRules::default() });
        let to = |name: &str, mapping: Mapping| {
            let name = DestinationName::new(name).expect("a name");
            let (mappings, counters) = (mapping.into(), Arc::default());
            Arc::new(Destination { name, enabled: true, mappings, counters })
        };
        let destinations = vec![to("all", Mapping::preset()), to("few", few)];
        let doors = Doors::new([Entrance { destinations, ..entrance("both") }]);
        doors.at("both").expect("it is there")
    }

    fn event(user: Option<&str>, audience: &str, email: Option<&str>) -> Value {
        json!({
            "type": "identify",
            "userId": user,
            "context": {"personas": {
                "computation_id": audience, "computation_key": audience,
                "computation_class": "audience",
            }},
            "traits": {audience: true, "email": email},
        })
    }

    fn sorted(events: &[Value]) -> Sorted {
        let door = route();
        let mappings = door.mappings();
        let mut sorted = Sorted::of(&mappings);
        for (index, event) in events.iter().enumerate() {
            let text = || Text::Written(event.to_string().into());
            sorted.add(&mappings, index, event.into(), ARRIVAL, &[], text);
        }
        sorted
    }

    #[tokio::test]
    async fn the_list_of_the_elements_is_reserved_before_it_is_made() {
        let credentials =
            Credentials { shared_secrets: vec![Secret::new("secret")], ..Credentials::default() };
        let doors = Doors::new([Entrance { credentials, ..entrance("one") }]);
        let door = doors.at("one").expect("it is there");
        let headers = [("x-signature", "0".repeat(40))].map(|(name, value)| {
            (http::HeaderName::from_static(name), value.parse().expect("a header"))
        });
        let presented = door.gate.inspect(&headers.into_iter().collect()).expect("a signature");
        let body = format!("[{}0]", "0,".repeat(20_000));
        for (left_bytes, expected) in
            [(1 << 20, Refusal::Unauthenticated), (1024, Refusal::TooLarge)]
        {
            let bytes = body.len() + left_bytes;
            let budget = Budget::new(1, bytes, bytes);
            let read = body::read(&mut body.clone().into(), &LIMITS, &budget).await;
            let mut received = read.expect("there is room for the body");
            let end = sort(&door, &presented, &received.bytes, &mut received.place, ARRIVAL);
            assert_eq!(end.err(), Some(expected), "{left_bytes}");
        }
        let door = route();
        assert_eq!(list_bytes(b" {}", most_events(&door)), 0);
        assert_eq!(list_bytes(b"[1,2,3]", most_events(&door)), 4 * size_of::<&[u8]>());
    }

    #[test]
    fn an_event_is_accepted_by_one_of_several_and_each_rejection_is_kept_where_it_came_from() {
        let page = json!({"type": "page"});
        let delete = json!({"type": "delete", "userId": "u1"});
        let (user, email) = (Some("u1"), Some("a@b.c"));
        // event, accepted, ignored; then for each destination: deltas, deletions, kept
        let table = [
            (event(user, "vip", email), (1, 0), [(1, 0, 0), (1, 0, 0)]),
            (event(user, "vip", None), (1, 0), [(1, 0, 0), (0, 0, 1)]),
            (event(None, "vip", email), (1, 0), [(0, 0, 1), (1, 0, 0)]),
            (event(None, "vip", None), (0, 0), [(0, 0, 1), (0, 0, 1)]),
            (event(user, "other", None), (1, 0), [(1, 0, 0), (0, 0, 0)]),
            (event(None, "other", email), (0, 0), [(0, 0, 1), (0, 0, 0)]),
            (page, (0, 1), [(0, 0, 0), (0, 0, 0)]),
            (delete, (1, 0), [(0, 1, 0), (0, 1, 0)]),
            (json!(7), (0, 0), [(0, 0, 0), (0, 0, 0)]),
        ];
        for (event, (accepted, ignored), expected) in table {
            let Sorted { shares, account, .. } = sorted(std::slice::from_ref(&event));
            assert_eq!((account.accepted, account.ignored), (accepted, ignored), "{event}");
            assert_eq!(account.rejected.len(), 1 - accepted - ignored, "{event}");
            for share in &shares {
                let Tally { accepted, ignored, rejected, .. } = &share.tally;
                assert_eq!(accepted + ignored + rejected.len(), 1, "{event}");
            }
            let found: Vec<_> = shares
                .iter()
                .map(|share| (share.deltas.len(), share.deletions.len(), share.kept.len()))
                .collect();
            assert_eq!(found, expected, "{event}");
        }
        let door = route();
        let mut unreadable = Sorted::of(&door.mappings());
        unreadable.reject(0, Rejection::unreadable(), b"{", ARRIVAL);
        assert!(unreadable.shares.iter().all(|share| share.kept.len() == 1), "for each of them");
    }

    #[test]
    fn a_conflict_of_kinds_rejects_an_event_that_no_destination_has_recorded() {
        let events = [
            event(Some("u1"), "vip", Some("a@b.c")),
            event(Some("u2"), "vip", None),
            event(Some("u3"), "vip", Some("c@b.c")),
        ];
        // conflicts of each destination, indices of rejected events, kept for each destination
        let table = [
            ([vec![], vec![]], vec![], [0, 0]),
            ([vec![0], vec![]], vec![], [1, 0]),
            ([vec![0], vec![0]], vec![0], [1, 1]),
            ([vec![1], vec![0, 1]], vec![1], [1, 2]),
            ([vec![0, 1, 2], vec![0, 1]], vec![0, 1, 2], [3, 2]),
        ];
        for (conflicts, rejected, expected) in table {
            let door = route();
            let names: Vec<_> = door.destinations.iter().map(|of| of.name.clone()).collect();
            let (intakes, mut unsure) = sorted(&events).into_intakes(&names, ARRIVAL);
            assert_eq!(intakes.len(), 2);
            let recorded = conflicts
                .clone()
                .map(|kind_conflicts| Recorded { kind_conflicts, ..Recorded::default() });
            let kept = unsure.without_conflicts(recorded.into(), &[]);
            let account = &unsure.account;
            let indices: Vec<_> = account.rejected.iter().map(|(index, _)| *index).collect();
            assert_eq!(indices, rejected, "{conflicts:?}");
            assert_eq!(account.accepted, events.len() - rejected.len(), "{conflicts:?}");
            let of = |name: &DestinationName| {
                let of: Vec<_> = kept.iter().filter(|intake| intake.destination == *name).collect();
                of.iter().map(|intake| intake.rejected.len()).sum::<usize>()
            };
            assert_eq!([of(&names[0]), of(&names[1])], expected, "{conflicts:?}");
            // At the second destination, one of the events lacks the email that it needs.
            let counted: Vec<_> = unsure.tallies().map(|tally| tally.rejected.len()).collect();
            assert_eq!(counted, [expected[0], expected[1] + 1], "{conflicts:?}");
            for tally in unsure.tallies() {
                assert_eq!(tally.accepted + tally.rejected.len(), events.len(), "{conflicts:?}");
            }
        }
    }

    #[test]
    fn what_is_kept_of_an_account_is_deleted_with_the_person_who_is_named_in_it() {
        let mut mapping = Mapping::preset();
        mapping.subscribe(Subscription::parse("type = \"group\"").expect("FQL"));
        let mappings = Mappings::from(mapping);
        let mut of_an_account = event(Some("ada"), "vip", None);
        of_an_account["type"] = json!("group");
        let body = format!("[{of_an_account}]");
        let event = body.as_bytes().strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
        let event = event.expect("as it was written");
        let mut sorted = Sorted::of(&[&mappings]);
        sorted.add_raw(&[&mappings], body.as_bytes(), 0, event, ARRIVAL);
        let name = DestinationName::new("all").expect("a name");
        let (intakes, mut unsure) = sorted.into_intakes([&name], ARRIVAL);
        assert_eq!(intakes[0].deltas[0].user_id, None, "no deletion takes the member along");
        let conflict = Recorded { kind_conflicts: vec![0], ..Recorded::default() };
        let kept = unsure.without_conflicts(vec![conflict], body.as_bytes());
        let [RejectedEvent { body, user_id, .. }] = &kept[0].rejected[..] else { panic!("one") };
        assert_eq!((&body[..], user_id), (event, &UserId::new("ada")));
    }
}
