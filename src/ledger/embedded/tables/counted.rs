//! What there is of a destination, counted in memory: while rows are written later the tables do not say it.

use rusqlite::Connection;

use crate::ledger::DestinationView;
use crate::ledger::counts::Counts;
use crate::ledger::embedded::tables::members;
use crate::membership::{DestinationName, Timestamp};

/// The members of a destination.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    pub destination: DestinationName,
    pub counts: Counts,
    /// Since when the longest pending one has been.
    pub pending_since: Option<Timestamp>,
    /// Rows of audiences that have members of whom there may be no row.
    pub unwritten: Vec<i64>,
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
