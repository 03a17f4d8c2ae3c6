//! The state of the log shared by the writer and the append thread: which blocks are published and not
//! merged, and which file is in use.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::ledger::embedded::wal::layout::{Block, FILES};
use crate::ledger::embedded::wal::recovery::Found;

/// Appending pauses at this many unmerged bytes …
const MOST_BYTES: u64 = 256 << 20;
/// … or unmerged blocks: each has an entry in memory.
const MOST_BLOCKS: usize = 100_000;

/// The state of the log shared by the writer and the append thread.
#[derive(Debug)]
pub(crate) struct Log {
    state: Mutex<State>,
    /// Notified when blocks were merged, or none will be any more.
    merged: Condvar,
}

#[derive(Debug)]
struct State {
    /// Requests go through the log.
    is_used: bool,
    /// A request was taken and is not published yet.
    is_appending: bool,
    /// The writer has ended.
    is_closed: bool,
    turn: Turn,
    /// The number of the last block that was published, or merged if there is none.
    last: u64,
    /// The number of the last block that the writer has read.
    read: u64,
    /// Published and not merged, oldest first.
    blocks: VecDeque<Block>,
    bytes: u64,
}

/// Which file is in use.
#[derive(Debug)]
struct Turn {
    /// The file that is appended to.
    current: usize,
    /// Switch to the other file as soon as it is free, so that this one can be emptied.
    is_due: bool,
    /// Files that were emptied since the append thread last asked.
    emptied: [bool; FILES.len()],
}

/// Where the next block goes.
#[derive(Debug)]
pub(crate) struct NextBlock {
    pub current: usize,
    /// Start at offset 0: everything in the file is merged.
    pub begins_again: bool,
    /// Files that were emptied since this was last asked.
    pub emptied: [bool; FILES.len()],
}

impl Log {
    /// Starts with what was found on the disk behind the last merged block.
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

    /// Whether requests must go through the log, because earlier ones did.
    pub fn is_used(&self) -> bool {
        self.lock().is_used
    }

    /// Bytes of the blocks that are published and not merged.
    pub fn unmerged_bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// The number of the last block that was published, or merged if there is none.
    pub fn last(&self) -> u64 {
        self.lock().last
    }

    /// From here on requests go through the log.
    pub fn begin_to_append(&self) {
        let mut state = self.lock();
        (state.is_used, state.is_appending) = (true, true);
    }

    /// Publishes a block that was appended. `true`: the writer has read everything before it, and has to be
    /// woken.
    pub fn publish(&self, block: Block) -> bool {
        let mut state = self.lock();
        let is_first = state.read == state.last;
        state.is_appending = false;
        state.last = block.number;
        state.bytes += block.bytes;
        state.blocks.push_back(block);
        is_first
    }

    /// The request that was taken came to nothing.
    pub fn give_up(&self) {
        let mut state = self.lock();
        state.is_appending = false;
        state.rest();
    }

    /// Blocks until there is room for more. `false`: nothing will be merged any more.
    pub fn wait_for_room(&self) -> bool {
        let mut state = self.lock();
        while !state.is_closed && (state.bytes >= MOST_BYTES || state.blocks.len() >= MOST_BLOCKS) {
            state = self.merged.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !state.is_closed
    }

    /// The published blocks after `number`, until they add up to at least `bytes`.
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

    /// When the first block after `number` was begun, if known.
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

    /// The writer has read the blocks up to this number, and looks for more before it sleeps.
    pub fn has_read(&self, number: u64) {
        self.lock().read = number;
    }

    /// The blocks up to this number are in the tables, and the transaction is synced; returns how many bytes
    /// they had.
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

    /// Truncates a file that holds nothing unmerged. `false`: it holds something, or may soon; the append
    /// thread then switches to the other file as soon as it can.
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

    /// Where the next block goes: into the `current` file, unless that is too long or to be emptied and the
    /// other one is free.
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

    /// The writer has ended: wakes whoever waits for room.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.merged.notify_all();
    }
}

impl State {
    /// Lets requests go to the writer again once the log is empty.
    fn rest(&mut self) {
        self.is_used = self.is_appending || !self.blocks.is_empty();
    }

    /// How many of the blocks have at most this number.
    fn known_through(&self, number: u64) -> usize {
        self.blocks.partition_point(|block| block.number <= number)
    }

    /// Whether a file holds anything unmerged.
    fn holds(&self, file: usize) -> bool {
        self.blocks.iter().any(|block| block.file == file)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::time::Duration;
    use std::{fs, thread};

    use super::*;
    use crate::ledger::embedded::wal::block::Seal;

    fn block(number: u64, file: usize, bytes: u64) -> Block {
        Block { number, file, offset: 0, bytes, began: None }
    }

    fn log(blocks: Vec<Block>, merged: u64) -> Log {
        let last = blocks.last().map_or(merged, |last| last.number);
        let seal = Seal::of(b"a key");
        Log::new(&Found { blocks, last, contents: Vec::<(u64, ())>::new(), seal })
    }

    fn numbers(blocks: &[Block]) -> Vec<u64> {
        blocks.iter().map(|block| block.number).collect()
    }

    #[test]
    fn blocks_are_published_read_and_merged_in_order() {
        let log = log(Vec::new(), 7);
        assert_eq!((log.last(), log.merged_through(), log.unmerged_bytes()), (7, 7, 0));
        let began = Instant::now();
        assert!(log.publish(Block { began: Some(began), ..block(8, 0, 100) }), "wake the writer");
        assert!(!log.publish(block(9, 0, 50)), "it has not read the one before");
        assert_eq!((log.last(), log.merged_through(), log.unmerged_bytes()), (9, 7, 150));
        let rows: [(u64, u64, &[u64]); 6] = [
            (7, 0, &[]),
            (7, 1, &[8]),
            (7, 100, &[8]),
            (7, 101, &[8, 9]),
            (8, 999, &[9]),
            (9, 9, &[]),
        ];
        for (number, bytes, expected) in rows {
            let behind = log.behind(number, bytes);
            assert_eq!(numbers(&behind), expected, "{bytes} bytes behind {number}");
        }
        assert_eq!((log.first_behind(7), log.first_behind(8)), (Some(began), None));
        log.has_read(9);
        assert!(log.publish(block(10, 0, 7)));
        assert_eq!(log.merged(7), 0, "merged before");
        assert_eq!(log.merged(9), 150);
        assert_eq!((log.merged_through(), log.unmerged_bytes()), (9, 7));
        assert_eq!(log.merged(10), 7);
        assert_eq!((log.last(), log.merged_through(), log.unmerged_bytes()), (10, 10, 0));
    }

    /// Otherwise a request that is taken later would be recorded before an earlier one.
    #[test]
    fn requests_go_through_the_log_until_it_is_empty() {
        let log = log(Vec::new(), 0);
        assert!(!log.is_used());
        log.begin_to_append();
        assert!(log.is_used(), "one is on its way");
        log.give_up();
        assert!(!log.is_used());
        log.begin_to_append();
        log.publish(block(1, 0, 9));
        log.begin_to_append();
        log.merged(1);
        assert!(log.is_used(), "the next one is on its way");
        log.publish(block(2, 0, 9));
        log.begin_to_append();
        log.give_up();
        assert!(log.is_used(), "one is not merged");
        log.merged(2);
        assert!(!log.is_used());
        assert!(self::log(vec![block(5, 1, 9)], 4).is_used(), "found at the start");
    }

    #[test]
    fn appending_waits_at_either_bound_until_blocks_are_merged_or_none_will_be() {
        let many = |count: usize| -> Vec<Block> {
            (1..).take(count).map(|number| block(number, 0, 1)).collect()
        };
        let below = [many(MOST_BLOCKS - 1), vec![block(1, 0, MOST_BYTES - 1)]];
        let full = [many(MOST_BLOCKS), vec![block(1, 0, MOST_BYTES)]];
        // a thread that waits, and what it is told
        let wait = |blocks: &[Block]| {
            let log = Arc::new(log(blocks.to_vec(), 0));
            let (waited, has_room) = mpsc::channel();
            let waiting = Arc::clone(&log);
            thread::spawn(move || waited.send(waiting.wait_for_room()));
            (log, has_room)
        };
        let deadline = Duration::from_secs(10);
        for blocks in below {
            assert_eq!(wait(&blocks).1.recv_timeout(deadline), Ok(true));
        }
        for blocks in full {
            for is_merged in [true, false] {
                let (log, has_room) = wait(&blocks);
                let early = has_room.recv_timeout(Duration::from_millis(30));
                assert!(early.is_err(), "there is no room");
                if is_merged {
                    log.merged(1);
                } else {
                    log.close();
                }
                assert_eq!(has_room.recv_timeout(deadline), Ok(is_merged));
            }
        }
    }

    #[test]
    fn a_long_file_is_left_as_soon_as_the_other_one_is_free() {
        let (first, both) = (vec![block(1, 0, 9)], vec![block(1, 1, 9), block(2, 0, 9)]);
        // unmerged, is long, the file that follows 0, and whether it begins again
        let rows = [
            (Vec::new(), false, (0, true)),
            (Vec::new(), true, (0, true)), // everything in it is merged
            (first.clone(), false, (0, false)),
            (first, true, (1, true)),
            (both, true, (0, false)),
            (vec![block(1, 1, 9)], true, (0, true)),
        ];
        for (blocks, is_long, expected) in rows {
            let next = log(blocks.clone(), 0).turn(0, is_long);
            let case = format!("{blocks:?}, long: {is_long}");
            assert_eq!((next.current, next.begins_again), expected, "{case}");
        }
        let next = log(vec![block(1, 1, 9)], 0).turn(1, true);
        assert_eq!((next.current, next.begins_again), (0, true), "and back");
    }

    #[test]
    fn a_file_is_emptied_once_nothing_of_it_is_unmerged_and_nothing_may_be_soon() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = |which: usize| directory.path().join(FILES[which]);
        let bytes = |which| fs::metadata(path(which)).map_or(0, |of| of.len());
        fs::write(path(0), b"blocks").expect("there is space");
        let empty =
            |log: &Log, which| log.empty(directory.path(), which).expect("it can be written");

        let log = self::log(vec![block(1, 1, 9), block(2, 0, 9)], 0);
        assert!(!empty(&log, 1), "it holds a block");
        assert!(!log.turn(0, false).begins_again, "the other one goes on as before");
        assert!(!empty(&log, 0), "so does this one");
        assert_eq!(log.turn(0, false).current, 0, "the other one is not free");
        log.merged(1);
        let next = log.turn(0, false);
        assert_eq!((next.current, next.begins_again), (1, true), "to be left although it is short");
        assert_eq!(log.turn(1, false).current, 1, "once");
        log.merged(2);
        log.begin_to_append();
        assert!(!empty(&log, 1), "a block may come");
        log.publish(block(3, 0, 9)); // it went into the other file meanwhile
        log.merged(3);
        assert_eq!(bytes(0), 6);
        assert!(empty(&log, 0));
        assert_eq!(bytes(0), 0);
        assert_eq!(log.turn(0, false).emptied, [true, false]);
        assert_eq!(log.turn(0, false).emptied, [false, false], "said once");
        assert!(empty(&log, 1), "there is none");
        fs::create_dir(path(1)).expect("there is none");
        log.empty(directory.path(), 1).expect_err("what cannot be emptied is not said to be empty");
    }
}
