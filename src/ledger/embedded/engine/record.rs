//! Recording requests: deltas first and sorted, then rejected events; requests with deletions item by item.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use crate::ledger::counters::Tally;
use crate::ledger::embedded::engine::audience::Audience;
use crate::ledger::embedded::engine::state::{State, Tallies};
use crate::ledger::embedded::ids::{AudienceIndex, AudienceRowId};
use crate::ledger::embedded::memtable::AT_ONCE;
use crate::ledger::embedded::tables::database::Database;
use crate::ledger::member::{self, Member, Moment, Next};
use crate::ledger::{Intake, Origin, Recorded, Unrecorded};
use crate::membership::{MembershipDelta, Timestamp};

/// The intakes of one request with their outcomes; or of several requests read from the log.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    pub intakes: Vec<Intake>,
    /// The outcome of each intake.
    pub recorded: Vec<Recorded>,
    /// For each intake, the stamp of its first delta, if one was given out when it was appended.
    pub stamps: Vec<Option<Timestamp>>,
}

impl Recording {
    /// A request that came to the writer directly.
    pub fn of(intakes: Vec<Intake>) -> Self {
        let (recorded, stamps) =
            (vec![Recorded::default(); intakes.len()], vec![None; intakes.len()]);
        Self { intakes, recorded, stamps }
    }

    /// Reserves capacity for `more` intakes.
    pub fn reserve_exact(&mut self, more: usize) {
        self.intakes.reserve_exact(more);
        self.recorded.reserve_exact(more);
        self.stamps.reserve_exact(more);
    }

    /// Adds an intake that was read from the log; `stamp` is that of its first delta.
    pub fn add_appended(&mut self, intake: Intake, stamp: Timestamp) {
        self.intakes.push(intake);
        self.recorded.push(Recorded::default());
        self.stamps.push(Some(stamp));
    }

    pub fn items(&self) -> usize {
        self.intakes.iter().map(Intake::items).sum()
    }

    pub fn deletes(&self) -> bool {
        self.intakes.iter().any(|intake| !intake.deletions.is_empty())
    }

    /// Whether it reads or writes rows other than those of its deltas' members.
    pub fn needs_rows(&self) -> bool {
        self.intakes.iter().any(|intake| {
            !intake.deletions.is_empty()
                || !intake.rejected.is_empty()
                || intake.deltas.iter().any(|delta| delta.message.is_some_and(|of| of.moves))
        })
    }
}

/// A delta and its audience.
struct Arrival<'a> {
    row: AudienceRowId,
    audience: AudienceIndex,
    delta: &'a MembershipDelta,
    origin: Origin,
    /// The stamp that it was given when it was appended.
    stamp: Option<Timestamp>,
    /// As of when a snapshot that came before it was: one that comes later in the group does not count.
    snapshot_at: Timestamp,
}

/// A range of the deltas of one intake.
struct Part {
    intake: usize,
    deltas: Range<usize>,
}

impl Arrival<'_> {
    fn member(&self) -> (AudienceRowId, &str) {
        (self.row, self.delta.context_key.as_str())
    }
}

/// Records these requests in order: what comes before a deletion is applied before it, and the rest after it.
/// Blocks up to `settled_through` no longer promise kinds beyond those that rows have.
pub(crate) fn record(
    state: &mut State,
    db: &Database,
    requests: &mut [&mut Recording],
    settled_through: u64,
    tallies: &mut Tallies,
) -> rusqlite::Result<()> {
    for run in requests.chunk_by_mut(|one, next| !one.deletes() && !next.deletes()) {
        if run.iter().any(|request| request.deletes()) {
            record_in_order(state, db, run, settled_through, tallies)?;
        } else {
            record_together(state, db, run, settled_through, tallies)?;
        }
    }
    state.judge(db)
}

/// Records requests without deletions: all deltas together, then the rejected events.
fn record_together(
    state: &mut State,
    db: &Database,
    requests: &mut [&mut Recording],
    settled_through: u64,
    tallies: &mut Tallies,
) -> rusqlite::Result<()> {
    record_deltas(state, db, requests, None, (settled_through, tallies))?;
    for intake in requests.iter().flat_map(|request| &request.intakes) {
        state.note_arrival(intake.arrival);
        let Some(destination) = state.audiences.destination(&intake.destination) else {
            continue;
        };
        for event in &intake.rejected {
            state.keep_rejected(db, destination, intake.arrival, event)?;
        }
    }
    Ok(())
}

/// Records one request with deletions, in the order of its items.
fn record_in_order(
    state: &mut State,
    db: &Database,
    requests: &mut [&mut Recording],
    settled_through: u64,
    tallies: &mut Tallies,
) -> rusqlite::Result<()> {
    let [request] = requests else { unreachable!("a request that deletes comes alone") };
    for index in 0..request.intakes.len() {
        let intake = &request.intakes[index];
        let (arrival, deletions) = (intake.arrival, intake.deletions.clone());
        let all = (intake.deltas.len(), intake.rejected.len());
        state.note_arrival(arrival);
        let Some(destination) = state.audiences.destination(&intake.destination) else {
            continue;
        };
        let (mut deltas, mut rejected) = (0, 0);
        let ends = deletions.iter().map(|of| (of.after_deltas, of.after_rejected, Some(of)));
        for (to, rejected_to, deletion) in ends.chain([(all.0, all.1, None)]) {
            let to = to.clamp(deltas, all.0);
            if deltas < to {
                let part = Part { intake: index, deltas: deltas..to };
                let one = &mut [&mut **request];
                record_deltas(state, db, one, Some(&part), (settled_through, tallies))?;
            }
            let rejected_to = rejected_to.clamp(rejected, all.1);
            for event in &request.intakes[index].rejected[rejected..rejected_to] {
                state.keep_rejected(db, destination, arrival, event)?;
            }
            (deltas, rejected) = (to, rejected_to);
            if let Some(deletion) = deletion {
                let outlived = state.forget(db, destination, deletion, arrival)?;
                tallies.entry(destination).or_default().outlived += outlived;
            }
        }
    }
    Ok(())
}

/// Records the deltas of these requests, or only a part of one.
fn record_deltas(
    state: &mut State,
    db: &Database,
    requests: &mut [&mut Recording],
    part: Option<&Part>,
    (settled_through, tallies): (u64, &mut Tallies),
) -> rusqlite::Result<()> {
    let count = requests.iter().flat_map(|of| &of.intakes).map(|intake| intake.deltas.len()).sum();
    let mut writes: Vec<Arrival<'_>> = Vec::with_capacity(count);
    let mut arriving = BTreeSet::new();
    let shared = Arc::clone(&state.shared);
    let kinds = (&*shared, settled_through);
    for request in requests {
        let Recording { intakes, recorded, stamps } = &mut **request;
        for (index, ((intake, recorded), first)) in
            intakes.iter_mut().zip(recorded).zip(stamps).enumerate()
        {
            if part.is_some_and(|part| part.intake != index) {
                continue;
            }
            let Some(destination) = state.audiences.destination(&intake.destination) else {
                continue;
            };
            let stamps = first.map_or(0, |first| first.0)..;
            let range = part.map_or(0..intake.deltas.len(), |part| part.deltas.clone());
            if intake.deltas[range.clone()].iter().any(|delta| delta.message.is_some()) {
                state.date_messages(db, destination, &mut intake.deltas[range.clone()])?;
            }
            let mut last: Option<(&MembershipDelta, AudienceIndex)> = None;
            let deltas = intake.deltas.iter().enumerate().zip(stamps);
            for ((position, delta), stamp) in deltas.take(range.end).skip(range.start) {
                let stamp = first.is_some().then_some(Timestamp(stamp));
                let resolved = match last {
                    Some((before, audience)) if goes_where(before, delta) => Ok(audience),
                    _ => {
                        if state.audiences.has_other_kind(destination, delta) {
                            state.write_members(db)?; // to know whether the audience has members
                        }
                        state.audiences.resolve(db, destination, delta, &arriving, kinds)?
                    }
                };
                match resolved {
                    Ok(audience) => {
                        if intake.origin == Origin::Snapshot {
                            state.note_snapshot(audience, delta.event_at);
                        }
                        let Audience { row, snapshot_at, .. } = state.audiences[audience];
                        if last.is_none_or(|(_, before)| before != audience) {
                            arriving.insert(audience);
                        }
                        last = Some((delta, audience));
                        let origin = intake.origin;
                        writes.push(Arrival { row, audience, delta, origin, stamp, snapshot_at });
                    }
                    Err(Unrecorded::OtherKind) => recorded.kind_conflicts.push(position),
                    Err(Unrecorded::TooManyAudiences) => recorded.without_place.push(position),
                }
            }
        }
    }
    // New members are not looked up in the tables, and a flush sorts them later anyway.
    let is_new = |arrival: &Arrival<'_>| state.audiences[arrival.audience].is_new;
    if !state.members.is_buffering() || !writes.iter().all(is_new) {
        // A stable sort: of two deltas for one member, the later arrival stays the later.
        writes.sort_by(|a, b| a.member().cmp(&b.member()));
    }
    let members: Vec<_> = writes.chunk_by(|a, b| a.member() == b.member()).collect();
    for some in members.chunks(AT_ONCE) {
        state.prefetch(some.iter().map(|of| (of[0].audience, of[0].delta.context_key.as_str())));
        for arrivals in some {
            let Arrival { audience, delta, .. } = arrivals[0];
            let key = &delta.context_key;
            let place = state.place(audience, key.as_str());
            let destination = state.audiences[audience].destination;
            let tally = tallies.entry(destination).or_default();
            let before = state.load(db, audience, (key.as_str(), place))?;
            let after = outcome(state, db, arrivals, before.as_ref(), tally)?;
            if let Some(after) = after {
                state.put(db, audience, (key, place), before.as_ref(), &Next::Write(after))?;
            }
        }
    }
    Ok(())
}

/// Whether two deltas have the same audience with the same key and kind.
fn goes_where(before: &MembershipDelta, delta: &MembershipDelta) -> bool {
    before.audience == delta.audience
        && before.audience_key == delta.audience_key
        && before.context_kind == delta.context_kind
}

/// What these deltas of one member make of it; `None` if it stays as it was.
fn outcome(
    state: &mut State,
    db: &Database,
    arrivals: &[Arrival<'_>],
    before: Option<&Member>,
    tally: &mut Tally,
) -> rusqlite::Result<Option<Member>> {
    let mut after: Option<Member> = None;
    for Arrival { audience, delta, origin, stamp, snapshot_at, .. } in arrivals {
        let Some(change) = state.change(db, *audience, delta)? else { continue };
        let moment = match stamp {
            Some(stamp) => state.moment_at(*audience, *stamp),
            None => state.moment(*audience),
        };
        let moment = Moment { snapshot_at: *snapshot_at, ..moment };
        let now = after.as_ref().or(before);
        let mut next = member::record(now, &change, &moment);
        tally.add(now, &change, &next, &moment);
        match origin {
            Origin::Events => {
                state.count_flip(*audience, now, &next, (moment.stamp, stamp.is_some()));
            }
            Origin::Snapshot => next = member::confirmed(next),
        }
        if let Next::Write(next) = next {
            after = Some(next);
        }
    }
    Ok(after.filter(|after| before != Some(after)))
}
