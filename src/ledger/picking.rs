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
    pub fn offer(&mut self, context_key: ContextKey, member: &Member) -> Picked {
        let is_alone = member.parked_at.is_some();
        if self.taken.is_empty() {
            (self.alone, self.with) = (is_alone, member.refused_with);
        }
        let matches = !self.alone && !is_alone && member.refused_with == self.with;
        if self.taken.is_empty() || (matches && self.taken.len() < self.limit.get()) {
            let (membership, version) = (member.membership, member.version);
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
