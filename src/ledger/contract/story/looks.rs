//! What can be seen of a store, without the times that are the store's own.

use std::collections::BTreeMap;

use crate::ledger::contract::START;
use crate::ledger::{MemberView, Operations, ParkedAfter};
use crate::membership::{DestinationName, Timestamp};

/// Everything that people and couriers see of a destination, as lines by subject.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Looks {
    members: Vec<String>,
    audiences: Vec<String>,
    destination: Option<String>,
    parked: Vec<String>,
    rejected: Vec<String>,
    /// Audiences that their guards hold, and how many have changed.
    held: Vec<String>,
    paused: bool,
    /// How many wait in an audience.
    pub backlog: BTreeMap<String, u64>,
}

/// Stamps differ between two stores, but not the second in which they were given out.
fn second_of(at: Timestamp) -> i64 {
    if at < START { at.0 } else { at.since(START).as_secs().cast_signed() }
}

impl Looks {
    pub async fn of(
        operations: &dyn Operations,
        members: Vec<MemberView>,
        name: &DestinationName,
        is_known: bool,
    ) -> Self {
        let seen = |of: MemberView| {
            let MemberView { audience, context_key, audience_key, context_kind, .. } = &of;
            let (at, told_at) = (second_of(of.event_at), of.told_at.map(second_of));
            let MemberView { included, told, pending, parked, .. } = of;
            format!(
                "{audience} {audience_key} {context_kind} {context_key}: {included} at {at}, told {told:?} at \
                 {told_at:?}, pending {pending}, parked {parked}"
            )
        };
        let mut members: Vec<_> = members.into_iter().map(seen).collect();
        members.sort();
        let audiences =
            operations.audiences(name).await.unwrap_or_default().into_iter().map(|of| {
                let since = (of.pending_since.map(second_of), of.parked_since.map(second_of));
                format!(
                    "{} {} {}: {} in, {} pending, {} parked, since {since:?} {:?}",
                    of.audience,
                    of.audience_key,
                    of.context_kind,
                    of.included,
                    of.pending,
                    of.parked,
                    of.walk
                )
            });
        let destinations = operations.destinations().await.expect("it is open");
        let destination = destinations.into_iter().find(|of| of.name == name.as_str()).map(|of| {
            let since = [of.pending_since, of.parked_since, of.rejected_since].map(|at| at.map(second_of));
            format!(
                "configured {}, paused {}, {} audiences, {} in, {} pending, {} parked, {} rejected, {since:?}",
                of.configured,
                of.paused_since.is_some(),
                of.audiences,
                of.included,
                of.pending,
                of.parked,
                of.rejected
            )
        });
        let all = ParkedAfter::default();
        let parked = operations.parked(name, None, &all, 999).await.expect("it is open");
        let parked = parked.into_iter().map(|of| {
            format!("{} {}: {} {}", of.audience, of.context_key, of.status, of.answer_id)
        });
        let rejected = operations.rejected(name, 0, 999).await.expect("it is open");
        let rejected = rejected.into_iter().map(|of| {
            format!("{} {}", second_of(of.received_at), String::from_utf8_lossy(&of.body))
        });
        let held = operations.held_audiences(name).into_iter().map(|of| {
            let since = (second_of(of.since), second_of(of.window_since));
            format!(
                "{}: of {} {} left and {} entered, usually {}, since {since:?}",
                of.audience, of.members, of.left, of.entered, of.usual
            )
        });
        let mut looks = Self {
            held: held.collect(),
            members,
            audiences: audiences.collect(),
            destination,
            parked: parked.collect(),
            rejected: rejected.collect(),
            paused: false,
            backlog: BTreeMap::new(),
        };
        if is_known {
            let outbox = operations.outbox(name);
            looks.paused = outbox.paused_since().is_some();
            let backlog = outbox.backlog().await.expect("it is known");
            let waiting =
                backlog.into_iter().map(|of| (of.audience.as_str().to_owned(), of.waiting));
            looks.backlog = waiting.collect();
        }
        looks
    }
}
