//! What requests bring: deltas first and sorted, then rejected events and deletions.

use std::ops::Range;

use rusqlite::Connection;

use super::super::members;
use super::super::state::State;
use super::{Group, Request};
use crate::ledger::RejectedEvent;
use crate::ledger::member::{self, Next};
use crate::membership::MembershipDelta;

impl Group {
    /// Deltas first, together, then what else came with them.
    pub(super) fn apply_requests(
        &mut self,
        which: Range<usize>,
        state: &mut State,
        db: &Connection,
    ) -> rusqlite::Result<()> {
        self.apply_deltas(which.clone(), state, db)?;
        for intake in self.requests[which].iter().flat_map(|request| &request.intakes) {
            state.note_arrival(intake.arrival);
            let Some(destination) = state.audiences.destination(&intake.destination) else {
                continue;
            };
            for RejectedEvent { reason, detail, body, user_id } in &intake.rejected {
                let row = state.audiences.destinations[destination].row;
                let person = user_id.as_ref().map(|user| state.persons.hash(row, user.as_str()));
                state.rejected.keep(db, row, intake.arrival, (reason, detail, body, person))?;
            }
            for user_id in &intake.deletions {
                state.forget(db, destination, user_id, intake.arrival)?;
            }
        }
        Ok(())
    }

    fn apply_deltas(
        &mut self,
        which: Range<usize>,
        state: &mut State,
        db: &Connection,
    ) -> rusqlite::Result<()> {
        let mut writes: Vec<(i64, usize, &MembershipDelta)> = Vec::with_capacity(self.items);
        for Request { intakes, recorded, .. } in &mut self.requests[which] {
            for (intake, recorded) in intakes.iter().zip(recorded) {
                let Some(destination) = state.audiences.destination(&intake.destination) else {
                    continue;
                };
                for (position, delta) in intake.deltas.iter().enumerate() {
                    match state.audiences.resolve(db, destination, delta)? {
                        Ok(audience) => {
                            writes.push((state.audiences.list[audience].row, audience, delta));
                        }
                        Err(_conflict) => recorded.kind_conflicts.push(position),
                    }
                }
            }
        }
        // Stable: of two deltas for one member the later arrival stays the later.
        writes.sort_by(|a, b| (a.0, &a.2.context_key).cmp(&(b.0, &b.2.context_key)));
        let same = |a: &(i64, usize, &MembershipDelta), b: &(i64, usize, &MembershipDelta)| {
            a.0 == b.0 && a.2.context_key == b.2.context_key
        };
        for arrivals in writes.chunk_by(same) {
            let (row, audience, first) = arrivals[0];
            let key = first.context_key.as_str();
            let before = members::load(db, row, key)?;
            let mut after = before.clone();
            for (_, _, delta) in arrivals {
                let Some(change) = state.change(db, audience, delta)? else { continue };
                let moment = state.moment(audience);
                let next = member::record(after.as_ref(), &change, &moment);
                let tally = self.tallies.entry(state.audiences.list[audience].destination);
                tally.or_default().add(after.as_ref(), &change, &next);
                if let Next::Write(next) = next {
                    after = Some(next);
                }
            }
            if let Some(after) = after.filter(|after| before.as_ref() != Some(after)) {
                state.put(db, audience, key, before.as_ref(), &Next::Write(after))?;
            }
        }
        Ok(())
    }
}
