//! Audiences that go: those that were dropped, and those whose last member was erased. Their memory and their place
//! are free for others then.

use std::sync::Arc;

use rusqlite::Connection;

use crate::ledger::counts::Counts;
use crate::ledger::embedded::engine::audience::Audience;
use crate::ledger::embedded::engine::state::State;
use crate::ledger::embedded::ids::AudienceIndex;
use crate::ledger::embedded::tables::{audiences, dropped, members};

impl State {
    /// Drops an audience: its rows are erased a slice at a time, and LaunchDarkly is not told.
    pub fn drop_audience(
        &mut self,
        db: &Connection,
        audience: AudienceIndex,
    ) -> rusqlite::Result<()> {
        dropped::detach(db, self.audiences[audience].row)?;
        if self.audiences[audience].in_flight.is_empty() {
            self.free_with_turnover(audience);
        } else {
            self.audiences.start_over(db, audience)?;
            self.touch(audience);
        }
        self.schedule.wake();
        Ok(())
    }

    /// See [`State::free`]; nobody is to hear how many left it.
    fn free_with_turnover(&mut self, index: AudienceIndex) {
        let route = Arc::clone(&self.audiences[index].route);
        self.free(index);
        if let Some(of) = self.shared.published().get_mut(&route.destination) {
            of.turnover.remove(&route.audience);
        }
    }

    /// Frees the memory and the place of an audience that has no row any more.
    fn free(&mut self, index: AudienceIndex) {
        let Audience { destination, route, turnover, .. } = self.audiences.remove(index);
        let merged = self.shared.log.merged_through();
        self.shared.kinds().forget(&route, merged);
        self.touched.remove(&index);
        self.unsaved.remove(&index);
        self.emptied.remove(&index);
        if let Some(of) = self.shared.published().get_mut(&route.destination) {
            of.backlog.remove(&index);
            of.held.remove(&index);
            of.count(&route.audience, turnover);
            self.shared.count_expired(&route.destination, turnover);
        }
        self.steered.insert(destination); // wakes its courier
    }

    /// Frees the dropped audiences whose members were in flight then, once no call is out.
    pub fn free_dropped(&mut self, db: &Connection) -> rusqlite::Result<()> {
        for row in std::mem::take(&mut self.dropped) {
            let Some(index) = self.audiences.of_row(row) else { continue };
            let audience = &self.audiences[index];
            if audience.is_dropped && audience.in_flight.is_empty() {
                audiences::erase(db, row)?;
                self.free_with_turnover(index);
            }
        }
        Ok(())
    }

    /// Frees the audiences whose last member was erased, once no task and no call is about them. `true`: one is
    /// still to be freed.
    pub fn free_emptied(&mut self, db: &Connection) -> rusqlite::Result<bool> {
        for index in std::mem::take(&mut self.emptied) {
            let audience = &self.audiences[index];
            if audience.is_dropped || audience.counts != Counts::default() {
                continue;
            }
            if audience.walk.is_some() || !audience.in_flight.is_empty() {
                self.emptied.insert(index);
            } else if !members::any(db, audience.row)? {
                audiences::erase(db, audience.row)?;
                self.free(index);
            }
        }
        Ok(!self.emptied.is_empty())
    }
}
