//! Splits large requests: a store gets no more at a time than it can hold in memory
//! ([P6](crate::design::P6)).
//!
//! Pieces are recorded in order, so that a later item still wins a tie, and what precedes a deletion is
//! recorded before it; the changes of one message stay together. A request of which only some pieces were
//! recorded is answered with 503 and repeated by the sender. That is idempotent, except that rejected events
//! of the recorded pieces are kept twice.

use super::{Intake, OrderedDeletion, Recorded, RejectedEvent};
use crate::membership::MembershipDelta;

/// Most bytes of a piece, unless a single item has more.
pub(crate) const MOST_BYTES: usize = 4 << 20;

/// Bytes of an item besides its texts, in memory and as a row.
const BYTES_AN_ITEM: usize = 64;

/// A part of a request that is recorded at once.
#[derive(Debug)]
pub(crate) struct Piece {
    pub intake: Intake,
    /// Index of the intake that it is a part of.
    pub of: usize,
    /// How many deltas of that intake precede it.
    pub first_delta: usize,
}

/// The pieces of a request, in order.
pub(crate) fn pieces(intakes: Vec<Intake>) -> impl Iterator<Item = Piece> {
    let all = intakes.into_iter().enumerate();
    all.flat_map(|(of, intake)| taken_apart(of, intake, MOST_BYTES))
}

impl Recorded {
    /// Adds the outcome of a piece that `first_delta` deltas precede.
    pub(crate) fn add(&mut self, piece: Self, first_delta: usize) {
        let behind = |positions: Vec<usize>| positions.into_iter().map(move |at| at + first_delta);
        self.kind_conflicts.extend(behind(piece.kind_conflicts));
        self.without_place.extend(behind(piece.without_place));
    }
}

impl Intake {
    /// About how many bytes it holds.
    pub(crate) fn bytes(&self) -> usize {
        let deltas: usize = self.deltas.iter().map(delta_bytes).sum();
        let rejected: usize = self.rejected.iter().map(rejected_bytes).sum();
        deltas + rejected + self.deletions.iter().map(deletion_bytes).sum::<usize>()
    }
}

fn delta_bytes(delta: &MembershipDelta) -> usize {
    let user_id = delta.user_id.as_ref().map_or(0, |id| id.as_str().len());
    let texts = [
        delta.audience.as_str(),
        delta.audience_key.as_str(),
        delta.context_kind.as_str(),
        delta.context_key.as_str(),
    ];
    BYTES_AN_ITEM + user_id + texts.map(str::len).iter().sum::<usize>()
}

fn rejected_bytes(event: &RejectedEvent) -> usize {
    let user_id = event.user_id.as_ref().map_or(0, |id| id.as_str().len());
    BYTES_AN_ITEM + event.body.len() + event.detail.len() + user_id
}

fn deletion_bytes(ordered: &OrderedDeletion) -> usize {
    BYTES_AN_ITEM + ordered.deletion.user_id.as_str().len()
}

/// Splits an intake into pieces of at most `most_bytes`, or of one item.
fn taken_apart(of: usize, intake: Intake, most_bytes: usize) -> Vec<Piece> {
    let Intake { destination, arrival, deltas, deletions, rejected, origin } = intake;
    let mut apart = Apart {
        of,
        most_bytes,
        empty: Intake {
            destination,
            arrival,
            deltas: vec![],
            deletions: vec![],
            rejected: vec![],
            origin,
        },
        bytes: 0,
        current: None,
        done: Vec::new(),
        deltas: 0,
    };
    let (mut deltas, mut rejected) = (deltas.into_iter(), rejected.into_iter());
    let (mut deltas_taken, mut rejected_taken) = (0, 0);
    for deletion in deletions {
        let OrderedDeletion { after_deltas, after_rejected, .. } = deletion;
        deltas
            .by_ref()
            .take(after_deltas.saturating_sub(deltas_taken))
            .for_each(|delta| apart.delta(delta));
        rejected
            .by_ref()
            .take(after_rejected.saturating_sub(rejected_taken))
            .for_each(|one| apart.reject(one));
        (deltas_taken, rejected_taken) = (after_deltas, after_rejected);
        apart.delete(deletion);
    }
    deltas.for_each(|delta| apart.delta(delta));
    rejected.for_each(|event| apart.reject(event));
    apart.done.extend(apart.current);
    apart.done
}

/// An intake that is being split.
struct Apart {
    of: usize,
    most_bytes: usize,
    empty: Intake,
    /// Bytes of the current piece.
    bytes: usize,
    current: Option<Piece>,
    done: Vec<Piece>,
    /// Deltas that have been put into pieces.
    deltas: usize,
}

impl Apart {
    /// The piece to which `bytes` can be added; starts a new one if needed. `goes_on`: same message as the
    /// item before, so the same piece.
    fn with_room(&mut self, bytes: usize, goes_on: bool) -> &mut Intake {
        if self.bytes + bytes > self.most_bytes && !goes_on {
            self.done.extend(self.current.take());
        }
        self.bytes = if self.current.is_some() { self.bytes + bytes } else { bytes };
        let new = || Piece { intake: self.empty.clone(), of: self.of, first_delta: self.deltas };
        &mut self.current.get_or_insert_with(new).intake
    }

    fn delta(&mut self, delta: MembershipDelta) {
        let last = self.current.as_ref().and_then(|piece| piece.intake.deltas.last());
        let before = last.and_then(|last| last.message).map(|message| message.hash);
        let goes_on = before.is_some() && before == delta.message.map(|message| message.hash);
        self.with_room(delta_bytes(&delta), goes_on).deltas.push(delta);
        self.deltas += 1;
    }

    fn reject(&mut self, event: RejectedEvent) {
        self.with_room(rejected_bytes(&event), false).rejected.push(event);
    }

    fn delete(&mut self, mut ordered: OrderedDeletion) {
        let piece = self.with_room(deletion_bytes(&ordered), false);
        ordered.after_deltas = piece.deltas.len();
        ordered.after_rejected = piece.rejected.len();
        piece.deletions.push(ordered);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::membership::{
        AudienceId, AudienceKey, ContextKey, ContextKind, Deletion, DestinationName, Membership,
        Timestamp, UserId,
    };

    fn delta(key: &str) -> MembershipDelta {
        MembershipDelta {
            audience: AudienceId::new("aud").expect("not empty"),
            audience_key: AudienceKey::new("aud").expect("not empty"),
            context_kind: ContextKind::new("user").expect("a kind"),
            context_key: ContextKey::new(key).expect("not empty"),
            membership: Membership::In,
            event_at: Timestamp(1),
            user_id: None,
            key_rule: 0,
            message: None,
        }
    }

    fn rejected(body: &str) -> RejectedEvent {
        RejectedEvent {
            reason: "no_context_key".into(),
            detail: String::new(),
            body: body.into(),
            user_id: None,
            event_at: Timestamp(1),
        }
    }

    fn deletion(user_id: &str, after_deltas: usize, after_rejected: usize) -> OrderedDeletion {
        let user_id = UserId::new(user_id).expect("not empty");
        let deletion = Deletion { user_id, event_at: Timestamp(1), message: None };
        OrderedDeletion { deletion, is_unconditional: false, after_deltas, after_rejected }
    }

    /// Items in the order in which the ledger applies them: a deletion after what precedes it.
    fn in_order(intake: &Intake) -> Vec<String> {
        let mut all = Vec::new();
        let (mut deltas, mut rejected) = (intake.deltas.iter(), intake.rejected.iter());
        let (mut of_deltas, mut of_rejected) = (0, 0);
        let mut take = |deltas_to: usize, rejected_to: usize, all: &mut Vec<String>| {
            let keys = deltas.by_ref().take(deltas_to - of_deltas);
            all.extend(keys.map(|delta| delta.context_key.as_str().to_owned()));
            let bodies = rejected.by_ref().take(rejected_to - of_rejected);
            all.extend(bodies.map(|event| String::from_utf8_lossy(&event.body).into_owned()));
            (of_deltas, of_rejected) = (deltas_to, rejected_to);
        };
        for ordered in &intake.deletions {
            take(ordered.after_deltas, ordered.after_rejected, &mut all);
            all.push(format!("delete {}", ordered.deletion.user_id.as_str()));
        }
        take(intake.deltas.len(), intake.rejected.len(), &mut all);
        all
    }

    #[derive(Clone, Debug)]
    enum Item {
        Delta(usize),
        Rejected(usize),
        Deletion,
    }

    fn item() -> impl Strategy<Value = Item> {
        prop_oneof![
            4 => (1..300_usize).prop_map(Item::Delta),
            2 => (1..600_usize).prop_map(Item::Rejected),
            1 => Just(Item::Deletion),
        ]
    }

    proptest! {
        #[test]
        fn pieces_hold_the_same_in_the_same_order(
            items in prop::collection::vec(item(), 0..40),
            most_bytes in 1..2000_usize,
        ) {
            let mut intake = Intake {
                destination: DestinationName::new("eu").expect("a name"),
                arrival: Timestamp(7),
                deltas: Vec::new(),
                deletions: Vec::new(),
                rejected: Vec::new(),
                origin: crate::ledger::Origin::Events,
            };
            for (number, item) in items.into_iter().enumerate() {
                match item {
                    Item::Delta(length) => {
                        intake.deltas.push(delta(&format!("{number}-{}", "k".repeat(length))));
                    }
                    Item::Rejected(length) => {
                        intake.rejected.push(rejected(&format!("{number}-{}", "b".repeat(length))));
                    }
                    Item::Deletion => {
                        let (deltas, rejected) = (intake.deltas.len(), intake.rejected.len());
                        intake.deletions.push(deletion(&number.to_string(), deltas, rejected));
                    }
                }
            }
            let whole = intake.clone();
            let apart = taken_apart(3, intake, most_bytes);
            let order: Vec<_> = apart.iter().flat_map(|piece| in_order(&piece.intake)).collect();
            prop_assert_eq!(order, in_order(&whole));
            let mut deltas = 0;
            for piece in &apart {
                prop_assert_eq!((piece.of, piece.first_delta), (3, deltas));
                deltas += piece.intake.deltas.len();
                let items = piece.intake.items();
                prop_assert!(items == 1 || piece.intake.bytes() <= most_bytes, "{} bytes", piece.intake.bytes());
                prop_assert!(items > 0);
            }
        }
    }

    #[test]
    fn positions_count_from_the_first_delta_of_the_request() {
        let mut recorded = Recorded { kind_conflicts: vec![1], without_place: vec![0] };
        let piece = Recorded { kind_conflicts: vec![0, 2], without_place: vec![1] };
        recorded.add(piece, 10);
        let expected = Recorded { kind_conflicts: vec![1, 10, 12], without_place: vec![0, 11] };
        assert_eq!(recorded, expected);
    }
}
