//! Sorting: the events of one body, each put where it belongs: recorded, ignored or rejected.
//!
//! No I/O, so that a heavy body can be sorted on a thread of its own.

use bytes::Bytes;
use serde_json::Value;

use super::Door;
use super::answer::{Account, Refusal};
use super::authentication::Presented;
use super::envelope::{self, Envelope, Fault};
use crate::ledger::{Intake, Recorded, RejectedEvent};
use crate::map::{Mappings, Outcome, Reason, Rejection, user_id};
use crate::membership::{DestinationName, MembershipDelta, Timestamp, UserId};

/// Most events in one body: 128 MiB of events of half a KiB, where 1 KiB is usual. Segment sends
/// 4,000 at most; the rest is for backfills by other means.
pub(super) const MOST_EVENTS: usize = 250_000;

/// The largest event that is read. Segment's are at most 32 KB and a customer may add fields; a
/// parsed event takes many times its text, so that the whole body must not be one (P6).
const EVENT_LIMIT_BYTES: usize = 1024 * 1024;

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
    let first = match &split {
        Ok(Envelope::Array(elements)) => elements.first().copied(),
        Ok(Envelope::Single(_)) => None,
        Err(unsplittable) => unsplittable.first,
    };
    let wrapped = first.and_then(envelope::wrapped_event);
    // in the order of likelihood: the short ones first
    let signed = wrapped.into_iter().chain(first).chain([&body[..]]);
    if !door.gate.admits(presented, signed) {
        let event = first.unwrap_or(body).trim_ascii();
        let before = envelope::without_appended(event, &door.extra_fields);
        if !before.is_some_and(|before| door.gate.admits(presented, [&before[..]])) {
            return Err(Refusal::Unauthenticated);
        }
    }
    door.count_request()?;
    let mut sorted = Sorted::default();
    match split {
        Ok(Envelope::Single(event)) => sorted.add_raw(&door.mappings, body, 0, event, arrival),
        Ok(Envelope::Array(_)) if !door.allow_batches => return Err(Refusal::BatchNotAllowed),
        Ok(Envelope::Array(elements)) => {
            sorted.deltas.reserve(elements.len());
            sorted.origins.reserve(elements.len());
            for (index, element) in elements.into_iter().enumerate() {
                let event = envelope::wrapped_event(element).unwrap_or(element);
                sorted.add_raw(&door.mappings, body, index, event, arrival);
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
        bodies + BYTES_AN_EVENT * (self.deltas.len() + self.account.rejected.len())
    }

    /// What the ledger is to make durable, and the account if it does.
    pub(super) fn into_intake(
        self,
        destination: &DestinationName,
        arrival: Timestamp,
    ) -> (Intake, Unsure) {
        let Self { deltas, origins, deletions, kept, account } = self;
        let destination = destination.clone();
        let unsure = Unsure { destination: destination.clone(), arrival, origins, account };
        (Intake { destination, arrival, deltas, deletions, rejected: kept }, unsure)
    }

    /// Adds an event as it stands in the body.
    pub(super) fn add_raw(
        &mut self,
        mappings: &Mappings,
        body: &Bytes,
        index: usize,
        text: &[u8],
        arrival: Timestamp,
    ) {
        match read(text) {
            Ok(event) => self.add(mappings, index, &event, arrival, || body.slice_ref(text)),
            Err(rejection) => self.reject(index, rejection, text, None),
        }
    }

    /// Adds an event; `text` is what it is kept as, if it is.
    pub(super) fn add(
        &mut self,
        mappings: &Mappings,
        index: usize,
        event: &Value,
        arrival: Timestamp,
        text: impl Fn() -> Bytes,
    ) {
        match mappings.map(event, arrival) {
            Outcome::Accepted { deltas, rejection } => {
                for delta in deltas {
                    let user_id = delta.user_id.clone();
                    self.origins.push(Origin { index, event: text(), user_id });
                    self.deltas.push(delta);
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

/// An account that holds if the ledger finds no fault with the audiences.
#[derive(Debug)]
pub(super) struct Unsure {
    destination: DestinationName,
    arrival: Timestamp,
    origins: Vec<Origin>,
    pub(super) account: Account,
}

impl Unsure {
    /// Takes out of the account what was not recorded; what of it is to be kept, if anything.
    pub(super) fn without(&mut self, recorded: &Recorded) -> Option<Intake> {
        let conflicts = &recorded.kind_conflicts;
        (!conflicts.is_empty()).then(|| Intake {
            destination: self.destination.clone(),
            arrival: self.arrival,
            deltas: Vec::new(),
            deletions: Vec::new(),
            rejected: self.account.reject_kind_conflicts(conflicts, &self.origins),
        })
    }
}

impl Account {
    /// Moves events whose audience has another context kind from the accepted to the rejected.
    /// `conflicts` are positions in `origins`; both ascend.
    fn reject_kind_conflicts(
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
