//! The front of the ledger: makes requests durable in the journal while the writer is busy.
//!
//! A thread of its own, so that nobody waits for a merge. Requests that arrive together share one
//! block and one sync.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use crate::ledger::embedded::commit::command::Command;
use crate::ledger::embedded::directory::reserve::is_want_of_space;
use crate::ledger::embedded::engine::shared::Shared;
use crate::ledger::embedded::failure::WriterFailure;
use crate::ledger::embedded::record;
use crate::ledger::embedded::threads;
use crate::ledger::embedded::wal::AppendError;
use crate::ledger::embedded::wal::BLOCK_HEADER;
use crate::ledger::embedded::wal::Files;
use crate::ledger::{Intake, LedgerError};

/// Larger blocks are cheaper per byte, up to where the answer takes too long.
const MOST_BYTES: usize = 4 << 20;

/// Where many requests come at a time, a block is begun with the first few of those that are on their
/// way. So after a block of at least so many requests …
const MANY: usize = 4;
/// … one that would fill no page waits a moment for more of them, …
const PAGE_BYTES: usize = 4096;
/// … and once more if more have come. Linux makes it twice as long, to save power.
const MOMENT: Duration = Duration::from_micros(50);
const MOMENTS: usize = 2;

/// What the front is asked.
#[derive(Debug)]
pub(crate) enum Incoming {
    Record(Request),
    Close(oneshot::Sender<()>),
}

/// A request that is to be appended: two words, so that what the channel asks for at once stays small.
#[derive(Debug)]
pub(crate) struct Request {
    pub brought: Box<Brought>,
    pub reply: oneshot::Sender<Outcome>,
}

/// What a request brings. It goes back to who asked: an allocator is quickest where memory is freed by
/// whoever it was given to.
#[derive(Debug)]
pub(crate) struct Brought {
    pub intakes: Vec<Intake>,
    pub place: OwnedSemaphorePermit,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is on stable storage.
    Appended(Box<Brought>),
    /// Nothing yet: the writer knows whether the audience has members, and has no limit.
    ForWriter(Box<Brought>),
    Refused(LedgerError),
}

/// Owns the end of the journal until it is closed.
#[derive(Debug)]
pub(crate) struct Front {
    files: Files,
    incoming: Receiver<Incoming>,
    writer: Sender<Command>,
    shared: Arc<Shared>,
    /// Used again for each block, and for each record.
    block: Vec<u8>,
    record: Vec<u8>,
}

/// Requests that share a block.
#[derive(Default)]
struct Waiting(Vec<Request>);

impl Waiting {
    fn answer(self, outcome: impl Fn(Box<Brought>) -> Outcome) {
        for Request { brought, reply } in self.0 {
            let _ = reply.send(outcome(brought)); // whoever asked may have given up
        }
    }
}

/// Nothing can be appended any more.
struct Ended;

impl Front {
    pub fn new(
        files: Files,
        incoming: Receiver<Incoming>,
        writer: Sender<Command>,
        shared: Arc<Shared>,
    ) -> Self {
        Self { files, incoming, writer, shared, block: Vec::new(), record: Vec::new() }
    }

    /// Starts a thread that does [`Front::run`].
    pub fn start(self) -> io::Result<()> {
        let (writer, shared) = (self.writer.clone(), Arc::clone(&self.shared));
        let failed = move |panicked: threads::Panicked| {
            shared.has_failed.store(true, Ordering::Relaxed);
            let _ = writer.send(Command::Failed(panicked.into())); // it may have ended
        };
        threads::start("journal", || self.run(), failed).map(|_| ())
    }

    /// Appends until it is closed, every handle is gone, or the ledger has failed.
    fn run(mut self) {
        let mut before = 0;
        while let Ok(first) = self.incoming.recv() {
            self.shared.journal.begin_to_append();
            let (number, began) = (self.shared.journal.last() + 1, Instant::now());
            if self.block.capacity() > 2 * MOST_BYTES {
                // of a request that was unusually large
                (self.block, self.record) = (Vec::new(), Vec::new());
            }
            self.block.clear();
            self.block.resize(BLOCK_HEADER, 0);
            let (waiting, closed) = self.gather(first, number, before);
            before = waiting.0.len();
            let appended = self.append(number, began, waiting);
            if let Some(closed) = closed {
                drop(self);
                let _ = closed.send(()); // whoever asked may have given up waiting
                return;
            }
            if appended.is_err() {
                return;
            }
        }
    }

    /// Puts into the block what there is, up to the end; `before`: so many requests were in the last one.
    fn gather(
        &mut self,
        first: Incoming,
        number: u64,
        before: usize,
    ) -> (Waiting, Option<oneshot::Sender<()>>) {
        let mut waiting = Waiting::default();
        let (mut moments, mut come) = (if before < MANY { 0 } else { MOMENTS }, 0);
        let mut next = Some(first);
        while let Some(incoming) = next {
            match incoming {
                Incoming::Record(request) => self.take(number, request, &mut waiting),
                Incoming::Close(reply) => return (waiting, Some(reply)),
            }
            if self.block.len() >= MOST_BYTES {
                break;
            }
            next = self.incoming.try_recv().ok();
            let more_come = waiting.0.len() > come;
            if next.is_none() && moments > 0 && more_come && self.block.len() < PAGE_BYTES {
                (moments, come) = (moments - 1, waiting.0.len());
                std::thread::sleep(MOMENT);
                next = self.incoming.try_recv().ok();
            }
        }
        (waiting, None)
    }

    /// Puts a request into the block, or refuses it, or leaves it to the writer.
    fn take(&mut self, number: u64, request: Request, waiting: &mut Waiting) {
        // whoever asked may have given up
        if self.shared.has_no_space.load(Ordering::Relaxed) {
            let _ = request.reply.send(no_space("the disk of the ledger has no space"));
            return;
        }
        let promised = self.shared.kinds().promise(&request.brought.intakes, number);
        let before = self.block.len();
        if promised.is_ok() && self.write(&request.brought.intakes).is_some() {
            waiting.0.push(request);
            return;
        }
        self.block.truncate(before);
        let _ = request.reply.send(Outcome::ForWriter(request.brought));
    }

    fn write(&mut self, intakes: &[Intake]) -> Option<()> {
        intakes.iter().try_for_each(|intake| {
            let stamp = self.shared.stamps(intake.deltas.len());
            record::write(&mut self.block, &mut self.record, intake, stamp)
        })
    }

    fn append(&mut self, number: u64, began: Instant, waiting: Waiting) -> Result<(), Ended> {
        let journal = &self.shared.journal;
        if waiting.0.is_empty() {
            journal.give_up();
            return Ok(());
        }
        if !journal.wait_for_room() {
            waiting.answer(|_| Outcome::Refused(LedgerError::Closed));
            return Err(Ended);
        }
        let syncing = Instant::now();
        match self.files.append(journal, number, &mut self.block, began) {
            Ok(block) => {
                self.shared.counters.sync.took(syncing.elapsed());
                if journal.publish(block) {
                    let _ = self.writer.send(Command::Journaled); // it may have ended
                }
                waiting.answer(Outcome::Appended);
                Ok(())
            }
            Err(AppendError::Write(error)) if is_want_of_space(&error) => {
                self.shared.kinds().take_back(number);
                journal.give_up();
                self.refuse(waiting, &error);
                Ok(())
            }
            // It is there, and its number is used: it is merged like any other. But it is answered that it
            // is not, for if it went bad before it is merged nobody would notice.
            Err(AppendError::Note { block, source }) if is_want_of_space(&source) => {
                if journal.publish(block) {
                    let _ = self.writer.send(Command::Journaled); // it may have ended
                }
                self.refuse(waiting, &source);
                Ok(())
            }
            Err(error) => {
                let failure = WriterFailure::new("writing", error);
                self.shared.has_failed.store(true, Ordering::Relaxed);
                let _ = self.writer.send(Command::Failed(failure));
                waiting.answer(|_| Outcome::Refused(LedgerError::Closed));
                Err(Ended)
            }
        }
    }

    /// The disk has no space for what was taken.
    fn refuse(&self, waiting: Waiting, error: &io::Error) {
        self.shared.has_no_space.store(true, Ordering::Relaxed);
        let _ = self.writer.send(Command::Full(error.to_string())); // it may have ended
        waiting.answer(|_| no_space(&error.to_string()));
    }
}

fn no_space(cause: &str) -> Outcome {
    Outcome::Refused(LedgerError::Unavailable(cause.to_owned()))
}
