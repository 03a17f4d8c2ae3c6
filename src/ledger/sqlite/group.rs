//! One group of verbs in one transaction: deltas first and sorted, then what couriers report, then
//! claims, so that a claim sees everything that arrived with it.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::destinations::Configured;
use super::operated::{self, Operation};
use super::parked::Parked;
use super::writer::State;
use super::{claims, members};
use crate::ledger::member::{self, Change, Member, Next};
use crate::ledger::{
    Batch, ClaimedMember, DestinationSettings, Intake, LedgerError, ParkReason, Recorded,
    RejectedEvent, Route, Unheard,
};
use crate::membership::{AudienceId, ContextKey, DestinationName, MembershipDelta, Timestamp};

type Reply<T> = oneshot::Sender<Result<T, LedgerError>>;

/// A verb on its way to the writer.
#[derive(Debug)]
pub(super) enum Command {
    Record {
        intakes: Vec<Intake>,
        reply: Reply<Vec<Recorded>>,
        place: OwnedSemaphorePermit,
    },
    Claim {
        destination: DestinationName,
        audience: AudienceId,
        limit: NonZeroUsize,
        reply: Reply<Option<Batch>>,
    },
    ClaimAgain {
        route: Arc<Route>,
        context_key: ContextKey,
        reply: Reply<Option<Batch>>,
    },
    ClaimTold {
        destination: DestinationName,
        after: Option<(AudienceId, ContextKey)>,
        reply: Reply<Option<Batch>>,
    },
    Settle {
        batch: Batch,
        reply: Reply<()>,
    },
    Release {
        batch: Batch,
        unheard: Unheard,
        reply: Reply<()>,
    },
    Park {
        batch: Batch,
        reason: ParkReason,
        reply: Reply<()>,
    },
    Split {
        parts: Vec<Batch>,
        reply: Reply<()>,
    },
    Operate {
        operation: Operation,
        reply: Reply<u64>,
    },
    Configure {
        destinations: Vec<DestinationSettings>,
        reply: Reply<()>,
    },
    /// Somebody who reads beside the writer has found that the file is not as it was written.
    Damaged(rusqlite::Error),
    Close(oneshot::Sender<()>),
}

/// What a courier reports.
#[derive(Debug)]
enum Report {
    Settle(Batch),
    Release(Batch, Unheard),
    Park(Batch, ParkReason),
    Split(Vec<Batch>),
}

/// What one request brings, and what it is answered.
#[derive(Debug)]
struct Request {
    intakes: Vec<Intake>,
    reply: Reply<Vec<Recorded>>,
    recorded: Vec<Recorded>,
}

impl Request {
    fn deletes(&self) -> bool {
        self.intakes.iter().any(|intake| !intake.deletions.is_empty())
    }
}

#[derive(Debug)]
enum Wanted {
    Longest { destination: DestinationName, audience: AudienceId, limit: NonZeroUsize },
    Again { route: Arc<Route>, context_key: ContextKey },
    Told { destination: DestinationName, after: Option<(AudienceId, ContextKey)> },
}

/// Verbs that share a transaction. Their answers are given after the commit.
#[derive(Debug, Default)]
pub(super) struct Group {
    requests: Vec<Request>,
    reports: Vec<Report>,
    wanted: Vec<Wanted>,
    reported: Vec<Reply<()>>,
    operations: Vec<Operation>,
    operated: Vec<(Reply<u64>, Result<u64, LedgerError>)>,
    claimed: Vec<(Reply<Option<Batch>>, Option<Batch>)>,
    places: Vec<OwnedSemaphorePermit>,
    items: usize,
    /// Members whose claim ends with this group, once it is committed, and since when the longest
    /// pending of those that wait again has been so.
    unclaimed: Vec<(usize, Vec<ContextKey>, Option<Timestamp>)>,
    /// Set by [`Command::Close`].
    pub close: Option<oneshot::Sender<()>>,
    configure: Option<(Vec<DestinationSettings>, Reply<()>)>,
    /// What was known of the destinations before, should the transaction be rolled back.
    configured_before: Option<Configured>,
    /// Set by [`Command::Damaged`].
    pub damage: Option<rusqlite::Error>,
}

/// Larger groups are cheaper per row, up to where the answer takes too long.
const MOST_ITEMS: usize = 20_000;

impl Group {
    /// Whether more verbs should wait for the next group.
    pub fn is_full(&self) -> bool {
        self.items >= MOST_ITEMS
            || self.close.is_some()
            || self.configure.is_some()
            || self.damage.is_some()
    }

    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
            && self.reports.is_empty()
            && self.operations.is_empty()
            && self.wanted.is_empty()
            && self.configure.is_none()
    }

    pub fn has_intakes(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Answers what should be recorded that there is no space for it; the rest of the group stays.
    pub fn refuse_intakes(&mut self) {
        self.places.clear();
        for Request { reply, .. } in self.requests.drain(..) {
            let cause = "the disk of the ledger has reached its reserve".to_owned();
            let _ = reply.send(Err(LedgerError::Unavailable(cause))); // nobody may be waiting
        }
    }

    pub fn push(&mut self, command: Command) {
        let mut report = |report, items: usize, reply| {
            self.items += items;
            self.reports.push(report);
            self.reported.push(reply);
        };
        match command {
            Command::Record { intakes, reply, place } => {
                self.items += intakes.iter().map(Intake::items).sum::<usize>();
                let recorded = vec![Recorded::default(); intakes.len()];
                self.requests.push(Request { intakes, reply, recorded });
                self.places.push(place);
            }
            Command::Claim { destination, audience, limit, reply } => {
                self.items += limit.get();
                self.wanted.push(Wanted::Longest { destination, audience, limit });
                self.claimed.push((reply, None));
            }
            Command::ClaimAgain { route, context_key, reply } => {
                self.wanted.push(Wanted::Again { route, context_key });
                self.claimed.push((reply, None));
            }
            Command::ClaimTold { destination, after, reply } => {
                self.wanted.push(Wanted::Told { destination, after });
                self.claimed.push((reply, None));
            }
            Command::Settle { batch, reply } => {
                report(Report::Settle(batch.clone()), batch.members.len(), reply);
            }
            Command::Release { batch, unheard, reply } => {
                report(Report::Release(batch.clone(), unheard), batch.members.len(), reply);
            }
            Command::Park { batch, reason, reply } => {
                report(Report::Park(batch.clone(), reason), batch.members.len(), reply);
            }
            Command::Split { parts, reply } => {
                let members = parts.iter().map(|part| part.members.len()).sum();
                report(Report::Split(parts), members, reply);
            }
            Command::Operate { operation, reply } => {
                self.items += operation.items();
                self.operations.push(operation);
                self.operated.push((reply, Ok(0)));
            }
            Command::Configure { destinations, reply } => {
                self.configure = Some((destinations, reply));
            }
            Command::Damaged(error) => self.damage = Some(error),
            Command::Close(closed) => self.close = Some(closed),
        }
    }

    /// Applies everything inside the transaction that is open on `db`.
    pub fn apply(&mut self, state: &mut State, db: &Connection) -> rusqlite::Result<()> {
        // What came after a deletion is applied after it.
        let mut from = 0;
        while from < self.requests.len() {
            let deleting = self.requests[from..].iter().position(Request::deletes);
            let to = deleting.map_or(self.requests.len(), |position| from + position + 1);
            self.apply_requests(from..to, state, db)?;
            from = to;
        }
        for report in std::mem::take(&mut self.reports) {
            self.apply_report(state, db, report)?;
        }
        for (operation, (_, done)) in self.operations.iter().zip(&mut self.operated) {
            *done = operated::apply(state, db, operation)?;
        }
        for (wanted, (_, claimed)) in self.wanted.iter().zip(&mut self.claimed) {
            *claimed = match wanted {
                Wanted::Longest { destination, audience, limit } => {
                    claims::claim(state, db, destination, audience, *limit)?
                }
                Wanted::Again { route, context_key } => {
                    claims::claim_again(state, db, route, context_key)?
                }
                Wanted::Told { destination, after } => {
                    claims::claim_told(state, db, destination, after.as_ref())?
                }
            };
        }
        if let Some((destinations, _)) = &self.configure {
            let stamp = state.stamp();
            self.configured_before = Some(state.audiences.configured());
            state.audiences.configure(db, destinations.clone(), stamp)?;
        }
        Ok(())
    }

    /// Deltas first, together, then what else came with them.
    fn apply_requests(
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
                if let Next::Write(next) = member::record(after.as_ref(), &change, &moment) {
                    after = Some(next);
                }
            }
            if let Some(after) = after.filter(|after| before.as_ref() != Some(after)) {
                state.put(db, audience, key, before.as_ref(), &Next::Write(after))?;
            }
        }
        Ok(())
    }

    fn apply_report(
        &mut self,
        state: &mut State,
        db: &Connection,
        report: Report,
    ) -> rusqlite::Result<()> {
        match report {
            Report::Settle(batch) => self.for_each_claimed(state, db, batch, settle_one),
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
                    let key = claimed.context_key.as_str();
                    state.apply(db, audience, key, |before, _| member::split(before, half))
                })
            }),
        }
    }

    /// Loads each member of a claimed batch, lets `rule` decide, and ends the claim.
    fn for_each_claimed(
        &mut self,
        state: &mut State,
        db: &Connection,
        batch: Batch,
        mut rule: impl FnMut(
            &mut State,
            &Connection,
            usize,
            &ClaimedMember,
            Option<&Member>,
        ) -> rusqlite::Result<Next>,
    ) -> rusqlite::Result<()> {
        let Some(audience) = state.audiences.of_route(&batch.route) else { return Ok(()) };
        let row = state.audiences.list[audience].row;
        let mut order: Vec<_> = batch.members.iter().collect();
        order.sort_by(|a, b| a.context_key.cmp(&b.context_key));
        let mut longest: Option<Timestamp> = None;
        for claimed in order {
            let key = claimed.context_key.as_str();
            let before = members::load(db, row, key)?;
            let next = rule(state, db, audience, claimed, before.as_ref())?;
            state.put(db, audience, key, before.as_ref(), &next)?;
            if let Some(since) = next.or(before.as_ref()).and_then(|member| member.pending_since) {
                state.audiences.list[audience].look_again_from(since);
                longest = Some(longest.map_or(since, |other| other.min(since)));
            }
        }
        let keys = batch.members.into_iter().map(|claimed| claimed.context_key).collect();
        self.unclaimed.push((audience, keys, longest));
        Ok(())
    }

    /// The transaction is committed: claims that were reported on end, and who is configured shows.
    pub fn committed(&mut self, state: &mut State) {
        for (audience, keys, longest) in self.unclaimed.drain(..) {
            state.unclaim(audience, &keys, longest);
        }
        if self.configure.is_some() {
            state.show_destinations();
            state.upkeep.wake(); // everybody of an audience may have to be told again
        }
    }

    /// Answers every verb. What it changed can be seen by then.
    pub fn answer(self) {
        drop(self.places);
        for Request { reply, recorded, .. } in self.requests {
            let _ = reply.send(Ok(recorded)); // whoever asked may have given up: it is durable all the same
        }
        for reply in self.reported {
            let _ = reply.send(Ok(()));
        }
        for (reply, done) in self.operated {
            let _ = reply.send(done);
        }
        if let Some((_, reply)) = self.configure {
            let _ = reply.send(Ok(()));
        }
        for (reply, batch) in self.claimed {
            let _ = reply.send(Ok(batch)); // see `Ledger::claim`: a courier that claims waits for it
        }
    }

    /// The transaction was rolled back: what it had claimed is in no batch, and what it configured is
    /// not; the rest is read again.
    pub fn rolled_back(&mut self, state: &mut State) {
        if let Some(before) = self.configured_before.take() {
            state.audiences.take_back(before);
        }
        for batch in self.claimed.iter_mut().filter_map(|(_, batch)| batch.take()) {
            state.unclaim_batch(&batch);
        }
    }

    /// Answers every verb with `error`.
    pub fn fail(self, error: impl Fn() -> LedgerError) {
        for Request { reply, .. } in self.requests {
            let _ = reply.send(Err(error()));
        }
        if let Some((_, reply)) = self.configure {
            let _ = reply.send(Err(error()));
        }
        for reply in self.reported {
            let _ = reply.send(Err(error()));
        }
        for (reply, _) in self.operated {
            let _ = reply.send(Err(error()));
        }
        for (reply, _) in self.claimed {
            let _ = reply.send(Err(error()));
        }
    }
}

fn settle_one(
    state: &mut State,
    db: &Connection,
    audience: usize,
    claimed: &ClaimedMember,
    before: Option<&Member>,
) -> rusqlite::Result<Next> {
    let moment = state.moment(audience);
    let (next, tell_once_more) = member::settle(before, claimed, &moment);
    let key = claimed.context_key.as_str();
    let row = state.audiences.list[audience].row;
    state.audiences.list[audience].acknowledged = true;
    state.touch(audience);
    if before.is_some_and(|before| before.parked_at.is_some()) {
        Parked::erase(db, row, key)?;
    }
    if tell_once_more {
        state.upkeep.reassert_later(db, row, key, moment.stamp)?;
    }
    Ok(next)
}

/// What a delta changes, as the rules see it; used by [`State::change`].
pub(super) fn change_of(delta: &MembershipDelta, person: Option<[u8; 16]>) -> Change {
    Change {
        membership: delta.membership,
        event_at: delta.event_at,
        key_rule: delta.key_rule,
        person,
    }
}
