//! Emptying the journal and SQLite's log into the tables: at the end, and a while after a deletion.

use tokio::time::Instant;

use super::super::erasure::{self, empty_log};
use super::super::group::Group;
use super::super::journal::FILES;
use super::super::reserve::is_full;
use super::super::state::State;
use super::rows::Rows;
use super::{Writer, WriterFailure, failed};
use crate::ledger::LedgerError;
use crate::membership::Timestamp;

/// What becomes of what stands in the logs at the end.
#[derive(Clone, Copy)]
pub(super) enum Logs {
    /// Nobody waits for the end: the next start reads them.
    Left,
    /// They are emptied into the tables, as far as they can be until then.
    Emptied { by: Option<Instant> },
}

impl Writer {
    /// Merges what is in the journal, and closes the ledger.
    pub(in super::super) fn merge_all(mut self) -> Result<(), WriterFailure> {
        self.merge_rest(None)?;
        if self.is_full {
            let full = LedgerError::Unavailable("its disk has no space".to_owned());
            return Err(WriterFailure::new("merging its journal", full));
        }
        self.shut(Logs::Emptied { by: None })
    }

    /// Merges what is left in the journal, until `by`, or until the disk is full.
    pub(super) fn merge_rest(&mut self, by: Option<Instant>) -> Result<(), WriterFailure> {
        self.only_merges = true;
        let last = self.shared.journal.last();
        while self.merged < last && !self.is_full && by.is_none_or(|by| Instant::now() < by) {
            let mut group = Group::default();
            self.merge_at = Instant::now();
            self.read_journal(&mut group)?;
            let is_last = group.merges.unwrap_or(self.read) == last;
            self.commit(group, if is_last { Rows::All } else { Rows::Due })?;
            self.database.wait(); // there is nothing else to do
        }
        Ok(())
    }

    /// Empties the logs if something was deleted a while ago.
    pub(super) fn erase_what_is_due(&mut self) -> Result<(), WriterFailure> {
        let State { erasure, rejected, unwritten, .. } = &mut self.state;
        if rejected.take_erased() {
            erasure.note();
        }
        if erasure.due().is_none_or(|due| due > Instant::now()) {
            return Ok(());
        }
        let is_to_be_written = !unwritten.is_empty() || self.beside.is_some();
        if erasure.left().is_none() && is_to_be_written && !self.has_put_off_erasing {
            // What was deleted may be among that: a pass ends within a second or two.
            self.has_put_off_erasing = true;
            erasure.again();
            return Ok(());
        }
        self.has_put_off_erasing = false;
        if erasure.begin() {
            self.checkpointer.copy_soon(); // so that little is left to be copied here
            return Ok(());
        }
        let Some(mut left) = erasure.left() else { return Ok(()) };
        left.files = erasure::empty_journal(&self.shared.journal, &self.directory, left.files);
        if left.log {
            let emptied = self.checkpointer.empty(&self.database);
            left.log = !emptied.map_err(failed("emptying its log"))?;
        }
        self.state.erasure.attempted(left);
        Ok(())
    }

    /// Closes the database; what is not in a call now is known not to be.
    pub(super) fn shut(mut self, logs: Logs) -> Result<(), WriterFailure> {
        self.database.wait();
        match self.end_beside() {
            Err(error) if !is_full(&error, &self.directory) => {
                return Err(failed("writing")(error));
            }
            _ => {} // the journal still has what there was no space for
        }
        let audiences = &mut self.state.audiences;
        let all_written = self.state.unwritten.is_empty();
        for index in (0..audiences.list.len()).filter(|_| all_written) {
            if audiences.list[index].claimed.is_empty() {
                audiences.list[index].claimed_through = Timestamp::EPOCH;
                match audiences.save(&self.database, index, true) {
                    // What is told once more for that is told in vain, and no more.
                    Err(error) if is_full(&error, &self.directory) => break,
                    saved => saved.map_err(failed("closing"))?,
                }
            }
        }
        self.checkpointer.stop();
        if let Logs::Emptied { by } = logs {
            empty_log(&self.database, &self.directory, by).map_err(failed("emptying its log"))?;
            erasure::empty_journal(&self.shared.journal, &self.directory, [true; FILES.len()]);
        }
        self.database.close().map_err(failed("closing"))?;
        drop(self.lock);
        Ok(())
    }
}
