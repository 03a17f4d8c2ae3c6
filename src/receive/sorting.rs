//! Sorting: the events of one body, each put where it belongs: recorded, ignored or rejected.
//!
//! No I/O, so that a heavy body can be sorted on a thread of its own.

use bytes::Bytes;
use serde_json::Value;

use super::Door;
use super::answer::{Account, Refusal};
use super::authentication::Presented;
use super::envelope::{self, Envelope, Fault};
use crate::ledger::RejectedEvent;
use crate::map::{Outcome, Reason, Rejection, user_id};
use crate::membership::{MembershipDelta, Timestamp, UserId};

/// Most events in one body: 128 MiB of events of half a KiB, where 1 KiB is usual. Segment sends
/// 4,000 at most; the rest is for backfills by other means.
pub(super) const MOST_EVENTS: usize = 250_000;

/// The largest event that is read. Segment's are at most 32 KB and a customer may add fields; a
/// parsed event takes many times its text, so that the whole body must not be one (P6).
pub(super) const EVENT_LIMIT_BYTES: usize = 1024 * 1024;

/// What a sorted event takes beside its text: a delta with its texts, or a rejection.
const BYTES_AN_EVENT: usize = 512;

/// The events of one body, sorted.
#[derive(Debug)]
pub(super) struct Sorted {
    pub(super) deltas: Vec<MembershipDelta>,
    /// Where each delta came from, should the ledger refuse it.
    pub(super) origins: Vec<Origin>,
    pub(super) deletions: Vec<UserId>,
    /// Those of the rejected that are worth a replay.
    pub(super) kept: Vec<RejectedEvent>,
    pub(super) account: Account,
    /// Of the texts above that are no part of the body.
    pub(super) copied_bytes: usize,
}

/// The event behind a delta.
#[derive(Debug)]
pub(super) struct Origin {
    index: usize,
    /// A part of the body, not a copy.
    event: Bytes,
    user_id: Option<UserId>,
}

/// Authenticates a body, then sorts its events.
pub(super) fn sort(
    door: &Door,
    presented: &Presented,
    body: &Bytes,
    arrival: Timestamp,
) -> Result<Sorted, Refusal> {
    let split = envelope::split(body, MOST_EVENTS);
    if !door.gate.admits(presented, body, &split, &door.extra_fields) {
        return Err(Refusal::Unauthenticated);
    }
    door.count_request()?;
    let mut sorted = Sorted::default();
    match split {
        Ok(Envelope::Single(event)) => sorted.add_raw(door, body, 0, event, arrival),
        Ok(Envelope::Array(_)) if !door.allow_batches => return Err(Refusal::BatchNotAllowed),
        Ok(Envelope::Array(elements)) => {
            sorted.deltas.reserve(elements.len());
            sorted.origins.reserve(elements.len());
            for (index, element) in elements.into_iter().enumerate() {
                let event = envelope::wrapped_event(element).unwrap_or(element);
                sorted.add_raw(door, body, index, event, arrival);
            }
        }
        Err(unsplittable) => {
            return Err(match unsplittable.fault {
                Fault::NotJson => Refusal::BadJson,
                Fault::TooManyEvents => Refusal::TooManyEvents,
            });
        }
    }
    Ok(sorted)
}

impl Default for Sorted {
    fn default() -> Self {
        Self {
            deltas: Vec::new(),
            origins: Vec::new(),
            deletions: Vec::new(),
            kept: Vec::new(),
            account: Account { accepted: 0, ignored: 0, rejected: Vec::new() },
            copied_bytes: 0,
        }
    }
}

impl Sorted {
    /// Whether there is nothing that must be durable before the answer.
    pub(super) fn leaves_no_trace(&self) -> bool {
        self.deltas.is_empty() && self.deletions.is_empty() && self.kept.is_empty()
    }

    /// Roughly the memory this holds beside the body, for the budget.
    pub(super) fn weight_bytes(&self) -> usize {
        let bodies: usize = self.kept.iter().map(|event| event.body.len()).sum();
        bodies
            + self.copied_bytes
            + BYTES_AN_EVENT * (self.deltas.len() + self.account.rejected.len())
    }

    /// Adds an event as it stands in the body.
    fn add_raw(
        &mut self,
        door: &Door,
        body: &Bytes,
        index: usize,
        text: &[u8],
        arrival: Timestamp,
    ) {
        if text.len() <= EVENT_LIMIT_BYTES
            && let Some(delta) = door.mappings.map_plain(text, arrival)
        {
            self.accept(index, delta, body.slice_ref(text));
            self.account.accepted += 1;
            return;
        }
        match read(text) {
            Ok(event) => self.add(door, index, &event, arrival, || body.slice_ref(text)),
            Err(rejection) => self.reject(index, rejection, text, None),
        }
    }

    /// Adds an event; `text` is what it is kept as, if it is.
    pub(super) fn add(
        &mut self,
        door: &Door,
        index: usize,
        event: &Value,
        arrival: Timestamp,
        text: impl Fn() -> Bytes,
    ) {
        match door.mappings.map(event, arrival) {
            Outcome::Accepted { deltas, rejection } => {
                for delta in deltas {
                    self.accept(index, delta, text());
                }
                // The event is accepted; what one mapping could not read is kept all the same.
                if let Some(rejection) = rejection.filter(Rejection::worth_keeping) {
                    self.kept.push(rejected_event(&rejection, &text(), user_id(event)));
                }
                self.account.accepted += 1;
            }
            Outcome::Deletion(user_id) => {
                self.deletions.push(user_id);
                self.account.accepted += 1;
            }
            Outcome::Ignored => self.account.ignored += 1,
            Outcome::Rejected(rejection) => {
                self.reject(index, rejection, &text(), user_id(event));
            }
        }
    }

    fn accept(&mut self, index: usize, delta: MembershipDelta, event: Bytes) {
        self.origins.push(Origin { index, event, user_id: delta.user_id.clone() });
        self.deltas.push(delta);
    }

    pub(super) fn reject(
        &mut self,
        index: usize,
        rejection: Rejection,
        text: &[u8],
        user: Option<UserId>,
    ) {
        if rejection.worth_keeping() {
            self.kept.push(rejected_event(&rejection, text, user));
        }
        self.account.rejected.push((index, rejection));
    }
}

impl Account {
    /// Moves events whose audience has another context kind from the accepted to the rejected.
    /// `conflicts` are positions in `origins`; both ascend.
    pub(super) fn reject_kind_conflicts(
        &mut self,
        conflicts: &[usize],
        origins: &[Origin],
    ) -> Vec<RejectedEvent> {
        let rejection = Rejection::context_kind_conflict();
        let mut kept = Vec::with_capacity(conflicts.len());
        let refused: Vec<&Origin> =
            conflicts.iter().filter_map(|&position| origins.get(position)).collect();
        for of_one_event in refused.chunk_by(|one, next| one.index == next.index) {
            let origin = of_one_event[0];
            kept.push(rejected_event(&rejection, &origin.event, origin.user_id.clone()));
            let start = origins.partition_point(|before| before.index < origin.index);
            let deltas = origins[start..].iter().take_while(|of| of.index == origin.index).count();
            // What another mapping made of the event may have been recorded.
            if deltas == of_one_event.len() {
                self.rejected.push((origin.index, rejection.clone()));
                self.accepted -= 1;
            }
        }
        self.rejected.sort_by_key(|(index, _)| *index);
        kept
    }
}

fn rejected_event(rejection: &Rejection, text: &[u8], user_id: Option<UserId>) -> RejectedEvent {
    let Rejection { reason, detail } = rejection.clone();
    RejectedEvent { reason: reason.as_str(), detail, body: text.to_vec(), user_id }
}

/// Reads one event. The parser's own words are left out: they may quote the event (P8).
pub(super) fn read(text: &[u8]) -> Result<Value, Rejection> {
    if text.len() > EVENT_LIMIT_BYTES {
        let detail = "An event may have at most 1 MiB; Segment's own limit is 32 KB.";
        return Err(Rejection::new(Reason::EventTooLarge, detail));
    }
    serde_json::from_slice(text).map_err(|_| Rejection::unreadable())
}
