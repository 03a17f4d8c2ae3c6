//! A ledger in memory, by the same rules as the durable one, for simulations of what reads from it.
//! It keeps nothing, and no test of the durable one may lean on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use super::deletion::{Reach, Tombstone};
use super::member::{self, Change, Member, Moment, Next};
use super::picking::{Picked, Picking};
use super::{
    Backlog, Batch, Claim, ClaimedMember, Intake, LedgerError, Members, OrderedDeletion, Outbox,
    Recorded, Recorder, Report, Room, Route, Unheard,
};
use crate::clock::Clock;
use crate::membership::{
    AudienceId, ContextKey, Deletion, DestinationName, MembershipDelta, Message, MessageHash,
    Timestamp,
};

type Key = (AudienceId, ContextKey);

/// One destination's members.
#[derive(Debug)]
pub(crate) struct MemoryLedger {
    clock: Arc<dyn Clock>,
    repeat_window: Duration,
    reassert_after: Duration,
    news: watch::Sender<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stamp: i64,
    members: BTreeMap<Key, Member>,
    routes: BTreeMap<AudienceId, Arc<Route>>,
    acknowledged: BTreeSet<AudienceId>,
    claimed: BTreeSet<Key>,
    claimed_through: Timestamp,
    unheard_through: Timestamp,
    /// Since when a member has been waiting, on the clock that never jumps.
    waiting: BTreeMap<Key, Instant>,
    reassertions: Vec<(Instant, Key)>,
    /// Whose deletion takes a member along.
    persons: BTreeMap<Key, String>,
    forgotten: BTreeMap<String, Tombstone>,
    messages: BTreeMap<MessageHash, Timestamp>,
}

impl MemoryLedger {
    pub fn new(clock: Arc<dyn Clock>, repeat_window: Duration, reassert_after: Duration) -> Self {
        let (news, state) = (watch::Sender::new(()), Mutex::default());
        Self { clock, repeat_window, reassert_after, news, state }
    }

    /// What is left of it after a kill: claims are over, and what was in a call may still happen.
    pub fn crash(&self) {
        let mut state = self.state();
        state.claimed.clear();
        state.unheard_through = state.unheard_through.max(state.claimed_through);
        drop(state);
        self.news.send_replace(());
    }

    /// Nothing waits, nothing is in a call, and nobody is to be told once more.
    pub fn is_drained(&self) -> bool {
        let state = self.state();
        state.reassertions.is_empty()
            && state.claimed.is_empty()
            && state.members.values().all(|member| member.pending_since.is_none())
    }

    /// Who is parked.
    pub fn parked(&self) -> BTreeSet<Key> {
        let state = self.state();
        let parked = state.members.iter().filter(|(_, member)| member.is_parked());
        parked.map(|(key, _)| key.clone()).collect()
    }

    /// Makes the members pending whose re-assertion is due.
    pub fn tick(&self) {
        let mut state = self.state();
        let now = Instant::now();
        let (due, later) =
            std::mem::take(&mut state.reassertions).into_iter().partition(|(at, _)| *at <= now);
        state.reassertions = later;
        let due: Vec<(Instant, Key)> = due;
        for (_, key) in due {
            let moment = self.moment(&mut state);
            let is_called = state.claimed.contains(&key);
            let rule = |of: &Member| member::reassert_after_silence(of, is_called, &moment);
            state.apply(&key, |before| before.map_or(Next::Same, rule));
        }
        drop(state);
        self.news.send_replace(());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }

    fn moment(&self, state: &mut State) -> Moment {
        state.stamp = (state.stamp + 1).max(self.clock.now().0);
        Moment {
            stamp: Timestamp(state.stamp),
            told_counts_from: Timestamp::EPOCH,
            repeat_window: self.repeat_window,
            unheard_through: state.unheard_through,
        }
    }

    fn take(&self, state: &mut State, destination: &DestinationName, delta: MembershipDelta) {
        let route = || {
            Arc::new(Route {
                destination: destination.clone(),
                audience: delta.audience.clone(),
                audience_key: delta.audience_key.clone(),
                context_kind: delta.context_kind.clone(),
            })
        };
        state.routes.entry(delta.audience.clone()).or_insert_with(route);
        let (event_at, is_repeat) = state.counts(delta.message, delta.event_at);
        let person = delta.user_id.unwrap_or_else(|| delta.context_key.clone().into());
        let tombstone = state.forgotten.get(person.as_str());
        if tombstone.is_some_and(|tombstone| tombstone.outlasts(event_at, is_repeat)) {
            return;
        }
        let key = (delta.audience, delta.context_key);
        state.persons.insert(key.clone(), person.as_str().to_owned());
        let change = Change {
            membership: delta.membership,
            event_at,
            key_rule: delta.key_rule,
            person: None,
            is_repeat,
        };
        let moment = self.moment(state);
        state.apply(&key, |before| member::record(before, &change, &moment));
    }

    fn delete(&self, state: &mut State, asked: &OrderedDeletion, arrival: Timestamp) {
        let Deletion { user_id, event_at, message } = &asked.deletion;
        let message = message.map(|hash| Message { hash, moves: true });
        let (at, is_repeat) = state.counts(message, (*event_at).min(arrival));
        let reach =
            if asked.is_unconditional { Reach::EVERYTHING } else { Reach::until(at, is_repeat) };
        let persons = state.persons.iter().filter(|(_, person)| *person == user_id.as_str());
        let keys: Vec<Key> = persons.map(|(key, _)| key.clone()).collect();
        let mut taken = None;
        for key in keys {
            let moment = self.moment(state);
            state.apply(&key, |before| match before.filter(|before| reach.takes(before)) {
                Some(before) => {
                    taken = taken.max(Some(before.event_at));
                    member::forget(before, at, &moment)
                }
                None => Next::Same,
            });
        }
        let Tombstone(through) = Tombstone::of(at, reach, taken);
        let known =
            state.forgotten.entry(user_id.as_str().to_owned()).or_insert(Tombstone(through));
        known.0 = known.0.max(through);
    }

    fn each(
        &self,
        batch: &Batch,
        rule: impl Fn(&mut State, &Key, &ClaimedMember, &Moment) -> Next,
        ends_the_claim: bool,
    ) {
        let mut state = self.state();
        for claimed in &batch.members {
            let key = (batch.route.audience.clone(), claimed.context_key.clone());
            let moment = self.moment(&mut state);
            let next = rule(&mut state, &key, claimed, &moment);
            state.apply(&key, |_| next.clone());
            if ends_the_claim {
                assert!(state.claimed.remove(&key), "only what is claimed is reported on");
            }
        }
        drop(state);
        self.news.send_replace(());
    }
}

impl State {
    /// When a message counts, and whether it was recorded before: it is remembered for good.
    fn counts(&mut self, message: Option<Message>, at: Timestamp) -> (Timestamp, bool) {
        let Some(Message { hash, moves }) = message else { return (at, false) };
        if let Some(first) = self.messages.get(&hash) {
            return (*first, true);
        }
        if moves {
            self.messages.insert(hash, at);
        }
        (at, false)
    }

    fn apply(&mut self, key: &Key, rule: impl FnOnce(Option<&Member>) -> Next) {
        match rule(self.members.get(key)) {
            Next::Same => {}
            Next::Write(member) => _ = self.members.insert(key.clone(), member),
            Next::Delete => _ = self.members.remove(key),
        }
        if self.members.get(key).is_some_and(|member| member.pending_since.is_some()) {
            self.waiting.entry(key.clone()).or_insert_with(Instant::now);
        } else {
            self.waiting.remove(key);
        }
    }
}

impl MemoryLedger {
    fn claim_longest(&self, audience: &AudienceId, room: Room) -> Option<Batch> {
        let mut state = self.state();
        let mut waiting: Vec<(Timestamp, &Key, &Member)> = state
            .members
            .iter()
            .filter(|(key, _)| key.0 == *audience && !state.claimed.contains(*key))
            .filter_map(|(key, member)| Some((member.pending_since?, key, member)))
            .collect();
        waiting.sort_by_key(|(since, ..)| *since);
        let route = state.routes.get(audience).cloned()?;
        let (mut picking, mut through) = (Picking::new(room, &route), Timestamp::EPOCH);
        for (since, key, member) in waiting {
            match picking.offer(&key.1, member) {
                Picked::Taken => through = through.max(since),
                Picked::Left => {}
                Picked::Enough => break,
            }
        }
        let members = picking.taken();
        state.claimed_through = state.claimed_through.max(through);
        let keys = members.iter().map(|of| (audience.clone(), of.context_key.clone()));
        state.claimed.extend(keys);
        (!members.is_empty()).then_some(Batch { route, members })
    }

    fn claim_again(&self, route: &Arc<Route>, context_key: &ContextKey) -> Option<Batch> {
        let mut state = self.state();
        let key = (route.audience.clone(), context_key.clone());
        if state.claimed.contains(&key) {
            return None;
        }
        let moment = self.moment(&mut state);
        state.apply(&key, |before| before.map_or(Next::Same, |of| member::reassert(of, &moment)));
        let claimed = state.members.get(&key).and_then(|member| {
            let (membership, version) = (member.membership, member.version);
            let context_key = context_key.clone();
            Some((member.pending_since?, ClaimedMember { context_key, membership, version }))
        });
        let (since, claimed) = claimed?;
        state.claimed_through = state.claimed_through.max(since);
        state.claimed.insert(key);
        Some(Batch { route: Arc::clone(route), members: vec![claimed] })
    }

    fn claim_told(&self, after: Option<&Key>) -> Option<Batch> {
        let found = {
            let state = self.state();
            let told = state.members.iter().find(|(key, member)| {
                after.is_none_or(|after| *key > after)
                    && member.told.is_some()
                    && member.pending_since.is_none()
                    && member.parked_at.is_none()
                    && !state.claimed.contains(*key)
            });
            told.map(|(key, _)| (Arc::clone(&state.routes[&key.0]), key.1.clone()))
        };
        let (route, key) = found?;
        self.claim_again(&route, &key)
    }

    fn settle(&self, batch: &Batch) {
        self.state().acknowledged.insert(batch.route.audience.clone());
        let reassert_at = Instant::now() + self.reassert_after;
        let rule = |state: &mut State, key: &Key, claimed: &ClaimedMember, moment: &Moment| {
            let (next, again) = member::settle(state.members.get(key), claimed, moment);
            if again {
                state.reassertions.push((reassert_at, key.clone()));
            }
            next
        };
        self.each(batch, rule, true);
    }

    fn release(&self, batch: &Batch, unheard: Unheard) {
        let rule = |state: &mut State, key: &Key, _: &ClaimedMember, moment: &Moment| {
            member::release(state.members.get(key), unheard, moment)
        };
        self.each(batch, rule, true);
    }

    fn park(&self, batch: &Batch) {
        let rule = |state: &mut State, key: &Key, claimed: &ClaimedMember, moment: &Moment| {
            member::park(state.members.get(key), claimed, moment).0
        };
        self.each(batch, rule, true);
    }

    fn split(&self, parts: &[Batch]) {
        for part in parts {
            let half = self.moment(&mut self.state()).stamp;
            let rule = |state: &mut State, key: &Key, _: &ClaimedMember, _: &Moment| {
                state.members.get(key).map_or(Next::Same, |of| member::split(of, half))
            };
            self.each(part, rule, false);
        }
    }

    /// Parked members are pending again, each to travel alone until it is taken.
    pub fn requeue(&self, members: Members) {
        let mut state = self.state();
        for context_key in members.context_keys {
            let moment = self.moment(&mut state);
            let key = (members.audience.clone(), context_key);
            state
                .apply(&key, |before| before.map_or(Next::Same, |of| member::requeue(of, &moment)));
        }
        drop(state);
        self.news.send_replace(());
    }
}

#[async_trait]
impl Recorder for MemoryLedger {
    fn arrival(&self) -> Timestamp {
        self.clock.now()
    }

    async fn record_all(&self, intakes: Vec<Intake>) -> Result<Vec<Recorded>, LedgerError> {
        let mut state = self.state();
        let recorded = vec![Recorded::default(); intakes.len()];
        for Intake { destination, arrival, deltas, deletions, .. } in intakes {
            let mut deletions = deletions.into_iter().peekable();
            let count = deltas.len();
            for (position, delta) in deltas.into_iter().enumerate() {
                while let Some(asked) = deletions.next_if(|of| of.after_deltas <= position) {
                    self.delete(&mut state, &asked, arrival);
                }
                self.take(&mut state, &destination, delta);
            }
            while let Some(asked) = deletions.next_if(|of| of.after_deltas <= count) {
                self.delete(&mut state, &asked, arrival);
            }
        }
        drop(state);
        self.news.send_replace(());
        Ok(recorded)
    }

    fn takes_writes(&self) -> bool {
        true
    }
}

#[async_trait]
impl Outbox for MemoryLedger {
    async fn backlog(&self) -> Result<Vec<Backlog>, LedgerError> {
        let state = self.state();
        let mut backlog: BTreeMap<AudienceId, Backlog> = BTreeMap::new();
        for (key, since) in state.waiting.iter().filter(|(key, _)| !state.claimed.contains(*key)) {
            let of = backlog.entry(key.0.clone()).or_insert_with(|| Backlog {
                audience: key.0.clone(),
                waiting: 0,
                waiting_since: *since,
                acknowledged: state.acknowledged.contains(&key.0),
            });
            of.waiting += 1;
            of.waiting_since = of.waiting_since.min(*since);
        }
        Ok(backlog.into_values().collect())
    }

    fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    fn paused_since(&self) -> Option<Timestamp> {
        None
    }

    async fn claim(&self, claim: Claim) -> Result<Option<Batch>, LedgerError> {
        Ok(match claim {
            Claim::Longest { audience, room } => self.claim_longest(&audience, room),
            Claim::Again { route, context_key } => self.claim_again(&route, &context_key),
            Claim::Told { after } => self.claim_told(after.as_ref()),
        })
    }

    async fn report(&self, report: Report) -> Result<(), LedgerError> {
        match report {
            Report::Settle(batch) => self.settle(&batch),
            Report::Release(batch, unheard) => self.release(&batch, unheard),
            Report::Park(batch, _) => self.park(&batch),
            Report::Split(parts) => self.split(&parts),
            Report::Unpark(batch) => self.requeue(Members::from(&batch)),
        }
        Ok(())
    }
}
