//! The guards of audiences: changes by events are counted, and what an operator decides is done.

use crate::ledger::embedded::engine::state::State;
use crate::ledger::embedded::ids::AudienceIndex;
use crate::ledger::embedded::tables::walk::Task;
use crate::ledger::member::{Member, Next};
use crate::membership::{Membership, Timestamp};

/// What an operator says of a held audience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// What has happened is told.
    Release,
    /// Whoever left in the window is in again.
    Discard,
}

impl State {
    /// Counts what an event makes of a member, if it enters or leaves by it.
    pub fn count_flip(
        &mut self,
        index: AudienceIndex,
        before: Option<&Member>,
        next: &Next,
        at: Timestamp,
    ) {
        let is_in = |member: Option<&Member>| {
            member.is_some_and(|member| member.membership == Membership::In)
        };
        let now = is_in(next.or(before));
        if is_in(before) == now {
            return;
        }
        let destination = self.audiences[index].destination;
        let limits = self.audiences[destination].settings.guard;
        let audience = &mut self.audiences[index];
        let members = audience.counts.included;
        audience.guard.count(Membership::from_bool(now), at, &limits, || members);
        self.flipped.insert(index);
    }

    /// Judges the audiences that have changed, when all changes of a group are counted.
    pub fn judge(&mut self) {
        for index in std::mem::take(&mut self.flipped) {
            let at = self.latest();
            let destination = self.audiences[index].destination;
            let limits = self.audiences[destination].settings.guard;
            let audience = &mut self.audiences[index];
            if !audience.guard.judge(at, &limits) {
                continue;
            }
            let window = audience.guard.window();
            tracing::warn!(
                destination.name = %audience.route.destination,
                audience = audience.route.audience.as_str(),
                left = window.exits,
                entered = window.entries,
                members = window.members,
                usual = audience.guard.usual(),
                "the guard holds an audience: more of its members changed than usual; cohortd guard \
                 release or cohortd guard discard decides"
            );
            self.touch(index);
        }
    }

    /// Does what an operator has decided on an audience; `false`: it is not held.
    pub fn decide(&mut self, index: AudienceIndex, decision: Decision) -> bool {
        if !self.audiences[index].guard.is_held() {
            return false;
        }
        let at = self.stamp();
        let audience = &mut self.audiences[index];
        match decision {
            Decision::Release => {
                audience.guard.release(at, audience.counts.included);
                audience.walk.take_if(|walk| matches!(walk.task, Task::Reenter { .. }));
            }
            Decision::Discard => {
                let since = audience.guard.discard();
                self.start_walk(index, Task::Reenter { since, at });
            }
        }
        self.touch(index);
        true
    }

    /// A walk that took members back is at its end.
    pub fn taken_back(&mut self, index: AudienceIndex) {
        let at = self.stamp();
        let destination = self.audiences[index].destination;
        let limits = self.audiences[destination].settings.guard;
        let audience = &mut self.audiences[index];
        audience.guard.taken_back(at, audience.counts.included, &limits);
        self.touch(index);
    }
}
