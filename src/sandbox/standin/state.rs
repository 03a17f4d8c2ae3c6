//! The state of the stand-in: environments and their segments, the log of calls, and members in flight.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::BuildHasher;
use std::time::Duration;

use hashbrown::{DefaultHashBuilder, HashMap, HashSet};

use super::Account;
use super::rate::RateLimit;
use crate::launchdarkly::wire::{SyncMember, SyncRequest};
use crate::secret::Secret;

/// One segment, as LaunchDarkly would show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentState {
    /// The display name in the latest call.
    pub name: String,
    /// The context kind of the first call; calls with another kind are refused.
    pub context_kind: String,
    /// The context keys in the segment.
    pub members: BTreeSet<String>,
}

/// How many calls arrived, and their outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallCounts {
    /// Calls to the synced-segment route.
    pub total: u64,
    /// Answered with a 2xx.
    pub taken: u64,
    /// Answered with anything else.
    pub refused: u64,
    /// Not answered: hung or reset.
    pub unanswered: u64,
    /// Members of the calls that were applied, repeats included.
    pub members: u64,
    /// Requests to any other route or method, except the two probes.
    pub elsewhere: u64,
}

/// An entry in the log of calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The number of the call, counted from 1.
    pub number: u64,
    /// The cohort id of the first member; empty if the call could not be read.
    pub audience: String,
    /// How many members it named.
    pub members: usize,
    /// The size of its body.
    pub bytes: usize,
    /// The answer's status, if there was an answer.
    pub status: Option<u16>,
    /// Its `traceparent` header.
    pub traceparent: Option<String>,
}

/// What is kept of the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keep {
    /// Counts only: for benchmarks. Segments have a name and a kind, and no members.
    Counts,
    /// The members of each segment.
    Members,
    /// The members of each segment, and every value that arrived for each member.
    Arrivals,
}

/// Most calls that the log keeps; the oldest are dropped.
const LOG_CALLS: usize = 10_000;

/// An environment: its token and its segments.
#[derive(Default)]
pub(super) struct Environment {
    token: Option<Secret>,
    pub(super) segments: BTreeMap<String, SegmentState>,
    arrivals: HashMap<String, HashMap<String, Vec<bool>>>,
}

impl Environment {
    /// Whether `token` grants access to this environment.
    pub(super) fn takes(&self, token: Option<&str>) -> bool {
        matches!((&self.token, token), (Some(own), Some(token)) if own.expose() == token)
    }
}

/// The whole state, behind one lock.
pub(super) struct State {
    environments: BTreeMap<String, Environment>,
    pub(super) max_members: usize,
    pub(super) latency: Duration,
    pub(super) rate_limit: Option<RateLimit>,
    pub(super) keep: Keep,
    pub(super) refused: Box<dyn Fn(&str) -> bool + Send>,
    counts: CallCounts,
    log: VecDeque<Call>,
    /// For each member in flight, the latest call that names it. Keyed by the member's hash, so that a
    /// benchmark does not pay for its text.
    in_flight: HashMap<u64, u64>,
    hasher: DefaultHashBuilder,
    /// Calls that will not be answered and whose client is still connected.
    hanging: HashSet<u64>,
    overlaps: u64,
}

impl State {
    pub(super) fn new(accounts: Vec<Account>) -> Self {
        let environment = |account: Account| {
            let token = Some(account.service_token);
            (account.client_side_id, Environment { token, ..Environment::default() })
        };
        Self {
            environments: accounts.into_iter().map(environment).collect(),
            max_members: 1000,
            latency: Duration::ZERO,
            rate_limit: None,
            keep: Keep::Members,
            refused: Box::new(|_| false),
            counts: CallCounts::default(),
            log: VecDeque::new(),
            in_flight: HashMap::new(),
            hasher: DefaultHashBuilder::default(),
            hanging: HashSet::new(),
            overlaps: 0,
        }
    }

    pub(super) fn environment(&self, client_side_id: &str) -> Option<&Environment> {
        self.environments.get(client_side_id)
    }

    pub(super) fn knows_token(&self, token: Option<&str>) -> bool {
        self.environments.values().any(|environment| environment.takes(token))
    }

    pub(super) fn set_token(&mut self, client_side_id: &str, token: Option<Secret>) {
        self.environments.entry(client_side_id.to_owned()).or_default().token = token;
    }

    /// Counts a new call and returns its number.
    pub(super) fn begin(&mut self) -> u64 {
        self.counts.total += 1;
        self.counts.total
    }

    pub(super) fn count_elsewhere(&mut self) {
        self.counts.elsewhere += 1;
    }

    /// Logs a call and counts its outcome.
    pub(super) fn conclude(&mut self, call: Call) {
        match call.status {
            Some(200..300) => self.counts.taken += 1,
            Some(_) => self.counts.refused += 1,
            None => self.counts.unanswered += 1,
        }
        if self.log.len() == LOG_CALLS {
            self.log.pop_front();
        }
        self.log.push_back(call);
    }

    /// Marks the members of a call as in flight. Returns the members' hashes, and for each member that
    /// another call in flight already names, that call.
    pub(super) fn depart(
        &mut self,
        number: u64,
        request: &SyncRequest<'_>,
    ) -> (Vec<u64>, Vec<u64>) {
        let keep_arrivals = self.keep == Keep::Arrivals;
        if keep_arrivals && let Some(home) = self.environments.get_mut(&*request.environment_id) {
            for SyncMember { cohort_id, user_id, value, .. } in &request.batch {
                let cohort = home.arrivals.entry(cohort_id.to_string()).or_default();
                cohort.entry(user_id.to_string()).or_default().push(*value);
            }
        }
        let mut members = Vec::with_capacity(request.batch.len());
        let mut others = Vec::new();
        for SyncMember { cohort_id, user_id, .. } in &request.batch {
            let member = self.hasher.hash_one((&request.environment_id, cohort_id, user_id));
            members.push(member);
            match self.in_flight.insert(member, number) {
                Some(other) if other != number => others.push(other),
                _ => {}
            }
        }
        (members, others)
    }

    /// The members of a call are no longer in flight, unless a later call names them too.
    pub(super) fn return_home(&mut self, number: u64, members: &[u64]) {
        self.hanging.remove(&number);
        for member in members {
            if self.in_flight.get(member) == Some(&number) {
                self.in_flight.remove(member);
            }
        }
    }

    pub(super) fn hang(&mut self, number: u64) {
        self.hanging.insert(number);
    }

    pub(super) fn any_hangs(&self, calls: &[u64]) -> bool {
        calls.iter().any(|call| self.hanging.contains(call))
    }

    pub(super) fn hangs(&self, call: u64) -> bool {
        self.hanging.contains(&call)
    }

    pub(super) fn count_overlaps(&mut self, overlaps: u64) {
        self.overlaps += overlaps;
    }

    /// Applies a call that was checked before.
    pub(super) fn apply(&mut self, request: &SyncRequest<'_>) {
        let Some(home) = self.environments.get_mut(&*request.environment_id) else { return };
        let Some(first) = request.batch.first() else { return };
        self.counts.members += request.batch.len() as u64;
        let segment = home.segments.entry(first.cohort_id.to_string()).or_default();
        if segment.context_kind.is_empty() {
            segment.context_kind = request.context_kind.to_string();
        }
        if segment.name != first.cohort_name {
            segment.name = first.cohort_name.to_string();
        }
        if self.keep == Keep::Counts {
            return;
        }
        for member in &request.batch {
            if member.value {
                segment.members.insert(member.user_id.to_string());
            } else {
                segment.members.remove(&*member.user_id);
            }
        }
    }
}

/// A consistent view of the stand-in.
pub struct View<'a>(pub(super) &'a State);

impl<'a> View<'a> {
    /// An environment's segments by cohort id.
    #[must_use]
    pub fn segments(&self, client_side_id: &str) -> Option<&'a BTreeMap<String, SegmentState>> {
        self.0.environment(client_side_id).map(|environment| &environment.segments)
    }

    /// One segment; `None` if no call ever wrote to it.
    #[must_use]
    pub fn segment(&self, client_side_id: &str, cohort_id: &str) -> Option<&'a SegmentState> {
        self.segments(client_side_id)?.get(cohort_id)
    }

    /// Whether a context is in a segment.
    #[must_use]
    pub fn has(&self, client_side_id: &str, cohort_id: &str, user_id: &str) -> bool {
        self.segment(client_side_id, cohort_id)
            .is_some_and(|segment| segment.members.contains(user_id))
    }

    /// How many calls arrived, and their outcomes.
    #[must_use]
    pub fn calls(&self) -> CallCounts {
        self.0.counts
    }

    /// The latest calls, oldest first.
    pub fn log(&self) -> impl Iterator<Item = &'a Call> {
        self.0.log.iter()
    }

    /// How many times a request named a member of another request still in flight
    /// ([P3](crate::design::P3)).
    #[must_use]
    pub fn overlaps(&self) -> u64 {
        self.0.overlaps
    }

    /// Every value that arrived for a member, whether or not it was applied. Needs [`Keep::Arrivals`].
    #[must_use]
    pub fn arrivals(&self, client_side_id: &str, cohort_id: &str, user_id: &str) -> &'a [bool] {
        self.0
            .environment(client_side_id)
            .and_then(|environment| environment.arrivals.get(cohort_id)?.get(user_id))
            .map_or(&[], Vec::as_slice)
    }
}
