//! Every watermark of the ledger: a stamp or a block number up to which something holds.
//!
//! | watermark | clock | moved by | what it proves | on disk |
//! | --- | --- | --- | --- | --- |
//! | [`ClaimMarks::claimed_through`] | stamps | a claim, and a flush ahead of claims | no member pending since later was claimed by this process | with the audience's row |
//! | [`ClaimMarks::marked_through`] | stamps | a commit | this much of `claimed_through` is on the disk: a batch claimed beyond it is not handed out yet | it is what the disk says |
//! | [`ClaimMarks::unheard_through`] | stamps | a start, and a rollback that lost reports | a member pending since then or earlier may have been in a call whose answer was lost | with the audience's row |
//! | [`ClaimMarks::all_in_flight_through`] | stamps | a claim; moved back when a member waits again | every member pending since then or earlier is in flight: the next claim starts behind it | no |
//! | [`ClaimMarks::rows_wait_through`] | stamps | whatever writes rows of members | no row says that its member is pending since later: the index of pending members need not be read beyond it | no |
//! | `Guard::counted_through` | stamps | a delta of the log by which somebody enters or leaves | the audience's guard has counted those up to it: they are not counted again when the log is read again | with the audience's row |
//! | [`LogMarks::read`] | blocks | a group that read the log | the changes of the blocks up to it are in the memtable or in the tables | no |
//! | [`LogMarks::merged`] | blocks | a commit | the blocks up to it are in the tables: they are not read again | in the database |
//! | [`LogMarks::told_through`] | blocks | a start, and a rollback | changes in the blocks up to it may have been told: nothing is claimed until they are read | no |
//! | [`FlushMarks::complete`] | blocks | the end of a flush | every change of the blocks up to it has been written | no |
//! | [`FlushMarks::begun`] | blocks | the end of a flush | how far the log was read when the last flush began: the next flush completes that | no |
//!
//! Stamps are the ledger's own clock, which never runs backwards; blocks are numbered without gaps.

use crate::membership::Timestamp;

/// How far the claims of an audience have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClaimMarks {
    /// Claim high-water mark, persisted: after a crash every member pending since then or earlier may have
    /// been in a call.
    pub claimed_through: Timestamp,
    /// How much of `claimed_through` is on the disk.
    pub marked_through: Timestamp,
    /// How many members to mark beyond those claimed, so that not every claim needs a sync.
    pub ahead: usize,
    /// Claim high-water mark of earlier processes, or of calls whose reports were lost.
    pub unheard_through: Timestamp,
    /// Every member pending since then or earlier is in flight.
    pub all_in_flight_through: Timestamp,
    /// No row says that its member is pending since later than this.
    pub rows_wait_through: Timestamp,
}

impl ClaimMarks {
    /// Marks of an audience without members.
    pub const NONE: Self = Self {
        claimed_through: Timestamp::EPOCH,
        marked_through: Timestamp::EPOCH,
        ahead: 0,
        unheard_through: Timestamp::EPOCH,
        all_in_flight_through: Timestamp::EPOCH,
        rows_wait_through: Timestamp::EPOCH,
    };

    /// Marks as stored; what the members' rows say is not known yet.
    pub fn stored(claimed_through: Timestamp, unheard_through: Timestamp) -> Self {
        let marked_through = claimed_through;
        let rows_wait_through = Timestamp(i64::MAX);
        Self { claimed_through, marked_through, unheard_through, rows_wait_through, ..Self::NONE }
    }

    /// Members pending since `since` or earlier are claimed. `true`: commit the mark before they are handed
    /// out.
    #[must_use]
    pub fn claim(&mut self, since: Timestamp) -> bool {
        self.claimed_through = self.claimed_through.max(since);
        self.marked_through < since
    }

    /// A row with this mark is on the disk.
    pub fn marked(&mut self, through: Timestamp) {
        self.marked_through = through;
    }

    /// A member pending since `since` may not be in flight: the next claim must look at it.
    pub fn look_again_from(&mut self, since: Timestamp) {
        self.all_in_flight_through = self.all_in_flight_through.min(Timestamp(since.0 - 1));
    }

    /// Resets what is known of pending members: the next claim looks at all rows.
    pub fn look_at_all(&mut self) {
        self.rows_wait_through = Timestamp(i64::MAX);
        self.all_in_flight_through = Timestamp::EPOCH;
    }

    /// A row now says that its member is pending since `since`.
    pub fn row_waits(&mut self, since: Timestamp) {
        self.rows_wait_through = self.rows_wait_through.max(since);
    }

    /// No row says that its member is pending.
    pub fn no_row_waits(&mut self) {
        self.rows_wait_through = Timestamp::EPOCH;
    }

    /// Reports on calls so far may be lost.
    pub fn unheard(&mut self) {
        self.unheard_through = self.unheard_through.max(self.claimed_through);
    }

    /// The stored marks are from an earlier process; this one has claimed nothing yet.
    pub fn adopt(&mut self) {
        self.unheard();
        (self.claimed_through, self.marked_through) = (Timestamp::EPOCH, Timestamp::EPOCH);
    }
}

/// How far the writer has processed the log. The members of the blocks between `merged` and `read` are dirty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogMarks {
    /// The last block that was read.
    pub read: u64,
    /// The last block that is in the tables, in a synced transaction.
    pub merged: u64,
    /// Nothing is claimed until this block is read: a member that was told something newer must not be told
    /// something older ([P3](crate::design::P3)).
    pub told_through: u64,
}

impl LogMarks {
    /// At a start: the blocks from `merged` to `last` were found.
    pub fn new(merged: u64, last: u64) -> Self {
        Self { read: merged, merged, told_through: last }
    }

    /// After a rollback: reads again from `merged`. Changes up to block `through` may have been told.
    pub fn start_over(&mut self, through: u64) {
        self.told_through = self.told_through.max(through);
        self.read = self.merged;
    }
}

/// Which blocks of the log are no longer needed, thanks to the flushes so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FlushMarks {
    /// All changes of the blocks up to this one are written, …
    pub complete: u64,
    /// … and how far the log was read when the last flush began.
    pub begun: u64,
}

impl FlushMarks {
    /// A flush has ended that began when the log was read up to block `through`. It has written what the
    /// flush before had left; `leaves`: it has itself left members to the next one.
    pub fn flushed(&mut self, through: u64, leaves: bool) {
        self.complete = if leaves { self.begun } else { through };
        self.begun = through;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_beyond_the_mark_on_the_disk_waits_for_it() {
        let mut marks = ClaimMarks::stored(Timestamp(7), Timestamp(3));
        assert!(!marks.claim(Timestamp(7)), "a crash would show it");
        assert!(marks.claim(Timestamp(8)));
        marks.marked(marks.claimed_through);
        assert!(!marks.claim(Timestamp(8)));
        marks.adopt();
        assert_eq!(marks.unheard_through, Timestamp(8));
        assert!(marks.claim(Timestamp(1)), "of this process nothing is marked");
    }

    #[test]
    fn a_block_is_complete_when_a_flush_that_began_behind_it_has_left_nobody_of_it() {
        let mut marks = FlushMarks::default();
        marks.flushed(3, true);
        assert_eq!(marks.complete, 0, "who was left may be of these");
        marks.flushed(5, true);
        assert_eq!(marks.complete, 3, "they are written now, others are left");
        marks.flushed(8, false);
        assert_eq!(marks.complete, 8);
    }
}
