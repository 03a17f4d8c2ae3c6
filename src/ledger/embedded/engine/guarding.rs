//! The guards of audiences: changes by events are counted, and what an operator decides is done.
//!
//! # What always holds
//! * The counts are written with the rows of the members that they are about, or earlier; what the log repeats after a
//!   kill is counted once ([`Guard::counted`](crate::ledger::guard::Guard::counted)).
//! * Whoever is removed by a deletion or a retraction is told although the audience is held ([`Passing`]).

use crate::ledger::embedded::engine::audience::Audience;
use crate::ledger::embedded::engine::passing::Passing;
use crate::ledger::embedded::engine::state::State;
use crate::ledger::embedded::ids::AudienceIndex;
use crate::ledger::embedded::tables::database::Database;
use crate::ledger::embedded::tables::walk::Task;
use crate::ledger::member::{self, Member, Next};
use crate::membership::Timestamp;

/// What an operator says of a held audience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// What has happened is told.
    Release,
    /// Whoever left in the window is in again.
    Discard,
}

impl State {
    /// Counts what an event makes of a member, if it enters or leaves by it; `at`: the stamp of the event, and whether it
    /// was read from the log.
    pub fn count_flip(
        &mut self,
        index: AudienceIndex,
        before: Option<&Member>,
        next: &Next,
        (at, is_of_log): (Timestamp, bool),
    ) {
        let after = next.or(before);
        let Some(now) = member::flip_by_event(before, after) else { return };
        let destination = self.audiences[index].destination;
        let limits = self.audiences[destination].settings.guard;
        let audience = &mut self.audiences[index];
        if is_of_log {
            if at <= audience.counted_before {
                return; // by the process before
            }
            audience.guard.counted(at);
        }
        let members = audience.counts.included;
        audience.guard.count(now, at, &limits, || members);
        self.flipped.insert(index);
    }

    /// Judges the audiences that have changed, when all changes of a group are counted.
    pub fn judge(&mut self, db: &Database) -> rusqlite::Result<()> {
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
            self.find_passing(db, index)?;
            self.touch(index);
        }
        Ok(())
    }

    /// Looks for those who are told although their audience is held.
    pub fn find_passing(&mut self, db: &Database, index: AudienceIndex) -> rusqlite::Result<()> {
        let Self { audiences, members, .. } = self;
        let Audience { row, passing, in_flight, .. } = &mut audiences[index];
        passing.start_over(in_flight);
        members.visit_pending(db, *row, Timestamp::EPOCH, true, |key, member, _| {
            passing.offer(key, member)
        })
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
                audience.passing = Passing::default();
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
        if !audience.guard.is_held() {
            audience.passing = Passing::default();
        }
        self.touch(index);
    }
}
