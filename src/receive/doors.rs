//! The doors: what is behind each path to which events are posted. A reload replaces all of them at once.
//!
//! # What always holds
//! * A request that has entered by a door is finished with that door, even if it is replaced meanwhile.
//! * The rate of a path belongs to its name: a reload gives nobody a fresh burst.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use tokio::time::Instant;

use super::answer::Refusal;
use super::authentication::{Credentials, Gate};
use super::bucket::{Bucket, Rate};
use super::cors;
use super::counters::Received;
use super::rewritten::Sample;
use super::sources;
use super::unpacking::Encoding;
use crate::current::Current;
use crate::map::Mappings;
use crate::membership::DestinationName;

/// The rate per path of calls that need no credential: Segment makes one when an audience is connected.
const UNSIGNED_CALLS: Rate = Rate { a_second: 5.0, burst: 50.0 };

/// A path to which events are posted: who may do so, and where they go.
#[derive(Debug)]
pub struct Entrance {
    /// The last segment of the path, `/segment/{name}`.
    pub name: String,
    /// The destination of that name, or all destinations of the route of that name.
    pub destinations: Vec<Arc<Destination>>,
    /// What a request must present.
    pub credentials: Credentials,
    /// Fields that Segment appends to an event after it has signed it.
    pub extra_fields: Vec<String>,
    /// Networks that may send; empty: all.
    pub allowed_sources: Vec<IpNet>,
    /// Origins of web pages that may read answers of the Tracking API; `*` is every origin.
    pub cors_origins: Vec<String>,
    /// Whether a request may carry several events, only the first of which a signature covers.
    pub allow_batches: bool,
    /// Whether clocks of Tracking API senders are also corrected if they are behind.
    pub corrects_clocks_behind: bool,
    /// The rate of requests; `None`: no limit.
    pub rate: Option<Rate>,
}

/// A configured destination, as the public listener knows it.
#[derive(Debug)]
pub struct Destination {
    /// The name that its deltas are recorded under.
    pub name: DestinationName,
    /// A disabled destination answers 503, so that Segment retries for a while and nothing is lost.
    pub enabled: bool,
    /// Turns events into deltas.
    pub mappings: Mappings,
    /// Its counters.
    pub counters: Arc<Received>,
}

/// The current doors; clones share them.
#[derive(Clone, Debug)]
pub struct Doors(Current<HashMap<String, Arc<Door>>>);

impl Doors {
    /// Opens a door for each entrance.
    #[must_use]
    pub fn new(entrances: impl IntoIterator<Item = Entrance>) -> Self {
        let doors = Self(Current::new(HashMap::new()));
        doors.replace(entrances);
        doors
    }

    /// Replaces all doors.
    pub fn replace(&self, entrances: impl IntoIterator<Item = Entrance>) {
        let before = self.0.get();
        let doors = entrances.into_iter().map(|entrance| {
            let before = before.get(&entrance.name).map(|door| &**door);
            (entrance.name.clone(), Arc::new(Door::new(entrance, before)))
        });
        self.0.set(doors.collect());
    }

    /// The door of that name.
    pub(super) fn at(&self, name: &str) -> Option<Arc<Door>> {
        self.0.look(|doors| doors.get(name).map(Arc::clone))
    }

    /// Whether any door has a write key.
    pub(super) fn have_write_keys(&self) -> bool {
        self.0.look(|doors| doors.values().any(|door| door.gate.has_write_keys()))
    }

    /// Whether a web page of this origin may read the answers of some door.
    pub(super) fn some_page_may_read(&self, origin: &HeaderValue) -> bool {
        let may = |door: &Arc<Door>| {
            door.gate.has_write_keys() && cors::may_read(&door.cors_origins, origin)
        };
        self.0.look(|doors| doors.values().any(may))
    }

    /// Whether some door lets web pages read its answers.
    pub(super) fn some_page_may_be_listed(&self) -> bool {
        let lists = |door: &Arc<Door>| door.gate.has_write_keys() && !door.cors_origins.is_empty();
        self.0.look(|doors| doors.values().any(lists))
    }

    /// Every door.
    pub(super) fn all(&self) -> Vec<Arc<Door>> {
        self.0.look(|doors| doors.values().map(Arc::clone).collect())
    }

    /// The door that a write key opens. Every key is compared, so that timing reveals nothing.
    pub(super) fn of_key(&self, write_key: &str) -> Option<Arc<Door>> {
        let mut found = None;
        for door in self.0.get().values() {
            if door.gate.knows_write_key(write_key) {
                found = Some(Arc::clone(door));
            }
        }
        found
    }
}

/// An entrance with its credentials prepared for checking.
#[derive(Debug)]
pub(super) struct Door {
    pub name: String,
    pub destinations: Vec<Arc<Destination>>,
    pub gate: Gate,
    pub extra_fields: Vec<String>,
    allowed_sources: Vec<IpNet>,
    pub cors_origins: Vec<String>,
    pub allow_batches: bool,
    pub corrects_clocks_behind: bool,
    requests: Option<Arc<Mutex<Bucket>>>,
    /// The rate of calls that need no credential.
    unsigned: Arc<Mutex<Bucket>>,
    /// Samples bodies whose signature is wrong.
    pub sample: Sample,
}

impl Door {
    /// The names of its destinations, for people.
    pub(super) fn names(&self) -> String {
        let names: Vec<_> = self.destinations.iter().map(|of| of.name.as_str()).collect();
        names.join(", ")
    }

    /// Whether the door belongs to a route: that of a destination has the name of its only destination.
    pub(super) fn is_route(&self) -> bool {
        !matches!(&self.destinations[..], [only] if only.name.as_str() == self.name)
    }

    /// A new door, which continues with what is left of the rates of the door `before`.
    fn new(entrance: Entrance, before: Option<&Self>) -> Self {
        let fresh = |rate| Arc::new(Mutex::new(Bucket::of(rate)));
        let requests = entrance.rate.map(|rate| {
            let left = before.and_then(|before| before.requests.as_ref());
            let same = left.filter(|left| lock(left).rate() == rate);
            same.map_or_else(|| fresh(rate), Arc::clone)
        });
        let unsigned =
            before.map_or_else(|| fresh(UNSIGNED_CALLS), |before| Arc::clone(&before.unsigned));
        Self {
            name: entrance.name,
            destinations: entrance.destinations,
            gate: Gate::new(&entrance.credentials),
            extra_fields: entrance.extra_fields,
            allowed_sources: entrance.allowed_sources,
            cors_origins: entrance.cors_origins,
            allow_batches: entrance.allow_batches,
            corrects_clocks_behind: entrance.corrects_clocks_behind,
            requests,
            unsigned,
            sample: Sample::default(),
        }
    }

    /// Checks that apply to every request with a body, and returns how the body is compressed. If one of
    /// several destinations is disabled, the door is closed for all: nobody would send again what that one
    /// missed.
    pub(super) fn is_open(
        &self,
        headers: &HeaderMap,
        source: Option<IpAddr>,
    ) -> Result<Option<Encoding>, Refusal> {
        self.admits_from(source)?;
        Encoding::of(headers)
    }

    /// The checks of [`Door::is_open`] without the content encoding.
    pub(super) fn admits_from(&self, source: Option<IpAddr>) -> Result<(), Refusal> {
        if !sources::is_among(source, &self.allowed_sources) {
            return Err(Refusal::SourceNotAllowed);
        }
        if !self.destinations.iter().all(|destination| destination.enabled) {
            return Err(Refusal::Disabled);
        }
        Ok(())
    }

    /// The mappings of each destination behind the door.
    pub(super) fn mappings(&self) -> Vec<&Mappings> {
        self.destinations.iter().map(|destination| &destination.mappings).collect()
    }

    /// Counts a request of an authenticated sender against the rate; strangers cannot use it up.
    pub(super) fn count_request(&self) -> Result<(), Refusal> {
        self.requests.as_deref().map_or(Ok(()), take_one)
    }

    /// Counts a call that needs no credential against its rate.
    pub(super) fn count_unsigned_call(&self) -> Result<(), Refusal> {
        take_one(&self.unsigned)
    }
}

fn lock(bucket: &Mutex<Bucket>) -> std::sync::MutexGuard<'_, Bucket> {
    bucket.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take_one(bucket: &Mutex<Bucket>) -> Result<(), Refusal> {
    if lock(bucket).take(Instant::now()) { Ok(()) } else { Err(Refusal::TooMany) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive::fake::entrance;
    use crate::secret::Secret;

    #[tokio::test(start_paused = true)]
    async fn what_is_left_of_a_rate_survives_and_another_rate_begins_anew() {
        let with = |calls| Entrance { rate: Some(Rate::a_second(calls)), ..entrance("one") };
        let doors = Doors::new([with(2)]);
        let count = || doors.at("one").expect("it is there").count_request();
        assert_eq!((count(), count(), count()), (Ok(()), Ok(()), Err(Refusal::TooMany)));
        doors.replace([with(2)]);
        assert_eq!(count(), Err(Refusal::TooMany), "the same rate");
        doors.replace([with(1)]);
        assert_eq!((count(), count()), (Ok(()), Err(Refusal::TooMany)), "another one");
        let unsigned = || doors.at("one").expect("it is there").count_unsigned_call();
        while unsigned().is_ok() {}
        doors.replace([entrance("one")]);
        assert_eq!(unsigned(), Err(Refusal::TooMany));
        assert_eq!((count(), count()), (Ok(()), Ok(())), "no rate");
    }

    #[tokio::test]
    async fn whoever_has_entered_keeps_the_door_and_others_find_the_new_one() {
        let doors = Doors::new([entrance("one"), entrance("two")]);
        let entered = doors.at("one").expect("it is there");
        let credentials =
            Credentials { write_keys: vec![Secret::new("next")], ..Credentials::default() };
        doors.replace([Entrance { credentials, ..entrance("two") }, entrance("three")]);
        assert_eq!(entered.destinations[0].name.as_str(), "one");
        assert!(doors.at("one").is_none() && doors.at("three").is_some());
        assert_eq!(doors.of_key("next").expect("it opens a door").name, "two");
        assert_eq!(doors.of_key("key").expect("it opens a door").name, "three");
    }
}
