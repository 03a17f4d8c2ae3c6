//! What there is of each destination, counted in memory: while rows are written later the tables do not
//! say it, and nobody who only wants to know how many there are need wait for them.

use rusqlite::Connection;

use super::audience::Counts;
use super::database::Database;
use super::destinations::Destination;
use super::members;
use super::state::State;
use crate::ledger::DestinationView;
use crate::membership::{DestinationName, Timestamp};

/// The members of a destination.
#[derive(Clone, Debug)]
pub(super) struct Counted {
    destination: DestinationName,
    counts: Counts,
    /// Since when the longest pending one has been.
    pending_since: Option<Timestamp>,
    /// Rows of audiences that have members of whom there may be no row.
    unwritten: Vec<i64>,
}

/// Counts the members of every destination.
pub(super) fn count(state: &State, db: &Database) -> rusqlite::Result<Vec<Counted>> {
    let count = |(index, known): (usize, &Destination)| {
        let mut counted = Counted {
            destination: known.settings.name.clone(),
            counts: Counts::default(),
            pending_since: None,
            unwritten: Vec::new(),
        };
        for audience in state.audiences.list.iter().filter(|of| of.destination == index) {
            counted.counts += audience.counts;
            if state.unwritten.any(audience.row) {
                counted.unwritten.push(audience.row);
            }
            if audience.counts.pending > 0 {
                let has_rows = audience.written.pending > 0 || !state.unwritten.is_open;
                let since = state.unwritten.pending_since(db, audience.row, has_rows)?;
                counted.pending_since = counted.pending_since.into_iter().chain(since).min();
            }
        }
        Ok(counted)
    };
    state.audiences.destinations.iter().enumerate().map(count).collect()
}

impl Counted {
    /// Corrects what the tables say of the destination.
    pub fn correct(&self, db: &Connection, views: &mut [DestinationView]) -> rusqlite::Result<()> {
        let is_it = |view: &&mut DestinationView| view.name == self.destination.as_str();
        let Some(view) = views.iter_mut().find(is_it) else { return Ok(()) };
        let Counts { included, pending, parked } = self.counts;
        (view.included, view.pending, view.parked) = (included, pending, parked);
        view.pending_since = self.pending_since;
        for audience in &self.unwritten {
            view.audiences += u64::from(!members::any(db, *audience)?);
        }
        Ok(())
    }
}
