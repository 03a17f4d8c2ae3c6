//! Every watermark of the ledger: a stamp or a block number through which something is so.
//!
//! | watermark | clock | moved by | what it proves | on disk |
//! | --- | --- | --- | --- | --- |
//! | [`ClaimMarks::claimed_through`] | stamps | a claim, and a flush ahead of claims | no member pending since later was claimed by this process | with the audience's row |
//! | [`ClaimMarks::marked_through`] | stamps | a commit | this much of `claimed_through` is on the disk: whoever is claimed behind it is not handed out | it says what is |
//! | [`ClaimMarks::unheard_through`] | stamps | a start, and a rollback that lost reports | a member pending since then or earlier may have been in a call that nobody heard of | with the audience's row |
//! | [`ClaimMarks::all_in_flight_through`] | stamps | a claim; back by whoever waits again | every member pending since then or earlier is in flight: the next claim looks behind it | no |
//! | [`ClaimMarks::rows_wait_through`] | stamps | whatever writes rows of members | no row says that its member is pending since later: the index of the pending need not be read behind it | no |
//! | [`LogMarks::read`] | blocks | a group that read the log | the members of the blocks up to it are in the memtable or in the tables | no |
//! | [`LogMarks::merged`] | blocks | a commit | the blocks up to it are in the tables: they are not read again | in the database |
//! | [`LogMarks::told_through`] | blocks | a start, and a rollback | what stands in the blocks up to it may have been told: until it is read nothing is claimed | no |
//! | [`FlushMarks::complete`] | blocks | the end of a flush | no member of the blocks up to it is dirty only because of them | no |
//! | [`FlushMarks::begun`] | blocks | the end of a flush | where the last flush began: what it left is written by the next one | no |
//!
//! Stamps are the ledger's own clock, which never runs backwards; blocks are numbered without gaps.

use crate::membership::Timestamp;

/// How far the claims of an audience have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClaimMarks {
    /// Persisted with the row: after a crash every member pending since then or earlier may have been in a call.
    pub claimed_through: Timestamp,
    /// What of that is on the disk.
    pub marked_through: Timestamp,
    /// Members that are marked beyond those that are claimed, so that not every claim needs a sync.
    pub ahead: usize,
    /// `claimed_through` of the processes before.
    pub unheard_through: Timestamp,
    /// Every member pending since then or earlier is in flight.
    pub all_in_flight_through: Timestamp,
    /// No row says that its member is pending since later than this.
    pub rows_wait_through: Timestamp,
}

impl ClaimMarks {
    /// Of an audience that has no member yet.
    pub const NONE: Self = Self {
        claimed_through: Timestamp::EPOCH,
        marked_through: Timestamp::EPOCH,
        ahead: 0,
        unheard_through: Timestamp::EPOCH,
        all_in_flight_through: Timestamp::EPOCH,
        rows_wait_through: Timestamp::EPOCH,
    };

    /// As a row says them; of the rows of its members nothing is known.
    pub fn stored(claimed_through: Timestamp, unheard_through: Timestamp) -> Self {
        let marked_through = claimed_through;
        let rows_wait_through = Timestamp(i64::MAX);
        Self { claimed_through, marked_through, unheard_through, rows_wait_through, ..Self::NONE }
    }

    /// Members pending since `since` or earlier are claimed. `true`: that must be on the disk before they are
    /// handed out.
    #[must_use]
    pub fn claim(&mut self, since: Timestamp) -> bool {
        self.claimed_through = self.claimed_through.max(since);
        self.marked_through < since
    }

    /// A row with this mark is on the disk.
    pub fn marked(&mut self, through: Timestamp) {
        self.marked_through = through;
    }

    /// A member pending since `since` is, or may be, in no batch: the next claim must see it.
    pub fn look_again_from(&mut self, since: Timestamp) {
        self.all_in_flight_through = self.all_in_flight_through.min(Timestamp(since.0 - 1));
    }

    /// Nothing is known of who is pending: the rows decide, all of them.
    pub fn look_at_all(&mut self) {
        self.rows_wait_through = Timestamp(i64::MAX);
        self.all_in_flight_through = Timestamp::EPOCH;
    }

    /// A row says that its member is pending since `since`.
    pub fn row_waits(&mut self, since: Timestamp) {
        self.rows_wait_through = self.rows_wait_through.max(since);
    }

    /// No row says that its member is pending.
    pub fn no_row_waits(&mut self) {
        self.rows_wait_through = Timestamp::EPOCH;
    }

    /// What was reported of calls so far may not have been heard.
    pub fn unheard(&mut self) {
        self.unheard_through = self.unheard_through.max(self.claimed_through);
    }

    /// Another process has claimed so far; this one has not yet.
    pub fn adopt(&mut self) {
        self.unheard();
        (self.claimed_through, self.marked_through) = (Timestamp::EPOCH, Timestamp::EPOCH);
    }
}

/// How far the writer has come in the log. Between what is merged and what is read lie the blocks whose members
/// are dirty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogMarks {
    /// The last block that was read.
    pub read: u64,
    /// The last block that is in the tables, and that is synced.
    pub merged: u64,
    /// Until this block is read nothing is claimed: whoever was told something newer must not be told what is
    /// older ([P3](crate::design::P3)).
    pub told_through: u64,
}

impl LogMarks {
    /// The blocks behind `merged` were found at the start, up to `last`.
    pub fn new(merged: u64, last: u64) -> Self {
        Self { read: merged, merged, told_through: last }
    }

    /// Nothing counts that was read and not merged: it is read again. Up to block `through` it may have been told.
    pub fn start_over(&mut self, through: u64) {
        self.told_through = self.told_through.max(through);
        self.read = self.merged;
    }
}

/// Which blocks of the log the flushes so far have made superfluous.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FlushMarks {
    /// What the blocks up to this one have changed is written, …
    pub complete: u64,
    /// … or was when the last flush began.
    pub begun: u64,
}

impl FlushMarks {
    /// A flush has ended that began when the blocks up to `through` were read. Whoever was left to it by the one
    /// before is written; `leaves`: it has left some to the next one itself.
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
