//! Applies one group of verbs in one transaction, or in memory alone: deltas first and sorted, then the
//! reports of couriers, then claims, so that a claim sees everything that arrived with it.

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::ledger::embedded::commit::command::{Asked, Command, Reply};
use crate::ledger::embedded::engine::claims::{self, Wanted};
use crate::ledger::embedded::engine::configure::Configured;
use crate::ledger::embedded::engine::operated::{self, Operation};
use crate::ledger::embedded::engine::record::{self, Recording};
use crate::ledger::embedded::engine::state::{State, Tallies};
use crate::ledger::embedded::engine::unclaim::Unclaimed;
use crate::ledger::embedded::engine::{counting, report};
use crate::ledger::embedded::record::Record;
use crate::ledger::embedded::settings::DestinationSettings;
use crate::ledger::embedded::tables::counted::Counted;
use crate::ledger::embedded::tables::database::Database;
use crate::ledger::error::WriterFailure;
use crate::ledger::{Batch, LedgerError, Recorded, Report};

/// A request and where it is answered; or several requests read from the log, which were answered before.
#[derive(Debug, Default)]
pub(crate) struct Request {
    recording: Recording,
    /// `None`: answered when they were appended to the log.
    reply: Option<Reply<Vec<Recorded>>>,
    /// Places in the queue, held until the request is answered.
    place: Option<OwnedSemaphorePermit>,
}

impl Request {
    fn answer(self, outcome: impl FnOnce(Vec<Recorded>) -> Result<Vec<Recorded>, LedgerError>) {
        drop(self.place);
        if let Some(reply) = self.reply {
            // The caller may have given up; what is durable stays durable.
            let _ = reply.send(outcome(self.recording.recorded));
        }
    }
}

/// Verbs that are applied together. They are answered once what must be durable is.
#[derive(Debug, Default)]
pub(crate) struct Group {
    requests: Vec<Request>,
    reports: Vec<Report>,
    /// Where the reports are answered.
    reported: Vec<Reply<()>>,
    operations: Vec<Asked<Operation, u64>>,
    claims: Vec<Asked<Wanted, Option<Batch>>>,
    caught_up: Vec<Reply<()>>,
    /// Callers who want counts: after everything accepted before is merged (`counting`), or as of now
    /// (`counting_now`).
    counting: Vec<Reply<Vec<Counted>>>,
    counting_now: Vec<Reply<Vec<Counted>>>,
    counted: Vec<Counted>,
    items: usize,
    /// The last block of the log that is in the tables, and the last one that this group merges.
    pub merged: u64,
    pub merges: Option<u64>,
    /// Claims that end once this group is committed.
    unclaimed: Vec<Unclaimed>,
    /// Outcomes of its deltas.
    pub tallies: Tallies,
    /// Set by [`Command::Close`].
    pub close: Option<(Option<Instant>, oneshot::Sender<()>)>,
    configure: Option<(Vec<DestinationSettings>, Reply<()>)>,
    /// The configuration before, to be restored if the transaction is rolled back.
    configured_before: Option<Configured>,
    /// Set by [`Command::Damaged`].
    pub damage: Option<rusqlite::Error>,
    /// Set by [`Command::Full`].
    pub full: Option<String>,
    /// Set by [`Command::Failed`].
    pub failed: Option<WriterFailure>,
}

/// Verbs that must not overtake the log: they wait until a block is read.
#[derive(Debug, Default)]
pub(crate) struct WaitingForBlock {
    requests: Vec<Request>,
    operations: Vec<Asked<Operation, u64>>,
    claims: Vec<Asked<Wanted, Option<Batch>>>,
    caught_up: Vec<Reply<()>>,
    counting: Vec<Reply<Vec<Counted>>>,
}

impl WaitingForBlock {
    pub fn is_empty(&self) -> bool {
        self.has_only_readers() && self.caught_up.is_empty() && self.counting.is_empty()
    }

    /// Whether only readers and counts wait, and no verb that changes anything.
    pub fn has_only_readers(&self) -> bool {
        self.requests.is_empty() && self.operations.is_empty() && self.claims.is_empty()
    }

    /// The ledger is closed before these verbs could be applied: fails them.
    pub fn fail(self) {
        let mut group = Group::default();
        group.take_back(self);
        group.fail(|| LedgerError::Closed);
    }
}

/// A group is full at this size. Larger groups are cheaper per row, but their callers wait longer.
const MOST_ITEMS: usize = 20_000;

impl Group {
    /// Whether further verbs should wait for the next group.
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
            && self.claims.is_empty()
            && self.counting.is_empty()
            && self.counting_now.is_empty()
            && self.configure.is_none()
    }

    /// Items that the group was about: deltas, kept events, claimed and reported members.
    pub fn rows(&self) -> usize {
        let claimed = self.claims.iter().filter_map(|asked| asked.answer.as_ref()?.as_ref().ok());
        self.requests.iter().map(|request| request.recording.items()).sum::<usize>()
            + self.unclaimed.iter().map(|of| of.members.len()).sum::<usize>()
            + self.operations.iter().map(|asked| asked.what.items()).sum::<usize>()
            + claimed.flatten().map(|batch| batch.members.len()).sum::<usize>()
    }

    pub fn has_intakes(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Refuses new intakes for want of space. The rest of the group stays, and so does what was read from the
    /// log, which was accepted before.
    pub fn refuse_intakes(&mut self) {
        for request in self.requests.extract_if(.., |request| request.reply.is_some()) {
            let cause = "the disk of the ledger has reached its reserve".to_owned();
            request.answer(|_| Err(LedgerError::Unavailable(cause)));
        }
    }

    /// Whether a courier waits for this group.
    pub fn serves_couriers(&self) -> bool {
        !self.reports.is_empty() || !self.claims.is_empty()
    }

    /// Whether it holds a verb that must not overtake the log.
    pub fn follows_log(&self) -> bool {
        !self.requests.is_empty()
            || !self.caught_up.is_empty()
            || !self.counting.is_empty()
            || self.operations.iter().any(|asked| !asked.what.may_overtake())
    }

    /// Whether it holds a verb that needs up-to-date rows: one that reads or writes rows other than those of
    /// single members, or that is answered only when they are written.
    pub fn needs_rows(&self) -> bool {
        let by_rows = |request: &Request| request.reply.is_some() || request.recording.needs_rows();
        self.requests.iter().any(by_rows)
            || self.reports.iter().any(report::needs_rows)
            || self.claims.iter().any(|asked| asked.what.needs_rows())
            || !self.operations.is_empty()
            || self.configure.is_some()
    }

    /// How many members couriers report on.
    pub fn reported(&self) -> usize {
        self.reports.iter().map(Report::members).sum()
    }

    /// Takes the callers that wait for up-to-date rows.
    pub fn readers(&mut self) -> Vec<Reply<()>> {
        std::mem::take(&mut self.caught_up)
    }

    /// Adds what was read from the log, up to the block with this number.
    pub fn merge(&mut self, records: Vec<Record>, block: u64) {
        self.merges = Some(block);
        // All of them become one request, except those with deletions, which are applied in their order.
        let (mut requests, mut request) = (Vec::new(), Request::default());
        request.recording.reserve_exact(records.len());
        for Record { intake, stamp } in records {
            let deletes = !intake.deletions.is_empty();
            if deletes && !request.recording.intakes.is_empty() {
                requests.push(std::mem::take(&mut request));
            }
            request.recording.add_appended(intake, stamp);
            if deletes {
                requests.push(std::mem::take(&mut request));
            }
        }
        requests.extend((!request.recording.intakes.is_empty()).then_some(request));
        // The requests that wait for the writer arrived after these, or at the same time.
        self.requests.splice(..0, requests);
    }

    /// Takes out the verbs that must not overtake the log; with `also_claims`, claims too.
    pub fn split_off_waiting(&mut self, also_claims: bool) -> WaitingForBlock {
        let mut waiting = WaitingForBlock {
            requests: std::mem::take(&mut self.requests),
            caught_up: std::mem::take(&mut self.caught_up),
            counting: std::mem::take(&mut self.counting),
            ..WaitingForBlock::default()
        };
        if also_claims {
            waiting.claims = std::mem::take(&mut self.claims);
        }
        waiting.operations =
            self.operations.extract_if(.., |asked| !asked.what.may_overtake()).collect();
        waiting
    }

    /// Puts back verbs that have waited for a block.
    pub fn take_back(&mut self, waiting: WaitingForBlock) {
        let WaitingForBlock { requests, operations, claims, caught_up, counting } = waiting;
        self.requests.extend(requests);
        self.operations.extend(operations);
        self.claims.extend(claims);
        self.caught_up.extend(caught_up);
        self.counting.extend(counting);
    }

    pub fn push(&mut self, command: Command) {
        match command {
            Command::Record { intakes, reply, place } => {
                let recording = Recording::of(intakes);
                self.items += recording.items();
                let (reply, place) = (Some(reply), Some(place));
                self.requests.push(Request { recording, reply, place });
            }
            Command::Claim(asked) => {
                self.items += asked.what.claim.members();
                self.claims.push(asked);
            }
            Command::Report(report, reply) => {
                self.items += report.members();
                self.reports.push(report);
                self.reported.push(reply);
            }
            Command::Operate(asked) => {
                self.items += asked.what.items();
                self.operations.push(asked);
            }
            Command::Configure(destinations, reply) => {
                self.configure = Some((destinations, reply));
            }
            Command::Appended => {}
            Command::CatchUp(reply) => self.caught_up.push(reply),
            Command::Count { all: true, reply } => self.counting.push(reply),
            Command::Count { all: false, reply } => self.counting_now.push(reply),
            Command::Full(cause) => self.full = Some(cause),
            Command::Failed(failure) => self.failed = Some(failure),
            Command::Damaged(error) => self.damage = Some(error),
            Command::Close { by, reply } => self.close = Some((by, reply)),
        }
    }

    /// Applies every verb inside the transaction that is open on `db`.
    pub fn apply(&mut self, state: &mut State, db: &Database) -> rusqlite::Result<()> {
        let mut requests: Vec<_> =
            self.requests.iter_mut().map(|request| &mut request.recording).collect();
        // While the members are only dirty, the blocks still promise the kinds of their audiences.
        let settled_through = self.merges.filter(|_| !state.members.is_buffering());
        let settled_through = settled_through.unwrap_or(self.merged);
        record::record(state, db, &mut requests, settled_through, &mut self.tallies)?;
        for report in std::mem::take(&mut self.reports) {
            self.unclaimed.extend(report::report(state, db, report)?);
        }
        for asked in &mut self.operations {
            asked.answer = Some(operated::apply(state, db, &asked.what)?);
        }
        for asked in &mut self.claims {
            asked.answer = Some(Ok(claims::claim(state, db, &asked.what)?));
        }
        if let Some((destinations, _)) = &self.configure {
            let stamp = state.stamp();
            self.configured_before = Some(state.audiences.configured());
            state.audiences.configure(db.connection()?, destinations.clone(), stamp)?;
        }
        if !self.counting.is_empty() || !self.counting_now.is_empty() {
            self.counted = counting::count(state, db)?;
        }
        Ok(())
    }

    /// The group is applied and, if needed, committed: ends the claims that were reported on, and shows the
    /// configuration.
    pub fn committed(&mut self, state: &mut State) {
        for unclaimed in self.unclaimed.drain(..) {
            state.unclaim(&unclaimed);
        }
        if self.configure.is_some() {
            state.show_destinations();
            state.schedule.wake(); // a resync of every audience may have begun
        }
    }

    /// Answers every verb. Its effects are visible by then.
    pub fn answer(self) {
        for request in self.requests {
            request.answer(Ok);
        }
        for reply in self.reported {
            let _ = reply.send(Ok(())); // the caller may have given up
        }
        self.operations.into_iter().for_each(Asked::answer);
        if let Some((_, reply)) = self.configure {
            let _ = reply.send(Ok(()));
        }
        for reply in self.counting.into_iter().chain(self.counting_now) {
            let _ = reply.send(Ok(self.counted.clone()));
        }
        self.claims.into_iter().for_each(Asked::answer); // wakes the couriers that wait for a batch
    }

    /// Takes back claims and configuration after a rollback; everything else is read again from the tables.
    pub fn rolled_back(&mut self, state: &mut State) {
        if let Some(before) = self.configured_before.take() {
            state.audiences.take_back(before);
        }
        for asked in &mut self.claims {
            if let Some(Ok(Some(batch))) = asked.answer.take() {
                state.unclaim_batch(&batch);
            }
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
        self.operations.into_iter().for_each(|asked| asked.fail(error()));
        self.claims.into_iter().for_each(|asked| asked.fail(error()));
    }
}
