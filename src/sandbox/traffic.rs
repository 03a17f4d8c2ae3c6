//! Sample traffic: the events that Segment Engage sends when people enter and leave audiences, together
//! with the resulting audiences, so that the segments can be compared with them.
//!
//! The events are [memberships](crate::design::segment::memberships). The same seed gives the same events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::signing::sign;
use crate::membership::Timestamp;
use crate::secret::Secret;

/// An audience of the sample workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// `computation_id`.
    pub id: &'static str,
    /// `computation_key`.
    pub key: &'static str,
}

impl Sample {
    /// The audience that most people are in.
    pub const HIGH_VALUE_CUSTOMERS: Self =
        Self { id: "aud_2aVvXz8QmK1nHighValue00001", key: "high_value_customers" };
    /// An audience that people soon leave again.
    pub const CART_ABANDONERS: Self =
        Self { id: "aud_2aVvY4LpT7rCartAbandon0002", key: "cart_abandoners" };
}

/// The audiences that [`Traffic`] is about.
const AUDIENCES: [Sample; 2] = [Sample::HIGH_VALUE_CUSTOMERS, Sample::CART_ABANDONERS];
/// Time between two changes of membership.
const PACE: Duration = Duration::from_millis(10);
/// Time from an event to its arrival.
const TRANSIT: Duration = Duration::from_millis(7);

/// One event, as Segment would post it.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    /// The JSON text, which is both posted and signed.
    pub body: String,
    /// `computation_id` of its audience.
    pub audience: &'static str,
    /// The person whose membership changes.
    pub user_id: String,
    /// Whether the person enters or leaves.
    pub entered: bool,
}

/// An endless series of people entering and leaving two audiences. Each change is an Identify followed by a
/// Track, as Segment sends it by default.
pub struct Traffic {
    random: StdRng,
    people: u32,
    time: Timestamp,
    messages: u64,
    truth: BTreeMap<String, BTreeSet<String>>,
    /// The second event of the current change.
    pending: VecDeque<Event>,
}

impl Traffic {
    /// Traffic about `people` people (at least one); the first event has the time `from`.
    #[must_use]
    pub fn new(seed: u64, people: u32, from: Timestamp) -> Self {
        let empty = |audience: Sample| (audience.id.to_owned(), BTreeSet::new());
        Self {
            random: StdRng::seed_from_u64(seed),
            people: people.max(1),
            time: from,
            messages: 0,
            truth: AUDIENCES.map(empty).into(),
            pending: VecDeque::new(),
        }
    }

    /// The people in each audience (by `computation_id`) after the events so far.
    #[must_use]
    pub fn truth(&self) -> &BTreeMap<String, BTreeSet<String>> {
        &self.truth
    }

    fn change(&mut self) -> [Event; 2] {
        let audience = AUDIENCES[usize::from(self.random.random_bool(0.4))];
        let user_id = user_id(self.random.random_range(0..self.people).into());
        let members = self.truth.entry(audience.id.to_owned()).or_default();
        let entered = members.insert(user_id.clone());
        if !entered {
            members.remove(&user_id);
        }
        let mut event = |kind| {
            let membership = Membership { audience, user_id: &user_id, entered, at: self.time };
            self.messages += 1;
            let body = membership.event(kind, self.messages).to_string();
            Event { body, audience: audience.id, user_id: user_id.clone(), entered }
        };
        let events = [event(Kind::Identify), event(Kind::Track)];
        self.time = self.time.after(PACE);
        events
    }
}

impl Iterator for Traffic {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        if self.pending.is_empty() {
            let change = self.change();
            self.pending.extend(change);
        }
        self.pending.pop_front()
    }
}

/// The first sync of an audience: every member enters once, in batches.
#[derive(Clone, Debug)]
pub struct Backfill {
    audience: Sample,
    members: Range<u64>,
    time: Timestamp,
    user_id: fn(u64) -> String,
}

impl Backfill {
    /// Events in a batch: Segment's default.
    pub const BATCH_EVENTS: usize = 1000;

    /// `members` distinct people enter `audience`: the first at the time `from`, each further one a
    /// microsecond later.
    #[must_use]
    pub fn new(audience: Sample, members: u64, from: Timestamp) -> Self {
        Self { audience, members: 0..members, time: from, user_id }
    }

    /// Like [`new`](Self::new), for people with these numbers and with user ids from
    /// [`Backfill::spread_user_id`]: they do not arrive in the order of their ids, as is the case with
    /// UUIDs and hashes.
    #[must_use]
    pub fn spread(audience: Sample, members: Range<u64>, from: Timestamp) -> Self {
        Self { audience, members, time: from, user_id: Self::spread_user_id }
    }

    /// The user id of a person: unique to each number, and in no relation to the ids of the numbers next to
    /// it.
    #[must_use]
    pub fn spread_user_id(person: u64) -> String {
        // SplitMix64's mixing function: every step is invertible, so the ids are unique
        let mixed = person.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        format!("user_{:016x}", mixed ^ (mixed >> 31))
    }

    /// The final members of the audience, for [`new`](Self::new)'s readable user ids.
    pub fn truth(members: u64) -> impl Iterator<Item = String> {
        (0..members).map(user_id)
    }
}

/// A batch of events, as Segment would post it.
#[derive(Clone, PartialEq, Eq)]
pub struct Batch {
    /// A JSON array of events.
    pub body: Vec<u8>,
    /// The number of events.
    pub events: usize,
    first: Range<usize>,
}

impl Batch {
    /// The `X-Signature` of the batch, which signs its first event.
    #[must_use]
    pub fn signature(&self, secret: &Secret) -> String {
        sign(secret, &self.body[self.first.clone()])
    }
}

impl Iterator for Backfill {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let mut body = vec![b'['];
        let mut first = 0..0;
        let mut events = 0;
        for person in self.members.by_ref().take(Self::BATCH_EVENTS) {
            if events > 0 {
                body.push(b',');
            }
            let user_id = (self.user_id)(person);
            let membership = Membership {
                audience: self.audience,
                user_id: &user_id,
                entered: true,
                at: self.time,
            };
            body.extend_from_slice(membership.event(Kind::Identify, person).to_string().as_bytes());
            if events == 0 {
                first = 1..body.len();
            }
            events += 1;
            self.time = self.time.after(Duration::from_micros(1));
        }
        body.push(b']');
        (events > 0).then_some(Batch { body, events, first })
    }
}

fn user_id(person: u64) -> String {
    format!("user_{person:07}")
}

#[derive(Clone, Copy)]
enum Kind {
    Identify,
    Track,
}

/// A change of membership, to be written as an event.
struct Membership<'a> {
    audience: Sample,
    user_id: &'a str,
    entered: bool,
    at: Timestamp,
}

impl Membership<'_> {
    fn event(&self, kind: Kind, message: u64) -> Value {
        let (key, email) = (self.audience.key, format!("{}@example.com", self.user_id));
        let (at, arrival) = (iso(self.at), iso(self.at.after(TRANSIT)));
        let mut event = json!({
            "channel": "server",
            "context": {
                "library": {"name": "unknown", "version": "unknown"},
                "personas": {
                    "computation_class": "audience",
                    "computation_id": self.audience.id,
                    "computation_key": key,
                    "event_emitter_id": "event_tester",
                    "namespace": "spa_2aVuSampleWorkspace0001",
                },
            },
            "integrations": {"All": false, "Webhook": true},
            "messageId": format!("personas_sample_{message:012}"),
            "originalTimestamp": at,
            "receivedAt": arrival,
            "sentAt": Value::Null,
            "timestamp": at,
            "userId": self.user_id,
        });
        match kind {
            Kind::Identify => {
                event["type"] = "identify".into();
                event["traits"] = json!({"email": email, key: self.entered});
            }
            Kind::Track => {
                let name = if self.entered { "Audience Entered" } else { "Audience Exited" };
                event["type"] = "track".into();
                event["event"] = name.into();
                event["context"]["traits"] = json!({"email": email});
                event["properties"] = json!({"audience_key": key, key: self.entered});
            }
        }
        event
    }
}

/// ISO 8601 with microseconds; a time outside of the calendar's range becomes the epoch.
fn iso(time: Timestamp) -> String {
    let time = jiff::Timestamp::from_microsecond(time.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use serde::de::IgnoredAny;

    use super::*;
    use crate::json;

    const FROM: Timestamp = Timestamp(1_700_000_000_000_000);

    fn parsed(body: &[u8]) -> Value {
        serde_json::from_slice(body).expect("traffic is JSON")
    }

    /// Derives the memberships from the events with nothing but the table of
    /// [memberships](crate::design::segment::memberships).
    #[test]
    fn the_truth_is_what_the_events_say() {
        let mut traffic = Traffic::new(7, 50, FROM);
        let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut message_ids = BTreeSet::new();
        let mut last_time = String::new();
        let (mut entered, mut left) = (0, 0);
        for index in 0..2000 {
            let event = parsed(traffic.next().expect("traffic has no end").body.as_bytes());
            let text = |value: &Value| value.as_str().expect("text").to_owned();
            let personas = &event["context"]["personas"];
            let user_id = text(&event["userId"]);
            let email = format!("{user_id}@example.com");
            let values = if index % 2 == 0 {
                assert_eq!(
                    (&event["type"], &event["traits"]["email"]),
                    (&"identify".into(), &email.into())
                );
                &event["traits"]
            } else {
                assert_eq!(
                    (&event["type"], &event["context"]["traits"]["email"]),
                    (&"track".into(), &email.into())
                );
                &event["properties"]
            };
            let key = text(&personas["computation_key"]);
            let members = told.entry(text(&personas["computation_id"])).or_default();
            if values[&key].as_bool().expect("a boolean") {
                entered += u32::from(members.insert(user_id));
            } else {
                left += u32::from(members.remove(&user_id));
            }
            assert_eq!(personas["computation_class"], "audience");
            assert!(message_ids.insert(text(&event["messageId"])));
            let time = text(&event["timestamp"]);
            assert!(time >= last_time, "{time} after {last_time}");
            last_time = time;
        }
        assert_eq!(&told, traffic.truth());
        assert_eq!(entered + left, 1000, "every change is told twice, and is one");
        assert!(left > 100, "{left} people left");
        assert!(last_time.starts_with("2023-11-14T22:13:29.99"), "{last_time}");
    }

    #[test]
    fn a_seed_gives_the_same_traffic_again() {
        let bodies = |seed| {
            Traffic::new(seed, 50, FROM).take(100).map(|event| event.body).collect::<Vec<_>>()
        };
        assert_eq!(bodies(1), bodies(1));
        assert_ne!(bodies(1), bodies(2));
    }

    #[test]
    fn a_backfill_names_every_member_once() {
        let batches: Vec<Batch> = Backfill::new(Sample::CART_ABANDONERS, 2001, FROM).collect();
        assert_eq!(batches.iter().map(|batch| batch.events).collect::<Vec<_>>(), [1000, 1000, 1]);
        let mut members = Vec::new();
        for batch in &batches {
            for event in parsed(&batch.body).as_array().expect("a batch is an array") {
                assert_eq!(event["traits"]["cart_abandoners"], true);
                members.push(event["userId"].as_str().expect("text").to_owned());
            }
        }
        assert!(members.iter().eq(&Backfill::truth(2001).collect::<Vec<_>>()));
    }

    /// Sorted ids would flatter a ledger that stores members in key order.
    #[test]
    fn spread_user_ids_do_not_arrive_in_order() {
        let batches = Backfill::spread(Sample::CART_ABANDONERS, 5000..8000, FROM);
        let events: Vec<Value> = batches
            .flat_map(|batch| parsed(&batch.body).as_array().expect("an array").clone())
            .collect();
        let ids: Vec<&str> = events.iter().filter_map(|event| event["userId"].as_str()).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 3000, "each is another");
        assert_eq!(ids[0], Backfill::spread_user_id(5000));
        let ascents = ids.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((1300..1700).contains(&ascents), "{ascents} of 2999 pairs ascend");
    }

    #[test]
    fn a_batch_is_signed_by_its_first_event() {
        let secret = Secret::new("hush");
        let batch = Backfill::new(Sample::CART_ABANDONERS, 2, FROM).next().expect("two members");
        let behind_the_bracket = &batch.body[1..];
        let (IgnoredAny, rest) = json::first(behind_the_bracket).expect("an event");
        let first = &behind_the_bracket[..behind_the_bracket.len() - rest.len()];
        assert_eq!(batch.signature(&secret), sign(&secret, first));
    }
}
