//! The model as people see it and what they do to it. What they ask for of every member is done at once.

use std::sync::Arc;

use async_trait::async_trait;

use crate::counting::PerDestination;
use crate::ledger::counts::Counts;
use crate::ledger::member::{self, Member};
use crate::ledger::memory::MemoryLedger;
use crate::ledger::memory::state::{Destination, Kept, Key, Stamps, State};
use crate::ledger::{
    AudienceView, DestinationView, Fact, HeldAudience, Intake, LedgerError, MemberView, Members,
    Operations, Outbox, ParkReason, ParkedAfter, ParkedView, Recorder, Recordings, RejectedView,
    Standing, Turnover,
};
use crate::membership::{AudienceId, ContextKey, DestinationName, Timestamp, UserId};

/// Rejected events in one reading.
const MOST_BYTES: usize = 4 << 20;

impl State {
    /// One that is configured, or was: its rows are there.
    fn stored(&self, name: &DestinationName) -> Result<&Destination, LedgerError> {
        self.destinations.get(name).ok_or_else(|| LedgerError::UnknownDestination(name.clone()))
    }

    /// Does something to an audience of a configured destination, or to all of them; how many these are.
    pub fn each(
        &mut self,
        name: &DestinationName,
        only: Option<&AudienceId>,
        act: impl Fn(&mut Destination, &mut Stamps, &AudienceId),
    ) -> Result<u64, LedgerError> {
        let mut stamps = self.stamps.clone();
        let destination = self.known(name)?;
        if !destination.is_configured {
            return Err(LedgerError::UnknownDestination(name.clone()));
        }
        let audiences = destination.these(only)?;
        for audience in &audiences {
            act(destination, &mut stamps, audience);
        }
        self.stamps = stamps;
        Ok(audiences.len() as u64)
    }

    /// Puts these members through a rule; how many it changed.
    fn each_of(
        &mut self,
        members: &Members,
        rule: impl Fn(&Member, &member::Moment) -> member::Next,
    ) -> u64 {
        let mut stamps = self.stamps.clone();
        let Ok(destination) = self.known(&members.destination) else { return 0 };
        let mut changed = 0;
        for key in &members.context_keys {
            let key = (members.audience.clone(), key.clone());
            changed += u64::from(destination.put_through(&mut stamps, &key, &rule));
        }
        self.stamps = stamps;
        changed
    }

    fn erase(
        &mut self,
        name: &DestinationName,
        only: Option<&AudienceId>,
    ) -> Result<u64, LedgerError> {
        self.reconciliations.stop(name, only);
        let destinations = &mut self.destinations;
        let unknown = || LedgerError::UnknownDestination(name.clone());
        let destination = destinations.get_mut(name).ok_or_else(unknown)?;
        let audiences = destination.these(only)?;
        for audience in &audiences {
            destination.drop_audience(audience);
        }
        let is_known = destination.is_known;
        if only.is_none() {
            self.rejected.kept.retain(|_, event| event.destination != *name);
            if !is_known {
                destinations.remove(name);
            }
        }
        Ok(if is_known { audiences.len() as u64 } else { 1 })
    }

    fn view(&self, name: &DestinationName, destination: &Destination) -> DestinationView {
        let Counts { included, pending, parked } = destination.counts(None);
        let of = |event: &&Kept| event.destination == *name;
        let with_members = destination.audiences.keys().filter(|id| destination.has_members(id));
        DestinationView {
            name: name.as_str().to_owned(),
            configured: destination.is_configured,
            paused_since: destination.paused_at,
            audiences: with_members.count() as u64,
            included,
            pending,
            unvisited: 0,
            pending_since: destination.pending_since(None),
            parked,
            parked_since: destination.parked_since(None),
            rejected: self.rejected.kept.values().filter(of).count() as u64,
            rejected_since: self.rejected.kept.values().find(of).map(|of| of.view.received_at),
        }
    }
}

impl Destination {
    fn has_members(&self, audience: &AudienceId) -> bool {
        self.members.keys().any(|(of, _)| of == audience)
    }

    /// The audience of that id, or all. One whose last member was erased is gone, once nobody of it is in a call.
    fn these(&self, only: Option<&AudienceId>) -> Result<Vec<AudienceId>, LedgerError> {
        let is_called = |audience: &AudienceId| self.claimed.iter().any(|(of, _)| of == audience);
        match only {
            Some(only) if !self.has_members(only) && !is_called(only) => {
                Err(LedgerError::UnknownAudience(only.clone()))
            }
            Some(only) => Ok(vec![only.clone()]),
            None => Ok(self.audiences.keys().cloned().collect()),
        }
    }
}

impl MemoryLedger {
    /// Every member of a destination.
    pub fn members(&self, destination: &DestinationName) -> Vec<MemberView> {
        let state = self.shared.state();
        let Some(of) = state.destinations.get(destination) else { return Vec::new() };
        of.members.iter().map(|(key, member)| of.member_view(key, member)).collect()
    }
}

impl MemoryLedger {
    fn rejected_page(
        &self,
        after: i64,
        limit: u32,
        is_wanted: impl Fn(&Kept) -> bool,
    ) -> Vec<RejectedView> {
        let state = self.shared.state();
        let behind = state.rejected.kept.range(after.saturating_add(1)..).map(|(_, event)| event);
        let mut bytes = 0;
        let wanted = behind.filter(|event| is_wanted(event)).take(limit as usize);
        let page = wanted.take_while(|event| {
            let has_room = bytes < MOST_BYTES;
            bytes += event.view.body.len();
            has_room
        });
        page.map(|event| event.view.clone()).collect()
    }
}

#[async_trait]
impl Operations for MemoryLedger {
    fn outbox(&self, destination: &DestinationName) -> Arc<dyn Outbox> {
        self.outbox_of(destination)
    }

    fn recordings(&self) -> &PerDestination<Recordings> {
        &self.recordings
    }

    async fn facts(&self) -> Result<Vec<Fact>, LedgerError> {
        Ok(Vec::new())
    }

    async fn destinations(&self) -> Result<Vec<DestinationView>, LedgerError> {
        let state = self.shared.state();
        let views = state.destinations.iter().map(|(name, of)| state.view(name, of));
        let is_shown =
            |view: &DestinationView| view.configured || view.audiences > 0 || view.rejected > 0;
        Ok(views.filter(is_shown).collect())
    }

    fn take_turnover(&self, destination: &DestinationName) -> Vec<(AudienceId, Turnover)> {
        let mut state = self.shared.state();
        let Ok(of) = state.known(destination) else { return Vec::new() };
        let all = of.audiences.iter_mut();
        let taken = all.map(|(id, audience)| (id.clone(), std::mem::take(&mut audience.turnover)));
        taken.filter(|(_, turnover)| *turnover != Turnover::default()).collect()
    }

    async fn audiences(
        &self,
        destination: &DestinationName,
    ) -> Result<Vec<AudienceView>, LedgerError> {
        let state = self.shared.state();
        let of = state.stored(destination)?;
        let all = of.audiences.iter().filter(|(id, _)| of.has_members(id));
        let mut views: Vec<_> = all.map(|(id, audience)| of.audience_view(id, audience)).collect();
        views.sort_by(|a, b| (&a.audience_key, &a.audience).cmp(&(&b.audience_key, &b.audience)));
        Ok(views)
    }

    async fn member(
        &self,
        destination: &DestinationName,
        key: &str,
    ) -> Result<Vec<MemberView>, LedgerError> {
        let state = self.shared.state();
        let of = state.stored(destination)?;
        let person = of.persons.get(key).copied();
        let is_theirs = |(id, member): &(&Key, &Member)| {
            id.1.as_str() == key || (person.is_some() && member.person == person)
        };
        let theirs = of.members.iter().filter(is_theirs);
        Ok(theirs.map(|(key, member)| of.member_view(key, member)).collect())
    }

    async fn standings(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
        after: Option<&ContextKey>,
        limit: u32,
    ) -> Result<Vec<Standing>, LedgerError> {
        let state = self.shared.state();
        let members = state.destinations.get(destination).map(|of| &of.members);
        let behind = |key: &Key| key.0 == *audience && after.is_none_or(|after| key.1 > *after);
        let of = members.into_iter().flatten().filter(|(key, _)| behind(key));
        let standing = |(key, member): (&Key, &Member)| Standing {
            context_key: key.1.clone(),
            included: member.membership.as_bool(),
            event_at: member.event_at,
        };
        Ok(of.take(limit as usize).map(standing).collect())
    }

    async fn parked(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
        after: &ParkedAfter,
        limit: u32,
    ) -> Result<Vec<ParkedView>, LedgerError> {
        let state = self.shared.state();
        let Some(of) = state.destinations.get(destination) else { return Ok(Vec::new()) };
        let parked = of.words.iter().filter(|(key, _)| {
            of.members.get(*key).is_some_and(Member::is_parked)
                && audience.is_none_or(|audience| key.0 == *audience)
                && (key.0.as_str(), key.1.as_str()) > (&*after.audience, &*after.context_key)
        });
        let view =
            |((audience, context_key), (parked_at, said)): (&Key, &(Timestamp, ParkReason))| {
                let ParkReason { status, code, message, id } = said.clone();
                ParkedView {
                    audience: audience.as_str().to_owned(),
                    context_key: context_key.as_str().to_owned(),
                    parked_at: *parked_at,
                    status,
                    code,
                    message,
                    answer_id: id,
                }
            };
        Ok(parked.take(limit as usize).map(view).collect())
    }

    async fn rejected(
        &self,
        destination: &DestinationName,
        after: i64,
        limit: u32,
    ) -> Result<Vec<RejectedView>, LedgerError> {
        Ok(self.rejected_page(after, limit, |event| event.destination == *destination))
    }

    async fn rejected_of(
        &self,
        destination: &DestinationName,
        user_id: &UserId,
        after: i64,
        limit: u32,
    ) -> Result<Vec<RejectedView>, LedgerError> {
        let is_theirs = |event: &Kept| {
            event.destination == *destination && event.person.as_deref() == Some(user_id.as_str())
        };
        Ok(self.rejected_page(after, limit, is_theirs))
    }

    async fn any_under_rules(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
        rules: &[u32],
    ) -> Result<bool, LedgerError> {
        let state = self.shared.state();
        let members = state.destinations.get(destination).map(|of| &of.members);
        Ok(members.into_iter().flatten().any(|(key, member)| {
            key.0 == *audience && member.membership.as_bool() && rules.contains(&member.key_rule)
        }))
    }

    async fn requeue(&self, members: Members) -> Result<u64, LedgerError> {
        Ok(self.shared.change(|state| state.each_of(&members, member::requeue)))
    }

    async fn discard_parked(&self, members: Members) -> Result<u64, LedgerError> {
        Ok(self.shared.change(|state| state.each_of(&members, |of, _| member::discard(of))))
    }

    async fn discard_rejected(
        &self,
        destination: &DestinationName,
        ids: Vec<i64>,
    ) -> Result<u64, LedgerError> {
        self.shared.change(|state| {
            state.stored(destination)?;
            let kept = &mut state.rejected.kept;
            let before = kept.len();
            kept.retain(|id, event| event.destination != *destination || !ids.contains(id));
            Ok((before - kept.len()) as u64)
        })
    }

    async fn resync(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError> {
        self.shared.change(|state| state.each(destination, audience, Destination::resync))
    }

    async fn stop_resync(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError> {
        self.shared.change(|state| state.each(destination, audience, |_, _, _| {})) // it is over
    }

    async fn retract_stale(
        &self,
        destination: &DestinationName,
        audience: &AudienceId,
        current: Vec<u32>,
    ) -> Result<(), LedgerError> {
        let retract = |of: &mut Destination, stamps: &mut Stamps, audience: &AudienceId| {
            for key in of.keys_of(audience) {
                of.put_through(stamps, &key, |before, moment| {
                    if current.contains(&before.key_rule) {
                        member::Next::Same
                    } else {
                        member::retract(before, moment)
                    }
                });
            }
        };
        self.shared.change(|state| state.each(destination, Some(audience), retract)).map(|_| ())
    }

    async fn retract(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError> {
        self.shared.change(|state| {
            state.each(destination, audience, |of, stamps, audience| {
                of.release_held(stamps, audience);
                for key in of.keys_of(audience) {
                    of.put_through(stamps, &key, member::retract);
                }
            })
        })
    }

    fn held_audiences(&self, destination: &DestinationName) -> Vec<HeldAudience> {
        self.held(destination)
    }

    async fn release_held(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError> {
        self.decide(destination, audience, Destination::release_held)
    }

    async fn discard_held(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError> {
        self.decide(destination, audience, Destination::discard_held)
    }

    async fn erase(
        &self,
        destination: &DestinationName,
        audience: Option<&AudienceId>,
    ) -> Result<u64, LedgerError> {
        self.shared.change(|state| state.erase(destination, audience))
    }

    fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    async fn leave_note(&self, note: String) -> Result<(), LedgerError> {
        self.shared.change(|state| state.note = Some(note));
        Ok(())
    }

    async fn pause(&self, destination: &DestinationName, paused: bool) -> Result<(), LedgerError> {
        self.shared.change(|state| {
            let stamp = state.stamps.fresh();
            let known = state.known(destination)?;
            if !known.is_configured {
                return Err(LedgerError::UnknownDestination(destination.clone()));
            }
            known.paused_at = paused.then(|| known.paused_at.unwrap_or(stamp));
            Ok(())
        })
    }

    async fn forget(
        &self,
        destination: &DestinationName,
        user_id: UserId,
    ) -> Result<(), LedgerError> {
        self.record(Intake::to_forget(destination, self.arrival(), user_id)).await.map(|_| ())
    }
}
