//! Counts of a destination from memory: while members are dirty the tables are not up to date.

use rusqlite::Connection;

use crate::ledger::DestinationView;
use crate::ledger::counts::Counts;
use crate::ledger::embedded::ids::AudienceRowId;
use crate::ledger::embedded::tables::members;
use crate::membership::{DestinationName, Timestamp};

/// The members of a destination, as counted in memory.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    pub destination: DestinationName,
    pub counts: Counts,
    /// Since when the oldest pending member has waited.
    pub pending_since: Option<Timestamp>,
    /// Rows of audiences with dirty members, which may have no row yet.
    pub dirty_audiences: Vec<AudienceRowId>,
}

impl Counted {
    /// Corrects what the tables say of the destination.
    pub fn correct(&self, db: &Connection, views: &mut [DestinationView]) -> rusqlite::Result<()> {
        let is_it = |view: &&mut DestinationView| view.name == self.destination.as_str();
        let Some(view) = views.iter_mut().find(is_it) else { return Ok(()) };
        let Counts { included, pending, parked } = self.counts;
        (view.included, view.pending, view.parked) = (included, pending, parked);
        view.pending_since = self.pending_since;
        for audience in &self.dirty_audiences {
            view.audiences += u64::from(!members::any(db, *audience)?);
        }
        Ok(())
    }
}
