//! Which of the waiting members share a batch: a pure rule that every store applies to its members in the
//! order in which they began to wait.

use std::num::NonZeroUsize;

use super::member::Member;
use super::{ClaimedMember, Room, Route};
use crate::membership::{ContextKey, Timestamp};

/// Collects a batch. The first member decides which others may join: one that was refused alone gets a batch
/// of its own, the halves of a refused batch keep to themselves, and all others mix. The batch ends where the
/// next member would exceed the limit of members or bytes; the first one is always taken, whatever its size.
#[derive(Debug)]
pub(crate) struct Picking {
    limit: NonZeroUsize,
    /// Bytes that the call may still take, and bytes of a member without its key.
    left_bytes: usize,
    member_bytes: usize,
    key_bytes: fn(&ContextKey) -> usize,
    taken: Vec<ClaimedMember>,
    alone: bool,
    with: Option<Timestamp>,
    /// Members left for another batch.
    left: usize,
}

/// Stop looking after leaving this many members that must not share the batch: otherwise each batch might
/// read the whole backlog.
const MOST_LEFT: usize = 2000;

/// What happens to a waiting member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Picked {
    /// It is in the batch.
    Taken,
    /// It is not in this batch; offer the next one.
    Left,
    /// It is not in this batch, and no later one will be.
    Enough,
}

impl Picking {
    /// Starts a batch for this route.
    pub fn new(room: Room, route: &Route) -> Self {
        let Room { members, bytes, measure } = room;
        Self {
            limit: members,
            left_bytes: bytes.saturating_sub((measure.call)(route)),
            member_bytes: (measure.member)(route),
            key_bytes: measure.key,
            taken: Vec::new(),
            alone: false,
            with: None,
            left: 0,
        }
    }

    /// Offers a pending member that is not in flight.
    pub fn offer(&mut self, context_key: &ContextKey, member: &Member) -> Picked {
        let is_alone = member.parked_at.is_some();
        if self.taken.is_empty() {
            (self.alone, self.with) = (is_alone, member.refused_with);
        }
        let matches = !self.alone && !is_alone && member.refused_with == self.with;
        let mut is_full = self.taken.len() == self.limit.get();
        let mut bytes = 0;
        if self.taken.is_empty() || (matches && !is_full) {
            bytes = self.member_bytes + (self.key_bytes)(context_key);
            is_full = bytes > self.left_bytes;
        }
        if self.taken.is_empty() || (matches && !is_full) {
            self.left_bytes = self.left_bytes.saturating_sub(bytes);
            let (membership, version) = (member.membership, member.version);
            let context_key = context_key.clone();
            self.taken.push(ClaimedMember { context_key, membership, version });
            return Picked::Taken;
        }
        // The members of a half are adjacent in waiting order; other members that fit may be anywhere.
        self.left += 1;
        let enough = self.alone || self.with.is_some() || is_full || self.left == MOST_LEFT;
        if enough { Picked::Enough } else { Picked::Left }
    }

    /// The batch; empty if no member was offered.
    pub fn taken(self) -> Vec<ClaimedMember> {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ledger::Measure;
    use crate::ledger::member::{self, Change, Moment, Next};
    use crate::membership::{AudienceId, AudienceKey, ContextKind, DestinationName, Membership};

    fn waiting(parked_at: Option<i64>) -> Member {
        let change = Change {
            membership: Membership::In,
            event_at: Timestamp(1),
            key_rule: 1,
            person: None,
            is_repeat: false,
        };
        let moment = Moment {
            stamp: Timestamp(2),
            told_counts_from: Timestamp::EPOCH,
            repeat_window: Duration::ZERO,
            unheard_through: Timestamp::EPOCH,
            expires_after: None,
            snapshot_at: Timestamp::EPOCH,
        };
        let Next::Write(member) = member::record(None, &change, &moment) else {
            panic!("the first delta is written")
        };
        Member { parked_at: parked_at.map(Timestamp), ..member }
    }

    /// A call takes 100 bytes, plus 10 for each member and one for each byte of its key.
    fn picking(members: usize, bytes: usize) -> Picking {
        let route = Route {
            destination: DestinationName::new("production").expect("a name"),
            audience: AudienceId::new("aud_1").expect("not empty"),
            audience_key: AudienceKey::new("vip").expect("not empty"),
            context_kind: ContextKind::new("user").expect("a kind"),
        };
        let measure =
            Measure { call: |_| 100, member: |_| 10, key: |key: &ContextKey| key.as_str().len() };
        let members = NonZeroUsize::new(members).expect("not zero");
        Picking::new(Room { members, bytes, measure }, &route)
    }

    #[test]
    fn a_batch_ends_where_its_call_would_be_too_large() {
        use Picked::{Enough, Taken};
        let rows: [(usize, usize, &[usize], &[Picked]); 6] = [
            (9, 150, &[15, 15], &[Taken, Taken]),
            (9, 150, &[15, 16, 1], &[Taken, Enough, Taken]),
            (9, 150, &[500, 1], &[Taken, Enough]), // alone
            (9, 0, &[1, 1], &[Taken, Enough]),
            (1, 150, &[1, 1], &[Taken, Enough]),
            (2, usize::MAX, &[900, 900, 1], &[Taken, Taken, Enough]),
        ];
        for (members, bytes, keys, expected) in rows {
            let mut picking = picking(members, bytes);
            let mut offer = |bytes: &usize| {
                let key = ContextKey::new(&"x".repeat(*bytes)).expect("not empty");
                picking.offer(&key, &waiting(None))
            };
            let picked: Vec<_> = keys.iter().map(&mut offer).collect();
            assert_eq!(picked, expected, "{members} members, {bytes} bytes, {keys:?}");
        }
    }

    #[test]
    fn whoever_was_refused_alone_travels_alone_and_each_half_by_itself() {
        use Picked::{Enough, Left, Taken};
        let plain = || waiting(None);
        let alone = || waiting(Some(1));
        let of_half = |half| Member { refused_with: Some(Timestamp(half)), ..waiting(None) };
        let rows: [(&str, &[Member], &[Picked]); 6] = [
            ("alone", &[alone(), plain()], &[Taken, Enough]),
            ("each alone", &[alone(), alone()], &[Taken, Enough]),
            ("a half", &[of_half(7), of_half(7), plain()], &[Taken, Taken, Enough]),
            ("the other half", &[of_half(7), of_half(8)], &[Taken, Enough]),
            ("from behind a half", &[plain(), of_half(7), plain()], &[Taken, Left, Taken]),
            ("from behind one alone", &[plain(), alone(), plain()], &[Taken, Left, Taken]),
        ];
        for (case, members, expected) in rows {
            let mut picking = picking(9, usize::MAX);
            let key = ContextKey::new("ada").expect("not empty");
            let picked: Vec<_> = members.iter().map(|member| picking.offer(&key, member)).collect();
            assert_eq!(picked, expected, "{case}");
        }
    }

    #[test]
    fn a_batch_is_gathered_from_between_those_who_travel_alone_but_not_from_behind_very_many() {
        let mut picking = picking(usize::MAX, usize::MAX);
        let key = &ContextKey::new("ada").expect("not empty");
        assert_eq!(picking.offer(key, &waiting(None)), Picked::Taken);
        for _ in 1..MOST_LEFT {
            assert_eq!(picking.offer(key, &waiting(Some(1))), Picked::Left);
        }
        assert_eq!(picking.offer(key, &waiting(None)), Picked::Taken);
        assert_eq!(picking.offer(key, &waiting(Some(1))), Picked::Enough);
        assert_eq!(picking.taken().len(), 2);
    }
}
