//! The append thread: makes requests durable in the log while the writer is busy.
//!
//! It is a thread of its own so that no request waits for a merge. Requests that arrive together share one
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
use crate::ledger::embedded::wal::{AppendError, BLOCK_HEADER, Files};
use crate::ledger::embedded::{record, threads};
use crate::ledger::error::WriterFailure;
use crate::ledger::{Intake, LedgerError};

/// A block is closed at this size. Larger blocks are cheaper per byte, but their requests wait longer for the
/// answer.
const MOST_BYTES: usize = 4 << 20;

/// Under load a block would be closed with the first few of the requests that are on their way. So if the
/// previous block had at least this many requests, …
const MANY: usize = 4;
/// … a block smaller than a page waits a moment for more requests, …
const PAGE_BYTES: usize = 4096;
/// … and once more if more have come. Linux makes the sleep twice as long, to save power.
const MOMENT: Duration = Duration::from_micros(50);
const MOMENTS: usize = 2;

/// A message to the append thread.
#[derive(Debug)]
pub(crate) enum Incoming {
    Record(Request),
    Close(oneshot::Sender<()>),
}

/// A request to be appended. Two words, to keep the channel's first allocation small.
#[derive(Debug)]
pub(crate) struct Request {
    pub brought: Box<Brought>,
    pub reply: oneshot::Sender<Outcome>,
}

/// The contents of a request. They are handed back to the caller to be freed there: allocators are fastest
/// when the thread that allocated frees.
#[derive(Debug)]
pub(crate) struct Brought {
    pub intakes: Vec<Intake>,
    pub place: OwnedSemaphorePermit,
}

/// The outcome of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is on stable storage.
    Appended(Box<Brought>),
    /// Not appended: it goes to the writer, which knows whether an audience still has members of another
    /// kind, and has no limit on size.
    ForWriter(Box<Brought>),
    Refused(LedgerError),
}

/// Appends to the log until it is closed.
#[derive(Debug)]
pub(crate) struct Appender {
    files: Files,
    incoming: Receiver<Incoming>,
    writer: Sender<Command>,
    shared: Arc<Shared>,
    /// Buffers reused for each block and each record.
    block: Vec<u8>,
    record: Vec<u8>,
}

/// Requests of the current block.
#[derive(Default)]
struct Waiting(Vec<Request>);

impl Waiting {
    fn answer(self, outcome: impl Fn(Box<Brought>) -> Outcome) {
        for Request { brought, reply } in self.0 {
            let _ = reply.send(outcome(brought)); // the caller may have given up
        }
    }
}

/// Nothing can be appended any more.
struct Ended;

impl Appender {
    pub fn new(
        files: Files,
        incoming: Receiver<Incoming>,
        writer: Sender<Command>,
        shared: Arc<Shared>,
    ) -> Self {
        Self { files, incoming, writer, shared, block: Vec::new(), record: Vec::new() }
    }

    /// Starts the thread, which does [`Appender::run`].
    pub fn start(self) -> io::Result<()> {
        let (writer, shared) = (self.writer.clone(), Arc::clone(&self.shared));
        let failed = move |panicked: threads::Panicked| {
            shared.has_failed.store(true, Ordering::Relaxed);
            let _ = writer.send(Command::Failed(panicked.into())); // the writer may have ended
        };
        threads::start("journal", || self.run(), failed).map(|_| ())
    }

    /// Appends until the log is closed, every handle is dropped, or the ledger has failed.
    fn run(mut self) {
        let mut before = 0;
        while let Ok(first) = self.incoming.recv() {
            self.shared.log.begin_to_append();
            let (number, began) = (self.shared.log.last() + 1, Instant::now());
            if self.block.capacity() > 2 * MOST_BYTES {
                // left by an unusually large request
                (self.block, self.record) = (Vec::new(), Vec::new());
            }
            self.block.clear();
            self.block.resize(BLOCK_HEADER, 0);
            let (waiting, closed) = self.gather(first, number, before);
            before = waiting.0.len();
            let appended = self.append(number, began, waiting);
            if let Some(closed) = closed {
                drop(self);
                let _ = closed.send(()); // the caller may have given up
                return;
            }
            if appended.is_err() {
                return;
            }
        }
    }

    /// Fills the block from the queue, up to its maximum size; `before` is the number of requests in the
    /// previous block.
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

    /// Puts a request into the block, refuses it, or leaves it to the writer.
    fn take(&mut self, number: u64, request: Request, waiting: &mut Waiting) {
        // the caller may have given up
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
        let log = &self.shared.log;
        if waiting.0.is_empty() {
            log.give_up();
            return Ok(());
        }
        if !log.wait_for_room() {
            waiting.answer(|_| Outcome::Refused(LedgerError::Closed));
            return Err(Ended);
        }
        let syncing = Instant::now();
        match self.files.append(log, number, &mut self.block, began) {
            Ok(block) => {
                self.shared.sync.took(syncing.elapsed());
                if log.publish(block) {
                    let _ = self.writer.send(Command::Appended); // the writer may have ended
                }
                waiting.answer(Outcome::Appended);
                Ok(())
            }
            Err(AppendError::Write(error)) if is_want_of_space(&error) => {
                self.shared.kinds().take_back(number);
                log.give_up();
                self.refuse(waiting, &error);
                Ok(())
            }
            // The block is on the disk and its number is used, so it is merged like any other. The requests
            // are refused all the same: without the note, damage to the block before it is merged would go
            // unnoticed.
            Err(AppendError::Note { block, source }) if is_want_of_space(&source) => {
                if log.publish(block) {
                    let _ = self.writer.send(Command::Appended); // the writer may have ended
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

    /// Refuses the requests of a block that the disk has no space for.
    fn refuse(&self, waiting: Waiting, error: &io::Error) {
        self.shared.has_no_space.store(true, Ordering::Relaxed);
        let _ = self.writer.send(Command::Full(error.to_string())); // the writer may have ended
        waiting.answer(|_| no_space(&error.to_string()));
    }
}

fn no_space(cause: &str) -> Outcome {
    Outcome::Refused(LedgerError::Unavailable(cause.to_owned()))
}
