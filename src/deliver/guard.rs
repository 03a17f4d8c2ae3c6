//! The guard against a refusal that is everybody's.
//!
//! When many members in a row are refused alone and none is taken in between, it is not the members:
//! parking them all would empty the backlog into the parked list. The destination is held instead.
//! If a member is taken after that, it was the members after all, and the next alarm needs twice as
//! many; a batch that is taken whole makes the guard as watchful as before.

use crate::ledger::Batch;

const WATCHFUL: usize = 10;

/// Members that were refused alone, with none taken since.
#[derive(Debug)]
pub(super) struct Guard {
    refused: Vec<Batch>,
    threshold: usize,
}

impl Guard {
    pub fn new() -> Self {
        Self { refused: Vec::new(), threshold: WATCHFUL }
    }

    /// A member was refused alone. `Some`: the alarm; these are to be unparked.
    pub fn refused(&mut self, member: Batch) -> Option<Vec<Batch>> {
        // One that is refused again, with a newer value, says nothing about the others.
        self.refused.retain(|other| !is_same(other, &member));
        self.refused.push(member);
        if self.refused.len() < self.threshold {
            return None;
        }
        self.threshold = self.threshold.saturating_mul(2);
        Some(std::mem::take(&mut self.refused))
    }

    /// LaunchDarkly took this many members in one request.
    pub fn taken(&mut self, members: usize) {
        self.refused.clear();
        if members > 1 {
            self.threshold = WATCHFUL;
        }
    }
}

/// Both are of one member.
fn is_same(one: &Batch, other: &Batch) -> bool {
    let key = |batch: &Batch| batch.members.first().map(|member| member.context_key.clone());
    one.route.audience == other.route.audience && key(one) == key(other)
}
