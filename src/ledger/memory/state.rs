//! What the model knows, and how a member of it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::ledger::counts::Counts;
use crate::ledger::deletion::Tombstone;
use crate::ledger::guard::Guard;
use crate::ledger::member::{self, Member, Moment, Next};
use crate::ledger::memory::begun::Begun;
use crate::ledger::{
    DestinationSettings, LedgerError, ParkReason, RejectedView, Retention, Route, Turnover,
};
use crate::membership::{AudienceId, ContextKey, DestinationName, MessageHash, Timestamp};

/// A member of a destination.
pub(crate) type Key = (AudienceId, ContextKey);

/// How long and how much is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// How long a member that left, and was told so, is remembered.
    pub tombstone_ttl: Duration,
    /// Which rejected events are kept; the oldest go first.
    pub rejected: Retention,
    /// Which parked members are kept; the oldest go first.
    pub parked: Retention,
    /// Audiences that a destination may have; one that has more keeps those it has.
    pub max_audiences: usize,
}

/// What the handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub news: watch::Sender<()>,
    state: Mutex<State>,
}

impl Shared {
    pub fn new(state: State) -> Self {
        Self { news: watch::Sender::new(()), state: Mutex::new(state) }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    /// Changes something, all at once, and wakes every courier.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state());
        self.news.send_replace(());
        changed
    }
}

/// The ledger's own clock.
#[derive(Clone, Debug)]
pub(crate) struct Stamps {
    clock: Arc<dyn Clock>,
    /// The largest arrival told or recorded.
    arrival: Timestamp,
    /// The last stamp given out.
    last: Timestamp,
}

impl Stamps {
    /// The wall clock, but never less than an arrival that was told or recorded.
    pub fn arrival(&mut self) -> Timestamp {
        self.note(self.clock.now());
        self.arrival
    }

    /// An arrival was recorded.
    pub fn note(&mut self, arrival: Timestamp) {
        self.arrival = self.arrival.max(arrival);
    }

    /// Now, and larger than every stamp before it.
    pub fn fresh(&mut self) -> Timestamp {
        self.last = self.arrival().max(Timestamp(self.last.0 + 1));
        self.last
    }
}

/// All there is.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub stamps: Stamps,
    pub bounds: Bounds,
    /// Those that have ever been configured and were not erased since.
    pub destinations: BTreeMap<DestinationName, Destination>,
    pub rejected: Rejected,
    pub reconciliations: Begun,
    pub note: Option<String>,
}

/// Rejected events, by their numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rejected {
    pub last: i64,
    pub kept: BTreeMap<i64, Kept>,
}

/// A rejected event.
#[derive(Clone)]
pub(crate) struct Kept {
    pub destination: DestinationName,
    pub person: Option<String>,
    pub event_at: Timestamp,
    pub view: RejectedView,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("destination", &self.destination).finish_non_exhaustive()
    }
}

/// One destination.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    pub settings: DestinationSettings,
    pub is_configured: bool,
    /// It is configured, or was since the start.
    pub is_known: bool,
    pub paused_at: Option<Timestamp>,
    pub audiences: BTreeMap<AudienceId, Audience>,
    pub members: BTreeMap<Key, Member>,
    /// Who is in a batch.
    pub claimed: BTreeSet<Key>,
    /// Since when a member has been waiting, on the clock that never jumps.
    pub waiting: BTreeMap<Key, Instant>,
    /// What LaunchDarkly said of who it refused, and when.
    pub words: BTreeMap<Key, (Timestamp, ParkReason)>,
    /// Who is to be told once more, and when.
    pub reassertions: Vec<(Instant, Key)>,
    /// What stands in a member for a user id that is not its context key.
    pub persons: BTreeMap<String, [u8; 16]>,
    pub deleted: BTreeMap<String, Deleted>,
    /// Audiences of which members entered or left in this request.
    pub flipped: BTreeSet<AudienceId>,
    /// Members that left because their entries have expired, not yet counted.
    pub expired: u64,
    /// Messages whose event time depends on their arrival: since when each is remembered, and when it counts.
    pub messages: BTreeMap<MessageHash, (Timestamp, Timestamp)>,
}

/// What a deletion has left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deleted {
    pub at: Tombstone,
    /// When the last one arrived.
    pub arrival: Timestamp,
}

/// One audience of a destination.
#[derive(Clone, Debug)]
pub(crate) struct Audience {
    pub route: Arc<Route>,
    /// LaunchDarkly has taken a member of it.
    pub acknowledged: bool,
    /// What was told before this does not count.
    pub told_counts_from: Timestamp,
    /// As of when the latest snapshot of it was.
    pub snapshot_at: Timestamp,
    /// It was erased while members of it were in a call, and nothing of it has arrived since.
    pub is_dropped: bool,
    pub turnover: Turnover,
    pub guard: Guard,
}

impl Audience {
    pub fn new(route: Route) -> Self {
        Self {
            route: Arc::new(route),
            acknowledged: false,
            told_counts_from: Timestamp::EPOCH,
            snapshot_at: Timestamp::EPOCH,
            is_dropped: false,
            turnover: Turnover::default(),
            guard: Guard::default(),
        }
    }
}

impl State {
    pub fn new(clock: Arc<dyn Clock>, bounds: Bounds) -> Self {
        let (arrival, last) = (Timestamp::EPOCH, Timestamp::EPOCH);
        Self {
            stamps: Stamps { clock, arrival, last },
            bounds,
            destinations: BTreeMap::new(),
            rejected: Rejected::default(),
            reconciliations: Begun::default(),
            note: None,
        }
    }

    /// Another process begins where the one before has ended.
    pub fn restart(&mut self, bounds: Bounds) {
        self.bounds = bounds;
        self.reconciliations.restart();
        for destination in self.destinations.values_mut() {
            destination.restart();
        }
    }

    /// From here on these are the destinations that are configured. One whose environment has changed forgets what was
    /// told.
    pub fn configure(&mut self, destinations: Vec<DestinationSettings>) {
        for destination in self.destinations.values_mut() {
            destination.is_configured = false;
        }
        for settings in destinations {
            let new = || Destination::new(settings.clone());
            let destination = self.destinations.entry(settings.name.clone()).or_insert_with(new);
            let has_moved = destination.settings.environment != settings.environment;
            destination.settings = settings;
            (destination.is_configured, destination.is_known) = (true, true);
            if has_moved {
                destination.forget_tellings(&mut self.stamps);
            }
        }
        let times = self.destinations.values().filter(|of| of.is_known);
        let longest = times.map(|of| of.settings.reassert_after).max().unwrap_or_default();
        self.destinations.values_mut().for_each(|of| of.settings.reassert_after = longest);
    }

    /// A destination that is configured, or was since the start.
    pub fn known(&mut self, name: &DestinationName) -> Result<&mut Destination, LedgerError> {
        let known = self.destinations.get_mut(name).filter(|of| of.is_known);
        known.ok_or_else(|| LedgerError::UnknownDestination(name.clone()))
    }

    /// Discards parked members that are too old or too many, the oldest first.
    pub fn discard_parked(
        stamps: &mut Stamps,
        destinations: &mut BTreeMap<DestinationName, Destination>,
        bounds: &Bounds,
    ) {
        let oldest = stamps.fresh().before(bounds.parked.max_age);
        loop {
            let words = destinations
                .iter()
                .flat_map(|(name, of)| of.words.iter().map(move |(key, said)| (name, key, said)));
            let bytes_of = |(_, key, (_, said)): &(_, &Key, &(Timestamp, ParkReason))| {
                key.1.as_str().len() + said.code.len() + said.message.len() + said.id.len()
            };
            let bytes: usize = words.clone().map(|of| bytes_of(&of)).sum();
            let too_much = words.clone().count() as u64 > bounds.parked.max_count
                || bytes as u64 > bounds.parked.max_bytes;
            let first = words.min_by_key(|(_, _, (at, _))| *at);
            let Some((name, key, _)) = first.filter(|(.., (at, _))| too_much || *at < oldest)
            else {
                return;
            };
            let (name, key) = (name.clone(), key.clone());
            let destination = destinations.get_mut(&name).expect("it was found there");
            destination.words.remove(&key);
            destination.put_through(stamps, &key, |before, _| member::discard(before));
        }
    }
}

impl Destination {
    fn new(settings: DestinationSettings) -> Self {
        Self {
            settings,
            is_configured: true,
            is_known: true,
            paused_at: None,
            audiences: BTreeMap::new(),
            members: BTreeMap::new(),
            claimed: BTreeSet::new(),
            waiting: BTreeMap::new(),
            words: BTreeMap::new(),
            reassertions: Vec::new(),
            persons: BTreeMap::new(),
            deleted: BTreeMap::new(),
            flipped: BTreeSet::new(),
            expired: 0,
            messages: BTreeMap::new(),
        }
    }

    fn restart(&mut self) {
        self.is_known = false;
        for key in std::mem::take(&mut self.claimed) {
            if let Some(member) = self.members.get_mut(&key) {
                member.unheard = true;
            }
        }
        let members = &self.members;
        self.audiences.retain(|id, _| members.keys().any(|(audience, _)| audience == id));
        self.audiences.values_mut().for_each(|of| of.turnover = Turnover::default());
    }

    /// After a start nobody knows when they were settled who are to be told once more.
    pub fn plan_reassertions(&mut self) {
        let due = Instant::now() + self.settings.reassert_after;
        self.reassertions.iter_mut().for_each(|(at, _)| *at = due);
    }

    /// What was told went elsewhere: everybody is told again.
    fn forget_tellings(&mut self, stamps: &mut Stamps) {
        for id in self.audiences.keys().cloned().collect::<Vec<_>>() {
            self.resync(stamps, &id);
            self.audiences.entry(id).and_modify(|of| of.acknowledged = false);
        }
    }

    /// What was told does not count: everybody of the audience is told again.
    pub fn resync(&mut self, stamps: &mut Stamps, audience: &AudienceId) {
        let stamp = stamps.fresh();
        self.audiences.entry(audience.clone()).and_modify(|of| of.told_counts_from = stamp);
        for key in self.keys_of(audience) {
            self.put_through(stamps, &key, member::reassert);
        }
    }

    /// Everybody of an audience.
    pub fn keys_of(&self, audience: &AudienceId) -> Vec<Key> {
        self.members.keys().filter(|(of, _)| of == audience).cloned().collect()
    }

    /// How many of an audience, or of all, are what.
    pub fn counts(&self, audience: Option<&AudienceId>) -> Counts {
        let of = |(id, _): &Key| audience.is_none_or(|audience| audience == id);
        let mut counts = Counts::default();
        for (_, member) in self.members.iter().filter(|(key, _)| of(key)) {
            counts += Counts::of(Some(member));
        }
        counts
    }

    pub fn is_drained(&self) -> bool {
        self.reassertions.is_empty()
            && self.claimed.is_empty()
            && self.members.values().all(|member| member.pending_since.is_none())
    }

    /// What the rules need to know of an audience, now.
    pub fn moment(&self, stamps: &mut Stamps, audience: &AudienceId) -> Moment {
        let of = self.audiences.get(audience);
        let told_counts_from = of.map(|of| of.told_counts_from);
        Moment {
            stamp: stamps.fresh(),
            told_counts_from: told_counts_from.unwrap_or(Timestamp::EPOCH),
            repeat_window: self.settings.repeat_window,
            unheard_through: Timestamp::EPOCH, // a start marks who was in a call
            expires_after: self.expires_after(audience),
            snapshot_at: of.map_or(Timestamp::EPOCH, |of| of.snapshot_at),
        }
    }

    /// How long after its event time an entry of an audience expires.
    fn expires_after(&self, audience: &AudienceId) -> Option<Duration> {
        let key = &self.audiences.get(audience)?.route.audience_key;
        self.settings.expires_after.get(key).copied()
    }

    /// Puts a member, if it is there, through a rule; whether that changed it.
    pub fn put_through(
        &mut self,
        stamps: &mut Stamps,
        key: &Key,
        rule: impl FnOnce(&Member, &Moment) -> Next,
    ) -> bool {
        let Some(before) = self.members.get(key) else { return false };
        let next = rule(before, &self.moment(stamps, &key.0));
        self.put(key, &next);
        next != Next::Same
    }

    /// Makes a member what the rules decided.
    pub fn put(&mut self, key: &Key, next: &Next) {
        let before = self.members.get(key);
        let after = next.or(before).cloned();
        let mut turnover = Turnover::default();
        turnover.change(before, after.as_ref());
        self.expired += turnover.expired;
        if let Some(audience) = self.audiences.get_mut(&key.0) {
            audience.turnover.change(before, after.as_ref());
        }
        if after.as_ref().is_some_and(|after| after.pending_since.is_some()) {
            self.waiting.entry(key.clone()).or_insert_with(Instant::now);
        } else {
            self.waiting.remove(key);
        }
        if let Some(after) = after {
            self.members.insert(key.clone(), after);
        } else {
            self.members.remove(key);
            self.words.remove(key);
            if *next == Next::Delete && self.counts(Some(&key.0)) == Counts::default() {
                self.audiences.entry(key.0.clone()).and_modify(|of| of.guard.empty());
            }
        }
    }

    /// Erases an audience. What is in a call stays known to be, and keeps the place of the audience until it is over.
    pub fn drop_audience(&mut self, id: &AudienceId) {
        self.members.retain(|(of, _), _| of != id);
        self.waiting.retain(|(of, _), _| of != id);
        self.words.retain(|(of, _), _| of != id);
        self.reassertions.retain(|(_, (of, _))| of != id);
        if let Some(audience) = self.audiences.get_mut(id) {
            *audience = Audience::new((*audience.route).clone());
            audience.is_dropped = true;
        }
        self.free_dropped();
    }

    /// Frees the audiences that were erased in a call that is over.
    pub fn free_dropped(&mut self) {
        let claimed = &self.claimed;
        let is_called = |id: &AudienceId| claimed.iter().any(|(audience, _)| audience == id);
        self.audiences.retain(|id, audience| !audience.is_dropped || is_called(id));
    }
}

impl Rejected {
    /// What is too old or too much goes, the oldest first.
    pub fn purge(&mut self, now: Timestamp, bounds: &Bounds) {
        let oldest = now.before(bounds.rejected.max_age);
        self.kept.retain(|_, event| event.view.received_at >= oldest);
        let bytes =
            |of: &Self| of.kept.values().map(|event| event.view.body.len() as u64).sum::<u64>();
        while self.kept.len() as u64 > bounds.rejected.max_count
            || bytes(self) > bounds.rejected.max_bytes
        {
            self.kept.pop_first();
        }
    }
}
