//! The guard against a refusal that is everybody's.
//!
//! When many members in a row are refused alone and none is taken in between, it is not the members:
//! parking them all would empty the backlog into the parked list. The destination is held instead.
//! If a member is taken after that, it was the members after all, and the next alarm needs twice as
//! many, up to a limit; a batch that is taken whole makes the guard as watchful as before.

use crate::ledger::Batch;

const WATCHFUL: usize = 10;
/// Whoever was refused is known until the alarm: it never takes more than so many (P6).
const LEAST_WATCHFUL: usize = WATCHFUL << 7;

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
        self.threshold = (self.threshold * 2).min(LEAST_WATCHFUL);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ledger::{ClaimedMember, Route};
    use crate::membership::{
        AudienceId, AudienceKey, ContextKey, ContextKind, DestinationName, Membership, Timestamp,
    };

    fn alone(number: usize) -> Batch {
        let route = Route {
            destination: DestinationName::new("production").expect("a name"),
            audience: AudienceId::new("aud_1").expect("not empty"),
            audience_key: AudienceKey::new("vip").expect("not empty"),
            context_kind: ContextKind::new("user").expect("a kind"),
        };
        let member = ClaimedMember {
            context_key: ContextKey::new(&number.to_string()).expect("not empty"),
            membership: Membership::In,
            version: Timestamp(1),
        };
        Batch { route: Arc::new(route), members: vec![member] }
    }

    #[test]
    fn each_alarm_needs_twice_as_many_up_to_a_limit() {
        let mut guard = Guard::new();
        let mut refused = (0..).map(alone);
        let mut alarms = Vec::new();
        while alarms.len() < 10 {
            let next = refused.next().expect("there is no end");
            alarms.extend(guard.refused(next).map(|all| all.len()));
        }
        assert_eq!(alarms, [10, 20, 40, 80, 160, 320, 640, 1280, 1280, 1280]);
    }
}
