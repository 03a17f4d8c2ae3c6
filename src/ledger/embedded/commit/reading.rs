//! Reading the log back: when, and how much at once.
//!
//! What couriers could tell at once is read at once. While they are busy with other members, the rest stays
//! in the log for a while: a member that is told before its row is written is written only once.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::ledger::embedded::commit::flushing::Flusher;
use crate::ledger::embedded::commit::group::{Group, WaitingForBlock};
use crate::ledger::embedded::engine::shared::Shared;
use crate::ledger::embedded::engine::state::State;
use crate::ledger::embedded::failure::failed;
use crate::ledger::embedded::opening::open::Found;
use crate::ledger::embedded::record::{Before, Records};
use crate::ledger::embedded::wal::Files;
use crate::ledger::embedded::watermarks::LogMarks;
use crate::ledger::error::WriterFailure;

/// Bytes of the log that are worth a transaction.
const WORTH_MERGING: u64 = 256 << 10;

/// While couriers are busy, a block stays unread for at most this long, and is reconsidered at this interval.
const READ_AT_THE_LATEST: Duration = Duration::from_secs(5);
const READ_AGAIN: Duration = Duration::from_millis(5);

/// While the flush thread writes, the writer polls it at this interval.
pub(crate) const POLL_FLUSH: Duration = Duration::from_millis(1);

/// Blocks that arrive within this time share a transaction if they are small: otherwise single events in
/// quick succession would each write the same pages again.
const MERGE_EVERY: Duration = Duration::from_millis(20);

/// Reads the log back, and holds the verbs that must not overtake it.
#[derive(Debug)]
pub(crate) struct LogReader {
    files: Files,
    before: Before,
    shared: Arc<Shared>,
    pub marks: LogMarks,
    /// Bytes of the blocks that are read and not merged.
    read_bytes: u64,
    /// When a small rest of the log is merged.
    merge_at: Instant,
    /// Verbs that wait until the block with this number is read.
    waiting: VecDeque<(u64, WaitingForBlock)>,
}

impl LogReader {
    /// Continues behind the block `merged`.
    pub fn new(directory: &Path, found: &Found, merged: u64, shared: Arc<Shared>) -> Self {
        Self {
            files: Files::new(directory, found),
            before: Before::default(),
            shared,
            marks: LogMarks::new(merged, found.last),
            read_bytes: 0,
            merge_at: Instant::now(),
            waiting: VecDeque::new(),
        }
    }

    /// How long the unread blocks may stay in the log; `None` if there is nothing to do.
    pub fn merge_in(&self, state: &State, flusher: &Flusher) -> Option<Duration> {
        let memtable = &state.members.memtable;
        let now = Instant::now();
        let is_flushing = flusher.is_writing();
        match self.shared.log.unmerged_bytes() - self.read_bytes {
            0 if is_flushing => Some(POLL_FLUSH),
            0 if memtable.is_empty() => None,
            0 if memtable.is_full() || flusher.serves() => Some(Duration::ZERO),
            0 => Some(flusher.next().saturating_duration_since(now)),
            _ if memtable.is_full() => Some(if is_flushing { POLL_FLUSH } else { Duration::ZERO }),
            _ if flusher.serves() => Some(Duration::ZERO),
            _ if self.may_read_later(state) => Some(READ_AGAIN),
            ..WORTH_MERGING if self.waiting.is_empty() => {
                Some(self.merge_at.saturating_duration_since(now))
            }
            _ => Some(Duration::ZERO),
        }
    }

    /// Whether couriers are busy without the unread blocks: read later, their members are written only once.
    fn may_read_later(&self, state: &State) -> bool {
        let now = Instant::now();
        self.waiting.iter().all(|(_, waiting)| waiting.has_only_readers())
            && self.marks.read >= self.marks.told_through
            && state.members.memtable.is_ahead(now)
            && self.all_unread_are_being_told(state, now)
            && self
                .shared
                .log
                .first_behind(self.marks.read)
                .is_some_and(|began| now.saturating_duration_since(began) < READ_AT_THE_LATEST)
    }

    /// Whether all unread blocks concern audiences that are being told quickly: audiences that wait for
    /// something else must not wait for them ([P5](crate::design::P5)).
    fn all_unread_are_being_told(&self, state: &State, now: Instant) -> bool {
        let State { audiences, members, .. } = state;
        self.shared.kinds().unread().iter().all(|(destination, audience)| {
            let destination = audiences.destination(destination);
            let known = destination.and_then(|of| audiences.find(of, audience));
            known.is_some_and(|known| members.memtable.is_being_told(audiences[known].row, now))
        })
    }

    /// Merges even a small rest with the next group.
    pub fn merge_now(&mut self) {
        self.merge_at = Instant::now();
    }

    /// A group that has read the log up to this block was applied.
    pub fn has_read(&mut self, block: u64) {
        self.marks.read = block;
        self.shared.has_read(block);
        self.merge_at = Instant::now() + MERGE_EVERY;
    }

    /// The blocks up to this one are in the tables, and the transaction is synced.
    pub fn is_merged(&mut self, through: u64) {
        if self.marks.merged < through {
            self.marks.merged = through;
            self.read_bytes -= self.shared.log.merged(through);
        }
    }

    /// The transaction was rolled back; the group had read up to block `through`.
    pub fn start_over(&mut self, through: Option<u64>) {
        self.marks.start_over(through.unwrap_or(self.marks.read));
        self.read_bytes = 0;
        self.shared.has_read(self.marks.read);
    }

    /// The ledger is closing: fails the verbs that wait for a block.
    pub fn fail_waiting(&mut self) {
        self.waiting.drain(..).for_each(|(_, waiting)| waiting.fail());
    }

    /// Adds unread blocks to the group, up to a limit. If some stay unread, the verbs that must not overtake
    /// them wait.
    pub fn read_into(
        &mut self,
        group: &mut Group,
        state: &mut State,
        flusher: &Flusher,
    ) -> Result<(), WriterFailure> {
        let LogMarks { read, merged, told_through, .. } = self.marks;
        group.merged = merged;
        let is_early = self.merge_in(state, flusher).is_some_and(|merge_in| !merge_in.is_zero());
        let may_be_told = read < told_through;
        if is_early && !group.follows_log() && !may_be_told {
            return Ok(());
        }
        // Asked after the commands were received: whatever was appended before them is covered.
        let last = self.shared.log.last();
        // A full memtable has no room for more changes: nothing is read until some are flushed.
        let is_full = state.members.memtable.is_full();
        let most = if is_full { 0 } else { self.shared.pace.most_read };
        let blocks = self.shared.log.behind(read, most);
        let through = blocks.last().map_or(read, |block| block.number);
        if through < last {
            let waiting = group.split_off_waiting(through < told_through);
            if !waiting.is_empty() {
                self.waiting.push_back((last, waiting));
            }
        }
        let free = self.waiting.partition_point(|(until, _)| *until <= through);
        self.waiting.drain(..free).for_each(|(_, waiting)| group.take_back(waiting));
        if blocks.is_empty() {
            return Ok(());
        }
        let (mut records, mut buffer) = (Vec::new(), Vec::new());
        for block in &blocks {
            let read = self.files.read(block, &mut buffer);
            let mut read = Records::of(read.map_err(failed("reading the journal"))?);
            let first = records.len();
            while let Some(record) =
                read.next(&mut self.before).map_err(failed("reading the journal"))?
            {
                records.push(record);
            }
            if let (Some(first), Some(began)) = (records.get(first), block.began) {
                state.stamps.note(first.stamp, began);
            }
        }
        self.read_bytes += blocks.iter().map(|block| block.bytes).sum::<u64>();
        group.merge(records, through);
        Ok(())
    }
}
