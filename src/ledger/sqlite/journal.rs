//! The journal: where requests are made durable while the writer is busy.
//!
//! While the writer keeps up, a request is a part of its next transaction. When it does not, the
//! request is appended here, synced together with whatever else waits, and answered; the writer reads
//! it back as soon as it can, and writes the members that it has changed in large groups, sorted by
//! member (`super::unwritten`): then it is merged. Why: [`decisions`](crate::design::decisions::journal).
//!
//! # What always holds
//! * What is appended is on stable storage when it is published, and is erased only when the
//!   transaction that holds it is ([P1](crate::design::P1), tests/it/faults.rs and `tests::journaled`).
//! * What comes after something that is not merged yet goes through the journal too, or waits until
//!   it is merged: nothing overtakes ([P2](crate::design::P2)).
//! * It is bounded: when it is full, requests wait, and are refused in time ([P6](crate::design::P6)).
//! * Merging the same block twice ends as merging it once: a block carries the stamps of its deltas.
//!
//! # On the disk
//! Two files that take turns, each begun again at its start when all of it is merged. A *block* is what
//! was synced at once: a [`header`](block) and records. Blocks are numbered without gaps; the number
//! of the last one that is merged stands in the database, and is written with what it merged. Each says
//! of which version its format is (`block`).

mod block;
mod files;
mod kinds;
mod record;

pub(super) use block::{HEADER as BLOCK_HEADER, Seal, VERSION};
pub(super) use files::{
    ANSWERED, AppendError, FILES, Files, Found, ScanError, answered, exist, scan,
};
pub(super) use kinds::Kinds;
pub(super) use record::{Before as RecordBefore, Record, write};

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::ledger::Route;

/// Bytes that wait to be merged from which nothing more is appended.
const MOST_BYTES: u64 = 256 << 20;
/// The same in blocks: each is known in memory.
const MOST_BLOCKS: usize = 100_000;

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Its number.
    pub number: u64,
    /// Which of the files.
    pub file: usize,
    /// Of its header.
    pub offset: u64,
    /// Of header and records.
    pub bytes: u64,
    /// Before its first stamp was given out; `None`: by a daemon of before.
    pub began: Option<Instant>,
}

/// What the writer and those who append both see.
#[derive(Debug)]
pub(super) struct Journal {
    state: Mutex<State>,
    /// Something was merged, or nothing will be any more.
    merged: Condvar,
}

#[derive(Debug)]
pub(super) struct State {
    /// Requests go through the journal.
    is_used: bool,
    /// A request was taken to be appended and is not published yet.
    is_appending: bool,
    /// The writer has ended.
    is_closed: bool,
    turn: Turn,
    /// The number of the last block that was published, or merged.
    last: u64,
    /// The number of the last block that the writer has read.
    read: u64,
    /// Published and not merged, oldest first.
    blocks: VecDeque<Block>,
    bytes: u64,
    pub kinds: Kinds,
}

/// Whose turn it is among the files.
#[derive(Debug)]
struct Turn {
    /// Which of them is appended to.
    current: usize,
    /// The other one is to be taken as soon as it is free, so that this one can be emptied.
    is_due: bool,
    /// Those that were emptied since whoever appends has looked.
    emptied: [bool; FILES.len()],
}

impl Journal {
    /// With what was found on the disk behind the last merged block, of destinations that may have so many
    /// audiences each.
    pub fn new(found: &Found, max_audiences: usize) -> Self {
        let blocks: VecDeque<Block> = found.blocks.iter().copied().collect();
        let read = blocks.front().map_or(found.last, |first| first.number - 1);
        let mut kinds = Kinds::new(max_audiences);
        kinds.has_read(read);
        let state = State {
            is_used: !blocks.is_empty(),
            is_appending: false,
            is_closed: false,
            turn: Turn {
                current: blocks.back().map_or(0, |last| last.file),
                is_due: false,
                emptied: [false; FILES.len()],
            },
            last: found.last,
            read,
            bytes: blocks.iter().map(|block| block.bytes).sum(),
            blocks,
            kinds,
        };
        Self { state: Mutex::new(state), merged: Condvar::new() }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request must go through the journal, because others have.
    pub fn is_used(&self) -> bool {
        self.lock().is_used
    }

    /// Bytes of what was published and is not merged.
    pub fn unmerged_bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// The number of the last block that was published, or merged.
    pub fn last(&self) -> u64 {
        self.lock().last
    }

    /// From here on requests go through the journal.
    pub fn begin_to_append(&self) {
        let mut state = self.lock();
        (state.is_used, state.is_appending) = (true, true);
    }

    /// What was taken has been appended as this block. `true`: the writer does not know yet that
    /// there is something to read.
    pub fn publish(&self, block: Block) -> bool {
        let mut state = self.lock();
        let is_first = state.read == state.last;
        state.is_appending = false;
        state.last = block.number;
        state.bytes += block.bytes;
        state.blocks.push_back(block);
        is_first
    }

    /// Nothing came of what was taken.
    pub fn give_up(&self) {
        let mut state = self.lock();
        state.is_appending = false;
        state.rest();
    }

    /// Waits until there is room for more. `false`: nothing will be merged any more.
    pub fn wait_for_room(&self) -> bool {
        let mut state = self.lock();
        while !state.is_closed && (state.bytes >= MOST_BYTES || state.blocks.len() >= MOST_BLOCKS) {
            state = self.merged.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.is_closed
    }

    /// The published blocks behind this number, until they are so many bytes.
    pub fn behind(&self, number: u64, bytes: u64) -> Vec<Block> {
        let state = self.lock();
        let mut left = bytes;
        let unread = state.blocks.range(state.known_through(number)..);
        let taken = unread.take_while(|block| {
            let is_taken = left > 0;
            left = left.saturating_sub(block.bytes);
            is_taken
        });
        taken.copied().collect()
    }

    /// When the first block behind this number was begun, if that is known.
    pub fn first_behind(&self, number: u64) -> Option<Instant> {
        let state = self.lock();
        state.blocks.get(state.known_through(number))?.began
    }

    /// The writer has read the blocks up to this number, and looks for more before it waits.
    pub fn has_read(&self, number: u64) {
        let mut state = self.lock();
        state.read = number;
        state.kinds.has_read(number);
    }

    /// What is in the blocks up to this number is in the tables, and the transaction is synced; their
    /// bytes.
    pub fn merged(&self, number: u64) -> u64 {
        let mut state = self.lock();
        let merged = state.known_through(number);
        let bytes: u64 = state.blocks.drain(..merged).map(|block| block.bytes).sum();
        state.bytes -= bytes;
        state.rest();
        drop(state);
        self.merged.notify_all();
        bytes
    }

    /// Empties a file in which nothing is that is not merged. `false`: there is, or may soon be; then
    /// those who append take the other file as soon as they can.
    pub fn empty(&self, directory: &Path, which: usize) -> io::Result<bool> {
        let mut state = self.lock();
        let is_current = state.turn.current == which;
        if state.holds(which) || (is_current && state.is_appending) {
            state.turn.is_due |= is_current;
            return Ok(false);
        }
        let file = match File::options().write(true).open(directory.join(FILES[which])) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            file => file?,
        };
        file.set_len(0)?;
        state.turn.emptied[which] = true;
        drop(state);
        file.sync_all()?;
        Ok(true)
    }

    /// The writer has ended: nobody need wait for it.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.merged.notify_all();
    }
}

impl State {
    /// Requests go to the writer again once nothing is left that they could overtake.
    fn rest(&mut self) {
        self.is_used = self.is_appending || !self.blocks.is_empty();
    }

    /// How many of the blocks have this number or a smaller one.
    fn known_through(&self, number: u64) -> usize {
        self.blocks.partition_point(|block| block.number <= number)
    }

    /// What rows say of audiences was rolled back; these are left.
    pub fn start_over<'a>(&mut self, routes: impl Iterator<Item = &'a Route>) {
        let merged = self.merged_through();
        self.kinds.start_over(routes, merged);
    }

    /// An audience has no row any more.
    pub fn forget(&mut self, route: &Route) {
        let merged = self.merged_through();
        self.kinds.forget(route, merged);
    }

    fn merged_through(&self) -> u64 {
        self.blocks.front().map_or(self.last, |first| first.number - 1)
    }

    /// Whether a file holds anything that is not merged.
    pub fn holds(&self, file: usize) -> bool {
        self.blocks.iter().any(|block| block.file == file)
    }
}
