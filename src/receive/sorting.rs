//! Sorting: the events of one body, each put where it belongs: recorded, ignored or rejected.
//!
//! No I/O, so that a heavy body can be sorted on a thread of its own.

use std::cell::LazyCell;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use super::answer::{Account, Refusal};
use super::authentication::Presented;
use super::doors::Door;
use super::envelope::{self, Envelope, Fault};
use crate::ledger::RejectedEvent;
use crate::map::{Outcome, Reason, Rejection, user_id};
use crate::membership::{MembershipDelta, Timestamp, UserId};

/// Most events in one body for one destination: 128 MiB of events of half a KiB, where 1 KiB is usual. Segment sends
/// 4,000 at most; the rest is for backfills by other means.
pub(super) const MOST_EVENTS: usize = 250_000;

/// Most events in one body: what each of several destinations makes of them is in memory at once (P6).
pub(super) fn most_events(door: &Door) -> usize {
    MOST_EVENTS / door.destinations.len().max(1)
}

/// The largest event that is read. Segment's are at most 32 KB and a customer may add fields; a
/// parsed event takes many times its text, so that the whole body must not be one (P6).
pub(super) const EVENT_LIMIT_BYTES: usize = 1024 * 1024;

/// What a sorted event takes beside its text: a delta with its texts, or a rejection.
const BYTES_AN_EVENT: usize = 512;

/// The events of one body, sorted.
#[derive(Debug)]
pub(super) struct Sorted {
    /// One for each destination of the door, in its order.
    pub(super) shares: Vec<Share>,
    pub(super) account: Account,
    /// Of the texts above that are no part of the body.
    pub(super) copied_bytes: usize,
}

/// What the events of a body mean to one destination.
#[derive(Debug, Default)]
pub(super) struct Share {
    pub(super) deltas: Vec<MembershipDelta>,
    /// Where each delta came from, should the ledger refuse it.
    pub(super) origins: Vec<Origin>,
    pub(super) deletions: Vec<UserId>,
    /// Those that its mappings rejected and that are worth a replay.
    pub(super) kept: Vec<RejectedEvent>,
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
    let split = envelope::split(body, most_events(door));
    if !door.gate.admits(presented, body, &split, &door.extra_fields) {
        return Err(Refusal::Unauthenticated);
    }
    door.count_request()?;
    let mut sorted = Sorted::of(door);
    match split {
        Ok(Envelope::Single(event)) => sorted.add_raw(door, body, 0, event, arrival),
        Ok(Envelope::Array(_)) if !door.allow_batches => return Err(Refusal::BatchNotAllowed),
        Ok(Envelope::Array(elements)) => {
            for share in &mut sorted.shares {
                share.deltas.reserve(elements.len());
                share.origins.reserve(elements.len());
            }
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

impl Share {
    /// Whether there is nothing that must be durable before the answer.
    pub(super) fn leaves_no_trace(&self) -> bool {
        self.deltas.is_empty() && self.deletions.is_empty() && self.kept.is_empty()
    }

    fn accept(&mut self, index: usize, delta: MembershipDelta, event: Bytes) {
        self.origins.push(Origin { index, event, user_id: delta.user_id.clone() });
        self.deltas.push(delta);
    }

    fn keep(&mut self, rejection: &Rejection, text: &[u8], user: Option<UserId>) {
        if rejection.worth_keeping() {
            self.kept.push(rejected_event(rejection, text, user));
        }
    }
}

impl Sorted {
    /// Nothing yet, for the destinations of this door.
    pub(super) fn of(door: &Door) -> Self {
        Self {
            shares: door.destinations.iter().map(|_| Share::default()).collect(),
            account: Account { accepted: 0, ignored: 0, rejected: Vec::new() },
            copied_bytes: 0,
        }
    }

    /// Roughly the memory this holds beside the body, for the budget.
    pub(super) fn weight_bytes(&self) -> usize {
        let of = |share: &Share| {
            let bodies: usize = share.kept.iter().map(|event| event.body.len()).sum();
            bodies + BYTES_AN_EVENT * share.deltas.len()
        };
        let shares: usize = self.shares.iter().map(of).sum();
        shares + self.copied_bytes + BYTES_AN_EVENT * self.account.rejected.len()
    }

    /// Adds an event as it stands in the body.
    pub(super) fn add_raw(
        &mut self,
        door: &Door,
        body: &Bytes,
        index: usize,
        text: &[u8],
        arrival: Timestamp,
    ) {
        if let ([destination], [share]) = (&door.destinations[..], &mut self.shares[..])
            && text.len() <= EVENT_LIMIT_BYTES
            && let Some(delta) = destination.mappings.map_plain(text, arrival)
        {
            share.accept(index, delta, body.slice_ref(text));
            self.account.accepted += 1;
            return;
        }
        match read(text) {
            Ok(event) => self.add(door, index, &event, arrival, || body.slice_ref(text)),
            Err(rejection) => self.reject(index, rejection, text),
        }
    }

    /// Adds an event; `text` is what it is kept as, if it is. It is accepted if one destination accepts
    /// it, and each rejection is kept for the destination whose mappings it comes from.
    pub(super) fn add(
        &mut self,
        door: &Door,
        index: usize,
        event: &Value,
        arrival: Timestamp,
        text: impl Fn() -> Bytes,
    ) {
        let text = LazyCell::new(text);
        let (mut accepted, mut rejected): (bool, Option<Rejection>) = (false, None);
        for (destination, share) in door.destinations.iter().zip(&mut self.shares) {
            match destination.mappings.map(event, arrival) {
                Outcome::Accepted { deltas, rejection } => {
                    for delta in deltas {
                        share.accept(index, delta, text.clone());
                    }
                    // The event is accepted; what one mapping could not read is kept all the same.
                    if let Some(rejection) = rejection {
                        share.keep(&rejection, &text, user_id(event));
                    }
                    accepted = true;
                }
                Outcome::Deletion(user_id) => {
                    share.deletions.push(user_id);
                    accepted = true;
                }
                Outcome::Ignored => {}
                Outcome::Rejected(rejection) => {
                    share.keep(&rejection, &text, user_id(event));
                    rejected = Some(match rejected {
                        Some(before) => before.and(rejection),
                        None => rejection,
                    });
                }
            }
        }
        match rejected {
            _ if accepted => self.account.accepted += 1,
            Some(rejection) => self.account.rejected.push((index, rejection)),
            None => self.account.ignored += 1,
        }
    }

    /// Adds an event that none can read.
    pub(super) fn reject(&mut self, index: usize, rejection: Rejection, text: &[u8]) {
        for share in &mut self.shares {
            share.keep(&rejection, text, None);
        }
        self.account.rejected.push((index, rejection));
    }
}

impl Account {
    /// Moves events whose audience has another context kind from the accepted to the rejected, where no
    /// delta of theirs was recorded. For each share its origins and the positions of the conflicts in
    /// them; both ascend. What is kept is of each share too.
    pub(super) fn reject_kind_conflicts(
        &mut self,
        shares: &[(Vec<Origin>, Vec<usize>)],
    ) -> Vec<Vec<RejectedEvent>> {
        let rejection = Rejection::context_kind_conflict();
        let mut refused: BTreeMap<usize, usize> = BTreeMap::new();
        let mut kept = Vec::with_capacity(shares.len());
        for (origins, conflicts) in shares {
            let of: Vec<&Origin> = conflicts.iter().filter_map(|at| origins.get(*at)).collect();
            let of_one_event = of.chunk_by(|one, next| one.index == next.index);
            kept.push(
                of_one_event
                    .map(|deltas| {
                        let origin = deltas[0];
                        *refused.entry(origin.index).or_default() += deltas.len();
                        rejected_event(&rejection, &origin.event, origin.user_id.clone())
                    })
                    .collect(),
            );
        }
        for (index, refused) in refused {
            let deltas = |(origins, _): &(Vec<Origin>, _)| {
                let start = origins.partition_point(|before| before.index < index);
                origins[start..].iter().take_while(|of| of.index == index).count()
            };
            // What another mapping made of the event may have been recorded.
            if shares.iter().map(deltas).sum::<usize>() == refused {
                self.rejected.push((index, rejection.clone()));
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::map::{AudienceRules, Glob, Mapping, Subscription};
    use crate::membership::DestinationName;
    use crate::receive::fake::entrance;
    use crate::receive::{Destination, Doors, Entrance};

    const ARRIVAL: Timestamp = Timestamp(1_750_000_000_000_000);

    /// A route to `all`, which takes identify calls of every audience, and to `few`, which takes those
    /// of `vip` and needs an email.
    fn route() -> Arc<Door> {
        let mut few = Mapping::preset();
        few.subscribe(Subscription::parse("type = \"identify\"").expect("FQL"));
        few.set_field("context_key", &json!("email_only")).expect("a rule");
        let allow = vec![Glob::new("vip").expect("a glob")];
        few.set_audiences(AudienceRules { allow, ..AudienceRules::default() });
        let to = |name: &str, mapping: Mapping| {
            let name = DestinationName::new(name).expect("a name");
            Arc::new(Destination { name, enabled: true, mappings: mapping.into() })
        };
        let destinations = vec![to("all", Mapping::preset()), to("few", few)];
        let doors = Doors::new([Entrance { destinations, ..entrance("both") }]);
        doors.at("both").expect("it is there")
    }

    fn event(user: Option<&str>, audience: &str, email: Option<&str>) -> Value {
        json!({
            "type": "identify",
            "userId": user,
            "context": {"personas": {
                "computation_id": audience, "computation_key": audience,
                "computation_class": "audience",
            }},
            "traits": {audience: true, "email": email},
        })
    }

    fn sorted(events: &[Value]) -> Sorted {
        let door = route();
        let mut sorted = Sorted::of(&door);
        for (index, event) in events.iter().enumerate() {
            sorted.add(&door, index, event, ARRIVAL, || event.to_string().into());
        }
        sorted
    }

    #[test]
    fn an_event_is_accepted_by_one_of_several_and_each_rejection_is_kept_where_it_came_from() {
        let page = json!({"type": "page"});
        let delete = json!({"type": "delete", "userId": "u1"});
        let (user, email) = (Some("u1"), Some("a@b.c"));
        // event, accepted, ignored, and for each destination: deltas, deletions, kept
        let table = [
            (event(user, "vip", email), (1, 0), [(1, 0, 0), (1, 0, 0)]),
            (event(user, "vip", None), (1, 0), [(1, 0, 0), (0, 0, 1)]),
            (event(None, "vip", email), (1, 0), [(0, 0, 1), (1, 0, 0)]),
            (event(None, "vip", None), (0, 0), [(0, 0, 1), (0, 0, 1)]),
            (event(user, "other", None), (1, 0), [(1, 0, 0), (0, 0, 0)]),
            (event(None, "other", email), (0, 0), [(0, 0, 1), (0, 0, 0)]),
            (page, (0, 1), [(0, 0, 0), (0, 0, 0)]),
            (delete, (1, 0), [(0, 1, 0), (0, 1, 0)]),
            (json!(7), (0, 0), [(0, 0, 0), (0, 0, 0)]),
        ];
        for (event, (accepted, ignored), expected) in table {
            let Sorted { shares, account, .. } = sorted(std::slice::from_ref(&event));
            assert_eq!((account.accepted, account.ignored), (accepted, ignored), "{event}");
            assert_eq!(account.rejected.len(), 1 - accepted - ignored, "{event}");
            let found: Vec<_> = shares
                .iter()
                .map(|share| (share.deltas.len(), share.deletions.len(), share.kept.len()))
                .collect();
            assert_eq!(found, expected, "{event}");
        }
        let door = route();
        let mut unreadable = Sorted::of(&door);
        unreadable.reject(0, Rejection::unreadable(), b"{");
        assert!(unreadable.shares.iter().all(|share| share.kept.len() == 1), "for each of them");
    }

    #[test]
    fn a_conflict_of_kinds_rejects_an_event_that_no_destination_has_recorded() {
        let events = [
            event(Some("u1"), "vip", Some("a@b.c")),
            event(Some("u2"), "vip", None),
            event(Some("u3"), "vip", Some("c@b.c")),
        ];
        // conflicts of each destination, events rejected, kept for each destination
        let table = [
            ([vec![], vec![]], vec![], [0, 0]),
            ([vec![0], vec![]], vec![], [1, 0]),
            ([vec![0], vec![0]], vec![0], [1, 1]),
            ([vec![1], vec![0, 1]], vec![1], [1, 2]),
            ([vec![0, 1, 2], vec![0, 1]], vec![0, 1, 2], [3, 2]),
        ];
        for (conflicts, rejected, expected) in table {
            let Sorted { shares, mut account, .. } = sorted(&events);
            let origins = shares.into_iter().map(|share| share.origins);
            let refused: Vec<_> = origins.zip(conflicts.clone()).collect();
            let kept = account.reject_kind_conflicts(&refused);
            let indices: Vec<_> = account.rejected.iter().map(|(index, _)| *index).collect();
            assert_eq!(indices, rejected, "{conflicts:?}");
            assert_eq!(account.accepted, events.len() - rejected.len(), "{conflicts:?}");
            assert_eq!(kept.iter().map(Vec::len).collect::<Vec<_>>(), expected, "{conflicts:?}");
        }
    }
}
