//! Counts members in memory, so that a caller who only wants numbers need not wait for a flush.

use crate::ledger::counts::Counts;
use crate::ledger::embedded::engine::state::State;
use crate::ledger::embedded::ids::DestinationIndex;
use crate::ledger::embedded::tables::counted::Counted;
use crate::ledger::embedded::tables::database::Database;

/// Counts the members of every destination.
pub(crate) fn count(state: &State, db: &Database) -> rusqlite::Result<Vec<Counted>> {
    let count = |index: DestinationIndex| {
        let known = &state.audiences[index];
        let mut counted = Counted {
            destination: known.settings.name.clone(),
            counts: Counts::default(),
            pending_since: None,
            dirty_audiences: Vec::new(),
        };
        for audience in state.audiences.list.iter().filter(|of| of.destination == index) {
            counted.counts += audience.counts;
            if state.members.memtable.any(audience.row) {
                counted.dirty_audiences.push(audience.row);
            }
            if audience.counts.pending > 0 {
                let rows_wait = audience.written.pending > 0;
                let since = state.members.pending_since(db, audience.row, rows_wait)?;
                counted.pending_since = counted.pending_since.into_iter().chain(since).min();
            }
        }
        Ok(counted)
    };
    state.audiences.destination_indices().map(count).collect()
}
