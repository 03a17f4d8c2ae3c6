//! One group of verbs in one transaction, or in memory alone: deltas first and sorted, then what couriers
//! report, then claims, so that a claim sees everything that arrived with it.

mod arrivals;
mod reports;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::claims;
use super::command::{Command, Reply};
use super::counted::{self, Counted};
use super::database::Database;
use super::destinations::Configured;
use super::journal::Record;
use super::operated::{self, Operation};
use super::state::State;
use super::unwritten::Place;
use super::writer::WriterFailure;
use crate::ledger::counters::Tally;
use crate::ledger::{
    Batch, DestinationSettings, Intake, LedgerError, ParkReason, Recorded, Room, Route, Unheard,
};
use crate::membership::{AudienceId, ContextKey, DestinationName, Timestamp};

/// What a courier reports.
#[derive(Debug)]
enum Report {
    Settle(Batch),
    Release(Batch, Unheard),
    Park(Batch, ParkReason),
    Split(Vec<Batch>),
}

/// What one request brings, and what it is answered; or what several have brought that were answered
/// before.
#[derive(Debug, Default)]
pub(super) struct Request {
    intakes: Vec<Intake>,
    /// `None`: they were answered when they were appended to the journal.
    reply: Option<Reply<Vec<Recorded>>>,
    recorded: Vec<Recorded>,
    /// For each intake, the stamp of its first delta, if it was given out when it was appended.
    stamps: Vec<Option<Timestamp>>,
    /// In the queue, until it is answered.
    place: Option<OwnedSemaphorePermit>,
}

impl Request {
    fn items(&self) -> usize {
        self.intakes.iter().map(Intake::items).sum()
    }

    fn answer(self, outcome: impl FnOnce(Vec<Recorded>) -> Result<Vec<Recorded>, LedgerError>) {
        drop(self.place);
        if let Some(reply) = self.reply {
            // Whoever asked may have given up: what is durable is durable all the same.
            let _ = reply.send(outcome(self.recorded));
        }
    }

    fn deletes(&self) -> bool {
        self.intakes.iter().any(|intake| !intake.deletions.is_empty())
    }
}

#[derive(Debug)]
enum Wanted {
    Longest { destination: DestinationName, audience: AudienceId, room: Room },
    Again { route: Arc<Route>, context_key: ContextKey },
    Told { destination: DestinationName, after: Option<(AudienceId, ContextKey)> },
}

/// Members of an audience whose claims end, and where they are.
#[derive(Debug)]
pub(super) struct Unclaimed {
    pub audience: usize,
    pub members: Vec<(ContextKey, Place)>,
    /// Since when the longest pending of those that wait again has been so.
    pub longest: Option<Timestamp>,
}

/// Verbs that are done together. Their answers are given when what must be durable is.
#[derive(Debug, Default)]
pub(super) struct Group {
    requests: Vec<Request>,
    reports: Vec<Report>,
    wanted: Vec<Wanted>,
    reported: Vec<Reply<()>>,
    operations: Vec<Operation>,
    operated: Vec<(Reply<u64>, Result<u64, LedgerError>)>,
    claimed: Vec<(Reply<Option<Batch>>, Option<Batch>)>,
    caught_up: Vec<Reply<()>>,
    /// Who wants to know what there is: of everything that was accepted before, and as far as it is known.
    counting: Vec<Reply<Vec<Counted>>>,
    counting_now: Vec<Reply<Vec<Counted>>>,
    counted: Vec<Counted>,
    items: usize,
    /// The last block of the journal that is in the tables, and the last that it merges.
    pub merged: u64,
    pub merges: Option<u64>,
    /// Claims that end with this group, once it is committed.
    unclaimed: Vec<Unclaimed>,
    /// What its deltas came to, by destination.
    pub tallies: BTreeMap<usize, Tally>,
    /// Set by [`Command::Close`].
    pub close: Option<(Option<Instant>, oneshot::Sender<()>)>,
    configure: Option<(Vec<DestinationSettings>, Reply<()>)>,
    /// What was known of the destinations before, should the transaction be rolled back.
    configured_before: Option<Configured>,
    /// Set by [`Command::Damaged`].
    pub damage: Option<rusqlite::Error>,
    /// Set by [`Command::Full`].
    pub full: Option<String>,
    /// Set by [`Command::Failed`].
    pub failed: Option<WriterFailure>,
}

/// Verbs that must not overtake what is in the journal.
#[derive(Debug, Default)]
pub(super) struct Held {
    requests: Vec<Request>,
    operations: Vec<(Operation, Reply<u64>)>,
    wanted: Vec<(Wanted, Reply<Option<Batch>>)>,
    caught_up: Vec<Reply<()>>,
    counting: Vec<Reply<Vec<Counted>>>,
}

impl Held {
    pub fn is_empty(&self) -> bool {
        self.has_only_readers() && self.caught_up.is_empty() && self.counting.is_empty()
    }

    /// Whether nobody waits but who reads rows or counts members.
    pub fn has_only_readers(&self) -> bool {
        self.requests.is_empty() && self.operations.is_empty() && self.wanted.is_empty()
    }

    /// The ledger is closed before its turn has come.
    pub fn fail(self) {
        for request in self.requests {
            request.answer(|_| Err(LedgerError::Closed));
        }
        for (_, reply) in self.operations {
            let _ = reply.send(Err(LedgerError::Closed)); // whoever asked may have given up
        }
        for (_, reply) in self.wanted {
            let _ = reply.send(Err(LedgerError::Closed));
        }
        for reply in self.caught_up {
            let _ = reply.send(Err(LedgerError::Closed));
        }
        for reply in self.counting {
            let _ = reply.send(Err(LedgerError::Closed));
        }
    }
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
            || self.failed.is_some()
    }

    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
            && self.reports.is_empty()
            && self.operations.is_empty()
            && self.wanted.is_empty()
            && self.counting.is_empty()
            && self.counting_now.is_empty()
            && self.configure.is_none()
    }

    /// Deltas, kept events, claimed and reported members that it was about.
    pub fn rows(&self) -> usize {
        let intakes = self.requests.iter().flat_map(|request| &request.intakes);
        let claimed = self.claimed.iter().filter_map(|(_, batch)| batch.as_ref());
        intakes.map(Intake::items).sum::<usize>()
            + self.unclaimed.iter().map(|of| of.members.len()).sum::<usize>()
            + self.operations.iter().map(Operation::items).sum::<usize>()
            + claimed.map(|batch| batch.members.len()).sum::<usize>()
    }

    pub fn has_intakes(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Answers what should be recorded that there is no space for it; the rest of the group stays,
    /// and what was accepted before.
    pub fn refuse_intakes(&mut self) {
        for request in self.requests.extract_if(.., |request| request.reply.is_some()) {
            let cause = "the disk of the ledger has reached its reserve".to_owned();
            request.answer(|_| Err(LedgerError::Unavailable(cause)));
        }
    }

    /// Whether a courier waits for it.
    pub fn serves_couriers(&self) -> bool {
        !self.reports.is_empty() || !self.wanted.is_empty()
    }

    /// Whether it has anything that must not overtake what is in the journal.
    pub fn follows_journal(&self) -> bool {
        !self.requests.is_empty()
            || !self.caught_up.is_empty()
            || !self.counting.is_empty()
            || self.operations.iter().any(|operation| !operation.may_overtake())
    }

    /// Whether it has anything that reads or writes rows of members other than one by one, or is
    /// answered when they are written.
    pub fn needs_rows(&self) -> bool {
        let is_more = |intake: &Intake| {
            !intake.deletions.is_empty()
                || !intake.rejected.is_empty()
                || intake.deltas.iter().any(|delta| delta.message.is_some_and(|of| of.moves))
        };
        let by_rows =
            |request: &Request| request.reply.is_some() || request.intakes.iter().any(is_more);
        self.requests.iter().any(by_rows)
            || self.reports.iter().any(|of| matches!(of, Report::Park(..) | Report::Split(_)))
            || self.wanted.iter().any(|wanted| !matches!(wanted, Wanted::Longest { .. }))
            || !self.operations.is_empty()
            || self.configure.is_some()
    }

    /// Members of which couriers report.
    pub fn reported(&self) -> usize {
        let members = |report: &Report| match report {
            Report::Settle(batch) | Report::Release(batch, _) | Report::Park(batch, _) => {
                batch.members.len()
            }
            Report::Split(parts) => parts.iter().map(|part| part.members.len()).sum(),
        };
        self.reports.iter().map(members).sum()
    }

    /// Who reads rows once they are written.
    pub fn readers(&mut self) -> Vec<Reply<()>> {
        std::mem::take(&mut self.caught_up)
    }

    /// Adds what was read from the journal, up to the block with this number.
    pub fn merge(&mut self, records: Vec<Record>, block: u64) {
        self.merges = Some(block);
        // One request for all of them, but for each that deletes, which is applied in its order.
        let (mut requests, mut request) = (Vec::new(), Request::default());
        request.intakes.reserve_exact(records.len());
        request.recorded.reserve_exact(records.len());
        request.stamps.reserve_exact(records.len());
        for Record { intake, stamp } in records {
            let deletes = !intake.deletions.is_empty();
            if deletes && !request.intakes.is_empty() {
                requests.push(std::mem::take(&mut request));
            }
            request.intakes.push(intake);
            request.recorded.push(Recorded::default());
            request.stamps.push(Some(stamp));
            if deletes {
                requests.push(std::mem::take(&mut request));
            }
        }
        requests.extend((!request.intakes.is_empty()).then_some(request));
        // What waits for the writer arrived after it, or together with it.
        self.requests.splice(..0, requests);
    }

    /// Takes out what must not overtake what is in the journal, and claims if they must not either.
    pub fn hold(&mut self, also_claims: bool) -> Held {
        let mut held = Held {
            requests: std::mem::take(&mut self.requests),
            caught_up: std::mem::take(&mut self.caught_up),
            counting: std::mem::take(&mut self.counting),
            ..Held::default()
        };
        if also_claims {
            let replies = std::mem::take(&mut self.claimed).into_iter().map(|(reply, _)| reply);
            held.wanted = std::mem::take(&mut self.wanted).into_iter().zip(replies).collect();
        }
        let replies = std::mem::take(&mut self.operated).into_iter().map(|(reply, _)| reply);
        for (operation, reply) in std::mem::take(&mut self.operations).into_iter().zip(replies) {
            if operation.may_overtake() {
                self.operations.push(operation);
                self.operated.push((reply, Ok(0)));
            } else {
                held.operations.push((operation, reply));
            }
        }
        held
    }

    /// Takes back what was held.
    pub fn take_back(&mut self, held: Held) {
        let Held { requests, operations, wanted, caught_up, counting } = held;
        self.requests.extend(requests);
        for (operation, reply) in operations {
            self.operations.push(operation);
            self.operated.push((reply, Ok(0)));
        }
        for (wanted, reply) in wanted {
            self.wanted.push(wanted);
            self.claimed.push((reply, None));
        }
        self.caught_up.extend(caught_up);
        self.counting.extend(counting);
    }

    pub fn push(&mut self, command: Command) {
        let mut report = |report, items: usize, reply| {
            self.items += items;
            self.reports.push(report);
            self.reported.push(reply);
        };
        match command {
            Command::Record { intakes, reply, place } => {
                let (recorded, stamps) =
                    (vec![Recorded::default(); intakes.len()], vec![None; intakes.len()]);
                let (reply, place) = (Some(reply), Some(place));
                let request = Request { intakes, reply, recorded, stamps, place };
                self.items += request.items();
                self.requests.push(request);
            }
            Command::Claim { destination, audience, room, reply } => {
                self.items += room.members.get();
                self.wanted.push(Wanted::Longest { destination, audience, room });
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
                let members = batch.members.len();
                report(Report::Settle(batch), members, reply);
            }
            Command::Release { batch, unheard, reply } => {
                let members = batch.members.len();
                report(Report::Release(batch, unheard), members, reply);
            }
            Command::Park { batch, reason, reply } => {
                let members = batch.members.len();
                report(Report::Park(batch, reason), members, reply);
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
            Command::Journaled => {}
            Command::CatchUp(reply) => self.caught_up.push(reply),
            Command::Count { all: true, reply } => self.counting.push(reply),
            Command::Count { all: false, reply } => self.counting_now.push(reply),
            Command::Full(cause) => self.full = Some(cause),
            Command::Failed(failure) => self.failed = Some(failure),
            Command::Damaged(error) => self.damage = Some(error),
            Command::Close { by, reply } => self.close = Some((by, reply)),
        }
    }

    /// Applies everything inside the transaction that is open on `db`.
    pub fn apply(&mut self, state: &mut State, db: &Database) -> rusqlite::Result<()> {
        // Around a deletion, what comes before it is applied before it and the rest after it.
        let mut from = 0;
        while from < self.requests.len() {
            let deleting = self.requests[from..].iter().position(Request::deletes);
            let to = deleting.map_or(self.requests.len(), |position| from + position);
            self.apply_requests(from..to, state, db)?;
            if deleting.is_some() {
                self.apply_in_order(to, state, db)?;
            }
            from = to + 1;
        }
        for report in std::mem::take(&mut self.reports) {
            self.apply_report(state, db, report)?;
        }
        for (operation, (_, done)) in self.operations.iter().zip(&mut self.operated) {
            *done = operated::apply(state, db, operation)?;
        }
        for (wanted, (_, claimed)) in self.wanted.iter().zip(&mut self.claimed) {
            *claimed = match wanted {
                Wanted::Longest { destination, audience, room } => {
                    claims::claim(state, db, destination, audience, *room)?
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
        if !self.counting.is_empty() || !self.counting_now.is_empty() {
            self.counted = counted::count(state, db)?;
        }
        Ok(())
    }

    /// All of it is done and, if need be, committed: claims that were reported on end, and who is configured shows.
    pub fn committed(&mut self, state: &mut State) {
        for unclaimed in self.unclaimed.drain(..) {
            state.unclaim(&unclaimed);
        }
        if self.configure.is_some() {
            state.show_destinations();
            state.upkeep.wake(); // everybody of an audience may have to be told again
        }
    }

    /// Answers every verb. What it changed can be seen by then.
    pub fn answer(self) {
        for request in self.requests {
            request.answer(Ok);
        }
        for reply in self.reported {
            let _ = reply.send(Ok(())); // whoever asked may have given up
        }
        for (reply, done) in self.operated {
            let _ = reply.send(done);
        }
        if let Some((_, reply)) = self.configure {
            let _ = reply.send(Ok(()));
        }
        for reply in self.counting.into_iter().chain(self.counting_now) {
            let _ = reply.send(Ok(self.counted.clone()));
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
        for request in self.requests {
            request.answer(|_| Err(error()));
        }
        for reply in self.caught_up {
            let _ = reply.send(Err(error()));
        }
        for reply in self.counting.into_iter().chain(self.counting_now) {
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
