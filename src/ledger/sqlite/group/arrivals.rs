//! What requests bring: deltas first and sorted, then rejected events and deletions.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use rusqlite::Connection;

use super::super::journal::OtherKind;
use super::super::members;
use super::super::state::State;
use super::{Group, Request};
use crate::ledger::RejectedEvent;
use crate::ledger::member::{self, Next};
use crate::membership::{MembershipDelta, Timestamp};

/// A delta, and where it goes.
struct Arrival<'a> {
    row: i64,
    audience: usize,
    delta: &'a MembershipDelta,
    /// As the journal has it.
    stamp: Option<Timestamp>,
}

impl Arrival<'_> {
    fn member(&self) -> (i64, &str) {
        (self.row, self.delta.context_key.as_str())
    }
}

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
        let mut writes: Vec<Arrival<'_>> = Vec::with_capacity(self.items);
        let mut arriving = BTreeSet::new();
        let journal = Arc::clone(&state.shared);
        let journal = (&journal.journal, self.merges.unwrap_or(self.merged));
        for Request { intakes, recorded, stamps, .. } in &mut self.requests[which] {
            for ((intake, recorded), first) in intakes.iter().zip(recorded).zip(stamps) {
                let Some(destination) = state.audiences.destination(&intake.destination) else {
                    continue;
                };
                let stamps = first.map_or(0, |first| first.0)..;
                for ((position, delta), stamp) in intake.deltas.iter().enumerate().zip(stamps) {
                    let stamp = first.is_some().then_some(Timestamp(stamp));
                    match state.audiences.resolve(db, destination, delta, &arriving, journal)? {
                        Ok(audience) => {
                            let row = state.audiences.list[audience].row;
                            if writes.last().is_none_or(|before| before.audience != audience) {
                                arriving.insert(audience);
                            }
                            writes.push(Arrival { row, audience, delta, stamp });
                        }
                        Err(OtherKind) => recorded.kind_conflicts.push(position),
                    }
                }
            }
        }
        // Stable: of two deltas for one member the later arrival stays the later.
        writes.sort_by(|a, b| a.member().cmp(&b.member()));
        for arrivals in writes.chunk_by(|a, b| a.member() == b.member()) {
            let Arrival { row, audience, .. } = arrivals[0];
            let (_, key) = arrivals[0].member();
            let before = members::load(db, row, key)?;
            let mut after = before.clone();
            for Arrival { delta, stamp, .. } in arrivals {
                let Some(change) = state.change(db, audience, delta)? else { continue };
                let moment = match stamp {
                    Some(stamp) => state.moment_at(audience, *stamp),
                    None => state.moment(audience),
                };
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
