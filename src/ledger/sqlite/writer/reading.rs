//! Reading the journal back: when, and how much of it at once.
//!
//! What a courier can tell at once is read at once. While couriers have enough to do, the rest is left
//! where it is for a while: who is told before the row is written is written once.

use std::time::Duration;

use tokio::time::Instant;

use super::super::group::Group;
use super::super::state::State;
use super::rows::WRITE_TO_READ;
use super::{Writer, WriterFailure, failed};

/// Bytes of the journal that are worth a transaction of their own.
const WORTH_MERGING: u64 = 256 << 10;

/// While couriers are busy, what comes is left in the journal so long at most, and looked at so often.
const READ_AT_THE_LATEST: Duration = Duration::from_secs(5);
const READ_AGAIN: Duration = Duration::from_millis(5);

/// While rows are written beside the writer, it looks so often whether they are.
pub(super) const LOOK_BESIDE: Duration = Duration::from_millis(1);

impl Writer {
    /// How long what waits in the journal is left there; `None`: nothing does.
    pub(super) fn merge_in(&self) -> Option<Duration> {
        let unwritten = &self.state.unwritten;
        let now = Instant::now();
        let is_beside = self.beside.is_some();
        match self.shared.journal.unmerged_bytes() - self.read_bytes {
            0 if is_beside => Some(LOOK_BESIDE),
            0 if unwritten.is_empty() => None,
            0 if unwritten.is_full() || !self.served.is_empty() => Some(Duration::ZERO),
            0 if !self.readers.is_empty() => {
                let read_at = self.write_at.min(self.wrote_at + WRITE_TO_READ);
                Some(read_at.saturating_duration_since(now))
            }
            0 => Some(self.write_at.saturating_duration_since(now)),
            _ if unwritten.is_full() => Some(if is_beside { LOOK_BESIDE } else { Duration::ZERO }),
            _ if !self.served.is_empty() => Some(Duration::ZERO),
            _ if self.may_read_later() => Some(READ_AGAIN),
            ..WORTH_MERGING if self.held.is_empty() => {
                Some(self.merge_at.saturating_duration_since(now))
            }
            _ => Some(Duration::ZERO),
        }
    }

    /// Whether couriers are busy without what waits in the journal: read later it is written once.
    fn may_read_later(&self) -> bool {
        let now = Instant::now();
        self.held.iter().all(|(_, held)| held.has_only_readers())
            && self.read >= self.told_through
            && self.state.unwritten.is_ahead(now)
            && self.all_unread_are_being_told(now)
            && self
                .shared
                .journal
                .first_behind(self.read)
                .is_some_and(|began| now.saturating_duration_since(began) < READ_AT_THE_LATEST)
    }

    /// Whether everything that waits in the journal is of audiences that are told quickly: others do
    /// not wait for them ([P5](crate::design::P5)).
    fn all_unread_are_being_told(&self, now: Instant) -> bool {
        let State { audiences, unwritten, .. } = &self.state;
        let journal = self.shared.journal.lock();
        journal.kinds.unread().iter().all(|(destination, audience)| {
            let destination = audiences.destination(destination);
            let known = destination.and_then(|of| audiences.find(of, audience));
            known.is_some_and(|known| unwritten.is_being_told(audiences.list[known].row, now))
        })
    }

    /// Adds what waits in the journal to the group, a part of it if it is much: then whatever must not
    /// overtake it waits.
    pub(super) fn read_journal(&mut self, group: &mut Group) -> Result<(), WriterFailure> {
        group.merged = self.merged;
        let is_early = self.merge_in().is_some_and(|merge_in| !merge_in.is_zero());
        let may_be_told = self.read < self.told_through;
        if is_early && !group.follows_journal() && !may_be_told {
            return Ok(());
        }
        // After the verbs were taken: whatever they came after is in it.
        let last = self.shared.journal.last();
        // Without room for what they change, nothing is read until rows are written.
        let is_full = self.state.unwritten.is_full();
        let most = if is_full { 0 } else { self.shared.pace.most_read };
        let blocks = self.shared.journal.behind(self.read, most);
        let through = blocks.last().map_or(self.read, |block| block.number);
        if through < last {
            let held = group.hold(through < self.told_through);
            if !held.is_empty() {
                self.held.push_back((last, held));
            }
        }
        let free = self.held.partition_point(|(until, _)| *until <= through);
        self.held.drain(..free).for_each(|(_, held)| group.take_back(held));
        if blocks.is_empty() {
            return Ok(());
        }
        let (mut read, mut buffer) = (Vec::new(), Vec::new());
        for block in &blocks {
            let records = self.journal.read(block, &mut buffer);
            let mut records = records.map_err(failed("reading the journal"))?;
            let first = read.len();
            while let Some(record) =
                records.next(&mut self.record_before).map_err(failed("reading the journal"))?
            {
                read.push(record);
            }
            if let (Some(first), Some(began)) = (read.get(first), block.began) {
                self.state.waits.note(first.stamp, began);
            }
        }
        self.read_bytes += blocks.iter().map(|block| block.bytes).sum::<u64>();
        group.merge(read, through);
        Ok(())
    }
}
