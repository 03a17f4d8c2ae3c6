//! The writer's state besides the tables: audiences, claims, stamps, and what is to be published.
//!
//! Every change of a member goes through [`State::put`], so that the member and the counts change together.
//! Couriers see it after the commit, by [`State::publish`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use rusqlite::Connection;
use tokio::time::Instant;

use crate::clock::Seldom;
use crate::ledger::counters::Tally;
use crate::ledger::counts::Counts;
use crate::ledger::embedded::engine::audiences::Audiences;
use crate::ledger::embedded::engine::erasure::Erasure;
use crate::ledger::embedded::engine::expiry::{Expiry, Sweeps};
use crate::ledger::embedded::engine::schedule::Schedule;
use crate::ledger::embedded::engine::shared::{Published, Shared};
use crate::ledger::embedded::engine::stamps::Stamps;
use crate::ledger::embedded::ids::{AudienceIndex, AudienceRowId, DestinationIndex};
use crate::ledger::embedded::members::Members;
use crate::ledger::embedded::memtable::Place;
use crate::ledger::embedded::opening::open::Found;
use crate::ledger::embedded::settings::Settings;
use crate::ledger::embedded::tables::database::Database;
use crate::ledger::embedded::tables::messages::Messages;
use crate::ledger::embedded::tables::open_error::OpenError;
use crate::ledger::embedded::tables::parked::Parked;
use crate::ledger::embedded::tables::persons::Persons;
use crate::ledger::embedded::tables::rejected::Rejected;
use crate::ledger::embedded::tables::walk::{Task, Walk};
use crate::ledger::member::{Member, Moment, Next};
use crate::membership::{ContextKey, DestinationName, Membership, Timestamp};

/// Outcomes of the deltas of a transaction, by the position of their destination.
pub(crate) type Tallies = BTreeMap<DestinationIndex, Tally>;

/// The writer's state besides the tables.
#[derive(Debug)]
pub(crate) struct State {
    pub audiences: Audiences,
    pub stamps: Stamps,
    pub persons: Persons,
    pub messages: Messages,
    pub rejected: Rejected,
    pub parked: Parked,
    pub schedule: Schedule,
    pub sweeps: Sweeps,
    pub erasure: Erasure,
    /// Rate limit of the log line about entries that a deletion left in place.
    outlived: Seldom,
    pub members: Members,
    pub shared: Arc<Shared>,
    /// Audiences whose backlog may have changed, to be published after the commit.
    pub(super) touched: BTreeSet<AudienceIndex>,
    /// Audiences whose row may have changed, to be written.
    pub unsaved: BTreeSet<AudienceIndex>,
    /// A batch was claimed beyond its audience's mark on the disk: commit before it is handed out.
    pub must_commit: bool,
    /// Destinations to publish: paused or resumed, or with an audience removed.
    pub(super) steered: BTreeSet<DestinationIndex>,
    /// Rows of dropped audiences that no longer have a member in flight.
    pub dropped: BTreeSet<AudienceRowId>,
    /// Audiences whose last member was erased.
    pub(super) emptied: BTreeSet<AudienceIndex>,
    /// Audiences of which members entered or left by events, to be judged when their group is recorded.
    pub(super) flipped: BTreeSet<AudienceIndex>,
}

impl State {
    /// Reads the stored state and publishes it; `also` are destinations that are not configured but have
    /// events in the log.
    pub fn open(
        db: &Connection,
        settings: Settings,
        also: &BTreeSet<DestinationName>,
        shared: Arc<Shared>,
    ) -> Result<Self, OpenError> {
        let stamp = shared.stamps(1);
        let audiences = Audiences::open(db, settings.destinations, also, stamp)?;
        let reassert_after = audiences.reassert_after();
        let mut state = Self {
            audiences,
            stamps: Stamps::new(),
            persons: Persons::open(db)?,
            messages: Messages::open(db)?,
            rejected: Rejected::open(db, settings.rejected)?,
            parked: Parked::new(settings.parked),
            erasure: Erasure::new(shared.pace.erase_after),
            outlived: Seldom::default(),
            schedule: Schedule::open(db, settings.tombstone_ttl, reassert_after)?,
            sweeps: Sweeps::new(),
            members: Members::new(shared.pace.most_dirty),
            shared,
            touched: BTreeSet::new(),
            unsaved: BTreeSet::new(),
            must_commit: false,
            steered: BTreeSet::new(),
            dropped: BTreeSet::new(),
            emptied: BTreeSet::new(),
            flipped: BTreeSet::new(),
        };
        state.show_destinations();
        state.publish();
        Ok(state)
    }

    /// Registers the context kinds that rows and unmerged blocks promise.
    pub fn promise_kinds(&self, found: &Found) {
        let mut kinds = self.shared.kinds();
        for audience in &self.audiences.list {
            let route = &audience.route;
            kinds.note(&route.destination, &route.audience, &route.context_kind, 0);
        }
        for (block, outlines) in &found.contents {
            for outline in outlines {
                for (audience, kind) in &outline.audiences {
                    kinds.note(&outline.destination, audience, kind, *block);
                }
            }
        }
    }

    /// How long the writer may sleep if no command arrives.
    pub fn idle_for(&self, now: Instant) -> Duration {
        let regular = self.schedule.idle_for(now);
        let sweep = match self.sweeps.due_in(self.shared.arrival()) {
            _ if self.audiences.has_new_expiry => Duration::ZERO,
            None => return regular,
            Some(due) => due,
        };
        regular.min(sweep.max(self.schedule.next_slice_in(now)))
    }

    /// A fresh stamp: now, and larger than every stamp before.
    pub fn stamp(&mut self) -> Timestamp {
        self.shared.stamps(1)
    }

    /// The largest stamp or arrival given out or recorded.
    pub fn latest(&self) -> Timestamp {
        self.shared.latest()
    }

    /// Notes a recorded arrival: the clock must never show less.
    pub fn note_arrival(&self, arrival: Timestamp) {
        self.shared.note_arrival(arrival);
    }

    /// What the rules need to know of an audience, with a fresh stamp.
    pub fn moment(&mut self, audience: AudienceIndex) -> Moment {
        let stamp = self.stamp();
        self.moment_at(audience, stamp)
    }

    /// Like [`State::moment`], with a stamp that was given out before.
    pub fn moment_at(&self, audience: AudienceIndex, stamp: Timestamp) -> Moment {
        let audience = &self.audiences[audience];
        let settings = &self.audiences[audience.destination].settings;
        Moment {
            stamp,
            told_counts_from: audience.told_counts_from,
            repeat_window: settings.repeat_window,
            unheard_through: audience.marks.unheard_through,
            expires_after: audience.expiry.as_ref().map(Expiry::after),
            snapshot_at: audience.snapshot_at,
        }
    }

    /// See [`Members::prefetch`].
    pub fn prefetch<'a>(&self, members: impl Iterator<Item = (AudienceIndex, &'a str)>) {
        let whose = |(index, key): (AudienceIndex, &'a str)| (self.audiences[index].whose(), key);
        self.members.prefetch(members.map(whose));
    }

    /// Where a member is; valid until the next flush.
    pub fn place(&self, audience: AudienceIndex, key: &str) -> Place {
        self.members.place(self.audiences[audience].row, key)
    }

    /// Loads a member, if the ledger knows it.
    pub fn load(
        &self,
        db: &Database,
        audience: AudienceIndex,
        at: (&str, Place),
    ) -> rusqlite::Result<Option<Member>> {
        self.members.get(db, self.audiences[audience].whose(), at)
    }

    /// Applies a rule to a member, if there is one; returns whether that changed it.
    pub fn apply(
        &mut self,
        db: &Database,
        audience: AudienceIndex,
        key: &ContextKey,
        rule: impl Fn(&Member, &Moment) -> Next,
    ) -> rusqlite::Result<bool> {
        let place = self.place(audience, key.as_str());
        let Some(before) = self.load(db, audience, (key.as_str(), place))? else {
            return Ok(false);
        };
        let next = rule(&before, &self.moment(audience));
        self.put(db, audience, (key, place), Some(&before), &next)?;
        Ok(next != Next::Same)
    }

    /// Stores what a rule decided and updates the counts; returns where the member is now.
    pub fn put(
        &mut self,
        db: &Database,
        audience: AudienceIndex,
        (key, place): (&ContextKey, Place),
        before: Option<&Member>,
        next: &Next,
    ) -> rusqlite::Result<Place> {
        let row = self.audiences[audience].row;
        let after = self.members.put(db, row, (key, place), before, next)?;
        if place.is_row() {
            self.audiences[audience].in_flight.changed(key);
        }
        if *next == Next::Delete {
            self.erasure.note();
            Parked::erase(db.connection()?, row, key.as_str())?;
        }
        if self.audiences[audience].guard.is_held() {
            self.audiences[audience].may_pass(key, next.or(before));
        }
        self.note(audience, after, before, next);
        Ok(after)
    }

    /// Updates counts and marks for a member that was stored.
    pub fn note(
        &mut self,
        audience: AudienceIndex,
        at: Place,
        before: Option<&Member>,
        next: &Next,
    ) {
        let was = before.is_some_and(|before| before.pending_since.is_some());
        let waits_since = next.or(before).and_then(|after| after.pending_since);
        let audience_state = &mut self.audiences[audience];
        if let Some(since) = waits_since.filter(|_| at.is_row()) {
            audience_state.marks.row_waits(since);
        }
        if before.is_none() && audience_state.is_new {
            self.members.note_newcomer(audience_state.row, at.hash);
        }
        audience_state.counts.change(Counts::of(before), Counts::of(next.or(before)));
        audience_state.turnover.change(before, next.or(before));
        if *next == Next::Delete && audience_state.counts == Counts::default() {
            audience_state.guard.empty();
            self.emptied.insert(audience);
            self.schedule.wake();
        }
        if let Some(expiry) = &mut audience_state.expiry
            && let Some(after) = next.or(before)
            && after.membership == Membership::In
        {
            expiry.entered(after.event_at);
            self.sweeps.by(expiry.next_sweep());
        }
        if let Some(since) = waits_since.filter(|_| !was) {
            audience_state.waiting_since.get_or_insert_with(Instant::now);
            // Its stamp may be from the log, and members with later stamps may have been claimed since.
            audience_state.marks.look_again_from(since);
        }
        self.touch(audience);
    }

    /// Updates the counters: the items that a transaction was about, and the outcomes of its deltas.
    pub fn count(&mut self, rows: usize, tallies: &Tallies) {
        if rows > 0 {
            self.shared.commit_rows.was(rows as u64);
        }
        for (destination, tally) in tallies {
            let name = &self.audiences[*destination].settings.name;
            self.shared.recordings.of(name).count(*tally);
            if tally.outlived > 0
                && let Some(entries) = self.outlived.more(tally.outlived)
            {
                tracing::warn!(
                    destination.name = %name,
                    entries,
                    "deletions did not undo entries, the latest in this destination, whose event \
                     time is ahead of their arrival: to remove a person all the same, use cohortd \
                     forget"
                );
            }
        }
    }

    /// A snapshot of the audience was recorded: what is older changes nobody from here on.
    pub fn note_snapshot(&mut self, audience: AudienceIndex, at: Timestamp) {
        let known = &mut self.audiences[audience].snapshot_at;
        if *known < at {
            *known = at;
            self.touch(audience);
        }
    }

    /// Starts a walk over all members of an audience.
    pub fn start_walk(&mut self, audience: AudienceIndex, task: Task) {
        let stamp = self.stamp();
        let state = &mut self.audiences[audience];
        let mut task = task;
        if task == Task::Resync {
            state.told_counts_from = stamp;
            // Whoever is to be taken back is told again in any case, and the others by every walk.
            let before = state.walk.take().map(|walk| walk.task);
            task = before.filter(|before| matches!(before, Task::Reenter { .. })).unwrap_or(task);
        }
        state.walk = Some(Walk::of(task, stamp, state.counts.included));
        self.touch(audience);
        self.schedule.wake();
    }

    /// The backlog and the row of this audience may have changed.
    pub fn touch(&mut self, audience: AudienceIndex) {
        self.touched.insert(audience);
        self.unsaved.insert(audience);
    }

    /// Pauses or resumes the delivery of a destination.
    pub fn pause(
        &mut self,
        db: &Database,
        destination: DestinationIndex,
        paused: bool,
    ) -> rusqlite::Result<()> {
        let stamp = self.stamp();
        let known = &mut self.audiences[destination];
        known.paused_at = paused.then(|| known.paused_at.unwrap_or(stamp));
        known.save(db.connection()?)?;
        self.steered.insert(destination);
        Ok(())
    }

    /// Publishes which destinations are configured.
    pub fn show_destinations(&mut self) {
        self.schedule.reassert_after(self.audiences.reassert_after());
        let mut published = self.shared.published();
        for destination in &self.audiences.destinations {
            let fresh = || Published {
                configured: true,
                backlog: BTreeMap::new(),
                held: BTreeMap::new(),
                paused_since: None,
                turnover: HashMap::new(),
                news: destination.news.subscribe(),
            };
            let of = published.entry(destination.settings.name.clone()).or_insert_with(fresh);
            of.configured = destination.configured;
        }
        drop(published);
        self.touch_all();
    }

    fn touch_all(&mut self) {
        self.touched.extend(self.audiences.indices());
        self.unsaved.extend(self.audiences.indices());
        self.steered.extend(self.audiences.destination_indices());
    }

    /// Publishes the backlogs after a commit, and wakes the couriers that have something to do.
    pub fn publish(&mut self) {
        if self.touched.is_empty() && self.steered.is_empty() {
            return;
        }
        let long_ago = self.stamps.long_ago();
        let mut wake = BTreeSet::new();
        let mut published = self.shared.published();
        for index in std::mem::take(&mut self.touched) {
            let Some(audience) = self.audiences.list.get_mut(index.0) else { continue };
            let Some(destination) = self.audiences.destinations.get(audience.destination.0) else {
                continue; // the position is free
            };
            let Some(of) = published.get_mut(&destination.settings.name) else { continue };
            if let Some(backlog) = audience.backlog(long_ago) {
                of.backlog.insert(index, backlog);
                wake.insert(audience.destination);
            } else {
                of.backlog.remove(&index);
            }
            match audience.held() {
                Some(held) => of.held.insert(index, held),
                None => of.held.remove(&index),
            };
            let turnover = std::mem::take(&mut audience.turnover);
            of.count(&audience.route.audience, turnover);
            self.shared.count_expired(&destination.settings.name, turnover);
        }
        for index in std::mem::take(&mut self.steered) {
            let destination = &self.audiences[index];
            let Some(of) = published.get_mut(&destination.settings.name) else { continue };
            of.paused_since = destination.paused_at;
            wake.insert(index);
        }
        drop(published);
        for destination in wake {
            self.audiences[destination].news.send_replace(());
        }
    }

    /// Reads everything again from the tables after a rollback; `is_lost`: reports that were only in memory
    /// are lost too.
    pub fn reload(&mut self, db: &Connection, is_lost: bool) -> rusqlite::Result<()> {
        self.members.memtable.forget();
        self.audiences.reload(db, is_lost)?;
        let routes = self.audiences.list.iter().map(|audience| &*audience.route);
        let merged = self.shared.log.merged_through();
        self.shared.kinds().start_over(routes, merged);
        self.dropped.clear();
        self.emptied.clear();
        self.rejected.reload(db)?;
        self.messages.reload(db)?;
        self.schedule.reload(db)?;
        // Positions may be stale: an audience may have been rolled back.
        self.touched.clear();
        self.unsaved.clear();
        self.must_commit = false;
        self.shared.published().values_mut().for_each(|of| {
            of.backlog.clear();
            of.held.clear();
        });
        self.flipped.clear();
        self.touch_all();
        Ok(())
    }
}
