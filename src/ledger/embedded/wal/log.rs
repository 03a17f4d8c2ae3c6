//! The log as the writer and those who append both see it: what was published and is not merged, and whose turn
//! it is among the files.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::ledger::embedded::wal::layout::{Block, FILES};
use crate::ledger::embedded::wal::recovery::Found;

/// Bytes that wait to be merged from which nothing more is appended.
const MOST_BYTES: u64 = 256 << 20;
/// The same in blocks: each is known in memory.
const MOST_BLOCKS: usize = 100_000;

/// What the writer and those who append both see.
#[derive(Debug)]
pub(crate) struct Log {
    state: Mutex<State>,
    /// Something was merged, or nothing will be any more.
    merged: Condvar,
}

#[derive(Debug)]
struct State {
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

/// Where the next block goes.
#[derive(Debug)]
pub(crate) struct NextBlock {
    pub current: usize,
    /// At the start of the file: all that it holds is merged.
    pub begins_again: bool,
    /// Files that were emptied since this was last asked.
    pub emptied: [bool; FILES.len()],
}

impl Log {
    /// With what was found on the disk behind the last merged block.
    pub fn new<T>(found: &Found<T>) -> Self {
        let blocks: VecDeque<Block> = found.blocks.iter().copied().collect();
        let read = found.merged();
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
        };
        Self { state: Mutex::new(state), merged: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
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

    /// The number of the last block that is merged.
    pub fn merged_through(&self) -> u64 {
        let state = self.lock();
        state.blocks.front().map_or(state.last, |first| first.number - 1)
    }

    /// When the first block behind this number was begun, if that is known.
    pub fn first_behind(&self, number: u64) -> Option<Instant> {
        let state = self.lock();
        state.blocks.get(state.known_through(number))?.began
    }

    /// Whether the writer has read all that was published.
    #[cfg(test)]
    pub fn is_read(&self) -> bool {
        let state = self.lock();
        state.read >= state.last
    }

    /// The writer has read the blocks up to this number, and looks for more before it waits.
    pub fn has_read(&self, number: u64) {
        self.lock().read = number;
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

    /// Where the next block goes: into the `current` file, which may have become long, or into the other one.
    pub fn turn(&self, current: usize, is_long: bool) -> NextBlock {
        let mut state = self.lock();
        let emptied = std::mem::take(&mut state.turn.emptied);
        let (other, is_needed) = (1 - current, state.holds(current));
        if ((is_long && is_needed) || state.turn.is_due) && !state.holds(other) {
            (state.turn.current, state.turn.is_due) = (other, false);
            return NextBlock { current: other, begins_again: true, emptied };
        }
        NextBlock { current, begins_again: !is_needed, emptied }
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

    /// Whether a file holds anything that is not merged.
    fn holds(&self, file: usize) -> bool {
        self.blocks.iter().any(|block| block.file == file)
    }
}
