//! Which of the waiting members travel together: a pure rule that every store applies to its rows in
//! the order in which they began to wait.

use std::num::NonZeroUsize;

use super::ClaimedMember;
use super::member::Member;
use crate::membership::{ContextKey, Timestamp};

/// Gathers a batch. The first one decides who may come along: one that was refused alone travels
/// alone, the halves of a refused batch keep to themselves, and everybody else travels together.
#[derive(Debug)]
pub(super) struct Picking {
    limit: NonZeroUsize,
    taken: Vec<ClaimedMember>,
    alone: bool,
    with: Option<Timestamp>,
    /// How many were left for another batch.
    left: usize,
}

/// Behind so many that travel otherwise nobody is looked for any more: that would cost each batch a
/// reading of the whole backlog.
const MOST_LEFT: usize = 2000;

/// What becomes of a waiting member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Picked {
    /// It is in the batch.
    Taken,
    /// Not in this one; look further.
    Left,
    /// Not in this one, and nobody behind it will be.
    Enough,
}

impl Picking {
    pub fn new(limit: NonZeroUsize) -> Self {
        Self { limit, taken: Vec::new(), alone: false, with: None, left: 0 }
    }

    /// Offers a member that waits and is in no batch.
    pub fn offer(&mut self, context_key: &ContextKey, member: &Member) -> Picked {
        let is_alone = member.parked_at.is_some();
        if self.taken.is_empty() {
            (self.alone, self.with) = (is_alone, member.refused_with);
        }
        let matches = !self.alone && !is_alone && member.refused_with == self.with;
        if self.taken.is_empty() || (matches && self.taken.len() < self.limit.get()) {
            let (membership, version) = (member.membership, member.version);
            let context_key = context_key.clone();
            self.taken.push(ClaimedMember { context_key, membership, version });
            return Picked::Taken;
        }
        // A half is together in the order of waiting; the others may be anywhere.
        self.left += 1;
        let enough = self.alone
            || self.with.is_some()
            || self.taken.len() == self.limit.get()
            || self.left == MOST_LEFT;
        if enough { Picked::Enough } else { Picked::Left }
    }

    /// The batch; empty if nobody was offered.
    pub fn taken(self) -> Vec<ClaimedMember> {
        self.taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ledger::member::{self, Change, Moment, Next};
    use crate::membership::Membership;

    fn waiting(parked_at: Option<i64>) -> Member {
        let change = Change {
            membership: Membership::In,
            event_at: Timestamp(1),
            key_rule: 1,
            person: None,
        };
        let moment = Moment {
            stamp: Timestamp(2),
            told_counts_from: Timestamp::EPOCH,
            repeat_window: Duration::ZERO,
            unheard_through: Timestamp::EPOCH,
        };
        let Next::Write(member) = member::record(None, &change, &moment) else {
            panic!("the first delta is written")
        };
        Member { parked_at: parked_at.map(Timestamp), ..member }
    }

    #[test]
    fn a_batch_is_gathered_from_between_those_who_travel_alone_but_not_from_behind_very_many() {
        let mut picking = Picking::new(NonZeroUsize::MAX);
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
