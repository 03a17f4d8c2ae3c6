//! The model as a courier sees it: claims and what is reported of them.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::ledger::member::{self, Member, Moment, Next};
use crate::ledger::memory::state::{Destination, Key, Shared, Stamps};
use crate::ledger::picking::{Picked, Picking};
use crate::ledger::{
    Backlog, Batch, Claim, ClaimedMember, LedgerError, Outbox, ParkReason, Report, Room, Route,
    SOLE_OWNER,
};
use crate::membership::{AudienceId, ContextKey, DestinationName, Timestamp};

/// The members of one destination that wait.
#[derive(Debug)]
pub(crate) struct MemoryOutbox {
    shared: Arc<Shared>,
    destination: DestinationName,
}

impl MemoryOutbox {
    pub fn new(shared: Arc<Shared>, destination: DestinationName) -> Self {
        Self { shared, destination }
    }
}

#[async_trait]
impl Outbox for MemoryOutbox {
    async fn backlog(&self) -> Result<Vec<Backlog>, LedgerError> {
        Ok(self.shared.state().known(&self.destination)?.backlog())
    }

    fn news(&self) -> watch::Receiver<()> {
        self.shared.news.subscribe()
    }

    fn paused_since(&self) -> Option<Timestamp> {
        self.shared.state().known(&self.destination).ok()?.paused_at
    }

    async fn claim(&self, claim: Claim) -> Result<Option<Batch>, LedgerError> {
        let mut state = self.shared.state();
        let mut stamps = state.stamps.clone();
        let destination = state.known(&self.destination)?;
        let claimed = match claim {
            Claim::Longest { audience, room } => destination.claim_longest(&audience, room),
            Claim::Again { route, context_key } => {
                destination.claim_again(&mut stamps, &route.audience, &context_key)
            }
            Claim::Told { after } => destination.claim_told(&mut stamps, after.as_ref()),
        };
        state.stamps = stamps;
        Ok(claimed)
    }

    async fn report(&self, report: Report) -> Result<(), LedgerError> {
        self.shared.change(|state| {
            let mut stamps = state.stamps.clone();
            if let Ok(destination) = state.known(&self.destination) {
                destination.report(&mut stamps, report);
            }
            state.stamps = stamps;
        });
        Ok(())
    }
}

impl Destination {
    fn backlog(&self) -> Vec<Backlog> {
        let mut backlog: Vec<Backlog> = Vec::new();
        let is_shown = |key: &Key| !self.claimed.contains(key) && self.may_be_told(key);
        for (key, since) in self.waiting.iter().filter(|(key, _)| is_shown(key)) {
            match backlog.last_mut().filter(|of| of.audience == key.0) {
                Some(of) => {
                    of.waiting += 1;
                    of.waiting_since = of.waiting_since.min(*since);
                }
                None => backlog.push(Backlog {
                    audience: key.0.clone(),
                    waiting: 1,
                    waiting_since: *since,
                    acknowledged: self.audiences.get(&key.0).is_some_and(|of| of.acknowledged),
                }),
            }
        }
        backlog
    }

    /// Who waits in an audience and is in no batch, the longest pending first.
    pub fn waiting_in(&self, audience: &AudienceId) -> Vec<(Timestamp, &Key, &Member)> {
        let mut waiting: Vec<(Timestamp, &Key, &Member)> = self
            .waiting
            .keys()
            .filter(|key| key.0 == *audience && !self.claimed.contains(*key))
            .filter(|key| self.may_be_told(key))
            .filter_map(|key| Some((self.members[key].pending_since?, key, &self.members[key])))
            .collect();
        waiting.sort_by_key(|(since, ..)| *since);
        waiting
    }

    fn claim_longest(&mut self, audience: &AudienceId, room: Room) -> Option<Batch> {
        let route = Arc::clone(&self.audiences.get(audience)?.route);
        let mut picking = Picking::new(room, &route);
        for (_, key, member) in self.waiting_in(audience) {
            if picking.offer(&key.1, member) == Picked::Enough {
                break;
            }
        }
        let members = picking.taken();
        let keys = members.iter().map(|of| (audience.clone(), of.context_key.clone()));
        self.claimed.extend(keys);
        (!members.is_empty()).then_some(Batch { route, members, token: SOLE_OWNER })
    }

    fn claim_again(
        &mut self,
        stamps: &mut Stamps,
        audience: &AudienceId,
        context_key: &ContextKey,
    ) -> Option<Batch> {
        let key = (audience.clone(), context_key.clone());
        let route = Arc::clone(&self.audiences.get(audience)?.route);
        if self.claimed.contains(&key) || !self.may_be_told(&key) {
            return None;
        }
        self.put_through(stamps, &key, member::reassert);
        let member = self.members.get(&key).filter(|of| of.pending_since.is_some())?;
        let (membership, version) = (member.membership, member.version);
        self.claimed.insert(key);
        let claimed = ClaimedMember { context_key: context_key.clone(), membership, version };
        Some(Batch { route, members: vec![claimed], token: SOLE_OWNER })
    }

    fn claim_told(&mut self, stamps: &mut Stamps, after: Option<&Key>) -> Option<Batch> {
        let told = self.members.iter().find(|(key, member)| {
            after.is_none_or(|after| *key > after)
                && self.audiences[&key.0].acknowledged
                && member.told.is_some()
                && member.pending_since.is_none()
                && member.parked_at.is_none()
                && !self.claimed.contains(*key)
                && !self.is_held(&key.0)
        });
        let (audience, context_key) = told?.0.clone();
        self.claim_again(stamps, &audience, &context_key)
    }

    fn report(&mut self, stamps: &mut Stamps, report: Report) {
        match report {
            Report::Settle(batch) => self.settle(stamps, &batch),
            Report::Release(batch, unheard) => {
                self.each_claimed(stamps, &batch, |_, _, _, before, moment| {
                    member::release(before, unheard, moment)
                });
            }
            Report::Park(batch, reason) => self.park(stamps, &batch, &reason),
            Report::Split(parts) => {
                for part in parts {
                    let half = stamps.fresh();
                    for key in keys_of(&part) {
                        self.put_through(stamps, &key, |before, _| member::split(before, half));
                    }
                }
            }
            Report::Unpark(batch) => {
                for key in keys_of(&batch) {
                    self.put_through(stamps, &key, member::requeue);
                }
            }
        }
    }

    fn settle(&mut self, stamps: &mut Stamps, batch: &Batch) {
        if let Some(audience) = self.audiences.get_mut(&batch.route.audience) {
            audience.acknowledged = true;
        }
        let reassert_at = Instant::now() + self.settings.reassert_after;
        self.each_claimed(stamps, batch, |of, key, claimed, before, moment| {
            let (next, again) = member::settle(before, claimed, moment);
            if before.is_some_and(|before| before.parked_at.is_some()) {
                of.words.remove(key);
            }
            if again {
                of.reassertions.push((reassert_at, key.clone()));
            }
            next
        });
    }

    fn park(&mut self, stamps: &mut Stamps, batch: &Batch, reason: &ParkReason) {
        self.each_claimed(stamps, batch, |of, key, claimed, before, moment| {
            let (next, is_parked) = member::park(before, claimed, moment);
            if is_parked {
                of.words.insert(key.clone(), (moment.stamp, reason.clone()));
            }
            next
        });
    }

    /// Puts each member of a claimed batch through a rule, and ends its claim.
    fn each_claimed(
        &mut self,
        stamps: &mut Stamps,
        batch: &Batch,
        mut rule: impl FnMut(&mut Self, &Key, &ClaimedMember, Option<&Member>, &Moment) -> Next,
    ) {
        let audience = &batch.route.audience;
        for claimed in &batch.members {
            let key = (audience.clone(), claimed.context_key.clone());
            let moment = self.moment(stamps, audience);
            let before = self.members.get(&key).cloned();
            let next = rule(self, &key, claimed, before.as_ref(), &moment);
            self.put(&key, &next);
            self.claimed.remove(&key);
        }
        self.free_dropped();
    }
}

fn keys_of(batch: &Batch) -> Vec<Key> {
    let Route { audience, .. } = &*batch.route;
    batch.members.iter().map(|of| (audience.clone(), of.context_key.clone())).collect()
}
