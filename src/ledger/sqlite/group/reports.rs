//! What couriers report of a batch: each of its members goes through its rule, and its claim ends.

use tokio::time::Instant;

use super::super::database::Database;
use super::super::parked::Parked;
use super::super::state::State;
use super::super::unwritten::AT_ONCE;
use super::{Group, Report, Unclaimed};
use crate::ledger::member::{self, Member, Next};
use crate::ledger::{Batch, ClaimedMember};
use crate::membership::Timestamp;

impl Group {
    pub(super) fn apply_report(
        &mut self,
        state: &mut State,
        db: &Database,
        report: Report,
    ) -> rusqlite::Result<()> {
        match report {
            Report::Settle(batch) => self.settle(state, db, batch),
            Report::Release(batch, unheard) => {
                self.for_each_claimed(state, db, batch, |state, _, audience, _, before| {
                    Ok(member::release(before, unheard, &state.moment(audience)))
                })
            }
            Report::Park(batch, reason) => {
                self.for_each_claimed(state, db, batch, |state, db, audience, claimed, before| {
                    let moment = state.moment(audience);
                    let (next, parked) = member::park(before, claimed, &moment);
                    if parked {
                        let row = state.audiences.list[audience].row;
                        let key = claimed.context_key.as_str();
                        state.parked.insert(db, row, key, moment.stamp, &reason)?;
                    }
                    Ok(next)
                })
            }
            Report::Split(parts) => parts.into_iter().try_for_each(|part| {
                let Some(audience) = state.audiences.of_route(&part.route) else { return Ok(()) };
                let half = state.stamp();
                part.members.iter().try_for_each(|claimed| {
                    let key = &claimed.context_key;
                    state.apply(db, audience, key, |before, _| member::split(before, half))?;
                    Ok(())
                })
            }),
        }
    }

    /// LaunchDarkly took all of them.
    fn settle(&mut self, state: &mut State, db: &Database, batch: Batch) -> rusqlite::Result<()> {
        let Some(audience) = state.audiences.of_route(&batch.route) else { return Ok(()) };
        let (moment, row) = (state.moment(audience), state.audiences.list[audience].row);
        state.audiences.list[audience].acknowledged = true;
        state.touch(audience);
        state.unwritten.told(row, batch.members.len(), Instant::now());
        self.for_each_claimed(state, db, batch, |state, db, _, claimed, before| {
            let (next, tell_once_more) = member::settle(before, claimed, &moment);
            let key = claimed.context_key.as_str();
            if before.is_some_and(|before| before.parked_at.is_some()) {
                Parked::erase(db, row, key)?;
                state.erasure.note();
            }
            if tell_once_more {
                state.upkeep.reassert_later(db, row, key, moment.stamp)?;
            }
            Ok(next)
        })
    }

    /// Loads each member of a claimed batch, lets `rule` decide, and ends the claim.
    fn for_each_claimed(
        &mut self,
        state: &mut State,
        db: &Database,
        batch: Batch,
        mut rule: impl FnMut(
            &mut State,
            &Database,
            usize,
            &ClaimedMember,
            Option<&Member>,
        ) -> rusqlite::Result<Next>,
    ) -> rusqlite::Result<()> {
        let Some(audience) = state.audiences.of_route(&batch.route) else { return Ok(()) };
        let mut order = batch.members;
        if !state.unwritten.is_open {
            order.sort_by(|a, b| a.context_key.cmp(&b.context_key));
        }
        let row = state.audiences.list[audience].row;
        let mut longest: Option<Timestamp> = None;
        let mut places = Vec::with_capacity(order.len());
        for some in order.chunks(AT_ONCE) {
            let keys = some.iter().map(|claimed| (audience, claimed.context_key.as_str()));
            for (claimed, hash) in some.iter().zip(state.hashes(keys)) {
                let key = &claimed.context_key;
                let place = state.unwritten.place_of(row, key.as_str(), hash);
                let known = if place.is_row() {
                    state.audiences.list[audience].claimed.take_row(place.hash, key)
                } else {
                    None
                };
                let before = match known {
                    Some(known) => Some(known),
                    None => state.load(db, audience, (key.as_str(), place))?,
                };
                let next = rule(state, db, audience, claimed, before.as_ref())?;
                let place = state.put(db, audience, (key, place), before.as_ref(), &next)?;
                let waits = next.or(before.as_ref()).and_then(|member| member.pending_since);
                if let Some(since) = waits {
                    state.audiences.list[audience].look_again_from(since);
                    longest = Some(longest.map_or(since, |other| other.min(since)));
                }
                places.push(place);
            }
        }
        let keys = order.into_iter().map(|claimed| claimed.context_key);
        let members = keys.zip(places).collect();
        self.unclaimed.push(Unclaimed { audience, members, longest });
        Ok(())
    }
}
